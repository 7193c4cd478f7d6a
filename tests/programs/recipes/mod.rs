//! Tests of the recipes in `examples/recipes`, which the guide quotes.

mod errors;
mod greeting;
mod job;
mod nested;
mod other_origin;
// The module `tower_wechat::testing` exists only with debug assertions.
#[cfg(debug_assertions)]
mod own_tests;
mod own_users;
mod scope;
mod two_accounts;

use axum::Router;
use tower_wechat::login::LoginBuilder;
use tower_wechat::simulator::Simulator;
use tower_wechat::{CookieKeys, Login, MemoryStore, UserTokens};

/// A recipe that is served on its own port, with a simulator as its WeChat.
struct Recipe {
    url: String,
    simulator: Simulator,
}

impl Recipe {
    async fn serve(app: impl AsyncFnOnce(UserTokens, LoginBuilder) -> Router) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let simulator = Simulator::start().await.unwrap();
        let wechat = simulator.client().unwrap();
        let users = UserTokens::new(wechat, MemoryStore::new());
        let login = Login::builder(&url, CookieKeys::random().unwrap());
        let app = app(users, login).await;
        tokio::spawn(async { axum::serve(listener, app).await });
        Self { url, simulator }
    }
}
