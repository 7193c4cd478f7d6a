//! The users of the benchmark: their ids, their records in Redis, and their requests.

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
use tower_wechat::client::UserTokenResponse;
use tower_wechat::redis::Layout;
use tower_wechat::{CookieKeys, RedisStore, SessionCookie, UserId, UserTokens};

use crate::account::wechat;
use crate::contender::UserCredential;
use crate::generator::PreparedRequests;

/// Number of users for the measurements of throughput, restart and growth: 10,000.
pub const USERS: usize = 10_000;

pub const USER_HEADER: &str = "x-user-id";
pub const TAGGED_COOKIE: &str = "session";
pub const SESSION_FIELD: &str = "user";

/// The Redis hash of access tokens in the published layout. [`REFRESH_HASH`] is the hash of refresh
/// tokens.
/// The scope of all users.
pub const SCOPE: &str = "snsapi_userinfo";

pub const ACCESS_HASH: &str = "user.wxUserAccessToken";
pub const REFRESH_HASH: &str = "user.wxUserRefreshToken";

const HOUR_MS: u64 = 3_600_000;

/// Returns the openid of the user with this number, which has 28 characters.
pub fn user_id(at: usize) -> String {
    format!("o6_bmjrPTlm6_2sgVt7h{at:08}")
}

/// Returns a token of 110 characters, the usual length of WeChat's tokens.
fn token(kind: char, at: usize) -> String {
    format!("83_{kind}{at:0106}")
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

/// Returns one request for each of the first `users` users as bytes, with the expected body of its
/// response.
pub fn requests(credential: UserCredential, users: usize) -> PreparedRequests {
    let layer = SessionCookie::new(wechat().app_id(), &cookie_keys());
    let named = (0..users).map(|at| {
        let id = user_id(at);
        let line = match credential {
            UserCredential::Header => format!("{USER_HEADER}: {id}"),
            UserCredential::LayerCookie => {
                let set_cookie = layer.issue(&UserId::new(id.as_str()).expect("an id"));
                let set_cookie = set_cookie.to_str().expect("text");
                format!(
                    "cookie: {}",
                    set_cookie.split(';').next().unwrap_or_default()
                )
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

/// Stores the users in Redis in the layouts hashes and keys, and stores their sessions.
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

/// Stores users in Redis through this crate, as after a login.
pub async fn store_users(url: &str, layout: Layout, users: usize) {
    const AT_ONCE: usize = 64;
    let store = RedisStore::builder(url).layout(layout).connect().await;
    let tokens = UserTokens::new(wechat(), store.expect("Redis"));
    let mut writers = tokio::task::JoinSet::new();
    for first in 0..AT_ONCE {
        let tokens = tokens.clone();
        writers.spawn(async move {
            for at in (first..users).step_by(AT_ONCE) {
                let response = UserTokenResponse::new(token('a', at))
                    .expires_in(7_200)
                    .refresh_token(token('r', at))
                    .openid(user_id(at))
                    .scope(SCOPE);
                let id = UserId::new(user_id(at)).expect("an id");
                tokens.store(&id, &response).await.expect("stored");
            }
        });
    }
    writers.join_all().await;
}

/// Stores many users as a Java service does, by pipelines of commands and without this crate, which
/// is faster.
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
