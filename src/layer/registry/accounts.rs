//! [`Accounts`]: the accounts of a layer that serves several.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::account::Account;
use super::made;
use super::searches::FoundAccount;
use super::state::AccountsState;
use super::{unknown, upkeep};
use crate::credential::AppId;
use crate::error::Error;
use crate::health::{AccountTokenHealth, Health};
use crate::identity::RequestHead;
use crate::layer::WechatAccount;
use crate::layer::account_layer::AccountParts;
use crate::store::{BoxFuture, CredentialKind};

/// The accounts that one [`WechatLayer`](crate::WechatLayer) serves, with one store and one connection
/// to it.
///
/// The layer selects the account of each request before it does anything else. A request for an account
/// that is neither listed nor returned by the registry receives 404 `unknown_account`, and leaves
/// nothing behind. If the registry fails or does not answer, the request receives 503
/// `accounts_unavailable`.
///
/// An account costs nothing before its first request. This process then makes the account's users,
/// login and tokens, and drops them after ten minutes without a request.
///
/// Clones are cheap and share all state.
///
/// ```
/// use axum::{Router, routing::get};
/// use tower_wechat::{
///     Account, Accounts, CookieKeys, Error, Login, MemoryStore, WechatClient, WechatLayer, WechatUser,
/// };
///
/// async fn home(user: WechatUser) -> String {
///     format!("hello {} of {}", user.id(), user.app_id().as_str())
/// }
///
/// # fn main() -> Result<(), Error> {
/// let keys = CookieKeys::random()?;
/// let shop = WechatClient::new("wx0000000000000001", "secret-of-the-shop")?;
/// let club = shop.for_account("wx0000000000000002", "secret-of-the-club")?;
/// let login = |app_id: &str| Login::new(format!("https://h5.example.com/{app_id}"), keys.clone());
///
/// let accounts = Accounts::builder(MemoryStore::new())
///     .account(Account::new(shop).login(login("wx0000000000000001")?))
///     .account(Account::new(club).login(login("wx0000000000000002")?))
///     .build()?;
/// let app: Router = Router::new()
///     .route("/{appid}/", get(home))
///     .layer(WechatLayer::for_accounts(accounts));
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Accounts(pub(super) Arc<AccountsState>);

/// The account that was selected for a request.
pub(in crate::layer) enum Selection {
    /// This process serves the account.
    Account(Arc<AccountParts>),
    /// There is no such account.
    Unknown,
    /// The registry of the application is asked.
    Searching(BoxFuture<'static, FoundAccount>),
}

impl Accounts {
    /// Adds an account to the list, or replaces the account with this AppID, for example after its
    /// AppSecret has changed. Requests that are under way keep the earlier account.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`](crate::ErrorKind::Configuration): the description is wrong, or the
    /// account cannot be listed beside the others, as
    /// [`build`](super::AccountsBuilder::build) checks it.
    pub fn insert(&self, account: Account) -> Result<(), Error> {
        made::check(&account, &self.0.store, &self.0.selector)?;
        self.0.list(account)
    }

    /// Removes an account from the list, and drops what this process has made of it. Requests that are
    /// under way keep the account. Returns `true` if the account was listed, or this process served it.
    ///
    /// The [registry](super::AccountRegistry) is asked again at the next request for the account. Remove
    /// the account there first.
    pub fn remove(&self, app_id: &AppId) -> bool {
        self.0.remove(app_id)
    }

    /// Returns the account with this AppID, for jobs outside of requests. Returns `None` if there is no
    /// such account.
    ///
    /// # Errors
    /// - [`ErrorKind::AccountsUnavailable`](crate::ErrorKind::AccountsUnavailable): the registry fails,
    ///   or does not answer in time. A later call may succeed.
    /// - [`ErrorKind::Configuration`](crate::ErrorKind::Configuration): the description of the account
    ///   is wrong, or one of its functions panicked. The message names the account and the reason.
    ///   Requests for the account receive 500.
    ///
    /// ```
    /// use tower_wechat::credential::AppId;
    /// use tower_wechat::{Accounts, Error, UserId};
    ///
    /// async fn nickname(accounts: &Accounts, app_id: &AppId, user: &UserId) -> Result<String, Error> {
    ///     let Some(account) = accounts.get(app_id).await? else { return Ok(String::new()) };
    ///     let Some(users) = account.users() else { return Ok(String::new()) };
    ///     Ok(users.profile(user).await?.nickname.clone())
    /// }
    /// ```
    pub async fn get(&self, app_id: &AppId) -> Result<Option<WechatAccount>, Error> {
        let found = match self.select_app(app_id.as_str()) {
            Ok(Selection::Account(parts)) => Some(parts),
            Ok(Selection::Unknown) => None,
            Ok(Selection::Searching(search)) => search.await?,
            Err(error) => return Err(error),
        };
        Ok(found.and_then(|parts| parts.account.clone()))
    }

    /// Checks that this process can read and write in the store, as [`health`](crate::health()) does.
    ///
    /// The check uses names of no account. A name of one account that Redis keeps in another type does
    /// not affect the result, because the other accounts can be served. The requests of that account
    /// fail with 503, and the log has an error.
    ///
    /// ```
    /// use axum::Json;
    /// use axum::http::StatusCode;
    /// use tower_wechat::Accounts;
    /// use tower_wechat::health::Health;
    ///
    /// async fn healthz(accounts: Accounts) -> (StatusCode, Json<Health>) {
    ///     let health = accounts.health().await;
    ///     let status = match health.is_ready() {
    ///         true => StatusCode::OK,
    ///         false => StatusCode::SERVICE_UNAVAILABLE,
    ///     };
    ///     (status, Json(health))
    /// }
    /// ```
    pub async fn health(&self) -> Health {
        let no_account = AppId::of_no_account();
        let store = self.0.store.check_health(&no_account, CredentialKind::User);
        Health {
            store: store.await,
            account_token: AccountTokenHealth::NotConfigured,
        }
    }

    /// Waits until the renewals, logins and writes of all accounts and the searches in the registry
    /// have ended, for `timeout` at most. Returns `true` if all of them have ended.
    ///
    /// Call this method after the server has stopped accepting requests.
    pub async fn shutdown(&self, timeout: Duration) -> bool {
        self.0.shutdown(timeout).await
    }

    /// Logs that a request named no account of this layer, at most once a minute. A callback with a
    /// code is logged as a separate warning: WeChat sent a user to an address without an account.
    #[cold]
    pub(in crate::layer) fn log_unknown_account(&self, head: &RequestHead<'_>) {
        unknown::log(head, &self.0.selector, &self.0.log_limiter);
    }

    /// Logs a push of WeChat whose account could not be looked up, at most once a minute.
    #[cold]
    pub(in crate::layer) fn log_misplaced_push(&self, head: &RequestHead<'_>) {
        unknown::log_push(head, &self.0.log_limiter);
    }

    /// Selects the account of a request.
    #[inline]
    pub(in crate::layer) fn select(&self, head: &RequestHead<'_>) -> Selection {
        let Some(name) = self.0.selector.select(head) else {
            return Selection::Unknown;
        };
        match self.0.made(name.as_str()) {
            Some(parts) => {
                if self.0.needs_upkeep() {
                    upkeep::start(&self.0);
                }
                Selection::Account(parts)
            }
            None => self.select_unmade(name.as_str()),
        }
    }

    /// Selects an account that this process does not serve yet.
    #[cold]
    fn select_unmade(&self, app_id: &str) -> Selection {
        self.select_app(app_id)
            .unwrap_or_else(|error| Selection::Searching(Box::pin(std::future::ready(Err(error)))))
    }

    fn select_app(&self, app_id: &str) -> Result<Selection, Error> {
        if let Some(parts) = self.0.made(app_id) {
            upkeep::start(&self.0);
            return Ok(Selection::Account(parts));
        }
        if let Some(parts) = self.0.make_listed(app_id)? {
            upkeep::start(&self.0);
            return Ok(Selection::Account(parts));
        }
        let (Some(registry), Ok(app_id)) = (&self.0.registry, AppId::new(app_id)) else {
            return Ok(Selection::Unknown);
        };
        upkeep::start(&self.0);
        Ok(Selection::Searching(Box::pin(
            self.0.search(registry, app_id),
        )))
    }
}

impl fmt::Debug for Accounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Accounts")
            .field("selector", &self.0.selector)
            .field("listed", &self.0.read_listed().app_ids().len())
            .field("served", &self.0.all_made().len())
            .finish_non_exhaustive()
    }
}
