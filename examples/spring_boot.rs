//! Shares users' tokens with a Spring Boot service through one Redis. The program reads the names of the
//! Redis keys from the settings of the Java service, and both services read what the other stores.
//!
//! Run `REDIS_URL=redis://127.0.0.1 cargo run --example spring_boot` and open
//! <http://127.0.0.1:3000/me> in a browser. Then look at the stored token with
//! `redis-cli hgetall user.wxUserAccessToken`. Without `REDIS_URL`, tokens stay in memory.

use std::time::Duration;

use axum::{Router, routing::get};
use serde::Deserialize;
use tokio::signal::unix::{SignalKind, signal};
use tower_wechat::redis::RedisNames;
use tower_wechat::simulator::Simulator;
use tower_wechat::{
    CookieKeys, Login, MemoryStore, RedisStore, UserTokens, WechatLayer, WechatUser,
};

/// The settings of the Java service that name the Redis keys. The text is JSON, and any format of
/// serde works, such as YAML.
const SETTINGS: &str = r#"{
    "wx": {
        "redisWxUserAccessToken": "user.wxUserAccessToken",
        "redisWxUserRefreshToken": "user.wxUserRefreshToken",
        "redisWxAccessToken": "sys.wxAccessToken",
        "redisWxRefreshToken": "sys.wxRefreshToken"
    }
}"#;

#[derive(Deserialize)]
struct Settings {
    wx: RedisNames,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let listen = std::env::var("LISTEN").unwrap_or("127.0.0.1:3000".to_owned());
    let listener = tokio::net::TcpListener::bind(listen).await?;
    let origin = format!("http://{}", listener.local_addr()?);

    let simulator = Simulator::start().await?;
    let wechat = simulator.client()?;
    let settings: Settings = serde_json::from_str(SETTINGS)?;
    let redis_url = std::env::var("REDIS_URL").ok();
    let users = match redis_url.filter(|url| !url.is_empty()) {
        Some(url) => {
            let store = RedisStore::builder(&url)
                .names(settings.wx)
                .connect()
                .await?;
            UserTokens::new(wechat, store)
        }
        None => {
            eprintln!("REDIS_URL is not set: tokens stay in memory");
            UserTokens::new(wechat, MemoryStore::new())
        }
    };
    let login = Login::new(&origin, CookieKeys::random()?)?;

    let app = Router::new()
        .route("/me", get(me))
        .layer(WechatLayer::new(users.clone()).login(login));

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
    Ok(())
}

async fn me(user: WechatUser) -> String {
    let token = user.access_token().fingerprint();
    format!("{} has the token {token}", user.id())
}
