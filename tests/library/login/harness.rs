//! An application with a login, on one or more servers, and the simulator as its WeChat.

use std::net::SocketAddr;
use std::time::Duration;

use axum::extract::OriginalUri;
use axum::routing::{get, post};
use axum::{Json, Router};
use redis::Commands;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tower_wechat::clock::Clock;
use tower_wechat::credential::AppId;
use tower_wechat::login::LoginBuilder;
use tower_wechat::redis::Layout;
use tower_wechat::simulator::{SimulatedUser, Simulator};
use tower_wechat::{
    CookieKeys, Error, Login, Logout, MemoryStore, RedisStore, Scope, SessionCookie, Store,
    UserTokens, WechatClient, WechatLayer, WechatUser,
};

use crate::support::redis_server::RedisServer;

pub const EXCHANGE: &str = "/sns/oauth2/access_token";
pub const USERINFO: &str = "/sns/userinfo";
pub const ALICE: &str = "oAlice0000000000000000000000";

pub struct Harness {
    pub sim: Simulator,
    pub clock: Clock,
    pub redis: Option<RedisServer>,
    layout: Layout,
    memory: MemoryStore,
    keys: CookieKeys,
}

/// One server of the application.
pub struct Site {
    pub url: String,
    pub users: UserTokens,
}

impl Harness {
    /// Creates a harness whose servers share one store in memory.
    pub async fn new() -> Self {
        let sim = Simulator::start().await.unwrap();
        sim.add_user(SimulatedUser::new(ALICE).nickname("爱丽丝"));
        let clock = Clock::shifted();
        Self {
            sim,
            memory: MemoryStore::with_clock(clock.clone()),
            clock,
            redis: None,
            layout: Layout::Keys,
            keys: CookieKeys::random().unwrap(),
        }
    }

    /// Creates a harness whose servers share a redis-server, each over its own connection.
    pub async fn with_redis() -> Self {
        let redis = Some(RedisServer::start());
        Self {
            redis,
            ..Self::new().await
        }
    }

    /// Creates a harness on Redis with this layout. A Java service could share the hashes.
    pub async fn with_redis_in(layout: Layout) -> Self {
        Self {
            layout,
            ..Self::with_redis().await
        }
    }

    /// Returns the session cookie that the servers issue and accept.
    pub fn session(&self, site: &Site) -> SessionCookie {
        self.session_of(site.users.app_id())
    }

    /// Returns the session cookie of an app's users.
    pub fn session_of(&self, app: &AppId) -> SessionCookie {
        SessionCookie::builder(app, &self.keys)
            .secure(false)
            .clock(self.clock.clone())
            .build()
            .unwrap()
    }

    /// Writes a user's current pair as another service does, without the details that this crate
    /// adds.
    pub fn rewrite(&self, user: &str) {
        let pair = self.sim.current_pair(user).unwrap();
        let (now, hour) = (self.clock.now().as_millis(), 3_600_000);
        let (access, refresh) = (pair.access_token, pair.refresh_token);
        let mut redis = self.redis.as_ref().unwrap().connection();
        let fresh = now + hour;
        match self.layout {
            Layout::Hashes => {
                for (hash, value) in [
                    ("user.wxUserAccessToken", format!("{access}#{fresh}")),
                    ("user.wxUserRefreshToken", format!("{refresh}#{fresh}")),
                ] {
                    () = redis.hset(hash, user, value).unwrap();
                }
            }
            Layout::Keys => {
                let key = format!("wechat:{}:user:{user}", self.sim.app_id());
                let end = fresh + 900_000;
                let record = format!("1#{access}#{fresh}#{end}#{refresh}#{fresh}");
                () = redis.set(key, record).unwrap();
            }
            other => panic!("no {other:?}"),
        }
    }

    pub async fn site(&self) -> Site {
        self.site_with(|login| login).await
    }

    /// Starts a server whose public URL is its address.
    pub async fn site_with(&self, change: impl FnOnce(LoginBuilder) -> LoginBuilder) -> Site {
        self.mounted(change, router).await
    }

    /// Starts a server that reaches Redis at another address, as through a proxy.
    pub async fn site_with_redis_at(&self, address: SocketAddr) -> Site {
        let store = RedisStore::builder(&format!("redis://{address}/")).layout(self.layout);
        let store = store.connect().await.unwrap();
        let users = self.users_in(self.sim.client().unwrap(), store);
        self.serve_users(users, None, |login| login, router).await
    }

    /// Starts servers that all use the first server's URL as their public URL.
    pub async fn cluster(&self, size: usize) -> Vec<Site> {
        let first = self.site().await;
        let mut sites = vec![first];
        while sites.len() < size {
            let users = self.users().await;
            let login = Login::new(&sites[0].url, self.keys.clone()).unwrap();
            let layer = WechatLayer::new(users.clone());
            let (listener, url) = listen().await;
            serve(listener, router(layer, login));
            sites.push(Site { url, users });
        }
        sites
    }

    pub async fn mounted(
        &self,
        change: impl FnOnce(LoginBuilder) -> LoginBuilder,
        app: impl FnOnce(WechatLayer, Login) -> Router,
    ) -> Site {
        let users = self.users().await;
        self.serve_users(users, None, change, app).await
    }

    /// Starts a server whose public URL is not its own address, as behind a proxy.
    pub async fn behind(
        &self,
        public_url: &str,
        change: impl FnOnce(LoginBuilder) -> LoginBuilder,
        app: impl FnOnce(WechatLayer, Login) -> Router,
    ) -> Site {
        let users = self.users().await;
        self.serve_users(users, Some(public_url), change, app).await
    }

    /// Starts a server of these users, whose public URL is its address by default.
    async fn serve_users(
        &self,
        users: UserTokens,
        public_url: Option<&str>,
        change: impl FnOnce(LoginBuilder) -> LoginBuilder,
        app: impl FnOnce(WechatLayer, Login) -> Router,
    ) -> Site {
        let (listener, url) = listen().await;
        let login = Login::builder(public_url.unwrap_or(&url), self.keys.clone());
        let login = change(login).build().unwrap();
        serve(listener, app(WechatLayer::new(users.clone()), login));
        Site { url, users }
    }

    pub async fn users(&self) -> UserTokens {
        self.users_of(self.sim.client().unwrap()).await
    }

    /// Returns the users of this client's app, in the store of the servers.
    pub async fn users_of(&self, wechat: WechatClient) -> UserTokens {
        match &self.redis {
            None => self.users_in(wechat, self.memory.clone()),
            Some(redis) => {
                let store = RedisStore::builder(&redis.url()).layout(self.layout);
                self.users_in(wechat, store.connect().await.unwrap())
            }
        }
    }

    fn users_in(&self, wechat: WechatClient, store: impl Store) -> UserTokens {
        UserTokens::builder(wechat, store)
            .clock(self.clock.clone())
            .build()
    }

    pub fn exchanges(&self) -> u64 {
        self.sim.calls_to(EXCHANGE)
    }

    pub fn advance(&self, span: Duration) {
        self.clock.advance(span);
        self.sim.advance(span);
    }
}

pub async fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    (listener, url)
}

pub fn serve(listener: TcpListener, app: Router) {
    tokio::spawn(async move { axum::serve(listener, app).await });
}

/// Returns the application: pages that require a user, one that requires the profile, and two
/// logout routes.
pub fn router(layer: WechatLayer, login: Login) -> Router {
    let layer = layer.login(login);
    Router::new()
        .route("/profile", get(profile))
        .route_layer(layer.clone().require_scope(Scope::UserInfo))
        .merge(pages())
        .layer(layer)
}

pub fn pages() -> Router {
    Router::new()
        .route("/", get(me))
        .route("/me", get(me).post(me))
        .route("/nickname", get(nickname))
        .route("/logout", post(logout))
        .route("/logout/everywhere", post(logout_everywhere))
}

async fn me(user: WechatUser, OriginalUri(uri): OriginalUri) -> Json<Value> {
    Json(json!({
        "id": user.id(),
        "openid": user.openid(),
        "uri": uri.to_string(),
        "scope": user.scope(),
        "snapshot": user.is_snapshot(),
        "token": user.access_token().expose(),
    }))
}

async fn profile(user: WechatUser) -> Json<Value> {
    Json(json!({ "id": user.id(), "scope": user.scope() }))
}

async fn nickname(user: WechatUser) -> Result<String, Error> {
    Ok(user.profile().await?.nickname.clone())
}

async fn logout(_: WechatUser) -> Logout {
    Logout
}

async fn logout_everywhere(user: WechatUser) -> Result<Logout, Error> {
    user.revoke().await?;
    Ok(Logout)
}
