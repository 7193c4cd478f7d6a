//! Routes of the account: the state of its token, signatures for the JS-SDK, and the token center.

use axum::extract::State;
use axum::http::Uri;
use axum::http::header::CACHE_CONTROL;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};
use tower_wechat::account::TokenCenter;
use tower_wechat::jssdk::page_url;
use tower_wechat::{Error, Tickets};

/// Returns the routes `/api/account` and `/api/jssdk`, and `/center` if a token center is given.
pub fn routes(tickets: Tickets, center: Option<TokenCenter>) -> Router {
    let routes = Router::new()
        .route("/api/account", get(account))
        .route("/api/jssdk", get(js_config))
        .with_state(tickets);
    match center {
        Some(center) => routes.nest_service("/center", center),
        None => routes,
    }
}

/// Returns the fingerprint and the remaining lifetime of the account's token. The token itself
/// stays in this process.
async fn account(State(tickets): State<Tickets>) -> Result<Json<Value>, Error> {
    let token = tickets.accounts().get().await?;
    Ok(Json(json!({
        "token_fingerprint": token.access_token().fingerprint(),
        "expires_in_secs": token.expires_in().as_secs(),
    })))
}

/// Returns the signed argument of `wx.config` for the page that the request names. The page's host
/// must be allowed.
async fn js_config(State(tickets): State<Tickets>, request: Uri) -> Result<Response, Error> {
    let config = tickets.js_config(&page_url(&request)?).await?;
    Ok(([(CACHE_CONTROL, "no-store")], Json(config)).into_response())
}
