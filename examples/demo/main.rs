//! Shows all parts of the crate in one service: logins, tokens, the JS-SDK, a token center, health
//! and metrics. Without settings, the demo keeps tokens in memory and starts a simulator of WeChat.
//!
//! Run `cargo run --example demo`, open <http://127.0.0.1:3000> in a browser, and press the buttons of the
//! page. The guide `src/guide/demo.md` lists the routes and the variables.

// A program has no public interface, so `pub` in its modules means `pub(crate)`.
#![allow(unreachable_pub)]

mod account;
mod accounts;
mod addresses;
mod api;
mod one_account;
mod page;
mod parts;
mod platform;
mod redis;
mod routes;
mod settings;
mod several_accounts;
mod variables;
mod warnings;
mod wechat;

use std::future::IntoFuture;
use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::time::Duration;

use axum::routing::get;
use axum::{Router, ServiceExt};
use metrics_exporter_prometheus::PrometheusBuilder;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tower::Layer;
use tower::util::MapRequestLayer;

use settings::Settings;
use variables::BoxError;

/// Maximum time for each step of the shutdown: nine seconds for requests in progress, then nine
/// seconds for renewals in progress.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(9);

/// Upper bounds of the histograms' buckets, in seconds. A read of a near Redis takes less than a
/// millisecond, and a call of WeChat takes up to seconds.
const SECONDS: [f64; 12] = [
    0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0,
];

#[tokio::main]
async fn main() {
    let filter = std::env::var("RUST_LOG").unwrap_or_else(|_| "info".to_owned());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    if let Err(error) = run().await {
        eprintln!("demo: {error}");
        std::process::exit(1);
    }
}

async fn run() -> Result<(), BoxError> {
    // Without buckets, histograms are exported as summaries, which cannot be added over processes.
    let metrics = PrometheusBuilder::new()
        .set_buckets(&SECONDS)?
        .install_recorder()?;
    // The recorder stores samples until a scrape or this task merges them into the histograms.
    let samples = metrics.clone();
    let upkeep = tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_secs(5)).await;
            samples.run_upkeep();
        }
    });
    let settings = Arc::new(Settings::from_env()?);
    let listener = TcpListener::bind(&settings.listen)
        .await
        .map_err(|error| listen_error(&settings.listen, &error))?;
    let address = listener.local_addr()?;
    let demo = parts::connect(&settings, address).await?;
    let tokens = demo.state.tokens.clone();
    let prefix = demo.state.addresses.prefix.clone();
    let app = Router::new()
        .route("/healthz", get(api::healthz))
        .route("/metrics", get(async move || metrics.render()))
        .merge(demo.routes)
        .with_state(demo.state);
    // The CORS layer stands outside of the `WechatLayer`, because preflights have no cookie.
    let app = match settings.cors()? {
        Some(cors) => app.layer(cors),
        None => app,
    };

    // The prefetch runs in a separate task, so that the demo also starts while WeChat is
    // unreachable.
    let prefetching = tokio::spawn({
        let tokens = tokens.clone();
        async move { tokens.prefetch().await }
    });

    // The signal handlers exist before the line below is printed, because a script may send a
    // signal as soon as it has read that line.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;

    // Tests and scripts wait for this line.
    println!("listening on http://{address}");
    std::io::stdout().flush()?;

    let (stop, stopping) = tokio::sync::oneshot::channel();
    let app = MapRequestLayer::new(routes::strip_prefix(prefix)).layer(app);
    let server = axum::serve(listener, app.into_make_service()).with_graceful_shutdown(async {
        let _ = stopping.await;
    });
    let server = tokio::spawn(server.into_future());
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    let _ = stop.send(());
    prefetching.abort();
    upkeep.abort();
    let _ = tokio::time::timeout(SHUTDOWN_TIMEOUT, server).await;
    tokens.shutdown(SHUTDOWN_TIMEOUT).await;
    Ok(())
}

/// Returns the text of an error about the listen address, with a remedy.
fn listen_error(address: &str, error: &std::io::Error) -> String {
    use std::io::ErrorKind::{AddrInUse, AddrNotAvailable, PermissionDenied};
    let remedy = match error.kind() {
        AddrInUse => "another program has it: stop that one, or take another port (0 is any)",
        AddrNotAvailable => "that is no address of this machine; 0.0.0.0 stands for all of them",
        PermissionDenied => "ports below 1024 need rights; take another",
        _ => "it looks like 127.0.0.1:3000",
    };
    format!("cannot listen on LISTEN={address}: {error}; {remedy}")
}
