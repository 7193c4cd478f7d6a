//! The times and sizes of [`UserTokens`].

use std::sync::Arc;
use std::time::Duration;

use super::profile::ProfileCache;
use super::source::UserSource;
use super::user_tokens::{Inner, UserTokens};
use crate::clock::Clock;
use crate::provider::{CredentialProvider, ProviderConfig, RenewalTiming, StoreAccess};
use crate::store::{CredentialKind, Store};
use crate::wechat::WechatClient;

/// What the published layout's service subtracts from a user token's life.
const RENEW_MARGIN: Duration = Duration::from_secs(15 * 60);

const CACHE_CAPACITY: usize = 1_000_000;
const SNAPSHOT_CACHE_CAPACITY: usize = 10_000;

/// Settings of [`UserTokens`], made by [`UserTokens::builder`].
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
    /// The tokens of the client's account, kept in `store`, with the usual times.
    pub fn new(wechat: WechatClient, store: impl Store) -> Self {
        Self::builder(wechat, store).build()
    }

    /// The same with other times and sizes.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tower_wechat::{MemoryStore, UserTokens, WechatClient};
    ///
    /// # fn main() -> Result<(), tower_wechat::Error> {
    /// # let wechat = WechatClient::new("wx0123456789abcdef", "secret")?;
    /// let users = UserTokens::builder(wechat, MemoryStore::new()).load_timeout(Duration::from_secs(3)).build();
    /// # Ok(()) }
    /// ```
    pub fn builder(wechat: WechatClient, store: impl Store) -> UserTokensBuilder {
        UserTokensBuilder::new(wechat, Arc::new(store))
    }
}

impl UserTokensBuilder {
    fn new(wechat: WechatClient, store: Arc<dyn Store>) -> Self {
        let settings = ProviderConfig::new(RENEW_MARGIN, RenewalTiming::Jittered, CACHE_CAPACITY);
        Self {
            wechat,
            store,
            settings,
            clock: Clock::system(),
        }
    }

    /// How long before its true expiry a token is due for renewal. Services that share a Redis
    /// must agree on it. Default: 15 minutes.
    pub fn renew_margin(mut self, margin: Duration) -> Self {
        self.settings.margin = margin;
        self
    }

    /// The longest that this process believes a token without a word of the store. What another
    /// process deletes or replaces is told through the store and noticed within milliseconds;
    /// where that message is lost, or the writer is not this crate, within this time. Zero asks
    /// the store at every request. Default: 60 seconds.
    ///
    /// While the store proves that no message is lost, a token is believed until its renewal
    /// point: a [`MemoryStore`](crate::MemoryStore) always does,
    #[cfg_attr(
        feature = "redis",
        doc = "a [`RedisStore`](crate::RedisStore) where nobody else writes \
               ([`exclusive_writer`](crate::redis::RedisStoreBuilder::exclusive_writer))."
    )]
    #[cfg_attr(not(feature = "redis"), doc = "Redis where nobody else writes.")]
    pub fn cache_ttl(mut self, ttl: Duration) -> Self {
        self.settings.cache_ttl = ttl;
        self
    }

    /// How many users' tokens this process holds in memory at most; the least used leave first.
    /// Default: one million.
    pub fn cache_capacity(mut self, users: usize) -> Self {
        self.settings.cache_capacity = users;
        self
    }

    /// How long a caller waits for a token that has to be renewed first. Default: 5 seconds.
    pub fn load_timeout(mut self, wait: Duration) -> Self {
        self.settings.load_timeout = wait;
        self
    }

    /// How long the right to renew a token is held, and so how long a process that dies while it
    /// renews keeps the others waiting. A whole renewal takes four fifths of it at most, so that
    /// a lease outlives the calls that it covers (R7). Anything below 100 milliseconds counts as
    /// that, anything above an hour as an hour. Default: 10 seconds.
    pub fn lease_duration(mut self, lease: Duration) -> Self {
        self.settings.set_lease_duration(lease);
        self
    }

    /// The clock that lifetimes are measured by. Default: the system's.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// The tokens, ready for use.
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
        // Virtual users' tokens are not renewed, so there is no point before their end.
        let snapshot_settings = ProviderConfig {
            margin: Duration::ZERO,
            cache_capacity: settings.cache_capacity.min(SNAPSHOT_CACHE_CAPACITY),
            ..settings.clone()
        };
        let snapshot_users = tokens(CredentialKind::SnapshotUser, snapshot_settings, None);
        tokens(CredentialKind::User, settings, Some(snapshot_users))
    }
}
