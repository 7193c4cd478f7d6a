//! The account's own token: the second face of the engine.

mod builder;
mod center_client;
#[cfg(feature = "redis")]
mod external;
mod quota;
mod rate_limiter;
mod source;
mod token;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub use self::builder::AccountTokensBuilder;
pub use self::center_client::TokenCenterClient;
pub(crate) use self::rate_limiter::RateLimiter;
pub(crate) use self::source::{account_record, classify};
pub use self::token::AccountToken;
use crate::clock::Clock;
use crate::credential::{AccessToken, AppId};
use crate::error::{Error, InvalidToken};
use crate::provider::{CacheEntry, CredentialProvider, Prefetcher};
use crate::store::Store;
#[cfg(feature = "redis")]
use crate::store::{ExternalToken, RedisStore};
use crate::wechat::WechatClient;

/// An account has one token of its kind: there is nobody to name.
const ACCOUNT_ID: &str = "";

/// Which of WeChat's two calls the account's token comes from. Their tokens know nothing of each
/// other, so all services of an account that share a store must agree.
///
/// ```
/// use tower_wechat::{AccountTokens, MemoryStore, TokenMode, WechatClient};
///
/// # fn main() -> Result<(), tower_wechat::Error> {
/// # let wechat = WechatClient::new("wx0123456789abcdef", "secret")?;
/// // All other services of the account call `cgi-bin/token`, and share this store:
/// let accounts = AccountTokens::builder(wechat, MemoryStore::new()).mode(TokenMode::Plain).build();
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
#[non_exhaustive]
pub enum TokenMode {
    /// `cgi-bin/stable_token`: WeChat repeats the current token until its last five minutes, so
    /// services that do not share a store do not destroy each other's.
    #[default]
    Stable,
    /// `cgi-bin/token`: each call makes a new token, and the one before lives on for five minutes;
    /// some 2,000 calls a day.
    Plain,
}

/// The account's interface access token (`cgi-bin`), which all API calls in the account's name
/// carry: kept in a store that all processes share, renewed ahead of time and by one process only,
/// held in memory in between.
///
/// It is the token that processes destroy for each other, and that costs quota. Here it is fetched
/// once for all, and no request waits at rollover: a task of each process that has asked for the
/// token looks ahead, be it idle or busy. The task ends with [`shutdown`](Self::shutdown) or with
/// the last clone.
///
/// Clones are cheap and share everything.
///
/// ```no_run
/// use tower_wechat::{AccountTokens, Error, RedisStore, WechatClient};
///
/// # async fn run() -> Result<(), Error> {
/// let wechat = WechatClient::new("wx0123456789abcdef", "the AppSecret")?;
/// let store = RedisStore::connect("redis://127.0.0.1/").await?;
/// let accounts = AccountTokens::new(wechat.clone(), store);
/// if let Err(error) = accounts.prefetch().await {
///     eprintln!("started without a token: {error}");
/// }
///
/// // Any call of WeChat's API, healed once if WeChat refuses the token:
/// let follower: serde_json::Value = accounts
///     .with_token(async |token| {
///         let query = [("openid", "oUser")];
///         wechat.get_json("cgi-bin/user/info", token.access_token(), &query).await
///     })
///     .await?;
/// # let _ = follower;
/// # Ok(()) }
/// ```
///
/// By hand, for calls that [`with_token`](Self::with_token) does not suit:
///
/// ```
/// use tower_wechat::{AccountTokens, Error};
///
/// async fn call(accounts: &AccountTokens) -> Result<(), Error> {
///     // In memory, if that is enough; else wherever it is to be had.
///     let token = match accounts.cached() {
///         Some(token) => token,
///         None => accounts.get().await?,
///     };
/// #   let refused = true;
///     // … a call with `token.access_token().expose()`. If WeChat answers 40001:
///     if refused {
///         let token = accounts.report_invalid(token.access_token()).await?;
/// #       let _ = token;
///         // … and once more, with this one.
///     }
///     Ok(())
/// }
/// ```
#[derive(Clone)]
pub struct AccountTokens(Arc<Inner>);

struct Inner {
    provider: CredentialProvider,
    source: AccountSourceKind,
    store: Arc<dyn Store>,
    prefetcher: Prefetcher,
}

/// Where the account's credentials come from.
#[derive(Debug, Clone)]
pub(crate) enum AccountSourceKind {
    /// From WeChat.
    Wechat(WechatClient),
    /// From a token center.
    TokenCenter(TokenCenterClient),
    /// The token lies in Redis, where another system keeps it; all else comes from WeChat.
    #[cfg(feature = "redis")]
    External(WechatClient, RedisStore, ExternalToken),
}

impl AccountTokens {
    /// The token of the client's account, kept in `store`, from `cgi-bin/stable_token` and with
    /// the usual times.
    pub fn new(wechat: WechatClient, store: impl Store) -> Self {
        Self::builder(wechat, store).build()
    }

    /// The same with other settings.
    ///
    /// ```
    /// use tower_wechat::{AccountTokens, MemoryStore, WechatClient};
    ///
    /// # fn main() -> Result<(), tower_wechat::Error> {
    /// # let wechat = WechatClient::new("wx0123456789abcdef", "secret")?;
    /// let accounts = AccountTokens::builder(wechat, MemoryStore::new()).daily_quota(500).build();
    /// # Ok(()) }
    /// ```
    pub fn builder(wechat: WechatClient, store: impl Store) -> AccountTokensBuilder {
        AccountTokensBuilder::new(AccountSourceKind::Wechat(wechat), Arc::new(store))
    }

    /// The token that a token center keeps: this process never asks WeChat for it, and needs no
    /// AppSecret. The center is asked again every [`cache_ttl`](AccountTokensBuilder::cache_ttl)
    /// (60 seconds), ahead of need; while it does not answer, the token serves until it dies.
    ///
    /// `store` is this process's own or that of its group. The center's own Redis is no place for
    /// it: who reaches that needs no center.
    pub fn from_center(center: TokenCenterClient, store: impl Store) -> Self {
        Self::center_builder(center, store).build()
    }

    /// The same with other settings; those that concern WeChat's calls do nothing.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tower_wechat::{AccountTokens, MemoryStore, TokenCenterClient};
    ///
    /// # fn main() -> Result<(), tower_wechat::Error> {
    /// let center = TokenCenterClient::new("wx0123456789abcdef", "http://center.internal/center", "secret")?;
    /// let accounts = AccountTokens::center_builder(center.clone(), MemoryStore::new())
    ///     .cache_ttl(Duration::from_secs(30))
    ///     .build();
    /// // With the usual settings:
    /// let accounts = AccountTokens::from_center(center, MemoryStore::new());
    /// # Ok(()) }
    /// ```
    pub fn center_builder(center: TokenCenterClient, store: impl Store) -> AccountTokensBuilder {
        AccountTokensBuilder::new(AccountSourceKind::TokenCenter(center), Arc::new(store))
    }

    /// The token that another system keeps in Redis: it is read and never fetched, renewed or
    /// written. While a service in another language still owns the account's token, this is how
    /// both use one. A value that cannot be read counts as missing and is told in the log.
    ///
    /// The client is for the ticket, which this crate keeps itself, in `store`.
    #[cfg(feature = "redis")]
    #[cfg_attr(docsrs, doc(cfg(feature = "redis")))]
    pub fn follow(wechat: WechatClient, store: RedisStore, token: ExternalToken) -> Self {
        Self::follower_builder(wechat, store, token).build()
    }

    /// The same with other settings; those that concern WeChat's calls do nothing.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tower_wechat::{AccountTokens, ExternalToken, RedisStore, WechatClient};
    ///
    /// # fn run(wechat: WechatClient, store: RedisStore) {
    /// let accounts =
    ///     AccountTokens::follower_builder(wechat.clone(), store.clone(), ExternalToken::wx_java())
    ///         .cache_ttl(Duration::from_secs(10))
    ///         .build();
    /// // With the usual settings:
    /// let accounts = AccountTokens::follow(wechat, store, ExternalToken::wx_java());
    /// # }
    /// ```
    #[cfg(feature = "redis")]
    #[cfg_attr(docsrs, doc(cfg(feature = "redis")))]
    pub fn follower_builder(
        wechat: WechatClient,
        store: RedisStore,
        token: ExternalToken,
    ) -> AccountTokensBuilder {
        let origin = AccountSourceKind::External(wechat, store.clone(), token);
        AccountTokensBuilder::new(origin, Arc::new(store))
    }

    /// The account whose token this is.
    pub fn app_id(&self) -> &AppId {
        self.0.provider.app()
    }

    /// Fetches the token, so that the first request finds it, and starts the task that looks
    /// ahead. Call it at start-up. It ends within the time set by
    /// [`AccountTokensBuilder::load_timeout`] (5 seconds), and whatever it answers, the process may go on:
    /// the task keeps trying.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn prefetch(&self) -> Result<(), Error> {
        self.get().await.map(drop)
    }

    /// A usable token: from memory, else from the store, renewed if it must be.
    ///
    /// A token that is due for renewal but not expired is handed out at once and renewed in the
    /// background (R4). The renewal goes on when the caller stops waiting (R3).
    ///
    /// # Errors
    /// [`ErrorKind::StoreUnavailable`](crate::ErrorKind::StoreUnavailable),
    /// [`ErrorKind::WechatUnavailable`](crate::ErrorKind::WechatUnavailable),
    /// [`ErrorKind::WechatConfig`](crate::ErrorKind::WechatConfig): none is at hand, and the store
    /// or WeChat fails or refuses the account. At the latest after the time set by
    /// [`AccountTokensBuilder::load_timeout`] (5 seconds).
    pub async fn get(&self) -> Result<AccountToken, Error> {
        if let Some(token) = self.cached() {
            return Ok(token);
        }
        self.0.prefetcher.start(&self.0.provider, ACCOUNT_ID);
        self.0
            .provider
            .get(ACCOUNT_ID)
            .await
            .map(|held| self.token(held))
    }

    /// The token, if this process holds one that needs no thought. Never waits.
    #[inline]
    pub fn cached(&self) -> Option<AccountToken> {
        self.0
            .provider
            .cached(ACCOUNT_ID)
            .map(|held| self.token(held))
    }

    /// How long the token that this process holds has to live; `None` where it holds none that is
    /// alive. Never waits.
    pub(crate) fn remaining_lifetime(&self) -> Option<Duration> {
        let held = self.0.provider.unexpired(ACCOUNT_ID)?;
        Some(self.token(held).expires_in())
    }

    /// Reports that WeChat refused a call (40001, 40014, 42001) that was made with `refused`, and
    /// answers with the current token.
    ///
    /// The token is renewed only if `refused` is still the current one: a thousand reports of one
    /// token cause one renewal (R6). Under [`TokenMode::Stable`] WeChat's normal mode is asked
    /// first, and a new token is forced only where that repeats the refused one, at least 30
    /// seconds after the last time and less than 20 times a day. So the answer may be the refused
    /// token still.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn report_invalid(&self, invalid: &AccessToken) -> Result<AccountToken, Error> {
        let current = self.0.provider.report_invalid(ACCOUNT_ID, invalid).await;
        current.map(|held| self.token(held))
    }

    /// Runs a call with the token. If WeChat refuses the token, it is reported, and the call runs
    /// once more with its successor; never a third time (R6).
    ///
    /// # Errors
    /// Those of [`get`](Self::get), turned into the call's error type, and the call's own.
    pub async fn with_token<T, E, F, Fut>(&self, mut call: F) -> Result<T, E>
    where
        F: FnMut(AccountToken) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: InvalidToken + From<Error>,
    {
        self.0.prefetcher.start(&self.0.provider, ACCOUNT_ID);
        let call = |held| call(self.token(held));
        self.0.provider.with_credential(ACCOUNT_ID, call).await
    }

    /// Whether the store answers and a usable token is at hand or can be had.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    ///
    /// ```
    /// # async fn run(accounts: tower_wechat::AccountTokens) {
    /// if let Err(error) = accounts.health().await {
    ///     eprintln!("calls in the account's name will fail: {error}");
    /// }
    /// # }
    /// ```
    pub async fn health(&self) -> Result<(), Error> {
        self.0.provider.ping().await?;
        self.get().await.map(drop)
    }

    /// Ends the task that looks ahead, and waits for a renewal that is under way, for at most
    /// `patience`, so that what WeChat has granted reaches the store before the process ends (R3).
    /// Call it after the server has stopped taking requests. Answers whether all has ended.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tower_wechat::AccountTokens;
    ///
    /// async fn stop(accounts: AccountTokens) {
    ///     // After the server has stopped taking requests:
    ///     if !accounts.shutdown(Duration::from_secs(10)).await {
    ///         eprintln!("the renewal of {}'s token was cut short", accounts.app_id());
    ///     }
    /// }
    /// ```
    pub async fn shutdown(&self, timeout: Duration) -> bool {
        self.0.prefetcher.stop();
        self.0.provider.shutdown(timeout).await
    }

    fn token(&self, entry: CacheEntry) -> AccountToken {
        AccountToken::new(entry, self.clock())
    }

    pub(crate) fn clock(&self) -> &Clock {
        self.0.provider.clock()
    }

    pub(crate) fn provider(&self) -> &CredentialProvider {
        &self.0.provider
    }

    pub(crate) fn source_kind(&self) -> &AccountSourceKind {
        &self.0.source
    }

    /// The store that may be written to.
    pub(crate) fn writable_store(&self) -> &Arc<dyn Store> {
        &self.0.store
    }
}

impl fmt::Debug for AccountTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccountTokens")
            .field("provider", &self.0.provider)
            .field("origin", &self.0.source)
            .finish_non_exhaustive()
    }
}
