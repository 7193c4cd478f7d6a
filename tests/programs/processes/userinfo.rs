//! Tests of `GET /api/userinfo` for users who granted a lower scope: the demo asks for more once.

use serde_json::json;
use tower_wechat::simulator::{Fault, SimulatedUser, Simulator};

use crate::support::browser::Browser;
use crate::support::demo_process::{DemoProcess, USER_HEADER};
use crate::support::harness::{Age, Harness, Layout, variables};

const EXCHANGE: &str = "/sns/oauth2/access_token";
const OPENID: &str = "oAlice0000000000000000000000";

/// Starts a demo whose logins request `snsapi_base`, for which WeChat asks no consent. Returns the
/// simulator and the demo.
async fn silent(header: bool) -> (Simulator, DemoProcess) {
    let wechat = Simulator::start().await.unwrap();
    wechat.add_user(SimulatedUser::new(OPENID).nickname("爱丽丝"));
    let mut pairs = vec![
        ("WECHAT_APPID", wechat.app_id()),
        ("WECHAT_SECRET", wechat.app_secret()),
        ("WECHAT_API_URL", wechat.url()),
        ("WECHAT_OPEN_URL", wechat.url()),
        ("WECHAT_SCOPE", "snsapi_base"),
    ];
    if header {
        pairs.push(("TRUSTED_USER_HEADER", USER_HEADER));
    }
    let demo = DemoProcess::start(&variables(&pairs)).await;
    (wechat, demo)
}

/// Makes WeChat grant `snsapi_base` for any scope that a login requests. `scope` is the scope in
/// WeChat's response.
fn grants_base(wechat: &Simulator, scope: Option<&str>) {
    let mut pair = json!({
        "access_token": "83_base", "expires_in": 7200, "refresh_token": "83_refresh",
        "openid": OPENID,
    });
    if let Some(scope) = scope {
        pair["scope"] = scope.into();
    }
    wechat.inject(Fault::on(EXCHANGE).body(pair.to_string()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_load_asks_for_consent_and_returns() {
    for header in [false, true] {
        let (wechat, demo) = silent(header).await;
        let browser = match header {
            true => Browser::new().with_header(USER_HEADER, "42"),
            false => Browser::new(),
        };
        let me = browser.open(&format!("{}/", demo.url)).await;
        assert_eq!(me.status, 200, "{me:?}");
        let userinfo = format!("{}/api/userinfo", demo.url);

        let script = browser.fetch(&userinfo).await;
        assert_eq!(script.status, 401, "{script:?}");
        assert_eq!(script.json()["error"], "login_required");
        let login_url = script.json()["login_url"].as_str().unwrap().to_owned();
        assert!(login_url.ends_with("&scope=snsapi_userinfo"), "{login_url}");

        let page = browser.visit(&userinfo).await;
        assert_eq!(page.status, 302, "{page:?}");
        let authorize = page.location().expect("WeChat's page");
        assert!(
            authorize.as_str().contains("&scope=snsapi_userinfo&"),
            "{authorize}"
        );
        let page = browser.open(&userinfo).await;
        assert_eq!(page.status, 200, "{page:?}");
        assert_eq!(page.url.path(), "/api/userinfo");
        assert_eq!(page.json()["nickname"], "爱丽丝");
        assert_eq!(wechat.calls_to(EXCHANGE), 2);
        assert_eq!(browser.fetch(&userinfo).await.status, 200);
        assert_eq!(wechat.calls_to(EXCHANGE), 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denied_scope_causes_no_loop() {
    for (header, scope) in [
        (false, Some("snsapi_base")),
        (true, Some("snsapi_base")),
        (false, None),
        (true, None),
    ] {
        let (wechat, demo) = silent(header).await;
        let browser = match header {
            true => Browser::new().with_header(USER_HEADER, "42"),
            false => Browser::new(),
        };
        browser.open(&format!("{}/", demo.url)).await;
        grants_base(&wechat, scope);
        wechat.inject(Fault::on("/sns/userinfo").errcode(48001));
        let mut reply = browser.visit(&format!("{}/api/userinfo", demo.url)).await;
        let mut visits = 0;
        while let Some(next) = reply.location() {
            visits += usize::from(next.path() == "/connect/oauth2/authorize");
            assert!(
                visits <= 20,
                "header {header}, scope {scope:?}: without end"
            );
            reply = browser.visit(next.as_str()).await;
        }
        assert!(
            visits <= 3,
            "header {header}, scope {scope:?}: {visits} visits"
        );
        assert_eq!(
            reply.status, 403,
            "header {header}, scope {scope:?}: {reply:?}"
        );
    }
}

/// A pair of the Java service contains no scope. The demo first tries to get the profile, and then
/// asks for consent.
#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_scope_is_tried_and_then_upgraded() {
    let harness = Harness::new(Layout::Hashes).await;
    let demo = harness.demo().await;
    let pair = harness.wechat.sign_in("oBase", "snsapi_base");
    harness.store("oBase", &pair, Age::Fresh);
    let browser = Browser::new().with_header(USER_HEADER, "oBase");
    let userinfo = format!("{}/api/userinfo", demo.url);

    let script = browser.fetch(&userinfo).await;
    assert_eq!(script.status, 401, "{script:?}");
    let login_url = script.json()["login_url"].as_str().unwrap().to_owned();
    assert!(login_url.ends_with("scope=snsapi_userinfo"), "{login_url}");

    let page = browser.open(&userinfo).await;
    assert_eq!(page.status, 200, "{page:?}");
    assert_eq!(page.url.path(), "/api/userinfo");
    assert_eq!(harness.wechat.calls_to(EXCHANGE), 1);
}
