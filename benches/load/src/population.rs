//! The users: who they are, what Redis holds of them, and the requests that they send.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use hmac::{Hmac, Mac};
use sha2::Sha256;
use std::collections::HashMap;

use redis::Connection;
use tower_sessions::SessionStore;
use tower_sessions::cookie::time::{Duration as Span, OffsetDateTime};
use tower_sessions::cookie::{Cookie, CookieJar, Key};
use tower_sessions::session::{Id, Record};
use tower_sessions_redis_store::RedisStore as SessionsInRedis;
use tower_sessions_redis_store::fred::clients::Pool;
use tower_sessions_redis_store::fred::interfaces::ClientLike;
use tower_sessions_redis_store::fred::types::config::Config;
use tower_wechat::{
    CookieKeys, Layout, RedisStore, SessionCookie, UserId, UserTokenResponse, UserTokens,
    WechatClient,
};

use crate::contender::UserCredential;
use crate::generator::PreparedRequests;

/// The users of the throughput and of the herds.
pub const USERS: usize = 10_000;

pub const APP_ID: &str = "wx0123456789abcdef";
pub const APP_SECRET: &str = "0123456789abcdef0123456789abcdef";

/// The environment variable with the simulator's URL. It is unset for servers that do not call
/// WeChat.
pub const WECHAT_URL: &str = "LOAD_WECHAT_URL";

pub const USER_HEADER: &str = "x-user-id";
pub const TAGGED_COOKIE: &str = "session";
pub const SESSION_FIELD: &str = "user";

/// The published names.
pub const ACCESS_HASH: &str = "user.wxUserAccessToken";
pub const REFRESH_HASH: &str = "user.wxUserRefreshToken";

const HOUR_MS: u64 = 3_600_000;

/// An openid: 28 characters.
pub fn user_id(at: usize) -> String {
    format!("o6_bmjrPTlm6_2sgVt7h{at:08}")
}

/// A token of 110 characters, WeChat's usual length.
fn token(kind: char, at: usize) -> String {
    format!("83_{kind}{at:0106}")
}

/// Returns the client of the account, which asks the simulator if the environment names one.
pub fn wechat() -> WechatClient {
    let mut client = WechatClient::builder(APP_ID, APP_SECRET);
    if let Ok(url) = std::env::var(WECHAT_URL) {
        client = client.api_url(url);
    }
    client.build().expect("a client")
}

pub fn cookie_keys() -> CookieKeys {
    CookieKeys::from_base64(&STANDARD.encode([7; 64])).expect("a key")
}

pub fn cookie_mac() -> Hmac<Sha256> {
    Hmac::new_from_slice(&[7; 64]).expect("any length is a key")
}

pub fn session_cookie_key() -> Key {
    Key::from(&[7; 64])
}

fn session_id(at: usize) -> Id {
    Id(0x5e55_1000_0000_0000_0000_0000_0000 + at as i128)
}

/// The requests of the first users, as bytes, with what must come back.
pub fn requests(naming: UserCredential, users: usize) -> PreparedRequests {
    let layer = SessionCookie::new(wechat().app_id(), &cookie_keys());
    let named = (0..users).map(|at| {
        let id = user_id(at);
        let line = match naming {
            UserCredential::Header => format!("{USER_HEADER}: {id}"),
            UserCredential::LayerCookie => {
                let set = layer.issue(&UserId::new(id.as_str()).expect("an id"));
                let set = set.to_str().expect("text");
                format!("cookie: {}", set.split(';').next().unwrap_or_default())
            }
            UserCredential::TaggedCookie => {
                let mut mac = cookie_mac();
                mac.update(id.as_bytes());
                let tag = URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes());
                format!("cookie: {TAGGED_COOKIE}={id}.{tag}")
            }
            UserCredential::SessionCookie => format!("cookie: id={}", session_id(at)),
            UserCredential::SignedSessionCookie => {
                let mut jar = CookieJar::new();
                let cookie = Cookie::new("id", session_id(at).to_string());
                jar.signed_mut(&session_cookie_key()).add(cookie);
                let value = jar.get("id").map(Cookie::value).unwrap_or_default();
                format!("cookie: id={value}")
            }
        };
        (line, id)
    });
    PreparedRequests::new(named)
}

/// Writes the users into Redis: both layouts, and the sessions.
pub async fn store_users_and_sessions(url: &str, users: usize) {
    for layout in [Layout::Hashes, Layout::Keys] {
        store_users(url, layout, users).await;
    }
    let pool = Pool::new(
        Config::from_url(url).expect("an address"),
        None,
        None,
        None,
        1,
    );
    let pool = pool.expect("a pool");
    pool.connect();
    pool.wait_for_connect().await.expect("Redis");
    let store = SessionsInRedis::new(pool);
    for at in 0..users {
        let mut record = Record {
            id: session_id(at),
            data: HashMap::from([(SESSION_FIELD.to_owned(), user_id(at).into())]),
            expiry_date: OffsetDateTime::now_utc() + Span::days(1),
        };
        store.create(&mut record).await.expect("stored");
    }
}

/// Writes users as the crate does after their login.
pub async fn store_users(url: &str, layout: Layout, users: usize) {
    const AT_ONCE: usize = 64;
    let store = RedisStore::builder(url).layout(layout).connect().await;
    let tokens = UserTokens::new(wechat(), store.expect("Redis"));
    let mut writers = tokio::task::JoinSet::new();
    for first in 0..AT_ONCE {
        let tokens = tokens.clone();
        writers.spawn(async move {
            for at in (first..users).step_by(AT_ONCE) {
                let grant = UserTokenResponse::new(token('a', at))
                    .expires_in(7_200)
                    .refresh_token(token('r', at));
                let id = UserId::new(user_id(at)).expect("an id");
                tokens.store(&id, &grant).await.expect("stored");
            }
        });
    }
    writers.join_all().await;
}

/// Writes many users of the published layout at once, as fast as Redis takes them.
pub fn store_users_raw(redis: &mut Connection, users: usize) {
    const AT_ONCE: usize = 2_000;
    let now = crate::machine::now_ms();
    let (renew_at, due) = (now + HOUR_MS, now + 29 * 24 * HOUR_MS);
    for first in (0..users).step_by(AT_ONCE) {
        let mut pipe = redis::pipe();
        for at in first..(first + AT_ONCE).min(users) {
            let (id, access, refresh) = (user_id(at), token('a', at), token('r', at));
            pipe.hset(ACCESS_HASH, &id, format!("{access}#{renew_at}"))
                .ignore();
            pipe.hset(REFRESH_HASH, &id, format!("{refresh}#{due}"))
                .ignore();
        }
        pipe.exec(redis).expect("stored");
    }
}
