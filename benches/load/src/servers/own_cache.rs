//! The floor: a cache written by hand in front of the published algorithm. It renews nothing,
//! hears of no other process, knows no session's end and no layer.

use std::sync::Arc;

use axum::Router;
use axum::extract::FromRequestParts;
use axum::http::StatusCode;
use axum::http::header::COOKIE;
use axum::http::request::Parts;
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use quick_cache::sync::Cache;
use redis::aio::ConnectionManager;
use sha2::Sha256;

use super::tokens_in_redis::connection;
use crate::population::{ACCESS_HASH, TAGGED_COOKIE, tagging_key};

struct Held {
    #[allow(dead_code)] // What the application would call WeChat with.
    token: String,
    until: u64,
}

#[derive(Clone)]
struct Tokens {
    cache: Arc<Cache<String, Arc<Held>>>,
    redis: ConnectionManager,
}

impl Tokens {
    async fn connect(url: &str) -> Self {
        Self {
            cache: Arc::new(Cache::new(1_000_000)),
            redis: connection(url).await,
        }
    }

    async fn get(&self, id: &str) -> Option<Arc<Held>> {
        if let Some(held) = self.cache.get(id)
            && super::now_ms() < held.until
        {
            return Some(held);
        }
        let mut command = redis::cmd("HGET");
        command.arg(ACCESS_HASH).arg(id);
        let value: Option<String> = command.query_async(&mut self.redis.clone()).await.ok()?;
        let value = value?;
        let (token, until) = super::usable(&value)?;
        let held = Arc::new(Held {
            token: token.to_owned(),
            until,
        });
        self.cache.insert(id.to_owned(), held.clone());
        Some(held)
    }
}

struct ByHeader {
    id: String,
    #[allow(dead_code)]
    held: Arc<Held>,
}

impl FromRequestParts<Tokens> for ByHeader {
    type Rejection = StatusCode;

    async fn from_request_parts(parts: &mut Parts, tokens: &Tokens) -> Result<Self, StatusCode> {
        let id = super::header(parts).ok_or(StatusCode::UNAUTHORIZED)?;
        let held = tokens.get(id).await.ok_or(StatusCode::UNAUTHORIZED)?;
        Ok(Self {
            id: id.to_owned(),
            held,
        })
    }
}

async fn me_by_header(user: ByHeader) -> String {
    user.id
}

pub(super) async fn by_header(url: &str) -> Router {
    Router::new()
        .route("/me", get(me_by_header))
        .with_state(Tokens::connect(url).await)
}

#[derive(Clone)]
struct WithKey {
    tokens: Tokens,
    key: Hmac<Sha256>,
}

impl WithKey {
    /// The user of the cookie among those of the header.
    fn user<'a>(&self, cookies: &'a str) -> Option<&'a str> {
        let value = cookies
            .split("; ")
            .find_map(|cookie| cookie.strip_prefix(TAGGED_COOKIE)?.strip_prefix('='))?;
        let (id, tag) = value.rsplit_once('.')?;
        let mut bytes = [0; 32];
        URL_SAFE_NO_PAD.decode_slice(tag, &mut bytes).ok()?;
        let mut mac = self.key.clone();
        mac.update(id.as_bytes());
        mac.verify_slice(&bytes).ok()?;
        Some(id)
    }
}

struct ByCookie {
    id: String,
    #[allow(dead_code)]
    held: Arc<Held>,
}

impl FromRequestParts<WithKey> for ByCookie {
    type Rejection = StatusCode;

    async fn from_request_parts(parts: &mut Parts, state: &WithKey) -> Result<Self, StatusCode> {
        let cookies = parts.headers.get(COOKIE);
        let id = cookies
            .and_then(|cookies| state.user(cookies.to_str().ok()?))
            .ok_or(StatusCode::UNAUTHORIZED)?;
        let held = state.tokens.get(id).await;
        let held = held.ok_or(StatusCode::UNAUTHORIZED)?;
        Ok(Self {
            id: id.to_owned(),
            held,
        })
    }
}

async fn me_by_cookie(user: ByCookie) -> String {
    user.id
}

pub(super) async fn by_cookie(url: &str) -> Router {
    let state = WithKey {
        tokens: Tokens::connect(url).await,
        key: tagging_key(),
    };
    Router::new()
        .route("/me", get(me_by_cookie))
        .with_state(state)
}
