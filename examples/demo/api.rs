//! The demo's routes.

use axum::Json;
use axum::extract::{self, Query};
use axum::http::StatusCode;
use axum::http::header::SET_COOKIE;
use axum::response::IntoResponse;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tower_wechat::{Error, Language, SessionCookie, UserInfo, UserToken, UserTokens, WechatUser};

#[derive(Clone)]
pub struct State {
    pub users: UserTokens,
    pub session: SessionCookie,
}

/// A placeholder for the page that the login brings.
pub async fn page(user: WechatUser) -> String {
    format!("hello {}\n", user.id())
}

/// What the layer knows of the user; never the token itself.
#[derive(Serialize)]
pub struct Me {
    user_id: String,
    openid: Option<String>,
    scope: Option<String>,
    unionid: Option<String>,
    snapshot: bool,
    token_fingerprint: String,
    freshness: &'static str,
    expires_in_secs: u64,
}

pub async fn me(user: WechatUser) -> Json<Me> {
    Json(Me {
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

/// What WeChat says of the user, healed once if it refuses the token.
pub async fn userinfo(user: WechatUser) -> Result<Json<UserInfo>, Error> {
    let wechat = user.users().wechat();
    let info = user.with_token(|token: UserToken| async move {
        let openid = token.openid().unwrap_or(token.user_id());
        wechat
            .user_info(token.access_token(), openid, Language::ZhCn)
            .await
    });
    Ok(Json(info.await?))
}

#[derive(Deserialize)]
pub struct Logout {
    #[serde(default)]
    everywhere: bool,
}

/// Forgets the session; `?everywhere=true` also the tokens, so that older cookies lead to a new
/// login.
pub async fn logout(
    user: WechatUser,
    Query(logout): Query<Logout>,
    extract::State(state): extract::State<State>,
) -> Result<impl IntoResponse, Error> {
    if logout.everywhere {
        user.forget().await?;
    }
    Ok((
        StatusCode::NO_CONTENT,
        [(SET_COOKIE, state.session.clear())],
    ))
}

pub async fn health(extract::State(state): extract::State<State>) -> (StatusCode, Json<Value>) {
    match state.users.health().await {
        Ok(()) => (StatusCode::OK, Json(json!({"status": "ok", "store": "ok"}))),
        Err(error) => (
            StatusCode::SERVICE_UNAVAILABLE,
            Json(json!({"status": "unavailable", "store": error.kind().code()})),
        ),
    }
}
