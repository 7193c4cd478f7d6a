//! Tests of the account's token while Redis is down, and of its keys in the key layout.

use redis::Commands;
use tower_wechat::redis::Layout;
use tower_wechat::{ErrorKind, RedisStore};

use super::harness::{Harness, STABLE, secs};
use crate::support::eventually;
use crate::support::redis_server::RedisServer;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_valid_token_is_served_while_redis_is_away() {
    let harness = Harness::start().await;
    let mut server = RedisServer::start();
    let accounts = harness.builder(harness.redis(&server.url()).await).build();
    let tickets = harness.tickets(&accounts);
    tickets.prefetch().await.unwrap();
    let token = accounts.get().await.unwrap();
    server.kill();
    // The token is older than `cache_ttl` and then past its renewal point. The process serves the
    // token until its expiry.
    for span in [61, 6_600, 300] {
        harness.advance(secs(span));
        let again = accounts.get().await.unwrap();
        assert_eq!(again.access_token(), token.access_token());
    }
    assert_eq!(
        accounts.health().await.unwrap_err().kind(),
        ErrorKind::StoreUnavailable
    );
    harness.advance(secs(300));
    let error = accounts.get().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StoreUnavailable);
    server.run();
    eventually("a token after the store's return", secs(5), async || {
        accounts.get().await.is_ok()
    })
    .await;
    accounts.health().await.unwrap();
    assert_eq!(harness.sim.calls_to(STABLE), 2);
}

#[tokio::test]
async fn the_key_layout_keeps_the_account_in_keys_that_expire() {
    let harness = Harness::start().await;
    let server = RedisServer::start();
    let store = RedisStore::builder(&server.url())
        .layout(Layout::Keys)
        .clock(harness.clock.clone());
    let accounts = harness.builder(store.connect().await.unwrap()).build();
    let ticket = harness.tickets(&accounts).get().await.unwrap();
    let token = accounts.get().await.unwrap();
    let app = harness.sim.app_id();
    let mut redis = server.connection();
    for (name, secret) in [
        ("access_token", token.access_token()),
        ("jsapi_ticket", ticket.ticket()),
    ] {
        let key = format!("wechat:{app}:account:{name}");
        let value: String = redis.get(&key).unwrap();
        assert!(
            value.starts_with(&format!("{}#", secret.expose())),
            "{value}"
        );
        assert!(redis.ttl::<_, i64>(&key).unwrap() >= 3_600);
    }
    let leases: Vec<String> = redis.keys("*lease*").unwrap();
    assert!(leases.is_empty(), "{leases:?}");
}

#[tokio::test]
async fn an_unreadable_value_is_fetched_again() {
    let harness = Harness::start().await;
    let server = RedisServer::start();
    for garbage in ["", "no time", "#1", "t#x", "\u{1}\u{2}"] {
        let _: () = server
            .connection()
            .set("sys.wxAccessToken", garbage)
            .unwrap();
        let accounts = harness.builder(harness.redis(&server.url()).await).build();
        assert!(harness.alive(&accounts.get().await.unwrap()));
    }
    let _: () = server.connection().del("sys.wxAccessToken").unwrap();
    let _: () = server
        .connection()
        .hset("sys.wxAccessToken", "a", "b")
        .unwrap();
    let accounts = harness.builder(harness.redis(&server.url()).await).build();
    let error = accounts.get().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StoreUnavailable);
}
