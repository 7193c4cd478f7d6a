//! The README's code: an axum service whose handlers meet the WeChat user of their request.
//!
//! `cargo run --example minimal`, then `curl -H 'x-user-id: oUser' http://127.0.0.1:3000/me`.

use axum::{Router, routing::get};
use tower_wechat::{MemoryStore, TrustedHeader, UserTokens, WechatClient, WechatLayer, WechatUser};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let wechat = WechatClient::new("wx0123456789abcdef", "your-app-secret")?;
    let users = UserTokens::new(wechat, MemoryStore::new());

    let app = Router::new()
        .route("/me", get(me))
        .layer(WechatLayer::new(users).identity(TrustedHeader::new("x-user-id")?));

    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    println!("listening on http://{}", listener.local_addr()?);
    Ok(axum::serve(listener, app).await?)
}

async fn me(user: WechatUser) -> String {
    format!("hello {}", user.id()) // user.access_token() is fresh
}
