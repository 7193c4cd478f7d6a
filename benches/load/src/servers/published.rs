//! The published algorithm: its header, and its stored form of a token.

use axum::http::request::Parts;

use crate::machine::now_ms;
use crate::population::USER_HEADER;

/// Returns the token and its renewal point from a stored `TOKEN#MS`, if the token is fresh.
pub(super) fn parse_if_fresh(value: &str) -> Option<(&str, u64)> {
    let mut parts = value.split('#');
    let token = parts.next()?;
    let until: u64 = parts.next()?.parse().ok()?;
    (now_ms() < until).then_some((token, until))
}

/// Returns the user that a gateway named in the header.
pub(super) fn user_header(parts: &Parts) -> Option<&str> {
    parts.headers.get(USER_HEADER)?.to_str().ok()
}
