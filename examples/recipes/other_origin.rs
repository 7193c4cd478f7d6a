//! A service whose pages are on another origin of its site, such as a static host or a CDN.
//!
//! `other_origin.html` is such a page. Its script calls the service with the session cookie, and
//! opens the login if the user is unknown:
//!
//! ```js
//! const answer = await fetch(api + "/me", { credentials: "include" });
//! if (answer.status === 401) {
//!     const login = new URL((await answer.json()).login_url);
//!     login.searchParams.set("return_to", location.href);
//!     location.assign(login);
//! }
//! ```

use axum::http::HeaderValue;
use axum::{Json, Router, response::Redirect, routing::get};
use tower_http::cors::CorsLayer;
use tower_wechat::login::LoginBuilder;
use tower_wechat::{Error, UserTokens, WechatLayer, WechatUser};

pub(crate) fn app(
    users: UserTokens,
    login: LoginBuilder,
    front_end: &'static str,
) -> Result<Router, Error> {
    let login = login.return_origins([front_end]).build()?;
    // A script that sends JSON or calls PUT also needs `allow_headers` and `allow_methods`.
    let cors = CorsLayer::new()
        .allow_origin(HeaderValue::from_static(front_end))
        .allow_credentials(true);
    Ok(Router::new()
        .route("/", get(async move || Redirect::to(front_end)))
        .route("/me", get(me))
        .layer(WechatLayer::new(users).login(login))
        .layer(cors))
}

async fn me(user: WechatUser) -> Json<String> {
    Json(user.id().to_owned())
}
