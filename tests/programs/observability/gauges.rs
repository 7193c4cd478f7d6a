//! Tests that gauges exist from the start, and that the gauges of cached entries are right after
//! each change.

use std::time::Duration;

use tower_wechat::simulator::{Fault, SimulatedUser};

use super::exposition::Scrape;
use super::{GUIDE, file, queries};
use crate::support::browser::Browser;
use crate::support::demo_process::{DemoProcess, USER_HEADER};
use crate::support::eventually;
use crate::support::harness::{Harness, Layout};
use crate::support::http_client::Asked;

const LIMIT: Duration = Duration::from_secs(20);
const KINDS: [&str; 4] = ["user", "snapshot_user", "access_token", "jsapi_ticket"];
const CACHED: &str = "wechat_cached_credentials";

async fn scrape(demo: &DemoProcess) -> Scrape {
    Scrape::read(&demo.ask(Asked::get("/metrics")).await.text)
}

async fn cached(demo: &DemoProcess, kind: &str) -> Option<f64> {
    scrape(demo).await.value(CACHED, &[("kind", kind)])
}

/// WeChat issues no token for the account here, so no call creates a gauge.
#[tokio::test(flavor = "multi_thread")]
async fn each_gauge_exists_from_the_start() {
    let harness = Harness::new(Layout::Hashes).await;
    harness
        .wechat
        .inject(Fault::on("/cgi-bin/stable_token").errcode(-1));
    let demo = harness.demo().await;
    let scrape = scrape(&demo).await;
    let guide = file(GUIDE);
    let gauges: Vec<_> = guide
        .lines()
        .filter(|line| line.contains("` | gauge |"))
        // A demo without a platform has no gauges of platforms.
        .filter(|line| !line.contains("`wechat_platform_"))
        .filter_map(|line| line.split('`').nth(1))
        .collect();
    assert_eq!(gauges.len(), 4, "{gauges:?}");
    for (place, expression) in queries::all() {
        for selector in queries::selectors(&expression) {
            if gauges.contains(&selector.metric.as_str()) {
                let there = scrape.names().contains(&selector.metric);
                assert!(there, "{place} asks for {}", selector.metric);
            }
        }
    }
    let app = harness.wechat.app_id();
    for kind in KINDS {
        assert_eq!(scrape.value(CACHED, &[("kind", kind)]), Some(0.0), "{kind}");
        let labels = [("app", app), ("kind", kind)];
        let rests = scrape.value("wechat_resting_until_timestamp_seconds", &labels);
        assert_eq!(rests, Some(0.0), "{kind}");
        let expires = scrape.value("wechat_credential_expires_timestamp_seconds", &labels);
        let wanted = ["access_token", "jsapi_ticket"].contains(&kind);
        assert_eq!(expires, wanted.then_some(0.0), "{kind}");
    }
    assert_eq!(scrape.value("wechat_store_up", &[]), Some(1.0));
}

async fn log_in(harness: &Harness, demo: &DemoProcess, user: SimulatedUser) {
    harness.wechat.add_user(user);
    let login = format!("{}/wechat/login?return_to=%2Fhealthz", demo.url);
    assert_eq!(Browser::new().open(&login).await.status, 200);
}

async fn log_out_everywhere(demo: &DemoProcess, user: &str) {
    let logout = Asked::post("/logout?everywhere=true").header(USER_HEADER, user);
    assert_eq!(demo.ask(logout).await.status, 204);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gauge_of_cached_users_is_right_after_each_change() {
    for layout in [Layout::Hashes, Layout::Keys] {
        let harness = Harness::new(layout).await;
        let [demo, other] = harness.demos().await;
        for (number, user) in ["oAda", "oBob", "oCy"].into_iter().enumerate() {
            log_in(&harness, &demo, SimulatedUser::new(user)).await;
            assert_eq!(cached(&demo, "user").await, Some(number as f64 + 1.0));
        }
        log_out_everywhere(&demo, "oAda").await;
        assert_eq!(cached(&demo, "user").await, Some(2.0), "after a logout");
        log_out_everywhere(&other, "oBob").await;
        eventually("a logout elsewhere counts", LIMIT, async || {
            cached(&demo, "user").await == Some(1.0)
        })
        .await;
        assert_eq!(cached(&other, "user").await, Some(0.0));

        let snapshot = SimulatedUser::random().snapshot(true);
        log_in(&harness, &demo, snapshot).await;
        assert_eq!(cached(&demo, "snapshot_user").await, Some(1.0));
        assert_eq!(cached(&demo, "user").await, Some(1.0));
        assert_eq!(cached(&demo, "access_token").await, Some(1.0));

        // An entry that has expired is not counted.
        harness
            .wechat
            .settings(|settings| settings.user_token_lifetime = Duration::from_secs(2));
        log_in(&harness, &demo, SimulatedUser::new("oDora")).await;
        eventually("an expired user is not counted", LIMIT, async || {
            cached(&demo, "user").await == Some(1.0)
        })
        .await;
    }
}
