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

/// Duration of a lease, 100 s. A request that had to wait for its expiry would fail the test.
const LONG_LEASE: Duration = Duration::from_secs(100);

/// Maximum time until a user is served after Redis is back: 5 s, times 4 for a loaded machine.
const SOON: Duration = Duration::from_secs(5 * 4);

/// Makes Redis delay all commands that may write for `span`. Redis runs them afterwards.
fn pause_writes(harness: &Harness, span: Duration) {
    let mut pause = redis::cmd("CLIENT");
    pause.arg("PAUSE").arg(span.as_millis() as u64).arg("WRITE");
    let server = harness.redis.as_ref().unwrap();
    let () = pause.query(&mut server.connection()).unwrap();
}

/// Sets the ACL rules of the Redis user `app`. One process of a test connects as this user.
fn with_user(harness: &Harness, rules: &[&str]) {
    let mut set = redis::cmd("ACL");
    set.arg("SETUSER").arg("app").arg(rules);
    let server = harness.redis.as_ref().unwrap();
    let () = set.query(&mut server.connection()).unwrap();
}

/// Connects to Redis as the user `app`. A test can take its permissions away and give them back.
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

/// Tests a lease that Redis grants late, and whose reply is lost. Meanwhile the process renews the
/// token of another user, until a login supersedes that renewal.
async fn a_lease_whose_reply_is_lost_is_released(harness: Harness) {
    let (users, proxy) = harness.process_behind_a_proxy(LONG_LEASE).await;
    harness.expired(&users, &["oA", "oB", "oFirst"]).await;
    // The first request loads the scripts into Redis.
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
    // Meanwhile the proxy drops the reply to the command that acquired the lease.
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
    // WeChat rejects all calls of the account (45009), so the process does not retry and releases
    // the lease at once.
    let slow = Fault::on(REFRESH).delay(Duration::from_millis(300));
    harness.simulator.inject(slow.errcode(45009).times(1));
    let asking = tokio::spawn({
        let users = users.clone();
        async move { users.get(&id("oA")).await }
    });
    asks_wechat(&harness, 1).await;
    proxy.silent(true);
    asking.await.unwrap().unwrap_err();
    // The commands that the process sent before this moment are lost.
    proxy.cut_all();
    proxy.silent(false);
    no_lease_is_left(&harness).await;
}

/// Tests a lease that Redis loses during a renewal, as in a fail-over. A second process then renews
/// the same user. WeChat rejects the call of the first process, which waits for the result of the
/// second one.
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
    // The rejection was an injected fault, so the stored tokens are valid.
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
    // The first process keeps retrying to write its token. The user now logs in at the second
    // process.
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
