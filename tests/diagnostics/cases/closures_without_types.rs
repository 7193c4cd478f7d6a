//! Closures whose arguments have no types. The compiler cannot infer them, because other types than
//! closures are identities and renderers too.
//~ type annotations needed
//~ |head: /* Type */|
//~ |rejection: /* Type */, _|

use axum::Router;
use axum::body::Body;
use http::Response;
use tower_wechat::{Rejection, TrustedHeader, UserId, UserTokens, WechatLayer};

pub fn identity(users: UserTokens) -> Router {
    let user = |head| UserId::new(head.uri.path()).ok();
    Router::new().layer(WechatLayer::new(users).identity(user))
}

pub fn renderer(users: UserTokens, header: TrustedHeader) -> Router {
    let render = |rejection, _| Response::new(Body::from(rejection.message().to_owned()));
    Router::new().layer(WechatLayer::new(users).identity(header).reject(render))
}
