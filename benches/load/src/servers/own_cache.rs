//! A cache written by hand in front of the published algorithm: the least that a cache can cost.
//! The server renews no token, receives no invalidations, ends no session and has no layer.

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

use super::published::{parse_if_fresh, user_header};
use super::tokens_in_redis::connection;
use crate::machine::now_ms;
use crate::population::{ACCESS_HASH, TAGGED_COOKIE, cookie_mac};

struct CachedToken {
    #[allow(dead_code)] // An application would call WeChat with this token.
    token: String,
    until: u64,
}

#[derive(Clone)]
struct Tokens {
    cache: Arc<Cache<String, Arc<CachedToken>>>,
    redis: ConnectionManager,
}

impl Tokens {
    async fn connect(url: &str) -> Self {
        Self {
            cache: Arc::new(Cache::new(1_000_000)),
            redis: connection(url).await,
        }
    }

    async fn get(&self, id: &str) -> Option<Arc<CachedToken>> {
        if let Some(cached) = self.cache.get(id)
            && now_ms() < cached.until
        {
            return Some(cached);
        }
        let mut command = redis::cmd("HGET");
        command.arg(ACCESS_HASH).arg(id);
        let value: Option<String> = command.query_async(&mut self.redis.clone()).await.ok()?;
        let value = value?;
        let (token, until) = parse_if_fresh(&value)?;
        let cached = Arc::new(CachedToken {
            token: token.to_owned(),
            until,
        });
        self.cache.insert(id.to_owned(), cached.clone());
        Some(cached)
    }
}

struct HeaderUser {
    id: String,
    #[allow(dead_code)]
    token: Arc<CachedToken>,
}

impl FromRequestParts<Tokens> for HeaderUser {
    type Rejection = StatusCode;

    async fn from_request_parts(parts: &mut Parts, tokens: &Tokens) -> Result<Self, StatusCode> {
        let id = user_header(parts).ok_or(StatusCode::UNAUTHORIZED)?;
        let cached = tokens.get(id).await.ok_or(StatusCode::UNAUTHORIZED)?;
        Ok(Self {
            id: id.to_owned(),
            token: cached,
        })
    }
}

async fn me_by_header(user: HeaderUser) -> String {
    user.id
}

pub(super) async fn by_header(url: &str) -> Router {
    Router::new()
        .route("/me", get(me_by_header))
        .with_state(Tokens::connect(url).await)
}

#[derive(Clone)]
struct CookieState {
    tokens: Tokens,
    key: Hmac<Sha256>,
}

impl CookieState {
    /// Returns the user's id in the signed cookie, or `None` if the cookie is missing or its
    /// signature is invalid.
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

struct CookieUser {
    id: String,
    #[allow(dead_code)]
    token: Arc<CachedToken>,
}

impl FromRequestParts<CookieState> for CookieUser {
    type Rejection = StatusCode;

    async fn from_request_parts(
        parts: &mut Parts,
        state: &CookieState,
    ) -> Result<Self, StatusCode> {
        let cookies = parts.headers.get(COOKIE);
        let id = cookies
            .and_then(|cookies| state.user(cookies.to_str().ok()?))
            .ok_or(StatusCode::UNAUTHORIZED)?;
        let cached = state.tokens.get(id).await;
        let cached = cached.ok_or(StatusCode::UNAUTHORIZED)?;
        Ok(Self {
            id: id.to_owned(),
            token: cached,
        })
    }
}

async fn me_by_cookie(user: CookieUser) -> String {
    user.id
}

pub(super) async fn by_cookie(url: &str) -> Router {
    let state = CookieState {
        tokens: Tokens::connect(url).await,
        key: cookie_mac(),
    };
    Router::new()
        .route("/me", get(me_by_cookie))
        .with_state(state)
}
