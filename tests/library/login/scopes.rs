//! Tests of granted scopes, and of requests for more.

use std::time::Duration;

use serde_json::json;
use tower_wechat::Scope;
use tower_wechat::redis::Layout;
use tower_wechat::simulator::Fault;

use super::harness::{ALICE, EXCHANGE, Harness, Site, USERINFO};
use crate::support::browser::{Browser, Reply};

/// Logs a browser in with `snsapi_base`. Returns the harness, the server and the browser.
async fn base_login() -> (Harness, Site, Browser) {
    let harness = Harness::new().await;
    let site = harness.site_with(|login| login.scope(Scope::Base)).await;
    let browser = Browser::new();
    browser.open(&format!("{}/me", site.url)).await;
    (harness, site, browser)
}

#[tokio::test]
async fn a_route_upgrades_a_base_login_once() {
    let harness = Harness::new().await;
    let site = harness.site_with(|login| login.scope(Scope::Base)).await;
    let browser = Browser::new();
    assert_eq!(
        browser.open(&format!("{}/me", site.url)).await.json()["scope"],
        "snsapi_base"
    );
    let asked = browser
        .fetch(&format!("{}/profile", site.url))
        .await
        .is_error(401, "login_required");
    assert_eq!(
        asked["login_url"],
        "/wechat/login?return_to=%2F&scope=snsapi_userinfo"
    );
    let page = browser.open(&format!("{}/profile?a=b", site.url)).await;
    assert_eq!(
        page.json(),
        json!({ "id": ALICE, "scope": "snsapi_userinfo" })
    );
    assert_eq!(harness.exchanges(), 2);
    browser.open(&format!("{}/profile", site.url)).await;
    browser.open(&format!("{}/me", site.url)).await;
    assert_eq!(harness.exchanges(), 2);
}

#[tokio::test]
async fn a_denied_upgrade_causes_no_loop() {
    let (harness, site, browser) = base_login().await;
    let body = json!({
        "access_token": "83_base", "expires_in": 7200, "refresh_token": "83_refresh",
        "openid": ALICE, "scope": "snsapi_base",
    });
    harness
        .sim
        .inject(Fault::on(EXCHANGE).body(body.to_string()));
    let page = browser.open(&format!("{}/profile", site.url)).await;
    page.is_page(403, "需要您的授权");
    assert_eq!(harness.exchanges(), 2);
    browser
        .fetch(&format!("{}/profile", site.url))
        .await
        .is_error(403, "login_denied");
    assert_eq!(
        browser.open(&format!("{}/me", site.url)).await.json()["id"],
        ALICE
    );
    // The page offers a link that requests the scope again, which the user now grants.
    harness.sim.clear_faults();
    assert!(
        page.text
            .contains("/wechat/login?return_to=%2Fprofile&amp;scope=snsapi_userinfo")
    );
    let again = format!(
        "{}/wechat/login?return_to=%2Fprofile&scope=snsapi_userinfo",
        site.url
    );
    assert_eq!(
        browser.open(&again).await.json()["scope"],
        "snsapi_userinfo"
    );
}

#[tokio::test]
async fn a_profile_is_cached_and_repeats_a_rejected_call() {
    let harness = Harness::new().await;
    let site = harness.site().await;
    let url = format!("{}/nickname", site.url);
    let browser = Browser::new();
    assert_eq!(browser.open(&url).await.text, "爱丽丝");
    for _ in 0..5 {
        assert_eq!(browser.fetch(&url).await.text, "爱丽丝");
    }
    assert_eq!(harness.sim.calls_to(USERINFO), 1);
    // The cached profile is older than ten minutes, and WeChat rejects the token. The call is made
    // again with a new token.
    harness.clock.advance(Duration::from_secs(601));
    harness.sim.advance(Duration::from_secs(7_200));
    assert_eq!(browser.fetch(&url).await.text, "爱丽丝");
    assert_eq!(harness.sim.calls_to(USERINFO), 3);
}

#[tokio::test]
async fn a_profile_without_the_scope_asks_for_a_login() {
    let (harness, site, browser) = base_login().await;
    let asked = browser
        .fetch(&format!("{}/nickname", site.url))
        .await
        .is_error(401, "login_required");
    assert_eq!(
        asked["login_url"],
        "/wechat/login?return_to=%2F&scope=snsapi_userinfo"
    );
    assert_eq!(
        harness.sim.calls_to(USERINFO),
        1,
        "48001 is not tried again"
    );
}

/// The layer requires no scope for this page. The handler needs the profile, and its error starts a
/// login that requests the scope.
#[tokio::test]
async fn a_page_that_needs_the_profile_asks_for_consent() {
    let (harness, site, browser) = base_login().await;
    let page = browser.open(&format!("{}/nickname?a=b", site.url)).await;
    assert_eq!((page.status, &*page.text), (200, "爱丽丝"));
    assert_eq!(page.url.path(), "/nickname");
    assert_eq!(page.url.query(), Some("a=b"));
    assert_eq!(harness.exchanges(), 2);
}

#[tokio::test]
async fn a_denied_profile_causes_no_loop() {
    let (harness, site, browser) = base_login().await;
    let body = json!({
        "access_token": "83_base", "expires_in": 7200, "refresh_token": "83_refresh",
        "openid": ALICE, "scope": "snsapi_base",
    });
    harness
        .sim
        .inject(Fault::on(EXCHANGE).body(body.to_string()));
    harness.sim.inject(Fault::on(USERINFO).errcode(48001));
    let page = browser.open(&format!("{}/nickname", site.url)).await;
    page.is_page(403, "需要您的授权");
    assert_eq!(harness.exchanges(), 2);
    browser
        .fetch(&format!("{}/nickname", site.url))
        .await
        .is_error(403, "login_denied");
}

/// Returns the scope in a redirect to WeChat.
fn asked(reply: &Reply) -> String {
    let to = reply
        .location()
        .unwrap_or_else(|| panic!("no redirect: {reply:?}"));
    assert_eq!(to.path(), "/connect/oauth2/authorize");
    let scope = to.query_pairs().find(|(name, _)| name == "scope").unwrap();
    scope.1.into_owned()
}

#[tokio::test]
async fn no_link_lowers_a_granted_scope() {
    for harness in [Harness::new().await, Harness::with_redis().await] {
        let site = harness.site_with(|login| login.scope(Scope::Base)).await;
        let other = harness.site_with(|login| login.scope(Scope::Base)).await;
        let browser = Browser::new();
        browser.open(&format!("{}/me", site.url)).await;
        // A user who has granted only `snsapi_base` is asked for no more.
        let link = "/wechat/login?return_to=%2Fme&scope=snsapi_base";
        let sent = browser.visit(&format!("{}{link}", site.url)).await;
        assert_eq!(asked(&sent), "snsapi_base");

        browser.open(&format!("{}/profile", site.url)).await;
        for url in [&site.url, &other.url] {
            for link in [
                link,
                "/wechat/login?return_to=%2Fme",
                "/wechat/login?return_to=%2Fme&scope=snsapi_userinfo&scope=snsapi_base",
                "/wechat/login?return_to=%2Fme&scope=",
                "/wechat/login?return_to=%2Fme&scope=snsapi_login",
            ] {
                let link = format!("{url}{link}");
                assert_eq!(
                    asked(&browser.visit(&link).await),
                    "snsapi_userinfo",
                    "{link}"
                );
                // The copy lacks the cookies of earlier logins, which would count as a loop.
                let copy = browser.copy();
                copy.drop_cookies(|name| name.starts_with("wechat_login_"));
                let landed = copy.open(&link).await.json();
                assert_eq!(landed["scope"], "snsapi_userinfo", "{link}");
            }
        }
    }
}

#[tokio::test]
async fn a_link_cannot_request_less_than_the_application() {
    let harness = Harness::new().await;
    let site = harness.site().await;
    let link = format!(
        "{}/wechat/login?return_to=%2Fme&scope=snsapi_base",
        site.url
    );
    let browser = Browser::new();
    assert_eq!(asked(&browser.visit(&link).await), "snsapi_userinfo");
    let landed = browser.open(&link).await.json();
    assert_eq!(landed["scope"], "snsapi_userinfo");
}

/// Another browser has no session, so the server learns the user only from the code. The login
/// keeps the granted scope.
#[tokio::test]
async fn another_browsers_login_keeps_the_scope() {
    let harness = Harness::with_redis().await;
    let site = harness.site_with(|login| login.scope(Scope::Base)).await;
    let (me, profile) = (format!("{}/me", site.url), format!("{}/profile", site.url));
    let browser = Browser::new();
    browser.open(&profile).await;
    let link = format!(
        "{}/wechat/login?return_to=%2Fme&scope=snsapi_base",
        site.url
    );
    for start in [&me, &link] {
        let other = Browser::new();
        let landed = other.open(start).await.json();
        assert_eq!(landed["scope"], "snsapi_userinfo", "{start}");
        assert_eq!(browser.fetch(&profile).await.status, 200);
    }
    // A user who does not grant the scope again is logged in without it, and the next page starts
    // no login.
    harness.sim.inject(
        Fault::on(EXCHANGE).body(
            json!({
                "access_token": "83_base", "expires_in": 7200, "refresh_token": "83_refresh",
                "openid": ALICE, "scope": "snsapi_base",
            })
            .to_string(),
        ),
    );
    let third = Browser::new();
    assert_eq!(third.open(&me).await.json()["scope"], "snsapi_base");
    let before = harness.exchanges();
    assert_eq!(third.open(&me).await.json()["scope"], "snsapi_base");
    assert_eq!(harness.exchanges(), before);
}

#[tokio::test]
async fn an_older_login_keeps_the_scope() {
    let harness = Harness::new().await;
    let site = harness.site_with(|login| login.scope(Scope::Base)).await;
    let me = format!("{}/me", site.url);
    let browser = Browser::new();
    // This login began before the user granted more.
    let older = browser.callback_of(&me).await;
    browser.open(&format!("{}/profile", site.url)).await;
    let before = harness.exchanges();
    let sent = browser.visit(&older).await;
    assert_eq!(asked(&sent), "snsapi_userinfo");
    assert_eq!(
        harness.exchanges(),
        before,
        "the code is not spent: the pair lives"
    );
    assert_eq!(browser.fetch(&me).await.json()["scope"], "snsapi_userinfo");
    let landed = browser.open(sent.header("location").unwrap()).await;
    assert_eq!(landed.json()["scope"], "snsapi_userinfo");
}

/// The stored pair of another service contains no scope. A link must not lower a scope that may
/// have been granted.
#[tokio::test]
async fn an_unknown_scope_is_not_lowered() {
    let harness = Harness::with_redis_in(Layout::Hashes).await;
    let site = harness.site_with(|login| login.scope(Scope::Base)).await;
    let browser = Browser::new();
    browser.open(&format!("{}/me", site.url)).await;
    harness.rewrite(ALICE);
    let link = format!(
        "{}/wechat/login?return_to=%2Fme&scope=snsapi_base",
        site.url
    );
    assert_eq!(asked(&browser.visit(&link).await), "snsapi_userinfo");
    // While Redis does not reply, a link does not lower the scope.
    let redis = harness.redis.as_ref().unwrap();
    redis.freeze(true);
    let sent = browser.visit(&link).await;
    redis.freeze(false);
    assert_eq!(asked(&sent), "snsapi_userinfo");
}
