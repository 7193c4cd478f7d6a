//! Serves users behind a gateway that authenticates them and sends their ids in a header. The service does
//! not log users in: it reads their tokens from the store.
//!
//! Run `cargo run --example gateway` and then `curl -H 'x-user-id: 42' http://127.0.0.1:3000/me`.
//!
//! **The gateway must remove this header from requests of clients.** A client that can set the header can
//! act as any user.

use std::time::Duration;

use axum::{Router, routing::get};
use tokio::signal::unix::{SignalKind, signal};
use tower_wechat::client::UserTokenResponse;
use tower_wechat::simulator::Simulator;
use tower_wechat::{
    MemoryStore, TrustedHeader, UserId, UserTokens, WechatClient, WechatLayer, WechatUser,
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let listen = std::env::var("LISTEN").unwrap_or("127.0.0.1:3000".to_owned());
    let listener = tokio::net::TcpListener::bind(listen).await?;

    let simulator = Simulator::start().await?;
    let wechat = WechatClient::builder(simulator.app_id(), simulator.app_secret())
        .api_url(simulator.url())
        .build()?;
    let users = UserTokens::new(wechat, MemoryStore::new());

    // In production, the gateway or another service stores the tokens of each user at the login. This
    // program stores the tokens of user 42 itself, because it has no login.
    let pair = simulator.sign_in("oUserNumber42", "snsapi_userinfo");
    let response = UserTokenResponse::new(pair.access_token)
        .expires_in(pair.expires_in.as_secs() as i64)
        .refresh_token(pair.refresh_token)
        .openid("oUserNumber42");
    users.store(&UserId::new("42")?, &response).await?;

    let app = Router::new()
        .route("/me", get(me))
        .layer(WechatLayer::new(users.clone()).identity(TrustedHeader::new("x-user-id")?));

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
    // Waits at most ten seconds until the tokens of renewals in progress are in the store.
    users.shutdown(Duration::from_secs(10)).await;
    Ok(())
}

/// Returns the user's id in the header and the user's openid at WeChat.
async fn me(user: WechatUser) -> Result<String, tower_wechat::Error> {
    let profile = user.profile().await?;
    Ok(format!("user {} is {}", user.id(), profile.openid))
}
