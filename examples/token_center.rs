//! A token center, ready for production: the one service that gets the account's token from WeChat and
//! gives it to other services.
//!
//! Run `CENTER_TOKEN=a-long-random-secret cargo run --example token_center` and then
//! `curl -H 'authorization: Bearer a-long-random-secret' http://127.0.0.1:3000/center/access_token`.
//! Without other variables, tokens are in memory and a simulator replaces WeChat.
//!
//! | variable | meaning (default) |
//! |---|---|
//! | `CENTER_TOKEN` | bearer secret of the clients; several separated by commas, to change it (required) |
//! | `LISTEN` | address (`127.0.0.1:3000`; port 0 selects a free port) |
//! | `REDIS_URL`, `REDIS_LAYOUT` | unset: tokens stay in memory; `hashes` (default) or `keys` |
//! | `WECHAT_APPID`, `WECHAT_SECRET` | unset: the program starts a simulator of WeChat |
//! | `WECHAT_API_URL` | base URL (`https://api.weixin.qq.com`) |
//! | `WECHAT_TOKEN_MODE` | `stable` (default) or `plain` |
//! | `JSSDK_HOSTS` | hosts whose pages are signed, separated by commas (`localhost:*,127.0.0.1:*`) |
//! | `CACHE_TTL_SECS` | time for which a token is served without a read of the store (60) |
//!
//! The routes of `tower_wechat::account::TokenCenter` are mounted at `/` and at `/center`. `GET /healthz`
//! needs no secret. The first line on stdout is `listening on http://ADDR`. On SIGTERM, the program
//! completes the requests in progress and exits with 0.

use std::env::{self, VarError};
use std::error::Error;
use std::future::IntoFuture;
use std::io::Write;
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tower_wechat::account::{TokenCenter, TokenMode};
use tower_wechat::redis::Layout;
use tower_wechat::simulator::Simulator;
use tower_wechat::{AccountTokens, MemoryStore, RedisStore, Tickets, WechatClient};

/// Maximum time for each step of the shutdown: ten seconds for requests in progress, then ten
/// seconds each for renewals of tickets and of tokens.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(10);

type BoxError = Box<dyn Error>;

#[tokio::main]
async fn main() {
    let filter = env::var("RUST_LOG").unwrap_or_else(|_| "info".to_owned());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    if let Err(error) = run().await {
        eprintln!("token_center: {error}");
        std::process::exit(1);
    }
}

async fn run() -> Result<(), BoxError> {
    let secrets = read_variable("CENTER_TOKEN")?.ok_or(
        "set CENTER_TOKEN to a long random secret: a client that sends it gets the account's token",
    )?;
    let hosts =
        read_variable("JSSDK_HOSTS")?.unwrap_or_else(|| "localhost:*,127.0.0.1:*".to_owned());
    let (wechat, _simulator) = wechat_client().await?;
    let accounts = account_tokens(wechat).await?;
    let tickets = Tickets::new(&accounts, comma_separated(&hosts))?;
    let center =
        TokenCenter::new(accounts.clone(), comma_separated(&secrets))?.tickets(tickets.clone());

    let listen = read_variable("LISTEN")?.unwrap_or_else(|| "127.0.0.1:3000".to_owned());
    let listener = TcpListener::bind(&listen)
        .await
        .map_err(|error| format!("cannot listen on LISTEN={listen}: {error}"))?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;

    // The service also starts while WeChat is unreachable, and serves the tokens that are in Redis.
    if let Err(error) = tickets.prefetch().await {
        tracing::warn!(%error, "could not fetch a token or a ticket at start-up; the service retries in the background");
    }
    let checked = accounts.clone();
    let health = async move || match checked.health().await {
        Ok(()) => (StatusCode::OK, "ok"),
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "no token"),
    };
    let app = Router::new()
        .route("/healthz", get(health))
        .nest_service("/center", center.clone())
        .fallback_service(center);

    println!("listening on http://{}", listener.local_addr()?);
    std::io::stdout().flush()?;

    let (stop, stopping) = tokio::sync::oneshot::channel();
    let server = axum::serve(listener, app).with_graceful_shutdown(async {
        let _ = stopping.await;
    });
    let server = tokio::spawn(server.into_future());
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    let _ = stop.send(());
    let _ = tokio::time::timeout(SHUTDOWN_TIMEOUT, server).await;
    tickets.shutdown(SHUTDOWN_TIMEOUT).await;
    accounts.shutdown(SHUTDOWN_TIMEOUT).await;
    Ok(())
}

/// Returns the client of WeChat, and the simulator that the client calls if no account is
/// configured.
async fn wechat_client() -> Result<(WechatClient, Option<Simulator>), BoxError> {
    let (builder, simulator) = match (
        read_variable("WECHAT_APPID")?,
        read_variable("WECHAT_SECRET")?,
    ) {
        (Some(app_id), Some(secret)) => (WechatClient::builder(app_id, secret), None),
        (None, None) => {
            let sim = Simulator::start().await?;
            tracing::info!(
                url = sim.url(),
                "WECHAT_APPID is not set: a simulator replaces WeChat"
            );
            let builder = WechatClient::builder(sim.app_id(), sim.app_secret()).api_url(sim.url());
            (builder, Some(sim))
        }
        _ => return Err("set both of WECHAT_APPID and WECHAT_SECRET, or neither".into()),
    };
    let builder = match read_variable("WECHAT_API_URL")? {
        Some(url) => builder.api_url(url),
        None => builder,
    };
    Ok((builder.build()?, simulator))
}

/// Returns the account's tokens, which are in Redis if `REDIS_URL` is set and otherwise in memory.
async fn account_tokens(wechat: WechatClient) -> Result<AccountTokens, BoxError> {
    let builder = match read_variable("REDIS_URL")? {
        None => AccountTokens::builder(wechat, MemoryStore::new()),
        Some(url) => {
            let layout = match read_variable("REDIS_LAYOUT")?.as_deref() {
                None | Some("hashes") => Layout::Hashes,
                Some("keys") => Layout::Keys,
                Some(other) => {
                    return Err(format!("REDIS_LAYOUT={other} is neither hashes nor keys").into());
                }
            };
            let store = RedisStore::builder(&url).layout(layout).connect().await?;
            AccountTokens::builder(wechat, store)
        }
    };
    let mode = match read_variable("WECHAT_TOKEN_MODE")?.as_deref() {
        None | Some("stable") => TokenMode::Stable,
        Some("plain") => TokenMode::Plain,
        Some(other) => {
            return Err(format!("WECHAT_TOKEN_MODE={other} is neither stable nor plain").into());
        }
    };
    let ttl = read_variable("CACHE_TTL_SECS")?.unwrap_or_else(|| "60".to_owned());
    let ttl = ttl
        .parse()
        .map_err(|_| format!("CACHE_TTL_SECS={ttl} is not a whole number of seconds"))?;
    Ok(builder
        .mode(mode)
        .cache_ttl(Duration::from_secs(ttl))
        .build())
}

/// Returns the value of a variable without spaces and line breaks around it. Returns `None` if nothing is
/// left.
fn read_variable(name: &str) -> Result<Option<String>, BoxError> {
    match env::var(name) {
        Ok(value) => Ok(Some(value.trim().to_owned()).filter(|value| !value.is_empty())),
        Err(VarError::NotPresent) => Ok(None),
        Err(VarError::NotUnicode(_)) => Err(format!("{name} is not UTF-8: write it anew").into()),
    }
}

/// Returns the parts of a list with commas, without spaces around them and without empty parts.
fn comma_separated(text: &str) -> impl Iterator<Item = &str> {
    text.split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
}
