//! With sessions of the application's own, by tower-sessions: WeChat says once who somebody is, and
//! the session remembers it. With axum-login it is the same; its `AuthSession` takes the place of
//! [`SignedIn`].
//!
//! `cargo run --example sessions`, then open http://127.0.0.1:3000/sign-in in a browser.

use axum::Router;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::{Redirect, Response};
use axum::routing::get;
use tower_sessions::{MemoryStore as Sessions, Session, SessionManagerLayer};
use tower_wechat::simulator::Simulator;
use tower_wechat::{
    CookieKeys, ExtensionIdentity, Login, MemoryStore, UserId, UserTokens, WechatClient,
    WechatLayer, WechatUser,
};

/// Whom the session names, for the layer inside to find.
#[derive(Clone)]
struct SignedIn(Option<String>);

/// Sessions are read by waiting for their store, which a layer's identity cannot: this does it
/// ahead of it.
async fn read_session(session: Session, mut request: Request, next: Next) -> Response {
    let openid = session.get("openid").await.ok().flatten();
    request.extensions_mut().insert(SignedIn(openid));
    next.run(request).await
}

/// WeChat has just said who this is.
async fn sign_in(user: WechatUser, session: Session) -> Redirect {
    // A new session id for a new user: whoever knew the old one learns nothing.
    let _ = session.cycle_id().await;
    let _ = session.insert("openid", user.id()).await;
    Redirect::to("/me")
}

async fn me(user: WechatUser) -> String {
    format!("hello {}", user.id())
}

async fn sign_out(session: Session) -> Redirect {
    let _ = session.flush().await;
    Redirect::to("/me")
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let listen = std::env::var("LISTEN").unwrap_or("127.0.0.1:3000".to_owned());
    let listener = tokio::net::TcpListener::bind(listen).await?;
    let origin = format!("http://{}", listener.local_addr()?);

    let simulator = Simulator::start().await?;
    let wechat = WechatClient::builder(simulator.app_id(), simulator.app_secret())
        .api_url(simulator.url())
        .open_url(simulator.url())
        .build()?;
    let users = UserTokens::new(wechat, MemoryStore::new());
    let login = Login::new(&origin, CookieKeys::random()?)?;
    let identity = ExtensionIdentity::new(|user: &SignedIn| UserId::new(user.0.clone()?).ok());

    // One door where WeChat is asked; everything else goes by the session.
    let door = Router::new()
        .route("/sign-in", get(sign_in))
        .route("/wechat/{*path}", get(async || "nothing here"))
        .layer(WechatLayer::new(users.clone()).login(login));
    let app = Router::new()
        .route("/me", get(me))
        .layer(WechatLayer::new(users).identity(identity))
        .layer(from_fn(read_session))
        .route("/sign-out", get(sign_out))
        .merge(door)
        // For plain http; leave `with_secure` out where browsers see https.
        .layer(SessionManagerLayer::new(Sessions::default()).with_secure(false));

    println!("listening on {origin}");
    Ok(axum::serve(listener, app).await?)
}
