//! The route of WeChat's pushes, for the state of a platform.

use std::sync::Arc;

use tower_layer::Layer;

use super::event::PlatformEvent;
use super::handle::Platform;
use super::push::{HandlePlatformEvents, NoMessages, PushLayer, PushReceiver, PushService};
use super::state::PlatformState;
use crate::error::Error;
use crate::store::BoxFuture;

impl Platform {
    /// Returns the layer for the route of WeChat's pushes. The application's service behind it
    /// receives users' messages and the events that this crate does not handle.
    ///
    /// Needs [`PlatformBuilder::push_keys`](super::PlatformBuilder::push_keys). Without keys, every
    /// push is answered with 503, and a line in the log says so.
    ///
    /// ```
    /// use axum::Router;
    /// use axum::routing::post;
    /// use tower_wechat::platform::{Platform, PlatformPush};
    ///
    /// fn app(platform: &Platform) -> Router {
    ///     Router::new().route("/wechat/platform/push", post(messages).layer(platform.push_layer()))
    /// }
    ///
    /// /// Replies nothing, after a look at the message.
    /// async fn messages(push: PlatformPush) {
    ///     println!("{} of {:?}", push.msg_type().unwrap_or("an event"), push.account());
    /// }
    /// # let _ = app;
    /// ```
    #[must_use = "the layer has to be put around a service"]
    pub fn push_layer(&self) -> PushLayer {
        PushLayer::new(Arc::new(PushReceiver::new(
            self.app_id().clone(),
            self.0.settings.push_keys.clone(),
            self.0.clock.clone(),
            Arc::new(PlatformEvents(Arc::clone(&self.0))),
        )))
    }

    /// Returns the service for the route of WeChat's pushes, for an application that takes no
    /// messages. It answers `success` to every genuine push.
    ///
    /// ```
    /// use axum::Router;
    /// use tower_wechat::platform::Platform;
    ///
    /// fn app(platform: &Platform) -> Router {
    ///     Router::new().route_service("/wechat/platform/push", platform.push_service())
    /// }
    /// # let _ = app;
    /// ```
    #[must_use = "the service has to be mounted"]
    pub fn push_service(&self) -> PushService {
        self.push_layer().layer(NoMessages)
    }
}

/// The platform that stores what its events bring.
struct PlatformEvents(Arc<PlatformState>);

impl HandlePlatformEvents for PlatformEvents {
    /// Handles an event in a task of the platform. A timeout, or a client that closes its
    /// connection, therefore does not cut it off between two steps.
    fn handle_event(&self, event: PlatformEvent) -> BoxFuture<'_, Result<(), Error>> {
        let state = Arc::clone(&self.0);
        let task = self
            .0
            .tasks
            .spawn(async move { state.handle_event(event).await });
        Box::pin(async move {
            task.await.unwrap_or_else(|_| {
                let message = "the task that stores an event of the platform has panicked";
                Err(Error::store_unavailable(message))
            })
        })
    }
}
