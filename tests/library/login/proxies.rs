//! Tests of the login behind a real nginx: with a prefix that it strips or keeps, with a slash that
//! it adds, and with its default buffers.

use axum::Router;
use tokio::task::JoinSet;

use super::harness::{ALICE, Harness, Site, router};
use crate::support::browser::{Browser, Reply};
use crate::support::free_port;
use crate::support::nginx::Nginx;

const AUTHORIZE: &str = "/connect/oauth2/authorize";

/// Returns a free address for nginx. The application needs its public URL before nginx can start.
fn address() -> String {
    format!("127.0.0.1:{}", free_port())
}

/// Starts a site behind nginx. The site's public URL is nginx's address with `path`.
async fn behind(
    harness: &Harness,
    path: &str,
    server: impl FnOnce(&str) -> String,
    app: impl FnOnce(tower_wechat::WechatLayer, tower_wechat::Login) -> Router,
) -> (Nginx, Site) {
    let address = address();
    let site = harness
        .behind(&format!("http://{address}{path}"), |login| login, app)
        .await;
    (Nginx::start(&address, &server(&site.url)), site)
}

/// Opens a page and follows redirects to the end. Returns the last response and the paths of the
/// redirects.
async fn journey(browser: &Browser, url: &str) -> (Reply, Vec<String>) {
    let mut reply = browser.visit(url).await;
    let mut paths = Vec::new();
    for _ in 0..60 {
        let Some(next) = reply.location() else {
            return (reply, paths);
        };
        paths.push(next.path().to_owned());
        reply = browser.visit(next.as_str()).await;
    }
    panic!("redirects without end: {paths:?}");
}

/// Checks that every URL which the browser gets is below the prefix.
async fn lives_below_a_prefix(nginx: &Nginx) {
    let browser = Browser::new();
    let asked = browser.fetch(&format!("{}/app/me", nginx.url)).await;
    let json = asked.is_error(401, "login_required");
    assert_eq!(json["login_url"], "/app/wechat/login?return_to=%2Fapp%2F");
    let (landed, paths) = journey(&browser, &format!("{}/app/me?a=b", nginx.url)).await;
    assert_eq!(landed.json()["id"], ALICE);
    assert_eq!(
        (landed.url.path(), landed.url.query()),
        ("/app/me", Some("a=b"))
    );
    assert_eq!(paths, [AUTHORIZE, "/app/wechat/callback", "/app/me"]);
    // `return_to` may have the prefix or not.
    for page in ["%2Fme%3Fa", "%2Fapp%2Fme%3Fa"] {
        let login = format!("{}/app/wechat/login?return_to={page}", nginx.url);
        let (landed, _) = journey(&Browser::new(), &login).await;
        assert_eq!((landed.status, landed.url.path()), (200, "/app/me"));
    }
    let (landed, _) = journey(&Browser::new(), &format!("{}/app/", nginx.url)).await;
    assert_eq!((landed.status, landed.url.path()), (200, "/app/"));
}

#[tokio::test]
async fn a_prefix_stripped_by_nginx_is_in_the_public_url() {
    let harness = Harness::new().await;
    let server = |site: &str| format!("location /app/ {{ proxy_pass {site}/; }}");
    let (nginx, _site) = behind(&harness, "/app", server, router).await;
    lives_below_a_prefix(&nginx).await;
}

#[tokio::test]
async fn a_prefix_kept_by_nginx_is_in_the_public_url() {
    let harness = Harness::new().await;
    let server = |site: &str| format!("location /app/ {{ proxy_pass {site}; }}");
    let (nginx, _site) = behind(&harness, "/app/", server, |layer, login| {
        let layer = layer.login(login.clone());
        let pages = super::harness::pages();
        // axum's `nest` does not route `/app/` to the nested router, so this route does.
        let start = pages.clone().layer(layer.clone());
        Router::new()
            .route_service(
                "/app/",
                tower::util::MapRequest::new(
                    start,
                    |mut request: http::Request<axum::body::Body>| {
                        *request.uri_mut() = "/".parse().unwrap();
                        request
                    },
                ),
            )
            .nest("/app", pages)
            .layer(layer)
    })
    .await;
    lives_below_a_prefix(&nginx).await;
}

#[tokio::test]
async fn a_slash_added_by_nginx_does_not_hide_the_callback() {
    let harness = Harness::new().await;
    let server = |site: &str| {
        format!("rewrite ^(.*[^/])$ $1/ permanent; location / {{ proxy_pass {site}; }}")
    };
    let (nginx, _site) = behind(&harness, "", server, router).await;
    let (landed, _) = journey(&Browser::new(), &format!("{}/?a=b", nginx.url)).await;
    assert_eq!((landed.status, landed.url.query()), (200, Some("a=b")));
    let login = format!("{}/wechat/login/?return_to=%2F%3Fc", nginx.url);
    let (landed, _) = journey(&Browser::new(), &login).await;
    assert_eq!((landed.status, landed.url.query()), (200, Some("c")));
    assert_eq!(harness.sim.calls_to(AUTHORIZE), 2);
}

/// Each nginx breaks the callback in another way, for which the login was not configured. Each
/// login ends on a page.
#[tokio::test]
async fn a_misrouted_callback_ends_on_a_page() {
    for (what, callback, server) in [
        (
            "a prefix is stripped",
            "/app/wechat/callback",
            "location /app/ { proxy_pass SITE/; }",
        ),
        (
            "a prefix is stripped, and the query dropped",
            "/app/wechat/callback",
            "location /app/ { proxy_pass SITE/; }\n\
             location /app/wechat/ { rewrite ^/app(.*)$ $1? break; proxy_pass SITE; }",
        ),
        (
            "a prefix is added",
            "/wechat/callback",
            "location / { rewrite ^(.*)$ /v2$1 break; proxy_pass SITE; }",
        ),
        (
            "everything is led to the start page",
            "/wechat/callback",
            "location / { rewrite ^ / break; proxy_pass SITE; }",
        ),
        (
            "the callback is led to the start page without its query",
            "/wechat/callback",
            "location / { proxy_pass SITE; }\n\
             location /wechat/callback { rewrite ^ /? break; proxy_pass SITE; }",
        ),
        (
            "the query is dropped",
            "/wechat/callback",
            "location / { rewrite ^(.*)$ $1? break; proxy_pass SITE; }",
        ),
        (
            "the callback is led to a page with another query",
            "/wechat/callback",
            "location / { proxy_pass SITE; }\n\
             location /wechat/callback { rewrite ^ /me?from=wechat? break; proxy_pass SITE; }",
        ),
        (
            "the callback is redirected to the start page",
            "/wechat/callback",
            "location / { proxy_pass SITE; }\n\
             location /wechat/callback { rewrite ^ /? redirect; }",
        ),
    ] {
        let harness = Harness::new().await;
        let address = address();
        let public = format!("http://{address}");
        let site = harness
            .behind(
                &public,
                |login| login.callback_path(callback),
                |layer, login| {
                    let pages = super::harness::pages();
                    let everywhere = pages.clone().fallback(async || "a page of the application");
                    everywhere.layer(layer.login(login))
                },
            )
            .await;
        let nginx = Nginx::start(&address, &server.replace("SITE", &site.url));
        let start = if callback.starts_with("/app") {
            "/app/me"
        } else {
            "/me"
        };
        // A browser with Sec-Fetch headers, which ends a loop after 3 visits, and an older one
        // without them.
        let today = Browser::new()
            .with_header("sec-fetch-mode", "navigate")
            .with_header("sec-fetch-site", "cross-site");
        for (browser, most) in [(today, 3), (Browser::new(), 14)] {
            // At a page with a query, the login cannot distinguish a loop from links of other
            // sites, and allows more visits.
            let most = if what.ends_with("another query") {
                14
            } else {
                most
            };
            let before = harness.sim.calls_to(AUTHORIZE);
            let (page, paths) = journey(&browser, &format!("{}{start}?a=b", nginx.url)).await;
            assert!(
                [400, 429].contains(&page.status),
                "{what}: {paths:?} {page:?}"
            );
            page.is_page(page.status, "lang=\"zh-CN\"");
            let visits = harness.sim.calls_to(AUTHORIZE) - before;
            assert!((1..=most).contains(&visits), "{what}: {visits} visits");
        }
        // No callback reached the login with its code, so no code was exchanged.
        assert_eq!(harness.exchanges(), 0, "{what}");
    }
}

/// A browser without Sec-Fetch headers may load pages often, and is not taken for a loop.
#[tokio::test]
async fn frequent_page_loads_are_not_taken_for_a_loop() {
    let harness = Harness::new().await;
    let site = harness.site().await;
    for page in ["/me", "/me?a=b"] {
        let url = format!("{}{page}", site.url);
        // Eight tabs; or six reloads, each of which loads the page twice.
        for loads in [8, 12] {
            let browser = Browser::new();
            for load in 0..loads {
                let sent = browser.visit(&url).await;
                assert_eq!(sent.status, 302, "{page}, load {load} of {loads}");
            }
            assert_eq!(browser.open(&url).await.json()["uri"], page);
        }
        // After a minute, the browser may load as many pages again.
        let browser = Browser::new();
        for _ in 0..3 {
            for _ in 0..12 {
                assert_eq!(browser.visit(&url).await.status, 302);
            }
            harness.advance(std::time::Duration::from_secs(61));
        }
    }
}

/// Returns the number of bytes that the login's cookies take in a `Cookie` header.
fn kept(browser: &Browser) -> usize {
    let names = browser.cookie_names();
    let sizes = names
        .iter()
        .map(|name| name.len() + 3 + browser.cookie(name).unwrap().len());
    sizes.sum()
}

async fn unfinished_logins(length: usize) {
    let harness = Harness::new().await;
    let server = |site: &str| format!("location / {{ proxy_pass {site}; }}");
    let (nginx, _site) = behind(&harness, "", server, router).await;
    let browser = Browser::new();
    let page = |number: usize| format!("{}/me?n={number}&q={}", nginx.url, "x".repeat(length));
    let mut callback = String::new();
    for number in 0..50 {
        callback = browser.callback_of(&page(number)).await;
        assert!(kept(&browser) < 4_096, "{} after {number}", kept(&browser));
    }
    // The newest login leads to its page, and the header with all cookies passes nginx.
    let landed = browser.open(&callback).await;
    assert_eq!((landed.status, landed.url.as_str()), (200, &*page(49)));
    assert!(kept(&browser) < 4_096, "{}", kept(&browser));
    // The next login works with the cookies that the others left.
    browser.drop_cookies(|name| name.ends_with("session"));
    let landed = browser.open(&page(50)).await;
    assert_eq!((landed.status, landed.url.as_str()), (200, &*page(50)));
    assert!(
        !nginx.errors().contains("too big") && !nginx.errors().contains("too large"),
        "{}",
        nginx.errors()
    );
}

#[tokio::test]
async fn fifty_logins_of_1000_characters_pass_nginx() {
    unfinished_logins(1_000).await;
}

#[tokio::test]
async fn fifty_logins_of_2000_characters_pass_nginx() {
    unfinished_logins(2_000).await;
}

#[tokio::test]
async fn concurrent_tabs_do_not_exceed_nginxs_limit() {
    let harness = Harness::new().await;
    let server = |site: &str| format!("location / {{ proxy_pass {site}; }}");
    let (nginx, _site) = behind(&harness, "", server, router).await;
    let browser = std::sync::Arc::new(Browser::new());
    let mut running = JoinSet::new();
    for number in 0..50 {
        let length = [0, 30, 500, 1_000, 2_000][number % 5];
        let page = format!("{}/me?n={number}&q={}", nginx.url, "x".repeat(length));
        let browser = std::sync::Arc::clone(&browser);
        running.spawn(async move { browser.visit(&page).await.status });
    }
    assert!(running.join_all().await.iter().all(|status| *status == 302));
    assert!(kept(&browser) < 4_096, "{}", kept(&browser));
    let page = format!("{}/me?q={}", nginx.url, "x".repeat(1_900));
    let landed = browser.open(&page).await;
    assert_eq!((landed.status, landed.url.as_str()), (200, &*page));
}

/// The prefix `__Host-` keeps other hosts of the domain from setting a login cookie.
#[tokio::test]
async fn only_this_host_sets_login_cookies_under_https() {
    let harness = Harness::new().await;
    let site = harness
        .behind("https://h5.example.com/app", |login| login, router)
        .await;
    let reply = Browser::new().visit(&format!("{}/me", site.url)).await;
    let [cookie] = reply.cookies()[..] else {
        panic!("{reply:?}")
    };
    assert!(cookie.starts_with("__Host-wechat_login_"), "{cookie}");
    assert!(
        cookie.contains("; Path=/; ") && cookie.ends_with("; Secure"),
        "{cookie}"
    );
    assert!(!cookie.contains("Domain"), "{cookie}");
}
