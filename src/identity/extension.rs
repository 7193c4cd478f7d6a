//! The identity that reads an extension of another layer.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{Identify, Identity, RequestHead};
use crate::credential::UserId;

/// Identity that reads the user from a request extension that another layer has set. The extension
/// is the session of tower-sessions, the user of axum-login, or a type of the application.
///
/// The other layer must be outside of the [`WechatLayer`](crate::WechatLayer). In axum, the other
/// layer's `.layer(...)` call therefore comes *after* that of the `WechatLayer`. If the extension
/// is missing, the request has no user, and the identity logs one error.
///
/// ```
/// use tower_wechat::identity::ExtensionIdentity;
/// use tower_wechat::{MemoryStore, UserId, UserTokens, WechatClient, WechatLayer};
///
/// #[derive(Clone)]
/// struct SignedIn { wechat_id: Option<String> }
///
/// # fn main() -> Result<(), tower_wechat::Error> {
/// # let users = UserTokens::new(WechatClient::new("wx01", "secret")?, MemoryStore::new());
/// let identity = ExtensionIdentity::new(|user: &SignedIn| {
///     UserId::new(user.wechat_id.clone()?).ok()
/// });
/// let layer = WechatLayer::new(users).identity(identity);
/// # Ok(()) }
/// ```
pub struct ExtensionIdentity<T, F> {
    read: F,
    missing_logged: Arc<AtomicBool>,
    extension: PhantomData<fn(&T)>,
}

impl<T, F> ExtensionIdentity<T, F>
where
    F: Fn(&T) -> Option<UserId>,
    T: Send + Sync + 'static,
{
    /// Creates an identity that calls `read` with the extension of type `T`.
    pub fn new(read: F) -> Self {
        Self {
            read,
            missing_logged: Arc::default(),
            extension: PhantomData,
        }
    }
}

impl<T, F> Identify for ExtensionIdentity<T, F>
where
    F: Fn(&T) -> Option<UserId>,
    T: Send + Sync + 'static,
{
    fn identify<'a>(&self, head: &RequestHead<'a>) -> Identity<'a> {
        let Some(extension) = head.extensions.get::<T>() else {
            // `Relaxed` suffices, because the flag guards no other memory. Only one thread sees
            // `false` and logs.
            if !self.missing_logged.swap(true, Ordering::Relaxed) {
                tracing::error!(
                    target: "tower_wechat::layer",
                    extension = std::any::type_name::<T>(),
                    "a request had no extension with its user; \
                     put the layer that sets it outside of WechatLayer"
                );
            }
            return Identity::Anonymous;
        };
        match (self.read)(extension) {
            Some(user) => Identity::user(user.as_str().to_owned()),
            None => Identity::Anonymous,
        }
    }
}

impl<T, F: Clone> Clone for ExtensionIdentity<T, F> {
    fn clone(&self) -> Self {
        Self {
            read: self.read.clone(),
            missing_logged: Arc::clone(&self.missing_logged),
            extension: PhantomData,
        }
    }
}

impl<T, F> fmt::Debug for ExtensionIdentity<T, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ExtensionIdentity<{}>", std::any::type_name::<T>())
    }
}
