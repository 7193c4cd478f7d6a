//! Tests of errors that an operator must fix: a frozen secret or account, an address outside the
//! whitelist, a spent quota. Calls are limited, and succeed after the repair without a restart.

use std::time::Instant;

use tower_wechat::account::TokenMode;
use tower_wechat::simulator::Fault;
use tower_wechat::{AccountTokens, ErrorKind, WechatClient};

use super::harness::{Harness, PLAIN, STABLE, secs};

/// Checks that the error names the remedy, and that 51 requests cause one call. After `repair` and
/// a pause, the next call succeeds.
async fn pauses_and_recovers(
    harness: &Harness,
    accounts: &AccountTokens,
    errcode: i64,
    remedy: &str,
    repair: impl FnOnce(),
) {
    let started = Instant::now();
    let error = accounts.prefetch().await.unwrap_err();
    assert!(started.elapsed() < secs(5), "the start does not hang");
    assert_eq!(error.kind(), ErrorKind::WechatConfig);
    assert_eq!(error.errcode(), Some(errcode));
    assert!(error.to_string().contains(remedy), "{error}");
    assert!(!error.to_string().contains(harness.sim.app_secret()));
    let calls = || harness.sim.calls_to(STABLE) + harness.sim.calls_to(PLAIN);
    for _ in 0..50 {
        let error = accounts.get().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WechatConfig);
        assert!(error.retry_after().is_some());
    }
    assert_eq!(calls(), 1, "one call, then a pause");
    repair();
    harness.advance(secs(61));
    let token = accounts.get().await.unwrap();
    assert!(harness.alive(&token));
    accounts.health().await.unwrap();
}

#[tokio::test]
async fn an_ip_outside_the_whitelist_is_reported() {
    let harness = Harness::start().await;
    harness.settings(|settings| settings.ip_whitelist = Some(vec!["203.0.113.9".parse().unwrap()]));
    let repair = || harness.settings(|settings| settings.ip_whitelist = None);
    pauses_and_recovers(&harness, &harness.accounts(), 40164, "127.0.0.1", repair).await;
}

#[tokio::test]
async fn frozen_secrets_and_accounts_are_reported() {
    let harness = Harness::start().await;
    harness.settings(|settings| settings.secret_frozen = true);
    let repair = || harness.settings(|settings| settings.secret_frozen = false);
    pauses_and_recovers(&harness, &harness.accounts(), 40243, "unfreeze", repair).await;
    let harness = Harness::start().await;
    harness.settings(|settings| settings.account_frozen = true);
    let repair = || harness.settings(|settings| settings.account_frozen = false);
    pauses_and_recovers(&harness, &harness.accounts(), 50007, "frozen", repair).await;
}

#[tokio::test]
async fn a_spent_quota_is_reported() {
    let harness = Harness::start().await;
    harness.settings(|settings| settings.token_daily_quota = 0);
    let accounts = harness
        .builder(harness.memory())
        .mode(TokenMode::Plain)
        .build();
    let repair = || harness.settings(|settings| settings.token_daily_quota = 2_000);
    pauses_and_recovers(&harness, &accounts, 45009, "midnight", repair).await;
    let harness = Harness::start().await;
    harness.settings(|settings| settings.stable_token_daily_quota = 0);
    let repair = || harness.settings(|settings| settings.stable_token_daily_quota = 500_000);
    pauses_and_recovers(&harness, &harness.accounts(), 45009, "midnight", repair).await;
}

#[tokio::test]
async fn wrong_secrets_and_appids_are_reported() {
    for (app_id, secret, remedy) in [
        (None, "f".repeat(32), "AppSecret"),
        (Some("wxwrong"), "0".repeat(32), "AppID"),
    ] {
        let harness = Harness::start().await;
        let app_id = app_id.unwrap_or(harness.sim.app_id());
        let wechat = WechatClient::builder(app_id, secret)
            .api_url(harness.sim.url())
            .build()
            .unwrap();
        let accounts = AccountTokens::new(wechat, harness.memory());
        let error = accounts.prefetch().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WechatConfig);
        assert!(error.to_string().contains(remedy), "{error}");
        let tickets = harness.tickets(&accounts);
        let error = tickets
            .js_config("https://h5.example.com/")
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WechatConfig);
        assert_eq!(harness.sim.calls_to(STABLE), 1);
    }
}

#[tokio::test]
async fn an_unresponsive_wechat_does_not_block_the_start() {
    let harness = Harness::start().await;
    harness.sim.inject(Fault::on(STABLE).hang());
    let accounts = harness
        .builder(harness.memory())
        .load_timeout(secs(1))
        .build();
    let started = Instant::now();
    let error = accounts.prefetch().await.unwrap_err();
    assert!(started.elapsed() < secs(5));
    assert_eq!(error.kind(), ErrorKind::WechatUnavailable);
    harness.sim.clear_faults();
    crate::support::eventually(
        "the token is fetched in the background",
        secs(10),
        async || accounts.cached().is_some(),
    )
    .await;
}

#[tokio::test]
async fn a_stale_token_is_served_while_wechat_rejects_the_account() {
    let harness = Harness::start().await;
    let accounts = harness.accounts();
    let token = accounts.get().await.unwrap();
    harness.settings(|settings| settings.secret_frozen = true);
    harness.advance(secs(7_200 - 200));
    let stale = accounts.get().await.unwrap();
    assert_eq!(stale.access_token(), token.access_token());
    harness.call(&accounts).await.unwrap();
}
