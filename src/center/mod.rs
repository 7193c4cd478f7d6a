//! The token center: one service keeps the account's token and returns it to other services.
//!
//! WeChat recommends this setup (中控服务器, documentation of `cgi-bin/token`).

mod bearers;
mod rejection_log;
mod response;
mod service;

use std::fmt;
use std::sync::Arc;

pub(crate) use self::bearers::BearerSecrets;
use self::rejection_log::RejectionLog;
use crate::accounts::AccountTokens;
use crate::clock::{Clock, Timestamp};
use crate::credential::BearerSecret;
use crate::error::Error;
use crate::layer::WechatAccount;
use crate::tickets::Tickets;

/// A Tower service that returns the account's token, ticket and JS-SDK signatures to clients with a
/// bearer secret. Mount the center where only your own services can reach it.
///
/// | route | response |
/// |---|---|
/// | `GET /access_token` | `{"access_token": …, "expires_in": SECONDS}` |
/// | `POST /access_token/invalid` with `{"access_token": REJECTED}` | the current token in the same form; the center renews it only if the reported token is the current one |
/// | `GET /jsapi_ticket` | `{"ticket": …, "expires_in": SECONDS}` |
/// | `GET /jssdk/config?url=PAGE` | `{"appId", "timestamp", "nonceStr", "signature"}` |
///
/// Every request needs `Authorization: Bearer SECRET`. No response may be cached
/// (`Cache-Control: no-store`). `url` is `encodeURIComponent(location.href)`;
/// [`jssdk::page_url`](crate::jssdk::page_url) describes which URLs are rejected because the client
/// did not encode them.
///
/// Error responses have the body `{"error": CODE, "message": TEXT}`:
///
/// | status | cause |
/// |---|---|
/// | 401 `unauthorized` | the bearer secret is missing, wrong or expired; checked before everything else |
/// | 400 `bad_request` | the body or the page's URL is invalid |
/// | 404, 405 | no such route, or the wrong method |
/// | 503 with `Retry-After` | no token is available |
///
/// Requests without an accepted bearer secret are counted (`wechat_center_refused_total`), and
/// logged at most once a minute.
///
/// Clients in other languages should cache the token for one minute at most, however long
/// `expires_in` is, and report a token that WeChat rejects.
///
/// ```no_run
/// use axum::Router;
/// use tower_wechat::account::TokenCenter;
/// use tower_wechat::{AccountTokens, Error, RedisStore, Tickets, WechatClient};
///
/// # async fn run() -> Result<(), Error> {
/// let wechat = WechatClient::new("wx0123456789abcdef", "the AppSecret")?;
/// let store = RedisStore::connect("redis://127.0.0.1/").await?;
/// let accounts = AccountTokens::new(wechat, store);
/// let tickets = Tickets::new(&accounts, ["h5.example.com"])?;
/// let center = TokenCenter::new(accounts, ["a long random secret without blanks"])?.tickets(tickets);
/// let app: Router = Router::new().nest_service("/center", center);
/// # let _ = app;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct TokenCenter(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    /// The account of the center. `None`: each request brings its account, from the layer.
    account: Option<CenterAccount>,
    secrets: Arc<BearerSecrets>,
    rejection_log: Arc<RejectionLog>,
}

/// The account whose token a center returns.
#[derive(Clone)]
struct CenterAccount {
    accounts: AccountTokens,
    tickets: Option<Tickets>,
}

impl From<&WechatAccount> for CenterAccount {
    fn from(account: &WechatAccount) -> Self {
        Self {
            accounts: account.tokens().clone(),
            tickets: account.tickets().cloned(),
        }
    }
}

impl TokenCenter {
    /// Creates a token center for the account.
    ///
    /// A request needs one of `secrets`. To rotate a secret, add the new one, reconfigure the
    /// clients, then remove the old one.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`](crate::ErrorKind::Configuration): `secrets` is empty, or a
    /// secret is empty or contains a character that a header cannot carry.
    pub fn new<S: Into<BearerSecret>>(
        accounts: AccountTokens,
        secrets: impl IntoIterator<Item = S>,
    ) -> Result<Self, Error> {
        let account = CenterAccount {
            accounts,
            tickets: None,
        };
        Self::of(Some(account), secrets)
    }

    /// Creates a token center for the account of each request: the [`WechatAccount`] that a layer
    /// around the center has inserted. Each secret gives access to the tokens of all accounts.
    ///
    /// The clients of the center have no session, so the layer around it needs an identity without users:
    ///
    /// ```
    /// use axum::Router;
    /// use tower_wechat::account::TokenCenter;
    /// use tower_wechat::{Accounts, Error, Policy, RequestHead, UserId, WechatLayer};
    ///
    /// /// Serves `/wx0123456789abcdef/center/access_token`.
    /// fn center(accounts: Accounts, secret: &str) -> Result<Router, Error> {
    ///     let layer = WechatLayer::for_accounts(accounts)
    ///         .identity(|_: &RequestHead<'_>| -> Option<UserId> { None })
    ///         .policy(Policy::Optional);
    ///     let center = TokenCenter::for_accounts([secret])?;
    ///     Ok(Router::new().nest_service("/{account}/center", center).layer(layer))
    /// }
    /// ```
    ///
    /// # Errors
    /// Returns the errors of [`new`](Self::new).
    pub fn for_accounts<S: Into<BearerSecret>>(
        secrets: impl IntoIterator<Item = S>,
    ) -> Result<Self, Error> {
        Self::of(None, secrets)
    }

    fn of<S: Into<BearerSecret>>(
        account: Option<CenterAccount>,
        secrets: impl IntoIterator<Item = S>,
    ) -> Result<Self, Error> {
        let secrets = BearerSecrets::new(secrets.into_iter().map(Into::into))?;
        Ok(Self(Arc::new(Inner {
            account,
            secrets: Arc::new(secrets),
            rejection_log: Arc::default(),
        })))
    }

    /// Adds the routes `/jsapi_ticket` and `/jssdk/config`. Default: these routes return 404.
    ///
    /// A center [`for_accounts`](Self::for_accounts) has the tickets of each account, and ignores
    /// these.
    #[must_use]
    pub fn tickets(self, tickets: Tickets) -> Self {
        let mut inner = Arc::unwrap_or_clone(self.0);
        if let Some(account) = &mut inner.account {
            account.tickets = Some(tickets);
        }
        Self(Arc::new(inner))
    }

    /// Replaces all accepted secrets, on all clones of the center.
    ///
    /// # Errors
    /// Returns the errors of [`new`](Self::new). The previous secrets then remain accepted.
    pub fn replace_secrets<S: Into<BearerSecret>>(
        &self,
        secrets: impl IntoIterator<Item = S>,
    ) -> Result<(), Error> {
        self.0.secrets.replace(secrets.into_iter().map(Into::into))
    }

    /// Accepts one more secret until a point in time, on all clones of the center.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`](crate::ErrorKind::Configuration): the secret is empty or
    /// contains a character that a header cannot carry.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tower_wechat::account::TokenCenter;
    /// use tower_wechat::clock::Clock;
    /// use tower_wechat::Error;
    ///
    /// /// Accepts `new` from now on, and `old` for one more hour.
    /// fn rotate(center: &TokenCenter, old: &str, new: &str) -> Result<(), Error> {
    ///     center.replace_secrets([new])?;
    ///     center.accept_until(old, Clock::system().now().saturating_add(Duration::from_secs(3_600)))
    /// }
    /// ```
    pub fn accept_until(
        &self,
        secret: impl Into<BearerSecret>,
        until: Timestamp,
    ) -> Result<(), Error> {
        let now = match &self.0.account {
            Some(account) => account.accounts.clock().now(),
            None => Clock::system().now(),
        };
        self.0.secrets.accept_until(&secret.into(), until, now)
    }
}

impl fmt::Debug for TokenCenter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("TokenCenter");
        if let Some(account) = &self.0.account {
            out.field("accounts", &account.accounts)
                .field("tickets", &account.tickets);
        }
        out.finish_non_exhaustive()
    }
}
