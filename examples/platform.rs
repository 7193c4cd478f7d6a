//! Serves every account (公众号) that its owner authorizes to a third-party platform (第三方平台), below the
//! account's AppID. A simulator replaces WeChat.
//!
//! Run `cargo run --example platform`, open the page of the owner and follow its first link. The page of
//! the users then works. The guide `src/guide/platform.md` explains the parts.

use axum::Router;
use axum::routing::{get, post};
use tower_wechat::platform::{Platform, PushKeys};
use tower_wechat::simulator::Simulator;
use tower_wechat::{Accounts, CookieKeys, Login, MemoryStore, WechatLayer, WechatUser};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let listen = std::env::var("LISTEN").unwrap_or("127.0.0.1:3000".to_owned());
    let listener = tokio::net::TcpListener::bind(listen).await?;
    let origin = format!("http://{}", listener.local_addr()?);
    println!("listening on {origin}");

    let simulator = Simulator::start().await?;
    println!("the owner's page: {origin}/authorize");
    println!("the users' page: {origin}/{}/", simulator.app_id());
    let wechat = simulator
        .add_platform("wx00000component", "secret")
        .push_url(format!("{origin}/push"));
    let (token, aes_key) = wechat.push_keys();

    let (store, keys) = (MemoryStore::new(), CookieKeys::random()?);
    let platform = Platform::builder(wechat.client()?, store.clone())
        .push_keys(PushKeys::new([token], [aes_key])?)
        .mp_url(simulator.url())
        .build()?;
    let pages = platform.authorize_pages(format!("{origin}/authorized"), &keys)?;
    let registry = platform.accounts(move |account| {
        let url = format!("{origin}/{}", account.app_id().as_str());
        Ok(account.login(Login::new(url, keys.clone())?))
    });
    let accounts = Accounts::builder(store).registry(registry).build()?;
    let layer = WechatLayer::for_accounts(accounts);

    let app = Router::new()
        .route("/push", post(async || "").layer(platform.push_layer()))
        .route_service("/authorize", pages.clone())
        .route_service("/authorized/{state}", pages)
        .fallback_service(Router::new().route("/{account}/", get(hello)).layer(layer));
    Ok(axum::serve(listener, app).await?)
}

async fn hello(user: WechatUser) -> String {
    format!("hello {} of {}", user.id(), user.app_id().as_str())
}
