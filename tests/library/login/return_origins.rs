//! Tests of front ends on other origins: return pages there, and absolute login URLs for them.

use std::convert::Infallible;

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::Full;
use serde_json::Value;
use tower::{Layer, ServiceExt, service_fn};
use tower_wechat::login::LoginBuilder;
use tower_wechat::simulator::Fault;
use tower_wechat::{Login, Policy, Rejection, WechatLayer, WechatUser};

use super::harness::{Harness, Site, USERINFO, pages, router};
use crate::support::browser::{Browser, Reply};

const PAGES: &str = "https://www.example.com";

/// Lists the origin of the pages. Under an http public URL, https origins are allowed too.
fn list_pages(login: LoginBuilder) -> LoginBuilder {
    login.return_origins([PAGES, "http://localhost:5173"])
}

fn encode(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

/// Logs a browser in by a link, and returns the `Location` of the callback's reply.
async fn landing(site: &Site, return_to: &str) -> String {
    let login = format!("{}/wechat/login?return_to={}", site.url, encode(return_to));
    let browser = Browser::new();
    let callback = browser.callback_of(&login).await;
    let reply = browser.visit(&callback).await;
    assert_eq!(reply.status, 302, "{reply:?}");
    assert!(
        browser
            .cookie_names()
            .iter()
            .any(|name| name.starts_with("wechat_session"))
    );
    reply.header("location").unwrap().to_owned()
}

#[tokio::test]
async fn a_login_leads_to_pages_of_listed_origins() {
    let harness = Harness::new().await;
    let site = harness.site_with(list_pages).await;
    let long = format!("{PAGES}/?q={}", "x".repeat(2_048 - PAGES.len() - 4));
    for (asked, landed) in [
        (
            "https://www.example.com/cart?a=1;b=2",
            "https://www.example.com/cart?a=1;b=2",
        ),
        (
            "https://www.example.com/#/step/2",
            "https://www.example.com/#/step/2",
        ),
        ("https://www.example.com", "https://www.example.com/"),
        (
            "HTTPS://WWW.EXAMPLE.COM:443/茶",
            "https://www.example.com/%E8%8C%B6",
        ),
        (
            "http://localhost:5173/?q=a b",
            "http://localhost:5173/?q=a%20b",
        ),
        (&long, &long),
        (&format!("{}/me?a=b", site.url), "/me?a=b"),
        ("/me", "/me"),
    ] {
        assert_eq!(landing(&site, asked).await, landed, "{asked}");
    }
}

#[tokio::test]
async fn other_origins_lead_to_the_start_page() {
    let harness = Harness::new().await;
    let site = harness.site_with(list_pages).await;
    for trick in [
        "https://www.example.com@evil.example/",
        "https://user@www.example.com/",
        "//www.example.com/",
        "//evil.example",
        "https:\\\\www.example.com/",
        "https:\\\\evil.example",
        "https://www.example.com\\@evil.example/",
        "https://www.example.com.evil.example/",
        "https://www.example.com:444/",
        "http://www.example.com/",
        "http://localhost:5174/",
        "https://localhost:5173/",
        "https://www.exam\tple.com/",
        "\nhttps://www.example.com/",
        "https://www.example.com/\r\nSet-Cookie: a=b",
        "https://www\u{3002}example\u{3002}com/",
        "https://www.example.com%2f@evil.example/",
        "https://www.example.com/%2f/evil.example",
        "https://www.example.com/\\evil.example",
        "https://www.example.com/..//evil.example",
        "javascript:alert(1)",
        "null",
        &format!("https://www.example.com/{}", "x".repeat(2_048)),
    ] {
        assert_eq!(landing(&site, trick).await, "/", "{trick}");
    }
    // Without a list, the login knows its own origin only.
    let site = harness.site().await;
    assert_eq!(landing(&site, &format!("{PAGES}/")).await, "/");
}

/// The callback checks the page again. The process that answers it may have other settings than
/// the process that began the login.
#[tokio::test]
async fn a_removed_origin_leads_to_the_start_page() {
    let harness = Harness::new().await;
    let old = harness.site_with(list_pages).await;
    let new = harness.behind(&old.url, |login| login, router).await;
    for (origin, landed) in [(PAGES, "/"), (old.url.as_str(), "/me")] {
        let browser = Browser::new();
        let page = encode(&format!("{origin}/me"));
        let login = format!("{}/wechat/login?return_to={page}", old.url);
        let callback = browser.callback_of(&login).await;
        let reply = browser.visit(&callback.replace(&old.url, &new.url)).await;
        assert_eq!(reply.header("location"), Some(landed));
        // A reload of the callback leads to the same page.
        let reply = browser.visit(&callback.replace(&old.url, &new.url)).await;
        assert_eq!(reply.header("location"), Some(landed));
    }
}

/// Sends a request of a script with these headers.
async fn ask(url: &str, headers: &[(&'static str, &str)]) -> Reply {
    let mut browser = Browser::new();
    for (name, value) in headers {
        browser = browser.with_header(name, value);
    }
    browser.fetch(url).await
}

/// Each pair is the headers of a request, and the page to which its `login_url` leads back. The
/// URL is absolute if that page is.
fn pages_by_headers(own: &str) -> Vec<(Vec<(&'static str, String)>, String)> {
    let headers = |origin: &str, referer: &str| {
        let all = [
            ("origin", origin.to_owned()),
            ("referer", referer.to_owned()),
        ];
        all.into_iter()
            .filter(|(_, value)| !value.is_empty())
            .collect()
    };
    let (front, whole) = (
        "https://www.example.com/",
        "https://www.example.com/cart?a#b",
    );
    let (own_page, evil) = (format!("{own}/me?a"), "https://evil.example/");
    [
        // By default browsers send the bare origin as `Referer` to another origin.
        (headers(PAGES, front), front),
        (headers(PAGES, ""), front),
        (headers(PAGES, whole), "https://www.example.com/cart?a"),
        (headers(PAGES, "http://localhost:5173/a"), front),
        (headers(PAGES, &own_page), front),
        (headers(PAGES, evil), front),
        (
            headers(PAGES, &format!("{front}{}", "x".repeat(2_048))),
            front,
        ),
        (headers("", whole), "https://www.example.com/cart?a"),
        (
            headers("http://localhost:5173", ""),
            "http://localhost:5173/",
        ),
        // Requests of the own origin, and of origins that are not listed.
        (headers("", &own_page), "/me?a"),
        (headers(own, &own_page), "/me?a"),
        (headers("", ""), "/"),
        (headers("null", whole), "/"),
        (headers(evil, whole), "/"),
        (headers("https://evil.example", &own_page), "/me?a"),
        (headers("https://www.example.com.evil.example", evil), "/"),
        (headers("https://www.example.com:444", ""), "/"),
        (headers("https://www.example.com/", front), "/"),
        (headers("*", evil), "/"),
    ]
    .map(|(headers, page)| (headers, page.to_owned()))
    .into()
}

#[track_caller]
fn leads_to(json: &Value, own: &str, page: &str) {
    let relative = format!("/wechat/login?return_to={}", encode(page));
    let expected = match page.starts_with('/') {
        true => relative,
        false => format!("{own}{relative}"),
    };
    assert_eq!(json["login_url"], expected);
}

/// The layer rejects a request, an extractor rejects it, and a handler returns an error. The three
/// responses have the same `login_url`.
#[tokio::test]
async fn login_urls_for_listed_origins_are_absolute() {
    let harness = Harness::new().await;
    let app = |layer: WechatLayer, login: Login| {
        let layer = layer.login(login);
        let optional = Router::new()
            .route("/optional", get(async |_: WechatUser| "never"))
            .layer(layer.clone().policy(Policy::Optional));
        pages().layer(layer).merge(optional)
    };
    let site = harness.mounted(list_pages, app).await;
    let known = Browser::new();
    known.open(&format!("{}/me", site.url)).await;
    for (headers, page) in pages_by_headers(&site.url) {
        let headers: Vec<_> = headers
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        for path in ["/me", "/optional"] {
            let reply = ask(&format!("{}{path}", site.url), &headers).await;
            leads_to(&reply.is_error(401, "login_required"), &site.url, &page);
            assert_eq!(reply.header("cache-control"), Some("no-store"));
        }
        // WeChat rejects the user's token for lack of a scope, and the handler returns that error.
        harness
            .sim
            .inject(Fault::on(USERINFO).errcode(48_001).times(1));
        let nickname = format!("{}/nickname", site.url);
        let reply = known.send(Method::GET, &nickname, &headers).await.unwrap();
        let mut json = reply.is_error(401, "login_required");
        let login_url = json["login_url"].as_str().unwrap();
        json["login_url"] = login_url
            .strip_suffix("&scope=snsapi_userinfo")
            .unwrap()
            .into();
        leads_to(&json, &site.url, &page);
    }
    // Without a list, all URLs are paths.
    let site = harness.site().await;
    let reply = ask(&format!("{}/me", site.url), &[("origin", PAGES)]).await;
    leads_to(&reply.is_error(401, "login_required"), &site.url, "/");
}

#[tokio::test]
async fn login_urls_of_services_without_axum_are_absolute() {
    let harness = Harness::new().await;
    let login = list_pages(Login::builder(
        "http://api.example.com/v1",
        tower_wechat::CookieKeys::random().unwrap(),
    ));
    let layer = WechatLayer::new(harness.users().await).login(login.build().unwrap());
    let handler = async |request: Request<Body>| {
        let rejection = WechatUser::required(&request).unwrap_err();
        Ok::<_, Infallible>(rejection.response().map(Full::<Bytes>::new))
    };
    let service = layer.policy(Policy::Optional).layer(service_fn(handler));
    let request = Request::get("/me").header("origin", PAGES);
    let request = request.body(Body::empty()).unwrap();
    let response: Response<Full<Bytes>> = service.oneshot(request).await.unwrap();
    let rejection = response.extensions().get::<Rejection>().is_none();
    assert!(rejection, "the layer has rendered the rejection");
    let body = http_body_util::BodyExt::collect(response.into_body())
        .await
        .unwrap();
    let json: Value = serde_json::from_slice(&body.to_bytes()).unwrap();
    assert_eq!(
        json["login_url"],
        "http://api.example.com/v1/wechat/login?return_to=https%3A%2F%2Fwww.example.com%2F"
    );
}

/// A form leads back to the page with the form. A page load leads to the page that it requested,
/// wherever its link was.
#[tokio::test]
async fn forms_lead_back_and_page_loads_lead_on() {
    let harness = Harness::new().await;
    let site = harness.site_with(list_pages).await;
    let me = format!("{}/me?a=b", site.url);
    let headers = [
        ("origin", PAGES),
        ("referer", "https://www.example.com/"),
        ("sec-fetch-mode", "navigate"),
        ("sec-fetch-site", "same-site"),
    ];
    let browser = Browser::new();
    let reply = browser.send(Method::POST, &me, &headers).await.unwrap();
    assert_eq!(reply.status, 303);
    let callback = browser.callback_of(reply.header("location").unwrap()).await;
    let reply = browser.visit(&callback).await;
    assert_eq!(reply.header("location"), Some("https://www.example.com/"));

    let browser = Browser::new();
    let reply = browser.send(Method::GET, &me, &headers[1..]).await.unwrap();
    let callback = browser.callback_of(reply.header("location").unwrap()).await;
    assert_eq!(
        browser.visit(&callback).await.header("location"),
        Some("/me?a=b")
    );
}

/// A user may go back from WeChat's page and press the button of the front end again. Such requests
/// come from another origin, as lost callbacks do.
#[tokio::test]
async fn repeated_logins_from_another_origin_are_no_loop() {
    let harness = Harness::new().await;
    let site = harness.site_with(list_pages).await;
    let page = encode("https://www.example.com/#/cart");
    let login = format!("{}/wechat/login?return_to={page}", site.url);
    let browser = Browser::new()
        .with_header("sec-fetch-mode", "navigate")
        .with_header("sec-fetch-site", "same-site");
    for _ in 0..8 {
        assert_eq!(browser.visit(&login).await.status, 302);
    }
    let callback = browser.callback_of(&login).await;
    let reply = browser.visit(&callback).await;
    assert_eq!(
        reply.header("location"),
        Some("https://www.example.com/#/cart")
    );
}
