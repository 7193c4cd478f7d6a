//! Tests of a token center for several accounts.

use axum::Router;
use axum::body::Body;
use http::{Request, StatusCode, header};
use http_body_util::BodyExt;
use serde_json::Value;
use tower::ServiceExt;
use tower_wechat::account::TokenCenter;
use tower_wechat::simulator::Simulator;
use tower_wechat::{Account, Accounts, MemoryStore, Policy, RequestHead, UserId, WechatLayer};

const SECRET: &str = "a-secret-of-this-test";
const CLUB: &str = "wxfedcba9876543210";

async fn ask(app: &Router, path: &str, bearer: &str) -> (StatusCode, Value) {
    let request = Request::get(path).header(header::AUTHORIZATION, format!("Bearer {bearer}"));
    let request = request.body(Body::empty()).unwrap();
    let reply = app.clone().oneshot(request).await.unwrap();
    let status = reply.status();
    let body = reply.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap())
}

#[tokio::test]
async fn the_center_returns_tokens_of_the_selected_account() {
    let wechat = Simulator::start().await.unwrap();
    let club = wechat.add_account(CLUB, "secret-of-the-club");
    let accounts = Accounts::builder(MemoryStore::new())
        .account(Account::new(wechat.client().unwrap()).page_hosts(["h5.example.com"]))
        .account(Account::new(club.client().unwrap()))
        .build()
        .unwrap();
    let layer = WechatLayer::for_accounts(accounts)
        .identity(|_: &RequestHead<'_>| -> Option<UserId> { None })
        .policy(Policy::Optional);
    let center = TokenCenter::for_accounts([SECRET]).unwrap();
    let app = Router::new()
        .nest_service("/{account}/center", center)
        .layer(layer);

    let shop = wechat.app_id();
    for (account, has_tickets) in [(shop, true), (CLUB, false)] {
        let path = |route: &str| format!("/{account}/center/{route}");
        let (status, body) = ask(&app, &path("access_token"), SECRET).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        let current = wechat.app(account).unwrap().account_token();
        assert_eq!(body["access_token"].as_str(), current.as_deref());
        let (status, body) = ask(&app, &path("jsapi_ticket"), SECRET).await;
        assert_eq!(status.is_success(), has_tickets, "{body}");
        let (status, _) = ask(&app, &path("access_token"), "another").await;
        assert_eq!(status, StatusCode::UNAUTHORIZED);
    }
    let (status, body) = ask(&app, "/wx1/center/access_token", SECRET).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert_eq!(body["error"], "unknown_account");
}

/// Without a layer around the center, there is no account.
#[tokio::test]
async fn a_center_without_a_layer_returns_no_token() {
    let center = TokenCenter::for_accounts([SECRET]).unwrap();
    let app = Router::new().nest_service("/center", center);
    let (status, body) = ask(&app, "/center/access_token", SECRET).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(body["message"].as_str().unwrap().contains("for_accounts"));
    assert!(TokenCenter::for_accounts(Vec::<String>::new()).is_err());
}
