//! Tests of the promises "stale served" and "clocks may differ", and of the time for which
//! processes cache tokens.

use std::time::Duration;

use tower_wechat::ErrorKind;
use tower_wechat::clock::Clock;
use tower_wechat::credential::Freshness;
use tower_wechat::simulator::Fault;

use crate::harness::{Harness, REFRESH, grant, id, many, text};
use crate::support::eventually;

crate::for_each_store!(
    a_fresh_token_is_served_from_the_cache,
    no_request_waits_for_a_stale_tokens_renewal,
    a_stale_token_is_served_until_it_expires,
    clocks_a_minute_apart_change_nothing,
    writes_of_another_process_are_seen_in_time,
    a_revocation_acts_at_once_here_and_soon_elsewhere,
    a_login_ends_a_cached_miss_at_once,
);

async fn a_fresh_token_is_served_from_the_cache(harness: Harness) {
    let users = harness.process().await;
    let pair = harness.log_in(&users, "oA").await;
    let reader = harness.process().await;
    for outcome in many(std::slice::from_ref(&reader), "oA", 200).await {
        assert_eq!(outcome.unwrap(), pair.access_token);
    }
    // Once the subscription is open, the process reads again what it had cached before.
    eventually("it is in memory", Duration::from_secs(10), async || {
        reader.get(&id("oA")).await.unwrap();
        let cached = reader.cached(&id("oA"));
        cached.is_some_and(|token| text(&token) == pair.access_token)
    })
    .await;
    assert_eq!(harness.refreshes(), 0);
    if let Some(redis) = &harness.redis {
        let reads = redis.calls("hget") + redis.calls("get");
        assert!(reads <= 50, "{reads} reads for 200 requests");
    }
}

async fn no_request_waits_for_a_stale_tokens_renewal(harness: Harness) {
    let users = harness.process().await;
    harness.stale(&users, &["oA"]).await;
    let old = harness.live_token("oA");
    harness.simulator.inject(Fault::on(REFRESH).hang().times(1));
    for outcome in many(std::slice::from_ref(&users), "oA", 100).await {
        assert_eq!(outcome.unwrap(), old);
    }
    let now = harness.clock.now();
    let token = users.get(&id("oA")).await.unwrap();
    assert_eq!(token.lifetime().freshness(now), Freshness::Stale);
    // One renewal has started in the background.
    eventually("WeChat is asked", Duration::from_secs(5), async || {
        harness.refreshes() > 0
    })
    .await;
    assert_eq!(harness.refreshes(), 1);
    // The first attempt of the renewal hangs until its timeout, and the next one succeeds.
    eventually(
        "the token is renewed",
        Duration::from_secs(12),
        async || {
            let token = users.get(&id("oA")).await.unwrap();
            token.lifetime().freshness(harness.clock.now()) == Freshness::Fresh
        },
    )
    .await;
}

async fn a_stale_token_is_served_until_it_expires(harness: Harness) {
    let users = harness.process().await;
    let pair = harness.simulator.sign_in("oA", "snsapi_base");
    // A pair without a refresh token cannot be renewed.
    let mut grant = grant(&pair);
    grant.refresh_token = None;
    users.store(&id("oA"), &grant).await.unwrap();
    harness.advance(Duration::from_secs(6_500));
    assert_eq!(
        text(&users.get(&id("oA")).await.unwrap()),
        pair.access_token
    );
    harness.advance(Duration::from_secs(800));
    assert_eq!(
        users.get(&id("oA")).await.unwrap_err().kind(),
        ErrorKind::LoginRequired
    );
    assert_eq!(harness.refreshes(), 0);
}

async fn clocks_a_minute_apart_change_nothing(harness: Harness) {
    let (early, late) = (Clock::shifted(), Clock::shifted());
    early.rewind(Duration::from_secs(60));
    late.advance(Duration::from_secs(60));
    let behind = harness
        .process_with(|builder| builder.clock(early.clone()))
        .await;
    let ahead = harness
        .process_with(|builder| builder.clock(late.clone()))
        .await;
    let processes = [behind, ahead];
    harness.log_in(&processes[0], "oA").await;
    for _ in 0..4 {
        for users in &processes {
            let token = users.get(&id("oA")).await.unwrap();
            assert_eq!(text(&token), harness.live_token("oA"));
        }
        // For each process the token is past its renewal point and has not expired.
        for clock in [&early, &late] {
            clock.advance(Duration::from_secs(6_600));
        }
        harness.simulator.advance(Duration::from_secs(6_600));
        let before = harness.refreshes();
        for users in &processes {
            let token = users.get(&id("oA")).await.unwrap();
            assert_eq!(text(&token), harness.live_token("oA"));
        }
        eventually("it is renewed", Duration::from_secs(5), async || {
            harness.refreshes() > before
        })
        .await;
        for users in &processes {
            eventually("both see it fresh", Duration::from_secs(5), async || {
                let token = users.get(&id("oA")).await.unwrap();
                token.lifetime().freshness(late.now()) == Freshness::Fresh
            })
            .await;
        }
        assert_eq!(harness.refreshes(), before + 1);
    }
}

async fn writes_of_another_process_are_seen_in_time(harness: Harness) {
    let (ours, theirs) = (harness.process().await, harness.process().await);
    let first = harness.log_in(&theirs, "oA").await;
    assert_eq!(
        text(&ours.get(&id("oA")).await.unwrap()),
        first.access_token
    );
    let second = harness.log_in(&theirs, "oA").await;
    harness.advance(Duration::from_secs(61));
    assert_eq!(
        text(&ours.get(&id("oA")).await.unwrap()),
        second.access_token
    );
}

async fn a_revocation_acts_at_once_here_and_soon_elsewhere(harness: Harness) {
    let (ours, theirs) = (harness.process().await, harness.process().await);
    harness.log_in(&ours, "oA").await;
    theirs.get(&id("oA")).await.unwrap();
    ours.revoke(&id("oA")).await.unwrap();
    assert_eq!(
        ours.get(&id("oA")).await.unwrap_err().kind(),
        ErrorKind::LoginRequired
    );
    harness.advance(Duration::from_secs(61));
    assert_eq!(
        theirs.get(&id("oA")).await.unwrap_err().kind(),
        ErrorKind::LoginRequired
    );
}

async fn a_login_ends_a_cached_miss_at_once(harness: Harness) {
    let users = harness.process().await;
    for _ in 0..50 {
        assert!(users.get(&id("oA")).await.is_err());
        let pair = harness.log_in(&users, "oA").await;
        assert_eq!(
            text(&users.get(&id("oA")).await.unwrap()),
            pair.access_token
        );
        users.revoke(&id("oA")).await.unwrap();
    }
}
