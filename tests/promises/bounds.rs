//! Tests of extreme settings, slow stores and a slow WeChat.

use std::time::{Duration, Instant};

use tower_wechat::redis::RedisStoreBuilder;
use tower_wechat::simulator::Fault;
use tower_wechat::{ErrorKind, UserTokens, WechatClient};

use crate::harness::{Harness, REFRESH, id, text};
use crate::support::eventually;

crate::for_each_store!(
    extreme_settings_work,
    a_slow_store_is_reported_as_the_store,
    expired_users_are_renewed_before_stale_ones,
);

async fn extreme_settings_work(harness: Harness) {
    let (least, most) = (Duration::ZERO, Duration::MAX);
    for (number, span) in [least, most].into_iter().enumerate() {
        for capacity in [0, usize::MAX] {
            let users = harness
                .process_with(|builder| {
                    builder
                        .lease_duration(span)
                        .cache_ttl(span)
                        .renew_margin(span)
                        .cache_capacity(capacity)
                        .load_timeout(most)
                })
                .await;
            let openid = format!("oUser{number}-{}", capacity == 0);
            harness.expired(&users, &[&openid]).await;
            let token = users.get(&id(&openid)).await.unwrap();
            assert_eq!(
                text(&token),
                harness.live_token(&openid),
                "{span:?} {capacity}"
            );
            users.revoke(&id(&openid)).await.unwrap();
            assert!(users.shutdown(most).await);
        }
    }
    let client = WechatClient::builder(harness.simulator.app_id(), harness.simulator.app_secret())
        .api_url(harness.simulator.url())
        .connect_timeout(most)
        .timeout(most)
        .total_timeout(most)
        .build()
        .unwrap();
    client.account_token().await.unwrap();
    if let Some(redis) = &harness.redis {
        let timeout = |builder: RedisStoreBuilder| builder.command_timeout(most);
        let store = harness.redis_store_at(&redis.url(), timeout).await;
        UserTokens::new(client, store).health().await.unwrap();
    }
    // A load timeout of zero does not reject a request whose token is cached.
    let users = harness
        .process_with(|builder| builder.load_timeout(least))
        .await;
    harness.log_in(&users, "oA").await;
    users.get(&id("oA")).await.unwrap();
}

async fn a_slow_store_is_reported_as_the_store(harness: Harness) {
    let Some(redis) = &harness.redis else {
        return;
    };
    let users = harness
        .process_with(|builder| builder.load_timeout(Duration::from_millis(300)))
        .await;
    harness.expired(&users, &["oA", "oB"]).await;
    redis.freeze(true);
    let alone = users.get(&id("oA")).await.unwrap_err();
    // A report waits for the store too, and gets the same kind of error as a request.
    let in_flight = users
        .report_invalid(&id("oB"), &"83_old".into())
        .await
        .unwrap_err();
    redis.freeze(false);
    for error in [alone, in_flight] {
        assert_eq!(error.kind(), ErrorKind::StoreUnavailable, "{error}");
    }
    // If WeChat does not respond in time, the error names WeChat and not the store.
    eventually("Redis is back", Duration::from_secs(10), async || {
        users.health().await.is_ok()
    })
    .await;
    harness.expired(&users, &["oC"]).await;
    harness.simulator.inject(Fault::on(REFRESH).hang());
    let error = users.get(&id("oC")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WechatUnavailable, "{error}");
}

async fn expired_users_are_renewed_before_stale_ones(harness: Harness) {
    let users = harness.process().await;
    harness.log_in(&users, "oExpired").await;
    harness.advance(Duration::from_secs(1_000));
    let openids: Vec<String> = (0..1_000).map(|n| format!("oUser{n}")).collect();
    let named: Vec<&str> = openids.iter().map(String::as_str).collect();
    harness.stale(&users, &named).await;
    harness
        .simulator
        .inject(Fault::on(REFRESH).delay(Duration::from_millis(3_000)));
    let mut running = tokio::task::JoinSet::new();
    for openid in openids {
        let users = users.clone();
        running.spawn(async move { users.get(&id(&openid)).await.map(drop) });
    }
    for served in running.join_all().await {
        served.unwrap();
    }
    let began = Instant::now();
    let token = users.get(&id("oExpired")).await.unwrap();
    assert_eq!(text(&token), harness.live_token("oExpired"));
    assert!(began.elapsed() < Duration::from_millis(4_900));
}
