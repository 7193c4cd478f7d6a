//! Exports traces with OpenTelemetry: the spans of the layer and of its calls to WeChat, inside a span of
//! tower-http for each request. Spans are written to stdout.
//!
//! Run `cargo run --example opentelemetry`, open <http://127.0.0.1:3000> in a browser, and read the spans
//! on stdout. To send them to a collector, replace the exporter with the one of `opentelemetry-otlp`.

use std::time::Duration;

use axum::{Router, routing::get};
use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tokio::signal::unix::{SignalKind, signal};
use tower_http::trace::TraceLayer;
use tower_wechat::simulator::Simulator;
use tower_wechat::{CookieKeys, Login, MemoryStore, UserTokens, WechatLayer, WechatUser};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry};

async fn hello(user: WechatUser) -> String {
    format!("hello {}", user.id())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let provider = SdkTracerProvider::builder()
        .with_simple_exporter(opentelemetry_stdout::SpanExporter::default())
        .build();
    let tracer = provider.tracer("example");
    Registry::default()
        .with(EnvFilter::new("info,tower_wechat=debug"))
        .with(tracing_opentelemetry::layer().with_tracer(tracer))
        .init();

    let listen = std::env::var("LISTEN").unwrap_or("127.0.0.1:3000".to_owned());
    let listener = tokio::net::TcpListener::bind(listen).await?;
    let origin = format!("http://{}", listener.local_addr()?);

    let simulator = Simulator::start().await?;
    let wechat = simulator.client()?;
    let users = UserTokens::new(wechat, MemoryStore::new());
    let login = Login::new(&origin, CookieKeys::random()?)?;

    let app = Router::new()
        .route("/", get(hello))
        .layer(WechatLayer::new(users.clone()).login(login))
        // The trace layer is outside of the login layer, so that the spans of the login layer are
        // children of this span. The default span of tower-http contains the whole URI, and the
        // query of a callback contains a code.
        .layer(
            TraceLayer::new_for_http().make_span_with(|request: &axum::extract::Request| {
                tracing::info_span!(
                    "request",
                    otel.kind = "server",
                    method = %request.method(),
                    path = request.uri().path(),
                )
            }),
        );

    let mut terminate = signal(SignalKind::terminate())?;
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
    };
    println!("listening on {origin}");
    axum::serve(listener, app)
        .with_graceful_shutdown(stop)
        .await?;
    // Waits at most ten seconds until the tokens of renewals in progress are in the store.
    users.shutdown(Duration::from_secs(10)).await;
    // Exports the spans that are still in memory.
    provider.shutdown()?;
    Ok(())
}
