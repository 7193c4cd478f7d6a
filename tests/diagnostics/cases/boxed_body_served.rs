//! The inner service's body has no `From<Bytes>`. The error appears where a server uses the
//! service.
//~ JsonRejection::with

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use tower::Service;
use tower::ServiceBuilder;
use tower_wechat::{TrustedHeader, UserTokens, WechatLayer};

type Answer = Result<Response<UnsyncBoxBody<Bytes, std::io::Error>>, std::convert::Infallible>;

fn serve<S: Service<Request<Incoming>>>(service: S) {
    drop(service);
}

pub fn run(users: UserTokens, header: TrustedHeader) {
    let service = ServiceBuilder::new()
        .layer(WechatLayer::new(users).identity(header))
        .service_fn(async |_: Request<Incoming>| Answer::Ok(Response::new(UnsyncBoxBody::default())));
    serve(service);
}
