//! The HTTP responses of the authorize pages.

use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, LOCATION, REFERRER_POLICY,
    RETRY_AFTER, VARY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use http_body_util::Full;
use serde_json::json;

use super::failure::AuthorizeFailure;
use crate::error::retry_after_seconds;
use crate::html_page::HtmlPage;

pub(super) type PageResponse = Response<Full<Bytes>>;

/// Returns the response with the links to WeChat. WeChat checks the origin in the referrer of a link, so
/// browsers may send it.
pub(super) fn links(html: String) -> PageResponse {
    let response = with_header(page(StatusCode::OK, html), REFERRER_POLICY, "origin");
    with_header(response, VARY, "user-agent")
}

/// Returns the response after an authorization. Its URL has a code, which no other site may receive.
pub(super) fn result(html: String) -> PageResponse {
    with_header(page(StatusCode::OK, html), REFERRER_POLICY, "no-referrer")
}

/// Returns a redirect to the application's page after an authorization.
pub(super) fn redirect(url: &str) -> PageResponse {
    let mut response = Response::default();
    *response.status_mut() = StatusCode::SEE_OTHER;
    // The URL consists of visible ASCII, so the conversion never fails.
    let url = HeaderValue::try_from(url).unwrap_or_else(|_| HeaderValue::from_static("/"));
    response.headers_mut().insert(LOCATION, url);
    let response = with_header(response, REFERRER_POLICY, "no-referrer");
    with_header(response, CACHE_CONTROL, "no-store")
}

/// Returns the response for a failure: a page if a browser opens one, and JSON otherwise. `retry_after`
/// is the time that the error names.
pub(super) fn failure(
    failure: AuthorizeFailure,
    is_page_load: bool,
    retry_after: Option<Duration>,
) -> PageResponse {
    let mut response = match is_page_load {
        true => page(failure.status(), failure.html()),
        false => {
            let body = json!({ "error": failure.code(), "message": failure.message() });
            with_body(failure.status(), "application/json", body.to_string())
        }
    };
    if let Some(wait) = failure.retry_after(retry_after) {
        // At least one second, so that clients do not retry at once.
        let seconds = HeaderValue::from(retry_after_seconds(wait).max(1));
        response.headers_mut().insert(RETRY_AFTER, seconds);
    }
    with_header(response, REFERRER_POLICY, "no-referrer")
}

pub(super) fn method_not_allowed() -> PageResponse {
    let message = "this page takes GET and HEAD\n".to_owned();
    let response = with_body(
        StatusCode::METHOD_NOT_ALLOWED,
        "text/plain; charset=utf-8",
        message,
    );
    with_header(response, ALLOW, "GET, HEAD")
}

/// Returns a page that no other page may frame.
fn page(status: StatusCode, html: String) -> PageResponse {
    let response = with_body(status, "text/html; charset=utf-8", html);
    let policy = HtmlPage::CONTENT_SECURITY_POLICY;
    let response = with_header(response, CONTENT_SECURITY_POLICY, policy);
    with_header(response, X_FRAME_OPTIONS, "DENY")
}

fn with_body(status: StatusCode, content_type: &'static str, body: String) -> PageResponse {
    let mut response = Response::new(Full::from(Bytes::from(body)));
    *response.status_mut() = status;
    let response = with_header(response, CONTENT_TYPE, content_type);
    let response = with_header(response, X_CONTENT_TYPE_OPTIONS, "nosniff");
    with_header(response, CACHE_CONTROL, "no-store")
}

fn with_header(mut response: PageResponse, name: HeaderName, value: &'static str) -> PageResponse {
    let value = HeaderValue::from_static(value);
    response.headers_mut().insert(name, value);
    response
}
