//! Response bodies that have no `From<Bytes>`, each created by a function for
//! `JsonRejection::with`. This compiles.

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::{BoxBody, UnsyncBoxBody};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use tower::{Service, ServiceBuilder};
use tower_wechat::layer::JsonRejection;
use tower_wechat::{TrustedHeader, UserTokens, WechatLayer};

/// The error type of a gRPC server's body.
pub struct Status;

type Boxed = BoxBody<Bytes, std::io::Error>;
type Grpc = UnsyncBoxBody<Bytes, Status>;

fn serve<B, S: Service<Request<Incoming>, Response = Response<B>>>(service: S) {
    drop(service);
}

pub fn run(users: UserTokens, header: TrustedHeader) {
    let layer = WechatLayer::new(users).identity(header);
    let boxed = |bytes| Boxed::new(Full::new(bytes).map_err(|never| match never {}));
    let boxed = layer.clone().reject(JsonRejection::with(boxed));
    serve(ServiceBuilder::new().layer(boxed).service_fn(async |_: Request<Incoming>| {
        Ok::<_, std::convert::Infallible>(Response::new(Boxed::default()))
    }));
    let grpc = |bytes| Grpc::new(Full::new(bytes).map_err(|never| match never {}));
    let grpc = layer.reject(JsonRejection::with(grpc));
    serve(ServiceBuilder::new().layer(grpc).service_fn(async |_: Request<Incoming>| {
        Ok::<_, std::convert::Infallible>(Response::new(Grpc::default()))
    }));
}
