//! Tests of the daily quota of account tokens.

use std::time::Duration;

use tower_wechat::ErrorKind;
use tower_wechat::account::TokenMode;
use tower_wechat::simulator::Fault;

use super::harness::{Harness, PLAIN, secs};
use crate::support::eventually;
use crate::support::redis_server::RedisServer;

#[tokio::test]
async fn repeated_reports_do_not_spend_the_daily_quota() {
    let harness = Harness::start().await;
    harness.advance_to_midnight();
    let accounts = harness
        .builder(harness.memory())
        .mode(TokenMode::Plain)
        .daily_quota(10)
        .build();
    let mut current = accounts.get().await.unwrap();
    for _ in 0..200 {
        harness.advance(secs(16));
        if let Ok(next) = accounts.report_invalid(current.access_token()).await {
            current = next;
        }
    }
    assert!(
        harness.sim.calls_to(PLAIN) <= 6,
        "{}",
        harness.sim.calls_to(PLAIN)
    );
    // 200 reports have not used up the quota, so the token is still renewed when it is due.
    let before = harness.sim.calls_to(PLAIN);
    harness.advance(secs(7_200));
    let renewed = accounts.get().await.unwrap();
    assert!(harness.alive(&renewed));
    assert_eq!(harness.sim.calls_to(PLAIN), before + 1);
}

#[tokio::test]
async fn processes_share_the_limit_of_replacements() {
    let harness = Harness::start().await;
    let store = harness.memory();
    let process = || {
        let builder = harness.builder(store.clone()).mode(TokenMode::Plain);
        builder.cache_ttl(secs(0)).build()
    };
    let processes: Vec<_> = (0..6).map(|_| process()).collect();
    let first = processes[0].get().await.unwrap();
    harness.sim.reset_calls();
    for process in &processes {
        let current = process.get().await.unwrap();
        let _ = process.report_invalid(current.access_token()).await;
        harness.advance(secs(4));
    }
    assert_eq!(harness.sim.calls_to(PLAIN), 1, "one replacement");
    // After 30 s, a report may cause another replacement.
    harness.advance(secs(31));
    let current = processes[5].get().await.unwrap();
    assert_ne!(current.access_token(), first.access_token());
    let next = processes[5].report_invalid(current.access_token()).await;
    assert_ne!(next.unwrap().access_token(), current.access_token());
}

#[tokio::test]
async fn a_flush_of_redis_does_not_reset_the_quota() {
    let harness = Harness::start().await;
    harness.advance_to_midnight();
    let server = RedisServer::start();
    let accounts = harness
        .builder(harness.redis(&server.url()).await)
        .mode(TokenMode::Plain)
        .daily_quota(3)
        .cache_ttl(secs(0))
        .build();
    let flush = || {
        redis::cmd("FLUSHALL")
            .query::<()>(&mut server.connection())
            .unwrap();
    };
    let is_stored = || {
        let mut read = redis::cmd("EXISTS");
        read.arg("sys.wxAccessToken");
        read.query::<bool>(&mut server.connection()).unwrap()
    };
    for fetches in 1..=3 {
        // The valid token is served at once, and the next one is fetched in the background.
        accounts.get().await.unwrap();
        eventually("it is fetched", secs(5), async || {
            harness.sim.calls_to(PLAIN) == fetches && is_stored()
        })
        .await;
        flush();
    }
    for _ in 0..20 {
        assert!(harness.alive(&accounts.get().await.unwrap()));
    }
    assert_eq!(harness.sim.calls_to(PLAIN), 3);
    // The quota allows no fourth call. A report of the cached token is rejected.
    let mut rejected = None;
    eventually(
        "the last token is served, and its report is rejected",
        secs(5),
        async || {
            let current = accounts.get().await.unwrap();
            rejected = accounts.report_invalid(current.access_token()).await.err();
            rejected.is_some()
        },
    )
    .await;
    let error = rejected.unwrap();
    assert_eq!(error.kind(), ErrorKind::WechatConfig);
    assert!(error.retry_after().is_some());
    harness.advance(secs(24 * 3_600));
    accounts.get().await.unwrap();
}

#[tokio::test]
async fn a_flush_during_a_run_costs_one_fetch_at_most() {
    let harness = Harness::start().await;
    let server = RedisServer::start();
    let accounts = harness.builder(harness.redis(&server.url()).await).build();
    let token = accounts.get().await.unwrap();
    redis::cmd("FLUSHALL")
        .query::<()>(&mut server.connection())
        .unwrap();
    for _ in 0..5 {
        harness.advance(secs(61));
        let again = accounts.get().await.unwrap();
        assert_eq!(again.access_token(), token.access_token());
    }
    eventually("it is fetched", secs(5), async || {
        harness.sim.calls_to(super::harness::STABLE) == 2
    })
    .await;
}

#[tokio::test]
async fn failed_calls_do_not_count_against_the_quota() {
    let harness = Harness::start().await;
    harness.advance_to_midnight();
    let builder = harness.builder(harness.memory()).mode(TokenMode::Plain);
    let accounts = builder.daily_quota(2).build();
    harness.settings(|settings| settings.secret_frozen = true);
    for _ in 0..10 {
        assert!(accounts.get().await.is_err());
        harness.advance(secs(31));
    }
    assert!(harness.sim.calls_to(PLAIN) >= 10);
    harness.settings(|settings| settings.secret_frozen = false);
    let rejected = accounts.get().await.unwrap();

    // The first call fails and is retried at once, so that the report succeeds.
    harness.sim.inject(Fault::on(PLAIN).errcode(-1).times(1));
    let next = accounts.report_invalid(rejected.access_token()).await;
    assert_ne!(next.unwrap().access_token(), rejected.access_token());
}

#[tokio::test]
async fn hanging_calls_do_not_count_against_the_quota() {
    let harness = Harness::start().await;
    harness.advance_to_midnight();
    let builder = harness.builder(harness.memory()).mode(TokenMode::Plain);
    // A renewal ends after 400 ms, before the client's own timeout.
    let builder = builder
        .lease_duration(Duration::from_millis(500))
        .load_timeout(secs(1));
    let accounts = builder.daily_quota(2).build();
    harness.sim.inject(Fault::on(PLAIN).hang());
    for _ in 0..3 {
        let error = accounts.get().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WechatUnavailable, "{error}");
        harness.advance(secs(61));
    }
    assert!(harness.sim.calls_to(PLAIN) >= 3);
    harness.sim.clear_faults();
    let token = accounts.get().await.unwrap();
    assert!(harness.alive(&token));
}
