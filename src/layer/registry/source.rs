//! The registry of an application, which finds accounts by their AppIDs.

use std::error::Error as StdError;
use std::sync::Arc;

use super::account::Account;
use crate::credential::AppId;
use crate::store::BoxFuture;

/// A registry of accounts, such as a table in the application's database.
///
/// A layer of several accounts asks the registry when a request names an account that this process
/// does not serve yet. While the process serves the account, it asks again once a minute
/// ([`refresh_interval`](super::AccountsBuilder::refresh_interval)). An account that the registry no
/// longer returns is then gone. An account whose description has changed is replaced: its clients, its
/// website, its page hosts, or the settings of its login, such as the cookie keys. What the functions
/// of the description do cannot be compared, so a change in them is noticed when the account is made
/// again: after [`Accounts::remove`](super::Accounts::remove), or when it was idle.
///
/// The registry is closed: it returns an account only if the application serves that account. The AppID
/// comes from the request, so any person can choose it.
///
/// Asynchronous closures that take an [`AppId`] are registries too:
///
/// ```
/// # #[derive(Clone)]
/// # struct Database;
/// # impl Database {
/// #     async fn secret_of(&self, _: &str) -> Result<Option<String>, std::io::Error> { Ok(None) }
/// # }
/// use tower_wechat::credential::AppId;
/// use tower_wechat::{Account, Accounts, CookieKeys, Error, Login, MemoryStore, WechatClient};
///
/// # fn main() -> Result<(), Error> {
/// # let db = Database;
/// let keys = CookieKeys::random()?;
/// let template = WechatClient::new("wx0123456789abcdef", "secret")?;
/// let find = move |app_id: AppId| {
///     let (db, keys, template) = (db.clone(), keys.clone(), template.clone());
///     async move {
///         let Some(secret) = db.secret_of(app_id.as_str()).await? else { return Ok(None) };
///         let login = Login::new(format!("https://h5.example.com/{}", app_id.as_str()), keys)?;
///         let wechat = template.for_account(&app_id, secret)?;
///         Ok::<_, axum::BoxError>(Some(Account::new(wechat).login(login)))
///     }
/// };
/// let accounts = Accounts::builder(MemoryStore::new()).registry(find).build()?;
/// # Ok(()) }
/// ```
///
/// A type implements the trait with an `async fn`:
///
/// ```
/// use std::collections::HashMap;
///
/// use tower_wechat::credential::{AppId, AppSecret};
/// use tower_wechat::layer::AccountRegistry;
/// use tower_wechat::{Account, Error, WechatClient};
///
/// struct Secrets(WechatClient, HashMap<AppId, AppSecret>);
///
/// impl AccountRegistry for Secrets {
///     type Error = Error;
///
///     async fn find(&self, app_id: AppId) -> Result<Option<Account>, Error> {
///         let Some(secret) = self.1.get(&app_id) else { return Ok(None) };
///         Ok(Some(Account::new(self.0.for_account(&app_id, secret.clone())?)))
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a registry of accounts",
    label = "not a registry",
    note = "for the accounts of a `Platform`, pass `platform.accounts(|account| Ok(account.login(..)))`",
    note = "pass a closure `|app_id: AppId| async move {{ Ok::<_, Box<dyn Error + Send + Sync>>(Some(Account::new(..))) }}`, or implement `AccountRegistry`",
    note = "the error is `Box<dyn std::error::Error + Send + Sync>` or converts into it; `Box<dyn Error>` alone does not",
    note = "the future must be `Send`: it may hold no `Rc`, no `RefCell` borrow and no `MutexGuard` across an `.await`",
    note = "the closure may be called many times: clone what it captures before `async move`, as in `move |app_id: AppId| {{ let db = db.clone(); async move {{ .. }} }}`",
    note = "if the cause is not clear, implement `AccountRegistry` for a type: the compiler then names it"
)]
pub trait AccountRegistry: Send + Sync + 'static {
    /// The error of a search that has failed. The log contains its text.
    type Error: Into<Box<dyn StdError + Send + Sync>>;

    /// Finds the account with this AppID. Returns `None` if the application does not serve it.
    ///
    /// The future may take two seconds ([`find_timeout`](super::AccountsBuilder::find_timeout)). It is
    /// dropped then, and the request fails with 503.
    ///
    /// # Errors
    /// Returns an error if the search fails, so that it is unknown whether the account exists. The
    /// request fails with 503, and an account that this process serves stays.
    ///
    /// An error of this crate of the kind
    /// [`Configuration`](crate::ErrorKind::Configuration) means that the account cannot be described,
    /// for example because [`Login::new`](crate::Login::new) failed. The request fails with 500.
    fn find(
        &self,
        app_id: AppId,
    ) -> impl Future<Output = Result<Option<Account>, Self::Error>> + Send;

    /// Waits until an account may have changed, and returns its AppID. A layer that serves the account
    /// then asks for it again at once. Default: waits forever, and the layer asks once a minute only.
    ///
    /// The layer drops the future and calls the method again after each account, and at other times.
    fn next_change(&self) -> impl Future<Output = AppId> + Send {
        std::future::pending()
    }
}

#[diagnostic::do_not_recommend]
impl<F, Fut, E> AccountRegistry for F
where
    F: Fn(AppId) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Option<Account>, E>> + Send,
    E: Into<Box<dyn StdError + Send + Sync>>,
{
    type Error = E;

    fn find(&self, app_id: AppId) -> impl Future<Output = Result<Option<Account>, E>> + Send {
        self(app_id)
    }
}

/// The result of a search, without the types of the registry.
pub(super) type FindResult = Result<Option<Account>, Box<dyn StdError + Send + Sync>>;

/// A registry without its types.
pub(super) trait AnyRegistry: Send + Sync {
    /// Does what [`AccountRegistry::find`] does.
    fn find_account(self: Arc<Self>, app_id: AppId) -> BoxFuture<'static, FindResult>;

    /// Does what [`AccountRegistry::next_change`] does.
    fn wait_for_change(self: Arc<Self>) -> BoxFuture<'static, AppId>;
}

impl<R: AccountRegistry> AnyRegistry for R {
    fn find_account(self: Arc<Self>, app_id: AppId) -> BoxFuture<'static, FindResult> {
        Box::pin(async move { self.find(app_id).await.map_err(Into::into) })
    }

    fn wait_for_change(self: Arc<Self>) -> BoxFuture<'static, AppId> {
        Box::pin(async move { self.next_change().await })
    }
}
