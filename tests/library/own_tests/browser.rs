//! The browser of tests, in front of axum, tower and hyper services.

use std::convert::Infallible;

use axum::extract::Request as AxumRequest;
use axum::response::{AppendHeaders, IntoResponse, Redirect};
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body_util::Full;
use tower::ServiceBuilder;
use tower_wechat::simulator::{SimulatedUser, Simulator};
use tower_wechat::testing::Browser;
use tower_wechat::{
    AccountTokens, CookieKeys, JsConfig, Login, MemoryStore, Policy, SessionCookie, Tickets,
    UserTokens, WechatClient, WechatLayer, WechatUser,
};

const EXAMPLE: &str = "https://h5.example.com";

async fn layer(simulator: &Simulator, origin: &str) -> WechatLayer<SessionCookie> {
    simulator.add_user(SimulatedUser::new("oAlice"));
    let users = UserTokens::new(simulator.client().unwrap(), MemoryStore::new());
    let login = Login::new(origin, CookieKeys::random().unwrap()).unwrap();
    WechatLayer::new(users).login(login)
}

#[tokio::test]
async fn a_page_logs_in_and_the_session_stays() {
    let simulator = Simulator::start().await.unwrap();
    let app = Router::new()
        .route("/me", get(async |user: WechatUser| user.id().to_owned()))
        .layer(layer(&simulator, EXAMPLE).await);
    let browser = Browser::new(EXAMPLE, app.clone());
    let anonymous = browser.fetch("/me").await;
    assert_eq!(anonymous.status(), StatusCode::UNAUTHORIZED);
    assert!(anonymous.body().contains("login_url"), "{anonymous:?}");

    let page = browser.open("/me?tab=2").await;
    assert_eq!((page.status(), &**page.body()), (StatusCode::OK, "oAlice"));
    assert_eq!(browser.url(), "https://h5.example.com/me?tab=2");
    assert_eq!(browser.fetch("/me").await.body(), "oAlice");
    assert_eq!(simulator.calls_to("/sns/oauth2/access_token"), 1);

    // Another browser of the same application has other cookies.
    simulator.add_user(SimulatedUser::new("oBob"));
    let other = Browser::new(EXAMPLE, app);
    assert_eq!(other.fetch("/me").await.status(), 401);
    assert_eq!(other.open("/me").await.body(), "oBob");
    assert_eq!(browser.open("/me").await.body(), "oAlice");
}

/// The layer reads the page of a script from `Referer`, for the JS-SDK and for the login's URL.
#[tokio::test]
async fn scripts_name_the_page_that_was_opened() {
    let simulator = Simulator::start().await.unwrap();
    let account = AccountTokens::new(simulator.client().unwrap(), MemoryStore::new());
    let tickets = Tickets::new(&account, ["h5.example.com"]).unwrap();
    let layer = layer(&simulator, EXAMPLE).await;
    let app = Router::new()
        .route("/cards", get(async || "a page for everyone"))
        .route("/js", get(async |config: JsConfig| Json(config)))
        .route("/me", get(async |user: WechatUser| user.id().to_owned()))
        .layer(layer.account(tickets).policy(Policy::Optional))
        .route(
            "/referer",
            get(async |headers: HeaderMap| format!("{:?}", headers.get(header::REFERER))),
        );
    let browser = Browser::new(EXAMPLE, app);
    assert_eq!(browser.fetch("/referer").await.body(), "None");
    browser.open("/cards?tab=1#top").await;
    let shown = browser.fetch("/referer").await;
    assert_eq!(
        shown.body(),
        r#"Some("https://h5.example.com/cards?tab=1")"#
    );
    let signed = browser.fetch("/js").await;
    assert_eq!(signed.status(), StatusCode::OK, "{signed:?}");
    let rejected = browser.fetch("/me").await;
    assert!(
        rejected.body().contains("return_to=%2Fcards%3Ftab%3D1"),
        "{rejected:?}"
    );
    let own = Request::get("/referer").header(header::REFERER, "https://shop.example.com/");
    let shown = browser.send(own.body("").unwrap()).await;
    assert_eq!(shown.body(), r#"Some("https://shop.example.com/")"#);
}

async fn hello(request: Request<Full<Bytes>>) -> Result<Response<Full<Bytes>>, Infallible> {
    Ok(match WechatUser::required(&request) {
        Ok(user) => Response::new(Full::from(user.id().to_owned())),
        Err(rejection) => rejection.response().map(Full::new),
    })
}

#[tokio::test]
async fn a_tower_service_logs_in() {
    let simulator = Simulator::start().await.unwrap();
    let service = ServiceBuilder::new()
        .layer(layer(&simulator, EXAMPLE).await)
        .service_fn(hello);
    let browser = Browser::new(EXAMPLE, service);
    assert_eq!(browser.open("/").await.body(), "oAlice");
}

#[tokio::test]
async fn a_service_that_listens_logs_in() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    let simulator = Simulator::start().await.unwrap();
    let service = ServiceBuilder::new()
        .layer(layer(&simulator, &origin).await)
        .map_request(|request: Request<hyper::body::Incoming>| request.map(|_| Full::default()))
        .service_fn(hello);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = hyper_util::service::TowerToHyperService::new(service.clone());
            let server = hyper::server::conn::http1::Builder::new();
            let stream = hyper_util::rt::TokioIo::new(stream);
            tokio::spawn(server.serve_connection(stream, service));
        }
    });
    let browser = Browser::over_http(&origin);
    assert_eq!(browser.fetch("/").await.status(), 401);
    assert_eq!(browser.open("/").await.body(), "oAlice");
}

/// Returns what the application receives: the method, URI, host, user agent and cookies, and the body.
async fn show(request: AxumRequest) -> String {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1_024).await.unwrap();
    let header = |name| {
        let value = parts.headers.get(name).map(|value| value.to_str().unwrap());
        value.unwrap_or("-").to_owned()
    };
    format!(
        "{} {} {} {} {} {}",
        parts.method,
        parts.uri,
        header(header::HOST),
        header(header::USER_AGENT).contains("MicroMessenger"),
        header(header::COOKIE),
        String::from_utf8_lossy(&body),
    )
}

fn application() -> Router {
    let set = |cookie: &'static str| AppendHeaders([(header::SET_COOKIE, cookie)]);
    Router::new()
        .route("/show", get(show).post(show))
        .route(
            "/set",
            get(async move || (set("k=v; Path=/"), Redirect::to("show?a=b"))),
        )
        .route("/delete", post(async move || set("k=; Path=/; Max-Age=0")))
        .route("/loop", get(async || Redirect::to("/loop")))
        .route(
            "/away",
            get(async || Redirect::to("https://open.weixin.qq.com/connect")),
        )
        .route("/hangs", get(std::future::pending::<&str>))
}

#[tokio::test]
async fn requests_are_those_of_a_browser() {
    let browser = Browser::new("http://localhost:3000", application());
    let page = browser.open("/set").await;
    assert_eq!(page.body(), "GET /show?a=b localhost:3000 true k=v ");
    assert_eq!(browser.fetch("/set").await.status(), StatusCode::SEE_OTHER);
    let posted = browser.send(Request::post("/show").body("tea").unwrap());
    assert_eq!(
        posted.await.body(),
        "POST /show localhost:3000 true k=v tea"
    );
    browser
        .send(Request::post("/delete").body("").unwrap())
        .await;
    let page = browser.open("http://localhost:3000/show").await;
    assert_eq!(page.body(), "GET /show localhost:3000 true - ");
    assert!(!format!("{browser:?}").contains("k=v"));
}

#[tokio::test]
#[should_panic(expected = "/loop has more than 20 redirects:\nhttp://localhost/loop\n")]
async fn endless_redirects_panic() {
    Browser::new("http://localhost", application())
        .open("/loop")
        .await;
}

#[tokio::test]
#[should_panic(expected = "does not call open.weixin.qq.com. The WechatClient of the application")]
async fn redirects_to_the_internet_panic() {
    Browser::new("http://localhost", application())
        .open("/away")
        .await;
}

#[tokio::test]
#[should_panic(expected = "does not call open.weixin.qq.com")]
async fn a_real_client_is_noticed() {
    let wechat = WechatClient::builder("wx0123456789abcdef", "secret").api_url("http://localhost");
    let users = UserTokens::new(wechat.build().unwrap(), MemoryStore::new());
    let login = Login::new(EXAMPLE, CookieKeys::random().unwrap()).unwrap();
    let app = Router::new()
        .route("/", get(async |user: WechatUser| user.id().to_owned()))
        .layer(WechatLayer::new(users).login(login));
    Browser::new(EXAMPLE, app).open("/").await;
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "GET http://localhost/hangs got no response within 30s")]
async fn a_service_that_hangs_panics() {
    Browser::new("http://localhost", application())
        .fetch("/hangs")
        .await;
}

#[tokio::test]
#[should_panic(expected = "GET http://localhost/ got no response: out of order")]
async fn a_service_that_fails_panics() {
    let service = tower::service_fn(async |_: Request<Full<Bytes>>| {
        Err::<Response<Full<Bytes>>, _>(std::io::Error::other("out of order"))
    });
    Browser::new("http://localhost", service).open("/").await;
}

#[test]
#[should_panic(expected = "\"h5.example.com\" is no origin")]
fn an_origin_without_a_scheme_panics() {
    let _ = Browser::new("h5.example.com", application());
}

#[tokio::test]
async fn responses_are_not_followed_to_a_page_that_fails() {
    let app = Router::new().route("/", get(async || StatusCode::BAD_GATEWAY.into_response()));
    let page = Browser::new("http://localhost", app).open("/").await;
    assert_eq!(page.status(), StatusCode::BAD_GATEWAY);
}

#[tokio::test]
async fn a_click_names_the_page_and_keeps_it_through_redirects() {
    const PAGE: &str = r#"<a class="x" href="/moved?a=1&amp;b=2">x</a> <a href="/other">y</a>"#;
    let referer = async |headers: HeaderMap| {
        let referer = headers.get(header::REFERER);
        referer.map_or("none".to_owned(), |it| it.to_str().unwrap().to_owned())
    };
    let app = Router::new()
        .route("/page", get(async || axum::response::Html(PAGE)))
        .route("/moved", get(async || Redirect::to("/end")))
        .route("/end", get(referer));
    let browser = Browser::new(EXAMPLE, app);
    assert_eq!(browser.open("/end").await.body(), "none");
    browser.open("/page").await;
    let end = browser.click("a=1&b=2").await;
    assert_eq!(end.body(), "https://h5.example.com/page");
    assert_eq!(browser.url(), "https://h5.example.com/end");
}
