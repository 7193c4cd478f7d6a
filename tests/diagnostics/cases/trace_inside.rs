//! A layer inside changes the type of the body, and no other layer changes it back.
//~ JsonRejection::with
//~ MapResponseBodyLayer

use axum::body::Body;
use http::{Request, Response};
use tower::{Service, ServiceBuilder};
use tower_http::trace::TraceLayer;
use tower_wechat::{TrustedHeader, UserTokens, WechatLayer};

fn serve<S: Service<Request<Body>>>(service: S) {
    drop(service);
}

pub fn run(users: UserTokens, header: TrustedHeader) {
    let service = ServiceBuilder::new()
        .layer(WechatLayer::new(users).identity(header))
        .layer(TraceLayer::new_for_http())
        .service_fn(async |_: Request<Body>| {
            Ok::<_, std::convert::Infallible>(Response::new(Body::empty()))
        });
    serve(service);
}
