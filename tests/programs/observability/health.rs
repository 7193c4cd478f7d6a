//! Tests of `health()` as the demo's `/healthz` shows it.

use std::time::Duration;

use tower_wechat::simulator::Fault;

use crate::support::eventually;
use crate::support::harness::{Harness, Layout};
use crate::support::http_client::Asked;

const LIMIT: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn healthz_shows_the_store_and_the_account_token() {
    let mut harness = Harness::new(Layout::Hashes).await;
    harness.wechat.inject(Fault::on("*").errcode(-1));
    let demo = harness.demo().await;
    let healthz = async || demo.ask(Asked::get("/healthz")).await;
    // The demo is healthy without a token of the account, because it can still serve users.
    let without = healthz().await;
    assert_eq!(without.status, 200, "{without:?}");
    assert_eq!(without.field("status"), "ok");
    assert_eq!(without.field("store"), "ok");
    assert_eq!(without.field("account_token"), "unavailable");
    assert!(
        without
            .json()
            .get("account_token_expires_in_secs")
            .is_none()
    );

    harness.wechat.clear_faults();
    eventually("the account's token", LIMIT, async || {
        healthz().await.field("account_token") == "alive"
    })
    .await;
    let with = healthz().await.json();
    let left = with["account_token_expires_in_secs"].as_u64().unwrap();
    assert!((6_000..=7_200).contains(&left), "{with}");

    // While Redis is down, the demo uses the account token in its cache.
    harness.redis.kill();
    eventually("503", LIMIT, async || healthz().await.status == 503).await;
    let away = healthz().await;
    assert_eq!(away.field("status"), "unavailable", "{away:?}");
    assert_eq!(away.field("store"), "store_unavailable", "{away:?}");
    assert_eq!(away.field("account_token"), "alive", "{away:?}");

    harness.redis.run();
    eventually("200", LIMIT, async || healthz().await.status == 200).await;
}
