//! A layer with neither an identity nor a login, in axum.
//~ this layer has no identity
//~ .login(

use axum::{Router, routing::get};
use tower_wechat::{UserTokens, WechatLayer, WechatUser};

pub fn app(users: UserTokens) -> Router {
    Router::new()
        .route("/", get(async |user: WechatUser| user.id().to_owned()))
        .layer(WechatLayer::new(users))
}
