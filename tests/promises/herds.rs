//! Tests of many concurrent requests: the load on Redis and WeChat grows with the number of users,
//! and not with the number of requests.

use std::time::Duration;

use tokio::task::JoinSet;
use tower_wechat::redis::Layout;
use tower_wechat::simulator::Fault;
use tower_wechat::{RedisStore, UserTokens};

use crate::harness::{Backend, Harness, REFRESH, id, many, text};

/// Returns a process whose requests wait up to a minute. WeChat takes 100 ms for each renewal.
async fn harness() -> (Harness, UserTokens) {
    let harness = Harness::new(Backend::Keys).await;
    harness
        .simulator
        .inject(Fault::on(REFRESH).delay(Duration::from_millis(100)));
    let users = patient(&harness).await;
    (harness, users)
}

async fn patient(harness: &Harness) -> UserTokens {
    let minute = Duration::from_secs(60);
    let redis = harness.redis.as_ref().expect("a backend in Redis");
    // A debug build on a busy machine needs long to read thousands of replies. That time counts for
    // the timeout of a command.
    let store = RedisStore::builder(&redis.url())
        .layout(Layout::Keys)
        .command_timeout(minute);
    let store = store.connect().await.unwrap();
    let builder = UserTokens::builder(harness.client(), store).clock(harness.clock.clone());
    builder.load_timeout(minute).lease_duration(minute).build()
}

/// Returns how many records Redis has read, including those that scripts read.
fn reads(harness: &Harness) -> u64 {
    harness.redis.as_ref().map_or(0, |redis| redis.calls("get"))
}

/// Requests the token of each user once, all at the same time.
async fn each(users: &UserTokens, openids: &[String]) -> Vec<String> {
    let mut running = JoinSet::new();
    for openid in openids {
        let (users, user) = (users.clone(), id(openid));
        running.spawn(async move { text(&users.get(&user).await.unwrap()) });
    }
    running.join_all().await
}

fn openids(count: usize) -> Vec<String> {
    (0..count).map(|at| format!("o{at:06}")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_requests_for_one_expired_user_make_one_renewal() {
    let (harness, users) = harness().await;
    harness.expired(&users, &["oA"]).await;
    let before = reads(&harness);
    let tokens = many(&[users], "oA", 10_000).await;
    let live = harness.live_token("oA");
    assert!(tokens.into_iter().all(|token| token.unwrap() == live));
    assert_eq!(harness.refreshes(), 1);
    // One or two requests read the record. The scripts that acquire the lease and commit read it
    // again.
    let read = reads(&harness) - before;
    assert!(read <= 12, "{read} reads");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_expired_users_cost_one_renewal_each() {
    const USERS: usize = 2_000;
    let (harness, users) = harness().await;
    let openids = openids(USERS);
    let names: Vec<&str> = openids.iter().map(String::as_str).collect();
    harness.expired(&users, &names).await;
    let before = reads(&harness);
    // Sends two requests for each user.
    let (first, second) = tokio::join!(each(&users, &openids), each(&users, &openids));
    assert_eq!(first.len() + second.len(), 2 * USERS);
    assert_eq!(harness.refreshes(), USERS as u64);
    let read = (reads(&harness) - before) / USERS as u64;
    assert!(read <= 12, "{read} reads for each user");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_costs_few_reads_for_each_user() {
    const USERS: usize = 1_000;
    let (harness, users) = harness().await;
    let openids = openids(USERS);
    for openid in &openids {
        harness.log_in(&users, openid).await;
    }
    let restarted = patient(&harness).await;
    let before = reads(&harness);
    each(&restarted, &openids).await;
    assert_eq!(reads(&harness) - before, USERS as u64);

    let restarted = patient(&harness).await;
    let before = reads(&harness);
    for token in many(&[restarted], &openids[0], 1_000).await {
        token.unwrap();
    }
    // One or two requests read the record, and some read it again when the subscription opens and
    // ends the cached entry.
    let read = reads(&harness) - before;
    assert!((1..=8).contains(&read), "{read} reads");
    assert_eq!(harness.refreshes(), 0);
}
