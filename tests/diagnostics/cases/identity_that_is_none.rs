//! A layer whose identity is a `&str`, a type that identifies no user.
//~ `&str` is not an identity

use axum::Router;
use tower_wechat::{UserTokens, WechatLayer};

pub fn app(users: UserTokens) -> Router {
    Router::new().layer(WechatLayer::new(users).identity("x-user-id"))
}
