//! tower-sessions with its Redis store: the usual way to store data about a user. A session
//! contains the user's id and no token.

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use tower_sessions::{Session, SessionManagerLayer};
use tower_sessions_redis_store::RedisStore;
use tower_sessions_redis_store::fred::clients::Pool;
use tower_sessions_redis_store::fred::interfaces::ClientLike;
use tower_sessions_redis_store::fred::types::config::Config;

use crate::population::{SESSION_FIELD, session_cookie_key};

async fn me(session: Session) -> Result<String, StatusCode> {
    let user = session.get(SESSION_FIELD).await;
    user.ok().flatten().ok_or(StatusCode::UNAUTHORIZED)
}

/// Creates the session layer with six connections to Redis, as the documentation of the store does.
async fn layer(url: &str) -> SessionManagerLayer<RedisStore<Pool>> {
    let config = Config::from_url(url).expect("an address");
    let pool = Pool::new(config, None, None, None, 6).expect("a pool");
    pool.connect();
    pool.wait_for_connect().await.expect("Redis");
    SessionManagerLayer::new(RedisStore::new(pool))
}

pub(super) async fn plain(url: &str) -> Router {
    Router::new()
        .route("/me", get(me))
        .layer(layer(url).await.with_secure(false))
}

pub(super) async fn signed(url: &str) -> Router {
    let layer = layer(url).await.with_secure(false);
    Router::new()
        .route("/me", get(me))
        .layer(layer.with_signed(session_cookie_key()))
}
