//! The token center: one service keeps the account's token, and others ask it.
//!
//! That is the set-up that WeChat recommends (中控服务器, documentation of `cgi-bin/token`).

mod bearers;
mod rejection_log;
mod response;
mod service;

use std::fmt;
use std::sync::Arc;

pub(crate) use self::bearers::BearerSecrets;
use self::rejection_log::RejectionLog;
use crate::accounts::AccountTokens;
use crate::clock::Timestamp;
use crate::credential::BearerSecret;
use crate::error::Error;
use crate::tickets::Tickets;

/// A Tower service that hands the account's token, ticket and signatures to whoever proves itself
/// with a bearer secret. Mount it where only your own services reach it.
///
/// | route | answer |
/// |---|---|
/// | `GET /access_token` | `{"access_token": …, "expires_in": SECONDS}` |
/// | `POST /access_token/invalid` with `{"access_token": REFUSED}` | the current token in the same form, renewed only if it was the refused one |
/// | `GET /jsapi_ticket` | `{"ticket": …, "expires_in": SECONDS}` |
/// | `GET /jssdk/config?url=PAGE` | `{"appId", "timestamp", "nonceStr", "signature"}` |
///
/// All need `Authorization: Bearer SECRET` and are never cached (`Cache-Control: no-store`).
/// Errors are `{"error": CODE, "message": TEXT}`: 401 `unauthorized` for a missing, wrong or
/// expired bearer, before anything else is looked at; 400 `bad_request`; 404 and 405 for routes
/// that are none; 503 with `Retry-After` where there is no token. `url` is
/// `encodeURIComponent(location.href)`; [`jssdk::page_url`](crate::jssdk::page_url) says which
/// pages get 400 because they were not encoded.
///
/// A request without an accepted bearer is counted (`wechat_center_refused_total`), and logged at
/// most once a minute.
///
/// In other languages `expires_in` is all there is to know: keep the token for a minute at most,
/// and report it when WeChat refuses it.
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
    accounts: AccountTokens,
    tickets: Option<Tickets>,
    secrets: Arc<BearerSecrets>,
    rejection_log: Arc<RejectionLog>,
}

impl TokenCenter {
    /// A center for the account's token. Every one of `secrets` is accepted, so that they can be
    /// rotated: add the new one, move the clients over, take the old one out.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`](crate::ErrorKind::Configuration): no secret is given, or one is
    /// empty or could not stand in a header.
    pub fn new<S: Into<BearerSecret>>(
        accounts: AccountTokens,
        secrets: impl IntoIterator<Item = S>,
    ) -> Result<Self, Error> {
        let bearers = BearerSecrets::new(secrets.into_iter().map(Into::into))?;
        Ok(Self(Arc::new(Inner {
            accounts,
            tickets: None,
            secrets: Arc::new(bearers),
            rejection_log: Arc::default(),
        })))
    }

    /// Adds the routes of the ticket and of the JS-SDK's signatures.
    #[must_use]
    pub fn tickets(self, tickets: Tickets) -> Self {
        let mut inner = Arc::unwrap_or_clone(self.0);
        inner.tickets = Some(tickets);
        Self(Arc::new(inner))
    }

    /// Accepts `secrets` from now on and no others, on all clones.
    ///
    /// # Errors
    /// As [`new`](Self::new); then those before stay.
    pub fn replace_secrets<S: Into<BearerSecret>>(
        &self,
        secrets: impl IntoIterator<Item = S>,
    ) -> Result<(), Error> {
        self.0.secrets.replace(secrets.into_iter().map(Into::into))
    }

    /// Accepts one more secret, on all clones, until a point in time.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    ///
    /// ```
    /// use std::time::Duration;
    /// use tower_wechat::account::TokenCenter;
    /// use tower_wechat::clock::Clock;
    /// use tower_wechat::Error;
    ///
    /// /// `new` counts from now on, and `old` for an hour more.
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
        let now = self.0.accounts.clock().now();
        self.0.secrets.accept_until(&secret.into(), until, now)
    }
}

impl fmt::Debug for TokenCenter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenCenter")
            .field("accounts", &self.0.accounts)
            .field("tickets", &self.0.tickets)
            .finish_non_exhaustive()
    }
}
