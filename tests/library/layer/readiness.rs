//! Tests of readiness: which requests hold a permit of the inner service, and when.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use tokio::time::timeout;
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_wechat::client::UserTokenResponse;
use tower_wechat::simulator::{Fault, Simulator};
use tower_wechat::{CookieKeys, Login, UserTokens, WechatLayer, WechatUser};

use super::{expired, header, id, request_of, text, user_and_token, users};

const SOON: Duration = Duration::from_secs(10);

/// Returns the tokens of an expired user, `oCold`, and of a cached one, `oWarm`. WeChat responds
/// after `delay`.
async fn cold_and_warm(delay: Duration) -> (Simulator, UserTokens) {
    let simulator = Simulator::start().await.unwrap();
    let users = expired(&simulator, "oCold").await;
    simulator.advance(Duration::from_secs(7_300));
    let grant = UserTokenResponse::new("warm").expires_in(7_200);
    users.store(&id("oWarm"), &grant).await.unwrap();
    simulator.inject(Fault::on("/sns/oauth2/refresh_token").delay(delay));
    (simulator, users)
}

async fn renewal_begun(simulator: &Simulator) {
    while simulator.calls_to("/sns/oauth2/refresh_token") == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The inner service has one permit. A cached user's request gets it while another request waits
/// for its token.
#[tokio::test]
async fn a_cached_user_does_not_wait_for_an_uncached_one() {
    let (simulator, users) = cold_and_warm(Duration::from_secs(2)).await;
    let limited = ServiceBuilder::new()
        .concurrency_limit(1)
        .service_fn(user_and_token::<Body>);
    let service = WechatLayer::new(users).identity(header()).layer(limited);
    let cold = tokio::spawn(service.clone().oneshot(request_of("oCold")));
    renewal_begun(&simulator).await;
    let warm = service.clone().oneshot(request_of("oWarm"));
    let warm = timeout(SOON, warm).await.unwrap().unwrap();
    assert_eq!(text(warm).await, "oWarm warm");
    assert!(!cold.is_finished(), "the cold one still waits for WeChat");
    let cold = timeout(SOON, cold).await.unwrap().unwrap().unwrap();
    assert!(text(cold).await.starts_with("oCold "));
}

/// A service that was polled ready waits for a token, or responds without the inner service. Such a
/// service must return its permit, even if it is kept for the next request of a connection.
#[tokio::test]
async fn a_service_that_makes_no_call_returns_its_permit() {
    let (simulator, users) = cold_and_warm(Duration::from_millis(300)).await;
    let limited = ServiceBuilder::new()
        .concurrency_limit(1)
        .service_fn(user_and_token::<Body>);
    let login = Login::new("https://h5.example.com", CookieKeys::random().unwrap()).unwrap();
    let service = WechatLayer::new(users)
        .identity(header())
        .login(login)
        .layer(limited);
    let callback = Request::get("/wechat/callback?code=a&state=b");
    let login = Request::get("/wechat/login");
    let preflight = Request::options("/").header("access-control-request-method", "GET");
    for request in [
        request_of("oCold"),
        request_of("oStranger"),
        request_of(b"\xff"),
        Request::new(Body::empty()),
        callback.body(Body::empty()).unwrap(),
        login.body(Body::empty()).unwrap(),
        preflight.body(Body::empty()).unwrap(),
    ] {
        let mut idle = service.clone();
        let call = idle.ready().await.unwrap().call(request);
        let warm = service.clone().oneshot(request_of("oWarm"));
        let warm = timeout(SOON, warm).await.expect("its turn comes");
        assert_eq!(text(warm.unwrap()).await, "oWarm warm");
        timeout(SOON, call).await.unwrap().unwrap();
        let warm = service.clone().oneshot(request_of("oWarm"));
        timeout(SOON, warm).await.expect("and again").unwrap();
        drop(idle);
    }
    drop(simulator);
}

/// A request that had to wait for its token polls the inner service again before the call.
#[tokio::test]
async fn an_uncached_request_polls_readiness_again() {
    let (simulator, users) = cold_and_warm(Duration::from_millis(200)).await;
    let (mock, mut handle) = tower_test::mock::pair::<Request<Body>, Response<Full<Bytes>>>();
    handle.allow(1);
    let mut service = WechatLayer::new(users).identity(header()).layer(mock);
    let mut call = tokio::spawn(service.ready().await.unwrap().call(request_of("oCold")));
    drop(service);
    renewal_begun(&simulator).await;
    // The request has returned its first permit, and waits for another one.
    handle.allow(0);
    assert!(
        timeout(Duration::from_millis(700), handle.next_request())
            .await
            .is_err(),
        "called before it was ready"
    );
    assert!(timeout(Duration::from_millis(20), &mut call).await.is_err());
    handle.allow(1);
    let (request, answer) = timeout(SOON, handle.next_request()).await.unwrap().unwrap();
    let user = request.extensions().get::<WechatUser>().unwrap();
    assert_eq!(user.id(), "oCold");
    answer.send_response(Response::new(Full::from("ok")));
    let response = timeout(SOON, call).await.unwrap().unwrap().unwrap();
    assert_eq!(text(response).await, "ok");
}

/// A service whose `poll_ready` returns an error when its flag is set.
#[derive(Clone)]
struct Gone(Arc<std::sync::atomic::AtomicBool>);

impl Service<Request<Body>> for Gone {
    type Response = Response<Full<Bytes>>;
    type Error = &'static str;
    type Future = std::future::Ready<Result<Self::Response, Self::Error>>;

    fn poll_ready(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), Self::Error>> {
        match self.0.load(std::sync::atomic::Ordering::SeqCst) {
            true => std::task::Poll::Ready(Err("gone")),
            false => std::task::Poll::Ready(Ok(())),
        }
    }

    fn call(&mut self, _: Request<Body>) -> Self::Future {
        std::future::ready(Ok(Response::new(Full::default())))
    }
}

#[tokio::test]
async fn a_readiness_error_passes_through() {
    let (simulator, users) = cold_and_warm(Duration::from_millis(200)).await;
    let gone = Gone(Arc::default());
    let service = WechatLayer::new(users)
        .identity(header())
        .layer(gone.clone());
    let call = tokio::spawn(service.oneshot(request_of("oCold")));
    renewal_begun(&simulator).await;
    gone.0.store(true, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(call.await.unwrap().unwrap_err(), "gone");
}

#[tokio::test]
async fn a_request_without_a_user_is_answered_by_the_layer_alone() {
    let never = service_fn(
        async |_: Request<Body>| -> Result<Response<Full<Bytes>>, Infallible> { panic!("called") },
    );
    let service = WechatLayer::new(users().await)
        .identity(header())
        .layer(never);
    let response = service.oneshot(Request::new(Body::empty())).await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
}
