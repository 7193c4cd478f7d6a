//! Tests of lost leases, and of commands to the store that get no reply.

use std::time::Duration;

use redis::Commands;
use tokio::time::Instant;
use tower_wechat::simulator::Fault;
use tower_wechat::{ErrorKind, RedisStore, UserTokens};

use crate::harness::{Harness, REFRESH, id, text};
use crate::support::eventually;
use crate::support::proxy::Weather;

crate::for_each_server!(
    a_lease_whose_reply_is_lost_is_released,
    an_unreleased_lease_is_released_later,
    a_rejected_refresh_waits_for_another_renewal,
    a_failed_deletion_is_a_store_error,
    failing_commits_keep_no_older_token,
);

/// A lease that is much longer than any caller may have to wait for an unused lease.
const LONG_LEASE: Duration = Duration::from_secs(100);

/// Maximum wait of a user after Redis is back, with tolerance for a loaded machine.
const SOON: Duration = Duration::from_secs(5 * 4);

/// Pauses all commands that may write for this time. Redis runs them afterwards.
fn pause_writes(harness: &Harness, span: Duration) {
    let mut pause = redis::cmd("CLIENT");
    pause.arg("PAUSE").arg(span.as_millis() as u64).arg("WRITE");
    let server = harness.redis.as_ref().unwrap();
    let () = pause.query(&mut server.connection()).unwrap();
}

/// Sets the ACL rules of the Redis user `app`, which one process of a test has for itself.
fn with_user(harness: &Harness, rules: &[&str]) {
    let mut set = redis::cmd("ACL");
    set.arg("SETUSER").arg("app").arg(rules);
    let server = harness.redis.as_ref().unwrap();
    let () = set.query(&mut server.connection()).unwrap();
}

/// Connects a store as the Redis user `app`, whose permissions the test removes and restores.
async fn under_rules(harness: &Harness) -> RedisStore {
    with_user(harness, &["on", ">word", "~*", "&*", "+@all"]);
    let address = harness.redis.as_ref().unwrap().address();
    let url = format!("redis://app:word@{address}/");
    harness.redis_store_at(&url, |builder| builder).await
}

const NO_SCRIPTS: &[&str] = &["-eval", "-evalsha"];
const SCRIPTS: &[&str] = &["+eval", "+evalsha"];

async fn process_under_rules(harness: &Harness) -> UserTokens {
    let store = under_rules(harness).await;
    UserTokens::builder(harness.client(), store)
        .clock(harness.clock.clone())
        .build()
}

fn leases(harness: &Harness) -> Vec<String> {
    let mut redis = harness.redis.as_ref().unwrap().connection();
    redis.keys("*lease*").unwrap()
}

async fn no_lease_is_left(harness: &Harness) {
    eventually(
        "all leases are given back",
        Duration::from_secs(5),
        async || leases(harness).is_empty(),
    )
    .await;
}

async fn asks_wechat(harness: &Harness, times: u64) {
    eventually("WeChat is asked", Duration::from_secs(5), async || {
        harness.refreshes() >= times
    })
    .await;
}

/// Tests a lease that Redis grants late and whose reply is lost. Meanwhile the process runs a call
/// for another user, which a login supersedes.
async fn a_lease_whose_reply_is_lost_is_released(harness: Harness) {
    let (users, proxy) = harness.process_behind_a_proxy(LONG_LEASE).await;
    harness.expired(&users, &["oA", "oB", "oFirst"]).await;
    // This request loads the scripts into Redis.
    users.get(&id("oFirst")).await.unwrap();
    pause_writes(&harness, Duration::from_millis(600));
    let asking = tokio::spawn({
        let users = users.clone();
        async move { users.get(&id("oA")).await }
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    let swallow = Weather {
        blackhole: 1_000,
        ..Weather::CALM
    };
    proxy.weather(swallow);
    eventually("the claim has run", Duration::from_secs(5), async || {
        !leases(&harness).is_empty()
    })
    .await;
    // During this pause the proxy drops the reply to the command that acquired the lease.
    tokio::time::sleep(Duration::from_millis(100)).await;
    proxy.weather(Weather::CALM);
    let back = Instant::now();
    let error = asking.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StoreUnavailable);
    harness.simulator.inject(
        Fault::on(REFRESH)
            .delay(Duration::from_millis(200))
            .times(1),
    );
    let other = tokio::spawn({
        let users = users.clone();
        async move {
            while users.get(&id("oB")).await.is_err() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    });
    asks_wechat(&harness, 2).await;
    harness.log_in(&users, "oB").await;
    other.await.unwrap();
    while users.get(&id("oA")).await.is_err() {
        assert!(back.elapsed() < SOON, "its own lease is in its way");
    }
    no_lease_is_left(&harness).await;
}

async fn an_unreleased_lease_is_released_later(harness: Harness) {
    let (users, proxy) = harness.process_behind_a_proxy(LONG_LEASE).await;
    harness.expired(&users, &["oA"]).await;
    // WeChat returns 45009 for the account, so the process releases the lease at once.
    let slow = Fault::on(REFRESH).delay(Duration::from_millis(300));
    harness.simulator.inject(slow.errcode(45009).times(1));
    let asking = tokio::spawn({
        let users = users.clone();
        async move { users.get(&id("oA")).await }
    });
    asks_wechat(&harness, 1).await;
    proxy.silent(true);
    asking.await.unwrap().unwrap_err();
    // The commands that were sent before this cut are lost.
    proxy.cut_all();
    proxy.silent(false);
    no_lease_is_left(&harness).await;
}

/// Tests a lease that is lost, as in a fail-over. The second process then acquires the lease, and
/// WeChat rejects the refresh token of the first process. The first one waits for the other
/// renewal.
async fn a_rejected_refresh_waits_for_another_renewal(harness: Harness) {
    let (first, second) = (harness.process().await, harness.process().await);
    harness.expired(&first, &["oA"]).await;
    let slow = |millis| Fault::on(REFRESH).delay(Duration::from_millis(millis));
    harness.simulator.inject(slow(700).errcode(40030).times(1));
    let ask = |users: &UserTokens| {
        let users = users.clone();
        tokio::spawn(async move { users.get(&id("oA")).await.map(|token| text(&token)) })
    };
    let told = ask(&first);
    asks_wechat(&harness, 1).await;
    harness.simulator.inject(slow(2_000).times(1));
    let mut redis = harness.redis.as_ref().unwrap().connection();
    let _: () = redis.del(leases(&harness)).unwrap();
    let granted = ask(&second);
    let (told, granted) = (told.await.unwrap(), granted.await.unwrap());
    assert_eq!(granted.as_ref().unwrap(), &harness.live_token("oA"));
    assert_eq!(told.unwrap(), granted.unwrap());
    assert_eq!(harness.refreshes(), 2);
}

async fn a_failed_deletion_is_a_store_error(harness: Harness) {
    let users = process_under_rules(&harness).await;
    harness.expired(&users, &["oA"]).await;
    let slow = Fault::on(REFRESH).delay(Duration::from_millis(500));
    harness.simulator.inject(slow.errcode(40030).times(1));
    let asking = tokio::spawn({
        let users = users.clone();
        async move { users.get(&id("oA")).await }
    });
    asks_wechat(&harness, 1).await;
    with_user(&harness, NO_SCRIPTS);
    let error = asking.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StoreUnavailable, "{error}");
    with_user(&harness, SCRIPTS);
    // The tokens are still stored and valid, because the rejection was an injected fault.
    eventually("the user is served", SOON, async || {
        users.get(&id("oA")).await.is_ok()
    })
    .await;
}

async fn failing_commits_keep_no_older_token(harness: Harness) {
    let (first, second) = (process_under_rules(&harness).await, harness.process().await);
    harness.expired(&first, &["oA"]).await;
    let slow = Fault::on(REFRESH).delay(Duration::from_millis(500));
    harness.simulator.inject(slow.times(1));
    let asking = tokio::spawn({
        let users = first.clone();
        async move { users.get(&id("oA")).await.map(|token| text(&token)) }
    });
    asks_wechat(&harness, 1).await;
    with_user(&harness, NO_SCRIPTS);
    let granted = asking.await.unwrap().unwrap();
    assert_eq!(granted, harness.live_token("oA"));
    // The first process retries the write of this token. Now the user logs in at the second one.
    let login = harness.log_in(&second, "oA").await;
    let current = async || {
        let token = first.get(&id("oA")).await;
        token.is_ok_and(|token| text(&token) == login.access_token)
    };
    eventually("the login is heard of", SOON, current).await;
    let until = Instant::now() + Duration::from_secs(2);
    while Instant::now() < until {
        assert!(current().await, "an older token stands over a newer one");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    with_user(&harness, SCRIPTS);
    assert!(first.shutdown(Duration::from_secs(20)).await);
    assert_eq!(
        harness.stored_token("oA").await.unwrap(),
        login.access_token
    );
}
