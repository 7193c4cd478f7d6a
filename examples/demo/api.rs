//! The JSON routes of the demo: the user, the profile, the logout, and the health check of a load
//! balancer.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tower_wechat::client::{Language, UserInfo};
use tower_wechat::health::Health;
use tower_wechat::simulator::Simulator;
use tower_wechat::{Error, ErrorKind, Logout, UserToken, WechatUser};

use crate::addresses::Addresses;
use crate::parts::Tokens;

/// The tokens, the addresses and the simulator that the routes share.
#[derive(Clone)]
pub struct AppState {
    pub tokens: Tokens,
    pub addresses: Arc<Addresses>,
    /// The simulator of WeChat. `None` if a real account is configured.
    pub simulator: Option<Arc<Simulator>>,
}

/// The reply of `GET /api/me`: the user and the state of the user's access token, without the token
/// itself.
#[derive(Serialize)]
pub struct Me {
    /// The AppID of the account or of the website app to which the user belongs. Left out if the
    /// demo serves one account without a website app.
    #[serde(skip_serializing_if = "Option::is_none")]
    app_id: Option<String>,
    user_id: String,
    openid: Option<String>,
    scope: Option<String>,
    unionid: Option<String>,
    snapshot: bool,
    token_fingerprint: String,
    freshness: &'static str,
    expires_in_secs: u64,
}

/// `GET /api/me`: returns the user that the layer has inserted into the request.
pub async fn me(user: WechatUser, State(state): State<AppState>) -> Json<Me> {
    let names_apps = state.addresses.names_apps;
    Json(Me {
        app_id: names_apps.then(|| user.app_id().as_str().to_owned()),
        user_id: user.id().to_owned(),
        openid: user.openid().map(str::to_owned),
        scope: user.scope().map(str::to_owned),
        unionid: user.unionid().map(str::to_owned),
        snapshot: user.is_snapshot(),
        token_fingerprint: user.access_token().fingerprint(),
        freshness: user.freshness().as_str(),
        expires_in_secs: user.expires_in().as_secs(),
    })
}

/// `GET /api/userinfo`: returns the user's profile. If WeChat rejects the token, `with_token`
/// renews the token and repeats the call once.
///
/// If the user has not granted the scope of the profile, the layer asks the user for that scope. If
/// the stored token does not contain its scope, the call to WeChat reports the lack (errcode
/// 48001).
pub async fn userinfo(user: WechatUser) -> Result<Json<UserInfo>, Error> {
    let wechat = user.users().wechat();
    let info = user.with_token(|token: UserToken| async move {
        let openid = token.openid().unwrap_or(token.user_id().as_str());
        wechat
            .user_info(token.access_token(), openid, Language::ZhCn)
            .await
    });
    info.await.map(Json)
}

/// The query of `POST /logout`. `everywhere=true` deletes the user's tokens too.
#[derive(Deserialize)]
pub struct LogoutQuery {
    #[serde(default)]
    everywhere: bool,
}

/// `POST /logout`: deletes the session cookie. With `?everywhere=true`, the route also deletes the
/// user's tokens, so that the user's other sessions lead to a new login.
pub async fn logout(
    user: WechatUser,
    query: Result<Query<LogoutQuery>, QueryRejection>,
) -> Result<Logout, Response> {
    let Query(query) = query.map_err(|_| {
        let message = "everywhere is true or false";
        let body = json!({"error": ErrorKind::BadRequest.code(), "message": message});
        (StatusCode::BAD_REQUEST, Json(body)).into_response()
    })?;
    if query.everywhere {
        user.revoke().await.map_err(IntoResponse::into_response)?;
    }
    Ok(Logout)
}

/// `GET /healthz`: returns 503 if the store is unavailable, because users without a cached token
/// cannot be served then. A missing token of the account or of the platform appears only in the body:
/// users can be served without that token, and WeChat's pushes must arrive.
pub async fn healthz(State(state): State<AppState>) -> (StatusCode, Json<HealthReply>) {
    let health = state.tokens.health().await;
    let status = match health.is_ready() {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    let platform = state.tokens.platform_health().await;
    (status, Json(HealthReply { health, platform }))
}

/// The reply of `GET /healthz`.
#[derive(Serialize)]
pub struct HealthReply {
    #[serde(flatten)]
    health: Health,
    /// `alive` if the platform has a token, else the code of the error. Left out without a platform.
    #[serde(skip_serializing_if = "Option::is_none")]
    platform: Option<&'static str>,
}
