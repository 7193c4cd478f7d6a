//! Tests of handlers that require the scope of the profile: with axum the extractor
//! `GrantedUserInfo`, without axum `WechatUser::required_with_scope`.

use std::convert::Infallible;

use axum::Router;
use axum::body::Body;
use axum::routing::any;
use http::{Request, Response};
use serde_json::json;
use tower::{ServiceExt, service_fn};
use tower_wechat::layer::GrantedUserInfo;
use tower_wechat::simulator::{Fault, SimulatedUser};
use tower_wechat::{
    Error, Login, Policy, Rejection, Scope, TrustedHeader, WechatLayer, WechatUser,
};

use super::harness::{ALICE, EXCHANGE, Harness, Site, USERINFO, pages};
use crate::support::browser::Browser;

async fn card(GrantedUserInfo(user): GrantedUserInfo) -> Result<String, Error> {
    Ok(user.profile().await?.nickname.clone())
}

async fn nickname(request: Request<Body>) -> Result<String, Rejection> {
    let user = WechatUser::required_with_scope(&request, Scope::UserInfo)?.clone();
    Ok(user.profile().await?.nickname.clone())
}

async fn card_without_axum(request: Request<Body>) -> Result<Response<Body>, Infallible> {
    Ok(match nickname(request).await {
        Ok(nickname) => Response::new(Body::from(nickname)),
        Err(rejection) => rejection.response().map(Body::from),
    })
}

/// The two forms of the handler at `/card`.
fn cards() -> [Router; 2] {
    let without_axum = service_fn(card_without_axum);
    [
        Router::new().route("/card", any(card)),
        Router::new().route_service("/card", without_axum),
    ]
}

async fn site(harness: &Harness, card: Router, policy: Policy) -> Site {
    let app = |layer: WechatLayer, login: Login| {
        let layer = layer.login(login).policy(policy);
        card.merge(pages()).layer(layer)
    };
    harness.mounted(|login| login.scope(Scope::Base), app).await
}

/// The user declines the profile: WeChat's tokens cover `snsapi_base` only.
fn decline(harness: &Harness) {
    let body = json!({
        "access_token": "83_base", "expires_in": 7200, "refresh_token": "83_refresh",
        "openid": ALICE, "scope": "snsapi_base",
    });
    let fault = Fault::on(EXCHANGE).body(body.to_string());
    harness.sim.inject(fault);
}

#[tokio::test]
async fn a_base_login_is_upgraded_once() {
    for card in cards() {
        let harness = Harness::new().await;
        let site = site(&harness, card, Policy::Required).await;
        let url = format!("{}/card?a=b", site.url);
        let browser = Browser::new();
        let page = browser.open(&format!("{}/me", site.url)).await.json();
        assert_eq!(page["scope"], "snsapi_base");
        let script = browser.fetch(&url).await;
        let asked = script.is_error(401, "login_required");
        let login_url = "/wechat/login?return_to=%2F&scope=snsapi_userinfo";
        assert_eq!(asked["login_url"], login_url);
        assert_eq!(harness.sim.calls_to(USERINFO), 0);

        // The page load leads to WeChat at once.
        let sent = browser.visit(&url).await.location().unwrap();
        assert_eq!(sent.path(), "/connect/oauth2/authorize");
        let page = browser.open(&url).await;
        assert_eq!((page.status, &*page.text), (200, "爱丽丝"));
        assert_eq!(page.url.query(), Some("a=b"));
        browser.open(&url).await;
        assert_eq!(harness.exchanges(), 2);
    }
}

#[tokio::test]
async fn a_user_who_declines_gets_a_page_and_no_loop() {
    for card in cards() {
        let harness = Harness::new().await;
        let site = site(&harness, card, Policy::Required).await;
        let url = format!("{}/card", site.url);
        let browser = Browser::new();
        browser.open(&format!("{}/me", site.url)).await;
        decline(&harness);
        let page = browser.open(&url).await;
        page.is_page(403, "需要您的授权");
        assert_eq!(harness.exchanges(), 2);
        browser.fetch(&url).await.is_error(403, "login_denied");
        // The page's button asks again, and the user grants the scope.
        harness.sim.clear_faults();
        let again = "/wechat/login?return_to=%2Fcard&scope=snsapi_userinfo";
        assert!(page.text.contains(&again.replace('&', "&amp;")));
        let page = browser.open(&format!("{}{again}", site.url)).await;
        assert_eq!(page.text, "爱丽丝");
    }
}

/// Users of other identities have no session, which would show that they have declined.
#[tokio::test]
async fn a_user_of_a_gateway_who_declines_causes_no_loop() {
    for card in cards() {
        let harness = Harness::new().await;
        let header = TrustedHeader::new("x-user").unwrap();
        let app = |layer: WechatLayer, login: Login| {
            let layer = layer.login(login).identity(header);
            card.merge(pages()).layer(layer)
        };
        let base = |login: tower_wechat::login::LoginBuilder| login.scope(Scope::Base);
        let site = harness.mounted(base, app).await;
        let browser = Browser::new().with_header("x-user", ALICE);
        browser.open(&format!("{}/me", site.url)).await;
        decline(&harness);
        let page = browser.open(&format!("{}/card", site.url)).await;
        page.is_page(403, "需要您的授权");
        assert_eq!(harness.exchanges(), 2);
    }
}

#[tokio::test]
async fn a_stranger_logs_in_once_for_the_scope() {
    for policy in [Policy::Required, Policy::Optional] {
        for card in cards() {
            let harness = Harness::new().await;
            let site = site(&harness, card, policy).await;
            let url = format!("{}/card", site.url);
            let browser = Browser::new();
            browser.fetch(&url).await.is_error(401, "login_required");
            assert_eq!(browser.open(&url).await.text, "爱丽丝");
            let exchanges = if policy == Policy::Optional { 1 } else { 2 };
            assert_eq!(harness.exchanges(), exchanges, "{policy:?}");
        }
    }
}

/// A user who has signed out everywhere has no tokens, and has declined nothing.
#[tokio::test]
async fn a_stranger_who_granted_the_scope_before_logs_in() {
    for card in cards() {
        let harness = Harness::new().await;
        let site = site(&harness, card, Policy::Optional).await;
        let url = format!("{}/card", site.url);
        let browser = Browser::new();
        browser.open(&url).await;
        let logout = format!("{}/logout/everywhere", site.url);
        browser.post(&logout).await;
        assert_eq!(browser.open(&url).await.text, "爱丽丝");
        assert_eq!(harness.exchanges(), 2);
    }
}

#[tokio::test]
async fn an_unknown_scope_passes() {
    for card in cards() {
        let harness = Harness::with_redis().await;
        let site = site(&harness, card, Policy::Required).await;
        harness.sim.sign_in(ALICE, "snsapi_userinfo");
        harness.rewrite(ALICE);
        let session = harness.session(&site);
        let user = tower_wechat::UserId::new(ALICE).unwrap();
        let cookie = session.issue(&user).to_str().unwrap().to_owned();
        let cookie = cookie.split(';').next().unwrap();
        let browser = Browser::new().with_header("cookie", cookie);
        let page = browser.fetch(&format!("{}/card", site.url)).await;
        assert_eq!((page.status, &*page.text), (200, "爱丽丝"));
    }
}

#[tokio::test]
async fn virtual_users_cannot_grant_the_scope() {
    for card in cards() {
        let harness = Harness::new().await;
        let site = site(&harness, card, Policy::Required).await;
        let user = SimulatedUser::new("oVirtual0000000000000000000").snapshot(true);
        harness.sim.add_user(user);
        let browser = Browser::new();
        browser.open(&format!("{}/me", site.url)).await;
        let page = browser.open(&format!("{}/card", site.url)).await;
        page.is_page(403, "需要您的授权");
    }
}

#[tokio::test]
async fn without_a_layer_the_status_is_500() {
    for card in cards() {
        let request = Request::get("/card").body(Body::empty()).unwrap();
        let response = card.oneshot(request).await.unwrap();
        assert_eq!(response.status(), 500);
    }
}
