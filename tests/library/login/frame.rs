//! Tests of callbacks in a frame: the page that loads the callback again, its escaping, its headers,
//! and requests that do not get it.

use axum::body::Body;
use axum::response::Response;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tower::{Layer, ServiceExt};
use tower_wechat::login::LoginBuilder;
use tower_wechat::redis::Layout;
use tower_wechat::simulator::SimulatedApp;
use tower_wechat::{
    Account, AccountSelector, Accounts, CookieKeys, Login, MemoryStore, RedisStore, Rejection,
    RequestHead, Store, UserTokens, WechatLayer,
};
use url::Url;

use super::harness::{ALICE, Harness, Site, pages, router};
use crate::support::browser::{Browser, Reply};

pub const DESKTOP: &str = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Safari/537.36";
pub const WEBSITE: &str = "wxfedcba9876543210";
pub const WEBSITE_SESSION: &str = "wechat_session_wxfedcba9876543210_wx0123456789abcdef";

/// Headers of the first request of a callback in a frame, to which a page of WeChat leads.
const FIRST: [(&str, &str); 4] = [
    ("accept", "text/html"),
    ("sec-fetch-mode", "navigate"),
    ("sec-fetch-dest", "iframe"),
    ("sec-fetch-site", "cross-site"),
];

/// Headers of the second request, which a page of the application's origin causes.
const SECOND: [(&str, &str); 4] = [
    ("accept", "text/html"),
    ("sec-fetch-mode", "navigate"),
    ("sec-fetch-dest", "iframe"),
    ("sec-fetch-site", "same-origin"),
];

const PAGE_POLICY: &str =
    "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'";

pub fn website_app(harness: &Harness) -> SimulatedApp {
    harness.sim.add_website(WEBSITE, "secret-of-the-website")
}

fn website_users(harness: &Harness, store: impl Store) -> UserTokens {
    UserTokens::builder(website_app(harness).client().unwrap(), store)
        .clock(harness.clock.clone())
        .build()
}

/// Adds a website with a separate store.
pub fn with_website(harness: &Harness) -> impl FnOnce(LoginBuilder) -> LoginBuilder {
    let users = website_users(harness, MemoryStore::with_clock(harness.clock.clone()));
    |login| login.website(users)
}

pub fn desktop() -> Browser {
    Browser::new().with_header("user-agent", DESKTOP)
}

/// Starts a login of a desktop browser for `/me?a=b`. Returns its callback, which was not opened.
async fn begun(browser: &Browser, site: &Site) -> String {
    browser.callback_of(&format!("{}/me?a=b", site.url)).await
}

async fn sent(browser: &Browser, url: &str, headers: &[(&str, &str)]) -> Reply {
    browser.send(Method::GET, url, headers).await.unwrap()
}

/// Returns the URL that the page of a frame loads: the value of the attribute, as a browser reads it.
#[track_caller]
fn target(html: &str) -> String {
    let (_, rest) = html
        .split_once("http-equiv=\"refresh\" content=\"0;url=")
        .unwrap_or_else(|| panic!("{html}"));
    let (value, rest) = rest.split_once('"').unwrap();
    assert!(rest.starts_with("><title>"), "{html}");
    assert!(
        !value.contains(['<', '>', '\'', '\\', '`', '\n']),
        "{value}"
    );
    value.replace("&amp;", "&")
}

/// Asserts that a reply is the page of a frame, with all its headers and nothing else. Returns the
/// URL that the page loads.
#[track_caller]
fn is_frame_page(reply: &Reply) -> String {
    assert_eq!(reply.status, 200, "{}", reply.text);
    for (name, value) in [
        ("content-type", "text/html; charset=utf-8"),
        ("content-security-policy", PAGE_POLICY),
        ("referrer-policy", "no-referrer"),
        ("cache-control", "no-store"),
    ] {
        assert_eq!(reply.header(name), Some(value), "{name}");
    }
    assert!(reply.header("x-frame-options").is_none());
    assert!(reply.cookies().is_empty() && reply.location().is_none());
    assert!(!reply.text.contains("<script") && !reply.text.contains("http:"));
    let target = target(&reply.text);
    assert_eq!(reply.header("refresh"), Some(&*format!("0;url={target}")));
    target
}

#[tokio::test]
async fn a_frame_loads_its_callback_again_and_signs_in() {
    let harness = Harness::with_redis().await;
    let redis = harness.redis.as_ref().unwrap();
    let keys = || {
        redis::cmd("KEYS")
            .arg("*")
            .query::<Vec<String>>(&mut redis.connection())
    };
    let store = RedisStore::builder(&redis.url()).layout(Layout::Keys);
    let store = store.connect().await.unwrap();
    let users = website_users(&harness, store);
    let site = harness.site_with(|login| login.website(users)).await;
    let browser = desktop();
    let callback = begun(&browser, &site).await;
    let (cookies, before) = (browser.cookie_names(), keys().unwrap());

    // The first request has no cookies. It spends and binds nothing, however often it comes.
    for _ in 0..3 {
        let reply = sent(&desktop(), &callback, &FIRST).await;
        let url = Url::parse(&callback).unwrap();
        let query = url.query().unwrap();
        assert_eq!(
            is_frame_page(&reply),
            format!("/wechat/callback?{query}&frame_reload=1")
        );
    }
    assert_eq!((harness.exchanges(), keys().unwrap()), (0, before));
    // The reply is the same if the browser sends its cookies, and leaves them as they are.
    let reply = sent(&browser, &callback, &FIRST).await;
    let again = Url::parse(&callback).unwrap();
    let again = again.join(&is_frame_page(&reply)).unwrap();
    assert_eq!((browser.cookie_names(), harness.exchanges()), (cookies, 0));

    let done = sent(&browser, again.as_str(), &SECOND).await;
    assert_eq!(done.status, 302, "{}", done.text);
    assert_eq!(
        done.header("location"),
        Some("/me?a=b"),
        "without the marker"
    );
    assert!(browser.cookie(WEBSITE_SESSION).is_some());
    let me = browser.fetch(&format!("{}/me", site.url)).await.json();
    assert_eq!(me["id"], website_app(&harness).openid_of(ALICE), "{me}");
    assert_eq!(harness.exchanges(), 1);
    // A reload of the frame leads to the page too.
    let reload = sent(&browser, again.as_str(), &SECOND).await;
    assert_eq!(reload.header("location"), Some("/me?a=b"));
    assert_eq!(harness.exchanges(), 1);
}

#[tokio::test]
async fn a_marked_callback_is_not_loaded_a_third_time() {
    let harness = Harness::new().await;
    let site = harness.site_with(with_website(&harness)).await;
    let browser = desktop();
    let callback = begun(&browser, &site).await;
    for query in ["&frame_reload=1", "&frame_reload=1&frame_reload=1"] {
        let url = format!("{callback}{query}");
        let reply = sent(&desktop(), &url, &FIRST).await;
        reply.is_page(400, "登录状态无效");
        is_framed(&reply);
        assert_eq!(harness.exchanges(), 0);
    }
    // Another value is no marker, and the marker at the front is one.
    let (path, query) = callback.split_once('?').unwrap();
    let other = format!("{path}?frame_reload=10&{query}");
    is_frame_page(&sent(&desktop(), &other, &FIRST).await);
    let marked = format!("{path}?frame_reload=1&{query}");
    assert_eq!(sent(&desktop(), &marked, &FIRST).await.status, 400);
}

/// Asserts that pages of the same origin may frame a reply, and no other pages.
#[track_caller]
fn is_framed(reply: &Reply) {
    let policies: Vec<_> = reply
        .headers
        .get_all("content-security-policy")
        .iter()
        .collect();
    assert_eq!(policies.len(), 1, "{policies:?}");
    let policy = policies[0].to_str().unwrap();
    assert!(policy.ends_with("frame-ancestors 'self'"), "{policy}");
    assert_eq!(policy.matches("frame-ancestors").count(), 1, "{policy}");
    assert!(reply.header("x-frame-options").is_none());
}

/// Sends a request line as it is, and returns the whole response.
async fn raw(site: &Site, target: &[u8]) -> String {
    let address = site.url.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let mut request = b"GET ".to_vec();
    request.extend(target);
    request.extend(b" HTTP/1.1\r\nhost: h5\r\nconnection: close\r\n");
    for (name, value) in FIRST {
        request.extend(format!("{name}: {value}\r\n").bytes());
    }
    request.extend(b"\r\n");
    stream.write_all(&request).await.unwrap();
    let mut response = Vec::new();
    stream.read_to_end(&mut response).await.unwrap();
    String::from_utf8(response).unwrap()
}

/// No bytes of a query change the page.
#[tokio::test]
async fn every_query_is_escaped() {
    let harness = Harness::new().await;
    let site = harness.site_with(with_website(&harness)).await;
    let long = format!("state={}", "'&amp;\\`{".repeat(1_000));
    let queries: [&[u8]; 13] = [
        b"",
        b"code",
        b"code=a&state=b",
        b"code='onload=alert(1)//&state=`",
        b"code=a;url=https://evil.example.com/&state=b",
        b"code=a&amp;state=b&lt;&quot;",
        b"code=%22%3E%3Cscript%3E%0D%0ASet-Cookie:%20a=b",
        b"https://evil.example.com/?url=//evil.example.com/",
        b"state=\\\\evil.example.com`{|}^",
        "state=状态&code=é".as_bytes(),
        b"state=%",
        b"state=%zz&&&=",
        long.as_bytes(),
    ];
    for query in queries {
        let mut target_of_request = b"/wechat/callback?".to_vec();
        target_of_request.extend(query);
        let response = raw(&site, &target_of_request).await;
        let (head, body) = response.split_once("\r\n\r\n").unwrap();
        let shown = String::from_utf8_lossy(query);
        assert!(head.starts_with("HTTP/1.1 200 "), "{shown}: {head}");
        let (policy, cookie) = (format!("policy: {PAGE_POLICY}\r\n"), "\r\nset-cookie");
        assert!(head.contains(&policy) && !head.contains(cookie), "{head}");
        assert!(head.len() < 3_500, "{} bytes", head.len());
        assert_eq!(body.matches('<').count(), 12, "{body}");
        let target = target(body);
        let (path, marked) = target.split_once('?').unwrap();
        assert_eq!(path, "/wechat/callback");
        let kept = marked.strip_suffix("frame_reload=1").unwrap();
        // The second request has the same parameters.
        let pairs =
            |query: &[u8]| -> Vec<_> { url::form_urlencoded::parse(query).into_owned().collect() };
        assert_eq!(pairs(kept.as_bytes()), pairs(query));
    }
    // The server rejects other bytes before the login.
    for query in [
        &b"code=\"><script>alert(1)</script>&state=b"[..],
        b"state=<",
        b"state=>",
        b"state=\xff\xfe",
        b"state=a\x00b",
        b"state=a\x01b",
    ] {
        let mut target = b"/wechat/callback?".to_vec();
        target.extend(query);
        let response = raw(&site, &target).await;
        assert!(response.starts_with("HTTP/1.1 400 "), "{response}");
        assert!(!response.contains("http-equiv"), "{response}");
    }
}

/// Requests that are handled as without a website, and the headers of their requests.
#[tokio::test]
async fn other_requests_are_handled_at_once() {
    let harness = Harness::new().await;
    let site = harness.site_with(with_website(&harness)).await;
    let bad = format!("{}/wechat/callback?code=a&state=b", site.url);
    let with = |changes: &[(&'static str, Option<&'static str>)]| {
        let mut headers: Vec<_> = FIRST.to_vec();
        for (name, value) in changes {
            headers.retain(|(known, _)| known != name);
            headers.extend(value.map(|value| (*name, value)));
        }
        headers
    };
    for headers in [
        with(&[("sec-fetch-site", Some("same-origin"))]),
        with(&[("sec-fetch-site", Some("same-site"))]),
        with(&[("sec-fetch-site", Some("none"))]),
        with(&[("sec-fetch-site", None)]),
        with(&[("sec-fetch-dest", Some("document"))]),
        with(&[("sec-fetch-dest", Some("embed"))]),
        with(&[("sec-fetch-dest", Some("empty"))]),
        with(&[("sec-fetch-dest", None)]),
        // Older browsers and WeChat's servers.
        vec![("accept", "*/*")],
        vec![],
    ] {
        let reply = sent(&desktop(), &bad, &headers).await;
        assert_eq!(reply.status, 400, "{headers:?}");
        let policy = reply.header("content-security-policy").unwrap_or_default();
        let in_frame = headers.contains(&("sec-fetch-dest", "iframe"));
        assert_eq!(
            policy.contains("frame-ancestors 'self'"),
            in_frame,
            "{headers:?}"
        );
    }
    for method in [Method::HEAD, Method::POST, Method::PUT] {
        let reply = desktop().send(method.clone(), &bad, &FIRST).await.unwrap();
        assert_eq!(reply.status, 400, "{method}");
        is_framed(&reply);
    }
    // Other paths in a frame.
    for path in [
        "/wechat/login?return_to=%2F",
        "/me",
        "/",
        "/callback?code=a&state=b",
    ] {
        let url = format!("{}{path}", site.url);
        let reply = sent(&desktop(), &url, &FIRST).await;
        assert_ne!(reply.status, 200, "{path}");
        let policies = reply.headers.get_all("content-security-policy").iter();
        for policy in policies {
            assert!(!policy.to_str().unwrap().contains("'self'"), "{path}");
        }
    }
    // A login without a website has no such page.
    let site = harness.site().await;
    let bad = format!("{}/wechat/callback?code=a&state=b", site.url);
    let reply = sent(&Browser::new(), &bad, &FIRST).await;
    reply.is_page(400, "登录状态无效");
    let policy = reply.header("content-security-policy").unwrap();
    assert!(policy.ends_with("frame-ancestors 'none'"), "{policy}");
}

/// The pages of failures can be seen in a frame of the application, and in no other.
#[tokio::test]
async fn failures_of_a_callback_are_shown_in_the_frame() {
    let harness = Harness::new().await;
    let site = harness.site_with(with_website(&harness)).await;
    let browser = desktop();
    let callback = begun(&browser, &site).await;
    let denied = callback.replacen("code=", "other=", 1);
    for (query, status) in [("?", 400), ("?code=a&state=b", 400), ("?code=a", 400)] {
        let url = format!("{}/wechat/callback{query}", site.url);
        let reply = sent(&browser, &url, &SECOND).await;
        assert_eq!(reply.status, status, "{query}");
        is_framed(&reply);
        assert!(
            reply
                .header("content-security-policy")
                .unwrap()
                .contains("default-src 'none'")
        );
    }
    let reply = sent(&browser, &denied, &SECOND).await;
    reply.is_page(403, "您已取消授权");
    is_framed(&reply);
    // After the exchange of the code too.
    harness.sim.stop().await;
    let reply = sent(&browser, &callback, &SECOND).await;
    assert_eq!(reply.status, 503, "{}", reply.text);
    is_framed(&reply);
}

/// The page leads to the path that browsers know, also if a proxy strips a prefix or adds a slash.
#[tokio::test]
async fn the_page_has_the_public_path() {
    let harness = Harness::new().await;
    let with_website = with_website(&harness);
    let site = harness
        .behind("https://h5.example.com/h5", with_website, router)
        .await;
    for (path, expected) in [
        ("/wechat/callback?a", "/h5/wechat/callback?a&frame_reload=1"),
        (
            "/h5/wechat/callback?a",
            "/h5/wechat/callback?a&frame_reload=1",
        ),
        (
            "/wechat/callback/?a",
            "/h5/wechat/callback/?a&frame_reload=1",
        ),
        (
            "/h5/wechat/callback/",
            "/h5/wechat/callback/?frame_reload=1",
        ),
    ] {
        let reply = sent(&desktop(), &format!("{}{path}", site.url), &FIRST).await;
        assert_eq!(is_frame_page(&reply), expected, "{path}");
    }
    // No path of a request leads the frame elsewhere.
    for path in [
        "//evil.example.com/wechat/callback",
        "//wechat/callback",
        "/h5//wechat/callback",
    ] {
        let response = raw(&site, format!("{path}?a").as_bytes()).await;
        assert!(!response.contains("http-equiv"), "{response}");
    }
}

/// A renderer that ignores the page, and forbids all frames, does not prevent the login.
#[tokio::test]
async fn a_renderer_keeps_the_headers_of_a_frame() {
    let harness = Harness::new().await;
    let render = |rejection: &Rejection, _: &RequestHead<'_>| {
        Response::builder()
            .status(rejection.status())
            .header("x-frame-options", "DENY")
            .header("referrer-policy", "unsafe-url")
            .header("cache-control", "max-age=60")
            .header(
                "content-security-policy",
                "img-src *; frame-ancestors 'none'",
            )
            .header("content-security-policy", "frame-ancestors 'none'")
            .header("content-type", "application/json")
            .body(Body::from(format!("{{\"own\":{:?}}}", rejection.code())))
            .unwrap()
    };
    let app =
        move |layer: WechatLayer, login: Login| pages().layer(layer.login(login).reject(render));
    let site = harness.mounted(with_website(&harness), app).await;
    let browser = desktop();
    let callback = begun(&browser, &site).await;
    let reply = sent(&browser, &callback, &FIRST).await;
    assert_eq!(reply.status, 200);
    let refresh = reply.header("refresh").unwrap();
    let again = refresh.strip_prefix("0;url=").unwrap();
    for (name, value) in [
        ("content-security-policy", PAGE_POLICY),
        ("content-type", "text/html; charset=utf-8"),
        ("referrer-policy", "no-referrer"),
        ("cache-control", "no-store"),
    ] {
        let values: Vec<_> = reply.headers.get_all(name).iter().collect();
        assert_eq!(values, [value], "{name}");
    }
    assert!(reply.header("x-frame-options").is_none() && reply.cookies().is_empty());

    // A failure in the frame keeps the renderer's own policy.
    let bad = format!("{}/wechat/callback?code=a&state=b", site.url);
    let failed = sent(&browser, &bad, &SECOND).await;
    is_framed(&failed);
    let policy = failed.header("content-security-policy");
    assert_eq!(policy, Some("img-src *; frame-ancestors 'self'"));
    assert_eq!(failed.json()["own"], "invalid_state");
    let outside = browser.visit(&bad).await;
    assert_eq!(outside.header("x-frame-options"), Some("DENY"));

    let again = format!("{}{again}", site.url);
    let done = sent(&browser, &again, &SECOND).await;
    assert_eq!(
        (done.status, done.header("location")),
        (302, Some("/me?a=b"))
    );
    is_framed(&done);
    assert!(browser.cookie(WEBSITE_SESSION).is_some());
}

/// Services without axum send the same page.
#[tokio::test]
async fn a_service_without_axum_sends_the_same_page() {
    let harness = Harness::new().await;
    let login = Login::builder("https://h5.example.com", CookieKeys::random().unwrap());
    let login = with_website(&harness)(login).build().unwrap();
    let layer = WechatLayer::new(harness.users().await).login(login);
    let service = layer.login_service::<Full<bytes::Bytes>>();
    let request = || {
        let request = Request::get("/wechat/callback?code=a&state=%3C");
        let request = FIRST.iter().fold(request, |request, (name, value)| {
            request.header(*name, *value)
        });
        request.body(()).unwrap()
    };
    let response = service.oneshot(request()).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["content-security-policy"], PAGE_POLICY);
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let body = std::str::from_utf8(&body).unwrap();
    assert_eq!(
        target(body),
        "/wechat/callback?code=a&state=%3C&frame_reload=1"
    );
}

/// With several accounts, the page leads to the callback of its account, if that account has a
/// website.
#[tokio::test]
async fn the_page_leads_to_the_callback_of_its_account() {
    let harness = Harness::new().await;
    let keys = CookieKeys::random().unwrap();
    let login =
        |app_id: &str| Login::builder(format!("https://h5.example.com/{app_id}"), keys.clone());
    let account = |app_id: &str, login: LoginBuilder| {
        let app = harness.sim.add_account(app_id, "secret");
        Account::new(app.client().unwrap()).login(login.build().unwrap())
    };
    let accounts = Accounts::builder(MemoryStore::new())
        .selector(AccountSelector::path())
        .account(account("wx1", with_website(&harness)(login("wx1"))))
        .account(account("wx2", login("wx2")))
        .build()
        .unwrap();
    let layer = WechatLayer::for_accounts(accounts);
    let ask = async |path: &str| {
        let request = Request::get(path).header("user-agent", DESKTOP);
        let request = FIRST.iter().fold(request, |request, (name, value)| {
            request.header(*name, *value)
        });
        let service = layer.layer(tower::service_fn(async |_: Request<()>| {
            Ok::<_, std::convert::Infallible>(http::Response::new(Full::<bytes::Bytes>::default()))
        }));
        let response = service.oneshot(request.body(()).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let policy = parts.headers.get("content-security-policy");
        let policy = policy
            .map_or("", |policy| policy.to_str().unwrap())
            .to_owned();
        (
            parts.status.as_u16(),
            policy,
            String::from_utf8(body.into()).unwrap(),
        )
    };
    let (status, policy, page) = ask("/wx1/wechat/callback?code=a&state=b").await;
    assert_eq!((status, &*policy), (200, PAGE_POLICY));
    let again = target(&page);
    assert_eq!(again, "/wx1/wechat/callback?code=a&state=b&frame_reload=1");
    let (status, policy, _) = ask(&again).await;
    assert!(
        status == 400 && policy.ends_with("frame-ancestors 'self'"),
        "{policy}"
    );
    // An account without a website, and an unknown one.
    let (status, policy, _) = ask("/wx2/wechat/callback?code=a&state=b").await;
    assert!(
        status == 400 && policy.ends_with("frame-ancestors 'none'"),
        "{policy}"
    );
    let (status, policy, json) = ask("/wx3/wechat/callback?code=a&state=b").await;
    assert!(
        status == 404 && policy.is_empty() && json.contains("unknown_account"),
        "{json}"
    );

    let (status, _, json) = ask("/wx1/wechat/login?format=json").await;
    let redirect_uri = "https%3A%2F%2Fh5.example.com%2Fwx1%2Fwechat%2Fcallback";
    assert!(status == 200 && json.contains(redirect_uri), "{json}");
    assert_eq!(ask("/wx2/wechat/login?format=json").await.0, 400);
}
