//! The registry of the accounts that have authorized a third-party platform.

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
type Describe = dyn Fn(Account) -> Result<Account, Error> + Send + Sync;

impl Platform {
    /// Returns the registry of the authorized accounts. `describe` receives the description of an account
    /// and adds its login and its settings.
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
    pub fn accounts<F>(&self, describe: F) -> PlatformAccounts
    where
        F: Fn(Account) -> Result<Account, Error> + Send + Sync + 'static,
    {
        self.0.start_upkeep();
        PlatformAccounts {
            platform: self.clone(),
            describe: Box::new(describe),
            changes: self.0.subscribe_changes(),
        }
    }
}

impl AccountRegistry for PlatformAccounts {
    type Error = Error;

    async fn find(&self, app_id: AppId) -> Result<Option<Account>, Error> {
        let state = &self.platform.0;
        state.start_upkeep();
        match state.status(&app_id).await? {
            AccountStatus::Authorized => {
                let account = Account::new(state.client(&app_id));
                let described = (self.describe)(account)?;
                if *described.app_id() != app_id {
                    return Err(Error::configuration(format!(
                        "the function of Platform::accounts returned another account than {app_id}: \
                         change the account that it receives, and return it"
                    )));
                }
                Ok(Some(described))
            }
            AccountStatus::Unknown => Ok(None),
            AccountStatus::Lost => Err(not_authorized(&app_id)),
            AccountStatus::NotListedYet => Err(state.not_listed_yet()),
        }
    }

    async fn next_change(&self) -> AppId {
        self.changes.next().await
    }
}

impl fmt::Debug for PlatformAccounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PlatformAccounts")
            .field("platform", &self.platform)
            .finish_non_exhaustive()
    }
}
