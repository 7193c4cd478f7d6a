//! The HTTP responses of the token center.

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

/// Returns the response with the account's token.
pub(super) fn token(token: &AccountToken) -> CenterResponse {
    ok(&json!({
        "access_token": token.access_token().expose(),
        "expires_in": token.expires_in().as_secs(),
    }))
}

/// Returns the response with the account's ticket.
pub(super) fn ticket(ticket: &JsapiTicket) -> CenterResponse {
    ok(&json!({
        "ticket": ticket.ticket().expose(),
        "expires_in": ticket.expires_in().as_secs(),
    }))
}

/// Returns a response of status 200 with `body` as JSON.
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
    let response = error_response(StatusCode::UNAUTHORIZED, "unauthorized", message);
    with_header(
        response,
        WWW_AUTHENTICATE,
        HeaderValue::from_static("Bearer"),
    )
}

pub(super) fn not_found() -> CenterResponse {
    let message = "the token center has no such route";
    error_response(StatusCode::NOT_FOUND, "not_found", message)
}

pub(super) fn method_not_allowed(allowed: &'static str) -> CenterResponse {
    let message = "the route does not take this method";
    let status = StatusCode::METHOD_NOT_ALLOWED;
    let response = error_response(status, "method_not_allowed", message);
    with_header(response, ALLOW, HeaderValue::from_static(allowed))
}

pub(super) fn bad_request(message: &str) -> CenterResponse {
    error_response(
        StatusCode::BAD_REQUEST,
        ErrorKind::BadRequest.code(),
        message,
    )
}

/// Returns the response for an error. The response contains the error's text for operators, because
/// the client has an accepted bearer secret.
///
/// The code is `bad_request`, `store_unavailable` or `wechat_config`, or `wechat_unavailable` for
/// every other kind of error.
pub(super) fn error(error: &Error) -> CenterResponse {
    let kind = match error.kind() {
        ErrorKind::BadRequest => return bad_request(&error.to_string()),
        ErrorKind::StoreUnavailable => ErrorKind::StoreUnavailable,
        ErrorKind::WechatConfig => ErrorKind::WechatConfig,
        ErrorKind::WechatUnavailable
        | ErrorKind::LoginRequired
        | ErrorKind::TokenRefused
        | ErrorKind::WechatRefused
        | ErrorKind::InvalidState
        | ErrorKind::LoginDenied
        | ErrorKind::UnknownAccount
        | ErrorKind::AccountsUnavailable
        | ErrorKind::PlatformStarting
        | ErrorKind::AccountNotAuthorized
        | ErrorKind::Configuration
        | ErrorKind::Application => ErrorKind::WechatUnavailable,
    };
    let status = StatusCode::SERVICE_UNAVAILABLE;
    let response = error_response(status, kind.code(), &error.to_string());
    // `Retry-After` is at least one second, so that clients do not retry at once.
    let wait = error.retry_after().unwrap_or_default();
    let seconds = retry_after_seconds(wait).max(1);
    with_header(response, RETRY_AFTER, HeaderValue::from(seconds))
}

fn error_response(status: StatusCode, code: &str, message: &str) -> CenterResponse {
    let body = json!({ "error": code, "message": message });
    json_response(status, body.to_string().into_bytes())
}

fn json_response(status: StatusCode, body: Vec<u8>) -> CenterResponse {
    let mut response = Response::new(Full::from(Bytes::from(body)));
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    let response = with_header(response, CONTENT_TYPE, json);
    with_header(
        response,
        CACHE_CONTROL,
        HeaderValue::from_static("no-store"),
    )
}

fn with_header(
    mut response: CenterResponse,
    name: HeaderName,
    value: HeaderValue,
) -> CenterResponse {
    response.headers_mut().insert(name, value);
    response
}
