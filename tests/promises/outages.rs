//! Redis goes away and comes back.

use std::time::{Duration, Instant};

use tower_wechat::simulator::Fault;
use tower_wechat::{ErrorKind, UserTokens};

use crate::rig::{Backend, REFRESH, Rig, id, text};
use crate::support::eventually;

/// Cached users are served, others get an error soon; all is well within 5 seconds of its return.
async fn survives(rig: &mut Rig, away: impl FnOnce(&mut Rig), back: impl FnOnce(&mut Rig)) {
    let users = rig.process().await;
    let pair = rig.log_in(&users, "oCached").await;
    away(rig);
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
    // Its time in the cache is over, its own is not: better than nothing.
    rig.advance(Duration::from_secs(61));
    assert_eq!(
        text(&users.get(&id("oCached")).await.unwrap()),
        pair.access_token
    );
    back(rig);
    eventually(
        "the store answers again",
        Duration::from_secs(5),
        async || users.get(&id("oOther")).await.unwrap_err().kind() == ErrorKind::LoginRequired,
    )
    .await;
    users.health().await.unwrap();
    rig.log_in(&users, "oOther").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_redis_is_survived() {
    let mut rig = Rig::new(Backend::Hashes).await;
    let kill = |rig: &mut Rig| rig.redis.as_mut().unwrap().kill();
    survives(&mut rig, kill, |rig| rig.redis.as_mut().unwrap().run()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_redis_is_survived() {
    let mut rig = Rig::new(Backend::Keys).await;
    let freeze = |rig: &mut Rig| rig.redis.as_ref().unwrap().freeze(true);
    survives(&mut rig, freeze, |rig| {
        rig.redis.as_ref().unwrap().freeze(false);
    })
    .await;
}

/// Freezes Redis once WeChat has been asked for a token, and answers what who waits for it gets.
async fn granted_while_redis_is_frozen(rig: &Rig, users: &UserTokens) -> String {
    rig.simulator.inject(
        Fault::on(REFRESH)
            .delay(Duration::from_millis(300))
            .times(1),
    );
    let asking = tokio::spawn({
        let users = users.clone();
        async move { users.get(&id("oA")).await }
    });
    eventually("WeChat is asked", Duration::from_secs(5), async || {
        rig.refreshes() > 0
    })
    .await;
    rig.redis.as_ref().unwrap().freeze(true);
    text(&asking.await.unwrap().unwrap())
}

/// R3: WeChat has granted a pair, and the store is away at that moment.
async fn keeps_the_pair(backend: Backend) {
    let rig = Rig::new(backend).await;
    let users: UserTokens = rig.process().await;
    rig.expired(&users, &["oA"]).await;
    let token = granted_while_redis_is_frozen(&rig, &users).await;
    // It is good at WeChat, so who waits for it gets it.
    assert_eq!(token, rig.live_token("oA"));
    rig.redis.as_ref().unwrap().freeze(false);
    assert!(users.shutdown(Duration::from_secs(10)).await);
    assert_eq!(rig.stored_token("oA").await.unwrap(), token);
    assert_eq!(rig.refreshes(), 1);
}

/// R3: the store is away for longer than the lease lasts, and what was stored before is dead since
/// WeChat has answered. Nobody else is told so meanwhile.
async fn keeps_a_rotated_pair(backend: Backend) {
    const LEASE: Duration = Duration::from_secs(1);
    let rig = Rig::new(backend).await;
    rig.simulator
        .settings(|settings| settings.rotate_refresh_token = true);
    let users = rig
        .process_with(|builder| builder.lease_duration(LEASE))
        .await;
    rig.expired(&users, &["oA"]).await;
    let token = granted_while_redis_is_frozen(&rig, &users).await;
    tokio::time::sleep(LEASE * 2).await;
    rig.redis.as_ref().unwrap().freeze(false);
    assert!(users.shutdown(Duration::from_secs(20)).await);
    assert_eq!(rig.stored_token("oA").await.unwrap(), token);
    assert_eq!(rig.refreshes(), 1);
    // And it can be renewed again.
    rig.advance(Duration::from_secs(7_300));
    assert_eq!(rig.stored_token("oA").await.unwrap(), rig.live_token("oA"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r3_a_rotated_pair_is_stored_after_its_lease_hashes() {
    keeps_a_rotated_pair(Backend::Hashes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r3_a_rotated_pair_is_stored_after_its_lease_keys() {
    keeps_a_rotated_pair(Backend::Keys).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r3_a_pair_is_stored_when_redis_is_back_hashes() {
    keeps_the_pair(Backend::Hashes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r3_a_pair_is_stored_when_redis_is_back_keys() {
    keeps_the_pair(Backend::Keys).await;
}
