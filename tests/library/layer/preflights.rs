//! Tests of CORS preflights: a preflight does not reach the inner service unless the application
//! allows it.

use axum::body::Body;
use axum::routing::any;
use axum::{Json, Router};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use serde_json::Value;
use tower::{Layer, ServiceExt, service_fn};
use tower_wechat::{
    AccountToken, AccountTokens, CookieKeys, JsConfig, Login, MemoryStore, Policy, UserTokens,
    WechatClient, WechatLayer, WechatUser,
};

use super::{header, request_of, text, user_and_token, users};

/// Returns a preflight request for this path. A browser also sends `Origin`.
fn preflight(path: &str, origin: bool) -> Request<Body> {
    let request = Request::builder()
        .method(Method::OPTIONS)
        .uri(path)
        .header("access-control-request-method", "POST");
    let request = match origin {
        true => request.header("origin", "https://evil.example"),
        false => request,
    };
    request.body(Body::empty()).unwrap()
}

fn login() -> Login {
    Login::new("https://h5.example.com", CookieKeys::random().unwrap()).unwrap()
}

#[tokio::test]
async fn a_preflight_does_not_pass_by_default() {
    let service = WechatLayer::new(users().await)
        .identity(header())
        .login(login())
        .layer(service_fn(user_and_token::<Body>));
    for path in [
        "/",
        "/me",
        "/wechat/login",
        "/wechat/callback?code=a&state=b",
    ] {
        for origin in [true, false] {
            // A preflight that also looks like a page load is rejected and not redirected.
            let mut request = preflight(path, origin);
            let headers = request.headers_mut();
            headers.insert("sec-fetch-mode", HeaderValue::from_static("navigate"));
            headers.insert("accept", HeaderValue::from_static("text/html"));
            let response = service.clone().oneshot(request).await.unwrap();
            assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{path}");
            assert!(response.headers().get("location").is_none());
            assert!(response.headers().get("set-cookie").is_none());
            let body: Value = serde_json::from_str(&text(response).await).unwrap();
            assert_eq!(body["error"], "login_required");
            let message = body["message"].as_str().unwrap();
            assert!(message.contains("pass_preflights"), "{message}");
        }
    }
    // A preflight with the header of a known user is rejected too.
    let mut named = request_of("oA");
    *named.method_mut() = Method::OPTIONS;
    let method = HeaderValue::from_static("POST");
    named
        .headers_mut()
        .insert("access-control-request-method", method);
    let response = service.clone().oneshot(named).await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);

    // An OPTIONS request without `access-control-request-method` is not a preflight, and its user
    // is served.
    let mut options = request_of("oA");
    *options.method_mut() = Method::OPTIONS;
    let response = service.clone().oneshot(options).await.unwrap();
    assert_eq!(text(response).await, "oA token-a");
    let options = Request::options("/").body(Body::empty()).unwrap();
    let response = service.clone().oneshot(options).await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    // A GET request with `access-control-request-method` is not a preflight.
    let mut get = preflight("/", true);
    *get.method_mut() = Method::GET;
    let response = service.oneshot(get).await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
}

/// Returns an application with one route for each extractor.
fn app_with_extractors() -> Router {
    Router::new()
        .route("/", any(async |user: WechatUser| user.id().to_owned()))
        .route(
            "/maybe",
            any(async |user: Option<WechatUser>| format!("{}", user.is_some())),
        )
        .route(
            "/token",
            any(async |token: AccountToken| token.access_token().fingerprint()),
        )
        .route("/config", any(async |config: JsConfig| Json(config)))
}

/// A preflight that passes the layer gets a rejection from extractors. The error does not say that
/// a layer is missing.
#[tokio::test]
async fn extractors_answer_a_preflight_that_passes() {
    let wechat = WechatClient::builder("wxa", "secret")
        .api_url("http://127.0.0.1:9")
        .build()
        .unwrap();
    let accounts = AccountTokens::new(wechat, MemoryStore::new());
    let layer = WechatLayer::new(users().await)
        .identity(header())
        .login(login())
        .account(accounts);
    for layer in [
        layer.clone().pass_preflights(true),
        layer.policy(Policy::Optional),
    ] {
        let app = app_with_extractors().layer(layer);
        let ask = async |path: &str| {
            let response = app.clone().oneshot(preflight(path, false)).await.unwrap();
            assert!(response.headers().get("set-cookie").is_none());
            (response.status().as_u16(), text(response).await)
        };
        let (status, body) = ask("/").await;
        assert_eq!(status, 401, "{body}");
        assert!(body.contains("login_required"), "{body}");
        assert_eq!(ask("/maybe").await, (200, "false".to_owned()));
        assert_eq!(ask("/token").await.0, 503, "WeChat does not answer here");
        // The layer has an account without `Tickets`, which the error says.
        assert!(ask("/config").await.1.contains("configuration"));
    }
}

#[tokio::test]
async fn an_inner_cors_layer_answers_if_preflights_are_allowed() {
    use axum::middleware::{Next, from_fn};
    async fn cors(request: Request<Body>, next: Next) -> Response<Body> {
        if request.method() == Method::OPTIONS {
            return Response::builder()
                .header("access-control-allow-origin", "https://app.example")
                .body(Body::empty())
                .unwrap();
        }
        next.run(request).await
    }
    let layer = WechatLayer::new(users().await)
        .identity(header())
        .pass_preflights(true);
    let app = app_with_extractors().layer(from_fn(cors)).layer(layer);
    let response = app.oneshot(preflight("/", true)).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(
        response.headers()["access-control-allow-origin"],
        "https://app.example"
    );
}

#[tokio::test]
async fn a_preflight_passes_two_layers_if_both_allow_it() {
    let users: UserTokens = users().await;
    let outer = WechatLayer::new(users.clone()).identity(header());
    let inner = outer.clone();
    for (outer, inner, status) in [
        (outer.clone(), inner.clone().pass_preflights(true), 401),
        (outer.clone().pass_preflights(true), inner.clone(), 401),
        (
            outer.pass_preflights(true),
            inner.pass_preflights(true),
            200,
        ),
    ] {
        let service = outer.layer(inner.layer(service_fn(user_and_token::<Body>)));
        let response = service.oneshot(preflight("/", true)).await.unwrap();
        assert_eq!(response.status().as_u16(), status);
    }
}
