//! The layer and the service for the route of WeChat's pushes.

use std::convert::Infallible;
use std::error::Error as StdError;
use std::fmt;
use std::future::{Ready, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use http_body_util::Full;
use tower_layer::Layer;
use tower_service::Service;

use super::receiver::PushReceiver;

/// Layer around the application's service for the route of WeChat's pushes, made by
/// [`Platform::push_layer`](crate::platform::Platform::push_layer).
///
/// The layer verifies and decrypts each push. It handles the tickets and the authorizations of
/// accounts itself. The application's service receives everything else: users' messages, and the
/// other events of the platform. Mount the layer on one route, which serves both URLs of
/// open.weixin.qq.com, 授权事件接收URL and 消息与事件接收URL.
///
/// # The application's service
///
/// The service receives WeChat's request with the decrypted XML as its body, and a
/// [`PlatformPush`](super::PlatformPush) in the extensions, which is also an extractor of axum.
///
/// | answer of the service | response to WeChat |
/// |---|---|
/// | empty, or `success` | `success`: no reply |
/// | XML, to a user's message | the XML, encrypted with the key of the message |
/// | a status other than 2xx, another body, an error, a panic, or no answer in time | `success`, and a line in the log, at most once a minute |
///
/// A reply that repeats a user's text has to escape it: inside a CDATA section, replace `]]>` by
/// `]]]]><![CDATA[>`.
///
/// WeChat waits five seconds, so the service has four and a half seconds. Its future is then dropped.
/// Run longer work in a task that the application spawns, and send its result as a customer-service
/// message. WeChat does not repeat a push that was answered `success`, so the service stores what must
/// not be lost before it answers.
///
/// The layer is always ready, and the service's readiness delays no ticket.
///
/// # Responses to other requests
///
/// | status | cause |
/// |---|---|
/// | 401 | `msg_signature` is missing or wrong |
/// | 400 | the body is not a push for this platform, or no key opens it |
/// | 405, 413 | the method is not POST, or the body is longer than 64 KiB |
/// | 503 | the store did not take an event, or the platform has no push keys: WeChat repeats the push |
///
/// ```
/// use std::convert::Infallible;
///
/// use bytes::Bytes;
/// use http::{Request, Response};
/// use http_body_util::Full;
/// use tower::ServiceBuilder;
/// use tower_wechat::platform::{Platform, PlatformPush};
///
/// /// Answers every message with nothing. The request has the decrypted XML as its body.
/// async fn messages(request: Request<Full<Bytes>>) -> Result<Response<Full<Bytes>>, Infallible> {
///     if let Some(push) = request.extensions().get::<PlatformPush>() {
///         println!("{:?} of {:?}", push.msg_type(), push.text("FromUserName"));
///     }
///     Ok(Response::default())
/// }
///
/// # fn mount(platform: &Platform) {
/// // A service for hyper. With axum, see `Platform::push_layer`.
/// let service = ServiceBuilder::new().layer(platform.push_layer()).service_fn(messages);
/// # let _ = tower::util::BoxCloneService::<Request<Full<Bytes>>, _, _>::new(service);
/// # }
/// ```
#[derive(Clone)]
pub struct PushLayer(Arc<PushReceiver>);

impl PushLayer {
    pub(crate) fn new(receiver: Arc<PushReceiver>) -> Self {
        Self(receiver)
    }
}

impl<S> Layer<S> for PushLayer {
    type Service = PushService<S>;

    fn layer(&self, application: S) -> PushService<S> {
        PushService {
            receiver: Arc::clone(&self.0),
            application,
        }
    }
}

impl fmt::Debug for PushLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PushLayer").field(&self.0).finish()
    }
}

/// Service for the route of WeChat's pushes: [`PushLayer`] around the service `S` of the
/// application, or without an application ([`NoMessages`]).
#[derive(Clone)]
pub struct PushService<S = NoMessages> {
    receiver: Arc<PushReceiver>,
    application: S,
}

impl<S, B, R> Service<Request<B>> for PushService<S>
where
    S: Service<Request<Full<Bytes>>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<Box<dyn StdError + Send + Sync>>,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
    R: Body + Send + 'static,
    R::Data: Send,
    R::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let receiver = Arc::clone(&self.receiver);
        let application = self.application.clone();
        Box::pin(async move { Ok(receiver.respond(request, application).await) })
    }
}

impl<S> fmt::Debug for PushService<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PushService")
            .field("receiver", &self.receiver)
            .finish_non_exhaustive()
    }
}

/// The application of a platform that takes no messages: replies nothing to every push.
#[derive(Debug, Clone, Copy)]
pub struct NoMessages;

impl<B> Service<Request<B>> for NoMessages {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<B>) -> Self::Future {
        ready(Ok(Response::default()))
    }
}
