//! Several "processes", each with its cache and its connection, on one store and one WeChat.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tower_wechat::client::UserTokenResponse;
use tower_wechat::clock::Clock;
use tower_wechat::redis::{Layout, RedisNames, RedisStoreBuilder, SealingKeys};
use tower_wechat::simulator::{Simulator, UserPair};
use tower_wechat::user::UserTokensBuilder;
use tower_wechat::{Error, MemoryStore, RedisStore, UserId, UserToken, UserTokens, WechatClient};

use crate::shared;
use crate::support::proxy::Proxy;
use crate::support::redis_server::RedisServer;

pub const REFRESH: &str = "/sns/oauth2/refresh_token";

/// Store of the tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    Memory,
    Hashes,
    Keys,
    /// Sealed; the hashes are read and both layouts written.
    SealedHashesAndKeys,
    /// The same the other way round.
    SealedKeysAndHashes,
    /// All tests share the servers of these stores. Each test has another account.
    SentinelHashes,
    ClusterKeys,
    ClusterHashes,
}

impl Backend {
    /// Returns the URL of the shared servers, if this store uses them.
    async fn shared(self) -> Option<String> {
        match self {
            Self::SentinelHashes => Some(shared::sentinels().await),
            Self::ClusterKeys | Self::ClusterHashes => Some(shared::cluster().await),
            _ => None,
        }
    }
}

/// Returns hashes for each account, in one slot of a Cluster.
fn names() -> RedisNames {
    let mut names = RedisNames::default();
    names.user_access_token = "{{appid}}.access".into();
    names.user_refresh_token = "{{appid}}.refresh".into();
    names
}

/// Returns an account that no other test of this program uses.
fn account() -> String {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    format!("wx{:016x}", TAKEN.fetch_add(1, Ordering::Relaxed))
}

/// Returns keys for sealed values.
fn sealing() -> SealingKeys {
    use base64::Engine as _;
    let key = base64::engine::general_purpose::STANDARD.encode([7; 32]);
    SealingKeys::from_base64(&key).unwrap()
}

pub struct Harness {
    pub simulator: Simulator,
    /// A private server, which a test may count on, freeze and kill.
    pub redis: Option<RedisServer>,
    shared: Option<String>,
    pub clock: Clock,
    backend: Backend,
    memory: MemoryStore,
}

impl Harness {
    pub async fn new(backend: Backend) -> Self {
        let shared = backend.shared().await;
        let own = backend != Backend::Memory && shared.is_none();
        let simulator = Simulator::builder();
        let simulator = match &shared {
            Some(_) => simulator.app(account(), "fedcba9876543210fedcba9876543210"),
            None => simulator,
        };
        Self {
            simulator: simulator.start().await.unwrap(),
            redis: own.then(RedisServer::start),
            shared,
            clock: Clock::shifted(),
            backend,
            memory: MemoryStore::new(),
        }
    }

    /// Returns `true` if every step is a round trip.
    pub fn is_remote(&self) -> bool {
        self.backend != Backend::Memory
    }

    pub fn client(&self) -> WechatClient {
        WechatClient::builder(self.simulator.app_id(), self.simulator.app_secret())
            .api_url(self.simulator.url())
            .build()
            .unwrap()
    }

    pub async fn redis_store(&self) -> RedisStore {
        let own = self.redis.as_ref().map(RedisServer::url);
        let url = own.or_else(|| self.shared.clone());
        self.redis_store_at(&url.expect("a backend in Redis"), |builder| builder)
            .await
    }

    /// Connects to the harness's Redis as another user or with other settings.
    pub async fn redis_store_at(
        &self,
        url: &str,
        change: impl FnOnce(RedisStoreBuilder) -> RedisStoreBuilder,
    ) -> RedisStore {
        let builder = RedisStore::builder(url);
        let builder = match self.backend {
            Backend::Memory | Backend::Hashes => builder.layout(Layout::Hashes),
            Backend::Keys | Backend::ClusterKeys => builder.layout(Layout::Keys),
            Backend::SentinelHashes | Backend::ClusterHashes => builder.names(names()),
            Backend::SealedHashesAndKeys => builder.dual_write(Layout::Keys).sealing(sealing()),
            Backend::SealedKeysAndHashes => {
                let builder = builder.layout(Layout::Keys).dual_write(Layout::Hashes);
                builder.sealing(sealing())
            }
        };
        change(builder).connect().await.unwrap()
    }

    /// Creates the tokens of one more process.
    pub async fn process(&self) -> UserTokens {
        self.process_with(|builder| builder).await
    }

    pub async fn process_with(
        &self,
        change: impl FnOnce(UserTokensBuilder) -> UserTokensBuilder,
    ) -> UserTokens {
        let builder = match self.backend {
            Backend::Memory => UserTokens::builder(self.client(), self.memory.clone()),
            _ => UserTokens::builder(self.client(), self.redis_store().await),
        };
        change(builder.clock(self.clock.clone())).build()
    }

    /// Creates one more process behind a proxy, which can cut it off from the store.
    pub async fn process_behind_a_proxy(&self, lease: Duration) -> (UserTokens, Proxy) {
        let server = self.redis.as_ref().expect("a server of its own").address();
        let proxy = Proxy::start(&server, 1).await;
        let url = format!("redis://{}/", proxy.address());
        let store = self.redis_store_at(&url, |builder| builder).await;
        let users = UserTokens::builder(self.client(), store)
            .clock(self.clock.clone())
            .lease_duration(lease)
            .build();
        (users, proxy)
    }

    /// Sets the clocks of the processes and of WeChat forward. Leases use the store's clock, which
    /// does not change.
    pub fn advance(&self, span: Duration) {
        self.clock.advance(span);
        self.simulator.advance(span);
    }

    /// Signs a user in and stores the pair, as a login does.
    pub async fn log_in(&self, users: &UserTokens, openid: &str) -> UserPair {
        let pair = self.simulator.sign_in(openid, "snsapi_userinfo");
        users.store(&id(openid), &grant(&pair)).await.unwrap();
        pair
    }

    /// Stores tokens of users and sets the clock past their renewal point.
    pub async fn stale(&self, users: &UserTokens, openids: &[&str]) {
        for openid in openids {
            self.log_in(users, openid).await;
        }
        self.advance(Duration::from_secs(6_400));
    }

    /// Stores tokens of users and sets the clock past their expiry. They can be renewed.
    pub async fn expired(&self, users: &UserTokens, openids: &[&str]) {
        for openid in openids {
            self.log_in(users, openid).await;
        }
        self.advance(Duration::from_secs(7_300));
    }

    pub fn refreshes(&self) -> u64 {
        self.simulator.calls_to(REFRESH)
    }

    /// Returns the access token that is valid at WeChat.
    pub fn live_token(&self, openid: &str) -> String {
        self.simulator
            .current_pair(openid)
            .expect("WeChat knows the user")
            .access_token
    }

    /// Returns the token that a process without a cache finds in the store.
    pub async fn stored_token(&self, openid: &str) -> Result<String, Error> {
        self.process()
            .await
            .get(&id(openid))
            .await
            .map(|token| text(&token))
    }
}

pub fn grant(pair: &UserPair) -> UserTokenResponse {
    UserTokenResponse::new(pair.access_token.as_str())
        .expires_in(pair.expires_in.as_secs() as i64)
        .refresh_token(pair.refresh_token.as_str())
        .openid(pair.openid.as_str())
        .scope(pair.scope.as_str())
}

pub fn id(openid: &str) -> UserId {
    UserId::new(openid).unwrap()
}

pub fn text(token: &UserToken) -> String {
    token.access_token().expose().to_owned()
}

/// Requests one user's token from many tasks at once.
pub async fn many(users: &[UserTokens], openid: &str, tasks: usize) -> Vec<Result<String, Error>> {
    let mut running = tokio::task::JoinSet::new();
    for at in 0..tasks {
        let (users, user) = (users[at % users.len()].clone(), id(openid));
        running.spawn(async move { users.get(&user).await.map(|token| text(&token)) });
    }
    running.join_all().await
}
