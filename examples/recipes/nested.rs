//! Public routes and routes for signed-in users in one router, which is nested below `/api`.

use axum::{Router, routing::get};
use tower_wechat::{Login, UserTokens, WechatLayer, WechatUser};

pub(crate) fn app(users: UserTokens, login: Login) -> Router {
    let layer = WechatLayer::new(users).login(login);
    let api = Router::new()
        .route("/me", get(me))
        .route_layer(layer.clone()) // for the routes above
        .route("/version", get(async || "1"));
    Router::new()
        .route("/", get(async || "welcome"))
        .nest("/api", api)
        .merge(layer.login_routes()) // `/wechat/callback`, at the root
}

async fn me(user: WechatUser) -> String {
    format!("hello {}", user.id())
}
