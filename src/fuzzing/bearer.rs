//! The bearer secret of the token center.

use http::header::AUTHORIZATION;

use super::fixtures::{NOW, header_map};
use crate::center::BearerSecrets;
use crate::credential::BearerSecret;

const SECRET: &str = "0f-the-center-0123456789-abcdefghijkl";

/// Checks that the token center accepts no bearer but its secret.
pub fn bearer(data: &[u8]) {
    let headers = header_map(AUTHORIZATION, data);
    let Ok(bearers) = BearerSecrets::new([BearerSecret::from(SECRET)].into_iter()) else {
        return;
    };
    if bearers.authenticate(&headers, NOW).is_ok() {
        // The syntax of headers allows blanks around the value.
        assert!(data.trim_ascii().ends_with(SECRET.as_bytes()), "{data:?}");
    }
}
