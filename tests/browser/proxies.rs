//! Tests of the demo behind nginx, in a real browser.

use std::time::Duration;

use crate::chromium::Chromium;
use crate::demo::Demo;
use crate::nginx::Nginx;
use crate::sign_in;

const AUTHORIZE: &str = "/connect/oauth2/authorize";

/// Returns a free address for nginx.
fn address() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_returns_to_its_page_below_a_prefix() {
    let browser = Chromium::start();
    for slash in ["", "/"] {
        let address = address();
        let public = format!("http://{address}/app");
        let demo = Demo::with(&[("PUBLIC_URL", &public)]).await;
        let server = format!("location /app/ {{ proxy_pass {}{slash}; }}", demo.url);
        let _nginx = Nginx::start(&address, &server);
        let tab = browser.tab().await;
        let query = "茶=\u{1f375} \"<b>\"&list[]=1;2,3&json={\"a\":\"b|c\"}";
        let asked = format!("{public}/?{query}&long={}", "x".repeat(1_700));
        sign_in(&tab, &asked).await;
        let shown = tab.url().await;
        assert_eq!(shown, url::Url::parse(&asked).unwrap().as_str());
        // The page's own requests are sent below the prefix.
        tab.press("summary").await;
        tab.until("/\\b[0-9a-f]{40}\\b/.test(document.querySelector('details').innerText)")
            .await;
        tab.press("[data-logout='/logout']").await;
        tab.shows("已退出登录").await;
        tab.press("main a").await;
        tab.shows("申请使用").await;
    }
}

/// A proxy sends the callback to the start page. The login recognizes the loop by the browser's
/// Referer and Sec-Fetch headers, and ends it on a page.
#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_drops_the_callback_causes_no_loop() {
    let browser = Chromium::start();
    for lost in [
        "location /wechat/callback { rewrite ^ / break; proxy_pass SITE; }",
        "location /wechat/callback { rewrite ^ /? break; proxy_pass SITE; }",
        "location /wechat/callback { rewrite ^ /? redirect; }",
    ] {
        let address = address();
        let public = format!("http://{address}");
        let demo = Demo::with(&[("PUBLIC_URL", &public)]).await;
        demo.sim.settings(|settings| settings.auto_approve = true);
        let server = format!("location / {{ proxy_pass SITE; }}\n{lost}");
        let _nginx = Nginx::start(&address, &server.replace("SITE", &demo.url));
        let tab = browser.tab().await;
        tab.open(&format!("{public}/?a=b")).await;
        tab.until("/登录未完成|登录过于频繁/.test(document.body?.innerText)")
            .await;
        let visits = demo.sim.calls_to(AUTHORIZE);
        assert!((1..=3).contains(&visits), "{lost}: {visits}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_by_hand_is_not_taken_for_a_loop() {
    let browser = Chromium::start();
    let demo = Demo::start().await;
    let tab = browser.tab().await;
    for reload in 0..6 {
        tab.open(&demo.url).await;
        tab.shows("申请使用").await;
        // The first two loads follow at once, and each further one after two seconds.
        if reload > 0 {
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
    }
    tab.press("#allow").await;
    tab.shows("林晓雨").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_tabs_with_long_urls_lock_no_user_out() {
    let address = address();
    let public = format!("http://{address}");
    let demo = Demo::with(&[("PUBLIC_URL", &public)]).await;
    let nginx = Nginx::start(
        &address,
        &format!("location / {{ proxy_pass {}; }}", demo.url),
    );
    let browser = Chromium::start();
    let page = |number: usize| format!("{public}/?tab={number}&q={}", "x".repeat(1_000));
    let mut tabs = Vec::new();
    for number in 0..8 {
        let tab = browser.tab().await;
        tab.open(&page(number)).await;
        tab.shows("申请使用").await;
        tabs.push(tab);
    }
    // The two newest logins return to their pages. An older one, whose page is no longer stored,
    // returns to the start page.
    for number in [7, 6] {
        tabs[number].press("#allow").await;
        tabs[number]
            .until(&format!(
                "location.search.startsWith('?tab={number}&') && !!document.querySelector('#renew')"
            ))
            .await;
    }
    tabs[0].press("#allow").await;
    tabs[0]
        .until("location.search === '' && !!document.querySelector('#renew')")
        .await;
    assert_eq!(nginx.errors(), "");
}
