//! Routes of an account: the state of its token, signatures for the JS-SDK, and the token center.

use axum::http::header::CACHE_CONTROL;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Json, Router};
use serde_json::{Value, json};
use tower_wechat::account::TokenCenter;
use tower_wechat::jssdk::page_url;
use tower_wechat::layer::WechatAccount;
use tower_wechat::{AccountToken, Error};

use crate::variables::BoxError;

/// Returns the routes `/api/account` and `/api/jssdk`, and `/center` if secrets of a token center
/// are given, separated by commas. The requests must have a [`WechatAccount`].
pub fn routes<S>(center_secrets: Option<&str>) -> Result<Router<S>, BoxError>
where
    S: Clone + Send + Sync + 'static,
{
    let routes = Router::new()
        .route("/api/account", get(account))
        .route("/api/jssdk", get(js_config));
    let Some(secrets) = center_secrets else {
        return Ok(routes);
    };
    let center = TokenCenter::for_accounts(secrets.split(',').map(str::trim))
        .map_err(|error| format!("CENTER_TOKEN: {error}"))?;
    Ok(routes.nest_service("/center", center))
}

/// Returns the fingerprint and the remaining lifetime of the account's token. The token itself
/// stays in this process.
async fn account(token: AccountToken) -> Json<Value> {
    Json(json!({
        "token_fingerprint": token.access_token().fingerprint(),
        "expires_in_secs": token.expires_in().as_secs(),
    }))
}

/// Returns the signed argument of `wx.config` for the page that the request names. The page's host
/// must be allowed.
async fn js_config(
    Extension(account): Extension<WechatAccount>,
    request: Uri,
) -> Result<Response, Error> {
    let Some(tickets) = account.tickets() else {
        return Ok(StatusCode::NOT_FOUND.into_response());
    };
    let config = tickets.js_config(&page_url(&request)?).await?;
    Ok(([(CACHE_CONTROL, "no-store")], Json(config)).into_response())
}
