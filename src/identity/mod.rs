//! Identities, which read the user of a request from its head.
//!
//! | identity | suits |
//! |---|---|
//! | [`SessionCookie`] | services that sign their users in with WeChat |
//! | [`TrustedHeader`] | services behind a gateway that signs users in and sends their ids in a header |
//! | [`ExtensionIdentity`] | services that use tower-sessions, axum-login or a similar layer |
//! | a closure | all other services |
//!
//! ```
//! use tower_wechat::{MemoryStore, RequestHead, TrustedHeader, UserTokens, WechatClient, WechatLayer};
//!
//! # fn main() -> Result<(), tower_wechat::Error> {
//! let wechat = WechatClient::new("wx0123456789abcdef", "secret")?;
//! let users = UserTokens::new(wechat, MemoryStore::new());
//!
//! // A gateway in front of the service signs users in:
//! let layer = WechatLayer::new(users.clone()).identity(TrustedHeader::new("x-user-id")?);
//! # let _ = layer;
//! # Ok(()) }
//! ```

pub(crate) mod cookies;
mod extension;
mod header;
mod keys;
mod session;

use std::borrow::Cow;
use std::fmt;

use http::{Extensions, HeaderMap, HeaderValue, Method, Request, Uri};

pub use self::extension::ExtensionIdentity;
pub use self::header::TrustedHeader;
pub use self::keys::CookieKeys;
pub(crate) use self::keys::KeyedMac;
pub(crate) use self::session::Session;
pub use self::session::{SessionCookie, SessionCookieBuilder};
use crate::credential::{InvalidIdentifier, UserId};

/// The head of a request: its method, URI, headers and extensions.
///
/// `Debug` shows the method and the path only, because headers and queries contain secrets.
///
/// ```
/// use tower_wechat::RequestHead;
///
/// let request = http::Request::get("/me?code=secret").header("cookie", "secret").body(()).unwrap();
/// let head = RequestHead::from_request(&request);
/// assert_eq!(head.uri.path(), "/me");
/// assert_eq!(format!("{head:?}"), r#"RequestHead { method: GET, path: "/me", .. }"#);
/// ```
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct RequestHead<'a> {
    /// The method of the request.
    pub method: &'a Method,
    /// The URI of the request, without a prefix that axum's `nest` has removed.
    pub uri: &'a Uri,
    /// The headers of the request.
    pub headers: &'a HeaderMap,
    /// The extensions of the request, which outer layers have set.
    pub extensions: &'a Extensions,
}

impl<'a> RequestHead<'a> {
    /// Returns the head of a request.
    #[inline]
    pub fn from_request<B>(request: &'a Request<B>) -> Self {
        Self {
            method: request.method(),
            uri: request.uri(),
            headers: request.headers(),
            extensions: request.extensions(),
        }
    }

    /// Returns the URI that the browser requested, with the prefix that axum's `nest` removes from
    /// a request's URI.
    pub(crate) fn original_uri(&self) -> &'a Uri {
        #[cfg(feature = "axum")]
        if let Some(whole) = self.extensions.get::<axum::extract::OriginalUri>() {
            return &whole.0;
        }
        self.uri
    }

    /// Returns the head of a request from the request's `Parts`.
    #[cfg(feature = "axum")]
    pub(crate) fn from_parts(parts: &'a http::request::Parts) -> Self {
        let http::request::Parts {
            method,
            uri,
            headers,
            extensions,
            ..
        } = parts;
        Self {
            method,
            uri,
            headers,
            extensions,
        }
    }
}

impl fmt::Debug for RequestHead<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestHead")
            .field("method", self.method)
            .field("path", &self.uri.path())
            .finish_non_exhaustive()
    }
}

/// The result of an identity: the user of a request, if any.
///
/// ```
/// use tower_wechat::credential::InvalidIdentifier;
/// use tower_wechat::identity::{Identify, Identity};
/// use tower_wechat::RequestHead;
///
/// /// A proxy has verified the client's certificate and sends its name in a header.
/// struct ClientCertificate;
///
/// impl Identify for ClientCertificate {
///     fn identify<'a>(&self, head: &RequestHead<'a>) -> Identity<'a> {
///         match head.headers.get("x-client-name").map(|name| name.to_str()) {
///             None => Identity::Anonymous,
///             Some(Ok(name)) => Identity::user(name),
///             Some(Err(_)) => Identity::Invalid(InvalidIdentifier::NotUtf8),
///         }
///     }
/// }
///
/// let request = http::Request::get("/").header("x-client-name", "alice").body(()).unwrap();
/// let identity = ClientCertificate.identify(&RequestHead::from_request(&request));
/// assert!(matches!(identity, Identity::User(_)));
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Identity<'a> {
    /// The request has no user.
    Anonymous,
    /// The request has this user.
    User(IdentifiedUser<'a>),
    /// The request has a value that cannot be a user's id. The layer answers with 400.
    Invalid(InvalidIdentifier),
}

/// The user of a request.
///
/// The type has no public methods. An identity that wraps another one passes the user on unchanged,
/// because the user also contains the state of the session.
///
/// ```
/// use tower_wechat::identity::{Identify, Identity};
/// use tower_wechat::{RequestHead, SessionCookie};
///
/// /// Ignores the cookie on the pages of administrators, who sign in by other means.
/// struct OutsideOfAdmin(SessionCookie);
///
/// impl Identify for OutsideOfAdmin {
///     fn identify<'a>(&self, head: &RequestHead<'a>) -> Identity<'a> {
///         match self.0.identify(head) {
///             Identity::User(user) if !head.uri.path().starts_with("/admin") => Identity::User(user),
///             Identity::User(_) => Identity::Anonymous,
///             other => other,
///         }
///     }
///
///     fn session_cookie(&self) -> Option<&SessionCookie> {
///         Some(&self.0) // so that a `Logout` removes it
///     }
/// }
/// ```
#[derive(Debug, Clone)]
pub struct IdentifiedUser<'a> {
    pub(crate) id: Cow<'a, str>,
    pub(crate) set_cookie: Option<HeaderValue>,
    /// The state of the user's session, or the default value if the identity is not a session
    /// cookie.
    pub(crate) session: Session,
}

impl IdentifiedUser<'_> {
    /// Returns the user without borrowing from the request.
    pub(crate) fn into_owned(self) -> IdentifiedUser<'static> {
        IdentifiedUser {
            id: Cow::Owned(self.id.into_owned()),
            set_cookie: self.set_cookie,
            session: self.session,
        }
    }
}

impl<'a> Identity<'a> {
    /// Returns the user with this id, or [`Identity::Invalid`] if no user can have this id.
    ///
    /// ```
    /// use tower_wechat::identity::Identity;
    ///
    /// assert!(matches!(Identity::user("oUser"), Identity::User(_)));
    /// assert!(matches!(Identity::user(""), Identity::Invalid(_)));
    /// ```
    pub fn user(id: impl Into<Cow<'a, str>>) -> Self {
        let id = id.into();
        match UserId::check(&id) {
            Ok(()) => Self::User(IdentifiedUser {
                id,
                set_cookie: None,
                session: Session::default(),
            }),
            Err(invalid) => Self::Invalid(invalid),
        }
    }
}

/// Reads the user of a request.
///
/// Closures that take a [`RequestHead`] and return an `Option<UserId>` are identities too:
///
/// ```
/// use tower_wechat::identity::{Identify, Identity};
/// use tower_wechat::{MemoryStore, RequestHead, UserId, UserTokens, WechatClient, WechatLayer};
///
/// # fn main() -> Result<(), tower_wechat::Error> {
/// # let users = UserTokens::new(WechatClient::new("wx01", "secret")?, MemoryStore::new());
/// let of_path = |head: &RequestHead<'_>| {
///     let path = head.uri.path().strip_prefix("/users/")?;
///     UserId::new(path).ok()
/// };
/// let request = http::Request::get("/users/oAlice").body(()).unwrap();
/// assert!(matches!(of_path.identify(&RequestHead::from_request(&request)), Identity::User(_)));
///
/// let layer = WechatLayer::new(users).identity(of_path);
/// # Ok(()) }
/// ```
#[diagnostic::on_unimplemented(
    message = "this layer has no identity, which finds the user of a request",
    label = "`{Self}` is not an identity",
    note = "mount a login, whose session cookie is an identity: `WechatLayer::new(users).login(login)`",
    note = "or give the layer an identity: `.identity(TrustedHeader::new(..)?)`, `.identity(ExtensionIdentity::new(..))` or a closure `|head: &RequestHead<'_>| -> Option<UserId> {{ .. }}`"
)]
pub trait Identify {
    /// Returns the user of a request. The layer calls this for every request, so it must not block.
    fn identify<'a>(&self, head: &RequestHead<'a>) -> Identity<'a>;

    /// Returns the session cookie that this identity reads, which a [`Logout`](crate::Logout) removes
    /// from the browser. An identity that wraps a [`SessionCookie`] returns the latter. Default:
    /// `None`.
    fn session_cookie(&self) -> Option<&SessionCookie> {
        None
    }
}

#[diagnostic::do_not_recommend]
impl<F> Identify for F
where
    F: Fn(&RequestHead<'_>) -> Option<UserId>,
{
    fn identify<'a>(&self, head: &RequestHead<'a>) -> Identity<'a> {
        match self(head) {
            Some(user) => {
                let id = Cow::Owned(user.as_str().to_owned());
                Identity::User(IdentifiedUser {
                    id,
                    set_cookie: None,
                    session: Session::default(),
                })
            }
            None => Identity::Anonymous,
        }
    }
}

/// Placeholder for the identity of a layer that has none yet.
///
/// ```
/// use tower_wechat::identity::NoIdentity;
/// use tower_wechat::{MemoryStore, UserTokens, WechatClient, WechatLayer};
///
/// # fn main() -> Result<(), tower_wechat::Error> {
/// # let users = UserTokens::new(WechatClient::new("wx01", "secret")?, MemoryStore::new());
/// // A service around which this layer is put does not compile before the layer has an identity or a login:
/// let layer: WechatLayer<NoIdentity> = WechatLayer::new(users);
/// let layer = layer.identity(tower_wechat::TrustedHeader::new("x-user-id")?);
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct NoIdentity;

#[diagnostic::do_not_recommend]
impl<I: Identify + ?Sized> Identify for std::sync::Arc<I> {
    fn identify<'a>(&self, head: &RequestHead<'a>) -> Identity<'a> {
        (**self).identify(head)
    }

    fn session_cookie(&self) -> Option<&SessionCookie> {
        (**self).session_cookie()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_of_request_head_hides_secrets() {
        let request = Request::get("https://h5.example.com/me?code=in-query")
            .header("cookie", "wechat_session=in-cookie")
            .header("authorization", "Bearer in-header")
            .extension("in-extension")
            .body(())
            .unwrap();
        assert_eq!(
            format!("{:?}", RequestHead::from_request(&request)),
            r#"RequestHead { method: GET, path: "/me", .. }"#
        );
    }
}
