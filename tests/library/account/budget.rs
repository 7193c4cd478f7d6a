//! The day's budget.

use std::time::Duration;

use tower_wechat::simulator::Fault;
use tower_wechat::{ErrorKind, TokenMode};

use super::rig::{PLAIN, Rig, secs};
use crate::support::eventually;
use crate::support::redis_server::RedisServer;

#[tokio::test]
async fn a_loop_of_refusals_cannot_spend_the_day() {
    let rig = Rig::start().await;
    let accounts = rig
        .builder(rig.memory())
        .mode(TokenMode::Plain)
        .daily_quota(10)
        .build();
    let mut current = accounts.get().await.unwrap();
    for _ in 0..200 {
        rig.advance(secs(16));
        if let Ok(next) = accounts.report_invalid(current.access_token()).await {
            current = next;
        }
    }
    assert!(rig.sim.calls_to(PLAIN) <= 6, "{}", rig.sim.calls_to(PLAIN));
    // The renewal that is due still finds a budget.
    let before = rig.sim.calls_to(PLAIN);
    rig.advance(secs(7_200));
    let renewed = accounts.get().await.unwrap();
    assert!(rig.alive(&renewed));
    assert_eq!(rig.sim.calls_to(PLAIN), before + 1);
}

#[tokio::test]
async fn processes_count_replacements_together() {
    let rig = Rig::start().await;
    let store = rig.memory();
    let process = || {
        let builder = rig.builder(store.clone()).mode(TokenMode::Plain);
        builder.cache_ttl(secs(0)).build()
    };
    let processes: Vec<_> = (0..6).map(|_| process()).collect();
    let first = processes[0].get().await.unwrap();
    rig.sim.reset_calls();
    for process in &processes {
        let current = process.get().await.unwrap();
        let _ = process.report_invalid(current.access_token()).await;
        rig.advance(secs(4));
    }
    assert_eq!(rig.sim.calls_to(PLAIN), 1, "one replacement");
    // Half a minute later the next one is due.
    rig.advance(secs(31));
    let current = processes[5].get().await.unwrap();
    assert_ne!(current.access_token(), first.access_token());
    let next = processes[5].report_invalid(current.access_token()).await;
    assert_ne!(next.unwrap().access_token(), current.access_token());
}

#[tokio::test]
async fn a_flush_of_redis_gives_no_budget_back() {
    let rig = Rig::start().await;
    let server = RedisServer::start();
    let accounts = rig
        .builder(rig.redis(&server.url()).await)
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
        // What lives is served at once; the next one is fetched behind it.
        accounts.get().await.unwrap();
        eventually("it is fetched", secs(5), async || {
            rig.sim.calls_to(PLAIN) == fetches && is_stored()
        })
        .await;
        flush();
    }
    for _ in 0..20 {
        assert!(rig.alive(&accounts.get().await.unwrap()));
    }
    assert_eq!(rig.sim.calls_to(PLAIN), 3);
    // Nothing is left to hand out, and nothing to ask with.
    let mut refused = None;
    eventually("the last one is served, and refused", secs(5), async || {
        let current = accounts.get().await.unwrap();
        refused = accounts.report_invalid(current.access_token()).await.err();
        refused.is_some()
    })
    .await;
    let error = refused.unwrap();
    assert_eq!(error.kind(), ErrorKind::WechatConfig);
    assert!(error.retry_after().is_some());
    rig.advance(secs(24 * 3_600));
    accounts.get().await.unwrap();
}

#[tokio::test]
async fn a_flush_in_mid_run_costs_one_fetch_at_most() {
    let rig = Rig::start().await;
    let server = RedisServer::start();
    let accounts = rig.builder(rig.redis(&server.url()).await).build();
    let token = accounts.get().await.unwrap();
    redis::cmd("FLUSHALL")
        .query::<()>(&mut server.connection())
        .unwrap();
    for _ in 0..5 {
        rig.advance(secs(61));
        let again = accounts.get().await.unwrap();
        assert_eq!(again.access_token(), token.access_token());
    }
    eventually("it is fetched", secs(5), async || {
        rig.sim.calls_to(super::rig::STABLE) == 2
    })
    .await;
}

#[tokio::test]
async fn failures_spend_nothing() {
    let rig = Rig::start().await;
    let builder = rig.builder(rig.memory()).mode(TokenMode::Plain);
    let accounts = builder.daily_quota(2).build();
    rig.settings(|settings| settings.secret_frozen = true);
    for _ in 0..10 {
        assert!(accounts.get().await.is_err());
        rig.advance(secs(31));
    }
    assert!(rig.sim.calls_to(PLAIN) >= 10);
    rig.settings(|settings| settings.secret_frozen = false);
    let refused = accounts.get().await.unwrap();

    // A report whose call fails once is heard at the next try, and not put off for 30 seconds.
    rig.sim.inject(Fault::on(PLAIN).errcode(-1).times(1));
    let next = accounts.report_invalid(refused.access_token()).await;
    assert_ne!(next.unwrap().access_token(), refused.access_token());
}

#[tokio::test]
async fn calls_that_hang_spend_nothing() {
    let rig = Rig::start().await;
    let builder = rig.builder(rig.memory()).mode(TokenMode::Plain);
    // A renewal has 400 ms, less than the client waits for a reply.
    let builder = builder
        .lease_duration(Duration::from_millis(500))
        .load_timeout(secs(1));
    let accounts = builder.daily_quota(2).build();
    rig.sim.inject(Fault::on(PLAIN).hang());
    for _ in 0..3 {
        let error = accounts.get().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WechatUnavailable, "{error}");
        rig.advance(secs(61));
    }
    assert!(rig.sim.calls_to(PLAIN) >= 3);
    rig.sim.clear_faults();
    let token = accounts.get().await.unwrap();
    assert!(rig.alive(&token));
}
