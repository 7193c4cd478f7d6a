//! The published algorithm by hand: servers that send one `HGET` for each request and renew no
//! token.

use axum::Router;
use axum::extract::FromRequestParts;
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::routing::get;
use bb8_redis::RedisConnectionManager;
use redis::aio::{ConnectionLike, ConnectionManager};
use redis::io::tcp::TcpSettings;
use redis::{Client, IntoConnectionInfo};

use super::published::{parse_if_fresh, user_header};
use crate::population::ACCESS_HASH;

/// A source of connections to Redis, over one of which each request sends an `HGET`.
trait HgetSource: Clone + Send + Sync + 'static {
    fn hget(&self, id: &str) -> impl Future<Output = Option<String>> + Send;
}

async fn hget(connection: &mut impl ConnectionLike, id: &str) -> Option<String> {
    let mut command = redis::cmd("HGET");
    command.arg(ACCESS_HASH).arg(id);
    command.query_async(connection).await.ok()?
}

/// One connection of redis-rs, which all requests share, with `TCP_NODELAY` as in this crate.
#[derive(Clone)]
struct SharedConnection(ConnectionManager);

impl HgetSource for SharedConnection {
    async fn hget(&self, id: &str) -> Option<String> {
        hget(&mut self.0.clone(), id).await
    }
}

#[derive(Clone)]
struct Bb8(bb8_redis::bb8::Pool<RedisConnectionManager>);

impl HgetSource for Bb8 {
    async fn hget(&self, id: &str) -> Option<String> {
        hget(&mut *self.0.get().await.ok()?, id).await
    }
}

#[derive(Clone)]
struct Deadpool(deadpool_redis::Pool);

impl HgetSource for Deadpool {
    async fn hget(&self, id: &str) -> Option<String> {
        hget(&mut *self.0.get().await.ok()?, id).await
    }
}

struct User {
    id: String,
    #[allow(dead_code)] // An application would call WeChat with this token.
    token: String,
}

impl<C: HgetSource> FromRequestParts<C> for User {
    type Rejection = StatusCode;

    async fn from_request_parts(parts: &mut Parts, connections: &C) -> Result<Self, StatusCode> {
        let id = user_header(parts).ok_or(StatusCode::UNAUTHORIZED)?;
        let value = connections.hget(id).await;
        let value = value.ok_or(StatusCode::UNAUTHORIZED)?;
        let (token, _) = parse_if_fresh(&value).ok_or(StatusCode::UNAUTHORIZED)?;
        Ok(Self {
            id: id.to_owned(),
            token: token.to_owned(),
        })
    }
}

async fn me(user: User) -> String {
    user.id
}

fn app<C: HgetSource>(connections: C) -> Router {
    Router::new().route("/me", get(me)).with_state(connections)
}

/// Opens a connection that sends small packets at once, as the connections of this crate do.
///
/// redis-rs leaves Nagle's algorithm on by default. A command then waits until Redis has
/// acknowledged the one before it.
pub(super) async fn connection(url: &str) -> ConnectionManager {
    let info = url.into_connection_info().expect("an address");
    let info = info.set_tcp_settings(TcpSettings::default().set_nodelay(true));
    let client = Client::open(info).expect("an address");
    ConnectionManager::new(client).await.expect("Redis")
}

pub(super) async fn naive(url: &str) -> Router {
    app(SharedConnection(connection(url).await))
}

pub(super) async fn bb8(url: &str) -> Router {
    let manager = RedisConnectionManager::new(url).expect("an address");
    let pool = bb8_redis::bb8::Pool::builder().build(manager).await;
    app(Bb8(pool.expect("Redis")))
}

pub(super) fn deadpool(url: &str) -> Router {
    let pool = deadpool_redis::Config::from_url(url)
        .create_pool(Some(deadpool_redis::Runtime::Tokio1))
        .expect("a pool");
    app(Deadpool(pool))
}
