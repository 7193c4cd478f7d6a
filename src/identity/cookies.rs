//! Finding one cookie among all that a browser sends.

use http::HeaderMap;
use http::header::COOKIE;

/// No cookie of ours is longer; anything that is was not made by us.
const LONGEST: usize = 1_024;

/// How many cookies of one name are looked at: browsers send several when they were set for
/// different paths or domains.
const SAME_NAME: usize = 4;

/// The values of the cookies called `name`, in the order in which the browser sends them.
///
/// Only the named cookie is looked at, by hand: parsing all of them costs three times as much.
pub(super) fn named<'a>(headers: &'a HeaderMap, name: &str) -> impl Iterator<Item = &'a str> {
    headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|header| header.to_str().ok())
        .flat_map(|header| header.split(';'))
        .filter_map(move |cookie| cookie.trim_ascii().strip_prefix(name)?.strip_prefix('='))
        .filter(|value| value.len() <= LONGEST)
        .take(SAME_NAME)
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
        headers.append(COOKIE, HeaderValue::from_static("b=;session=z"));
        headers.append(COOKIE, HeaderValue::from_bytes(b"session=\xff").unwrap());
        assert_eq!(named(&headers, "session").collect::<Vec<_>>(), ["x.y", "z"]);
        assert_eq!(named(&headers, "none").count(), 0);
        assert_eq!(named(&headers, "b").collect::<Vec<_>>(), [""]);
    }
}
