//! Several "processes" in one test program: each has its own cache and connection, and all share
//! one store and one WeChat.

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

/// The store in which a test keeps the tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    Memory,
    Hashes,
    Keys,
    /// Sealed values. Processes read the hashes, and write the hashes and the keys.
    SealedHashesAndKeys,
    /// Sealed values. Processes read the keys, and write the keys and the hashes.
    SealedKeysAndHashes,
    /// Servers that all tests of the program share. Each test uses another account.
    SentinelHashes,
    ClusterKeys,
    ClusterHashes,
}

impl Backend {
    /// Returns the URL of the shared servers. Returns `None` if the store is in memory or on a
    /// private server.
    async fn shared(self) -> Option<String> {
        match self {
            Self::SentinelHashes => Some(shared::sentinels().await),
            Self::ClusterKeys | Self::ClusterHashes => Some(shared::cluster().await),
            _ => None,
        }
    }
}

/// Returns names of hashes that contain the account and lie in one slot of a Cluster.
pub fn names() -> RedisNames {
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

/// Returns fixed keys with which processes seal values.
fn sealing() -> SealingKeys {
    use base64::Engine as _;
    let key = base64::engine::general_purpose::STANDARD.encode([7; 32]);
    SealingKeys::from_base64(&key).unwrap()
}

pub struct Harness {
    pub simulator: Simulator,
    /// The private server of this test, which may freeze or kill it. `None` for a shared server and
    /// for the store in memory.
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

    /// Returns `true` if the tokens are in Redis and not in memory.
    pub fn is_remote(&self) -> bool {
        self.backend != Backend::Memory
    }

    pub fn backend(&self) -> Backend {
        self.backend
    }

    /// Returns the store in memory that all processes share. Returns `None` if the tokens are in
    /// Redis.
    pub fn memory(&self) -> Option<MemoryStore> {
        (!self.is_remote()).then(|| self.memory.clone())
    }

    /// Returns the URL of the server.
    pub fn redis_url(&self) -> String {
        let own = self.redis.as_ref().map(RedisServer::url);
        own.or_else(|| self.shared.clone())
            .expect("a backend in Redis")
    }

    pub fn client(&self) -> WechatClient {
        WechatClient::builder(self.simulator.app_id(), self.simulator.app_secret())
            .api_url(self.simulator.url())
            .build()
            .unwrap()
    }

    pub async fn redis_store(&self) -> RedisStore {
        self.redis_store_at(&self.redis_url(), |builder| builder)
            .await
    }

    /// Connects to a server with the layout of this harness. The URL may name another Redis user,
    /// and `change` may set other options.
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

    /// Returns the tokens of a further process, with an empty cache and a new connection.
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

    /// Returns the tokens of a further process, and a proxy that can disconnect it from Redis.
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

    /// Advances the clocks of the processes and of WeChat. Leases do not expire by this, because
    /// Redis measures their time.
    pub fn advance(&self, span: Duration) {
        self.clock.advance(span);
        self.simulator.advance(span);
    }

    /// Logs a user in at WeChat and stores the pair, as a login does.
    pub async fn log_in(&self, users: &UserTokens, openid: &str) -> UserPair {
        let pair = self.simulator.sign_in(openid, "snsapi_userinfo");
        users.store(&id(openid), &grant(&pair)).await.unwrap();
        pair
    }

    /// Logs users in and advances the clocks past the renewal point of their tokens, which have not
    /// expired.
    pub async fn stale(&self, users: &UserTokens, openids: &[&str]) {
        for openid in openids {
            self.log_in(users, openid).await;
        }
        self.advance(Duration::from_secs(6_400));
    }

    /// Logs users in and advances the clocks past the expiry of their access tokens. The refresh
    /// tokens stay valid.
    pub async fn expired(&self, users: &UserTokens, openids: &[&str]) {
        for openid in openids {
            self.log_in(users, openid).await;
        }
        self.advance(Duration::from_secs(7_300));
    }

    pub fn refreshes(&self) -> u64 {
        self.simulator.calls_to(REFRESH)
    }

    /// Returns the user's access token that is valid at WeChat.
    pub fn live_token(&self, openid: &str) -> String {
        self.simulator
            .current_pair(openid)
            .expect("WeChat knows the user")
            .access_token
    }

    /// Returns the token that a new process, whose cache is empty, serves from the store.
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

/// Requests one user's token from many tasks at once, which use the processes in turn.
pub async fn many(users: &[UserTokens], openid: &str, tasks: usize) -> Vec<Result<String, Error>> {
    let mut running = tokio::task::JoinSet::new();
    for at in 0..tasks {
        let (users, user) = (users[at % users.len()].clone(), id(openid));
        running.spawn(async move { users.get(&user).await.map(|token| text(&token)) });
    }
    running.join_all().await
}
