//! A proxy before WeChat that holds back replies, so that a test can put something between WeChat's
//! effect and the reply.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::response::Response;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tower_wechat::WechatClient;

use super::world::{SOON, World};
use crate::support::eventually;

/// A proxy. Its server ends with it.
pub struct SlowReplies {
    url: String,
    held: Arc<Held>,
    server: AbortHandle,
}

#[derive(Default)]
struct Held {
    path: Mutex<Option<String>>,
    waiting: watch::Sender<usize>,
    released: watch::Sender<bool>,
}

impl Drop for SlowReplies {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl SlowReplies {
    pub async fn start(world: &World) -> Self {
        let held = Arc::new(Held::default());
        let (wechat, shared) = (world.harness.simulator.url().to_owned(), Arc::clone(&held));
        let http = reqwest::Client::new();
        let forward = move |request: Request| {
            let (wechat, held, http) = (wechat.clone(), Arc::clone(&shared), http.clone());
            async move { forward(request, &wechat, &held, &http).await }
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(forward);
        let server = tokio::spawn(async move { axum::serve(listener, router).await });
        Self {
            url,
            held,
            server: server.abort_handle(),
        }
    }

    /// Returns a client of the platform whose calls go through the proxy.
    pub fn client(&self, world: &World) -> WechatClient {
        WechatClient::builder(world.wechat.app_id(), world.wechat.app().app_secret())
            .api_url(&self.url)
            .build()
            .unwrap()
    }

    /// Holds back the replies to calls of this path from now on.
    pub fn hold(&self, path: &str) {
        *self.held.path.lock().unwrap() = Some(path.to_owned());
        self.held.released.send_replace(false);
    }

    /// Waits until a reply is held back.
    pub async fn reply_is_held(&self) {
        eventually("WeChat has answered", SOON, async || {
            *self.held.waiting.borrow() > 0
        })
        .await;
    }

    /// Lets all replies pass.
    pub fn release(&self) {
        *self.held.path.lock().unwrap() = None;
        self.held.released.send_replace(true);
    }
}

async fn forward(request: Request, wechat: &str, held: &Held, http: &reqwest::Client) -> Response {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, 1 << 20).await.unwrap();
    let target = parts.uri.path_and_query().unwrap().as_str();
    let reply = http
        .request(parts.method, format!("{wechat}{target}"))
        .body(body)
        .send()
        .await
        .unwrap();
    let (status, reply) = (reply.status(), reply.bytes().await.unwrap());
    let is_held = held.path.lock().unwrap().as_deref() == Some(parts.uri.path());
    if is_held {
        held.waiting.send_modify(|waiting| *waiting += 1);
        let mut released = held.released.subscribe();
        let _ = released.wait_for(|released| *released).await;
        held.waiting.send_modify(|waiting| *waiting -= 1);
    }
    Response::builder()
        .status(status)
        .header("content-type", "application/json")
        .body(Body::from(reply))
        .unwrap()
}
