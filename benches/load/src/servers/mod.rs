//! The contenders as servers, each in a process of its own: axum, and one handler that answers
//! with the user's id.

mod bare;
mod layer;
mod own_cache;
mod sessions;
mod tokens_in_redis;

use std::io::Read;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Router;
use tokio::net::TcpListener;

use crate::contender::Contender;
use crate::population;

/// Where Redis is, for the server's process.
pub const REDIS_URL: &str = "LOAD_REDIS_URL";

/// `keys`: the cached servers of this crate read that layout. Unset: the published one.
pub const LAYOUT: &str = "LOAD_LAYOUT";

/// ServiceLevel until standard input ends, so that no server outlives who started it.
pub async fn serve(contender: Contender) {
    let redis = std::env::var(REDIS_URL).expect("the address of Redis");
    let app = match contender {
        Contender::Bare => bare::app(),
        Contender::OwnCacheHeader => own_cache::by_header(&redis).await,
        Contender::OwnCacheCookie => own_cache::by_cookie(&redis).await,
        Contender::CachedHeader
        | Contender::CachedCookie
        | Contender::UncachedHashes
        | Contender::UncachedKeys
        | Contender::UncachedKeysCookie => layer::app(contender, &redis).await,
        Contender::Naive => tokens_in_redis::naive(&redis).await,
        Contender::Bb8 => tokens_in_redis::bb8(&redis).await,
        Contender::Deadpool => tokens_in_redis::deadpool(&redis),
        Contender::Sessions => sessions::plain(&redis).await,
        Contender::SignedSessions => sessions::signed(&redis).await,
    };
    run(app).await;
}

async fn run(app: Router) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    println!("{}", listener.local_addr().expect("an address").port());
    let (end, ended) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        let _ = end.send(());
    });
    tokio::select! {
        outcome = axum::serve(listener, app) => outcome.expect("served"),
        _ = ended => {}
    }
}

/// Whether a stored `TOKEN#MS` is good now; the published algorithm.
fn parse_if_fresh(value: &str) -> Option<(&str, u64)> {
    let mut parts = value.split('#');
    let token = parts.next()?;
    let until: u64 = parts.next()?.parse().ok()?;
    (now_ms() < until).then_some((token, until))
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}

fn user_header(parts: &axum::http::request::Parts) -> Option<&str> {
    parts.headers.get(population::USER_HEADER)?.to_str().ok()
}
