//! Values and helpers that the entry points share. The values are constant, so that a finding can
//! be reproduced.

use std::sync::LazyLock;

use http::{HeaderMap, HeaderName, HeaderValue, Request};

use crate::clock::Timestamp;
use crate::credential::AppId;
use crate::identity::{CookieKeys, Identify, Identity, RequestHead};

/// The time that every entry point uses as the present: 14 November 2023.
pub(super) const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

#[allow(clippy::expect_used)]
static FIXED_KEYS: LazyLock<(AppId, CookieKeys)> = LazyLock::new(|| {
    let key =
        "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWZnaGlqa2xtbm9wcXJzdHV2d3h5ejAxMjM0NTY3ODkrLw==";
    let keys = CookieKeys::from_base64(key).expect("64 bytes");
    (AppId::new("wx0123456789abcdef").expect("an AppID"), keys)
});

/// Returns the AppID and the cookie keys that all entry points use.
pub(super) fn fixed_keys() -> &'static (AppId, CookieKeys) {
    &FIXED_KEYS
}

/// Returns another account, for which the entry points never sign anything. A fuzzer that traces
/// comparisons learns every value that its own entry point signs, and would submit it as a forgery.
#[allow(clippy::expect_used)]
pub(super) fn other_app_id() -> AppId {
    AppId::new("wxfedcba9876543210").expect("an AppID")
}

/// Returns headers with this one header, or empty headers if the bytes are not a valid header
/// value.
pub(super) fn header_map(name: HeaderName, value: &[u8]) -> HeaderMap {
    let value = HeaderValue::from_bytes(value).ok();
    value.map(|value| (name, value)).into_iter().collect()
}

/// Alters bytes of a value that this crate has signed. Each pair of bytes of `changes` is a
/// position and an XOR mask. Returns `None` if the result equals the original.
pub(super) fn alter(original: &str, changes: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = original.as_bytes().to_vec();
    for change in changes.chunks_exact(2) {
        let at = usize::from(change[0]) % bytes.len();
        bytes[at] ^= change[1];
    }
    (bytes != original.as_bytes()).then_some(bytes)
}

/// Returns the id of the user that `identify` finds in a request with these headers, or `None` if
/// it finds no valid user.
pub(super) fn identified_user(identify: &impl Identify, headers: HeaderMap) -> Option<String> {
    let mut request = Request::new(());
    *request.headers_mut() = headers;
    match identify.identify(&RequestHead::from_request(&request)) {
        Identity::User(user) => Some(user.id.into_owned()),
        Identity::Anonymous | Identity::Invalid(_) => None,
    }
}
