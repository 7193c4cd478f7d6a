//! What the center answers.

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use http_body_util::Full;
use serde::Serialize;
use serde_json::json;

use crate::accounts::AccountToken;
use crate::error::{Error, ErrorKind, retry_after_seconds};
use crate::tickets::JsapiTicket;

pub(super) type CenterResponse = Response<Full<Bytes>>;

pub(super) fn token(token: &AccountToken) -> CenterResponse {
    ok(&json!({
        "access_token": token.access_token().expose(),
        "expires_in": token.expires_in().as_secs(),
    }))
}

pub(super) fn ticket(ticket: &JsapiTicket) -> CenterResponse {
    ok(&json!({
        "ticket": ticket.ticket().expose(),
        "expires_in": ticket.expires_in().as_secs(),
    }))
}

pub(super) fn ok(body: &impl Serialize) -> CenterResponse {
    match serde_json::to_vec(body) {
        Ok(body) => json_response(StatusCode::OK, body),
        Err(_) => error_response(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "the answer cannot be written",
        ),
    }
}

pub(super) fn unauthorized() -> CenterResponse {
    let message = "this route needs Authorization: Bearer with a secret that the center accepts";
    let answer = error_response(StatusCode::UNAUTHORIZED, "unauthorized", message);
    with_header(answer, WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
}

pub(super) fn not_found() -> CenterResponse {
    let message = "the token center has no such route";
    error_response(StatusCode::NOT_FOUND, "not_found", message)
}

pub(super) fn method_not_allowed(allowed: &'static str) -> CenterResponse {
    let message = "the route does not take this method";
    let answer = error_response(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        message,
    );
    with_header(answer, ALLOW, HeaderValue::from_static(allowed))
}

pub(super) fn bad_request(message: &str) -> CenterResponse {
    error_response(
        StatusCode::BAD_REQUEST,
        ErrorKind::BadRequest.code(),
        message,
    )
}

/// Whoever asks has proved to be one of us, so the sentence for the operator is told.
pub(super) fn error(error: &Error) -> CenterResponse {
    let (status, code) = match error.kind() {
        ErrorKind::BadRequest => (StatusCode::BAD_REQUEST, error.kind().code()),
        ErrorKind::StoreUnavailable | ErrorKind::WechatConfig => {
            (StatusCode::SERVICE_UNAVAILABLE, error.kind().code())
        }
        _ => {
            let code = ErrorKind::WechatUnavailable.code();
            (StatusCode::SERVICE_UNAVAILABLE, code)
        }
    };
    let answer = error_response(status, code, &error.to_string());
    if status != StatusCode::SERVICE_UNAVAILABLE {
        return answer;
    }
    let wait = error.retry_after().unwrap_or_default();
    let seconds = retry_after_seconds(wait).max(1);
    with_header(answer, RETRY_AFTER, HeaderValue::from(seconds))
}

fn error_response(status: StatusCode, code: &str, message: &str) -> CenterResponse {
    let body = json!({ "error": code, "message": message });
    json_response(status, body.to_string().into_bytes())
}

fn json_response(status: StatusCode, body: Vec<u8>) -> CenterResponse {
    let mut answer = Response::new(Full::from(Bytes::from(body)));
    *answer.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    let answer = with_header(answer, CONTENT_TYPE, json);
    with_header(answer, CACHE_CONTROL, HeaderValue::from_static("no-store"))
}

fn with_header(mut answer: CenterResponse, name: HeaderName, value: HeaderValue) -> CenterResponse {
    answer.headers_mut().insert(name, value);
    answer
}
