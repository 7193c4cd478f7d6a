//! A renderer whose response has another body than the services of the router, and one that returns
//! something else than a response.
//~ renders no rejection with a body of the type `Body`
//~ a whole `Response<Body>`

use axum::Router;
use http::Response;
use tower_wechat::{Rejection, RequestHead, TrustedHeader, UserTokens, WechatLayer};

pub fn app(users: UserTokens, header: TrustedHeader) -> Router {
    let layer = WechatLayer::new(users).identity(header);
    let text = layer.clone().reject(|rejection: &Rejection, _: &RequestHead<'_>| {
        Response::new(rejection.message().to_owned())
    });
    let tuple = layer.reject(|rejection: &Rejection, _: &RequestHead<'_>| {
        (rejection.status(), rejection.message().to_owned())
    });
    Router::new().layer(text).layer(tuple)
}
