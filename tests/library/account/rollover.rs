//! Tests of the rollover: no request waits for the renewal, and none gets a revoked token.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::RwLock;
use tower_wechat::account::TokenMode;
use tower_wechat::credential::Freshness;
use tower_wechat::simulator::Fault;

use super::harness::{CALL, Harness, PLAIN, STABLE, secs};
use crate::support::eventually;
use crate::support::redis_server::RedisServer;

/// Requests and checks the token from nine tasks until `during` ends. Returns the number of
/// requests and the longest wait.
async fn under_load(
    harness: &Arc<Harness>,
    fleet: &[tower_wechat::AccountTokens],
    time: &Arc<RwLock<()>>,
    during: impl Future<Output = ()>,
) -> (usize, Duration) {
    let over = Arc::new(AtomicBool::new(false));
    let workers: Vec<_> = (0..9)
        .map(|number| {
            let accounts = fleet[number % fleet.len()].clone();
            let (harness, over, time) = (harness.clone(), over.clone(), time.clone());
            tokio::spawn(async move {
                let (mut calls, mut longest) = (0, Duration::ZERO);
                while !over.load(Ordering::Relaxed) {
                    // The guard keeps the clocks from moving during a request, because WeChat's
                    // clock moves before that of the process.
                    let stands = time.read().await;
                    let asked = Instant::now();
                    let token = accounts.get().await.unwrap();
                    longest = longest.max(asked.elapsed());
                    assert!(harness.alive(&token), "an expired token was served");
                    drop(stands);
                    calls += 1;
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                (calls, longest)
            })
        })
        .collect();
    during.await;
    over.store(true, Ordering::Relaxed);
    let (mut calls, mut longest) = (0, Duration::ZERO);
    for worker in workers {
        let (its_calls, its_longest) = worker.await.unwrap();
        calls += its_calls;
        longest = longest.max(its_longest);
    }
    (calls, longest)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_waits_at_a_rollover() {
    for (mode, path, margin) in [
        (TokenMode::Stable, STABLE, 300),
        (TokenMode::Plain, PLAIN, 900),
    ] {
        let harness = Arc::new(Harness::start().await);
        let server = RedisServer::start();
        let mut fleet = Vec::new();
        for _ in 0..3 {
            let store = harness.redis(&server.url()).await;
            let accounts = harness.builder(store).mode(mode).build();
            accounts.prefetch().await.unwrap();
            fleet.push(accounts);
        }
        let accounts = &fleet[0];
        let first = accounts.get().await.unwrap();
        // WeChat takes 1.5 s, so that the longest wait would show a request that waited for the
        // renewal.
        harness
            .sim
            .inject(Fault::on(path).delay(Duration::from_millis(1_500)));
        let time = Arc::new(RwLock::new(()));
        let advance = async |span| {
            let _moving = time.write().await;
            harness.advance(secs(span));
        };
        let rollover = async {
            advance(7_200 - margin + 15).await;
            eventually("renewed", secs(10), async || {
                accounts.get().await.unwrap().access_token() != first.access_token()
            })
            .await;
            // Advances past the expiry of the old token. Only the new token is valid then.
            advance(margin).await;
            tokio::time::sleep(Duration::from_millis(200)).await;
        };
        let (calls, longest) = under_load(&harness, &fleet, &time, rollover).await;
        assert!(calls > 100, "{calls}");
        assert!(
            longest < Duration::from_millis(900),
            "{mode:?}: waited {longest:?}"
        );
        assert_eq!(harness.sim.calls_to(path), 2, "{mode:?}");
        for accounts in fleet {
            assert!(accounts.shutdown(secs(5)).await);
        }
    }
}

#[tokio::test]
async fn an_idle_process_renews_until_its_handle_is_dropped() {
    let harness = Harness::start().await;
    let accounts = harness.accounts();
    accounts.prefetch().await.unwrap();
    harness.advance(secs(7_200 - 280));
    eventually("the idle process renews", secs(10), async || {
        harness.sim.calls_to(STABLE) == 2
    })
    .await;
    // WeChat has received the call, and its reply may arrive later.
    eventually("the new token is served", secs(10), async || {
        let token = accounts.get().await.unwrap();
        token.lifetime().freshness(harness.clock.now()) == Freshness::Fresh
    })
    .await;
    assert_eq!(harness.sim.calls_to(STABLE), 2);
    drop(accounts);
    harness.advance(secs(7_200));
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert_eq!(
        harness.sim.calls_to(STABLE),
        2,
        "no token is prefetched any more"
    );
}

#[tokio::test]
async fn requests_wait_if_the_token_has_expired() {
    let harness = Harness::start().await;
    let accounts = harness.accounts();
    harness.call(&accounts).await.unwrap();
    harness.advance(secs(8_000));
    harness.call(&accounts).await.unwrap();
    assert_eq!(
        (harness.sim.calls_to(STABLE), harness.sim.calls_to(CALL)),
        (2, 2)
    );
}

#[tokio::test]
async fn the_stored_form_is_the_published_one() {
    let harness = Harness::start().await;
    let server = RedisServer::start();
    let accounts = harness.builder(harness.redis(&server.url()).await).build();
    let tickets = harness.tickets(&accounts);
    let before = harness.clock.now();
    let ticket = tickets.get().await.unwrap();
    let token = accounts.get().await.unwrap();
    let stored = |key: &str| -> (String, i64) {
        let value: String = redis::cmd("GET")
            .arg(key)
            .query(&mut server.connection())
            .unwrap();
        let (secret, at) = value.split_once('#').unwrap();
        (secret.to_owned(), at.parse().unwrap())
    };
    let (secret, at) = stored("sys.wxAccessToken");
    assert_eq!(secret, token.access_token().expose());
    let fresh_for = at - before.as_millis();
    assert!((6_890_000..=6_905_000).contains(&fresh_for), "{fresh_for}");
    let (secret, at) = stored("sys.wxJsapiTicket");
    assert_eq!(secret, ticket.ticket().expose());
    assert!(at - before.as_millis() <= 3_600_000);
}
