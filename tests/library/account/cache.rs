//! Tests of the maximum time for which a process caches a token that another service maintains.

use redis::Commands;
use tower_wechat::AccountTokens;
use tower_wechat::account::{TokenCenter, TokenCenterClient, TokenMode};
use tower_wechat::redis::ExternalToken;

use super::harness::{Harness, secs};
use crate::support::eventually;
use crate::support::redis_server::RedisServer;

/// Seconds after which the former token has expired, 301. With `cgi-bin/token`, the former token
/// stays valid for five minutes after WeChat has issued the next one.
const PREVIOUS_EXPIRED: u64 = 301;

#[tokio::test]
async fn a_follower_gets_a_replaced_token_in_time() {
    let harness = Harness::start().await;
    let server = RedisServer::start();
    let key = format!("wx:access_token:{}", harness.sim.app_id());
    let owner = harness.wechat();
    let write = async || {
        let token = owner.account_token().await.unwrap().access_token;
        let _: () = server
            .connection()
            .set_ex(&key, token.expose(), 7_000)
            .unwrap();
    };
    let store = harness.redis(&server.url()).await;
    let accounts = AccountTokens::builder(
        ExternalToken::wx_java().source(harness.wechat(), store.clone()),
        store,
    )
    .clock(harness.clock.clone())
    .cache_ttl(secs(3_600))
    .build();
    write().await;
    accounts.get().await.unwrap();
    write().await;
    harness.advance(secs(PREVIOUS_EXPIRED));
    assert!(harness.alive(&accounts.get().await.unwrap()));
}

#[tokio::test]
async fn a_center_client_gets_a_replaced_token_in_time() {
    let harness = Harness::start().await;
    let center_accounts = harness
        .builder(harness.memory())
        .mode(TokenMode::Plain)
        .cache_ttl(secs(0))
        .build();
    let center = TokenCenter::new(center_accounts.clone(), ["secret"]).unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/center", listener.local_addr().unwrap());
    let app = axum::Router::new().nest_service("/center", center);
    tokio::spawn(async move { axum::serve(listener, app).await });

    let source = TokenCenterClient::new(harness.sim.app_id(), url, "secret").unwrap();
    let accounts = AccountTokens::builder(source, harness.memory())
        .clock(harness.clock.clone())
        .cache_ttl(secs(3_600))
        .build();
    let first = accounts.get().await.unwrap();
    let next = center_accounts.report_invalid(first.access_token()).await;
    let next = next.unwrap();
    assert_ne!(next.access_token(), first.access_token());
    harness.advance(secs(PREVIOUS_EXPIRED / 2));
    assert!(harness.alive(&accounts.get().await.unwrap()));
    eventually("the client has the new token", secs(2), async || {
        accounts.get().await.unwrap().access_token() == next.access_token()
    })
    .await;
}
