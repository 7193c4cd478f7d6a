//! The HTTP responses to pushes.

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::Full;

use super::refusal::PushRefusal;

/// The response to a push. Every response has a short body, which is in memory.
pub(super) type PushResponse = Response<Full<Bytes>>;

/// Returns the response that WeChat expects for a push without a reply. WeChat repeats a ticket that
/// gets any other body.
pub(super) fn success() -> PushResponse {
    plain(StatusCode::OK, "success")
}

/// Returns the response to a user's message with an encrypted reply.
pub(super) fn reply(envelope: String) -> PushResponse {
    let xml = HeaderValue::from_static("application/xml; charset=utf-8");
    with_type(StatusCode::OK, envelope.into(), xml)
}

/// Returns the response to a request that is not a genuine push.
pub(super) fn refusal(refusal: PushRefusal) -> PushResponse {
    let mut response = plain(refusal.status(), refusal.reason());
    if refusal == PushRefusal::Method {
        let allowed = HeaderValue::from_static("POST");
        response.headers_mut().insert(ALLOW, allowed);
    }
    response
}

/// Returns the response to a genuine push that could not be stored. WeChat repeats the push.
pub(super) fn unavailable() -> PushResponse {
    plain(
        StatusCode::SERVICE_UNAVAILABLE,
        "the push could not be stored: send it again",
    )
}

fn plain(status: StatusCode, text: &'static str) -> PushResponse {
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    with_type(status, Bytes::from_static(text.as_bytes()), plain)
}

fn with_type(status: StatusCode, body: Bytes, content_type: HeaderValue) -> PushResponse {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}
