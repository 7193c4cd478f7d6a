//! The times and sizes of [`AccountTokens`].

use std::sync::Arc;
use std::time::Duration;

use super::account_source::{AccountSource, AccountSourceKind};
use super::account_tokens::{AccountTokens, Inner};
use super::center_client::CenterSource;
#[cfg(feature = "redis")]
use super::external::ReadOnlySource;
use super::mode::TokenMode;
use super::own_credential::OwnCredential;
use super::quota::{DailyQuota, MAX_FORCED_REFRESHES_PER_DAY, MIN_REPORT_INTERVAL};
use super::rate_limiter::RateLimiter;
use super::source::WechatSource;
use crate::clock::Clock;
use crate::provider::{
    CredentialProvider, CredentialSource, ProviderConfig, RenewalTiming, StoreAccess,
};
#[cfg(feature = "redis")]
use crate::store::ExternalTokenStore;
use crate::store::{CredentialKind, Store};

/// WeChat hands out a new stable token only in the last five minutes of the one before.
const STABLE_RENEW_MARGIN: Duration = Duration::from_secs(5 * 60);

/// What the published layout's service subtracts.
const PLAIN_RENEW_MARGIN: Duration = Duration::from_secs(15 * 60);

/// How many calls a day this process allows itself, of 500,000 and 2,000 that WeChat's
/// documentation names.
const STABLE_DAILY_QUOTA: u32 = 10_000;
const PLAIN_DAILY_QUOTA: u32 = 1_000;

const CACHE_CAPACITY: usize = 16;

/// Under `cgi-bin/token` a token dies five minutes after another process has fetched the next one,
/// whatever its own life says: no process may believe it for as long without asking the store.
const MAX_PLAIN_CACHE_TTL: Duration = Duration::from_secs(4 * 60);

/// A token center may be in plain mode, which its clients cannot know, and answers with what it may
/// itself have believed for a while.
const MAX_CENTER_CACHE_TTL: Duration = Duration::from_secs(120);

/// A token center is not asked more often than this, however short the cache.
const MIN_POLL_INTERVAL: Duration = Duration::from_secs(1);

/// Settings of [`AccountTokens`], made by [`AccountTokens::builder`].
///
/// ```
/// use std::time::Duration;
/// use tower_wechat::account::TokenMode;
/// use tower_wechat::clock::Clock;
/// use tower_wechat::{AccountTokens, MemoryStore, WechatClient};
///
/// # fn main() -> Result<(), tower_wechat::Error> {
/// let wechat = WechatClient::new("wx0123456789abcdef", "secret")?;
/// let accounts = AccountTokens::builder(wechat, MemoryStore::new())
///     .mode(TokenMode::Plain)
///     .renew_margin(Duration::from_secs(900))
///     .daily_quota(500)
///     .cache_ttl(Duration::from_secs(30))
///     .load_timeout(Duration::from_secs(3))
///     .lease_duration(Duration::from_secs(10))
///     .clock(Clock::system())
///     .build();
/// # Ok(()) }
/// ```
#[derive(Debug)]
#[must_use = "a builder does nothing until `build` is called"]
pub struct AccountTokensBuilder {
    source: AccountSource,
    store: Arc<dyn Store>,
    mode: TokenMode,
    renew_margin: Option<Duration>,
    daily_quota: Option<u32>,
    settings: ProviderConfig,
    clock: Clock,
}

impl AccountTokens {
    /// Creates the tokens of the source's account with the default settings, kept in `store`.
    ///
    /// The source is one of these:
    ///
    /// - A [`WechatClient`](crate::WechatClient): WeChat issues the token, by default through
    ///   `cgi-bin/stable_token`.
    /// - A [`TokenCenterClient`]: this process asks a token center and needs no AppSecret. The
    ///   center is asked again every [`cache_ttl`](AccountTokensBuilder::cache_ttl) (60 seconds).
    ///   While the center does not answer, the last token is served until it expires. `store`
    ///   belongs to this process or its group; do not use the center's own Redis.
    #[cfg_attr(
        feature = "redis",
        doc = "- An [`ExternalToken`](crate::redis::ExternalToken), through its\n  \
               [`source`](crate::redis::ExternalToken::source) method: another system keeps the token in\n  \
               Redis, and this process only reads it."
    )]
    pub fn new(source: impl Into<AccountSource>, store: impl Store) -> Self {
        Self::builder(source, store).build()
    }

    /// Returns a builder with the default settings. Those that concern WeChat's calls have no
    /// effect with other sources.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tower_wechat::account::TokenCenterClient;
    /// use tower_wechat::{AccountTokens, MemoryStore, WechatClient};
    ///
    /// # fn main() -> Result<(), tower_wechat::Error> {
    /// # let wechat = WechatClient::new("wx0123456789abcdef", "secret")?;
    /// let accounts = AccountTokens::builder(wechat, MemoryStore::new()).daily_quota(500).build();
    ///
    /// let url = "http://center.internal/center";
    /// let center = TokenCenterClient::new("wx0123456789abcdef", url, "secret")?;
    /// let accounts = AccountTokens::builder(center, MemoryStore::new())
    ///     .cache_ttl(Duration::from_secs(30))
    ///     .build();
    /// # Ok(()) }
    /// ```
    pub fn builder(source: impl Into<AccountSource>, store: impl Store) -> AccountTokensBuilder {
        AccountTokensBuilder::new(source.into(), Arc::new(store))
    }
}

impl AccountTokensBuilder {
    fn new(source: AccountSource, store: Arc<dyn Store>) -> Self {
        let settings = ProviderConfig::new(
            STABLE_RENEW_MARGIN,
            RenewalTiming::AtRenewalTime,
            CACHE_CAPACITY,
        );
        Self {
            source,
            store,
            mode: TokenMode::default(),
            renew_margin: None,
            daily_quota: None,
            settings,
            clock: Clock::system(),
        }
    }

    /// Which of WeChat's calls the token comes from. Default: [`TokenMode::Stable`].
    pub fn mode(mut self, mode: TokenMode) -> Self {
        self.mode = mode;
        self
    }

    /// How long before its true expiry the token is due for renewal. Services that share a Redis
    /// must agree on it. Default: 300 seconds under [`TokenMode::Stable`], since WeChat repeats
    /// its token until then, and 900 seconds under [`TokenMode::Plain`].
    pub fn renew_margin(mut self, margin: Duration) -> Self {
        self.renew_margin = Some(margin);
        self
    }

    /// How many tokens this process may get from WeChat in a day (from midnight to midnight in
    /// Beijing). Reports of refused tokens can spend half of that, under
    /// [`TokenMode::Plain`] all processes together; calls that fail are not counted, as back-off
    /// and cool-down bound them. The count is this process's own and outlives whatever happens to
    /// the store. Default: 10,000 under
    /// [`TokenMode::Stable`], 1,000 under [`TokenMode::Plain`].
    pub fn daily_quota(mut self, calls: u32) -> Self {
        self.daily_quota = Some(calls);
        self
    }

    /// The longest that this process believes a token without a word of the store, which tells
    /// what other processes write (see
    /// [`UserTokensBuilder::cache_ttl`](crate::user::UserTokensBuilder::cache_ttl)). Default: 60
    /// seconds, as WeChat recommends to those who ask a central service. Under
    /// [`TokenMode::Plain`], and where another system keeps the token, it is four minutes at most,
    /// so that the five that a replaced token lives on suffice; for clients of a token center,
    /// which is asked as often as this, it is two.
    pub fn cache_ttl(mut self, ttl: Duration) -> Self {
        self.settings.cache_ttl = ttl;
        self
    }

    /// How long a caller waits for a token that has to be fetched first. Default: 5 seconds.
    pub fn load_timeout(mut self, wait: Duration) -> Self {
        self.settings.load_timeout = wait;
        self
    }

    /// How long the right to fetch a token is held, and so how long a process that dies while it
    /// fetches keeps the others waiting. A whole renewal takes four fifths of it at most (R7).
    /// Anything below 100 milliseconds counts as that, anything above an hour as an hour. Default:
    /// 10 seconds.
    pub fn lease_duration(mut self, lease: Duration) -> Self {
        self.settings.set_lease_duration(lease);
        self
    }

    /// The clock that lifetimes are measured by. Default: the system's.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Creates the tokens. The first [`prefetch`](AccountTokens::prefetch) or
    /// [`get`](AccountTokens::get) fetches a token.
    pub fn build(mut self) -> AccountTokens {
        self.apply_source_limits();
        let (token_store, source) = self.credential_source();
        let provider = CredentialProvider::new(
            self.source.kind().app_id().clone(),
            CredentialKind::AccountToken,
            self.settings,
            self.clock,
            token_store,
            source,
        );
        AccountTokens(Arc::new(Inner {
            credential: OwnCredential::new(provider),
            source: self.source,
            store: self.store,
        }))
    }

    /// Sets the margin, the timing and the upper bound of the cache's TTL that the source needs.
    fn apply_source_limits(&mut self) {
        let default_margin = match self.mode {
            TokenMode::Stable => STABLE_RENEW_MARGIN,
            TokenMode::Plain => PLAIN_RENEW_MARGIN,
        };
        let settings = &mut self.settings;
        settings.margin = self.renew_margin.unwrap_or(default_margin);
        let max_cache_ttl = match (self.source.kind(), self.mode) {
            (AccountSourceKind::Wechat(_), TokenMode::Stable) => {
                settings.timing = RenewalTiming::AfterRenewalTime;
                Duration::MAX
            }
            (AccountSourceKind::Wechat(_), TokenMode::Plain) => MAX_PLAIN_CACHE_TTL,
            (AccountSourceKind::TokenCenter(_), _) => MAX_CENTER_CACHE_TTL,
            // The other system may fetch the token from `cgi-bin/token`.
            #[cfg(feature = "redis")]
            (AccountSourceKind::External(..), _) => MAX_PLAIN_CACHE_TTL,
        };
        settings.cache_ttl = settings.cache_ttl.min(max_cache_ttl);
    }

    /// Returns the store that holds the token, and the source of the next token.
    fn credential_source(&self) -> (StoreAccess, Box<dyn CredentialSource>) {
        let (store, clock, margin) = (&self.store, self.clock.clone(), self.settings.margin);
        match self.source.kind() {
            AccountSourceKind::Wechat(wechat) => {
                let default_quota = match self.mode {
                    TokenMode::Stable => STABLE_DAILY_QUOTA,
                    TokenMode::Plain => PLAIN_DAILY_QUOTA,
                };
                let quota = DailyQuota::new(self.daily_quota.unwrap_or(default_quota));
                let limiter = |name, per_day| {
                    RateLimiter::new(wechat.app_id(), store, name, MIN_REPORT_INTERVAL, per_day)
                };
                let source = WechatSource {
                    wechat: wechat.clone(),
                    clock,
                    mode: self.mode,
                    margin,
                    forced_refreshes: limiter("forced", MAX_FORCED_REFRESHES_PER_DAY),
                    reported_replacements: limiter("refused", quota.max_for_reports()),
                    quota,
                };
                (StoreAccess::Full(Arc::clone(store)), Box::new(source))
            }
            AccountSourceKind::TokenCenter(center) => {
                let source = CenterSource {
                    center: center.clone(),
                    clock,
                    margin,
                    poll_interval: self.settings.cache_ttl.max(MIN_POLL_INTERVAL),
                };
                (StoreAccess::Full(Arc::clone(store)), Box::new(source))
            }
            #[cfg(feature = "redis")]
            AccountSourceKind::External(_, redis, token) => {
                let external = ExternalTokenStore::new(redis.clone(), token.clone());
                (
                    StoreAccess::ReadOnly(Arc::new(external)),
                    Box::new(ReadOnlySource),
                )
            }
        }
    }
}
