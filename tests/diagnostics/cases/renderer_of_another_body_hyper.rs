//! A renderer whose response has another body than the inner service, without axum.
//~ renders no rejection with a body of the type `http_body_util::Full<bytes::Bytes>`
//~ a whole `Response<http_body_util::Full<bytes::Bytes>>`

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tower::{Service, ServiceBuilder};
use tower_wechat::{Rejection, RequestHead, TrustedHeader, UserTokens, WechatLayer};

type Answer = Result<Response<Full<Bytes>>, std::convert::Infallible>;

pub async fn ask(users: UserTokens, header: TrustedHeader, request: Request<Full<Bytes>>) -> Answer {
    let text = |rejection: &Rejection, _: &RequestHead<'_>| {
        Response::new(rejection.message().to_owned())
    };
    let mut service = ServiceBuilder::new()
        .layer(WechatLayer::new(users).identity(header).reject(text))
        .service_fn(async |_: Request<Full<Bytes>>| Answer::Ok(Response::new(Full::default())));
    service.call(request).await
}
