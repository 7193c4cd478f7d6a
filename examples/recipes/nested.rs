//! An API for signed-in users below `/api`, beside public pages that the layer does not touch.

use axum::{Router, routing::get};
use tower_wechat::{Login, UserTokens, WechatLayer, WechatUser};

pub(crate) fn app(users: UserTokens, login: Login) -> Router {
    let layer = WechatLayer::new(users).login(login);
    Router::new()
        .route("/", get(async || "welcome"))
        .merge(layer.login_routes())
        .nest("/api", Router::new().route("/me", get(me)).layer(layer))
}

async fn me(user: WechatUser) -> String {
    format!("hello {}", user.id())
}
