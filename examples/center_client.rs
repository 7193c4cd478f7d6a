//! Gets the account's token from a token center, and signs pages for the JS-SDK. The service needs no
//! AppSecret, and only the center calls WeChat.
//!
//! Run `cargo run --example center_client` and open
//! <http://127.0.0.1:3000/js-config?url=http://127.0.0.1:3000/page>, or <http://127.0.0.1:3000/token>. The
//! program starts a center and a simulator of WeChat. To use another center, such as
//! `examples/token_center.rs`, set `CENTER_URL`, `CENTER_TOKEN` and `WECHAT_APPID`.

use std::env;
use std::time::Duration;

use axum::extract::State;
use axum::http::Uri;
use axum::routing::get;
use axum::{Json, Router};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tower_wechat::account::{TokenCenter, TokenCenterClient};
use tower_wechat::jssdk::page_url;
use tower_wechat::simulator::Simulator;
use tower_wechat::{AccountTokens, Error, JsConfig, MemoryStore, Tickets, WechatClient};

type BoxError = Box<dyn std::error::Error>;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let listen = env::var("LISTEN").unwrap_or("127.0.0.1:3000".to_owned());
    let listener = TcpListener::bind(listen).await?;

    let (app_id, center, secret) = match read_variable("CENTER_URL") {
        Some(url) => {
            let missing = |name| format!("CENTER_URL is set, so set {name} too");
            let app_id = read_variable("WECHAT_APPID").ok_or_else(|| missing("WECHAT_APPID"))?;
            let secret = read_variable("CENTER_TOKEN").ok_or_else(|| missing("CENTER_TOKEN"))?;
            (app_id, url, secret)
        }
        None => start_token_center().await?,
    };
    let source = TokenCenterClient::new(&app_id, &center, secret)?;
    let accounts = AccountTokens::new(source, MemoryStore::new());
    // This service signs pages itself, so it has its own list of hosts. The center only provides tickets.
    let tickets = Tickets::new(&accounts, ["127.0.0.1:*", "localhost:*"])?;
    if let Err(error) = tickets.prefetch().await {
        eprintln!(
            "could not fetch a token at start-up; the service retries in the background: {error}"
        );
    }

    let app = Router::new()
        .route("/token", get(token))
        .route("/js-config", get(js_config))
        .with_state(tickets.clone());
    let mut terminate = signal(SignalKind::terminate())?;
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
    };
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, app)
        .with_graceful_shutdown(stop)
        .await?;
    tickets.shutdown(Duration::from_secs(10)).await;
    accounts.shutdown(Duration::from_secs(10)).await;
    Ok(())
}

/// Returns the value of a variable without spaces around it. Returns `None` if it is not set or blank.
fn read_variable(name: &str) -> Option<String> {
    let value = env::var(name).ok()?.trim().to_owned();
    Some(value).filter(|value| !value.is_empty())
}

/// Returns the fingerprint and the remaining lifetime of the account's token. The token itself
/// stays in this process.
async fn token(State(tickets): State<Tickets>) -> Result<String, Error> {
    let token = tickets.accounts().get().await?;
    let (print, left) = (token.access_token().fingerprint(), token.expires_in());
    Ok(format!("{print} for {} s", left.as_secs()))
}

/// Returns the signed argument of `wx.config` for the page that the request names.
async fn js_config(State(tickets): State<Tickets>, request: Uri) -> Result<Json<JsConfig>, Error> {
    tickets.js_config(&page_url(&request)?).await.map(Json)
}

/// Starts a simulator of WeChat and a token center. In production, the center is another service.
/// Returns the AppID, the URL of the center and its bearer secret.
async fn start_token_center() -> Result<(String, String, String), BoxError> {
    let simulator = Simulator::start().await?;
    let (app_id, secret) = (
        simulator.app_id().to_owned(),
        "a-long-random-secret".to_owned(),
    );
    let wechat = WechatClient::builder(&app_id, simulator.app_secret())
        .api_url(simulator.url())
        .build()?;
    let accounts = AccountTokens::new(wechat, MemoryStore::new());
    let tickets = Tickets::new(&accounts, ["127.0.0.1:*", "localhost:*"])?;
    let center = TokenCenter::new(accounts, [secret.as_str()])?.tickets(tickets);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    tokio::spawn(async move {
        let _simulator = simulator;
        axum::serve(listener, Router::new().fallback_service(center)).await
    });
    Ok((app_id, url, secret))
}
