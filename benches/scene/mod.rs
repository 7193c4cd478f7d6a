//! What the benchmarks within one process have in common: users, a service that does nothing, the
//! plain `HGET` that the layer is compared with, and requests that are under way at once.

// Each benchmark takes what it needs.
#![allow(dead_code)]

use std::convert::Infallible;
use std::hint::black_box;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{Empty, Full};
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use tower::{Service, ServiceExt, service_fn};
use tower_wechat::{UserId, WechatClient};

/// Requests to Redis that are under way at once.
pub(crate) const CONCURRENCY: usize = 64;

pub(crate) type Body = Empty<Bytes>;

pub(crate) fn user_id(at: usize) -> UserId {
    UserId::new(format!("o6_bmjrPTlm6_2sgVt7hMZ{at:06}")).expect("an id")
}

pub(crate) fn wechat_client() -> WechatClient {
    WechatClient::new("wx0123456789abcdef", "secret").expect("a client")
}

pub(crate) async fn respond_empty<B>(
    request: Request<B>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    black_box(&request);
    Ok(Response::new(Full::new(Bytes::new())))
}

/// A service over Redis at `url` that the benchmarks call with one of many users in a header.
pub(crate) trait BenchService:
    Service<Request<Body>, Response = Response<Full<Bytes>>, Error = Infallible, Future: Send>
    + Clone
    + Send
    + 'static
{
}

impl<S> BenchService for S where
    S: Service<Request<Body>, Response = Response<Full<Bytes>>, Error = Infallible, Future: Send>
        + Clone
        + Send
        + 'static
{
}

/// The algorithm that is published: one command for each request, and nothing else.
pub(crate) async fn hget_service(url: &str, timeout: Duration) -> impl BenchService {
    let client = redis::Client::open(url).expect("a client");
    let config = ConnectionManagerConfig::new().set_response_timeout(Some(timeout));
    let connection = ConnectionManager::new_with_config(client, config).await;
    let connection = connection.expect("a connection");
    service_fn(move |request: Request<Body>| {
        let mut connection = connection.clone();
        async move {
            let id = request.headers()["x-user-id"].to_str().expect("an id");
            let mut command = redis::cmd("HGET");
            command.arg("user.wxUserAccessToken").arg(id);
            let token: Option<String> =
                command.query_async(&mut connection).await.expect("a value");
            assert!(token.is_some());
            respond_empty(request).await
        }
    })
}

/// Asks for `users` in turn, and keeps a number of requests under way, as a busy server has them.
pub(crate) async fn send_requests(service: impl BenchService, requests: usize, users: usize) {
    let mut running = tokio::task::JoinSet::new();
    for task in 0..CONCURRENCY {
        let service = service.clone();
        running.spawn(async move {
            for turn in 0..requests / CONCURRENCY {
                let id = user_id((task + turn * CONCURRENCY) % users);
                let request = Request::builder().header("x-user-id", id.as_str());
                let request = request.body(Body::new()).expect("a request");
                let response = service.clone().oneshot(request).await.expect("an answer");
                assert!(response.status().is_success());
            }
        });
    }
    running.join_all().await;
}
