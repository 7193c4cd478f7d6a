//! Builder of [`AccountTokens`].

use std::sync::Arc;
use std::time::Duration;

use super::account_source::{AccountSource, AccountSourceKind};
use super::account_tokens::{AccountTokens, Inner};
use super::center_client::CenterSource;
#[cfg(any(feature = "redis", feature = "platform"))]
use super::external::ReadOnlySource;
use super::mode::TokenMode;
#[cfg(feature = "platform")]
use super::on_behalf::OnBehalfSource;
#[cfg(feature = "platform")]
use super::own_credential::AUTHORIZER_RENEW_MARGIN;
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

/// Default renewal margin under [`TokenMode::Stable`]: five minutes. `cgi-bin/stable_token` returns
/// a new token only in the last five minutes of the current token.
const STABLE_RENEW_MARGIN: Duration = Duration::from_secs(5 * 60);

/// Default renewal margin under [`TokenMode::Plain`]: 15 minutes. The Spring Boot service of the
/// published layout has the same value.
const PLAIN_RENEW_MARGIN: Duration = Duration::from_secs(15 * 60);

/// Default calls per day and process under [`TokenMode::Stable`]: 10,000, a small part of the
/// 500,000 that WeChat's documentation allows the account.
const STABLE_DAILY_QUOTA: u32 = 10_000;

/// Default calls per day and process under [`TokenMode::Plain`]: 1,000, half of the 2,000 that
/// WeChat's documentation allows the account.
const PLAIN_DAILY_QUOTA: u32 = 1_000;

/// Maximum number of entries in the cache of an account's token: 16, although an account has only
/// one token.
const CACHE_CAPACITY: usize = 16;

/// Maximum cache TTL of tokens from `cgi-bin/token`: four minutes. Such a token becomes invalid
/// five minutes after a process has fetched the next token, so each process must read the store
/// before that.
const MAX_PLAIN_CACHE_TTL: Duration = Duration::from_secs(4 * 60);

/// Maximum cache TTL of tokens that a third-party platform renews: one minute. If the owner of the
/// account authorizes the platform again, WeChat revokes the former token at once. A process that
/// misses the message of the new token must find it in the store soon.
#[cfg(feature = "platform")]
const MAX_ON_BEHALF_CACHE_TTL: Duration = Duration::from_secs(60);

/// Maximum cache TTL of tokens from a token center: two minutes. The center may use
/// `cgi-bin/token`, and its own cache may already have served the token for some time.
const MAX_CENTER_CACHE_TTL: Duration = Duration::from_secs(120);

/// Minimum interval between two requests to a token center: one second. This interval applies if
/// the cache TTL is shorter.
const MIN_POLL_INTERVAL: Duration = Duration::from_secs(1);

/// Builder of [`AccountTokens`], created by [`AccountTokens::builder`].
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
    /// - A [`TokenCenterClient`](crate::account::TokenCenterClient): a token center returns the
    ///   token, and this process needs no AppSecret. The process requests the token again every
    ///   [`cache_ttl`](AccountTokensBuilder::cache_ttl) (60 seconds). While the center is
    ///   unreachable, the last token is served until it expires. `store` belongs to this process
    ///   or its group; do not use the center's own Redis.
    #[cfg_attr(
        feature = "redis",
        doc = "- An [`ExternalToken`](crate::redis::ExternalToken), through its\n  \
               [`source`](crate::redis::ExternalToken::source) method: another system keeps the token in\n  \
               Redis, and this process only reads it."
    )]
    pub fn new(source: impl Into<AccountSource>, store: impl Store) -> Self {
        Self::builder(source, store).build()
    }

    /// Returns a builder with the default settings. [`mode`](AccountTokensBuilder::mode) and
    /// [`daily_quota`](AccountTokensBuilder::daily_quota) have no effect with a source other than
    /// WeChat.
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
        AccountTokensBuilder::with_store(source.into(), Arc::new(store))
    }
}

impl AccountTokensBuilder {
    pub(crate) fn with_store(source: AccountSource, store: Arc<dyn Store>) -> Self {
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

    /// Sets the WeChat call that the token comes from. Default: [`TokenMode::Stable`].
    pub fn mode(mut self, mode: TokenMode) -> Self {
        self.mode = mode;
        self
    }

    /// Sets the time before the token's expiry at which the token is due for renewal. All services
    /// that share a Redis must use the same value.
    ///
    /// Default: 300 seconds under [`TokenMode::Stable`], because WeChat returns the same token
    /// until then. 900 seconds under [`TokenMode::Plain`]. For the accounts of a third-party platform
    /// (第三方平台), it is always 900 seconds.
    pub fn renew_margin(mut self, margin: Duration) -> Self {
        self.renew_margin = Some(margin);
        self
    }

    /// Sets the maximum number of tokens that this process requests from WeChat in a day, from
    /// midnight to midnight in Beijing.
    ///
    /// Reports of invalid tokens can spend half of this number. Under [`TokenMode::Plain`], the
    /// reports of all processes together can spend half of this number. Failed calls do not count,
    /// because back-off and the circuit breaker already limit them. The count is in memory, so a
    /// flushed store does not reset it.
    ///
    /// Default: 10,000 under [`TokenMode::Stable`], 1,000 under [`TokenMode::Plain`] and if a
    /// third-party platform (第三方平台) renews the token.
    pub fn daily_quota(mut self, calls: u32) -> Self {
        self.daily_quota = Some(calls);
        self
    }

    /// Sets the maximum time for which the cached token is served without confirmation from the
    /// store; see [`UserTokensBuilder::cache_ttl`](crate::user::UserTokensBuilder::cache_ttl).
    ///
    /// With a token center as the source, this is also the interval between two requests to the
    /// center. Upper bounds:
    ///
    /// - One minute if a third-party platform (第三方平台) renews the token: the next authorization
    ///   revokes it at once.
    /// - Two minutes with a token center.
    /// - Four minutes under [`TokenMode::Plain`], or if another system keeps the token. A replaced
    ///   token stays valid for five minutes.
    ///
    /// Default: 60 seconds, the interval that WeChat recommends to clients of a central service.
    pub fn cache_ttl(mut self, ttl: Duration) -> Self {
        self.settings.cache_ttl = ttl;
        self
    }

    /// Sets the maximum time that a caller waits for a token. A renewal that takes longer continues
    /// in the background. Default: 5 seconds.
    pub fn load_timeout(mut self, timeout: Duration) -> Self {
        self.settings.load_timeout = timeout;
        self
    }

    /// Sets the duration of the lease that a process holds while it fetches a token. If the process
    /// crashes during the call, other processes wait this long before they fetch.
    ///
    /// A renewal with all its retries takes at most four fifths of this time, so the lease outlasts
    /// the calls that it covers. Values are limited to the range from 100 milliseconds to one hour.
    /// Default: 10 seconds.
    pub fn lease_duration(mut self, lease: Duration) -> Self {
        self.settings.set_lease_duration(lease);
        self
    }

    /// Sets the clock for the token's lifetime. Default: the system clock.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Switches off the gauges with the AppID as a label, for an account of a dynamic registry.
    pub(crate) fn without_account_gauges(mut self) -> Self {
        self.settings.has_account_gauges = false;
        self
    }

    /// Creates the [`AccountTokens`]. The first [`prefetch`](AccountTokens::prefetch) or
    /// [`get`](AccountTokens::get) reads the store, and fetches a token if the store has none.
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

    /// Sets the margin and the timing that the source needs, and limits the cache TTL.
    fn apply_source_limits(&mut self) {
        let default_margin = match (self.source.kind(), self.mode) {
            // Each call of `api_authorizer_token` returns a new token, as `cgi-bin/token` does.
            #[cfg(feature = "platform")]
            (AccountSourceKind::OnBehalf(..), _) => {
                // An authorization stores a token without this builder, with this margin.
                self.renew_margin = None;
                AUTHORIZER_RENEW_MARGIN
            }
            (_, TokenMode::Stable) => STABLE_RENEW_MARGIN,
            (_, TokenMode::Plain) => PLAIN_RENEW_MARGIN,
        };
        let settings = &mut self.settings;
        settings.margin = self.renew_margin.unwrap_or(default_margin);
        let max_cache_ttl = match (self.source.kind(), self.mode) {
            (AccountSourceKind::Wechat(_), TokenMode::Stable) => {
                settings.timing = RenewalTiming::AfterRenewalTime;
                Duration::MAX
            }
            (AccountSourceKind::Wechat(_), TokenMode::Plain) => MAX_PLAIN_CACHE_TTL,
            #[cfg(feature = "platform")]
            (AccountSourceKind::OnBehalf(..), _) => MAX_ON_BEHALF_CACHE_TTL,
            (AccountSourceKind::TokenCenter(_), _) => MAX_CENTER_CACHE_TTL,
            // The system that keeps the token may use `cgi-bin/token`.
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
            #[cfg(feature = "platform")]
            AccountSourceKind::OnBehalf(wechat, authority) => {
                if let Some(reader) = authority.external_account_token(wechat.app_id()) {
                    let source = ReadOnlySource::account(&*reader, wechat.app_id());
                    return (StoreAccess::ReadOnly(reader), Box::new(source));
                }
                let quota = DailyQuota::new(self.daily_quota.unwrap_or(PLAIN_DAILY_QUOTA));
                let (app, interval) = (wechat.app_id(), MIN_REPORT_INTERVAL);
                let per_day = quota.max_for_reports();
                let source = OnBehalfSource {
                    account: app.clone(),
                    authority: Arc::clone(authority),
                    clock,
                    margin,
                    quota,
                    reported_replacements: RateLimiter::new(
                        app, store, "refused", interval, per_day,
                    ),
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
            AccountSourceKind::External(wechat, redis, token) => {
                let external = ExternalTokenStore::new(redis.clone(), token.clone());
                let source = ReadOnlySource::account(&external, wechat.app_id());
                (StoreAccess::ReadOnly(Arc::new(external)), Box::new(source))
            }
        }
    }
}
