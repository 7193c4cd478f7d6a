//! Tests of an outage of Redis.

use std::time::{Duration, Instant};

use tower_wechat::simulator::Fault;
use tower_wechat::{ErrorKind, UserTokens};

use crate::harness::{Backend, Harness, REFRESH, id, text};
use crate::support::eventually;

/// Tests an outage of Redis. Cached users are served, and requests for other users fail soon.
/// Within 5 seconds after the outage, the process uses Redis again.
async fn survives(
    harness: &mut Harness,
    away: impl FnOnce(&mut Harness),
    back: impl FnOnce(&mut Harness),
) {
    let users = harness.process().await;
    let pair = harness.log_in(&users, "oCached").await;
    away(harness);
    for _ in 0..20 {
        assert_eq!(
            text(&users.get(&id("oCached")).await.unwrap()),
            pair.access_token
        );
    }
    let began = Instant::now();
    for _ in 0..20 {
        let error = users.get(&id("oOther")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::StoreUnavailable);
        assert!(error.retry_after().is_some());
    }
    let took = began.elapsed();
    assert!(took < Duration::from_secs(8), "20 refusals took {took:?}");
    assert!(users.health().await.is_err());
    // The entry is older than `cache_ttl`, and its token has not expired. While the store is down,
    // the process serves such an entry.
    harness.advance(Duration::from_secs(61));
    assert_eq!(
        text(&users.get(&id("oCached")).await.unwrap()),
        pair.access_token
    );
    back(harness);
    eventually(
        "the store answers again",
        Duration::from_secs(5),
        async || users.get(&id("oOther")).await.unwrap_err().kind() == ErrorKind::LoginRequired,
    )
    .await;
    users.health().await.unwrap();
    harness.log_in(&users, "oOther").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_survive_a_killed_redis() {
    let mut harness = Harness::new(Backend::Hashes).await;
    let kill = |harness: &mut Harness| harness.redis.as_mut().unwrap().kill();
    survives(&mut harness, kill, |harness| {
        harness.redis.as_mut().unwrap().run();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_survive_a_frozen_redis() {
    let mut harness = Harness::new(Backend::Keys).await;
    let freeze = |harness: &mut Harness| harness.redis.as_ref().unwrap().freeze(true);
    survives(&mut harness, freeze, |harness| {
        harness.redis.as_ref().unwrap().freeze(false);
    })
    .await;
}

/// Freezes Redis while WeChat processes a renewal. Returns the token that the waiting request gets.
async fn granted_while_redis_is_frozen(harness: &Harness, users: &UserTokens) -> String {
    harness.simulator.inject(
        Fault::on(REFRESH)
            .delay(Duration::from_millis(300))
            .times(1),
    );
    let asking = tokio::spawn({
        let users = users.clone();
        async move { users.get(&id("oA")).await }
    });
    eventually("WeChat is asked", Duration::from_secs(5), async || {
        harness.refreshes() > 0
    })
    .await;
    harness.redis.as_ref().unwrap().freeze(true);
    text(&asking.await.unwrap().unwrap())
}

/// Tests "nothing lost": WeChat issues a pair while Redis is frozen.
async fn keeps_the_pair(backend: Backend) {
    let harness = Harness::new(backend).await;
    let users: UserTokens = harness.process().await;
    harness.expired(&users, &["oA"]).await;
    let token = granted_while_redis_is_frozen(&harness, &users).await;
    // The waiting request gets the new token although it is not stored.
    assert_eq!(token, harness.live_token("oA"));
    harness.redis.as_ref().unwrap().freeze(false);
    assert!(users.shutdown(Duration::from_secs(10)).await);
    assert_eq!(harness.stored_token("oA").await.unwrap(), token);
    assert_eq!(harness.refreshes(), 1);
}

/// Tests "nothing lost": Redis is frozen for longer than the lease, and WeChat has revoked the
/// stored pair. No other process calls WeChat meanwhile.
async fn keeps_a_rotated_pair(backend: Backend) {
    const LEASE: Duration = Duration::from_secs(1);
    let harness = Harness::new(backend).await;
    harness
        .simulator
        .settings(|settings| settings.rotate_refresh_token = true);
    let users = harness
        .process_with(|builder| builder.lease_duration(LEASE))
        .await;
    harness.expired(&users, &["oA"]).await;
    let token = granted_while_redis_is_frozen(&harness, &users).await;
    tokio::time::sleep(LEASE * 2).await;
    harness.redis.as_ref().unwrap().freeze(false);
    assert!(users.shutdown(Duration::from_secs(20)).await);
    assert_eq!(harness.stored_token("oA").await.unwrap(), token);
    assert_eq!(harness.refreshes(), 1);
    // The pair that was stored late can be renewed.
    harness.advance(Duration::from_secs(7_300));
    assert_eq!(
        harness.stored_token("oA").await.unwrap(),
        harness.live_token("oA")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotated_pair_is_stored_after_its_lease_hashes() {
    keeps_a_rotated_pair(Backend::Hashes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotated_pair_is_stored_after_its_lease_keys() {
    keeps_a_rotated_pair(Backend::Keys).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pair_is_stored_when_redis_is_back_hashes() {
    keeps_the_pair(Backend::Hashes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pair_is_stored_when_redis_is_back_keys() {
    keeps_the_pair(Backend::Keys).await;
}
