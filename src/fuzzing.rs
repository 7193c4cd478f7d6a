//! Where fuzzers come in: everything that others send, as bytes, and what must hold of it.
//!
//! Compiled for `cargo fuzz` (`--cfg fuzzing`) and for this crate's own tests, which replay the
//! corpora and run a bounded number of mutations on the stable toolchain. No part of the API.

use std::sync::LazyLock;
#[cfg(feature = "redis")]
use std::time::Duration;

use http::header::{AUTHORIZATION, COOKIE};
use http::{HeaderMap, HeaderName, HeaderValue, Request};

use crate::clock::Timestamp;
use crate::credential::{AppId, UserId};
use crate::identity::{CookieKeys, Identify, Identity, RequestHead, SessionCookie, TrustedHeader};

/// One entry: its name, which is that of its corpus, and what takes the bytes.
pub type Target = (&'static str, fn(&[u8]));

/// All entries.
pub const TARGETS: &[Target] = &[
    ("bearer", bearer),
    ("login", login),
    #[cfg(feature = "redis")]
    ("redis_value", redis_value),
    ("session", session),
    ("user_header", user_header),
    ("wechat_reply", wechat_reply),
];

/// An instant of no meaning.
pub(crate) const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

/// Keys that are always the same, so that a finding can be run again.
#[allow(clippy::expect_used)]
static KEYS: LazyLock<(AppId, CookieKeys)> = LazyLock::new(|| {
    let key =
        "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWZnaGlqa2xtbm9wcXJzdHV2d3h5ejAxMjM0NTY3ODkrLw==";
    let keys = CookieKeys::from_base64(key).expect("64 bytes");
    (AppId::new("wx0123456789abcdef").expect("an AppID"), keys)
});

pub(crate) fn keys() -> &'static (AppId, CookieKeys) {
    &KEYS
}

/// Another account, whose keys never make anything: a fuzzer that watches comparisons learns what
/// its own entry makes, and would hand that in as a forgery.
#[allow(clippy::expect_used)]
pub(crate) fn untouched() -> AppId {
    AppId::new("wxfedcba9876543210").expect("an AppID")
}

/// Headers of which one is what the fuzzer says, if a header can be that.
pub(crate) fn headers(name: HeaderName, value: &[u8]) -> HeaderMap {
    let value = HeaderValue::from_bytes(value).ok();
    value.map(|value| (name, value)).into_iter().collect()
}

/// Something of ours with a few bytes changed: where, and by what. `None` if nothing was.
pub(crate) fn altered(ours: &str, changes: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = ours.as_bytes().to_vec();
    for change in changes.chunks_exact(2) {
        let at = usize::from(change[0]) % bytes.len();
        bytes[at] ^= change[1];
    }
    (bytes != ours.as_bytes()).then_some(bytes)
}

fn identity(identify: &impl Identify, headers: HeaderMap) -> Option<String> {
    let mut request = Request::new(());
    *request.headers_mut() = headers;
    match identify.identify(&RequestHead::of(&request)) {
        Identity::User(user) => Some(user.id.into_owned()),
        Identity::Nobody | Identity::Invalid(_) => None,
    }
}

/// The session cookie: nobody comes in with one that we have not made.
pub fn session(data: &[u8]) {
    let (app, keys) = &*KEYS;
    let session = SessionCookie::new(&untouched(), keys);
    let forged = [b"__Host-wechat_session=", data].concat();
    assert_eq!(identity(&session, headers(COOKIE, &forged)), None);
    assert_eq!(identity(&session, headers(COOKIE, data)), None);
    let session = SessionCookie::new(app, keys);
    let Ok(user) = UserId::new("oUser-0000") else {
        return;
    };
    let issued = session.issue(&user);
    let ours = issued.to_str().ok().and_then(|all| all.split(';').next());
    let ours = ours.unwrap_or_default();
    assert!(identity(&session, headers(COOKIE, ours.as_bytes())).is_some());
    if let Some(altered) = altered(ours, data)
        // A semicolon or a blank at the end leaves the value as it was.
        && !altered.starts_with(ours.as_bytes())
    {
        assert_eq!(identity(&session, headers(COOKIE, &altered)), None);
    }
}

/// The header of a gateway: whoever it names could be a user.
pub fn user_header(data: &[u8]) {
    let Ok(header) = TrustedHeader::new("x-user-id") else {
        return;
    };
    let named = identity(&header, headers(HeaderName::from_static("x-user-id"), data));
    if let Some(id) = named {
        assert!(UserId::new(id.as_str()).is_ok());
        assert!((1..=256).contains(&id.len()) && !id.chars().any(char::is_control));
    }
}

/// State, cookies, callback and return path of a login.
pub fn login(data: &[u8]) {
    crate::login::fuzz(data);
}

/// The bearer of the token center.
pub fn bearer(data: &[u8]) {
    crate::center::fuzz_bearer(&headers(AUTHORIZATION, data));
}

/// What WeChat, or whoever stands in its way, answers.
pub fn wechat_reply(data: &[u8]) {
    crate::wechat::fuzz_reply(data);
}

/// What lies in Redis, whoever wrote it: what can be read, can be written and read again.
#[cfg(feature = "redis")]
pub fn redis_value(data: &[u8]) {
    use crate::credential::{foreign_form, hash_form, record_form, sealed_form};
    let margin = Duration::from_secs(900);
    let token = |value: &[u8]| {
        let read = hash_form::read_token(value, margin).ok();
        read.map(|token| token.to_token())
    };
    if let Some(read) = token(data)
        && let Ok(written) = hash_form::write_token(&read, margin)
    {
        assert_eq!(token(written.as_bytes()), Some(read), "{written}");
    }
    let refresh = |value: &[u8]| {
        let read = hash_form::read_refresh(value, "oUser").ok();
        read.map(|(refresh, details)| (refresh.to_refresh(), details.to_details()))
    };
    if let Some(read) = refresh(data)
        && let Ok(written) = hash_form::write_refresh(&read.0, &read.1, "oUser")
    {
        assert_eq!(refresh(written.as_bytes()), Some(read), "{written}");
    }
    let record = |value: &[u8]| {
        let read = record_form::read(value, "oUser").ok();
        read.map(|record| record.to_record())
    };
    if let Some(read) = record(data)
        && let Ok(written) = record_form::write(&read, "oUser")
    {
        assert_eq!(record(written.as_bytes()), Some(read), "{written}");
    }
    use foreign_form::ForeignForm::{JsonObject, JsonString, Php, Raw, Text};
    for form in [Raw, JsonString, Text, JsonObject, Php] {
        if let Ok(token) = foreign_form::read_token(data, form) {
            let token = token.expose();
            assert!(!token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic()));
        }
    }
    let _ = foreign_form::read_seconds(data);
    let _ = sealed_form::split(data);
    #[cfg(feature = "sealing")]
    let _ = sealed_form::body(data);
}

#[cfg(test)]
mod tests;
