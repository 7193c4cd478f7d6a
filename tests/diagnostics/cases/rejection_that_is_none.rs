//! A function of another form than rejections have.
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
