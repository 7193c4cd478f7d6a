//! Tests of a page that calls a service of another origin: its URL in the `Referer`, the browser's
//! preflights, and a login that leads back to the page.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::response::Html;
use axum::routing::{any, get};
use axum::{Json, Router};
use serde_json::Value;
use tokio::net::TcpListener;
use tower_http::cors::CorsLayer;
use tower_wechat::simulator::Simulator;
use tower_wechat::{
    AccountTokens, CookieKeys, JsConfig, Login, MemoryStore, Policy, Tickets, TrustedHeader,
    UserTokens, WechatClient, WechatLayer, jssdk,
};

use crate::chromium::{Chromium, Tab};
use crate::demo::Demo;
use crate::{EXCHANGE, other_origin};

async fn served(app: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    url
}

/// Returns JavaScript that sends a request. Its value is the status and the body, or 0 if the
/// browser blocks the request.
fn fetching(call: &str) -> String {
    format!(
        "fetch({call}).then(async answer => [answer.status, await answer.text()], \
         error => [0, String(error)])"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_another_origin_sends_its_url() {
    let sim = Simulator::start().await.unwrap();
    let wechat = WechatClient::builder(sim.app_id(), sim.app_secret())
        .api_url(sim.url())
        .build()
        .unwrap();
    let accounts = AccountTokens::new(wechat.clone(), MemoryStore::new());
    let tickets = Tickets::new(&accounts, ["127.0.0.1:*"]).unwrap();
    let users = UserTokens::new(wechat, MemoryStore::new());
    let layer = WechatLayer::new(users)
        .identity(TrustedHeader::new("x-user-id").unwrap())
        .account(tickets.clone());
    let service = Router::new()
        .route("/config", get(async |config: JsConfig| Json(config)))
        .route("/page/{name}", get(async || Html("<p>a page</p>")))
        .layer(layer.policy(Policy::Optional))
        .layer(CorsLayer::permissive());
    let (pages, api) = (served(service.clone()).await, served(service).await);

    let browser = Chromium::start();
    let tab = browser.tab().await;
    let page = format!("{pages}/page/one?from=singlemessage&x=1");
    tab.open(&page).await;
    tab.shows("a page").await;
    let ticket = tickets.get().await.unwrap();
    let is_signed = |answer: &Value| {
        assert_eq!(answer[0], 200, "{answer}");
        let config: Value = serde_json::from_str(answer[1].as_str().unwrap()).unwrap();
        let (nonce, at) = (config["nonceStr"].as_str().unwrap(), &config["timestamp"]);
        let at = at.as_u64().unwrap();
        let signature = jssdk::sign(ticket.ticket().expose(), nonce, at, &page);
        assert_eq!(config["signature"], signature);
    };
    // For another origin the browser sends only the origin as `Referer`. The request is rejected,
    // and names the remedy.
    let cut = tab.value(&fetching(&format!("'{api}/config'"))).await;
    assert_eq!(cut[0], 400, "{cut}");
    assert!(cut[1].as_str().unwrap().contains("encodeURIComponent"));
    let sent = "'/config?url=' + encodeURIComponent(location.href.split('#')[0])";
    is_signed(&tab.value(&fetching(&format!("'{api}' + {sent}"))).await);
    is_signed(&tab.value(&fetching("'/config'")).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preflight_does_not_reach_the_handler() {
    let wechat = WechatClient::new("wx01", "secret").unwrap();
    let layer = WechatLayer::new(UserTokens::new(wechat, MemoryStore::new()))
        .identity(TrustedHeader::new("x-user-id").unwrap());
    let reached = Arc::new(AtomicUsize::new(0));
    let handler = {
        let reached = Arc::clone(&reached);
        move || {
            reached.fetch_add(1, Ordering::SeqCst);
            async { "behind the layer" }
        }
    };
    let routes = Router::new().route("/", any(handler));
    let cors = CorsLayer::very_permissive;
    let pages = served(Router::new().route("/", get(async || Html("<p>a page</p>")))).await;
    let refusing = served(routes.clone().layer(cors()).layer(layer.clone())).await;
    let inside = routes.clone().layer(cors());
    let inside = served(inside.layer(layer.clone().pass_preflights(true))).await;
    let outside = served(routes.layer(layer).layer(cors())).await;

    let browser = Chromium::start();
    let tab = browser.tab().await;
    tab.open(&pages).await;
    tab.shows("a page").await;
    // A request with a header of the page's own, for which the browser sends a preflight first.
    let ask = async |api: &str| {
        let call = format!("'{api}/', {{ method: 'POST', headers: {{ 'x-own': '1' }} }}");
        tab.value(&fetching(&call)).await[0].clone()
    };
    assert_eq!(ask(&refusing).await, 0, "the browser gives up");
    assert_eq!(ask(&outside).await, 401);
    // The preflight passes. The layer rejects the request itself without CORS headers, so that the
    // browser blocks the response.
    assert_eq!(ask(&inside).await, 0);
    assert_eq!(reached.load(Ordering::SeqCst), 0);
}

/// Binds a port of 127.0.0.1. The ports of one host are different origins of one site.
async fn bound() -> (TcpListener, &'static str) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    (listener, Box::leak(origin.into_boxed_str()))
}

/// Serves a page at all paths, as static hosts do for applications of one page.
fn serve_page(listener: TcpListener, page: String) {
    let app = Router::new().fallback(async move || Html(page.clone()));
    tokio::spawn(async move { axum::serve(listener, app).await });
}

/// The page of the recipe has no session, goes to the login, and is open again afterwards, also if
/// its URL has a query and a route behind a `#`.
#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_another_origin_logs_in_and_is_open_again() {
    let ((pages_at, pages), (api_at, api)) = (bound().await, bound().await);
    let page = include_str!("../../examples/recipes/other_origin.html");
    serve_page(pages_at, page.replace("http://127.0.0.1:3000", api));
    let sim = Simulator::start().await.unwrap();
    let users = UserTokens::new(sim.client().unwrap(), MemoryStore::new());
    let login = Login::builder(api, CookieKeys::random().unwrap());
    let app = other_origin::app(users, login, pages).unwrap();
    tokio::spawn(async move { axum::serve(api_at, app).await });

    for (number, path) in ["/", "/shop?item=%E8%8C%B6#/cart/2"]
        .into_iter()
        .enumerate()
    {
        let browser = Chromium::start();
        let tab = browser.tab().await;
        let page = format!("{pages}{path}");
        tab.open(&page).await;
        tab.shows("hello o").await;
        // Browsers keep WeChat's fragment on a page without one.
        assert_eq!(tab.url().await.trim_end_matches("#wechat_redirect"), page);
        let login = tab.last_asked("/wechat/login?return_to=");
        assert!(login.starts_with(api), "{login}");
        // The user is known from now on.
        tab.reload().await;
        tab.shows("hello o").await;
        assert_eq!(sim.calls_to(EXCHANGE), number as u64 + 1);
        // The start page of the service leads to the pages.
        tab.open(api).await;
        tab.until(&format!("location.href === '{pages}/'")).await;
    }
}

/// Returns the status and the JSON of a request that the page's script sends to the demo.
async fn call(tab: &Tab, demo: &Demo, path: &str, options: &str) -> Value {
    let call = format!(
        "fetch('{}{path}', {{ credentials: 'include', {options} }}).then(async answer => \
         [answer.status, JSON.parse(await answer.text() || 'null')], error => [0, String(error)])",
        demo.url
    );
    tab.value(&call).await
}

/// A page of an origin in `RETURN_ORIGINS` uses the demo. A page of another origin reads nothing.
#[tokio::test(flavor = "multi_thread")]
async fn pages_of_return_origins_use_the_demo() {
    let ((pages_at, pages), (other_at, other)) = (bound().await, bound().await);
    for listener in [pages_at, other_at] {
        serve_page(listener, "<p>a front end</p>".to_owned());
    }
    let demo = Demo::with(&[("RETURN_ORIGINS", pages)]).await;
    let browser = Chromium::start();
    let tab = browser.tab().await;
    tab.open(other).await;
    tab.shows("a front end").await;
    assert_eq!(call(&tab, &demo, "/api/me", "").await[0], 0);

    let page = format!("{pages}/#/orders?id=1");
    tab.open(&page).await;
    tab.until(&format!("location.href === '{page}'")).await;
    tab.shows("a front end").await;
    let answer = call(&tab, &demo, "/api/me", "").await;
    assert_eq!(answer[0], 401, "{answer}");
    // By default the browser sends the bare origin as `Referer`.
    let login_url = answer[1]["login_url"].as_str().unwrap();
    let mut login = url::Url::parse(login_url).unwrap();
    assert!(login_url.starts_with(&demo.url), "{login_url}");
    let return_to = login.query_pairs().next().unwrap().1.into_owned();
    assert_eq!(return_to, format!("{pages}/"));
    login
        .query_pairs_mut()
        .clear()
        .append_pair("return_to", &page);
    tab.value(&format!("location.assign('{login}')")).await;
    tab.shows("申请使用").await;
    tab.press("#allow").await;
    tab.shows("a front end").await;
    assert_eq!(tab.url().await, page);

    let answer = call(&tab, &demo, "/api/me", "").await;
    assert_eq!(
        answer[1]["user_id"], "oLin000000000000000000000000",
        "{answer}"
    );
    // A request that needs a preflight.
    let options = "method: 'POST', headers: { 'x-own': '1' }";
    assert_eq!(call(&tab, &demo, "/logout", options).await[0], 204);
    assert_eq!(call(&tab, &demo, "/api/me", "").await[0], 401);
    assert_eq!(demo.sim.calls_to(EXCHANGE), 1);
}
