//! The value that is passed as identity has a type that is not one.
//~ `&str` is not an identity

use axum::Router;
use tower_wechat::{UserTokens, WechatLayer};

pub fn app(users: UserTokens) -> Router {
    Router::new().layer(WechatLayer::new(users).identity("x-user-id"))
}
