//! Tests of a page that calls a service of another origin: its URL in the `Referer`, and the
//! browser's preflights.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::response::Html;
use axum::routing::{any, get};
use axum::{Json, Router};
use serde_json::Value;
use tower_http::cors::CorsLayer;
use tower_wechat::simulator::Simulator;
use tower_wechat::{
    AccountTokens, JsConfig, MemoryStore, Policy, Tickets, TrustedHeader, UserTokens, WechatClient,
    WechatLayer, jssdk,
};

use crate::chromium::Chromium;

async fn served(app: Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
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
