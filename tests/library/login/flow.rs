//! Tests of what users do: open pages, agree or deny, reload, go back, and open several tabs.

use serde_json::json;
use tower_wechat::simulator::SimulatedUser;
use tower_wechat::{Policy, TrustedHeader};

use super::harness::{ALICE, EXCHANGE, Harness, Site, pages};
use crate::support::browser::{Browser, SESSION};

#[tokio::test]
async fn a_first_visit_ends_on_the_page_asked_for() {
    let harness = Harness::new().await;
    let site = harness.site().await;
    let browser = Browser::new();
    let page = format!("{}/me?tab=1&next=%2F%2Fevil.example", site.url);

    let sent_away = browser.visit(&page).await;
    assert_eq!(sent_away.status, 302);
    assert_eq!(sent_away.header("cache-control"), Some("no-store"));
    let [cookie] = sent_away.cookies()[..] else {
        panic!("{sent_away:?}")
    };
    assert!(cookie.starts_with("wechat_login_"), "{cookie}");
    // Max-Age is 20 minutes: ten for the user at WeChat, and ten for copies of the callback.
    assert!(
        cookie.ends_with("; Path=/; Max-Age=1200; HttpOnly; SameSite=Lax"),
        "{cookie}"
    );

    let callback = browser.callback_of(&page).await;
    let signed_in = browser.visit(&callback).await;
    assert_eq!(signed_in.status, 302);
    assert_eq!(
        signed_in.header("location"),
        Some("/me?tab=1&next=%2F%2Fevil.example")
    );
    assert_eq!(signed_in.header("cache-control"), Some("no-store"));
    let session = signed_in
        .cookies()
        .into_iter()
        .find(|cookie| cookie.starts_with(SESSION));
    assert!(
        session
            .unwrap()
            .ends_with("; Path=/; Max-Age=2592000; HttpOnly; SameSite=Lax")
    );

    let back = browser.open(&callback).await;
    assert_eq!(back.json()["id"], ALICE);
    assert_eq!(back.json()["uri"], "/me?tab=1&next=%2F%2Fevil.example");
    assert_eq!(back.json()["scope"], "snsapi_userinfo");
    assert_eq!(harness.exchanges(), 1);
}

#[tokio::test]
async fn the_authorize_url_is_wechats() {
    let harness = Harness::new().await;
    let site = harness.site().await;
    let url = Browser::new().visit(&format!("{}/me", site.url)).await;
    let url = url.header("location").unwrap().to_owned();
    let (before, rest) = url.split_once("&state=").unwrap();
    let encoded = site.url.replace(':', "%3A").replace('/', "%2F");
    assert_eq!(
        before,
        format!(
            "{}/connect/oauth2/authorize?appid={}&redirect_uri={encoded}%2Fwechat%2Fcallback&response_type=code&scope=snsapi_userinfo",
            harness.sim.url(),
            harness.sim.app_id(),
        )
    );
    let state = rest.strip_suffix("#wechat_redirect").unwrap();
    assert!((16..=64).contains(&state.len()) && state.bytes().all(|b| b.is_ascii_alphanumeric()));
}

#[tokio::test]
async fn scripts_learn_where_to_log_in() {
    let harness = Harness::new().await;
    let site = harness.site().await;
    let me = format!("{}/me", site.url);
    let anonymous = Browser::new();
    let login_url = |json: serde_json::Value| json["login_url"].as_str().unwrap().to_owned();

    let reply = anonymous.fetch(&me).await;
    assert!(reply.cookies().is_empty());
    assert_eq!(
        login_url(reply.is_error(401, "login_required")),
        "/wechat/login?return_to=%2F"
    );
    let reply = anonymous.post(&me).await;
    reply.is_error(401, "login_required");
    for (referer, page) in [
        (format!("{}/me?a=b#c", site.url), "%2Fme%3Fa%3Db"),
        ("https://evil.example/me".to_owned(), "%2F"),
        (format!("{}/wechat/login?return_to=%2F", site.url), "%2F"),
    ] {
        let asking = Browser::new().with_header("referer", &referer);
        let url = login_url(asking.fetch(&me).await.is_error(401, "login_required"));
        assert_eq!(url, format!("/wechat/login?return_to={page}"));
    }

    let browser = Browser::new();
    let page = browser
        .open(&format!(
            "{}/wechat/login?return_to=%2Fme%3Fa%3Db",
            site.url
        ))
        .await;
    assert_eq!(page.json()["uri"], "/me?a=b");
    // A target on another site, or an invalid one, leads to the start page.
    for trick in [
        "https://evil.example/",
        "//evil.example",
        "/%5Cevil.example",
        "/a%0d%0ab",
        "",
    ] {
        let page = browser
            .open(&format!("{}/wechat/login?return_to={trick}", site.url))
            .await;
        assert_eq!(
            (page.json()["uri"].as_str(), page.url.path()),
            (Some("/"), "/"),
            "{trick}"
        );
    }
}

#[tokio::test]
async fn only_forms_and_pages_are_redirected_to_the_login() {
    let harness = Harness::new().await;
    let site = harness.site().await;
    let (me, referer) = (format!("{}/me", site.url), format!("{}/me?form", site.url));
    let html = ("accept", "text/html,*/*;q=0.8");
    let form = [html, ("referer", referer.as_str())];
    let browser = Browser::new();
    let reply = browser.send(http::Method::POST, &me, &form).await.unwrap();
    let login = Some("/wechat/login?return_to=%2Fme%3Fform");
    assert_eq!((reply.status, reply.header("location")), (303, login));
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    let landed = browser.open(reply.location().unwrap().as_str()).await;
    assert_eq!(landed.json()["uri"], "/me?form");
    let anonymous = Browser::new();
    for script in [
        ("hx-request", "true"),
        ("x-requested-with", "XMLHttpRequest"),
        ("sec-fetch-mode", "cors"),
        ("content-type", "application/json"),
        ("content-type", "application/octet-stream"),
    ] {
        for method in [http::Method::GET, http::Method::POST] {
            let reply = anonymous.send(method, &me, &[html, script]).await.unwrap();
            let json = reply.is_error(401, "login_required");
            assert!(json["login_url"].is_string());
        }
    }
}

#[tokio::test]
async fn head_is_like_get() {
    let harness = Harness::new().await;
    let site = harness.site().await;
    let browser = Browser::new();
    let html = [("accept", "text/html")];
    let reply = browser
        .send(http::Method::HEAD, &format!("{}/me", site.url), &html)
        .await
        .unwrap();
    assert_eq!(reply.status, 302);
    assert!(
        reply
            .header("location")
            .unwrap()
            .contains("/connect/oauth2/authorize?")
    );
}

#[tokio::test]
async fn two_tabs_log_in_at_once() {
    let harness = Harness::new().await;
    let site = harness.site().await;
    let browser = Browser::new();
    let first = browser.callback_of(&format!("{}/me?tab=1", site.url)).await;
    let second = browser.callback_of(&format!("{}/me?tab=2", site.url)).await;
    assert_eq!(browser.open(&second).await.json()["uri"], "/me?tab=2");
    assert_eq!(browser.open(&first).await.json()["uri"], "/me?tab=1");
}

#[tokio::test]
async fn a_user_who_denies_gets_a_page_without_a_call() {
    let harness = Harness::new().await;
    let site = harness.site().await;
    let browser = Browser::new();
    let callback = browser.callback_of(&format!("{}/me?a=b", site.url)).await;
    let mut denied = url::Url::parse(&callback).unwrap();
    let state = denied
        .query_pairs()
        .find(|(name, _)| name == "state")
        .unwrap()
        .1
        .into_owned();
    denied.set_query(Some(&format!("state={state}")));

    let page = browser.visit(denied.as_str()).await;
    page.is_page(403, "您已取消授权");
    assert!(
        page.text
            .contains("href=\"/wechat/login?return_to=%2Fme%3Fa%3Db\""),
        "{}",
        page.text
    );
    browser
        .fetch(denied.as_str())
        .await
        .is_error(403, "login_denied");
    assert_eq!(harness.exchanges(), 0);
    // A user who has denied can still log in.
    assert_eq!(browser.open(&callback).await.json()["id"], ALICE);
}

#[tokio::test]
async fn a_configured_identity_stays_with_a_login() {
    let harness = Harness::new().await;
    let header = TrustedHeader::new("x-user").unwrap();
    let site = harness
        .mounted(
            |login| login,
            |layer, login| {
                // The identity is set before the login, which must not replace it.
                pages().layer(layer.identity(header).login(login))
            },
        )
        .await;
    let browser = Browser::new();
    // After the login the session cookie names a user, but the layer reads only the header.
    let landed = browser.callback_of(&format!("{}/me", site.url)).await;
    let landed = browser.visit(&landed).await;
    assert_eq!(
        (landed.status, landed.header("location")),
        (302, Some("/me"))
    );
    browser
        .fetch(&format!("{}/me", site.url))
        .await
        .is_error(401, "login_required");
    let gateway = Browser::new().with_header("x-user", ALICE);
    assert_eq!(
        gateway.fetch(&format!("{}/me", site.url)).await.json()["id"],
        ALICE
    );
}

/// Starts a site that identifies users by the header `x-user`, and whose logins are bound to that
/// user.
async fn behind_a_gateway(harness: &Harness) -> Site {
    let header = TrustedHeader::new("x-user").unwrap();
    harness
        .mounted(
            |login| login.bind_to_identity(true),
            |layer, login| pages().layer(layer.identity(header).login(login)),
        )
        .await
}

#[tokio::test]
async fn a_login_can_be_bound_to_the_gateways_user() {
    let harness = Harness::new().await;
    let site = behind_a_gateway(&harness).await;
    let page = format!("{}/me", site.url);
    let browser = Browser::new().with_header("x-user", "employee 7");
    let me = browser.open(&page).await.json();
    assert_eq!(
        (me["id"].as_str(), me["openid"].as_str()),
        (Some("employee 7"), Some(ALICE))
    );
    assert_eq!(harness.exchanges(), 1);
    // Another user of the gateway is not logged in.
    let colleague = Browser::new().with_header("x-user", "employee 8");
    colleague.fetch(&page).await.is_error(401, "login_required");
    // Without a user in the header, the login stores the tokens under the openid.
    let unnamed = Browser::new();
    let landed = unnamed.callback_of(&page).await;
    assert_eq!(unnamed.visit(&landed).await.status, 302);
    let openid = Browser::new().with_header("x-user", ALICE);
    assert_eq!(openid.fetch(&page).await.json()["id"], ALICE);
}

#[tokio::test]
async fn a_bound_login_rejects_virtual_and_invalid_users() {
    let harness = Harness::new().await;
    let site = behind_a_gateway(&harness).await;
    let page = format!("{}/me", site.url);
    harness
        .sim
        .add_user(SimulatedUser::new("oVirtual").snapshot(true));
    let browser = Browser::new().with_header("x-user", "employee 7");
    browser.open(&page).await.is_page(403, "请使用完整服务");
    let anonymous = Browser::new().with_header("x-user", &"x".repeat(257));
    let callback = format!("{}/wechat/callback?code=c&state=s", site.url);
    anonymous
        .fetch(&callback)
        .await
        .is_error(400, "bad_request");
}

#[tokio::test]
async fn optional_routes_pass_and_handlers_reject_as_the_layer() {
    let harness = Harness::new().await;
    let site = harness
        .mounted(
            |login| login,
            |layer, login| {
                pages()
                    .route("/open", axum::routing::get(async || "open"))
                    .layer(layer.policy(Policy::Optional).login(login))
            },
        )
        .await;
    let browser = Browser::new();
    assert_eq!(
        browser.visit(&format!("{}/open", site.url)).await.text,
        "open"
    );
    browser
        .fetch(&format!("{}/me", site.url))
        .await
        .is_error(401, "login_required");
    assert_eq!(
        browser.open(&format!("{}/me", site.url)).await.json()["id"],
        ALICE
    );
    assert_eq!(harness.sim.calls_to(EXCHANGE), 1);
}

#[tokio::test]
async fn a_page_can_explain_that_wechat_is_required() {
    let harness = Harness::new().await;
    let site = harness.site_with(|login| login.wechat_only(true)).await;
    let chrome = Browser::new();
    let html = [
        ("accept", "text/html"),
        ("user-agent", "Mozilla/5.0 Chrome/130.0"),
    ];
    let page = chrome
        .send(http::Method::GET, &format!("{}/me", site.url), &html)
        .await
        .unwrap();
    page.is_page(403, "请在微信中打开");
    assert_eq!(chrome.visit(&format!("{}/me", site.url)).await.status, 302);
}

#[tokio::test]
async fn a_lenient_login_does_without_the_cookie() {
    let harness = Harness::new().await;
    let site = harness
        .site_with(|login| login.dangerous_allow_missing_state_cookie(true))
        .await;
    let browser = Browser::new();
    let callback = browser.callback_of(&format!("{}/me", site.url)).await;
    browser.drop_cookies(|_| true);
    let landed = browser.open(&callback).await;
    assert_eq!(landed.json()["id"], ALICE);
    assert_eq!(landed.json()["uri"], json!("/"));
    let forged = callback.replace("state=", "state=0");
    Browser::new()
        .fetch(&forged)
        .await
        .is_error(400, "invalid_state");
}

#[tokio::test]
async fn wechats_fragment_can_be_cleared() {
    let harness = Harness::new().await;
    let site = harness.site_with(|login| login.clear_fragment(true)).await;
    for (asked, landed) in [("%2Fme%3Fa%3Db", "/me?a=b#"), ("%2Fme%23tab", "/me#tab")] {
        let browser = Browser::new();
        let login = format!("{}/wechat/login?return_to={asked}", site.url);
        let reply = browser.visit(&browser.callback_of(&login).await).await;
        assert_eq!(reply.header("location"), Some(landed));
    }
}
