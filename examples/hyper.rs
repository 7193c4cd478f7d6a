//! Logs users in with WeChat and greets them, with plain hyper and tower instead of axum. A simulator
//! replaces WeChat.
//!
//! Run `cargo run --example hyper` and open <http://127.0.0.1:3000> in a browser. Look at `hello`, which
//! returns the layer's own response if the request has no user.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use tokio::signal::unix::{SignalKind, signal};
use tower::ServiceBuilder;
use tower_wechat::simulator::Simulator;
use tower_wechat::{CookieKeys, Login, MemoryStore, UserTokens, WechatLayer, WechatUser};

async fn hello(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    match WechatUser::required(&request) {
        Ok(user) => Ok(Response::new(Full::from(format!("hello {}", user.id())))),
        // The layer replaces the response of the rejection. A page load gets a redirect to the
        // login.
        Err(rejection) => Ok(rejection.response().map(Full::new)),
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let listen = std::env::var("LISTEN").unwrap_or("127.0.0.1:3000".to_owned());
    let listener = tokio::net::TcpListener::bind(listen).await?;
    let origin = format!("http://{}", listener.local_addr()?);

    let simulator = Simulator::start().await?;
    let wechat = simulator.client()?;
    let users = UserTokens::new(wechat, MemoryStore::new());
    let login = Login::new(&origin, CookieKeys::random()?)?;

    let service = ServiceBuilder::new()
        .layer(WechatLayer::new(users.clone()).login(login))
        .service_fn(hello);

    println!("listening on {origin}");
    let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
    let shutdown = hyper_util::server::graceful::GracefulShutdown::new();
    let mut terminate = signal(SignalKind::terminate())?;
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else {
                    // The client has disconnected, or the process has too many open files. The loop
                    // waits before the next attempt and thus does not use a whole processor.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                };
                let service = TowerToHyperService::new(service.clone());
                let connection = server.serve_connection(TokioIo::new(stream), service);
                tokio::spawn(shutdown.watch(connection.into_owned()));
            }
            _ = terminate.recv() => break,
            _ = tokio::signal::ctrl_c() => break,
        }
    }
    let _ = tokio::time::timeout(Duration::from_secs(10), shutdown.shutdown()).await;
    // Waits at most ten seconds until the tokens of renewals in progress are in the store.
    users.shutdown(Duration::from_secs(10)).await;
    Ok(())
}
