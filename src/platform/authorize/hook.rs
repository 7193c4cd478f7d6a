//! The hook of an application, which runs after an account was authorized.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::customer::Customer;
use crate::credential::AppId;
use crate::guarded_call::{error_chain, run_guarded};
use crate::store::BoxFuture;

/// Maximum time of a hook: five seconds. The owner of the account waits for its page meanwhile.
const HOOK_TIMEOUT: Duration = Duration::from_secs(5);

/// An account that its owner has just authorized, for the hook of
/// [`AuthorizePages::on_authorized`](super::AuthorizePages::on_authorized).
#[derive(Debug, Clone)]
pub struct AuthorizedAccount {
    app_id: AppId,
    customer: Option<Customer>,
}

impl AuthorizedAccount {
    pub(super) fn new(app_id: AppId, customer: Option<Customer>) -> Self {
        Self { app_id, customer }
    }

    /// Returns the AppID of the account.
    pub fn app_id(&self) -> &AppId {
        &self.app_id
    }

    /// Returns the customer for whom the page was opened: the [`Customer`] in the extensions of that
    /// request, else its query parameter `for`. Returns `None` if the request had neither.
    ///
    /// The value is authentic: it is what the page received. Any person who can open the page chooses
    /// the query parameter.
    pub fn customer(&self) -> Option<&str> {
        self.customer.as_ref().map(Customer::as_str)
    }
}

/// The result of a hook: `Result<(), E>`, where the error converts into
/// `Box<dyn Error + Send + Sync>`.
#[diagnostic::on_unimplemented(
    message = "a hook of `on_authorized` returns `Result<(), E>`, not `{Self}`",
    label = "not the result of a hook",
    note = "end the hook with `Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())`, or pass an `async fn` that returns `Result<(), E>`",
    note = "the error is `Box<dyn std::error::Error + Send + Sync>` or converts into it; `Box<dyn Error>` alone does not"
)]
pub trait AuthorizedResult: Send {
    /// Converts the error.
    ///
    /// # Errors
    /// The error of the hook.
    fn into_result(self) -> Result<(), Box<dyn StdError + Send + Sync>>;
}

#[diagnostic::do_not_recommend]
impl<E> AuthorizedResult for Result<(), E>
where
    E: Into<Box<dyn StdError + Send + Sync>> + Send,
{
    fn into_result(self) -> Result<(), Box<dyn StdError + Send + Sync>> {
        self.map_err(Into::into)
    }
}

type HookFn = dyn Fn(AuthorizedAccount) -> BoxFuture<'static, Result<(), String>> + Send + Sync;

/// The hook of an application, without its types.
#[derive(Clone)]
pub(super) struct AuthorizedHook(Arc<HookFn>);

impl AuthorizedHook {
    pub(super) fn new<F, Fut>(hook: F) -> Self
    where
        F: Fn(AuthorizedAccount) -> Fut + Send + Sync + 'static,
        Fut: Future<Output: AuthorizedResult> + Send + 'static,
    {
        Self(Arc::new(move |account| {
            let linked = hook(account);
            Box::pin(async move {
                let linked = linked.await.into_result();
                linked.map_err(|error| error_chain(&*error))
            })
        }))
    }

    /// Runs the hook for five seconds at most.
    ///
    /// # Errors
    /// Returns the reason if the hook returned an error, panicked or did not end in time.
    pub(super) async fn run(&self, account: AuthorizedAccount) -> Result<(), String> {
        let hook = Arc::clone(&self.0);
        run_guarded("hook", HOOK_TIMEOUT, async move { hook(account).await }).await?
    }
}

impl fmt::Debug for AuthorizedHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AuthorizedHook")
    }
}
