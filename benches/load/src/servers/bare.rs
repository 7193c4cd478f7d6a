//! axum with a handler and nothing else: the baseline of all ratios.

use axum::Router;
use axum::extract::FromRequestParts;
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::routing::get;

use super::published::user_header;

struct User(String);

impl<S: Sync> FromRequestParts<S> for User {
    type Rejection = StatusCode;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, StatusCode> {
        let id = user_header(parts).ok_or(StatusCode::UNAUTHORIZED)?;
        Ok(Self(id.to_owned()))
    }
}

async fn me(User(id): User) -> String {
    id
}

pub(super) fn app() -> Router {
    Router::new().route("/me", get(me))
}
