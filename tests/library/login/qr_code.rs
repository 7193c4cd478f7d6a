//! Tests of the parameters with which a page shows the QR code of a website's login.

use axum::body::Body;
use axum::response::Response;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::json;
use tower::ServiceExt;
use tower_wechat::{CookieKeys, Login, Rejection, RequestHead, WechatLayer};

use super::frame::{DESKTOP, WEBSITE, WEBSITE_SESSION, desktop, website_app, with_website};
use super::harness::{ALICE, Harness, Site, pages, router};
use crate::support::browser::{Browser, Reply, SESSION};

const LINK: &str = "/wechat/login?return_to=%2Fme%3Fa%3Db&format=json";
const PHONE: &str = "Mozilla/5.0 (Linux; Android 14; Pixel 8) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Mobile Safari/537.36";

/// Asserts that a reply has the parameters of a login at this site. Returns its state.
#[track_caller]
fn state_of(reply: &Reply, redirect_uri: &str) -> String {
    assert_eq!(reply.status, 200, "{}", reply.text);
    for (name, value) in [
        ("content-type", "application/json"),
        ("cache-control", "no-store"),
        ("vary", "user-agent"),
    ] {
        let found = reply.header(name).map(str::to_ascii_lowercase);
        assert_eq!(found.as_deref(), Some(value), "{name}");
    }
    let json = reply.json();
    let state = json["state"].as_str().unwrap().to_owned();
    assert_eq!(
        json,
        json!({
            "appid": WEBSITE,
            "scope": "snsapi_login",
            "redirect_uri": url::form_urlencoded::byte_serialize(redirect_uri.as_bytes()).collect::<String>(),
            "state": state,
        })
    );
    state
}

async fn asked(browser: &Browser, site: &Site, link: &str) -> Reply {
    browser.fetch(&format!("{}{link}", site.url)).await
}

#[tokio::test]
async fn a_login_begins_with_the_parameters_of_a_qr_code() {
    let harness = Harness::new().await;
    let site = harness.site_with(with_website(&harness)).await;
    let callback = format!("{}/wechat/callback", site.url);
    let browser = desktop();
    let reply = asked(&browser, &site, LINK).await;
    let state = state_of(&reply, &callback);
    assert_eq!(reply.cookies().len(), 1, "{:?}", reply.cookies());
    assert!(reply.cookies()[0].contains("SameSite=Lax"));
    // No script of another origin may read it.
    let other = [("origin", "https://evil.example.com"), ("accept", "*/*")];
    let url = format!("{}{LINK}", site.url);
    let foreign = browser.send(Method::GET, &url, &other).await.unwrap();
    assert!(foreign.header("access-control-allow-origin").is_none());
    // A second request within a minute continues the same login.
    assert_eq!(
        state_of(&asked(&browser, &site, LINK).await, &callback),
        state
    );

    // The user scans the code.
    let code = website_app(&harness).authorize(ALICE, "snsapi_login");
    let callback = format!("{callback}?code={code}&state={state}");
    desktop()
        .visit(&callback)
        .await
        .is_page(400, "登录状态无效");
    let done = browser.visit(&callback).await;
    assert_eq!(
        (done.status, done.header("location")),
        (302, Some("/me?a=b"))
    );
    assert!(browser.cookie(WEBSITE_SESSION).is_some() && browser.cookie(SESSION).is_none());
    let me = asked(&browser, &site, "/me").await.json();
    assert_eq!(me["openid"], website_app(&harness).openid_of(ALICE));
    assert_eq!(harness.exchanges(), 1);
}

/// The parameters are for the browsers whose login begins with a QR code.
#[tokio::test]
async fn other_browsers_get_an_error() {
    let harness = Harness::new().await;
    let site = harness.site_with(with_website(&harness)).await;
    for (browser, status, code) in [
        (Browser::new(), 400, "bad_request"),
        (
            Browser::new().with_header("user-agent", PHONE),
            403,
            "login_denied",
        ),
    ] {
        let reply = asked(&browser, &site, LINK).await;
        reply.is_error(status, code);
        assert!(reply.cookies().is_empty());
        assert_eq!(
            reply.header("vary").unwrap().to_ascii_lowercase(),
            "user-agent"
        );
        // The same link without `format` begins a login or shows the hint.
        let link = format!("{}/wechat/login?return_to=%2Fme", site.url);
        let status = browser.visit(&link).await.status;
        assert!([302, 403].contains(&status), "{status}");
    }
    let page = Browser::new().visit(&format!("{}{LINK}", site.url)).await;
    page.is_page(400, "无需扫码");
    assert!(
        page.text
            .contains("href=\"/wechat/login?return_to=%2Fme%3Fa%3Db\"")
    );

    let site = harness.site().await;
    for browser in [desktop(), Browser::new()] {
        let reply = asked(&browser, &site, LINK).await;
        reply.is_error(400, "bad_request");
        assert!(reply.cookies().is_empty());
    }
}

#[tokio::test]
async fn the_link_has_the_rules_of_all_links_to_the_login() {
    let harness = Harness::new().await;
    let site = harness.site_with(with_website(&harness)).await;
    let landing = async |link: &str| {
        let browser = desktop();
        let reply = asked(&browser, &site, link).await;
        let state = state_of(&reply, &format!("{}/wechat/callback", site.url));
        let code = website_app(&harness).authorize(ALICE, "snsapi_login");
        let url = format!("{}/wechat/callback?code={code}&state={state}", site.url);
        browser
            .visit(&url)
            .await
            .header("location")
            .unwrap()
            .to_owned()
    };
    for (link, page) in [
        ("/wechat/login?format=json", "/"),
        ("/wechat/login/?format=json&return_to=%2Fme", "/me"),
        ("/wechat/login?return_to=/me&format=json", "/me"),
        (
            "/wechat/login?format=json&return_to=%2F%2Fevil.example.com",
            "/",
        ),
        (
            "/wechat/login?format=json&return_to=https%3A%2F%2Fevil.example.com",
            "/",
        ),
        ("/wechat/login?format=json&return_to=%2Fwechat%2Flogin", "/"),
        ("/wechat/login?format=json&scope=snsapi_base", "/"),
    ] {
        assert_eq!(landing(link).await, page, "{link}");
    }
    // Other formats are ignored, and a parameter behind an unencoded page belongs to the page.
    for link in [
        "/wechat/login?return_to=%2Fme&format=xml",
        "/wechat/login?return_to=%2Fme&format=",
        "/wechat/login?return_to=%2Fme&format=JSON",
        "/wechat/login?return_to=/me?a=b&format=json",
    ] {
        let reply = asked(&desktop(), &site, link).await;
        assert_eq!(reply.status, 302, "{link}");
        assert!(
            reply
                .header("location")
                .unwrap()
                .contains("/connect/qrconnect?")
        );
    }
    for method in [Method::POST, Method::DELETE] {
        let url = format!("{}{LINK}", site.url);
        let reply = desktop().send(method, &url, &[]).await.unwrap();
        assert_eq!(reply.status, 400);
    }
}

/// A page that asks again and again gets the limit of all logins, and the cookies stay small.
#[tokio::test]
async fn many_requests_are_limited() {
    let harness = Harness::new().await;
    let site = harness.site_with(with_website(&harness)).await;
    let browser = desktop();
    // A user opens and closes the page's dialog some times, faster than a page can be loaded.
    let script = [
        ("sec-fetch-mode", "cors"),
        ("sec-fetch-site", "same-origin"),
    ];
    let url = format!(
        "{}/wechat/login?return_to=%2Fsigned-in&format=json",
        site.url
    );
    let mut statuses = Vec::new();
    for _ in 0..20 {
        let reply = browser.send(Method::GET, &url, &script).await.unwrap();
        statuses.push(reply.status);
    }
    assert_eq!(statuses[..10], [200; 10], "{statuses:?}");
    assert_eq!(statuses[19], 429, "{statuses:?}");
    for number in 0..100 {
        let link = format!("/wechat/login?return_to=%2F{number}&format=json");
        let reply = asked(&browser, &site, &link).await;
        let bytes: usize = reply.cookies().iter().map(|cookie| cookie.len()).sum();
        assert!(reply.status == 200 && bytes < 4_096, "{bytes}");
    }
}

#[tokio::test]
async fn a_renderer_keeps_the_parameters() {
    let harness = Harness::new().await;
    let render = |rejection: &Rejection, _: &RequestHead<'_>| {
        let body = rejection
            .page()
            .unwrap_or_else(|| rejection.message().to_owned());
        let response = Response::builder().status(rejection.status());
        let response = response
            .header("content-type", "text/html")
            .header("cache-control", "public");
        response.body(Body::from(body)).unwrap()
    };
    let app =
        move |layer: WechatLayer, login: Login| pages().layer(layer.login(login).reject(render));
    let site = harness.mounted(with_website(&harness), app).await;
    let reply = asked(&desktop(), &site, LINK).await;
    state_of(&reply, &format!("{}/wechat/callback", site.url));
    assert!(reply.header("cache-control") == Some("no-store"));
}

#[tokio::test]
async fn the_callback_has_the_prefix_of_the_public_url() {
    let harness = Harness::new().await;
    let with_website = with_website(&harness);
    let site = harness
        .behind("https://h5.example.com/h5", with_website, router)
        .await;
    for path in ["", "/h5"] {
        let reply = asked(&desktop(), &site, &format!("{path}{LINK}")).await;
        state_of(&reply, "https://h5.example.com/h5/wechat/callback");
    }
}

#[tokio::test]
async fn a_service_without_axum_has_the_parameters_too() {
    let harness = Harness::new().await;
    let login = Login::builder("https://h5.example.com", CookieKeys::random().unwrap());
    let login = with_website(&harness)(login).build().unwrap();
    let layer = WechatLayer::new(harness.users().await).login(login);
    let request = Request::get(LINK)
        .header("user-agent", DESKTOP)
        .body(())
        .unwrap();
    let response = layer.login_service::<Full<bytes::Bytes>>().oneshot(request);
    let response = response.await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["content-type"], "application/json");
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let json: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(
        json["redirect_uri"],
        "https%3A%2F%2Fh5.example.com%2Fwechat%2Fcallback"
    );
}
