//! Finding one cookie among all that a browser sends.

use http::HeaderMap;
use http::header::COOKIE;

/// No cookie of ours is longer; anything that is was not made by us.
const LONGEST: usize = 1_024;

/// How many cookies of one name are looked at: browsers send several when they were set for
/// different paths or domains.
const SAME_NAME: usize = 4;

/// The values of the cookies called `name`, in the order in which the browser sends them.
pub(super) fn named<'a>(headers: &'a HeaderMap, name: &str) -> impl Iterator<Item = &'a str> {
    starting_with(headers, name)
        .filter_map(|rest| rest.strip_prefix('='))
        .filter(|value| value.len() <= LONGEST)
        .take(SAME_NAME)
}

/// What follows `prefix` in the cookies that start with it, name and value alike.
///
/// Only these are looked at, by hand: parsing all of them costs three times as much. Other cookies
/// may hold any bytes, and browsers send those of Chinese pages as they are.
pub(crate) fn starting_with<'a>(
    headers: &'a HeaderMap,
    prefix: &str,
) -> impl Iterator<Item = &'a str> {
    headers
        .get_all(COOKIE)
        .iter()
        .flat_map(|header| header.as_bytes().split(|byte| *byte == b';'))
        .filter_map(move |cookie| {
            let rest = cookie.trim_ascii().strip_prefix(prefix.as_bytes())?;
            std::str::from_utf8(rest).ok()
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn finds_the_named_cookie_only() {
        let mut headers = HeaderMap::new();
        headers.append(
            COOKIE,
            HeaderValue::from_static("a=1; session=x.y; session_id=2"),
        );
        let neighbour = "b=;nick=\u{5f20}\u{4e09};session=z".as_bytes();
        headers.append(COOKIE, HeaderValue::from_bytes(neighbour).unwrap());
        headers.append(COOKIE, HeaderValue::from_bytes(b"session=\xff").unwrap());
        assert_eq!(named(&headers, "session").collect::<Vec<_>>(), ["x.y", "z"]);
        assert_eq!(named(&headers, "none").count(), 0);
        assert_eq!(named(&headers, "b").collect::<Vec<_>>(), [""]);
    }
}
