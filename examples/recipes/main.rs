//! Serves one of the recipes, which the guide `recipes` explains. A simulator replaces WeChat.
//!
//! Run `cargo run --example recipes greeting` and open <http://127.0.0.1:3000> in a browser. The other
//! recipes are the other files beside this one.

mod greeting;
mod scope;
mod two_accounts;

use tower_wechat::simulator::Simulator;
use tower_wechat::{CookieKeys, Login, MemoryStore, Scope, UserTokens};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let listen = std::env::var("LISTEN").unwrap_or("127.0.0.1:3000".to_owned());
    let listener = tokio::net::TcpListener::bind(listen).await?;
    let origin = format!("http://{}", listener.local_addr()?);
    let simulator = Simulator::start().await?;
    let wechat = simulator.client()?;
    let users = UserTokens::new(wechat, MemoryStore::new());
    let keys = CookieKeys::random()?;
    let login = Login::builder(&origin, keys.clone());
    let club = Simulator::builder().app("wxfedcba9876543210", "secret");
    let club = club.start().await?;

    let recipe = std::env::args().nth(1).unwrap_or("greeting".to_owned());
    let app = match recipe.as_str() {
        "greeting" => greeting::app(users, login.build()?),
        "scope" => scope::app(users, login.scope(Scope::Base).build()?),
        "two_accounts" => {
            let club = UserTokens::new(club.client()?, MemoryStore::new());
            two_accounts::app(&origin, &keys, users, club)?
        }
        other => return Err(format!("there is no recipe `{other}`").into()),
    };
    println!("listening on {origin}");
    Ok(axum::serve(listener, app).await?)
}
