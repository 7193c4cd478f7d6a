//! Logs users in with WeChat and greets them, with plain hyper and tower instead of axum. A simulator
//! replaces WeChat.
//!
//! Run `cargo run --example hyper` and open <http://127.0.0.1:3000> in a browser. `/card` also
//! asks for the user's profile. All rejections have the application's own JSON.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tower::ServiceBuilder;
use tower_wechat::layer::JsonRejection;
use tower_wechat::simulator::Simulator;
use tower_wechat::{
    CookieKeys, Login, MemoryStore, Rejection, Scope, UserTokens, WechatLayer, WechatUser,
};

async fn serve(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let text = match request.uri().path() {
        "/" => hello(&request),
        "/card" => card(request).await,
        _ => Err(not_found()),
    };
    // The layer replaces the response of a rejection. A page load gets a redirect to the login.
    Ok(match text {
        Ok(text) => Response::new(Full::from(text)),
        Err(rejection) => rejection.response().map(Full::new),
    })
}

fn not_found() -> Rejection {
    Rejection::new(StatusCode::NOT_FOUND, "not_found", "no such page")
}

fn hello(request: &Request<Incoming>) -> Result<String, Rejection> {
    let user = WechatUser::required(request)?;
    Ok(format!("hello {}", user.id()))
}

/// Asks the user for the profile, which `/` does not need.
async fn card(request: Request<Incoming>) -> Result<String, Rejection> {
    let user = WechatUser::required_with_scope(&request, Scope::UserInfo)?.clone();
    Ok(user.profile().await?.nickname.clone())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let listen = std::env::var("LISTEN").unwrap_or("127.0.0.1:3000".to_owned());
    let listener = tokio::net::TcpListener::bind(listen).await?;
    let origin = format!("http://{}", listener.local_addr()?);

    let simulator = Simulator::start().await?;
    let wechat = simulator.client()?;
    let users = UserTokens::new(wechat, MemoryStore::new());
    let login = Login::builder(&origin, CookieKeys::random()?)
        .scope(Scope::Base)
        .build()?;

    // The JSON of all rejections. Browsers get pages and redirects.
    let renderer = JsonRejection::new().json(|rejection| {
        let (code, msg) = (rejection.code(), rejection.message());
        json!({ "code": code, "msg": msg, "login_url": rejection.login_url() })
    });
    let layer = WechatLayer::new(users.clone()).login(login);
    let service = ServiceBuilder::new()
        .layer(layer.reject(renderer))
        .service_fn(serve);

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
