//! Tests of the logout: the value that a handler puts into its response, and the cookies that the
//! layers add.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Redirect};
use axum::routing::post;
use axum::{Router, middleware};
use bytes::Bytes;
use http::header::{CACHE_CONTROL, COOKIE, SET_COOKIE};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::Full;
use tower::{Layer, ServiceBuilder, ServiceExt, service_fn};
use tower_wechat::clock::Clock;
use tower_wechat::identity::{Identify, Identity};
use tower_wechat::{
    CookieKeys, Login, Logout, Policy, RequestHead, SessionCookie, UserTokens, WechatLayer,
    WechatUser,
};

use super::{header, id, request_of, users, users_of};

/// Time after which a session is renewed.
const PAST_HALF: Duration = Duration::from_secs(16 * 86_400);

fn session_of(users: &UserTokens, keys: &CookieKeys, clock: &Clock) -> SessionCookie {
    let session = SessionCookie::builder(users.app_id(), keys).clock(clock.clone());
    session.build().unwrap()
}

/// Returns a request with these `Set-Cookie` values as its cookies.
fn request_with(sessions: &[HeaderValue]) -> Request<Body> {
    let pairs = sessions.iter().map(|set| {
        let pair = set.to_str().unwrap().split(';').next();
        pair.unwrap()
    });
    Request::post("/logout")
        .header(COOKIE, pairs.collect::<Vec<_>>().join("; "))
        .body(Body::empty())
        .unwrap()
}

/// Returns the response of a handler without axum that ends the session.
async fn log_out(_: Request<Body>) -> Result<Response<Full<Bytes>>, Infallible> {
    let mut response = Response::default();
    response.extensions_mut().insert(Logout);
    Ok(response)
}

fn cookies_set(headers: &HeaderMap) -> Vec<&str> {
    let set = headers.get_all(SET_COOKIE).into_iter();
    set.map(|value| value.to_str().unwrap()).collect()
}

/// Asserts that the only cookies that a response sets remove these sessions.
fn assert_removes(headers: &HeaderMap, sessions: &[&SessionCookie]) {
    let expected: Vec<_> = sessions.iter().map(|session| session.clear()).collect();
    let expected: Vec<_> = expected.iter().map(|set| set.to_str().unwrap()).collect();
    assert_eq!(cookies_set(headers), expected);
}

#[tokio::test]
async fn a_logout_ends_the_session_and_does_not_renew_it() {
    let (users, clock) = (users().await, Clock::shifted());
    let session = session_of(&users, &CookieKeys::random().unwrap(), &clock);
    let cookie = session.issue(&id("oA"));
    let layer = WechatLayer::new(users).identity(session.clone());
    // The second layer of the same account must not renew the session either.
    let once = layer.clone().layer(service_fn(log_out));
    let twice = layer.layer(once.clone());
    for advance in [Duration::ZERO, PAST_HALF] {
        clock.advance(advance);
        let request = || request_with(std::slice::from_ref(&cookie));
        let response = once.clone().oneshot(request()).await.unwrap();
        assert_removes(response.headers(), &[&session]);
        assert_eq!(response.headers()[CACHE_CONTROL], "no-store");
        assert!(response.extensions().get::<Logout>().is_none());
        let response = twice.clone().oneshot(request()).await.unwrap();
        assert_removes(response.headers(), &[&session]);
    }
}

#[tokio::test]
async fn axum_handlers_return_a_logout_alone_or_with_a_response() {
    let users = users().await;
    let login = Login::builder("https://h5.example.com", CookieKeys::random().unwrap());
    let layer = WechatLayer::new(users).login(login.cookie_name("h5").build().unwrap());
    let session = layer.session_cookie().clone();
    let app: Router = Router::new()
        .route("/alone", post(async |_: WechatUser| Logout))
        .route("/page", post(async || (Logout, Redirect::to("/goodbye"))))
        .route(
            "/cached",
            post(async || {
                let caching = [
                    ("cache-control", "public, max-age=60"),
                    ("cdn-cache-control", "max-age=60"),
                ];
                (Logout, caching)
            }),
        )
        .layer(layer);
    for (path, status) in [
        ("/alone", StatusCode::NO_CONTENT),
        ("/page", StatusCode::SEE_OTHER),
        ("/cached", StatusCode::OK),
    ] {
        let mut request = request_with(&[session.issue(&id("oA"))]);
        *request.uri_mut() = path.parse().unwrap();
        let response = app.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), status);
        assert_removes(response.headers(), &[&session]);
        assert!(cookies_set(response.headers())[0].starts_with("__Host-h5=;"));
        assert_eq!(response.headers()[CACHE_CONTROL], "no-store");
        assert!(!response.headers().contains_key("cdn-cache-control"));
    }
}

/// The login issues a session even if the layer's identity does not read it.
#[tokio::test]
async fn a_logout_ends_the_session_of_a_login_beside_another_identity() {
    let (users, keys) = (users().await, CookieKeys::random().unwrap());
    let of_login = SessionCookie::new(users.app_id(), &keys);
    let layer = WechatLayer::new(users.clone()).identity(header());
    let mounted = layer.login(Login::new("https://h5.example.com", keys.clone()).unwrap());
    let service = mounted.layer(service_fn(log_out));
    let response = service.oneshot(request_of("oA")).await.unwrap();
    assert_removes(response.headers(), &[&of_login]);

    // An identity that wraps another session cookie than that of the login:
    struct Wrapper(SessionCookie);
    impl Identify for Wrapper {
        fn identify<'a>(&self, head: &RequestHead<'a>) -> Identity<'a> {
            self.0.identify(head)
        }
        fn session_cookie(&self) -> Option<&SessionCookie> {
            Some(&self.0)
        }
    }
    let own = SessionCookie::builder(users.app_id(), &keys).name("own");
    let own = own.build().unwrap();
    let layer = WechatLayer::new(users).identity(Wrapper(own.clone()));
    let mounted = layer.login(Login::new("https://h5.example.com", keys).unwrap());
    let service = mounted.layer(service_fn(log_out));
    let request = request_with(&[own.issue(&id("oA"))]);
    let response = service.oneshot(request).await.unwrap();
    assert_removes(response.headers(), &[&own, &of_login]);
}

#[tokio::test]
async fn of_two_accounts_the_innermost_session_ends() {
    let (keys, clock) = (CookieKeys::random().unwrap(), Clock::shifted());
    let (a, b) = (
        users_of("wxa", "token-a").await,
        users_of("wxb", "token-b").await,
    );
    let sessions = [&a, &b].map(|users| session_of(users, &keys, &clock));
    let cookies = [0, 1].map(|at: usize| sessions[at].issue(&id("oA")));
    let layers = [a, b].map(WechatLayer::new);
    let [a, b] = layers;
    let (a, b) = (
        a.identity(sessions[0].clone()),
        b.identity(sessions[1].clone()),
    );
    let service = ServiceBuilder::new();
    let service = service.layer(b.clone()).layer(a.clone());
    let service = service.service_fn(log_out);
    let response = service.clone().oneshot(request_with(&cookies)).await;
    assert_removes(response.unwrap().headers(), &[&sessions[0]]);
    // The other account's session is renewed in the same response.
    clock.advance(PAST_HALF);
    let response = service.oneshot(request_with(&cookies)).await.unwrap();
    let set = cookies_set(response.headers());
    assert_eq!(set.len(), 2, "{set:?}");
    assert!(set.contains(&sessions[0].clear().to_str().unwrap()));
    assert!(
        set.iter()
            .any(|set| set.starts_with("__Host-wechat_session_wxb=oA."))
    );

    // A layer without a session leaves the logout to the layer outside.
    let service = ServiceBuilder::new()
        .layer(b)
        .layer(WechatLayer::new(users().await).identity(header()))
        .service_fn(log_out);
    let mut request = request_with(&cookies);
    request
        .headers_mut()
        .insert("x-user", HeaderValue::from_static("oA"));
    let response = service.oneshot(request).await.unwrap();
    assert_removes(response.headers(), &[&sessions[1]]);
}

/// A middleware between two layers of one account logs users out whose session the inner layer has
/// just renewed.
#[tokio::test]
async fn a_logout_replaces_a_renewal_of_the_same_response() {
    let (users, clock) = (users().await, Clock::shifted());
    let session = session_of(&users, &CookieKeys::random().unwrap(), &clock);
    let cookie = session.issue(&id("oA"));
    let layer = WechatLayer::new(users).identity(session.clone());
    let app: Router = Router::new()
        .route("/logout", post(async || [("set-cookie", "theme=dark")]))
        .layer(layer.clone())
        .layer(middleware::map_response(
            async |response: axum::response::Response| {
                assert_eq!(response.headers().get_all(SET_COOKIE).iter().count(), 2);
                (Logout, response).into_response()
            },
        ))
        .layer(layer);
    clock.advance(PAST_HALF);
    let response = app.oneshot(request_with(&[cookie])).await.unwrap();
    let cleared = session.clear();
    assert_eq!(
        cookies_set(response.headers()),
        ["theme=dark", cleared.to_str().unwrap()]
    );
}

/// Under the optional policy a handler also logs a browser out whose session has ended.
#[tokio::test]
async fn a_logout_needs_no_user() {
    let users = users().await;
    let session = SessionCookie::new(users.app_id(), &CookieKeys::random().unwrap());
    let layer = WechatLayer::new(users).identity(session.clone());
    let service = layer.policy(Policy::Optional).layer(service_fn(log_out));
    let response = service.oneshot(request_with(&[])).await.unwrap();
    assert_removes(response.headers(), &[&session]);
}

#[tokio::test]
async fn a_session_issued_by_the_application_signs_in() {
    let login = Login::new("https://h5.example.com", CookieKeys::random().unwrap());
    let layer = WechatLayer::new(users().await).login(login.unwrap());
    let session = layer.session_cookie().clone();
    let service = layer.layer(service_fn(super::user_and_token::<Body>));
    let request = request_with(&[session.issue(&id("oA"))]);
    let response = service.oneshot(request).await.unwrap();
    assert_eq!(super::text(response).await, "oA token-a");
}
