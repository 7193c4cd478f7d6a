//! With sessions of the application's own, by tower-sessions: WeChat says once who somebody is, and
//! the session remembers it. With axum-login it is the same; its `AuthSession` takes the place of
//! [`SignedIn`].
//!
//! `cargo run --example sessions`, then open http://127.0.0.1:3000/sign-in in a browser.

use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::{RETRY_AFTER, SET_COOKIE};
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
    CookieKeys, Login, MemoryStore, UserId, UserTokens, WechatClient, WechatLayer, WechatUser,
};

/// The user of the session, in the extensions of the request.
#[derive(Clone)]
struct SignedIn(Option<String>);

/// An error of the session store. It differs from a session without a user: a user who is signed in
/// must not be redirected to the login because of it.
struct SessionStoreError;

impl From<tower_sessions::session::Error> for SessionStoreError {
    fn from(error: tower_sessions::session::Error) -> Self {
        tracing::error!(%error, "the store of sessions failed");
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

/// Reads the session ahead of the layer, whose identity cannot wait for a store.
async fn read_session(
    session: Session,
    mut request: Request,
    next: Next,
) -> Result<Response, SessionStoreError> {
    let openid = session.get("openid").await?;
    request.extensions_mut().insert(SignedIn(openid));
    Ok(next.run(request).await)
}

/// Stores the user whom WeChat has just identified in the session.
async fn sign_in(
    user: WechatUser,
    session: Session,
    State(login): State<Login>,
) -> Result<impl IntoResponse, SessionStoreError> {
    // A new session id for a new user, against session fixation.
    session.cycle_id().await?;
    session.insert("openid", user.id()).await?;
    session.save().await?;
    // From here on the application's session counts, and nothing else: the login's own cookie would
    // sign the next user of this phone in as this one, at `/sign-in` after a sign-out.
    Ok(([(SET_COOKIE, login.logout_cookie())], Redirect::to("/me")))
}

async fn me(user: WechatUser) -> Html<String> {
    // A form, since a sign-out is a POST: links are followed by whoever looks ahead, and any other
    // site can have a browser open one.
    Html(format!(
        "hello {}\n<form method=post action=/sign-out><button>Sign out</button></form>",
        user.id()
    ))
}

async fn sign_out(session: Session) -> Result<&'static str, SessionStoreError> {
    // Its record first: if that fails, the browser keeps its cookie and can try once more.
    session.delete().await?;
    session.clear().await;
    Ok("You are signed out.")
}

/// The application, made of what it needs, so that tests can give it other things.
pub fn application(users: UserTokens, login: Login, sessions: impl SessionStore + Clone) -> Router {
    let identity = ExtensionIdentity::new(|user: &SignedIn| UserId::new(user.0.clone()?).ok());
    // One door where WeChat is asked; everything else goes by the session.
    let layer = WechatLayer::new(users.clone()).login(login.clone());
    let door = Router::new()
        .route("/sign-in", get(sign_in))
        .with_state(login)
        .layer(layer.clone())
        .merge(layer.login_routes());
    Router::new()
        .route("/me", get(me))
        .layer(WechatLayer::new(users).identity(identity))
        .layer(from_fn(read_session))
        .route("/sign-out", post(sign_out))
        .merge(door)
        .layer(
            SessionManagerLayer::new(sessions)
                // Browsers hold `Strict`, the default, back on the way from WeChat.
                .with_same_site(SameSite::Lax)
                // For plain http; leave this out where browsers see https.
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
    let wechat = WechatClient::builder(simulator.app_id(), simulator.app_secret())
        .api_url(simulator.url())
        .open_url(simulator.url())
        .build()?;
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
    // Waits until new tokens are in the store.
    users.shutdown(Duration::from_secs(10)).await;
    Ok(())
}
