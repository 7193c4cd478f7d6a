//! Tests of a token that Redis has lost and a process still caches, and of a token that WeChat
//! keeps rejecting.

use std::time::{Duration, Instant};

use tower_wechat::simulator::Fault;
use tower_wechat::{Error, ErrorKind};

use super::harness::{CALL, Harness, STABLE, secs};
use crate::support::eventually;
use crate::support::redis_server::RedisServer;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flush_delays_no_request_and_costs_one_fetch() {
    let harness = Harness::start().await;
    let server = RedisServer::start();
    let accounts = harness.builder(harness.redis(&server.url()).await).build();
    let token = accounts.get().await.unwrap();
    let () = redis::cmd("FLUSHALL")
        .query(&mut server.connection())
        .unwrap();
    harness.sim.inject(Fault::on(STABLE).errcode(40164));
    harness.advance(secs(61));
    let again = accounts.get().await.unwrap();
    assert_eq!(
        again.access_token(),
        token.access_token(),
        "the valid token is served, although WeChat rejects the account"
    );
    harness.sim.clear_faults();
    harness.clock.advance(secs(400));
    harness.sim.inject(
        Fault::on(STABLE)
            .delay(Duration::from_millis(1_700))
            .times(1),
    );
    let before = harness.sim.calls_to(STABLE);
    // The process may notice WeChat's rejection late, and then pauses its calls. The loop advances
    // the clock until the pause has ended.
    eventually("the account is asked for again", secs(8), async || {
        let began = Instant::now();
        accounts.get().await.unwrap();
        assert!(
            began.elapsed() < Duration::from_millis(1_500),
            "{:?}",
            began.elapsed()
        );
        let asked = harness.sim.calls_to(STABLE) > before;
        if !asked {
            harness.clock.advance(secs(31));
        }
        asked
    })
    .await;
    eventually("the store has a token again", secs(8), async || {
        let stored: Option<String> = redis::cmd("GET")
            .arg("sys.wxAccessToken")
            .query(&mut server.connection())
            .unwrap();
        stored.is_some()
    })
    .await;
    assert_eq!(harness.sim.calls_to(STABLE), before + 1);
}

#[tokio::test]
async fn a_rejection_without_a_new_token_is_returned() {
    let harness = Harness::start().await;
    let accounts = harness.accounts();
    let wechat = harness.wechat();
    harness.sim.inject(Fault::on(CALL).errcode(40001));
    for _ in 0..6 {
        let called = accounts.with_token(|token| {
            let wechat = wechat.clone();
            async move {
                let path = "cgi-bin/get_api_domain_ip";
                wechat
                    .get_json::<serde_json::Value>(path, token.access_token(), &[])
                    .await
            }
        });
        let error: Error = called.await.unwrap_err();
        assert_eq!(
            (error.kind(), error.errcode()),
            (ErrorKind::TokenRefused, Some(40001))
        );
    }
}
