//! A layer with neither an identity nor a login, without axum.
//~ this layer has no identity
//~ .login(

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tower::ServiceBuilder;
use tower_wechat::{UserTokens, WechatLayer};

type Answer = Result<Response<Full<Bytes>>, std::convert::Infallible>;

pub async fn ask(users: UserTokens, request: Request<Full<Bytes>>) -> Answer {
    let mut service = ServiceBuilder::new()
        .layer(WechatLayer::new(users))
        .service_fn(async |_: Request<Full<Bytes>>| Answer::Ok(Response::new(Full::default())));
    service.call(request).await
}
