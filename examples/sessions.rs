//! Logs users in with WeChat once, and then remembers them in a session of tower-sessions. With
//! axum-login, read its `AuthSession` where this example reads [`SignedIn`].
//!
//! Run `cargo run --example sessions` and open <http://127.0.0.1:3000/sign-in> in a browser. Look at
//! `application`: only `/sign-in` uses WeChat's login, and `/me` uses the session.

use std::time::Duration;

use axum::extract::Request;
use axum::http::StatusCode;
use axum::http::header::RETRY_AFTER;
use axum::middleware::{Next, from_fn};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use axum::{Router, serve};
use tokio::signal::unix::{SignalKind, signal};
use tower_sessions::cookie::SameSite;
use tower_sessions::{MemoryStore as Sessions, Session, SessionManagerLayer, SessionStore};
use tower_wechat::identity::ExtensionIdentity;
use tower_wechat::simulator::Simulator;
use tower_wechat::{
    CookieKeys, Login, Logout, MemoryStore, UserId, UserTokens, WechatLayer, WechatUser,
};

/// The openid of the session's user, which `read_session` inserts into the extensions of a request.
/// `None` if no user is signed in.
#[derive(Clone)]
struct SignedIn(Option<String>);

/// An error of the session store. The response is a 503 and not a redirect to the login, because the user
/// may be signed in.
struct SessionStoreError;

impl From<tower_sessions::session::Error> for SessionStoreError {
    fn from(error: tower_sessions::session::Error) -> Self {
        tracing::error!(%error, "the session store failed");
        Self
    }
}

impl IntoResponse for SessionStoreError {
    fn into_response(self) -> Response {
        let text = "Sessions cannot be read at the moment. Try again soon.";
        let status = StatusCode::SERVICE_UNAVAILABLE;
        (status, [(RETRY_AFTER, "1")], text).into_response()
    }
}

/// Reads the session and inserts a [`SignedIn`] into the request. This middleware runs before the
/// layer, because an identity cannot wait for a store.
async fn read_session(
    session: Session,
    mut request: Request,
    next: Next,
) -> Result<Response, SessionStoreError> {
    let openid = session.get("openid").await?;
    request.extensions_mut().insert(SignedIn(openid));
    Ok(next.run(request).await)
}

/// Stores the id of a user who has just logged in with WeChat in the session.
async fn sign_in(
    user: WechatUser,
    session: Session,
) -> Result<impl IntoResponse, SessionStoreError> {
    // The session gets a new id at each login, against session fixation.
    session.cycle_id().await?;
    session.insert("openid", user.id()).await?;
    session.save().await?;
    // Deletes the login's own cookie, because the session names the user from here on. After a sign-out,
    // that cookie would sign the same user in again at `/sign-in`.
    Ok((Logout, Redirect::to("/me")))
}

async fn me(user: WechatUser) -> Html<String> {
    // The page has a form and not a link, because a sign-out must be a POST request. Browsers may
    // open links in advance, and other sites can make a browser open a link.
    Html(format!(
        "hello {}\n<form method=post action=/sign-out><button>Sign out</button></form>",
        user.id()
    ))
}

async fn sign_out(session: Session) -> Result<&'static str, SessionStoreError> {
    // Deletes the record before the cookie. If the store fails, the browser keeps the cookie and the user
    // can try again.
    session.delete().await?;
    session.clear().await;
    Ok("You are signed out.")
}

/// Returns the application. Tests call it with another client and another store.
pub fn application(users: UserTokens, login: Login, sessions: impl SessionStore + Clone) -> Router {
    let identity = ExtensionIdentity::new(|user: &SignedIn| UserId::new(user.0.clone()?).ok());
    // Only this route and the login's own routes use WeChat. All other routes use the session.
    let layer = WechatLayer::new(users.clone()).login(login);
    let login_routes = Router::new()
        .route("/sign-in", get(sign_in))
        .layer(layer.clone())
        .merge(layer.login_routes());
    Router::new()
        .route("/me", get(me))
        .layer(WechatLayer::new(users).identity(identity))
        .layer(from_fn(read_session))
        .route("/sign-out", post(sign_out))
        .merge(login_routes)
        .layer(
            SessionManagerLayer::new(sessions)
                // Browsers do not send a `Strict` cookie, the default, with a redirect from WeChat.
                .with_same_site(SameSite::Lax)
                // Browsers send secure cookies over https only. Remove this line if browsers use
                // https.
                .with_secure(false),
        )
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .init();
    let listen = std::env::var("LISTEN").unwrap_or("127.0.0.1:3000".to_owned());
    let listener = tokio::net::TcpListener::bind(listen).await?;
    let origin = format!("http://{}", listener.local_addr()?);

    let simulator = Simulator::start().await?;
    let wechat = simulator.client()?;
    let users = UserTokens::new(wechat, MemoryStore::new());
    let login = Login::new(&origin, CookieKeys::random()?)?;
    let app = application(users.clone(), login, Sessions::default());

    let mut terminate = signal(SignalKind::terminate())?;
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
    };
    println!("listening on {origin}");
    serve(listener, app).with_graceful_shutdown(stop).await?;
    // Waits at most ten seconds until the tokens of renewals in progress are in the store.
    users.shutdown(Duration::from_secs(10)).await;
    Ok(())
}
