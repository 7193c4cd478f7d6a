//! Fuzzing of the header in which a gateway names the user.

use http::HeaderName;

use super::fixtures::{header_map, identified_user};
use crate::credential::UserId;
use crate::identity::TrustedHeader;

/// Checks that every value that the trusted header accepts is a valid user id.
pub fn user_header(data: &[u8]) {
    let Ok(header) = TrustedHeader::new("x-user-id") else {
        return;
    };
    let named = identified_user(
        &header,
        header_map(HeaderName::from_static("x-user-id"), data),
    );
    if let Some(id) = named {
        assert!(UserId::new(id.as_str()).is_ok());
        assert!((1..=256).contains(&id.len()) && !id.chars().any(char::is_control));
    }
}
