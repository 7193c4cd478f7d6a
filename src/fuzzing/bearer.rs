//! The bearer secret of the token center.

use http::header::AUTHORIZATION;

use super::fixtures::{NOW, headers};
use crate::center::Bearers;
use crate::credential::BearerSecret;

const SECRET: &str = "0f-the-center-0123456789-abcdefghijkl";

/// Accepts no bearer but the secret.
pub fn bearer(data: &[u8]) {
    let headers = headers(AUTHORIZATION, data);
    let Ok(bearers) = Bearers::new([BearerSecret::from(SECRET)].into_iter()) else {
        return;
    };
    if bearers.admit(&headers, NOW).is_ok() {
        // Blanks around the value belong to the header.
        assert!(data.trim_ascii().ends_with(SECRET.as_bytes()), "{data:?}");
    }
}
