//! Time from a write in one process to its effect in another: `cargo bench --bench invalidation`.
//!
//! Two `UserTokens`, each with its own cache and connections, share a redis-server or a memory
//! store. The time runs from the beginning of a write by the first until the second no longer
//! serves its cached token. Cached tokens are valid for an hour, so that only the invalidation
//! message can remove them.

mod fixtures;
#[path = "../tests/support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use tower_wechat::client::UserTokenResponse;
use tower_wechat::redis::Layout;
use tower_wechat::user::UserTokensBuilder;
use tower_wechat::{MemoryStore, RedisStore, UserId, UserTokens};

use fixtures::wechat_client;
use support::redis_server::RedisServer;

const ROUNDS: usize = 2_000;
const HOUR: Duration = Duration::from_secs(3_600);

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    println!("from a write in one process to its effect in another, {ROUNDS} writes each:");
    println!("| store | what | median | p99 | longest |");
    println!("|---|---|---|---|---|");
    runtime.block_on(async {
        for layout in [Layout::Hashes, Layout::Keys] {
            let server = RedisServer::start();
            let engine = async || {
                let store = RedisStore::builder(&server.url()).layout(layout);
                let store = store.connect().await.expect("redis-server answers");
                UserTokens::builder(wechat_client(), store)
            };
            measure(
                &format!("Redis, {layout:?}"),
                engine().await,
                engine().await,
            )
            .await;
        }
        let memory = MemoryStore::new();
        let engine = || UserTokens::builder(wechat_client(), memory.clone());
        measure("memory", engine(), engine()).await;
    });
}

async fn measure(store: &str, ours: UserTokensBuilder, theirs: UserTokensBuilder) {
    let (ours, theirs) = (ours.cache_ttl(HOUR).build(), theirs.cache_ttl(HOUR).build());
    let user = UserId::new("o6_bmjrPTlm6_2sgVt7hMZOPfL2M").expect("an id");
    let (mut logins, mut deletions) = (Vec::new(), Vec::new());
    // The first hundred rounds do not count, because they open connections and load scripts.
    for round in 0..ROUNDS + 100 {
        let response = UserTokenResponse::new(format!("83_{round:0107}")).expires_in(7_200);
        for deletes in [false, true] {
            let before = theirs.get(&user).await.ok();
            let serves_other = |token: &tower_wechat::UserToken| {
                theirs
                    .cached(&user)
                    .is_none_or(|now| now.access_token() != token.access_token())
            };
            let began = Instant::now();
            if deletes {
                ours.revoke(&user).await.expect("deleted");
            } else {
                ours.store(&user, &response).await.expect("stored");
            }
            if let Some(before) = before {
                while !serves_other(&before) {
                    tokio::task::yield_now().await;
                }
                let list = if deletes { &mut deletions } else { &mut logins };
                list.push(began.elapsed());
            }
            // Stores a token again, so that the login of the next round replaces a token.
            if deletes {
                ours.store(&user, &response).await.expect("stored");
                while theirs.get(&user).await.is_err() {
                    tokio::task::yield_now().await;
                }
            }
        }
    }
    for (what, mut times) in [("login", logins), ("deletion", deletions)] {
        let mut times = times.split_off(times.len() - ROUNDS);
        times.sort();
        let micros = |at: usize| format!("{} µs", times[at.min(times.len() - 1)].as_micros());
        let (median, late) = (micros(ROUNDS / 2), micros(ROUNDS * 99 / 100));
        println!(
            "| {store} | {what} | {median} | {late} | {} |",
            micros(ROUNDS)
        );
    }
}
