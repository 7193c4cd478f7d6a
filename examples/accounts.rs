//! Serves two accounts behind one layer, each below its AppID, and greets their users. A simulator
//! replaces WeChat.
//!
//! Run `cargo run --example accounts` and open both printed pages in one browser: it is then signed
//! in to both accounts. The guide `src/guide/accounts.md` explains the parts.

use axum::{Router, routing::get};
use tower_wechat::simulator::Simulator;
use tower_wechat::{Account, Accounts, CookieKeys, Login, MemoryStore, WechatLayer, WechatUser};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let listen = std::env::var("LISTEN").unwrap_or("127.0.0.1:3000".to_owned());
    let listener = tokio::net::TcpListener::bind(listen).await?;
    let origin = format!("http://{}", listener.local_addr()?);
    println!("listening on {origin}");

    let simulator = Simulator::start().await?;
    let club = simulator.add_account("wxfedcba9876543210", "secret");
    let mut accounts = Accounts::builder(MemoryStore::new());
    let keys = CookieKeys::random()?;
    for wechat in [simulator.client()?, club.client()?] {
        let url = format!("{origin}/{}", wechat.app_id().as_str());
        println!("{url}/");
        accounts = accounts.account(Account::new(wechat).login(Login::new(url, keys.clone())?));
    }
    let layer = WechatLayer::for_accounts(accounts.build()?);

    let app = Router::new().route("/{account}/", get(hello)).layer(layer);
    Ok(axum::serve(listener, app).await?)
}

async fn hello(user: WechatUser) -> String {
    format!("hello {} of {}", user.id(), user.app_id().as_str())
}
