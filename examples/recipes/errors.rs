//! One error format for the layer's rejections, for those of extractors and for the application's errors.

use axum::{Router, extract::Path, http::StatusCode, routing::get};
use serde_json::json;
use tower_wechat::{Login, Rejection, UserTokens, WechatLayer, WechatUser, layer::JsonRejection};

pub(crate) fn app(users: UserTokens, login: Login) -> Router {
    let renderer = JsonRejection::new().json(|rejection| {
        let (code, msg) = (rejection.code(), rejection.message());
        json!({ "code": code, "msg": msg, "login_url": rejection.login_url() })
    });
    Router::new()
        .route("/orders/{number}", get(order))
        .layer(WechatLayer::new(users).login(login).reject(renderer))
}

struct NotFound;

impl From<NotFound> for Rejection {
    fn from(_: NotFound) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", "no such order")
    }
}

async fn order(user: WechatUser, Path(number): Path<u32>) -> Result<String, Rejection> {
    let buyer = user.profile().await?.nickname.clone();
    let order = (number == 7).then_some("tea").ok_or(NotFound)?;
    Ok(format!("{order} for {buyer}"))
}
