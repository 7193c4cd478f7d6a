//! The registry of the accounts that have authorized a third-party platform.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use super::account::Account;
use super::source::AccountRegistry;
use crate::credential::AppId;
use crate::error::Error;
use crate::platform::{AccountStatus, ChangeQueue, Platform, not_authorized};

/// The registry of the accounts that have authorized a [`Platform`], for
/// [`AccountsBuilder::registry`](super::AccountsBuilder::registry).
///
/// An account is made at its first request. It is gone when its owner ends the authorization.
pub struct PlatformAccounts {
    platform: Platform,
    describe: Box<Describe>,
    changes: Arc<ChangeQueue>,
}

/// A function of the application that completes the description of an account.
type Describe = dyn Fn(Account) -> Result<Option<Account>, BoxError> + Send + Sync;

type BoxError = Box<dyn StdError + Send + Sync>;

impl Platform {
    /// Returns the registry of the authorized accounts. `describe` receives the description of an account
    /// and adds its login and its settings.
    ///
    /// `describe` returns the account, or `None` if the application does not serve it, such as an account
    /// that belongs to no customer: its requests receive 404 `unknown_account`. The layer calls it again
    /// once a minute for each account that it serves
    /// ([`refresh_interval`](super::AccountsBuilder::refresh_interval)). `?` converts every error. The
    /// requests of the account then fail, as [`AccountRegistry::find`] says.
    ///
    /// ```
    /// use tower_wechat::platform::{Platform, PushKeys};
    /// use tower_wechat::{Accounts, CookieKeys, Login, MemoryStore, WechatClient, WechatLayer};
    ///
    /// # fn main() -> Result<(), tower_wechat::Error> {
    /// # let keys = PushKeys::new(["token"], ["abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG"])?;
    /// let store = MemoryStore::new();
    /// let component = WechatClient::new("wx00000000000000c0", "component-secret")?;
    /// let platform = Platform::builder(component, store.clone()).push_keys(keys).build()?;
    /// let cookie_keys = CookieKeys::random()?;
    /// let registry = platform.accounts(move |account| {
    ///     let url = format!("https://h5.example.com/{}", account.app_id());
    ///     Ok(account.login(Login::new(url, cookie_keys.clone())?))
    /// });
    /// let accounts = Accounts::builder(store).registry(registry).build()?;
    /// let layer = WechatLayer::for_accounts(accounts);
    /// # Ok(()) }
    /// ```
    ///
    /// `describe` cannot wait. An application that looks the customer up in its database wraps the
    /// registry in another one:
    ///
    /// ```
    /// use tower_wechat::credential::AppId;
    /// use tower_wechat::layer::{AccountRegistry, PlatformAccounts};
    /// use tower_wechat::{Account, CookieKeys, Login};
    ///
    /// # struct Database;
    /// # impl Database {
    /// #     async fn customer_of(&self, _: &AppId) -> std::io::Result<Option<String>> { Ok(None) }
    /// # }
    /// struct Customers {
    ///     authorized: PlatformAccounts, // platform.accounts(Ok)
    ///     database: Database,
    ///     keys: CookieKeys,
    /// }
    ///
    /// impl AccountRegistry for Customers {
    ///     type Error = Box<dyn std::error::Error + Send + Sync>;
    ///
    ///     async fn find(&self, app_id: AppId) -> Result<Option<Account>, Self::Error> {
    ///         let Some(account) = self.authorized.find(app_id.clone()).await? else {
    ///             return Ok(None);
    ///         };
    ///         let Some(customer) = self.database.customer_of(&app_id).await? else {
    ///             return Ok(None);
    ///         };
    ///         println!("{app_id} belongs to {customer}");
    ///         let url = format!("https://h5.example.com/{app_id}");
    ///         Ok(Some(account.login(Login::new(url, self.keys.clone())?)))
    ///     }
    ///
    ///     async fn next_change(&self) -> AppId {
    ///         self.authorized.next_change().await
    ///     }
    /// }
    /// ```
    pub fn accounts<F, A>(&self, describe: F) -> PlatformAccounts
    where
        F: Fn(Account) -> Result<A, Box<dyn StdError + Send + Sync>> + Send + Sync + 'static,
        A: Into<Option<Account>>,
    {
        self.0.start_upkeep();
        PlatformAccounts {
            platform: self.clone(),
            describe: Box::new(move |account| describe(account).map(Into::into)),
            changes: self.0.subscribe_changes(),
        }
    }
}

impl AccountRegistry for PlatformAccounts {
    type Error = BoxError;

    async fn find(&self, app_id: AppId) -> Result<Option<Account>, BoxError> {
        let state = &self.platform.0;
        state.start_upkeep();
        match state.status(&app_id).await? {
            AccountStatus::Authorized => self.describe(&app_id),
            AccountStatus::Unknown => Ok(None),
            AccountStatus::Lost => Err(not_authorized(&app_id).into()),
            AccountStatus::NotListedYet => Err(state.not_listed_yet().into()),
        }
    }

    async fn next_change(&self) -> AppId {
        self.changes.next().await
    }
}

impl PlatformAccounts {
    /// Returns the description of an authorized account, or `None` if the application declines it.
    fn describe(&self, app_id: &AppId) -> Result<Option<Account>, BoxError> {
        let described = (self.describe)(Account::new(self.platform.0.client(app_id)))?;
        if described.as_ref().is_some_and(|it| it.app_id() != app_id) {
            let message = format!(
                "the function of Platform::accounts returned another account than {app_id}: change \
                 the account that it receives, and return it"
            );
            return Err(Error::configuration(message).into());
        }
        Ok(described)
    }
}

impl fmt::Debug for PlatformAccounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PlatformAccounts")
            .field("platform", &self.platform)
            .finish_non_exhaustive()
    }
}
