//! The demo: everything of the crate in one service.
//!
//! `cargo run --example demo` needs nothing: it keeps tokens in memory and starts a simulator of
//! WeChat. With variables it becomes the real thing; `settings.rs` lists them.

// The modules of a program have no outside.
#![allow(unreachable_pub)]

mod account;
mod api;
mod page;
mod settings;
mod variables;

use std::future::IntoFuture;
use std::io::{IsTerminal, Write};
use std::time::Duration;

use axum::extract::Request;
use axum::http::StatusCode;
use axum::routing::{any, get, post};
use axum::{Router, ServiceExt};
use metrics_exporter_prometheus::PrometheusBuilder;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tower::Layer;
use tower::util::MapRequestLayer;
use tower_wechat::{Scope, WechatLayer};

use settings::Settings;

/// Time for requests in progress at the end, and then again for renewals.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(9);

/// The histograms' buckets: from a Redis beside us to a WeChat that keeps us waiting.
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

async fn run() -> Result<(), Box<dyn std::error::Error>> {
    // Without buckets histograms become summaries, which cannot be added up over processes.
    let metrics = PrometheusBuilder::new()
        .set_buckets(&SECONDS)?
        .install_recorder()?;
    // Histograms grow until a scrape or this task drains them.
    let samples = metrics.clone();
    let upkeep = tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_secs(5)).await;
            samples.run_upkeep();
        }
    });
    let settings = Settings::from_env()?;
    let listener = TcpListener::bind(&settings.listen)
        .await
        .map_err(|error| listen_error(&settings.listen, &error))?;
    let address = listener.local_addr()?;
    let parts = settings.connect(address).await?;

    let layer = WechatLayer::new(parts.users.clone())
        .identity(parts.identity)
        .login(parts.login.clone())
        .account(parts.tickets.clone());
    // A page load of a user who granted less is redirected to WeChat once, for the larger scope.
    let userinfo = get(api::userinfo).layer(layer.clone().require_scope(Scope::UserInfo));
    let routes = Router::new()
        .route("/", get(page::show))
        .route("/page/life", get(page::token_life))
        .route("/page/renew", post(page::renew))
        .route("/page/refuse", post(page::call_with_expired_token))
        .route("/api/me", get(api::me))
        .route("/api/userinfo", userinfo)
        .route("/logout", post(api::logout))
        // The login answers its paths before any route does; this leads them through the layer.
        .route("/wechat/{*path}", any(not_found));
    let astray = layer.login_service::<axum::body::Body>();
    // WeChat's verification files too.
    let with_user = settings
        .verification_paths()
        .fold(routes, |routes, path| routes.route(&path, any(not_found)))
        .layer(layer);
    let prefix = parts
        .login
        .public_path("/")
        .trim_end_matches('/')
        .to_owned();
    let app = Router::new()
        .route("/healthz", get(api::healthz))
        .route("/metrics", get(async move || metrics.render()))
        .merge(with_user)
        .with_state(api::AppState {
            users: parts.users.clone(),
            tickets: parts.tickets.clone(),
            login: parts.login,
            simulator: parts.simulator,
        })
        .merge(account::routes(parts.tickets.clone(), parts.center))
        // A callback that a proxy has led elsewhere is told from a page that is not there.
        .fallback_service(astray);

    // A WeChat that does not answer must not keep the demo from starting.
    let tickets = parts.tickets.clone();
    let warming = tokio::spawn(async move {
        if let Err(error) = tickets.prefetch().await {
            tracing::warn!(%error, "started without a token or a ticket; they are tried for");
        }
    });

    // Signals are handled before the line below is printed, so that a script may end the demo then.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;

    // Tests and scripts wait for this line.
    println!("listening on http://{address}");
    std::io::stdout().flush()?;

    let (stop, stopping) = tokio::sync::oneshot::channel();
    let app = MapRequestLayer::new(strip_prefix(prefix)).layer(app);
    let server = axum::serve(listener, app.into_make_service()).with_graceful_shutdown(async {
        let _ = stopping.await;
    });
    let server = tokio::spawn(server.into_future());
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    let _ = stop.send(());
    warming.abort();
    upkeep.abort();
    let _ = tokio::time::timeout(SHUTDOWN_TIMEOUT, server).await;
    tokio::join!(
        parts.users.shutdown(SHUTDOWN_TIMEOUT),
        parts.tickets.shutdown(SHUTDOWN_TIMEOUT),
        parts.tickets.accounts().shutdown(SHUTDOWN_TIMEOUT),
    );
    Ok(())
}

/// Takes the path of `PUBLIC_URL` off a request's, where the proxy in front has left it.
fn strip_prefix(prefix: String) -> impl Fn(Request) -> Request + Clone {
    move |mut request| {
        let asked = request
            .uri()
            .path_and_query()
            .map_or("/", |asked| asked.as_str());
        let rest = asked.strip_prefix(&prefix).filter(|_| !prefix.is_empty());
        let rest = match rest {
            Some(rest) if rest.starts_with('/') => rest.to_owned(),
            Some(rest) if rest.is_empty() || rest.starts_with('?') => format!("/{rest}"),
            _ => return request,
        };
        if let Ok(uri) = rest.parse() {
            *request.uri_mut() = uri;
        }
        request
    }
}

/// Returns the error of an address to listen on, with the remedy.
fn listen_error(address: &str, error: &std::io::Error) -> String {
    use std::io::ErrorKind::{AddrInUse, AddrNotAvailable, PermissionDenied};
    let cure = match error.kind() {
        AddrInUse => "another program has it: stop that one, or take another port (0 is any)",
        AddrNotAvailable => "that is no address of this machine; 0.0.0.0 stands for all of them",
        PermissionDenied => "ports below 1024 need rights; take another",
        _ => "it looks like 127.0.0.1:3000",
    };
    format!("cannot listen on LISTEN={address}: {error}; {cure}")
}

/// Returns 404 for paths that only the login answers.
async fn not_found() -> StatusCode {
    StatusCode::NOT_FOUND
}
