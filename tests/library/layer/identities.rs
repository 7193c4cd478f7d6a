//! Tests of identities: session cookies, extensions and closures.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::Full;
use tower::{Layer, ServiceExt, service_fn};
use tower_wechat::clock::Clock;
use tower_wechat::identity::ExtensionIdentity;
use tower_wechat::{CookieKeys, RequestHead, SessionCookie, UserId, WechatLayer};

use super::{id, text, user_and_token, users};

#[tokio::test]
async fn a_session_cookie_identifies_the_user_and_is_renewed() {
    let users = users().await;
    let clock = Clock::shifted();
    let keys = CookieKeys::random().unwrap();
    let session = SessionCookie::builder(users.app_id(), &keys).clock(clock.clone());
    let session = session.build().unwrap();
    let service = WechatLayer::new(users)
        .identity(session.clone())
        .layer(service_fn(user_and_token::<Body>));
    let set_cookie = session.issue(&id("oA"));
    let cookie = set_cookie
        .to_str()
        .unwrap()
        .split(';')
        .next()
        .unwrap()
        .to_owned();
    let ask = || {
        Request::builder()
            .header("cookie", format!("x=y; {cookie}"))
            .body(Body::empty())
            .unwrap()
    };
    let response = service.clone().oneshot(ask()).await.unwrap();
    assert!(response.headers().get("set-cookie").is_none());
    assert_eq!(text(response).await, "oA token-a");
    clock.advance(Duration::from_secs(16 * 86_400));
    let response = service.clone().oneshot(ask()).await.unwrap();
    let renewed = response.headers()["set-cookie"].to_str().unwrap();
    let name = cookie.split('=').next().unwrap();
    assert!(renewed.starts_with(&format!("{name}=oA.")) && !renewed.starts_with(&cookie));
    clock.advance(Duration::from_secs(16 * 86_400));
    let response = service.clone().oneshot(ask()).await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    // Another cookie in the header is not ASCII.
    let mut cookies = "nick=\u{5f20}\u{4e09}; ".as_bytes().to_vec();
    let fresh = session.issue(&id("oA"));
    cookies.extend(fresh.to_str().unwrap().split(';').next().unwrap().bytes());
    let request = Request::builder().header("cookie", HeaderValue::from_bytes(&cookies).unwrap());
    let response = service
        .oneshot(request.body(Body::empty()).unwrap())
        .await
        .unwrap();
    assert_eq!(text(response).await, "oA token-a");
}

#[tokio::test]
async fn no_session_is_renewed_in_a_cacheable_response() {
    let clock = Clock::shifted();
    let users = users().await;
    let session = SessionCookie::builder(users.app_id(), &CookieKeys::random().unwrap());
    let session = session.clock(clock.clone()).build().unwrap();
    let set_cookie = session.issue(&id("oA"));
    let cookie = set_cookie.to_str().unwrap().split(';').next().unwrap();
    clock.advance(Duration::from_secs(16 * 86_400));
    let public = async |_: Request<Body>| {
        let response = Response::builder().header("cache-control", "public, max-age=60");
        Ok::<_, Infallible>(response.body(Full::<Bytes>::default()).unwrap())
    };
    let service = WechatLayer::new(users)
        .identity(session.clone())
        .layer(service_fn(public));
    let request = Request::builder()
        .header("cookie", cookie)
        .body(Body::empty())
        .unwrap();
    let response = service.oneshot(request).await.unwrap();
    assert!(response.status().is_success());
    assert!(response.headers().get("set-cookie").is_none());
}

#[tokio::test]
async fn an_extension_or_a_closure_identifies_the_user() {
    #[derive(Clone)]
    struct SignedIn(&'static str);
    let identity = ExtensionIdentity::new(|user: &SignedIn| UserId::new(user.0).ok());
    let layer = WechatLayer::new(users().await).identity(identity);
    let service = layer.layer(service_fn(user_and_token::<Body>));
    let mut request = Request::new(Body::empty());
    request.extensions_mut().insert(SignedIn("oA"));
    assert_eq!(
        text(service.clone().oneshot(request).await.unwrap()).await,
        "oA token-a"
    );
    let response = service.oneshot(Request::new(Body::empty())).await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);

    let layer = WechatLayer::new(users().await)
        .identity(|head: &RequestHead<'_>| UserId::new(head.uri.path().strip_prefix('/')?).ok());
    let request = Request::builder().uri("/oA").body(Body::empty()).unwrap();
    let response = layer
        .layer(service_fn(user_and_token::<Body>))
        .oneshot(request)
        .await
        .unwrap();
    assert_eq!(text(response).await, "oA token-a");
}
