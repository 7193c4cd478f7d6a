//! Tests of the demo's routes: their responses, the tokens in them and the calls to WeChat.

use std::time::Duration;

use serde_json::{Value, json};
use tower_wechat::simulator::{Fault, SimulatedUser};

use crate::support::demo_process::{DemoProcess, USER_HEADER};
use crate::support::eventually;
use crate::support::harness::{Age, Harness, Layout, USERINFO};
use crate::support::http_client::{Asked, fingerprint};

/// A pair from another service contains only the tokens. A renewal also returns the openid and the
/// scope.
async fn me(layout: Layout) {
    let harness = Harness::new(layout).await;
    let demo = harness.demo().await;
    let renewed = harness.sign_in("oRenewed", Age::Expired).await;
    let pair = harness.sign_in("oUser", Age::Fresh).await;

    let mut body = demo.me("oUser").await.json();
    let left = body["expires_in_secs"].take().as_u64().unwrap();
    // The renewal point is in one hour, and the expiry comes 15 minutes later, after the margin.
    assert!((4_300..=4_500).contains(&left), "{left}");
    let expected = json!({
        "user_id": "oUser", "openid": null, "scope": null, "unionid": null, "snapshot": false,
        "token_fingerprint": fingerprint(&pair.access_token), "freshness": "fresh",
        "expires_in_secs": null,
    });
    assert_eq!(body, expected);

    let body = demo.me("oRenewed").await.json();
    assert_eq!(body["openid"], "oRenewed");
    assert_eq!(body["scope"], "snsapi_userinfo");
    assert_eq!(body["freshness"], "fresh");
    assert_ne!(
        body["token_fingerprint"],
        fingerprint(&renewed.access_token).as_str()
    );
    let left = body["expires_in_secs"].as_u64().unwrap();
    assert!((7_000..=7_200).contains(&left), "{left}");

    let anonymous = demo.ask(Asked::get("/api/me")).await;
    anonymous.is_rejected(401, "login_required");
}

#[tokio::test(flavor = "multi_thread")]
async fn api_me() {
    for layout in Layout::BOTH {
        me(layout).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn api_userinfo_is_tried_where_the_scope_is_unknown() {
    let harness = Harness::new(Layout::Hashes).await;
    let demo = harness.demo().await;
    harness
        .wechat
        .add_user(SimulatedUser::new("oUser").nickname("小明").unionid("u1"));
    harness.sign_in("oUser", Age::Fresh).await;

    let answer = demo.get("/api/userinfo", "oUser").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let body = answer.json();
    assert_eq!(body["openid"], "oUser");
    assert_eq!(body["nickname"], "小明");
    assert_eq!(body["unionid"], "u1");
    assert_eq!(harness.wechat.calls_to(USERINFO), 1);
    assert_eq!(harness.refreshes(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn api_userinfo_without_the_scope_asks_for_a_login() {
    let harness = Harness::new(Layout::Hashes).await;
    let demo = harness.demo().await;
    let pair = harness.wechat.sign_in("oBase", "snsapi_base");
    harness.store("oBase", &pair, Age::Fresh);

    demo.get("/api/userinfo", "oBase")
        .await
        .is_rejected(401, "login_required");
    assert_eq!(harness.refreshes(), 0);
    demo.me("oBase").await.has_token(&pair.access_token);
}

#[tokio::test(flavor = "multi_thread")]
async fn api_userinfo_replaces_a_rejected_token_once() {
    for layout in Layout::BOTH {
        let harness = Harness::new(layout).await;
        let demo = harness.demo().await;
        let pair = harness.sign_in("oUser", Age::Fresh).await;
        demo.me("oUser").await.has_token(&pair.access_token);
        // WeChat rejects the token, although its stored time says that it is fresh.
        harness.wechat.advance(pair.expires_in);

        let answer = demo.get("/api/userinfo", "oUser").await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.field("openid"), "oUser");
        assert_eq!(
            (harness.refreshes(), harness.wechat.calls_to(USERINFO)),
            (1, 2)
        );
        let current = harness.wechat.current_pair("oUser").unwrap();
        demo.me("oUser").await.has_token(&current.access_token);
        harness.assert_newest_pair_is_stored("oUser");
    }
}

/// WeChat rejects a token in one call. A refresh returns the same token, because it has not
/// expired, and the call is made again with it.
#[tokio::test(flavor = "multi_thread")]
async fn api_userinfo_retries_with_a_confirmed_token() {
    for errcode in [40001, 40014, 42001] {
        let harness = Harness::new(Layout::Hashes).await;
        let demo = harness.demo().await;
        harness.sign_in("oUser", Age::Fresh).await;
        harness
            .wechat
            .inject(Fault::on(USERINFO).errcode(errcode).times(1));
        let answer = demo.get("/api/userinfo", "oUser").await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(
            (harness.refreshes(), harness.wechat.calls_to(USERINFO)),
            (1, 2)
        );
        harness.assert_newest_pair_is_stored("oUser");
    }
}

/// Reports are compared across processes: WeChat rejects many calls with one token, and the token
/// is renewed once.
#[tokio::test(flavor = "multi_thread")]
async fn many_rejections_of_one_token_cause_one_renewal() {
    let harness = Harness::new(Layout::Hashes).await;
    let demos = harness.demos::<3>().await;
    let pair = harness.sign_in("oUser", Age::Fresh).await;
    for demo in &demos {
        demo.me("oUser").await.has_token(&pair.access_token);
    }
    harness.wechat.advance(pair.expires_in);
    let mut requests = tokio::task::JoinSet::new();
    for demo in &demos {
        for _ in 0..50 {
            let http = demo.http().clone();
            let asked = Asked::get("/api/userinfo").header(USER_HEADER, "oUser");
            requests.spawn(async move { http.ask(asked).await });
        }
    }
    for answer in requests.join_all().await {
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    assert_eq!(harness.refreshes(), 1);
}

/// If WeChat rejects the renewed token too, the call is not made a third time.
#[tokio::test(flavor = "multi_thread")]
async fn api_userinfo_gives_up_after_the_second_rejection() {
    let harness = Harness::new(Layout::Hashes).await;
    let demo = harness.demo().await;
    let pair = harness.sign_in("oUser", Age::Fresh).await;
    harness.wechat.advance(pair.expires_in);
    harness.wechat.inject(Fault::on(USERINFO).errcode(40001));
    let answer = demo.get("/api/userinfo", "oUser").await;
    answer.is_rejected(503, "wechat_unavailable");
    assert_eq!(
        (harness.refreshes(), harness.wechat.calls_to(USERINFO)),
        (1, 2)
    );
}

/// WeChat rejects the refresh token after a change of the password. The pair is deleted, and the
/// user has to log in.
#[tokio::test(flavor = "multi_thread")]
async fn an_expired_refresh_token_leads_to_a_login() {
    for layout in Layout::BOTH {
        let harness = Harness::new(layout).await;
        let demo = harness.demo().await;
        harness.sign_in("oUser", Age::Expired).await;
        harness.wechat.change_password("oUser");
        for _ in 0..10 {
            demo.me("oUser").await.is_rejected(401, "login_required");
        }
        assert_eq!(harness.refreshes(), 1);
        assert_eq!(harness.stored("oUser"), None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn logout_ends_one_session_or_all() {
    for layout in Layout::BOTH {
        let mut harness = Harness::new(layout).await;
        harness
            .variables
            .push(("CACHE_TTL_SECS".to_owned(), "1".to_owned()));
        let [demo, other] = harness.demos().await;
        let pair = harness.sign_in("oUser", Age::Fresh).await;
        let post = |path: &str| Asked::post(path).header(USER_HEADER, "oUser");
        other.me("oUser").await.has_token(&pair.access_token);

        assert_eq!(demo.get("/logout", "oUser").await.status, 405);
        let answer = demo.ask(post("/logout")).await;
        assert_eq!((answer.status, answer.text.as_str()), (204, ""));
        assert!(
            answer.header("set-cookie").contains("Max-Age=0"),
            "{answer:?}"
        );
        harness.assert_newest_pair_is_stored("oUser");
        demo.me("oUser").await.has_token(&pair.access_token);

        let answer = demo.ask(post("/logout?everywhere=true")).await;
        assert_eq!(answer.status, 204, "{answer:?}");
        assert_eq!(harness.stored("oUser"), None);
        demo.me("oUser").await.is_rejected(401, "login_required");
        eventually(
            "the other process rejects the user",
            Duration::from_secs(5),
            async || other.me("oUser").await.status == 401,
        )
        .await;

        demo.ask(Asked::post("/logout"))
            .await
            .is_rejected(401, "login_required");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn routes_that_need_no_user() {
    let harness = Harness::new(Layout::Hashes).await;
    let demo = harness.demo().await;
    let health = demo.ask(Asked::get("/healthz")).await;
    assert_eq!(health.status, 200);
    assert_eq!(health.header("content-type"), "application/json");
    assert_eq!(health.json()["status"], Value::from("ok"));
    let metrics = demo.ask(Asked::get("/metrics")).await;
    assert_eq!(metrics.status, 200);
    assert!(
        metrics.header("content-type").starts_with("text/plain"),
        "{metrics:?}"
    );
    let pair = harness.sign_in("oUser", Age::Fresh).await;
    demo.me("oUser").await.has_token(&pair.access_token);
    assert_eq!(demo.get("/nothing-here", "oUser").await.status, 404);
    let anonymous = demo.ask(Asked::get("/nothing-here")).await;
    assert_eq!(anonymous.status, 404, "an unknown path requires no login");
}

/// Metrics count requests by outcome and renewals by result, and never contain a user.
#[tokio::test(flavor = "multi_thread")]
async fn metrics_contain_no_user() {
    let harness = Harness::new(Layout::Hashes).await;
    let demo = harness.demo().await;
    let pair = harness.sign_in("oUser", Age::Expired).await;
    for _ in 0..3 {
        assert_eq!(demo.me("oUser").await.status, 200);
    }
    demo.me("oUnknown").await.is_rejected(401, "login_required");
    demo.me("tab\tinside").await.is_rejected(400, "bad_request");

    let page = demo.ask(Asked::get("/metrics")).await.text;
    for line in [
        "wechat_requests_total{outcome=\"renewed\"} 1",
        "wechat_requests_total{outcome=\"cache\"} 2",
        "wechat_requests_total{outcome=\"login\"} 1",
        "wechat_requests_total{outcome=\"rejected\"} 1",
        "wechat_renewals_total{kind=\"user\",result=\"renewed\"} 1",
    ] {
        assert!(page.lines().any(|shown| shown == line), "{line}: {page}");
    }
    let current = harness.wechat.current_pair("oUser").unwrap();
    for hidden in [
        "oUser",
        "oUnknown",
        &pair.refresh_token,
        &current.access_token,
    ] {
        assert!(!page.contains(hidden), "{hidden}: {page}");
    }
}

/// Without the address of the simulator, a login redirects to WeChat with exactly the parameters
/// that WeChat documents, in the documented order.
#[tokio::test(flavor = "multi_thread")]
async fn settings_alone_select_the_real_wechat() {
    let harness = Harness::new(Layout::Hashes).await;
    let mut variables = harness.environment();
    variables.retain(|(name, _)| name != "WECHAT_OPEN_URL" && name != "TRUSTED_USER_HEADER");
    variables.push(("PUBLIC_URL".to_owned(), "https://h5.example.com".to_owned()));
    let demo = DemoProcess::start(&variables).await;
    let page = demo
        .ask(Asked::get("/?from=menu").header("accept", "text/html"))
        .await;
    assert_eq!(page.status, 302, "{page:?}");
    let location = page.header("location");
    let (before, state) = location.split_once("&state=").unwrap();
    let app_id = harness.wechat.app_id();
    assert_eq!(
        before,
        format!(
            "https://open.weixin.qq.com/connect/oauth2/authorize?appid={app_id}\
             &redirect_uri=https%3A%2F%2Fh5.example.com%2Fwechat%2Fcallback\
             &response_type=code&scope=snsapi_userinfo"
        )
    );
    let state = state.strip_suffix("#wechat_redirect").unwrap();
    assert!((16..=64).contains(&state.len()) && state.chars().all(|c| c.is_ascii_alphanumeric()));
    assert!(page.header("set-cookie").contains("; Secure"));
    assert_eq!(page.header("cache-control"), "no-store");
}
