//! The account in the layer: the handle in the extensions, and handler arguments.

use axum::body::Body;
use axum::routing::get;
use axum::{Json, Router};
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::Value;
use tower::ServiceExt;
use tower_wechat::{
    AccountToken, AppId, JsConfig, MemoryStore, Policy, TrustedHeader, UserTokens, WechatAccount,
    WechatLayer, jssdk,
};

use crate::rig::{Rig, STABLE, TICKET};

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

fn app(rig: &Rig, account: impl Into<WechatAccount>) -> Router {
    let users = UserTokens::new(rig.wechat(), MemoryStore::new());
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
async fn handlers_take_the_accounts_token() {
    let rig = Rig::start().await;
    let accounts = rig.accounts();
    let app = app(&rig, accounts.clone());
    assert_eq!(
        rig.sim.calls_to(STABLE),
        0,
        "nothing is fetched before somebody asks"
    );
    let (status, body) = ask(&app, "/token", &[]).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(Some(body), rig.sim.account_token());
    // No Tickets, no signatures: the program is set up wrongly.
    let (status, _) = ask(&app, "/config", &[("referer", "https://h5.example.com/")]).await;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);

    // A route that never met the layer.
    let (status, _) = ask(&routes(), "/token", &[]).await;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
}

#[tokio::test]
async fn handlers_take_the_configuration_of_the_page_that_asks() {
    let rig = Rig::start().await;
    let tickets = rig.tickets(&rig.accounts());
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
    let plain = app(&rig, tickets.clone());
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
        &app(&rig, public),
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
    assert_eq!(rig.sim.calls_to(TICKET), 1);
}

#[tokio::test]
async fn a_refused_account_is_503() {
    let rig = Rig::start().await;
    rig.settings(|settings| settings.account_frozen = true);
    let app = app(&rig, rig.tickets(&rig.accounts()));
    for uri in ["/token", "/config"] {
        let (status, body) = ask(&app, uri, &[("referer", "https://h5.example.com/")]).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(body.contains("wechat_config"), "{body}");
    }
}

#[tokio::test]
async fn two_accounts_on_one_route_do_not_overwrite_each_other() {
    let (one, two) = (Rig::start().await, Rig::start().await);
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
            account.of(&wxother).unwrap().app_id()
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
