//! Logs users in with WeChat and greets them: the smallest service with axum. A simulator replaces
//! WeChat, so that no account is needed.
//!
//! Run `cargo run --example minimal` and open <http://127.0.0.1:3000> in a browser. For a real account,
//! create the client with `WechatClient::new(app_id, app_secret)?` and remove the simulator.

use axum::{Router, routing::get};
use tower_wechat::simulator::Simulator;
use tower_wechat::{CookieKeys, Login, MemoryStore, UserTokens, WechatLayer, WechatUser};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let listen = std::env::var("LISTEN").unwrap_or("127.0.0.1:3000".to_owned());
    let listener = tokio::net::TcpListener::bind(listen).await?;
    let origin = format!("http://{}", listener.local_addr()?);

    let simulator = Simulator::start().await?;
    let wechat = simulator.client()?;
    let users = UserTokens::new(wechat, MemoryStore::new());
    let login = Login::new(&origin, CookieKeys::random()?)?;

    let app = Router::new()
        .route("/", get(hello))
        .layer(WechatLayer::new(users).login(login));

    println!("listening on {origin}");
    Ok(axum::serve(listener, app).await?)
}

async fn hello(user: WechatUser) -> String {
    format!("hello {}", user.id()) // user.access_token() has not expired
}
