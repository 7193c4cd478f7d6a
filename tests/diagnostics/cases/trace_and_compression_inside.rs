//! A layer inside changes the type of the body. `MapResponseBodyLayer`, or axum, changes it back.
//! This compiles.

use axum::body::Body;
use axum::{Router, routing::get};
use http::{Request, Response};
use tower::{Service, ServiceBuilder};
use tower_http::map_response_body::MapResponseBodyLayer;
use tower_http::trace::TraceLayer;
use tower_wechat::{TrustedHeader, UserTokens, WechatLayer, WechatUser};

fn serve<S: Service<Request<Body>, Response = Response<Body>>>(service: S) {
    drop(service);
}

pub fn run(users: UserTokens, header: TrustedHeader) {
    let layer = WechatLayer::new(users).identity(header);
    let service = ServiceBuilder::new()
        .layer(layer.clone())
        .layer(MapResponseBodyLayer::new(Body::new))
        .layer(TraceLayer::new_for_http())
        .service_fn(async |_: Request<Body>| {
            Ok::<_, std::convert::Infallible>(Response::new(Body::empty()))
        });
    serve(service);
    // axum converts the body of each layer to its own type.
    let app: Router = Router::new()
        .route("/", get(async |user: WechatUser| user.id().to_owned()))
        .layer(TraceLayer::new_for_http())
        .layer(layer);
    drop(app);
}
