//! Cookies of sessions on responses: the decision whether a response may contain the cookie of a renewed
//! session, and the cookie that ends a session.
//!
//! A shared cache must never store a renewed session, because it would sign in every client that receives
//! the cached response. The cookie is therefore added only if no shared cache may reuse the response, by
//! the application's headers (RFC 9111).
//!
//! A response with the cookie also says `private` or `no-store`. Without any directive, caches may
//! store a response by its `Last-Modified` and its status (§4.2.2). They also store responses that
//! are stale at once, and revalidate them later.

use std::time::SystemTime;

use http::header::{CACHE_CONTROL, DATE, EXPIRES, SET_COOKIE};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};

/// Header that nginx follows instead of `Cache-Control`.
const X_ACCEL_EXPIRES: &str = "x-accel-expires";

/// Adds the cookie of a renewed session to a response, unless a shared cache may store the response.
///
/// 1. A cookie of the same name that the application sets is kept as it is.
/// 2. A response that a shared cache may reuse is left as it is. A later response renews the session.
/// 3. Otherwise the response becomes `private` for all caches, and then receives the cookie.
pub(super) fn add_session_cookie<B>(response: &mut Response<B>, cookie: HeaderValue) {
    let (status, headers) = (response.status(), response.headers_mut());
    if sets_same_cookie(headers, &cookie) {
        return;
    }
    let directives = CacheDirectives::parse(headers.get_all(CACHE_CONTROL));
    // A cache adds the headers of a 304 to the stored response that the 304 confirms.
    let shareable = status == StatusCode::NOT_MODIFIED
        || directives.may_be_shared(|| expires_in_future(headers));
    let targeted = targeted_cache_controls(headers);
    let shareable_at_gateway = targeted.iter().any(|name| match name.as_str() {
        X_ACCEL_EXPIRES => headers.get_all(name).iter().any(|value| value != "0"),
        _ => CacheDirectives::parse(headers.get_all(name)).may_be_shared(|| false),
    });
    if (shareable && !directives.is_private()) || shareable_at_gateway {
        return;
    }
    if !directives.is_private() {
        headers.append(CACHE_CONTROL, HeaderValue::from_static("private"));
    }
    for name in targeted
        .iter()
        .filter(|name| name.as_str() != X_ACCEL_EXPIRES)
    {
        if !CacheDirectives::parse(headers.get_all(name)).is_private() {
            headers.append(name, HeaderValue::from_static("no-store"));
        }
    }
    headers.append(SET_COOKIE, cookie);
}

/// Adds the cookie that ends a session to a response, in place of other cookies with its name. No
/// cache may store the response, because it would log out every client that receives it.
pub(super) fn add_removal_cookie<B>(response: &mut Response<B>, cookie: HeaderValue) {
    let headers = response.headers_mut();
    let set = headers.get_all(SET_COOKIE).iter();
    let others: Vec<HeaderValue> = set
        .filter(|set| cookie_name(set) != cookie_name(&cookie))
        .cloned()
        .collect();
    headers.remove(SET_COOKIE);
    for cookie in others.into_iter().chain([cookie]) {
        headers.append(SET_COOKIE, cookie);
    }
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    for name in targeted_cache_controls(headers) {
        headers.remove(name);
    }
}

/// Returns `true` if the application sets a cookie with the name of `cookie`, because the
/// application signs a user in or out.
fn sets_same_cookie(headers: &HeaderMap, cookie: &HeaderValue) -> bool {
    let mut set = headers.get_all(SET_COOKIE).iter();
    set.any(|set| cookie_name(set) == cookie_name(cookie))
}

/// Returns the name in a `Set-Cookie` header.
fn cookie_name(cookie: &HeaderValue) -> Option<&[u8]> {
    let end = cookie.as_bytes().iter().position(|byte| *byte == b'=')?;
    Some(&cookie.as_bytes()[..end])
}

/// Returns the names of the response's headers that CDNs and gateways follow instead of
/// `Cache-Control`.
fn targeted_cache_controls(headers: &HeaderMap) -> Vec<HeaderName> {
    let names = headers.keys();
    names
        .filter(|&name| is_targeted_cache_control(name))
        .cloned()
        .collect()
}

/// Returns `true` for a header that CDNs and gateways follow instead of `Cache-Control`. The
/// function recognizes the headers of RFC 9213, which may begin with the name of a CDN, and older
/// headers.
fn is_targeted_cache_control(name: &HeaderName) -> bool {
    let name = name.as_str();
    name.ends_with("cdn-cache-control")
        || matches!(name, "surrogate-control" | "edge-control" | X_ACCEL_EXPIRES)
}

/// Returns `true` if `Expires` is later than `Date`, or than the present time without `Date`.
fn expires_in_future(headers: &HeaderMap) -> bool {
    let date = |value: &HeaderValue| httpdate::parse_http_date(value.to_str().ok()?).ok();
    let sent = headers.get(DATE).and_then(date);
    let sent = sent.unwrap_or_else(SystemTime::now);
    // An invalid date, such as `0`, means the past (RFC 9111 §5.3).
    let mut expires = headers.get_all(EXPIRES).iter().filter_map(date);
    expires.any(|at| at > sent)
}

/// The directives of a `Cache-Control` header, or of a header with the same syntax.
#[derive(Debug, Default)]
struct CacheDirectives {
    private: bool,
    no_store: bool,
    /// `true` with `must-understand`. A cache that understands the status may then ignore
    /// `no-store` (RFC 9111 §5.2.2.3).
    must_understand: bool,
    no_cache: bool,
    public: bool,
    /// `Some(true)` if `s-maxage` is above zero seconds. `None` without the directive.
    s_maxage: Option<bool>,
    /// `Some(true)` if `max-age` is above zero seconds. `None` without the directive. Shared caches
    /// prefer `s-maxage`.
    max_age: Option<bool>,
    /// `true` if a cache may serve the response after it has become stale (`stale-while-revalidate`
    /// or `stale-if-error`).
    may_serve_stale: bool,
}

impl CacheDirectives {
    fn parse<'a>(values: impl IntoIterator<Item = &'a HeaderValue>) -> Self {
        let mut directives = Self::default();
        for value in values {
            let value = String::from_utf8_lossy(value.as_bytes()).to_ascii_lowercase();
            for directive in split_directives(&value) {
                directives.apply(directive);
            }
        }
        directives
    }

    fn apply(&mut self, directive: &str) {
        let (name, value) = match directive.split_once('=') {
            Some((name, value)) => (name.trim(), Some(value.trim())),
            None => (directive, None),
        };
        let positive = value.is_some_and(is_positive_seconds);
        // With a list of header names, `private` and `no-cache` apply to those headers only.
        match (name, value) {
            ("private", None) => self.private = true,
            ("no-cache", None) => self.no_cache = true,
            ("no-store", _) => self.no_store = true,
            ("must-understand", _) => self.must_understand = true,
            ("public", _) => self.public = true,
            // Of several values of a directive the longest time counts, because caches differ in
            // the value that they use.
            ("s-maxage", _) => self.s_maxage = Some(positive || self.s_maxage == Some(true)),
            ("max-age", _) => self.max_age = Some(positive || self.max_age == Some(true)),
            ("stale-while-revalidate" | "stale-if-error", _) => self.may_serve_stale |= positive,
            _ => {}
        }
    }

    /// Returns `true` if the directives forbid every shared cache to store the response.
    fn is_private(&self) -> bool {
        self.private || (self.no_store && !self.must_understand)
    }

    /// Returns `true` if a shared cache may serve the response to other clients. Without a directive that
    /// decides, returns what `expires_later` returns.
    fn may_be_shared(&self, expires_later: impl FnOnce() -> bool) -> bool {
        if self.is_private() {
            return false;
        }
        if self.public || self.may_serve_stale || self.s_maxage == Some(true) {
            return true;
        }
        if self.no_cache || self.s_maxage.is_some() {
            return false;
        }
        self.max_age.unwrap_or_else(expires_later)
    }
}

/// Returns `true` for a number of seconds above zero, with or without quotes.
fn is_positive_seconds(seconds: &str) -> bool {
    let digits = seconds.trim_matches('"').bytes();
    digits
        .take_while(u8::is_ascii_digit)
        .any(|digit| digit != b'0')
}

/// Returns the directives of a header's value. Commas within quotes do not separate directives.
fn split_directives(value: &str) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    value
        .split(move |letter| {
            quoted ^= letter == '"';
            letter == ',' && !quoted
        })
        .map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    const COOKIE: &str = "__Host-wechat_session=oUser.x; Path=/";

    /// Returns the `Cache-Control` of a response with these header lines after a session cookie was added,
    /// or `None` if no cookie was added.
    fn cache_control_with_session(status: u16, lines: &[&str]) -> Option<String> {
        let mut response = Response::builder().status(status);
        for line in lines {
            let (name, value) = line.split_once(": ").unwrap();
            response = response.header(name, value);
        }
        let mut response = response.body(()).unwrap();
        add_session_cookie(&mut response, HeaderValue::from_static(COOKIE));
        let text = |value: &HeaderValue| value.to_str().unwrap().to_owned();
        let values = response.headers().get_all(CACHE_CONTROL).iter().map(text);
        let values = values.collect::<Vec<_>>().join(", ");
        response
            .headers()
            .contains_key(SET_COOKIE)
            .then_some(values)
    }

    #[test]
    fn session_cookie_is_added_to_private_responses() {
        for (lines, expected) in [
            (&[][..], "private"),
            (&["last-modified: Thu, 01 Jan 2015 00:00:00 GMT"], "private"),
            (&["etag: \"x\"", "pragma: no-cache"], "private"),
            (&["vary: cookie"], "private"),
            (&["cache-control: private"], "private"),
            (
                &["cache-control: private, max-age=600"],
                "private, max-age=600",
            ),
            (&["cache-control: no-store"], "no-store"),
            (
                &["cache-control: NO-STORE, max-age=60"],
                "NO-STORE, max-age=60",
            ),
            (&["cache-control: max-age=0"], "max-age=0, private"),
            (&["cache-control: max-age=\"0\""], "max-age=\"0\", private"),
            (&["cache-control: max-age=-1"], "max-age=-1, private"),
            (&["cache-control: no-cache"], "no-cache, private"),
            (
                &["cache-control: no-cache, max-age=60"],
                "no-cache, max-age=60, private",
            ),
            (
                &["cache-control: max-age=60, s-maxage=0"],
                "max-age=60, s-maxage=0, private",
            ),
            (
                &["cache-control: must-revalidate"],
                "must-revalidate, private",
            ),
            (
                &["cache-control: x=\"public, max-age=60\""],
                "x=\"public, max-age=60\", private",
            ),
            (&["expires: 0"], "private"),
            (&["expires: -1"], "private"),
            (&["expires: Thu, 01 Jan 1970 00:00:00 GMT"], "private"),
            (
                &[
                    "date: Fri, 02 Jan 2099 00:00:00 GMT",
                    "expires: Fri, 02 Jan 2099 00:00:00 GMT",
                ],
                "private",
            ),
            (
                &[
                    "cache-control: max-age=0",
                    "expires: Fri, 02 Jan 2099 00:00:00 GMT",
                ],
                "max-age=0, private",
            ),
            (
                &["cache-control: private", "cdn-cache-control: no-store"],
                "private",
            ),
            (&["surrogate-control: max-age=0"], "private"),
            (&["x-accel-expires: 0"], "private"),
        ] {
            assert_eq!(
                cache_control_with_session(200, lines).as_deref(),
                Some(expected),
                "{lines:?}"
            );
        }
        for status in [204, 302, 404, 500] {
            assert_eq!(
                cache_control_with_session(status, &[]).as_deref(),
                Some("private")
            );
        }
        let private = cache_control_with_session(304, &["cache-control: private"]);
        assert_eq!(private.as_deref(), Some("private"));
    }

    #[test]
    fn session_cookie_is_withheld_from_shareable_responses() {
        for lines in [
            &["cache-control: public"][..],
            &["cache-control: public, max-age=0"],
            &["cache-control: max-age=60"],
            &["cache-control: MAX-AGE=\"60\""],
            &["cache-control: max-age=0", "cache-control: max-age=60"],
            &["cache-control: s-maxage=60, max-age=0"],
            &["cache-control: no-cache, s-maxage=60"],
            &["cache-control: max-age=0, stale-while-revalidate=60"],
            &["cache-control: max-age=0, stale-if-error=60"],
            &["cache-control: no-store, must-understand, max-age=60"],
            &["cache-control: private=\"x-user\", max-age=60"],
            &["cache-control: no-cache=\"x-user\", max-age=60"],
            &["expires: Fri, 02 Jan 2099 00:00:00 GMT"],
            &[
                "date: Thu, 01 Jan 2015 00:00:00 GMT",
                "expires: Fri, 02 Jan 2015 00:00:00 GMT",
            ],
            &["cache-control: private", "cdn-cache-control: max-age=60"],
            &["cache-control: no-store", "surrogate-control: max-age=60"],
            &[
                "cache-control: private",
                "cloudflare-cdn-cache-control: public",
            ],
            &["cache-control: private", "edge-control: max-age=60"],
            &["cache-control: private", "x-accel-expires: 60"],
            &["x-accel-expires: @1900000000"],
        ] {
            assert_eq!(cache_control_with_session(200, lines), None, "{lines:?}");
        }
        for lines in [&[][..], &["etag: \"x\""], &["cache-control: max-age=0"]] {
            assert_eq!(cache_control_with_session(304, lines), None, "{lines:?}");
        }
    }

    #[test]
    fn session_cookie_of_the_application_is_kept() {
        let logout_cookie = "set-cookie: __Host-wechat_session=; Path=/; Max-Age=0";
        assert_eq!(
            cache_control_with_session(200, &[logout_cookie]).as_deref(),
            Some("")
        );
    }

    #[test]
    fn targeted_cache_headers_get_no_store() {
        let mut response = Response::new(());
        let headers = response.headers_mut();
        headers.insert("cdn-cache-control", HeaderValue::from_static("max-age=0"));
        add_session_cookie(&mut response, HeaderValue::from_static(COOKIE));
        let values = response.headers().get_all("cdn-cache-control");
        let values: Vec<_> = values.iter().collect();
        assert_eq!(values, ["max-age=0", "no-store"]);
    }
}
