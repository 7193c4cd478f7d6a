//! Tests of the account's token and ticket in the demo: `/api/account`, `/api/jssdk` and `/center`.

use std::time::Duration;

use tower_wechat::simulator::Fault;

use crate::support::demo_process::DemoProcess;
use crate::support::eventually;
use crate::support::harness::{Harness, Layout};
use crate::support::http_client::{Answer, Asked, fingerprint};

const STABLE: &str = "/cgi-bin/stable_token";
const TICKET: &str = "/cgi-bin/ticket/getticket";
const BEARER: &str = "a-long-random-bearer-secret-of-the-center";

async fn center(demo: &DemoProcess, path: &str, bearer: &str) -> Answer {
    let asked = Asked::get(path).header("authorization", format!("Bearer {bearer}"));
    demo.ask(asked).await
}

#[tokio::test(flavor = "multi_thread")]
async fn three_demos_fetch_one_token_and_one_ticket() {
    for layout in Layout::BOTH {
        let harness = Harness::new(layout).await;
        let demos: [DemoProcess; 3] = harness.demos().await;
        let mut fingerprints = Vec::new();
        for demo in &demos {
            let answer = demo.ask(Asked::get("/api/account")).await;
            assert_eq!(answer.status, 200, "{answer:?}");
            let left = answer.json()["expires_in_secs"].as_u64().unwrap();
            assert!((7_000..=7_200).contains(&left), "{left}");
            fingerprints.push(answer.field("token_fingerprint"));
            let url = format!("/api/jssdk?url={}/page", demo.http().base());
            assert_eq!(demo.ask(Asked::get(&url)).await.status, 200);
        }
        let live = harness.wechat.account_token().expect("a token was fetched");
        assert_eq!(fingerprints, vec![fingerprint(&live); 3]);
        assert_eq!(harness.wechat.calls_to(STABLE), 1);
        assert_eq!(harness.wechat.calls_to(TICKET), 1);
    }
}

/// A process that starts later finds the account's token in Redis and caches it before the first
/// request. While Redis is down, the process serves the token and a signature.
#[tokio::test(flavor = "multi_thread")]
async fn a_later_demo_has_the_token_in_its_cache() {
    for layout in Layout::BOTH {
        let mut harness = Harness::new(layout).await;
        let has_token = async |demo: &DemoProcess| {
            let health = demo.ask(Asked::get("/healthz")).await;
            health.json()["account_token"] == "alive"
        };
        let url = |demo: &DemoProcess| format!("/api/jssdk?url={}/page", demo.http().base());
        let first = harness.demo().await;
        let answer = first.ask(Asked::get(&url(&first))).await;
        assert_eq!(answer.status, 200, "{answer:?}");

        let later = harness.demo().await;
        let limit = Duration::from_secs(5);
        eventually("the later process has the token", limit, async || {
            has_token(&later).await
        })
        .await;
        let answer = later.ask(Asked::get(&url(&later))).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        harness.redis.kill();
        for path in ["/api/account", &url(&later)] {
            let answer = later.ask(Asked::get(path)).await;
            assert_eq!(answer.status, 200, "{answer:?}");
        }
        assert_eq!(harness.wechat.calls_to(STABLE), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_our_own_are_signed_and_no_others() {
    let harness = Harness::new(Layout::Hashes).await;
    let demo = harness.demo().await;
    let own = format!("{}/page?a=1", demo.http().base());
    let asked = Asked::get(&format!("/api/jssdk?url={}", own.replace('?', "%3F")));
    let config = demo.ask(asked).await.json();
    let ticket: String = redis::cmd("GET")
        .arg("sys.wxJsapiTicket")
        .query(&mut harness.connection())
        .unwrap();
    let signed = tower_wechat::jssdk::sign(
        ticket.split('#').next().unwrap(),
        config["nonceStr"].as_str().unwrap(),
        config["timestamp"].as_u64().unwrap(),
        &own,
    );
    assert_eq!(config["signature"], signed.as_str());
    assert_eq!(config["appId"], harness.wechat.app_id());
    for foreign in [
        "https://evil.example/",
        "",
        "javascript:alert(1)",
        "//evil.example/",
    ] {
        let asked = Asked::get(&format!("/api/jssdk?url={foreign}"));
        demo.ask(asked).await.is_rejected(400, "bad_request");
    }
    demo.ask(Asked::get("/api/jssdk"))
        .await
        .is_rejected(400, "bad_request");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_center_serves_clients_with_the_secret() {
    let harness = Harness::new(Layout::Hashes).await;
    let without = harness.demo().await;
    let answer = center(&without, "/center/access_token", BEARER).await;
    assert_eq!(answer.status, 404, "no secret, no center");

    let mut variables = harness.environment();
    variables.push((
        "CENTER_TOKEN".to_owned(),
        format!("{BEARER},another-{BEARER}"),
    ));
    let demo = DemoProcess::start(&variables).await;
    let answer = center(&demo, "/center/access_token", BEARER).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.header("cache-control"), "no-store");
    let live = harness.wechat.account_token().unwrap();
    assert_eq!(answer.field("access_token"), live);
    let another = format!("another-{BEARER}");
    let answer = center(&demo, "/center/jsapi_ticket", &another).await;
    assert!(answer.field("ticket").len() > 40);
    for wrong in ["", "wrong", &BEARER[1..]] {
        let answer = center(&demo, "/center/access_token", wrong).await;
        answer.is_rejected(401, "unauthorized");
    }
    demo.ask(Asked::get("/center/access_token"))
        .await
        .is_rejected(401, "unauthorized");
    assert_eq!(harness.wechat.calls_to(STABLE), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejected_account_is_logged_once_and_recovers() {
    let harness = Harness::new(Layout::Hashes).await;
    harness.wechat.inject(Fault::on(STABLE).errcode(40125));
    let demo = harness.demo().await;
    for _ in 0..20 {
        demo.ask(Asked::get("/api/account"))
            .await
            .is_rejected(503, "wechat_config");
    }
    demo.says(1, &["ERROR", "40125"]).await;
    assert_eq!(harness.wechat.calls_to(STABLE), 1);
    // The demo reports that it is healthy, because it can still serve users.
    assert_eq!(demo.ask(Asked::get("/healthz")).await.status, 200);
    harness.wechat.clear_faults();
    eventually(
        "the account is called again after a pause of 30 s",
        Duration::from_secs(45),
        async || demo.ask(Asked::get("/api/account")).await.status == 200,
    )
    .await;
}
