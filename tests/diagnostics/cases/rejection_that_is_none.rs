//! A closure for rejections that lacks the second argument.
//~ takes 2 arguments

use axum::Router;
use axum::body::Body;
use tower_wechat::{Rejection, TrustedHeader, UserTokens, WechatLayer};

pub fn app(users: UserTokens, header: TrustedHeader) -> Router {
    let layer = WechatLayer::new(users)
        .identity(header)
        .reject(|_: &Rejection| http::Response::new(Body::empty()));
    Router::new().layer(layer)
}
