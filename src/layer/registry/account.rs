//! An account as an application describes it to a layer of several accounts.

use std::fmt;
use std::sync::Arc;

use crate::accounts::AccountTokensBuilder;
use crate::credential::AppId;
use crate::error::Error;
use crate::login::Login;
use crate::store::Store;
use crate::users::{UserTokens, UserTokensBuilder};
use crate::wechat::WechatClient;

/// An account (公众号) that a layer of [several accounts](super::Accounts) serves.
///
/// The value is only a description. The layer makes the account's users, login and tokens when the
/// first request of the account comes, and drops them when the account is idle. A description starts
/// no task and opens no connection, and its clones are cheap.
///
/// ```
/// use std::time::Duration;
/// use tower_wechat::{Account, CookieKeys, Login, WechatClient};
///
/// # fn main() -> Result<(), tower_wechat::Error> {
/// let keys = CookieKeys::random()?;
/// let account = Account::new(WechatClient::new("wx0123456789abcdef", "secret")?)
///     .login(Login::new("https://h5.example.com/wx0123456789abcdef", keys)?)
///     .page_hosts(["h5.example.com", "www.example.com"])
///     .user_tokens(|builder| builder.cache_ttl(Duration::from_secs(30)))
///     .account_tokens(|builder| builder.daily_quota(500));
/// assert_eq!(account.app_id().as_str(), "wx0123456789abcdef");
/// # Ok(()) }
/// ```
#[derive(Clone)]
#[must_use = "give it to `Accounts`"]
pub struct Account {
    pub(super) wechat: WechatClient,
    pub(super) login: Option<Login>,
    /// The client of the website app (网站应用) beside the account.
    pub(super) website: Option<WechatClient>,
    pub(super) page_hosts: Option<Arc<[String]>>,
    pub(super) user_tokens: Option<Arc<Change<UserTokensBuilder>>>,
    pub(super) account_tokens: Option<Arc<Change<AccountTokensBuilder>>>,
}

/// A function of the application that changes the settings in a builder.
pub(super) type Change<B> = dyn Fn(B) -> B + Send + Sync;

impl Account {
    /// Describes the account of this client. Without further settings, it has no login.
    ///
    /// Clients that [`WechatClient::for_account`] makes share their connections to WeChat.
    pub fn new(wechat: WechatClient) -> Self {
        Self {
            wechat,
            login: None,
            website: None,
            page_hosts: None,
            user_tokens: None,
            account_tokens: None,
        }
    }

    /// Sets the login of the account, as
    /// [`WechatLayer::login`](crate::WechatLayer::login) describes it. Default: none.
    ///
    /// WeChat's redirect to the login's callback must select the account: see
    /// [`AccountSelector`](super::AccountSelector). Accounts on one host may share their cookie keys.
    pub fn login(mut self, login: Login) -> Self {
        self.login = Some(login);
        self
    }

    /// Sets the website app (网站应用) of this client, with which the browsers of computers log in, as
    /// [`LoginBuilder::website`](crate::login::LoginBuilder::website) describes it. Default: none.
    ///
    /// The settings of [`user_tokens`](Self::user_tokens) also apply to the website's users. If one
    /// website stands beside many accounts, give each [`login`](Self::login) the same
    /// [`UserTokens`](crate::UserTokens) instead, which then have one cache.
    /// [`WechatUser::revoke`](crate::WechatUser::revoke) for a user of the website ends that user's
    /// sessions beside all accounts.
    ///
    /// ```
    /// use tower_wechat::{Account, CookieKeys, Login, WechatClient};
    ///
    /// # fn main() -> Result<(), tower_wechat::Error> {
    /// let wechat = WechatClient::new("wx0123456789abcdef", "secret")?;
    /// let website = wechat.for_account("wxfedcba9876543210", "secret-of-the-website")?;
    /// let login = Login::new("https://h5.example.com/wx0123456789abcdef", CookieKeys::random()?)?;
    /// let account = Account::new(wechat).login(login).website(website);
    /// # let _ = account;
    /// # Ok(()) }
    /// ```
    pub fn website(mut self, wechat: WechatClient) -> Self {
        self.website = Some(wechat);
        self
    }

    /// Sets the hosts whose pages are signed for the JS-SDK, as
    /// [`Tickets::new`](crate::Tickets::new) takes them. Default: the host of the login's public URL.
    /// Without hosts and without a login, no page is signed.
    pub fn page_hosts<H: Into<String>>(mut self, hosts: impl IntoIterator<Item = H>) -> Self {
        self.page_hosts = Some(hosts.into_iter().map(Into::into).collect());
        self
    }

    /// Changes the settings of the users' tokens. The function runs whenever the layer makes the
    /// account, and must not block. If it panics, requests for the account receive 500.
    pub fn user_tokens<F>(mut self, change: F) -> Self
    where
        F: Fn(UserTokensBuilder) -> UserTokensBuilder + Send + Sync + 'static,
    {
        self.user_tokens = Some(Arc::new(change));
        self
    }

    /// Changes the settings of the account's own token. The function runs whenever the layer makes the
    /// account.
    ///
    /// The count of a [`daily_quota`](AccountTokensBuilder::daily_quota) is in memory. It starts again
    /// when the account is made again, for example after it was idle.
    pub fn account_tokens<F>(mut self, change: F) -> Self
    where
        F: Fn(AccountTokensBuilder) -> AccountTokensBuilder + Send + Sync + 'static,
    {
        self.account_tokens = Some(Arc::new(change));
        self
    }

    /// Returns the AppID of the account.
    pub fn app_id(&self) -> &AppId {
        self.wechat.app_id()
    }

    /// Returns the hosts whose pages are signed for the JS-SDK. Empty if no page is signed.
    pub(super) fn signed_hosts(&self) -> Vec<String> {
        match (&self.page_hosts, &self.login) {
            (Some(hosts), _) => hosts.to_vec(),
            (None, Some(login)) => vec![login.public_host().to_owned()],
            (None, None) => Vec::new(),
        }
    }

    /// Returns `true` if the layer must make the account again to serve `other`, the description that
    /// the registry returns now.
    ///
    /// Functions cannot be compared, and a registry creates new ones at each search. Only whether there
    /// is one counts: a change in what [`user_tokens`](Self::user_tokens),
    /// [`account_tokens`](Self::account_tokens) or a hook of the login does is not noticed.
    pub(super) fn differs_from(&self, other: &Self) -> bool {
        let has_same_login = match (&self.login, &other.login) {
            (Some(own), Some(other)) => own.has_same_settings(other),
            (own, other) => own.is_none() && other.is_none(),
        };
        let has_same_website = match (&self.website, &other.website) {
            (Some(own), Some(other)) => own.has_same_settings(other),
            (own, other) => own.is_none() && other.is_none(),
        };
        !self.wechat.has_same_settings(&other.wechat)
            || !has_same_login
            || !has_same_website
            || self.signed_hosts() != other.signed_hosts()
            || self.user_tokens.is_some() != other.user_tokens.is_some()
            || self.account_tokens.is_some() != other.account_tokens.is_some()
    }

    /// Returns the users' tokens of one of the account's apps, with the settings of the application.
    /// The tokens of an account from a registry have no gauges with the AppID as a label.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`](crate::ErrorKind::Configuration): the application returned the
    /// builder of another app.
    pub(super) fn users_of(
        &self,
        wechat: &WechatClient,
        store: &Arc<dyn Store>,
        is_from_registry: bool,
    ) -> Result<UserTokens, Error> {
        let mut users = UserTokensBuilder::with_store(wechat.clone(), Arc::clone(store));
        if let Some(change) = &self.user_tokens {
            users = change(users);
        }
        if is_from_registry {
            users = users.without_account_gauges();
        }
        let users = users.build();
        check_app_id(wechat.app_id(), users.app_id(), "users' tokens")?;
        Ok(users)
    }

    /// Checks the website.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`](crate::ErrorKind::Configuration): there is a website without a
    /// login, the login cannot have a website, the website has the AppID of the account, or the
    /// store would keep the records of both under one name.
    pub(super) fn check_website(&self, store: &Arc<dyn Store>) -> Result<(), Error> {
        let Some(website) = &self.website else {
            return Ok(());
        };
        let app = self.app_id().as_str();
        let Some(login) = &self.login else {
            return Err(Error::configuration(format!(
                "the account {app} has a website and no login: set the login with Account::login"
            )));
        };
        if website.app_id() == self.app_id() {
            return Err(Error::configuration(format!(
                "the website of the account {app} has the AppID of the account: create its client \
                 with the AppID and the secret of the website app (网站应用)"
            )));
        }
        store.check_several_accounts()?;
        login.check_website()
    }

    /// Returns the login of the account, with its website.
    ///
    /// # Errors
    /// Returns the errors of [`users_of`](Self::users_of).
    pub(super) fn login_with_website(
        &self,
        store: &Arc<dyn Store>,
        is_from_registry: bool,
    ) -> Result<Option<Login>, Error> {
        match (self.login.clone(), &self.website) {
            (Some(login), Some(website)) => {
                let users = self.users_of(website, store, is_from_registry)?;
                Ok(Some(login.with_website(users)))
            }
            (login, _) => Ok(login),
        }
    }
}

/// Returns an error if `what` of an app is that of another app.
pub(super) fn check_app_id(app: &AppId, made_for: &AppId, what: &str) -> Result<(), Error> {
    match app == made_for {
        true => Ok(()),
        false => Err(Error::configuration(format!(
            "the {what} of the account {} are those of {}: change the settings of the builder, and \
             return the same builder",
            app.as_str(),
            made_for.as_str(),
        ))),
    }
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Account")
            .field("app_id", self.app_id())
            .field("login", &self.login)
            .field("website", &self.website.as_ref().map(WechatClient::app_id))
            .finish_non_exhaustive()
    }
}
