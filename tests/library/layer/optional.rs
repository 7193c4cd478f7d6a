//! Tests of the optional policy: a public page is served even if the user's token is not available.

use std::time::Duration;

use axum::body::Body;
use axum::routing::get;
use axum::{Router, response::IntoResponse};
use http::{Request, Response};
use tokio::time::{Instant, timeout};
use tower::{Layer, ServiceExt, service_fn};
use tower_wechat::client::UserTokenResponse;
use tower_wechat::simulator::{Fault, Simulator};
use tower_wechat::{CookieKeys, Login, Policy, Scope, WechatLayer, WechatUser};

use super::{expired, header, id, request_of, text, user_and_token, users};

#[tokio::test]
async fn a_public_page_is_served_while_wechat_fails() {
    let fault = || Fault::on("/sns/oauth2/refresh_token");
    for (name, fault) in [
        ("silent", fault().hang()),
        ("slow", fault().delay(Duration::from_secs(30))),
        ("broken", fault().status(500)),
        ("refusing", fault().errcode(40125)),
        ("busy", fault().errcode(45011)),
    ] {
        let simulator = Simulator::start().await.unwrap();
        let users = expired(&simulator, "oA").await;
        simulator.inject(fault);
        let layer = WechatLayer::new(users).identity(header());
        let service = layer
            .clone()
            .policy(Policy::Optional)
            .layer(service_fn(user_and_token::<Body>));
        let since = Instant::now();
        let response = service.oneshot(request_of("oA")).await.unwrap();
        assert_eq!(response.status(), 200, "{name}");
        assert_eq!(text(response).await, "anonymous", "{name}");
        assert!(since.elapsed() < Duration::from_secs(4), "{name}");
    }
}

/// The token is not available. A handler that requires the user reports this failure, and does not
/// redirect to a login.
#[tokio::test]
async fn a_handler_that_requires_the_user_reports_the_failure() {
    let simulator = Simulator::start().await.unwrap();
    let users = expired(&simulator, "oA").await;
    simulator.inject(Fault::on("/sns/oauth2/refresh_token").status(500));
    let login = Login::new("https://h5.example.com", CookieKeys::random().unwrap()).unwrap();
    let layer = WechatLayer::new(users)
        .identity(header())
        .login(login)
        .policy(Policy::Optional);
    let app: Router = Router::new()
        .route("/me", get(async |user: WechatUser| user.id().to_owned()))
        .route(
            "/maybe",
            get(async |user: Option<WechatUser>| format!("{}", user.is_some())),
        )
        .layer(layer);
    let ask = async |path: &str, accept: &'static str| {
        let mut request = request_of("oA");
        *request.uri_mut() = path.parse().unwrap();
        let headers = request.headers_mut();
        headers.insert("accept", http::HeaderValue::from_static(accept));
        app.clone().oneshot(request).await.unwrap()
    };
    let response = ask("/maybe", "*/*").await;
    assert_eq!(text(response).await, "false");
    for accept in ["application/json", "text/html"] {
        let response = ask("/me", accept).await;
        assert_eq!(response.status(), 503, "{accept}");
        assert!(response.headers().contains_key("retry-after"), "{accept}");
    }
    assert!(
        text(ask("/me", "application/json").await)
            .await
            .contains("wechat_unavailable")
    );
    assert!(text(ask("/me", "text/html").await).await.contains("<html"));
}

#[tokio::test]
async fn a_renewal_goes_on_when_a_public_page_stops_waiting() {
    let simulator = Simulator::start().await.unwrap();
    let users = expired(&simulator, "oA").await;
    let slow = Fault::on("/sns/oauth2/refresh_token").delay(Duration::from_secs(2));
    simulator.inject(slow);
    let service = WechatLayer::new(users)
        .identity(header())
        .policy(Policy::Optional)
        .layer(service_fn(user_and_token::<Body>));
    let response = service.clone().oneshot(request_of("oA")).await.unwrap();
    assert_eq!(text(response).await, "anonymous");
    timeout(Duration::from_secs(20), async {
        while text(service.clone().oneshot(request_of("oA")).await.unwrap()).await == "anonymous" {}
    })
    .await
    .expect("the token comes");
    assert_eq!(simulator.calls_to("/sns/oauth2/refresh_token"), 1);
}

/// A user without the required scope is anonymous on a public page. A handler that requires the
/// user starts a login that requests the scope.
#[tokio::test]
async fn a_missing_scope_does_not_block_a_public_page() {
    let users = users().await;
    let grant = |scope: &str| UserTokenResponse::new("t").expires_in(7_200).scope(scope);
    let less = grant("snsapi_base");
    users.store(&id("oLess"), &less).await.unwrap();
    let more = grant("snsapi_userinfo");
    users.store(&id("oMore"), &more).await.unwrap();
    let login = Login::new("https://h5.example.com", CookieKeys::random().unwrap()).unwrap();
    let layer = WechatLayer::new(users)
        .identity(header())
        .login(login)
        .policy(Policy::Optional)
        .require_scope(Scope::UserInfo);
    let app: Router = Router::new()
        .route(
            "/",
            get(async |user: Option<WechatUser>| {
                user.map_or("anonymous".to_owned(), |user| user.id().to_owned())
            }),
        )
        .route(
            "/card",
            get(async |user: WechatUser| user.id().to_owned().into_response()),
        )
        .layer(layer);
    let ask = async |path: &str, user: &str, page: bool| -> Response<Body> {
        let mut request: Request<Body> = request_of(user);
        *request.uri_mut() = path.parse().unwrap();
        if page {
            let html = http::HeaderValue::from_static("text/html");
            request.headers_mut().insert("accept", html);
        }
        app.clone().oneshot(request).await.unwrap()
    };
    // The stored tokens of `oA` contain no scope, so that the user may have granted it.
    for (user, expected) in [
        ("", "anonymous"),
        ("oLess", "anonymous"),
        ("oMore", "oMore"),
        ("oA", "oA"),
    ] {
        let response = ask("/", user, true).await;
        assert_eq!(
            (response.status().as_u16(), text(response).await),
            (200, expected.to_owned())
        );
    }
    for user in ["", "oLess"] {
        let response = ask("/card", user, true).await;
        assert_eq!(response.status(), 302, "{user}");
        let to = response.headers()["location"].to_str().unwrap();
        assert!(to.contains("scope=snsapi_userinfo"), "{to}");
        let response = ask("/card", user, false).await;
        assert_eq!(response.status(), 401);
        assert!(text(response).await.contains("scope=snsapi_userinfo"));
    }
    assert_eq!(text(ask("/card", "oMore", true).await).await, "oMore");
}
