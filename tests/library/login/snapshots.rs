//! Tests of virtual users. WeChat's snapshot pages (快照页) log a virtual user in instead of the real
//! one.

use std::time::Duration;

use tower_wechat::login::SnapshotPolicy;
use tower_wechat::simulator::SimulatedUser;

use super::harness::Harness;
use crate::support::browser::{Browser, SESSION};

const VIRTUAL: &str = "oVirtual00000000000000000000";

#[tokio::test]
async fn snapshot_users_are_admitted_for_two_hours() {
    let harness = Harness::with_redis().await;
    let site = harness.site().await;
    harness
        .sim
        .add_user(SimulatedUser::new(VIRTUAL).snapshot(true));
    let me = format!("{}/me", site.url);
    let browser = Browser::new();
    let callback = browser.callback_of(&me).await;
    let landed = browser.visit(&callback).await;
    let session = landed
        .cookies()
        .into_iter()
        .find(|cookie| cookie.starts_with(SESSION));
    assert!(session.unwrap().contains("Max-Age=7200;"));
    let page = browser.visit(&me).await.json();
    assert_eq!(
        (page["id"].as_str(), page["snapshot"].as_bool()),
        (Some(VIRTUAL), Some(true))
    );
    // The record of a virtual user has no refresh token and expires with the access token.
    let mut redis = harness.redis.as_ref().unwrap().connection();
    let keys: Vec<String> = redis::cmd("KEYS")
        .arg("*:snapshot:*")
        .query(&mut redis)
        .unwrap();
    let [key] = &keys[..] else { panic!("{keys:?}") };
    let ttl: i64 = redis::cmd("TTL").arg(key).query(&mut redis).unwrap();
    assert!((7_100..=7_200).contains(&ttl), "{ttl}");
    let users: Vec<String> = redis::cmd("KEYS")
        .arg("*:user:*")
        .query(&mut redis)
        .unwrap();
    assert_eq!(users, [""; 0]);
    let id = tower_wechat::UserId::new(VIRTUAL).unwrap();
    assert!(
        site.users.get(&id).await.is_err(),
        "not among the real users"
    );

    harness.advance(Duration::from_secs(7_199));
    assert_eq!(browser.visit(&me).await.json()["snapshot"], true);
    harness.advance(Duration::from_secs(1));
    browser.fetch(&me).await.is_error(401, "login_required");
}

#[tokio::test]
async fn another_process_recognizes_snapshot_users() {
    let harness = Harness::with_redis().await;
    let sites = harness.cluster(2).await;
    harness
        .sim
        .add_user(SimulatedUser::new(VIRTUAL).snapshot(true));
    let browser = Browser::new();
    browser.open(&format!("{}/me", sites[0].url)).await;
    assert_eq!(
        browser.visit(&format!("{}/me", sites[1].url)).await.json()["snapshot"],
        true
    );
}

#[tokio::test]
async fn an_application_can_reject_snapshot_users() {
    let harness = Harness::new().await;
    let site = harness
        .site_with(|login| login.snapshot_users(SnapshotPolicy::Deny))
        .await;
    harness
        .sim
        .add_user(SimulatedUser::new(VIRTUAL).snapshot(true));
    let browser = Browser::new();
    let callback = browser.callback_of(&format!("{}/me", site.url)).await;
    browser
        .visit(&callback)
        .await
        .is_page(403, "请使用完整服务");
    browser.fetch(&callback).await.is_error(403, "login_denied");
    assert_eq!(browser.cookie(SESSION), None);
    assert_eq!(harness.exchanges(), 1);
}
