//! The routes of an account's users, and the path prefix below which a proxy serves them.

use axum::Router;
use axum::extract::{OriginalUri, Request};
use axum::http::{StatusCode, Uri};
use axum::routing::{any, get, post};
use tower_wechat::identity::Identify;
use tower_wechat::{Scope, WechatLayer};

use crate::api::{self, AppState};
use crate::page;

/// Returns the routes of users, with the layer around them.
pub fn of_users<I>(layer: WechatLayer<I>) -> Router<AppState>
where
    I: Identify + Send + Sync + 'static,
{
    // A page load of a user who has granted a smaller scope is redirected to WeChat once, for the
    // larger scope.
    let userinfo = get(api::userinfo).layer(layer.clone().require_scope(Scope::UserInfo));
    Router::new()
        .route("/", get(page::show))
        .route("/page/life", get(page::token_life))
        .route("/page/renew", post(page::renew))
        .route("/page/refuse", post(page::call_with_expired_token))
        .route("/api/me", get(api::me))
        .route("/api/userinfo", userinfo)
        .route("/logout", post(api::logout))
        // The layer answers the login's paths before a route is called. This route exists so that
        // requests to the login's paths pass through the layer.
        .route("/wechat/{*path}", any(not_found))
        .layer(layer)
}

/// Returns 404 for paths that the layer has not answered.
async fn not_found() -> StatusCode {
    StatusCode::NOT_FOUND
}

/// Returns a function that removes the path prefix of `PUBLIC_URL` from a request, for the routes. A
/// request without the prefix, which some proxies remove, keeps its path.
///
/// In both cases, the layer sees the URI of browsers, with the prefix.
pub fn strip_prefix(prefix: String) -> impl Fn(Request) -> Request + Clone {
    move |mut request| {
        if prefix.is_empty() {
            return request;
        }
        let requested = request
            .uri()
            .path_and_query()
            .map_or("/", |target| target.as_str());
        let rest = match requested.strip_prefix(&prefix) {
            Some(rest) if rest.starts_with('/') => rest.to_owned(),
            Some(rest) if rest.is_empty() || rest.starts_with('?') => format!("/{rest}"),
            _ => requested.to_owned(),
        };
        if let (Ok(public), Ok(rest)) = (format!("{prefix}{rest}").parse::<Uri>(), rest.parse()) {
            *request.uri_mut() = rest;
            request.extensions_mut().insert(OriginalUri(public));
        }
        request
    }
}
