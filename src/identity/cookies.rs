//! Cookies of requests, found by name, and `Set-Cookie` headers of responses.

use http::header::COOKIE;
use http::{HeaderMap, HeaderValue};
use memchr::memchr;

/// Maximum length of a session cookie's value: 1,024 bytes. Longer values were not issued by this
/// crate. The login cookies, which may be longer, are read by [`text_after_prefix`].
const MAX_VALUE_BYTES: usize = 1_024;

/// Maximum number of cookies with one name that are read: 1,024. Browsers send several cookies of
/// one name if they were set for different paths or domains. Other hosts of the domain can put
/// their cookies in front of this application's cookie. A header of 64 KiB has no room for more
/// sessions of this crate's length.
const MAX_SAME_NAME: usize = 1_024;

/// Returns the values of the cookies with this name, in the order of the request. Skips values
/// longer than [`MAX_VALUE_BYTES`].
pub(super) fn values_named<'a>(
    headers: &'a HeaderMap,
    name: &str,
) -> impl Iterator<Item = &'a [u8]> {
    bytes_after_prefix(headers, name)
        .filter_map(|rest| rest.strip_prefix(b"="))
        .filter(|value| value.len() <= MAX_VALUE_BYTES)
        .take(MAX_SAME_NAME)
}

/// Finds the cookies whose `NAME=VALUE` starts with `prefix`, and returns the text after the prefix
/// of each. Skips texts that are not UTF-8.
pub(crate) fn text_after_prefix<'a>(
    headers: &'a HeaderMap,
    prefix: &str,
) -> impl Iterator<Item = &'a str> {
    bytes_after_prefix(headers, prefix).filter_map(|rest| std::str::from_utf8(rest).ok())
}

/// Finds the cookies whose `NAME=VALUE` starts with `prefix`, and returns the bytes after the
/// prefix of each.
///
/// The function compares prefixes, because parsing all cookies would cost three times as much.
/// Cookies of other applications may contain any bytes: browsers send the cookies of Chinese pages
/// unencoded.
fn bytes_after_prefix<'a>(headers: &'a HeaderMap, prefix: &str) -> impl Iterator<Item = &'a [u8]> {
    headers
        .get_all(COOKIE)
        .iter()
        .flat_map(|header| split_cookies(header.as_bytes()))
        .filter_map(move |cookie| {
            let rest = cookie.trim_ascii_start().strip_prefix(prefix.as_bytes())?;
            Some(rest.trim_ascii_end())
        })
}

/// Splits a `Cookie` header at its semicolons.
fn split_cookies(header: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut left = Some(header);
    std::iter::from_fn(move || {
        let cookies = left?;
        let end = memchr(b';', cookies);
        left = end.map(|end| &cookies[end + 1..]);
        Some(&cookies[..end.unwrap_or(cookies.len())])
    })
}

/// Returns a `Set-Cookie` header for `cookie`, which is `NAME=VALUE`. The browser keeps the cookie
/// for `max_age_seconds`. Zero removes the cookie. The caller passes ASCII without control
/// characters.
pub(crate) fn set_cookie_header(
    cookie: &str,
    path: &str,
    max_age_seconds: u64,
    secure: bool,
) -> HeaderValue {
    let secure = if secure { "; Secure" } else { "" };
    let text =
        format!("{cookie}; Path={path}; Max-Age={max_age_seconds}; HttpOnly; SameSite=Lax{secure}");
    let mut header = HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static(""));
    header.set_sensitive(true);
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_only_the_named_cookie() {
        let mut headers = HeaderMap::new();
        headers.append(
            COOKIE,
            HeaderValue::from_static("a=1; session=x.y; session_id=2"),
        );
        let other = "b=;nick=\u{5f20}\u{4e09};session=z".as_bytes();
        headers.append(COOKIE, HeaderValue::from_bytes(other).unwrap());
        headers.append(COOKIE, HeaderValue::from_bytes(b"session=\xff").unwrap());
        let found = |name| values_named(&headers, name).collect::<Vec<_>>();
        assert_eq!(found("session"), [&b"x.y"[..], b"z", b"\xff"]);
        assert_eq!(found("none"), [b""; 0]);
        assert_eq!(found("b"), [b""]);
        let text: Vec<_> = text_after_prefix(&headers, "session=").collect();
        assert_eq!(text, ["x.y", "z"]);
    }
}
