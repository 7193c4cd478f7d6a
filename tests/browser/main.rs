//! Tests of the demo in a real browser: headless Chromium that emulates WeChat on a phone or a
//! desktop.
//!
//! They need `apt-get install chromium fonts-noto-cjk`. Pictures of the pages are saved in the
//! build's `tmp` folder.

#![allow(unreachable_pub, clippy::unwrap_used, clippy::expect_used)]

mod accounts;
mod chromium;
mod demo;
mod frames;
mod looks;
#[path = "../support/nginx.rs"]
#[allow(dead_code)]
mod nginx;
#[path = "../../examples/recipes/other_origin.rs"]
mod other_origin;
mod platform;
mod proxies;
mod screen;
#[path = "../../examples/sessions.rs"]
#[allow(dead_code)]
mod sessions;
mod siblings;
#[path = "../support/switched_store.rs"]
#[allow(dead_code)]
mod switched_store;
mod two_origins;

use std::time::Duration;

use chromium::{Chromium, Tab};
use demo::Demo;

const EXCHANGE: &str = "/sns/oauth2/access_token";

/// Opens a page of the demo, consents on WeChat's page, and waits for the demo's page.
async fn sign_in(tab: &Tab, url: &str) {
    tab.open(url).await;
    tab.shows("申请使用").await;
    tab.press("#allow").await;
    tab.shows("林晓雨").await;
    tab.until("!!document.querySelector('#renew')").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_visit_returns_to_its_page_with_the_query() {
    let demo = Demo::start().await;
    let browser = Chromium::start();
    let tab = browser.tab().await;
    let page = format!("{}/?from=menu&item=%E8%8C%B6", demo.url);
    sign_in(&tab, &page).await;
    assert_eq!(tab.url().await, page);
    tab.picture("page-light").await;
    tab.dark(true).await;
    tab.picture("page-dark").await;
    tab.press("#language").await;
    tab.shows("Renew now").await;
    tab.picture("page-english-dark").await;

    // The time on the page changes by itself.
    let before = tab
        .value("document.querySelector('#time').textContent")
        .await;
    let changed = format!("document.querySelector('#time').textContent !== {before}");
    tab.until(&changed).await;
    assert_eq!(demo.sim.calls_to(EXCHANGE), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn reload_back_button_and_two_tabs_work() {
    let demo = Demo::start().await;
    let browser = Chromium::start();
    let tab = browser.tab().await;
    let page = format!("{}/?a=b", demo.url);
    sign_in(&tab, &page).await;
    let callback = tab.last_asked("/wechat/callback?code=");

    // Opens the callback again, as a reload or an old link does.
    for _ in 0..2 {
        tab.open(&callback).await;
        tab.until(&format!(
            "location.href === '{page}' && !!document.querySelector('#renew')"
        ))
        .await;
    }
    assert_eq!(demo.sim.calls_to(EXCHANGE), 1);

    // The user goes back to WeChat's page and consents again, so that WeChat issues a second code
    // for the same state.
    let again = browser.tab().await;
    again
        .open(&format!("{}/wechat/login?return_to=%2F%3Fc%3Dd", demo.url))
        .await;
    again.shows("申请使用").await;
    again.press("#allow").await;
    again.until("location.search === '?c=d'").await;
    again.back().await;
    again.shows("申请使用").await;
    again.press("#allow").await;
    again
        .until("location.search === '?c=d' && !!document.querySelector('#renew')")
        .await;
    assert_eq!(demo.sim.calls_to(EXCHANGE), 2);

    // Two tabs of another browser, which has no session.
    let fresh = Chromium::start();
    let (first, second) = (fresh.tab().await, fresh.tab().await);
    first.open(&format!("{}/?tab=1", demo.url)).await;
    second.open(&format!("{}/?tab=2", demo.url)).await;
    first.shows("申请使用").await;
    second.shows("申请使用").await;
    second.press("#allow").await;
    second
        .until("location.search === '?tab=2' && !!document.querySelector('#renew')")
        .await;
    first.press("#allow").await;
    first
        .until("location.search === '?tab=1' && !!document.querySelector('#renew')")
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_who_denies_gets_a_page_and_can_retry() {
    let demo = Demo::start().await;
    let browser = Chromium::start();
    let tab = browser.tab().await;
    tab.open(&format!("{}/?a=b", demo.url)).await;
    tab.shows("申请使用").await;
    tab.picture("consent").await;
    tab.press("#deny").await;
    tab.shows("您已取消授权").await;
    tab.picture("denied").await;
    tab.reload().await;
    tab.shows("您已取消授权").await;
    assert_eq!(demo.sim.calls_to(EXCHANGE), 0);
    tab.press("main a").await;
    tab.shows("申请使用").await;
    tab.press("#allow").await;
    tab.until("location.search === '?a=b' && !!document.querySelector('#renew')")
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_buttons_renew_report_and_log_out() {
    let demo = Demo::start().await;
    let browser = Chromium::start();
    let tab = browser.tab().await;
    sign_in(&tab, &demo.url).await;
    // At WeChat the token has expired, and by the demo's clock it has not.
    demo.sim.advance(Duration::from_secs(7_200));
    tab.press("#renew").await;
    tab.shows("已续期：换了新令牌").await;
    demo.sim.advance(Duration::from_secs(7_200));
    let before = tab
        .value("document.querySelector('#fingerprint').textContent")
        .await;
    tab.press("#refuse").await;
    tab.shows("微信拒绝了旧令牌").await;
    tab.until(&format!(
        "document.querySelector('#fingerprint').textContent !== {before}"
    ))
    .await;
    tab.picture("healed").await;

    tab.press("[data-logout='/logout']").await;
    tab.shows("已退出登录").await;
    tab.picture("logged-out").await;
    tab.press("main a").await;
    tab.shows("申请使用").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_js_sdk_card_shows_the_signature_of_this_page() {
    let demo = Demo::start().await;
    let browser = Chromium::start();
    let tab = browser.tab().await;
    sign_in(&tab, &demo.url).await;
    tab.press("summary").await;
    tab.until("/\\b[0-9a-f]{40}\\b/.test(document.querySelector('details').innerText)")
        .await;
    tab.picture("js-sdk").await;
}

/// A page sends its own URL, encoded or not. After a share, the URL has several parameters, and an
/// unencoded one is rejected.
#[tokio::test(flavor = "multi_thread")]
async fn a_shared_page_with_an_unencoded_url_gets_an_error() {
    let demo = Demo::start().await;
    let browser = Chromium::start();
    let tab = browser.tab().await;
    sign_in(&tab, &demo.url).await;
    let status = async |url: &str| {
        let ask = format!("fetch('/api/jssdk?url=' + {url}).then(reply => reply.status)");
        tab.value(&ask).await
    };
    let (plain, encoded) = (
        "location.href.split('#')[0]",
        "encodeURIComponent(location.href.split('#')[0])",
    );
    assert_eq!(status(plain).await, 200);
    for page in [
        "/?from=singlemessage&isappinstalled=0",
        "/?名=值#/route?a=1&b=2",
    ] {
        tab.open(&format!("{}{page}", demo.url)).await;
        tab.until("!!document.querySelector('#renew')").await;
        assert_eq!(status(encoded).await, 200, "{page}");
        assert_eq!(status(plain).await, 400, "{page}");
    }
}

/// The session cookie of the example must be `Lax`. A browser does not send a `Strict` cookie when
/// it comes from WeChat's page.
#[tokio::test(flavor = "multi_thread")]
async fn the_examples_session_survives_the_redirect() {
    let simulator = tower_wechat::simulator::Simulator::start().await.unwrap();
    simulator.settings(|settings| settings.auto_approve = false);
    let sessions = tower_sessions::MemoryStore::default();
    let (origin, _serving) = switched_store::serve(&simulator, sessions).await;
    let browser = Chromium::start();
    let tab = browser.tab().await;
    tab.open(&format!("{origin}/sign-in")).await;
    // WeChat's page is at 127.0.0.1 and the example at localhost, which are different sites.
    tab.press("#allow").await;
    tab.shows("hello o").await;
    tab.until("location.pathname === '/me'").await;
    tab.press("form button").await;
    tab.shows("You are signed out.").await;
    tab.open(&format!("{origin}/me")).await;
    tab.shows("login_required").await;
}
