//! The inner service's body has no `From<Bytes>`, so that the layer cannot create a rejection.
//~ JsonRejection::with

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{Full, combinators::BoxBody};
use tower::ServiceBuilder;
use tower_wechat::{TrustedHeader, UserTokens, WechatLayer};

type Answer = Result<Response<BoxBody<Bytes, std::io::Error>>, std::convert::Infallible>;

pub async fn ask(users: UserTokens, header: TrustedHeader, request: Request<Full<Bytes>>) -> Answer {
    let mut service = ServiceBuilder::new()
        .layer(WechatLayer::new(users).identity(header))
        .service_fn(async |_: Request<Full<Bytes>>| Answer::Ok(Response::new(BoxBody::default())));
    service.call(request).await
}
