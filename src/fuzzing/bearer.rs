//! Fuzzing of the bearer secret with which clients authenticate to the token center.

use http::header::AUTHORIZATION;

use super::fixtures::{NOW, header_map};
use crate::center::BearerSecrets;
use crate::credential::BearerSecret;

const SECRET: &str = "0f-the-center-0123456789-abcdefghijkl";

/// Checks that the token center accepts no `Authorization` header that does not end in its secret.
pub fn bearer(data: &[u8]) {
    let headers = header_map(AUTHORIZATION, data);
    let Ok(bearers) = BearerSecrets::new([BearerSecret::from(SECRET)].into_iter()) else {
        return;
    };
    if bearers.authenticate(&headers, NOW).is_ok() {
        // The syntax of headers allows blanks around a value, so blanks at the end are ignored.
        assert!(data.trim_ascii().ends_with(SECRET.as_bytes()), "{data:?}");
    }
}
