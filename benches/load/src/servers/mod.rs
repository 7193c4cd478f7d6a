//! The contenders as servers, each in a separate process: axum with one handler that returns the
//! user's id.

mod bare;
mod layer;
mod own_cache;
mod published;
mod sessions;
mod tokens_in_redis;

use std::io::Read;

use axum::Router;
use tokio::net::TcpListener;

use crate::contender::Contender;
use crate::environment;

/// Runs the server of this contender until its standard input ends, so that no server outlives the
/// benchmark.
pub async fn serve(contender: Contender) {
    let redis = environment::redis_url();
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
