//! What the center answers.

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use http_body_util::Full;
use serde::Serialize;
use serde_json::json;

use crate::accounts::AccountToken;
use crate::error::{Error, ErrorKind};
use crate::tickets::JsapiTicket;

pub(super) type Answer = Response<Full<Bytes>>;

pub(super) fn token(token: &AccountToken) -> Answer {
    granted(&json!({
        "access_token": token.access_token().expose(),
        "expires_in": token.expires_in().as_secs(),
    }))
}

pub(super) fn ticket(ticket: &JsapiTicket) -> Answer {
    granted(&json!({
        "ticket": ticket.ticket().expose(),
        "expires_in": ticket.expires_in().as_secs(),
    }))
}

pub(super) fn granted(body: &impl Serialize) -> Answer {
    match serde_json::to_vec(body) {
        Ok(body) => answer(StatusCode::OK, body),
        Err(_) => told(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "the answer cannot be written",
        ),
    }
}

pub(super) fn unauthorized() -> Answer {
    let message = "this route needs Authorization: Bearer with a secret that the center accepts";
    let answer = told(StatusCode::UNAUTHORIZED, "unauthorized", message);
    with(answer, WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
}

pub(super) fn not_found() -> Answer {
    let message = "the token center has no such route";
    told(StatusCode::NOT_FOUND, "not_found", message)
}

pub(super) fn method_not_allowed(allowed: &'static str) -> Answer {
    let message = "the route does not take this method";
    let answer = told(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        message,
    );
    with(answer, ALLOW, HeaderValue::from_static(allowed))
}

pub(super) fn bad_request(message: &str) -> Answer {
    told(
        StatusCode::BAD_REQUEST,
        ErrorKind::BadRequest.code(),
        message,
    )
}

/// Whoever asks has proved to be one of us, so the sentence for the operator is told.
pub(super) fn error(error: &Error) -> Answer {
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
    let answer = told(status, code, &error.to_string());
    if status != StatusCode::SERVICE_UNAVAILABLE {
        return answer;
    }
    let wait = error.retry_after().unwrap_or_default();
    let seconds = wait.as_millis().div_ceil(1_000).max(1);
    let seconds = u64::try_from(seconds).unwrap_or(u64::MAX);
    with(answer, RETRY_AFTER, HeaderValue::from(seconds))
}

fn told(status: StatusCode, code: &str, message: &str) -> Answer {
    let body = json!({ "error": code, "message": message });
    answer(status, body.to_string().into_bytes())
}

fn answer(status: StatusCode, body: Vec<u8>) -> Answer {
    let mut answer = Response::new(Full::from(Bytes::from(body)));
    *answer.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    let answer = with(answer, CONTENT_TYPE, json);
    with(answer, CACHE_CONTROL, HeaderValue::from_static("no-store"))
}

fn with(mut answer: Answer, name: HeaderName, value: HeaderValue) -> Answer {
    answer.headers_mut().insert(name, value);
    answer
}
