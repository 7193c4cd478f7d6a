//! The times and sizes of [`AccountTokens`].

use std::sync::Arc;
use std::time::Duration;

use super::budget::{Budget, FORCED_A_DAY, REFUSALS_APART};
use super::center::CenterSource;
#[cfg(feature = "redis")]
use super::followed::Nowhere;
use super::limit::Limit;
use super::source::WechatSource;
use super::{AccountTokens, Inner, Origin, TokenMode};
use crate::clock::Clock;
use crate::credential::AppId;
use crate::keeper::{Ahead, Keeper, Settings, Source, Start};
#[cfg(feature = "redis")]
use crate::store::FollowedStore;
use crate::store::{Kind, Store};

/// WeChat hands out a new stable token only in the last five minutes of the one before.
const STABLE_MARGIN: Duration = Duration::from_secs(5 * 60);

/// What the published layout's service subtracts.
const PLAIN_MARGIN: Duration = Duration::from_secs(15 * 60);

/// How many calls a day this process allows itself, of 500,000 and 2,000 that WeChat's
/// documentation names.
const STABLE_BUDGET: u32 = 10_000;
const PLAIN_BUDGET: u32 = 1_000;

const CACHE_TTL: Duration = Duration::from_secs(60);
const CACHE_CAPACITY: usize = 16;

/// Under `cgi-bin/token` a token dies five minutes after another process has fetched the next one,
/// whatever its own life says: no process may believe it for as long without asking the store.
const LONGEST_PLAIN_CACHE: Duration = Duration::from_secs(4 * 60);

/// A token center may be in plain mode, which its clients cannot know, and answers with what it may
/// itself have believed for a while.
const LONGEST_CENTER_CACHE: Duration = Duration::from_secs(120);

/// A token center is not asked more often than this, however short the cache.
const SHORTEST_POLL: Duration = Duration::from_secs(1);
const WAIT: Duration = Duration::from_secs(5);
const LEASE: Duration = Duration::from_secs(10);
const RENEWAL: Duration = Duration::from_secs(8);

/// Settings of [`AccountTokens`], made by [`AccountTokens::builder`].
///
/// ```
/// use std::time::Duration;
/// use tower_wechat::{AccountTokens, Clock, MemoryStore, TokenMode, WechatClient};
///
/// # fn main() -> Result<(), tower_wechat::Error> {
/// let wechat = WechatClient::new("wx0123456789abcdef", "secret")?;
/// let accounts = AccountTokens::builder(wechat, MemoryStore::new())
///     .mode(TokenMode::Plain)
///     .renew_margin(Duration::from_secs(900))
///     .daily_budget(500)
///     .cache_ttl(Duration::from_secs(30))
///     .wait(Duration::from_secs(3))
///     .lease(Duration::from_secs(10))
///     .clock(Clock::system())
///     .build();
/// # Ok(()) }
/// ```
#[derive(Debug)]
#[must_use = "a builder does nothing until it builds"]
pub struct AccountTokensBuilder {
    origin: Origin,
    store: Arc<dyn Store>,
    mode: TokenMode,
    margin: Option<Duration>,
    daily_budget: Option<u32>,
    settings: Settings,
    clock: Clock,
}

impl AccountTokensBuilder {
    pub(super) fn new(origin: Origin, store: Arc<dyn Store>) -> Self {
        let settings = Settings {
            margin: STABLE_MARGIN,
            start: Start::AtPoint,
            cache_ttl: CACHE_TTL,
            cache_capacity: CACHE_CAPACITY,
            wait: WAIT,
            lease: LEASE,
            renewal: RENEWAL,
        };
        Self {
            origin,
            store,
            mode: TokenMode::default(),
            margin: None,
            daily_budget: None,
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
        self.margin = Some(margin);
        self
    }

    /// How many tokens this process may get from WeChat in a day (from midnight to midnight in
    /// Beijing). Reports of refused tokens can spend half of that, under
    /// [`TokenMode::Plain`] all processes together; calls that fail are not counted, as back-off
    /// and cool-down bound them. The count is this process's own and outlives whatever happens to
    /// the store. Default: 10,000 under
    /// [`TokenMode::Stable`], 1,000 under [`TokenMode::Plain`].
    pub fn daily_budget(mut self, calls: u32) -> Self {
        self.daily_budget = Some(calls);
        self
    }

    /// The longest that this process believes a token without a word of the store, which tells
    /// what other processes write (see
    /// [`UserTokensBuilder::cache_ttl`](crate::UserTokensBuilder::cache_ttl)). Default: 60
    /// seconds, as WeChat recommends to those who ask a central service. Under
    /// [`TokenMode::Plain`], and where another system keeps the token, it is four minutes at most,
    /// so that the five that a replaced token lives on suffice; for clients of a token center,
    /// which is asked as often as this, it is two.
    pub fn cache_ttl(mut self, ttl: Duration) -> Self {
        self.settings.cache_ttl = ttl;
        self
    }

    /// How long a caller waits for a token that has to be fetched first. Default: 5 seconds.
    pub fn wait(mut self, wait: Duration) -> Self {
        self.settings.wait = wait;
        self
    }

    /// How long the right to fetch a token is held, and so how long a process that dies while it
    /// fetches keeps the others waiting. A whole renewal takes four fifths of it at most (R7).
    /// Anything below 100 milliseconds counts as that, anything above an hour as an hour. Default:
    /// 10 seconds.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.settings.lease(lease);
        self
    }

    /// The clock that lifetimes are measured by. Default: the system's.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// The token, ready for use. Nothing is fetched before the first
    /// [`warm`](AccountTokens::warm) or [`get`](AccountTokens::get).
    pub fn build(mut self) -> AccountTokens {
        let (margin, budget) = match self.mode {
            TokenMode::Stable => (STABLE_MARGIN, STABLE_BUDGET),
            TokenMode::Plain => (PLAIN_MARGIN, PLAIN_BUDGET),
        };
        self.settings.margin = self.margin.unwrap_or(margin);
        let Self {
            settings,
            clock,
            store,
            ..
        } = self;
        let keeper = |app: &AppId, store: &Arc<dyn Store>, settings, source: Box<dyn Source>| {
            let (clock, store) = (clock.clone(), store.clone());
            Keeper::new(
                app.clone(),
                Kind::AccountToken,
                settings,
                clock,
                store,
                source,
            )
        };
        let keeper = match &self.origin {
            Origin::Wechat(wechat) => {
                let budget = Budget::new(self.daily_budget.unwrap_or(budget));
                let limit =
                    |name, a_day| Limit::new(wechat.app_id(), &store, name, REFUSALS_APART, a_day);
                let source = WechatSource {
                    wechat: wechat.clone(),
                    clock: clock.clone(),
                    mode: self.mode,
                    margin: settings.margin,
                    forced: limit("forced", FORCED_A_DAY),
                    replaced: limit("refused", budget.for_refusals()),
                    budget,
                };
                let start = match self.mode {
                    TokenMode::Stable => Start::JustBehind,
                    TokenMode::Plain => Start::AtPoint,
                };
                let cache_ttl = match self.mode {
                    TokenMode::Stable => settings.cache_ttl,
                    TokenMode::Plain => settings.cache_ttl.min(LONGEST_PLAIN_CACHE),
                };
                let settings = Settings {
                    start,
                    cache_ttl,
                    ..settings
                };
                keeper(wechat.app_id(), &store, settings, Box::new(source))
            }
            Origin::Center(center) => {
                let settings = Settings {
                    cache_ttl: settings.cache_ttl.min(LONGEST_CENTER_CACHE),
                    ..settings
                };
                let source = CenterSource {
                    center: center.clone(),
                    clock: clock.clone(),
                    margin: settings.margin,
                    poll: settings.cache_ttl.max(SHORTEST_POLL),
                };
                keeper(center.app_id(), &store, settings, Box::new(source))
            }
            #[cfg(feature = "redis")]
            Origin::Followed(wechat, redis, token) => {
                // Its keeper may well fetch by `cgi-bin/token`.
                let settings = Settings {
                    cache_ttl: settings.cache_ttl.min(LONGEST_PLAIN_CACHE),
                    ..settings
                };
                let followed = FollowedStore::new(redis.clone(), token.clone());
                let followed: Arc<dyn Store> = Arc::new(followed);
                keeper(wechat.app_id(), &followed, settings, Box::new(Nowhere))
            }
        };
        AccountTokens(Arc::new(Inner {
            keeper,
            origin: self.origin,
            store,
            ahead: Ahead::default(),
        }))
    }
}
