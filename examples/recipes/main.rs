//! Serves one of the recipes, which the guide `recipes` explains. A simulator replaces WeChat.
//!
//! Run `cargo run --example recipes greeting` and open <http://127.0.0.1:3000> in a browser. The other
//! recipes are the other files beside this one.

mod errors;
mod greeting;
mod job;
mod nested;
mod other_origin;
#[cfg(all(test, debug_assertions))]
mod own_tests;
mod own_users;
mod scope;
mod two_accounts;

use tower_wechat::client::UserTokenResponse;
use tower_wechat::simulator::{SimulatedUser, Simulator};
use tower_wechat::{CookieKeys, Login, MemoryStore, Scope, UserId, UserTokens};

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
        "errors" => errors::app(users, login.build()?),
        "greeting" => greeting::app(users, login.build()?),
        "nested" => nested::app(users, login.build()?),
        "scope" => scope::app(users, login.scope(Scope::Base).build()?),
        "job" => return run_job(&simulator, users).await,
        "two_accounts" => {
            let club = UserTokens::new(club.client()?, MemoryStore::new());
            two_accounts::app(&origin, &keys, users, club)?
        }
        "own_users" => own_users::app(users, login, own_users::Database::default())?,
        "other_origin" => other_origin::app(users, login, serve_front_end(&origin).await?)?,
        other => return Err(format!("there is no recipe `{other}`").into()),
    };
    println!("listening on {origin}");
    Ok(axum::serve(listener, app).await?)
}

/// Runs the job for three users, of which one has to log in again.
async fn run_job(
    simulator: &Simulator,
    users: UserTokens,
) -> Result<(), Box<dyn std::error::Error>> {
    let mut ids = vec![UserId::new("oNobody")?];
    for name in ["Alice", "Bob"] {
        let user = SimulatedUser::new(format!("o{name}")).nickname(name);
        let id = UserId::new(user.openid())?;
        simulator.add_user(user);
        let pair = simulator.sign_in(id.as_str(), "snsapi_userinfo");
        let response = UserTokenResponse::new(pair.access_token).expires_in(7_200);
        users.store(&id, &response).await?;
        ids.push(id);
    }
    for outcome in job::run(&users, ids).await? {
        match outcome {
            Ok(name) => println!("hello {name}"),
            Err(id) => println!("{id} has to log in again"),
        }
    }
    Ok(())
}

/// Serves the page of the recipe `other_origin` on another port, which is another origin of the
/// same site. Returns that origin.
async fn serve_front_end(api: &str) -> std::io::Result<&'static str> {
    let page = include_str!("other_origin.html").replace("http://127.0.0.1:3000", api);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3001").await?;
    let pages = axum::Router::new().fallback(async move || axum::response::Html(page.clone()));
    tokio::spawn(async { axum::serve(listener, pages).await });
    println!("the pages are at http://127.0.0.1:3001");
    Ok("http://127.0.0.1:3001")
}
