//! A layer whose identity is a `Result`.
//~ `Result<TrustedHeader, tower_wechat::Error>` is not an identity
//~ .identity(TrustedHeader::new(..)?)

use axum::Router;
use tower_wechat::{TrustedHeader, UserTokens, WechatLayer};

pub fn app(users: UserTokens) -> Router {
    Router::new().layer(WechatLayer::new(users).identity(TrustedHeader::new("x-user-id")))
}
