//! Tests of the number of allocations for a request of a cached user.

use std::convert::Infallible;

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderValue, Request, Response};
use http_body_util::Full;
use tower::{Layer, Service, service_fn};
use tower_wechat::{CookieKeys, SessionCookie, WechatLayer, WechatUser};

use super::{header, id, request_of, users};

async fn empty<B>(request: Request<B>) -> Result<Response<Full<Bytes>>, Infallible> {
    drop(request);
    Ok(Response::new(Full::default()))
}

/// Returns the number of allocations of the second of two requests that do not wait. The first one
/// creates values that later requests use again.
fn allocations<S>(service: &mut S, mut request: impl FnMut() -> Request<Body>) -> u64
where
    S: Service<Request<Body>, Response = Response<Full<Bytes>>, Error = Infallible>,
{
    let mut counted = 0;
    for _ in 0..2 {
        let request = request();
        let measured = allocation_counter::measure(|| {
            let mut call = std::pin::pin!(service.call(request));
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            assert!(call.as_mut().poll(&mut context).is_ready());
        });
        counted = measured.count_total;
    }
    counted
}

#[tokio::test]
async fn a_cached_user_costs_one_allocation_for_extensions() {
    let users = users().await;
    let session = SessionCookie::new(users.app_id(), &CookieKeys::random().unwrap());
    let set_cookie = session.issue(&id("oA"));
    let cookie = set_cookie.to_str().unwrap().split(';').next().unwrap();
    // As in a browser, the header contains other cookies too.
    let cookies = format!("theme=dark; {cookie}; nick=\u{5f20}\u{4e09}");
    let signed_in = || {
        let cookies = HeaderValue::from_bytes(cookies.as_bytes()).unwrap();
        let request = Request::builder().header("cookie", cookies);
        request.body(Body::empty()).unwrap()
    };

    let (sender, receiver) = std::sync::mpsc::channel();
    let mut capturing = WechatLayer::new(users.clone())
        .identity(header())
        .layer(service_fn(move |request: Request<Body>| {
            let user = request.extensions().get::<WechatUser>().cloned();
            sender.send(user.unwrap()).unwrap();
            empty(request)
        }));
    capturing.call(request_of("oA")).await.unwrap();
    let user = receiver.recv().unwrap();
    let mut inserting = service_fn(move |mut request: Request<Body>| {
        request.extensions_mut().insert(user.clone());
        empty(request)
    });
    let extension = allocations(&mut inserting, || request_of("oA"));
    assert!(extension > 0);

    let inner = service_fn(empty::<Body>);
    let mut by_header = WechatLayer::new(users.clone())
        .identity(header())
        .layer(inner);
    assert!(allocations(&mut by_header, || request_of("oA")) <= extension);
    let mut by_cookie = WechatLayer::new(users).identity(session).layer(inner);
    assert!(allocations(&mut by_cookie, signed_in) <= extension);
}
