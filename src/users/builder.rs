//! Builder of [`UserTokens`].

use std::sync::Arc;
use std::time::Duration;

use super::profile::ProfileCache;
use super::source::UserSource;
use super::user_tokens::{Inner, UserTokens};
use crate::clock::Clock;
use crate::provider::{CredentialProvider, ProviderConfig, RenewalTiming, StoreAccess};
use crate::store::{CredentialKind, Store};
use crate::wechat::WechatClient;

/// Default time before a token's expiry at which the token is due for renewal: 15 minutes. The
/// Spring Boot service of the published layout has the same value.
const RENEW_MARGIN: Duration = Duration::from_secs(15 * 60);

/// Default maximum number of users in the cache: one million, which take about 240 MB.
const CACHE_CAPACITY: usize = 1_000_000;

/// Maximum number of virtual users in the cache: 10,000. Few virtual users are active at a time,
/// because users close snapshot pages within minutes.
const SNAPSHOT_CACHE_CAPACITY: usize = 10_000;

/// Builder of [`UserTokens`], created by [`UserTokens::builder`].
///
/// ```
/// use std::time::Duration;
/// use tower_wechat::clock::Clock;
/// use tower_wechat::{MemoryStore, UserTokens, WechatClient};
///
/// # fn main() -> Result<(), tower_wechat::Error> {
/// let wechat = WechatClient::new("wx0123456789abcdef", "secret")?;
/// let users = UserTokens::builder(wechat, MemoryStore::new())
///     .renew_margin(Duration::from_secs(900))
///     .cache_ttl(Duration::from_secs(30))
///     .cache_capacity(100_000)
///     .load_timeout(Duration::from_secs(3))
///     .lease_duration(Duration::from_secs(10))
///     .max_concurrent_renewals(512)
///     .clock(Clock::system())
///     .build();
/// # Ok(()) }
/// ```
#[derive(Debug)]
#[must_use = "a builder does nothing until `build` is called"]
pub struct UserTokensBuilder {
    wechat: WechatClient,
    store: Arc<dyn Store>,
    settings: ProviderConfig,
    clock: Clock,
}

impl UserTokens {
    /// Creates the tokens of the client's account with the default settings, kept in `store`.
    pub fn new(wechat: WechatClient, store: impl Store) -> Self {
        Self::builder(wechat, store).build()
    }

    /// Returns a builder with the default settings.
    pub fn builder(wechat: WechatClient, store: impl Store) -> UserTokensBuilder {
        UserTokensBuilder::with_store(wechat, Arc::new(store))
    }
}

impl From<UserTokensBuilder> for UserTokens {
    fn from(builder: UserTokensBuilder) -> Self {
        builder.build()
    }
}

impl UserTokensBuilder {
    pub(crate) fn with_store(wechat: WechatClient, store: Arc<dyn Store>) -> Self {
        let settings = ProviderConfig::new(RENEW_MARGIN, RenewalTiming::Jittered, CACHE_CAPACITY);
        Self {
            wechat,
            store,
            settings,
            clock: Clock::system(),
        }
    }

    /// Sets the time before a token's expiry at which the token is due for renewal. All services
    /// that share a Redis must use the same value. Default: 15 minutes.
    pub fn renew_margin(mut self, margin: Duration) -> Self {
        self.settings.margin = margin;
        self
    }

    /// Sets the maximum time for which a cached token is served without confirmation from the
    /// store.
    ///
    /// Changes by other processes normally arrive within milliseconds. This time bounds how old a
    /// token can be if a message is lost, or if another program wrote without a message.
    /// `Duration::ZERO` reads the store on every request. Default: 60 seconds.
    ///
    /// Some stores confirm continuously that no message was lost. A cached token is then served
    /// until it is due for renewal. A [`MemoryStore`](crate::MemoryStore) always does this,
    #[cfg_attr(
        feature = "redis",
        doc = "a [`RedisStore`](crate::RedisStore) only with \
               [`exclusive_writer`](crate::redis::RedisStoreBuilder::exclusive_writer)."
    )]
    #[cfg_attr(not(feature = "redis"), doc = "Redis only if no other program writes.")]
    pub fn cache_ttl(mut self, ttl: Duration) -> Self {
        self.settings.cache_ttl = ttl;
        self
    }

    /// Sets the maximum number of users whose tokens this process caches. A full cache evicts the
    /// least used tokens. Default: one million.
    pub fn cache_capacity(mut self, users: usize) -> Self {
        self.settings.cache_capacity = users;
        self
    }

    /// Sets the maximum time that a caller waits for a token. A renewal that takes longer continues
    /// in the background. Default: 5 seconds.
    pub fn load_timeout(mut self, timeout: Duration) -> Self {
        self.settings.load_timeout = timeout;
        self
    }

    /// Sets the duration of the lease that a process holds while it renews a token. If the process
    /// crashes during a renewal, other processes wait this long before they renew.
    ///
    /// A renewal with all its retries takes at most four fifths of this time, so the lease outlasts
    /// the calls that it covers. Values are limited to the range from 100 milliseconds to one hour.
    /// Default: 10 seconds.
    pub fn lease_duration(mut self, lease: Duration) -> Self {
        self.settings.set_lease_duration(lease);
        self
    }

    /// Sets the maximum number of renewals that this process runs at the same time, at least two.
    /// Renewals of tokens that have not expired use at most half of them. Default: 512.
    ///
    /// Each renewal is one request to WeChat. After an outage, or after a night without requests,
    /// many users have expired tokens: they wait in rounds of this many renewals.
    pub fn max_concurrent_renewals(mut self, renewals: usize) -> Self {
        self.settings.set_max_concurrent_renewals(renewals);
        self
    }

    /// Sets the clock for the lifetimes of tokens. Default: the system clock.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Switches off the gauges with the AppID as a label, for an account of a dynamic registry.
    pub(crate) fn without_account_gauges(mut self) -> Self {
        self.settings.has_account_gauges = false;
        self
    }

    /// Creates the [`UserTokens`], without a connection to the store or to WeChat.
    pub fn build(self) -> UserTokens {
        let Self {
            wechat,
            store,
            settings,
            clock,
        } = self;
        let tokens = |kind, settings: ProviderConfig, snapshots| {
            let source = UserSource {
                wechat: wechat.clone(),
                clock: clock.clone(),
                margin: settings.margin,
            };
            let (app, store) = (wechat.app_id().clone(), Arc::clone(&store));
            UserTokens(Arc::new(Inner {
                provider: CredentialProvider::new(
                    app,
                    kind,
                    settings,
                    clock.clone(),
                    StoreAccess::Full(Arc::clone(&store)),
                    Box::new(source),
                ),
                store,
                wechat: wechat.clone(),
                profiles: ProfileCache::new(clock.clone()),
                snapshot_users: snapshots,
            }))
        };
        // Tokens of virtual users are not renewed, so they stay fresh until they expire.
        let snapshot_settings = ProviderConfig {
            margin: Duration::ZERO,
            cache_capacity: settings.cache_capacity.min(SNAPSHOT_CACHE_CAPACITY),
            ..settings.clone()
        };
        let snapshot_users = tokens(CredentialKind::SnapshotUser, snapshot_settings, None);
        tokens(CredentialKind::User, settings, Some(snapshot_users))
    }
}
