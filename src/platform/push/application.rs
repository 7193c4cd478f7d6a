//! Calls of the application's service with decrypted pushes, and its answers.

use std::error::Error as StdError;
use std::future::poll_fn;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING};
use http::request::Parts;
use http::{HeaderValue, Request, Response};
use http_body::Body;
use http_body_util::Full;
use tower_service::Service;

use super::body::{BodyError, read_body};
use super::message::PlatformPush;
use super::xml;
use crate::guarded_call::{error_chain, run_guarded};

/// The answer of the application to a push.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The application replies nothing.
    Nothing,
    /// The application replies to a user's message with this XML.
    Reply(String),
    /// The application failed, or its answer is neither of the two. Holds the reason for the log.
    Unusable(String),
}

/// Calls the application's service with a push for `timeout` at most, and returns its answer.
///
/// The call runs in a separate task, so that a panic or a blocked thread harms this push only. On
/// timeout, and when WeChat closes the connection, the task is cancelled.
pub(super) async fn call_application<S, R>(
    mut service: S,
    parts: Parts,
    push: PlatformPush,
    timeout: Duration,
) -> Answer
where
    S: Service<Request<Full<Bytes>>, Response = Response<R>> + Send + 'static,
    S::Future: Send,
    S::Error: Into<Box<dyn StdError + Send + Sync>>,
    R: Body + Send + 'static,
    R::Data: Send,
    R::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    let takes_reply = push.info_type().is_none();
    let request = decrypted_request(parts, push);
    let call = async move {
        if let Err(error) = poll_fn(|context| service.poll_ready(context)).await {
            return Answer::Unusable(error_chain(&*error.into()));
        }
        match service.call(request).await.map_err(Into::into) {
            Ok(response) => read_answer(response, takes_reply).await,
            Err(error) => Answer::Unusable(error_chain(&*error)),
        }
    };
    run_guarded("service of the application", timeout, call)
        .await
        .unwrap_or_else(Answer::Unusable)
}

/// Returns the request for the application: the request of WeChat with the decrypted XML as its body.
fn decrypted_request(mut parts: Parts, push: PlatformPush) -> Request<Full<Bytes>> {
    let body = push.body();
    parts.headers.remove(TRANSFER_ENCODING);
    parts.headers.remove(CONTENT_ENCODING);
    let xml = HeaderValue::from_static("application/xml; charset=utf-8");
    parts.headers.insert(CONTENT_TYPE, xml);
    parts
        .headers
        .insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    parts.extensions.insert(push);
    Request::from_parts(parts, Full::new(body))
}

/// Reads the answer of the application.
async fn read_answer<R>(response: Response<R>, takes_reply: bool) -> Answer
where
    R: Body,
    R::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    let status = response.status();
    if !status.is_success() {
        return Answer::Unusable(format!("it answered with status {}", status.as_u16()));
    }
    let body = match read_body(response.into_body()).await {
        Ok(body) => body,
        Err(BodyError::TooLarge) => return unusable("its answer is longer than 64 KiB"),
        Err(BodyError::Broken) => return unusable("the body of its answer broke off"),
    };
    let Ok(text) = std::str::from_utf8(&body) else {
        return unusable("its answer is not UTF-8");
    };
    match text.trim_ascii() {
        "" | "success" => Answer::Nothing,
        _ if !takes_reply => unusable("it answered an event of the platform with a reply"),
        xml if xml::parse(xml).is_ok() => Answer::Reply(xml.to_owned()),
        _ => unusable("its answer is neither empty nor `success` nor the XML of a reply"),
    }
}

fn unusable(reason: &str) -> Answer {
    Answer::Unusable(reason.to_owned())
}
