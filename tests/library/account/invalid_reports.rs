//! Tests of reports of invalid tokens: one report causes one renewal, and many reports cause few.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tower_wechat::ErrorKind;
use tower_wechat::account::TokenMode;
use tower_wechat::simulator::Fault;

use super::harness::{CALL, Harness, PLAIN, STABLE, secs};
use crate::support::redis_server::RedisServer;

/// Forces a new token, as another service would, which revokes the current token.
async fn revoke(harness: &Harness) {
    harness.advance(secs(31));
    harness.wechat().stable_account_token(true).await.unwrap();
}

#[tokio::test]
async fn a_call_with_a_rejected_token_is_repeated_once() {
    let harness = Harness::start().await;
    let accounts = harness.accounts();
    harness.call(&accounts).await.unwrap();
    revoke(&harness).await;
    harness.sim.reset_calls();
    harness.call(&accounts).await.unwrap();
    assert_eq!(harness.sim.calls_to(CALL), 2);
    // The call in normal mode returned the new token, so that no forced call was necessary.
    assert_eq!(harness.sim.calls_to(STABLE), 1);
}

#[tokio::test]
async fn a_thousand_reports_of_one_token_renew_it_once() {
    for mode in [TokenMode::Stable, TokenMode::Plain] {
        let harness = Harness::start().await;
        let accounts = harness.builder(harness.memory()).mode(mode).build();
        let reported = accounts.get().await.unwrap();
        if mode == TokenMode::Stable {
            revoke(&harness).await;
        }
        harness.sim.reset_calls();
        let reports = (0..1_000).map(|_| {
            let (accounts, reported) = (accounts.clone(), reported.clone());
            tokio::spawn(async move { accounts.report_invalid(reported.access_token()).await })
        });
        let reports: Vec<_> = reports.collect();
        for report in reports {
            let current = report.await.unwrap().unwrap();
            assert_ne!(current.access_token(), reported.access_token());
            assert!(harness.alive(&current));
        }
        assert_eq!(
            harness.sim.calls_to(STABLE) + harness.sim.calls_to(PLAIN),
            1,
            "{mode:?}"
        );
    }
}

#[tokio::test]
async fn a_repeated_invalid_token_forces_a_rare_refresh() {
    let harness = Harness::start().await;
    let accounts = harness.accounts();
    let first = accounts.get().await.unwrap();
    harness.sim.reset_calls();
    let second = accounts.report_invalid(first.access_token()).await.unwrap();
    assert_ne!(second.access_token(), first.access_token());
    assert_eq!(harness.sim.calls_to(STABLE), 2, "normal mode, then forced");

    // Each new token is reported at once. For 30 seconds no further token is forced.
    let mut current = second;
    for _ in 0..50 {
        if let Ok(next) = accounts.report_invalid(current.access_token()).await {
            assert_eq!(next.access_token(), current.access_token());
            current = next;
        }
    }
    let calls = harness.sim.calls_to(STABLE);
    assert_eq!(calls, 3, "the normal mode once more, and no force");
    assert!(harness.alive(&current), "the valid token is kept");
    harness.advance(secs(31));
    let third = accounts
        .report_invalid(current.access_token())
        .await
        .unwrap();
    assert_ne!(third.access_token(), current.access_token());
}

#[tokio::test]
async fn a_call_that_always_fails_is_made_twice() {
    let harness = Harness::start().await;
    let accounts = harness.accounts();
    harness.sim.inject(Fault::on(CALL).errcode(40001));
    let error = harness.call(&accounts).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TokenRefused);
    assert_eq!(harness.sim.calls_to(CALL), 2);
    for _ in 0..20 {
        assert!(harness.call(&accounts).await.is_err());
    }
    assert!(
        harness.sim.calls_to(STABLE) <= 5,
        "{}",
        harness.sim.calls_to(STABLE)
    );
    harness.sim.clear_faults();
    harness.call(&accounts).await.unwrap();
}

#[tokio::test]
async fn a_report_of_an_old_token_renews_nothing() {
    let harness = Harness::start().await;
    let accounts = harness.accounts();
    let current = accounts.get().await.unwrap();
    harness.sim.reset_calls();
    for unknown in ["83_old", "", "#", "\u{1F600}"] {
        let answer = accounts.report_invalid(&unknown.into()).await.unwrap();
        assert_eq!(answer.access_token(), current.access_token());
    }
    assert_eq!(harness.sim.calls_to(STABLE), 0);
}

#[tokio::test]
async fn processes_count_forced_refreshes_together() {
    let server = RedisServer::start();
    for redis in [false, true] {
        let harness = Harness::start().await;
        let memory = harness.memory();
        let process = async || match redis {
            false => harness.builder(memory.clone()).build(),
            true => harness.builder(harness.redis(&server.url()).await).build(),
        };
        let (one, two) = (process().await, process().await);
        let first = one.get().await.unwrap();
        harness.sim.reset_calls();
        let second = one.report_invalid(first.access_token()).await.unwrap();
        assert_eq!(harness.sim.calls_to(STABLE), 2);
        assert_ne!(second.access_token(), first.access_token());
        let same = two.report_invalid(second.access_token()).await.unwrap();
        assert_eq!(same.access_token(), second.access_token());
        assert_eq!(
            harness.sim.calls_to(STABLE),
            3,
            "no force so soon after the other's"
        );
        if redis {
            let keys: Vec<String> = redis::cmd("KEYS")
                .arg("*allowance*")
                .query(&mut server.connection())
                .unwrap();
            assert_eq!(keys.len(), 2, "{keys:?}");
            for key in keys {
                let mut ttl = redis::cmd("PTTL");
                let ttl: i64 = ttl.arg(key).query(&mut server.connection()).unwrap();
                assert!(ttl > 0, "the key of the quota expires");
            }
        }
    }
}

#[tokio::test]
async fn the_normal_mode_finds_a_lost_forced_refresh() {
    let harness = Harness::start().await;
    let accounts = harness.accounts();
    let reported = accounts.get().await.unwrap();
    harness.sim.reset_calls();
    // The call in normal mode succeeds. The forced call succeeds too, and its reply is lost.
    let one_call = || Fault::on(STABLE).times(1);
    harness
        .sim
        .inject(one_call().delay(std::time::Duration::from_millis(1)));
    harness.sim.inject(one_call().lose_reply());
    let current = accounts
        .report_invalid(reported.access_token())
        .await
        .unwrap();
    assert_ne!(current.access_token(), reported.access_token());
    assert!(harness.alive(&current));
    assert_eq!(harness.sim.calls_to(STABLE), 3, "normal, forced, normal");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reports_make_no_other_caller_fail() {
    for errcode in [45009, -1, 40030] {
        let harness = Harness::start().await;
        let brief = std::time::Duration::from_millis(500);
        let accounts = harness
            .builder(harness.memory())
            .load_timeout(brief)
            .lease_duration(brief)
            .build();
        let token = accounts.get().await.unwrap();
        harness.sim.inject(Fault::on(STABLE).errcode(errcode));
        let failed = Arc::new(AtomicU32::new(0));
        let mut reporters = tokio::task::JoinSet::new();
        for _ in 0..4 {
            let (accounts, token, failed) = (accounts.clone(), token.clone(), failed.clone());
            reporters.spawn(async move {
                loop {
                    let outcome = accounts.report_invalid(token.access_token()).await;
                    failed.fetch_add(u32::from(outcome.is_err()), Ordering::Relaxed);
                    tokio::task::yield_now().await;
                }
            });
        }
        let mut readers = tokio::task::JoinSet::new();
        for _ in 0..10 {
            let (accounts, failed) = (accounts.clone(), failed.clone());
            readers.spawn(async move {
                let (mut reads, mut errors) = (0, Vec::new());
                while reads < 1_000 || failed.load(Ordering::Relaxed) < 40 {
                    errors.extend(accounts.get().await.err());
                    reads += 1;
                    tokio::task::yield_now().await;
                }
                errors
            });
        }
        let errors = readers.join_all().await.concat();
        assert_eq!(errors.len(), 0, "{errcode}: such as {}", errors[0]);
    }
}
