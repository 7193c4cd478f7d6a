//! Tests of the layer: policies, rejections, and the inner service.

mod account_gauges;
mod accounts;
mod allocations;
mod counts;
mod error_formats;
mod identities;
mod logout;
mod mounting;
mod operation_of_accounts;
mod optional;
mod preflights;
mod readiness;
mod rejections;
mod several_accounts;
mod several_accounts_faults;
mod unknown_accounts;

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::routing::get;
use axum::{Json, Router};
use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use tower::{Layer, ServiceBuilder, ServiceExt, service_fn};
use tower_wechat::client::UserTokenResponse;
use tower_wechat::clock::Clock;
use tower_wechat::simulator::{Fault, Simulator};
use tower_wechat::{
    MemoryStore, Policy, Rejection, RequestHead, TrustedHeader, UserId, UserTokens, WechatClient,
    WechatLayer, WechatUser,
};

/// Returns the tokens of a user whose access token has expired by the clock of this process. At
/// WeChat the access token is still valid.
async fn expired(simulator: &Simulator, user: &str) -> UserTokens {
    let wechat = simulator.client().unwrap();
    let clock = Clock::shifted();
    let users = UserTokens::builder(wechat, MemoryStore::new())
        .clock(clock.clone())
        .build();
    let pair = simulator.sign_in(user, "snsapi_base");
    let grant = UserTokenResponse::new(pair.access_token).refresh_token(pair.refresh_token);
    users
        .store(&id(user), &grant.expires_in(7_200))
        .await
        .unwrap();
    clock.advance(Duration::from_secs(7_300));
    users
}

/// Returns tokens with one user, `oA`, whose token is `token-a`. WeChat is unreachable.
async fn users() -> UserTokens {
    users_of("wxa", "token-a").await
}

async fn users_of(app: &str, token: &str) -> UserTokens {
    let wechat = WechatClient::builder(app, "secret")
        .api_url("http://127.0.0.1:9")
        .build();
    let users = UserTokens::new(wechat.unwrap(), MemoryStore::new());
    users
        .store(&id("oA"), &UserTokenResponse::new(token).expires_in(7_200))
        .await
        .unwrap();
    users
}

fn id(id: &str) -> UserId {
    UserId::new(id).unwrap()
}

fn header() -> TrustedHeader {
    TrustedHeader::new("x-user").unwrap()
}

fn request_of(user: impl AsRef<[u8]>) -> Request<Body> {
    let user = HeaderValue::from_bytes(user.as_ref()).unwrap();
    Request::builder()
        .header("x-user", user)
        .body(Body::empty())
        .unwrap()
}

/// Responds with the id and the token of the request's user, or with "anonymous".
async fn user_and_token<B>(request: Request<B>) -> Result<Response<Full<Bytes>>, Infallible> {
    let user = request.extensions().get::<WechatUser>();
    let text = user.map_or("anonymous".to_owned(), |user| {
        format!("{} {}", user.id(), user.access_token().expose())
    });
    Ok(Response::new(Full::from(text)))
}

async fn text(
    response: Response<impl http_body::Body<Data = Bytes, Error: std::fmt::Debug>>,
) -> String {
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[tokio::test]
async fn the_handler_gets_the_user() {
    let service = WechatLayer::new(users().await)
        .identity(header())
        .layer(service_fn(user_and_token::<Body>));
    let response = service.clone().oneshot(request_of("oA")).await.unwrap();
    assert_eq!(text(response).await, "oA token-a");
}

#[tokio::test]
async fn rejections_are_json_with_the_right_status() {
    let service = WechatLayer::new(users().await)
        .identity(header())
        .layer(service_fn(user_and_token::<Body>));
    let anonymous = Request::new(Body::empty());
    for (request, status, code) in [
        (anonymous, StatusCode::UNAUTHORIZED, "login_required"),
        (request_of(""), StatusCode::UNAUTHORIZED, "login_required"),
        (
            request_of("oStranger"),
            StatusCode::UNAUTHORIZED,
            "login_required",
        ),
        (
            request_of("a:b #{c} 张三"),
            StatusCode::UNAUTHORIZED,
            "login_required",
        ),
        (
            request_of("x".repeat(257)),
            StatusCode::BAD_REQUEST,
            "bad_request",
        ),
        (
            request_of("x".repeat(4_096)),
            StatusCode::BAD_REQUEST,
            "bad_request",
        ),
        (request_of("a\tb"), StatusCode::BAD_REQUEST, "bad_request"),
        (request_of(b"\xff"), StatusCode::BAD_REQUEST, "bad_request"),
    ] {
        let response = service.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), status);
        assert_eq!(response.headers()["content-type"], "application/json");
        assert_eq!(response.headers()["cache-control"], "no-store");
        let body: Value = serde_json::from_str(&text(response).await).unwrap();
        assert_eq!(body["error"], code);
        assert!(
            body["message"]
                .as_str()
                .is_some_and(|message| message.len() > 10)
        );
    }
    let mut twice = request_of("oA");
    twice
        .headers_mut()
        .append("x-user", HeaderValue::from_static("oB"));
    let response = service.oneshot(twice).await.unwrap();
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn failures_are_503_with_a_retry_after() {
    let users = users().await;
    let grant = UserTokenResponse::new("dead")
        .expires_in(7_200)
        .refresh_token("r");
    let clock = Clock::shifted();
    let wechat = WechatClient::builder("wxa", "secret")
        .api_url("http://127.0.0.1:9")
        .build();
    let builder = UserTokens::builder(wechat.unwrap(), MemoryStore::new()).clock(clock.clone());
    let expired = builder.lease_duration(Duration::from_millis(500)).build();
    expired.store(&id("oA"), &grant).await.unwrap();
    clock.advance(Duration::from_secs(7_201));
    drop(users);
    let response = WechatLayer::new(expired)
        .identity(header())
        .layer(service_fn(user_and_token::<Body>))
        .oneshot(request_of("oA"))
        .await
        .unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    let retry_after = response.headers()["retry-after"].to_str().unwrap();
    assert!(retry_after.parse::<u64>().unwrap() >= 1);
    let body: Value = serde_json::from_str(&text(response).await).unwrap();
    assert_eq!(body["error"], "wechat_unavailable");
}

#[tokio::test]
async fn optional_lets_anonymous_requests_pass() {
    let layer = WechatLayer::new(users().await)
        .identity(header())
        .policy(Policy::Optional);
    let service = layer.layer(service_fn(user_and_token::<Body>));
    for (request, expected) in [
        (Request::new(Body::empty()), "anonymous"),
        (request_of("oStranger"), "anonymous"),
        (request_of("oA"), "oA token-a"),
    ] {
        assert_eq!(
            text(service.clone().oneshot(request).await.unwrap()).await,
            expected
        );
    }
    let response = service.oneshot(request_of(b"\xff")).await.unwrap();
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn an_application_renders_rejections_itself() {
    // A body type of the application, from which the crate cannot create a response by itself.
    struct Page(&'static str);
    let layer = WechatLayer::new(users().await).identity(header()).reject(
        |rejection: &Rejection, head: &RequestHead<'_>| {
            assert_eq!(head.uri.path(), "/page");
            let mut response = Response::new(Page(rejection.code()));
            *response.status_mut() = rejection.status();
            response
        },
    );
    let service = layer.layer(service_fn(async |_: Request<()>| {
        Ok::<_, Infallible>(Response::new(Page("handler")))
    }));
    let request = Request::builder().uri("/page").body(()).unwrap();
    let response = service.oneshot(request).await.unwrap();
    assert_eq!(
        (response.status(), response.into_body().0),
        (StatusCode::UNAUTHORIZED, "login_required")
    );
}

#[tokio::test]
async fn errors_of_the_inner_service_pass_through() {
    let service = WechatLayer::new(users().await)
        .identity(header())
        .layer(service_fn(async |_: Request<Body>| {
            Err::<Response<Full<Bytes>>, _>("broken")
        }));
    assert_eq!(
        service.oneshot(request_of("oA")).await.unwrap_err(),
        "broken"
    );
}

/// The layer calls the same instance of the service that it polled ready, whether the token is
/// cached or not. A service with limited concurrency panics or hangs otherwise.
#[tokio::test]
async fn the_inner_service_is_polled_before_a_call() {
    let simulator = Simulator::start().await.unwrap();
    let wechat = WechatClient::builder(simulator.app_id(), simulator.app_secret())
        .api_url(simulator.url())
        .build()
        .unwrap();
    let store = MemoryStore::new();
    let users = UserTokens::new(wechat.clone(), store.clone());
    let pair = simulator.sign_in("oA", "snsapi_base");
    let grant = UserTokenResponse::new(pair.access_token).expires_in(7_200);
    users.store(&id("oA"), &grant).await.unwrap();
    // Without a cache, each request reads its token from the store.
    let forgetful = UserTokens::builder(wechat, store)
        .cache_ttl(Duration::ZERO)
        .build();
    for users in [users, forgetful] {
        let limited = ServiceBuilder::new()
            .concurrency_limit(2)
            .service_fn(user_and_token::<Body>);
        let service = WechatLayer::new(users).identity(header()).layer(limited);
        let mut running = tokio::task::JoinSet::new();
        for _ in 0..100 {
            let service = service.clone();
            running
                .spawn(async move { text(service.oneshot(request_of("oA")).await.unwrap()).await });
        }
        let answers = tokio::time::timeout(Duration::from_secs(10), running.join_all());
        assert!(
            answers
                .await
                .unwrap()
                .iter()
                .all(|answer| answer.starts_with("oA "))
        );
    }
    drop(simulator);
}

#[tokio::test]
async fn poll_ready_is_that_of_the_inner_service() {
    let (mock, mut handle) = tower_test::mock::pair::<Request<Body>, Response<Full<Bytes>>>();
    let mut service = WechatLayer::new(users().await)
        .identity(header())
        .layer(mock);
    handle.allow(0);
    let waiting = tokio::time::timeout(Duration::from_millis(20), service.ready());
    assert!(waiting.await.is_err());
    handle.allow(1);
    let call = service.ready().await.unwrap().call(request_of("oA"));
    let answering = async {
        let (request, answer) = handle.next_request().await.unwrap();
        assert_eq!(request.extensions().get::<WechatUser>().unwrap().id(), "oA");
        answer.send_response(Response::new(Full::from("ok")));
    };
    let (response, ()) = tokio::join!(call, answering);
    assert_eq!(text(response.unwrap()).await, "ok");
}

#[tokio::test]
async fn axum_handlers_take_the_user_as_an_argument() {
    let layer = WechatLayer::new(users().await)
        .identity(header())
        .policy(Policy::Optional);
    let app: Router = Router::new()
        .route("/me", get(async |user: WechatUser| user.id().to_owned()))
        .route(
            "/maybe",
            get(async |user: Option<WechatUser>| {
                Json(json!({ "user": user.map(|user| user.id().to_owned()) }))
            }),
        )
        .layer(layer)
        .route(
            "/outside",
            get(async |user: WechatUser| user.id().to_owned()),
        )
        .route(
            "/outside/maybe",
            get(async |user: Option<WechatUser>| format!("{}", user.is_some())),
        );
    let ask = async |path: &str, user: &str| {
        let mut request = request_of(user);
        *request.uri_mut() = path.parse().unwrap();
        let response = app.clone().oneshot(request).await.unwrap();
        (response.status().as_u16(), text(response).await)
    };
    assert_eq!(ask("/me", "oA").await, (200, "oA".to_owned()));
    assert_eq!(
        ask("/maybe", "oA").await,
        (200, r#"{"user":"oA"}"#.to_owned())
    );
    assert_eq!(
        ask("/maybe", "").await,
        (200, r#"{"user":null}"#.to_owned())
    );
    let (status, body) = ask("/me", "").await;
    assert_eq!(status, 401);
    assert!(body.contains("login_required"));
    // Outside of the layer, a handler gets no user, and the response is a 500 even if the user is
    // optional.
    for path in ["/outside", "/outside/maybe"] {
        assert_eq!(ask(path, "oA").await.0, 500);
        assert_eq!(ask(path, "").await.0, 500);
    }
}

/// The layer serves a request through hyper without axum. A client disconnects during the renewal
/// of its token, and the next request gets the renewed token.
#[tokio::test]
async fn plain_hyper_serves_the_same() {
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use hyper_util::service::TowerToHyperService;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let simulator = Simulator::start().await.unwrap();
    let users = expired(&simulator, "oA").await;
    simulator.advance(Duration::from_secs(7_300));
    simulator.inject(Fault::on("/sns/oauth2/refresh_token").delay(Duration::from_millis(300)));

    let service = WechatLayer::new(users.clone()).identity(header());
    let service = service.layer(service_fn(user_and_token::<hyper::body::Incoming>));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let service = TowerToHyperService::new(service.clone());
            tokio::spawn(async move {
                hyper_util::server::conn::auto::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service)
                    .await
                    .ok();
            });
        }
    });
    let request = "GET / HTTP/1.1\r\nhost: h\r\nx-user: oA\r\nconnection: close\r\n\r\n";
    let ask = async || {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        stream
    };
    // The first client disconnects during the renewal, which continues.
    let gone = ask().await;
    while simulator.calls_to("/sns/oauth2/refresh_token") == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    drop(gone);
    let mut answer = String::new();
    ask().await.read_to_string(&mut answer).await.unwrap();
    let live = simulator.current_pair("oA").unwrap().access_token;
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.ends_with(&live),
        "{answer}"
    );
    assert_eq!(simulator.calls_to("/sns/oauth2/refresh_token"), 1);
    serving.abort();
}
