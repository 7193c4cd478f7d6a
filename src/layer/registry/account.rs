//! An account as an application describes it to a layer of several accounts.

use std::fmt;
use std::sync::Arc;

use crate::account::AccountTokensBuilder;
use crate::credential::AppId;
use crate::error::Error;
use crate::login::Login;
use crate::user::UserTokensBuilder;
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

    /// Sets the hosts whose pages are signed for the JS-SDK, as
    /// [`Tickets::new`](crate::Tickets::new) takes them. Default: the host of the login's public URL.
    /// Without hosts and without a login, no page is signed.
    pub fn page_hosts<H: Into<String>>(mut self, hosts: impl IntoIterator<Item = H>) -> Self {
        self.page_hosts = Some(hosts.into_iter().map(Into::into).collect());
        self
    }

    /// Changes the settings of the users' tokens. The function runs whenever the layer makes the
    /// account.
    pub fn user_tokens<F>(mut self, change: F) -> Self
    where
        F: Fn(UserTokensBuilder) -> UserTokensBuilder + Send + Sync + 'static,
    {
        self.user_tokens = Some(Arc::new(change));
        self
    }

    /// Changes the settings of the account's own token. The function runs whenever the layer makes the
    /// account.
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
    /// the registry returns now: the AppSecret or the public URL has changed.
    pub(super) fn differs_from(&self, other: &Self) -> bool {
        let url = |account: &Self| {
            account
                .login
                .as_ref()
                .map(|login| login.public_url().clone())
        };
        !self.wechat.has_same_secret(&other.wechat) || url(self) != url(other)
    }

    /// Returns an error if `users` of this account has another AppID.
    pub(super) fn check_app_id(&self, app_id: &AppId, what: &str) -> Result<(), Error> {
        match app_id == self.app_id() {
            true => Ok(()),
            false => Err(Error::configuration(format!(
                "the {what} of the account {} are those of {}: change the settings of the builder, \
                 and return the same builder",
                self.app_id().as_str(),
                app_id.as_str(),
            ))),
        }
    }
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Account")
            .field("app_id", self.app_id())
            .field("login", &self.login)
            .finish_non_exhaustive()
    }
}
