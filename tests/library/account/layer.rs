//! Tests of a layer with an account: the handle in the extensions, and the extractors of the token
//! and the signature.

use axum::body::Body;
use axum::routing::get;
use axum::{Json, Router};
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::Value;
use tower::ServiceExt;
use tower_wechat::credential::AppId;
use tower_wechat::layer::WechatAccount;
use tower_wechat::{
    AccountToken, CookieKeys, JsConfig, Login, MemoryStore, Policy, TrustedHeader, UserTokens,
    WechatLayer, jssdk,
};

use super::harness::{Harness, STABLE, TICKET};

async fn token(token: AccountToken) -> String {
    token.access_token().expose().to_owned()
}

async fn config(config: JsConfig) -> Json<JsConfig> {
    Json(config)
}

fn routes() -> Router {
    Router::new()
        .route("/token", get(token))
        .route("/config", get(config))
}

fn app(harness: &Harness, account: impl Into<WechatAccount>) -> Router {
    let users = UserTokens::new(harness.wechat(), MemoryStore::new());
    let identity = TrustedHeader::new("x-user-id").unwrap();
    let layer = WechatLayer::new(users)
        .identity(identity)
        .policy(Policy::Optional)
        .account(account);
    routes().nest("/nested", routes()).layer(layer)
}

async fn ask(app: &Router, uri: &str, headers: &[(&str, &str)]) -> (StatusCode, String) {
    let mut request = Request::builder().uri(uri);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = app
        .clone()
        .oneshot(request.body(Body::empty()).unwrap())
        .await
        .unwrap();
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn handlers_extract_the_accounts_token() {
    let harness = Harness::start().await;
    let accounts = harness.accounts();
    let app = app(&harness, accounts.clone());
    assert_eq!(
        harness.sim.calls_to(STABLE),
        0,
        "no token is fetched before a request"
    );
    let (status, body) = ask(&app, "/token", &[]).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(Some(body), harness.sim.account_token());
    // Without `Tickets` no signature is possible, which is a mistake in the application.
    let (status, _) = ask(&app, "/config", &[("referer", "https://h5.example.com/")]).await;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);

    // The layer does not wrap this route, which is a mistake in the application.
    let (status, _) = ask(&routes(), "/token", &[]).await;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
}

#[tokio::test]
async fn handlers_extract_the_js_config_of_the_page() {
    let harness = Harness::start().await;
    let tickets = harness.tickets(&harness.accounts());
    let ticket = tickets.get().await.unwrap();
    let page_of = async |app: &Router, uri: &str, headers: &[(&str, &str)], page: &str| {
        let (status, body) = ask(app, uri, headers).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        let body: Value = serde_json::from_str(&body).unwrap();
        let (nonce, at) = (
            body["nonceStr"].as_str().unwrap(),
            body["timestamp"].as_u64(),
        );
        let signature = jssdk::sign(ticket.ticket().expose(), nonce, at.unwrap(), page);
        assert_eq!(body["signature"], signature, "{page}");
    };
    let navigation = [("host", "h5.example.com"), ("sec-fetch-mode", "navigate")];
    let plain = app(&harness, tickets.clone());
    page_of(
        &plain,
        "/config?a=%2B1",
        &navigation,
        "https://h5.example.com/config?a=%2B1",
    )
    .await;
    page_of(
        &plain,
        "/nested/config",
        &navigation,
        "https://h5.example.com/nested/config",
    )
    .await;
    let old_browser = [
        ("host", "h5.example.com"),
        ("accept", "text/html,*/*"),
        ("x-forwarded-proto", "http"),
    ];
    page_of(
        &plain,
        "/config",
        &old_browser,
        "http://h5.example.com/config",
    )
    .await;
    let script = [
        ("referer", "https://h5.example.com?from=1"),
        ("host", "h5.example.com"),
    ];
    page_of(&plain, "/config", &script, "https://h5.example.com?from=1").await;
    let public = WechatAccount::from(tickets.clone()).public_url("https://h5.example.com/");
    let inside = [("host", "10.0.0.7:3000"), ("sec-fetch-mode", "navigate")];
    page_of(
        &app(&harness, public),
        "/config?x",
        &inside,
        "https://h5.example.com/config?x",
    )
    .await;

    for bad in [
        &[][..],
        &[("referer", "https://evil.example/")],
        &[("host", "evil.example"), ("sec-fetch-mode", "navigate")],
        &[
            ("host", "h5.example.com@evil.example"),
            ("sec-fetch-mode", "navigate"),
        ],
        &[("sec-fetch-mode", "navigate")],
    ] {
        let (status, body) = ask(&plain, "/config", bad).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
        assert!(body.contains("bad_request"), "{body}");
    }
    assert_eq!(harness.sim.calls_to(TICKET), 1);
}

/// Without its own public URL, the account signs pages below the login's public URL, whatever
/// `Host` a proxy sends.
#[tokio::test]
async fn the_logins_public_url_is_the_default_of_pages() {
    let harness = Harness::start().await;
    let tickets = harness.tickets(&harness.accounts());
    let ticket = tickets.get().await.unwrap().ticket().expose().to_owned();
    let users = UserTokens::new(harness.wechat(), MemoryStore::new());
    let layer = WechatLayer::new(users).policy(Policy::Optional);
    let login = |url: &str| Login::new(url, CookieKeys::random().unwrap()).unwrap();
    let own = WechatAccount::from(tickets.clone()).public_url("https://h5.example.com");
    let (outside, below) = ("https://h5.example.com", "https://h5.example.com/app");
    for (layer, uri, page) in [
        (
            layer.clone().account(tickets.clone()).login(login(outside)),
            "/config",
            "/config",
        ),
        (
            layer.clone().login(login(outside)).account(tickets.clone()),
            "/config",
            "/config",
        ),
        (
            layer.clone().login(login(outside)).account(tickets.clone()),
            "/nested/config",
            "/nested/config",
        ),
        // A proxy strips the path of the public URL, or keeps it.
        (
            layer.clone().login(login(below)).account(tickets.clone()),
            "/config",
            "/app/config",
        ),
        (
            layer.clone().account(tickets.clone()).login(login(below)),
            "/app/config",
            "/app/config",
        ),
        // The application's own setting and the last login win.
        (
            layer
                .clone()
                .login(login("https://other.example"))
                .account(own.clone()),
            "/config",
            "/config",
        ),
        (
            layer
                .clone()
                .account(own)
                .login(login("https://other.example")),
            "/config",
            "/config",
        ),
        (
            layer
                .clone()
                .login(login("https://other.example"))
                .account(tickets.clone())
                .login(login(outside)),
            "/config",
            "/config",
        ),
    ] {
        let app = routes()
            .nest("/nested", routes())
            .nest("/app", routes())
            .layer(layer);
        let inside = [("host", "10.0.0.7:3000"), ("sec-fetch-mode", "navigate")];
        let (status, body) = ask(&app, uri, &inside).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        let json: Value = serde_json::from_str(&body).unwrap();
        let (nonce, at) = (json["nonceStr"].as_str().unwrap(), &json["timestamp"]);
        let page = format!("https://h5.example.com{page}");
        let signature = jssdk::sign(&ticket, nonce, at.as_u64().unwrap(), &page);
        assert_eq!(json["signature"], signature, "{page}");
        // A script of the start page of that origin sends the whole URL of its page.
        let script = [
            ("host", "10.0.0.7:3000"),
            ("referer", "https://h5.example.com/"),
        ];
        assert_eq!(ask(&app, uri, &script).await.0, StatusCode::OK);
    }
}

async fn ticket_and_app(harness: &Harness) -> (String, Router) {
    let tickets = harness.tickets(&harness.accounts());
    let ticket = tickets.get().await.unwrap();
    (ticket.ticket().expose().to_owned(), app(harness, tickets))
}

/// Returns the page whose URL the response signs. Returns `None` if the response is a 400 that
/// names the remedy.
async fn signed(ticket: &str, app: &Router, uri: &str, headers: &[(&str, &str)]) -> Option<String> {
    let (status, body) = ask(app, uri, headers).await;
    let json: Value = serde_json::from_str(&body).unwrap();
    if status == StatusCode::BAD_REQUEST {
        let message = json["message"].as_str().unwrap();
        assert!(message.contains("encodeURIComponent"), "{message}");
        return None;
    }
    assert_eq!(status, StatusCode::OK, "{body}");
    let (nonce, at) = (json["nonceStr"].as_str().unwrap(), &json["timestamp"]);
    let pages = [
        "https://h5.example.com/",
        "https://h5.example.com/a?b=1",
        "https://h5.example.com/config",
        "https://h5.example.com/page?x=1&y=%2F",
    ];
    let of = |page: &&str| {
        jssdk::sign(ticket, nonce, at.as_u64().unwrap(), page)
            == json["signature"].as_str().unwrap()
    };
    Some((*pages.iter().find(|page| of(page)).expect("one of these")).to_owned())
}

/// Browsers send only the origin in the `Referer` of a request to another origin. A signature of
/// the origin would be wrong on all pages but the start page, so the request is rejected.
#[tokio::test]
async fn a_truncated_referer_is_not_signed() {
    let harness = Harness::start().await;
    let (ticket, app) = ticket_and_app(&harness).await;
    let root = ("referer", "https://h5.example.com/");
    let api = ("host", "api.example.com");
    let own = ("host", "h5.example.com");
    for cut in [
        &[root, api, ("sec-fetch-site", "same-site")][..],
        &[root, api, ("sec-fetch-site", "cross-site")],
        &[root, own, ("sec-fetch-site", "cross-site")],
        &[root, api],
        &[root],
        &[root, own, ("origin", "https://other.example.com")],
        &[("referer", "https://h5.example.com"), api],
        &[("referer", "http://h5.example.com:8080/"), own],
    ] {
        assert_eq!(signed(&ticket, &app, "/config", cut).await, None, "{cut:?}");
    }
    // The `Referer` of the start page itself is complete, and its URL is signed.
    for whole in [
        &[root, api, ("sec-fetch-site", "same-origin")][..],
        &[root, own],
        &[root, own, ("origin", "https://h5.example.com")],
    ] {
        let page = signed(&ticket, &app, "/config", whole).await;
        assert_eq!(
            page.as_deref(),
            Some("https://h5.example.com/"),
            "{whole:?}"
        );
    }
    let tickets = harness.tickets(&harness.accounts());
    let ticket = tickets.get().await.unwrap().ticket().expose().to_owned();
    let public = WechatAccount::from(tickets).public_url("https://h5.example.com");
    let behind = self::app(&harness, public);
    let inside = ("host", "10.0.0.7:3000");
    let page = signed(&ticket, &behind, "/config", &[root, inside]).await;
    assert_eq!(page.as_deref(), Some("https://h5.example.com/"));
}

/// The script of a page can send the page's URL, and the response signs that URL.
#[tokio::test]
async fn a_script_may_send_the_url_of_its_page() {
    let harness = Harness::start().await;
    let (ticket, app) = ticket_and_app(&harness).await;
    let cut = [
        ("referer", "https://h5.example.com/"),
        ("sec-fetch-site", "same-site"),
        ("sec-fetch-mode", "cors"),
    ];
    let uri = "/nested/config?url=https%3A%2F%2Fh5.example.com%2Fpage%3Fx%3D1%26y%3D%252F";
    let page = signed(&ticket, &app, uri, &cut).await;
    assert_eq!(
        page.as_deref(),
        Some("https://h5.example.com/page?x=1&y=%2F")
    );
    let page = signed(&ticket, &app, uri, &[]).await;
    assert_eq!(
        page.as_deref(),
        Some("https://h5.example.com/page?x=1&y=%2F")
    );
    // A URL that is not encoded ends at its first `&`, and is rejected.
    let uri = "/config?url=https://h5.example.com/page?x=1&y=%2F";
    assert_eq!(signed(&ticket, &app, uri, &cut).await, None);
    // A URL of a host that `Tickets` does not list is rejected.
    let (status, _) = ask(&app, "/config?url=https%3A%2F%2Fevil.example%2F", &cut).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
}

/// A page load is signed with its own URL. The rule for a page load is the same as in the login.
#[tokio::test]
async fn only_page_loads_sign_their_own_url() {
    let harness = Harness::start().await;
    let (ticket, app) = ticket_and_app(&harness).await;
    let host = ("host", "h5.example.com");
    for page_load in [
        &[host, ("sec-fetch-mode", "NAVIGATE")][..],
        &[host, ("accept", "application/xml;q=0.9, TEXT/HTML;q=0.8")],
        &[
            host,
            ("accept", "text/html"),
            ("x-requested-with", "com.tencent.mm"),
        ],
    ] {
        let page = signed(&ticket, &app, "/config", page_load).await;
        assert_eq!(page.as_deref(), Some("https://h5.example.com/config"));
    }
    let referer = ("referer", "https://h5.example.com/a?b=1");
    for script in [
        &[host, referer][..],
        &[host, referer, ("accept", "text/html-sandboxed")],
        &[
            host,
            referer,
            ("accept", "text/html"),
            ("x-requested-with", "XMLHttpRequest"),
        ],
        &[
            host,
            referer,
            ("accept", "text/html"),
            ("sec-fetch-dest", "empty"),
        ],
        &[
            host,
            referer,
            ("sec-fetch-mode", "navigate"),
            ("x-requested-with", "XMLHttpRequest"),
        ],
    ] {
        let page = signed(&ticket, &app, "/config", script).await;
        assert_eq!(
            page.as_deref(),
            Some("https://h5.example.com/a?b=1"),
            "{script:?}"
        );
    }
}

#[tokio::test]
async fn a_refused_account_is_503() {
    let harness = Harness::start().await;
    harness.settings(|settings| settings.account_frozen = true);
    let app = app(&harness, harness.tickets(&harness.accounts()));
    for uri in ["/token", "/config"] {
        let (status, body) = ask(&app, uri, &[("referer", "https://h5.example.com/a")]).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(body.contains("wechat_config"), "{body}");
    }
}

#[tokio::test]
async fn two_accounts_on_one_route_do_not_overwrite_each_other() {
    let (one, two) = (Harness::start().await, Harness::start().await);
    let other = tower_wechat::WechatClient::builder("wxother", "secret")
        .api_url(two.sim.url())
        .build()
        .unwrap();
    let outer = tower_wechat::AccountTokens::new(other.clone(), MemoryStore::new());
    let users = UserTokens::new(other, MemoryStore::new());
    let identity = || TrustedHeader::new("x-user-id").unwrap();
    let both = async |account: axum::Extension<WechatAccount>| {
        let wxother = AppId::new("wxother").unwrap();
        format!(
            "{} {}",
            account.app_id(),
            account.for_app(&wxother).unwrap().app_id()
        )
    };
    let app = Router::new()
        .route("/both", get(both))
        .layer(
            WechatLayer::new(UserTokens::new(one.wechat(), MemoryStore::new()))
                .identity(identity())
                .policy(Policy::Optional)
                .account(one.accounts()),
        )
        .layer(
            WechatLayer::new(users)
                .identity(identity())
                .policy(Policy::Optional)
                .account(outer),
        );
    let (_, body) = ask(&app, "/both", &[]).await;
    assert_eq!(body, format!("{} wxother", one.sim.app_id()));
}
