//! Tests of metrics of requests: each request counts once, even through two layers.

use axum::body::Body;
use http::{Method, Request};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};
use tower::{Layer, ServiceExt, service_fn};
use tower_wechat::client::UserTokenResponse;
use tower_wechat::{
    CookieKeys, Login, MemoryStore, Policy, Scope, UserTokens, WechatClient, WechatLayer,
    WechatUser,
};

use super::{header, id, request_of, user_and_token, users};

/// Returns the number of requests that `recorder` has counted, for each outcome.
fn counted(recorder: &PrometheusRecorder) -> Vec<(String, u64)> {
    let text = recorder.handle().render();
    let lines = text
        .lines()
        .filter_map(|line| line.strip_prefix("wechat_requests_total{outcome=\""));
    lines
        .map(|line| {
            let (outcome, count) = line.split_once("\"} ").unwrap();
            (outcome.to_owned(), count.parse().unwrap())
        })
        .filter(|(_, count)| *count > 0)
        .collect()
}

/// Creates a layer whose metrics go to this recorder.
fn layer(recorder: &PrometheusRecorder, users: UserTokens) -> WechatLayer {
    metrics::with_local_recorder(recorder, || WechatLayer::new(users))
}

#[tokio::test]
async fn a_request_through_two_layers_is_counted_once() {
    let users = users().await;
    let less = UserTokenResponse::new("t")
        .expires_in(7_200)
        .scope("snsapi_base");
    users.store(&id("oLess"), &less).await.unwrap();
    let fresh = |user: &str| request_of(user);
    let preflight = || {
        let request = Request::builder().method(Method::OPTIONS);
        let request = request.header("access-control-request-method", "GET");
        request.body(Body::empty()).unwrap()
    };
    for (request, policy, outcome) in [
        (fresh("oA"), Policy::Required, "cache"),
        (fresh("oA"), Policy::Optional, "cache"),
        (fresh("oLess"), Policy::Required, "cache"),
        (fresh("oLess"), Policy::Optional, "cache"),
        (fresh("oStranger"), Policy::Required, "login"),
        (fresh("oStranger"), Policy::Optional, "login"),
        (fresh(""), Policy::Required, "login"),
        (fresh(""), Policy::Optional, "login"),
        (fresh("a\tb"), Policy::Optional, "rejected"),
        (preflight(), Policy::Required, "login"),
        (preflight(), Policy::Optional, "login"),
    ] {
        let recorder = PrometheusBuilder::new().build_recorder();
        let login = Login::new("https://h5.example.com", CookieKeys::random().unwrap()).unwrap();
        let outer = layer(&recorder, users.clone())
            .identity(header())
            .policy(policy)
            .login(login);
        let inner = outer.clone().require_scope(Scope::UserInfo);
        let service = outer.layer(inner.layer(service_fn(user_and_token::<Body>)));
        service.oneshot(request).await.unwrap();
        assert_eq!(counted(&recorder), [(outcome.to_owned(), 1)], "{policy:?}");
    }
}

#[tokio::test]
async fn a_token_from_the_store_is_counted_once() {
    let store = MemoryStore::new();
    let wechat = WechatClient::new("wxa", "secret").unwrap();
    let users = UserTokens::new(wechat.clone(), store.clone());
    let grant = UserTokenResponse::new("token-a").expires_in(7_200);
    users.store(&id("oA"), &grant).await.unwrap();
    let recorder = PrometheusBuilder::new().build_recorder();
    // New tokens on the same store have an empty cache, like another process.
    let users = UserTokens::new(wechat, store);
    let outer = layer(&recorder, users).identity(header());
    let service = outer.layer(outer.layer(service_fn(user_and_token::<Body>)));
    service.oneshot(request_of("oA")).await.unwrap();
    assert_eq!(counted(&recorder), [("store".to_owned(), 1)]);
}

#[tokio::test]
async fn a_rejection_of_a_handler_is_not_counted_again() {
    async fn card(
        request: Request<Body>,
    ) -> Result<http::Response<Body>, std::convert::Infallible> {
        let rejection = WechatUser::required_with_scope(&request, Scope::UserInfo).unwrap_err();
        Ok(rejection.response().map(Body::from))
    }
    let users = users().await;
    let less = UserTokenResponse::new("t")
        .expires_in(7_200)
        .scope("snsapi_base");
    users.store(&id("oLess"), &less).await.unwrap();
    for (user, outcome) in [("oLess", "cache"), ("oStranger", "login"), ("", "login")] {
        let recorder = PrometheusBuilder::new().build_recorder();
        let login = Login::new("https://h5.example.com", CookieKeys::random().unwrap()).unwrap();
        let layer = layer(&recorder, users.clone())
            .identity(header())
            .policy(Policy::Optional)
            .login(login);
        let response = layer.layer(service_fn(card)).oneshot(request_of(user));
        assert_eq!(response.await.unwrap().status(), 401);
        assert_eq!(counted(&recorder), [(outcome.to_owned(), 1)]);
    }
}
