//! The bodies of control requests, and the error for an invalid one.

use std::fmt::Display;

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::de::DeserializeOwned;
use serde_json::json;

/// The error for an invalid control request: HTTP 400 with a sentence in the field `error`.
#[derive(Debug)]
pub(super) struct ControlError(pub(super) String);

impl<T: Display> From<T> for ControlError {
    fn from(reason: T) -> Self {
        Self(reason.to_string())
    }
}

impl IntoResponse for ControlError {
    fn into_response(self) -> Response {
        let body = Json(json!({ "error": self.0 }));
        (StatusCode::BAD_REQUEST, body).into_response()
    }
}

/// Parses a body as JSON and ignores the content type, because `curl -d` sends the content type of
/// a form.
pub(super) fn parse_json_body<T: DeserializeOwned>(body: &[u8]) -> Result<T, ControlError> {
    serde_json::from_slice(body)
        .map_err(|error| ControlError(format!("the body is not what this route takes: {error}")))
}
