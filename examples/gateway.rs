//! Behind a gateway that signs users in and names them in a header.
//!
//! `cargo run --example gateway`, then
//! `curl -H 'x-user-id: 42' http://127.0.0.1:3000/me`.
//!
//! **The gateway has to remove the header from what comes from outside.** Whoever can set it is
//! whoever they like.

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

    // The gateway, or the Java service beside it, stores the pair of everybody who logs in. Here
    // nobody does, so user 42 has logged in a moment ago.
    let pair = simulator.sign_in("oUserNumber42", "snsapi_userinfo");
    let grant = UserTokenResponse::new(pair.access_token)
        .expires_in(pair.expires_in.as_secs() as i64)
        .refresh_token(pair.refresh_token)
        .openid("oUserNumber42");
    users.store(&UserId::new("42")?, &grant).await?;

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
    // Waits until new tokens are in the store.
    users.shutdown(Duration::from_secs(10)).await;
    Ok(())
}

/// The user's own id, and what WeChat says of them.
async fn me(user: WechatUser) -> Result<String, tower_wechat::Error> {
    let profile = user.profile().await?;
    Ok(format!("user {} is {}", user.id(), profile.openid))
}
