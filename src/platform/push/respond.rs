//! The response to a request at the route of pushes.

use std::error::Error as StdError;
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{Method, Request, Response};
use http_body::Body;
use http_body_util::Full;
use tokio::time::{Instant, timeout, timeout_at};
use tower_service::Service;

use super::application::{Answer, call_application};
use super::body::{BodyError, read_body};
use super::receiver::{OpenedPush, PushContent, PushReceiver, ReplyKeys};
use super::refusal::PushRefusal;
use super::response::{self, PushResponse};
use crate::clock::deadline_in;
use crate::metrics;
use crate::platform::event::PlatformEvent;

/// Maximum time until a push is answered: four and a half seconds. WeChat waits five seconds, and
/// the answer has to travel.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(4_500);

/// Maximum time until the body of a push has arrived: two seconds. WeChat sends it with the head.
const BODY_TIMEOUT: Duration = Duration::from_secs(2);

impl PushReceiver {
    /// Returns the response to a request, within [`ANSWER_TIMEOUT`].
    pub(super) async fn respond<B, S, R>(&self, request: Request<B>, application: S) -> PushResponse
    where
        B: Body,
        B::Error: Into<Box<dyn StdError + Send + Sync>>,
        S: Service<Request<Full<Bytes>>, Response = Response<R>> + Send + 'static,
        S::Future: Send,
        S::Error: Into<Box<dyn StdError + Send + Sync>>,
        R: Body + Send + 'static,
        R::Data: Send,
        R::Error: Into<Box<dyn StdError + Send + Sync>>,
    {
        let deadline = deadline_in(ANSWER_TIMEOUT);
        let (parts, body) = request.into_parts();
        let opened = match self.receive(&parts, body).await {
            Ok(opened) => opened,
            Err(refusal) => {
                self.log_refusal(refusal);
                // Without a genuine push, the event is not known.
                metrics::count_push("unknown", refusal.metric_result());
                return response::refusal(refusal);
            }
        };
        let OpenedPush {
            content,
            reply_keys,
        } = opened;
        match content {
            PushContent::Event(event) => self.handle(event, deadline).await,
            PushContent::Application(push) => {
                let event = match push.info_type() {
                    Some(_) => "other",
                    None => "message",
                };
                let timeout = deadline.saturating_duration_since(Instant::now());
                let answer = call_application(application, parts, push, timeout).await;
                self.answer(event, answer, &reply_keys)
            }
        }
    }

    /// Reads and opens a push.
    async fn receive<B>(&self, parts: &Parts, body: B) -> Result<OpenedPush, PushRefusal>
    where
        B: Body,
        B::Error: Into<Box<dyn StdError + Send + Sync>>,
    {
        if parts.method != Method::POST {
            return Err(PushRefusal::Method);
        }
        let body = match timeout(BODY_TIMEOUT, read_body(body)).await {
            Ok(Ok(body)) => body,
            Ok(Err(BodyError::TooLarge)) => return Err(PushRefusal::TooLarge),
            Ok(Err(BodyError::Broken)) | Err(_) => return Err(PushRefusal::Incomplete),
        };
        self.open(&parts.uri, &body)
    }

    /// Handles an event of the platform. WeChat repeats an event that could not be stored.
    async fn handle(&self, event: PlatformEvent, deadline: Instant) -> PushResponse {
        let name = event.name();
        let error = match timeout_at(deadline, self.events.handle_event(event)).await {
            Ok(Ok(())) => {
                let app = self.component();
                tracing::debug!(target: "tower_wechat::platform", %app, event = name, "an event of the platform was handled");
                metrics::count_push(name, "handled");
                return response::success();
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "the store did not answer in time".to_owned(),
        };
        metrics::count_push(name, "failed");
        if let Some(more) = self.log_limiter.allow_line("event") {
            tracing::warn!(
                target: "tower_wechat::platform",
                app = %self.component(),
                event = name,
                error,
                more,
                "an event of the platform could not be stored; WeChat was asked to repeat it"
            );
        }
        response::unavailable()
    }

    /// Returns the response with the answer of the application.
    fn answer(&self, event: &'static str, answer: Answer, keys: &ReplyKeys) -> PushResponse {
        let answered = match answer {
            Answer::Nothing => Ok(response::success()),
            Answer::Reply(xml) => match self.encrypt_reply(keys, &xml) {
                Some(envelope) => Ok(response::reply(envelope)),
                None => Err("the system returned no random bytes to encrypt its reply".to_owned()),
            },
            Answer::Unusable(error) => Err(error),
        };
        let error = match answered {
            Ok(response) => {
                metrics::count_push(event, "application");
                return response;
            }
            Err(error) => error,
        };
        metrics::count_push(event, "failed");
        if let Some(more) = self.log_limiter.allow_line("application") {
            tracing::warn!(
                target: "tower_wechat::platform",
                app = %self.component(),
                error,
                more,
                "the application did not handle a push; WeChat received `success` and does not \
                 repeat it"
            );
        }
        response::success()
    }
}
