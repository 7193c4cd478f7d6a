//! Two parts of the published algorithm: the header with the user's id, and the stored form of a
//! token.

use axum::http::request::Parts;

use crate::machine::now_ms;
use crate::population::USER_HEADER;

/// Returns the token and its renewal time from a stored `TOKEN#MS`, or `None` if the renewal time
/// has passed.
pub(super) fn parse_if_fresh(value: &str) -> Option<(&str, u64)> {
    let mut parts = value.split('#');
    let token = parts.next()?;
    let until: u64 = parts.next()?.parse().ok()?;
    (now_ms() < until).then_some((token, until))
}

/// Returns the user's id that a gateway sent in the header `x-user-id`.
pub(super) fn user_header(parts: &Parts) -> Option<&str> {
    parts.headers.get(USER_HEADER)?.to_str().ok()
}
