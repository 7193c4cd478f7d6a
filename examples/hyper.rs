//! The same layer without axum: plain hyper and tower, with the simulator as WeChat.
//!
//! `cargo run --example hyper`, then the curl line that it prints.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use tower::ServiceBuilder;
use tower_wechat::simulator::Simulator;
use tower_wechat::{
    MemoryStore, TrustedHeader, UserGrant, UserId, UserTokens, WechatClient, WechatLayer,
    WechatUser,
};

async fn hello(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let text = match request.extensions().get::<WechatUser>() {
        Some(user) => format!(
            "hello {}, token {}\n",
            user.id(),
            user.access_token().fingerprint()
        ),
        None => "hello stranger\n".to_owned(),
    };
    Ok(Response::new(Full::from(text)))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let simulator = Simulator::start().await?;
    let wechat = WechatClient::builder(simulator.app_id(), simulator.app_secret())
        .api_url(simulator.url())
        .build()?;
    let users = UserTokens::new(wechat, MemoryStore::new());
    let pair = simulator.sign_in("oUser", "snsapi_userinfo");
    let grant = UserGrant::new(pair.access_token)
        .expires_in(pair.expires_in.as_secs() as i64)
        .refresh_token(pair.refresh_token);
    users.put(&UserId::new("oUser")?, &grant).await?;

    let service = ServiceBuilder::new()
        .layer(WechatLayer::new(users.clone()).identity(TrustedHeader::new("x-user-id")?))
        .service_fn(hello);

    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    let address = listener.local_addr()?;
    println!("listening on http://{address}");
    println!("curl -H 'x-user-id: oUser' http://{address}/");

    let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
    let ending = hyper_util::server::graceful::GracefulShutdown::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (stream, _) = accepted?;
                let service = TowerToHyperService::new(service.clone());
                let connection = server.serve_connection(TokioIo::new(stream), service);
                tokio::spawn(ending.watch(connection.into_owned()));
            }
            _ = tokio::signal::ctrl_c() => break,
        }
    }
    let _ = tokio::time::timeout(Duration::from_secs(10), ending.shutdown()).await;
    users.shutdown(Duration::from_secs(10)).await;
    Ok(())
}
