//! The builder of several accounts.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::account::Account;
use super::accounts::Accounts;
use super::listed::ListedAccounts;
use super::made;
use super::selector::AccountSelector;
use super::source::{AccountRegistry, AnyRegistry};
use super::state::{AccountsSettings, AccountsState};
use crate::error::Error;
use crate::store::Store;

/// Default time without requests after which an account is dropped: ten minutes.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10 * 60);

/// Default interval at which the registry is asked again: one minute.
const REFRESH_INTERVAL: Duration = Duration::from_secs(60);

/// Default maximum time of a search in the registry: two seconds.
const FIND_TIMEOUT: Duration = Duration::from_secs(2);

/// Builder of [`Accounts`].
///
/// ```
/// use std::time::Duration;
/// use tower_wechat::{Account, AccountSelector, Accounts, MemoryStore, WechatClient};
///
/// # fn main() -> Result<(), tower_wechat::Error> {
/// let shop = WechatClient::new("wx0000000000000001", "secret")?;
/// let club = shop.for_account("wx0000000000000002", "another-secret")?;
/// let accounts = Accounts::builder(MemoryStore::new())
///     .selector(AccountSelector::header("x-account")?)
///     .account(Account::new(shop))
///     .account(Account::new(club))
///     .idle_timeout(Duration::from_secs(3_600))
///     .refresh_interval(Duration::from_secs(10))
///     .find_timeout(Duration::from_secs(1))
///     .build()?;
/// # Ok(()) }
/// ```
#[must_use = "a builder does nothing until `build` is called"]
pub struct AccountsBuilder {
    store: Arc<dyn Store>,
    selector: AccountSelector,
    listed: Vec<Account>,
    registry: Option<Arc<dyn AnyRegistry>>,
    has_second_registry: bool,
    settings: AccountsSettings,
}

impl Accounts {
    /// Returns a builder of accounts that share a store.
    pub fn builder(store: impl Store) -> AccountsBuilder {
        AccountsBuilder::new(Arc::new(store))
    }
}

impl AccountsBuilder {
    fn new(store: Arc<dyn Store>) -> Self {
        Self {
            store,
            selector: AccountSelector::default(),
            listed: Vec::new(),
            registry: None,
            has_second_registry: false,
            settings: AccountsSettings {
                idle_timeout: IDLE_TIMEOUT,
                refresh_interval: REFRESH_INTERVAL,
                find_timeout: FIND_TIMEOUT,
            },
        }
    }

    /// Sets the part of a request that names its account. Default: [`AccountSelector::path`].
    pub fn selector(mut self, selector: AccountSelector) -> Self {
        self.selector = selector;
        self
    }

    /// Lists an account.
    pub fn account(mut self, account: Account) -> Self {
        self.listed.push(account);
        self
    }

    /// Lists several accounts.
    pub fn accounts(mut self, accounts: impl IntoIterator<Item = Account>) -> Self {
        self.listed.extend(accounts);
        self
    }

    /// Sets the registry, which is asked for accounts that are not listed. Default: none. There is one:
    /// a registry of the application can ask several others.
    pub fn registry(mut self, registry: impl AccountRegistry) -> Self {
        self.has_second_registry |= self.registry.is_some();
        self.registry = Some(Arc::new(registry));
        self
    }

    /// Sets how long this process keeps an account without requests. Default: 10 minutes.
    ///
    /// A dropped account is made again at its next request, and then reads the users' tokens from the
    /// store. An account is dropped up to two minutes later, or half of a shorter timeout.
    ///
    /// Only requests and [`Accounts::get`] count. A job that holds a
    /// [`WechatAccount`](super::super::WechatAccount) for longer gets it anew for each piece of its work,
    /// because the next request makes another one.
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.settings.idle_timeout = timeout;
        self
    }

    /// Sets the interval at which the registry is asked again for the accounts that this process
    /// serves. Default: one minute. It asks for 16 accounts at the same time.
    pub fn refresh_interval(mut self, interval: Duration) -> Self {
        self.settings.refresh_interval = interval;
        self
    }

    /// Sets the maximum time of a search in the registry. Default: 2 seconds.
    pub fn find_timeout(mut self, timeout: Duration) -> Self {
        self.settings.find_timeout = timeout;
        self
    }

    /// Creates the [`Accounts`], without a request to the store, the registry or WeChat.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`](crate::ErrorKind::Configuration):
    ///
    /// - an AppID is listed twice, there is neither an account nor a registry, or there are two
    ///   registries;
    /// - two accounts would share a hash of the store, because the names of the hashes do not contain
    ///   the AppID (`RedisNames::with_appid` adds it);
    /// - the callback of a listed account would not select the account;
    /// - two listed accounts have one name of a session cookie;
    /// - an account has a website and no login, or a website whose AppID is that of an account;
    /// - a time is zero.
    pub fn build(self) -> Result<Accounts, Error> {
        for (name, time) in [
            ("idle_timeout", self.settings.idle_timeout),
            ("refresh_interval", self.settings.refresh_interval),
            ("find_timeout", self.settings.find_timeout),
        ] {
            if time.is_zero() {
                return Err(Error::configuration(format!(
                    "{name} of the accounts is zero: set a longer time"
                )));
            }
        }
        if self.listed.is_empty() && self.registry.is_none() {
            return Err(Error::configuration(
                "there is no account to serve: list one with AccountsBuilder::account, or set a registry",
            ));
        }
        if self.has_second_registry {
            return Err(Error::configuration(
                "the accounts have two registries: set one whose AccountRegistry::find asks both",
            ));
        }
        if self.registry.is_some() {
            self.store.check_several_accounts()?;
        }
        let mut listed = ListedAccounts::default();
        for account in self.listed {
            made::check(&account, &self.store, &self.selector)?;
            listed.check_beside(&account, &self.store)?;
            if let Some(earlier) = listed.insert(account) {
                return Err(Error::configuration(format!(
                    "the account {} is listed twice: list it once",
                    earlier.description.app_id().as_str()
                )));
            }
        }
        Ok(Accounts(Arc::new(AccountsState::new(
            self.store,
            self.selector,
            self.registry,
            self.settings,
            listed,
        ))))
    }
}

impl fmt::Debug for AccountsBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccountsBuilder")
            .field("selector", &self.selector)
            .field("listed", &self.listed.len())
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}
