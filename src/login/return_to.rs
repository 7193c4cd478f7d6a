//! Where a login may lead: a path of our own origin, and nothing that a browser could read as
//! anything else.

use std::fmt;

/// The longest path, in bytes: it has to fit into a cookie.
const LONGEST: usize = 1_024;

/// A path of our own origin, with its query.
///
/// It starts with one slash, and has neither the backslash that browsers read as a slash, nor the
/// tabs, newlines and spaces that they strip, nor anything beyond visible ASCII. It has no dot
/// segments either: browsers resolve them before they ask, so that `/.//evil.example` would become
/// `//evil.example`, which is another page than the one that was checked here.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct ReturnTo(Box<str>);

impl ReturnTo {
    /// The path, if it cannot lead anywhere else.
    pub(crate) fn new(path: &str) -> Option<Self> {
        let plain = |byte: u8| byte.is_ascii_graphic() && byte != b'\\';
        let ours = path.len() <= LONGEST
            && path.starts_with('/')
            && !path.starts_with("//")
            && path.bytes().all(plain)
            && !without_query(path).split('/').any(is_dot_segment);
        ours.then(|| Self(path.into()))
    }

    /// The start page.
    pub(crate) fn root() -> Self {
        Self("/".into())
    }

    /// Where a request itself was going; its path alone where the query makes it too long.
    pub(crate) fn of_uri(uri: &http::Uri) -> Self {
        let whole = uri.path_and_query().and_then(|all| Self::new(all.as_str()));
        whole
            .or_else(|| Self::new(uri.path()))
            .unwrap_or_else(Self::root)
    }

    /// The path of a `Referer` of our own origin.
    pub(crate) fn of_referer(referer: &str, origin: &str) -> Option<Self> {
        let rest = referer.strip_prefix(origin)?;
        if rest.is_empty() {
            return Some(Self::root());
        }
        Self::new(rest.split('#').next().unwrap_or_default())
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The path without query and fragment.
    pub(crate) fn path(&self) -> &str {
        without_query(&self.0)
    }
}

fn without_query(path: &str) -> &str {
    path.split(['?', '#']).next().unwrap_or_default()
}

/// Whether browsers resolve this segment: `.` and `..`, however they are encoded (WHATWG URL).
fn is_dot_segment(segment: &str) -> bool {
    // At most two dots of three characters each; anything longer is a name.
    segment.len() <= 6
        && matches!(
            &*segment.to_ascii_lowercase().replace("%2e", "."),
            "." | ".."
        )
}

impl fmt::Debug for ReturnTo {
    /// Without the query: applications put secrets there.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReturnTo({:?})", self.path())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use url::Url;

    const PAGE: &str = "https://h5.example.com/wechat/callback?code=1&state=2";

    /// Where a browser goes that is sent there.
    fn followed(path: &ReturnTo) -> Url {
        Url::parse(PAGE).unwrap().join(path.as_str()).unwrap()
    }

    #[test]
    fn every_trick_is_refused() {
        for trick in [
            "",
            "evil",
            "//evil.example",
            "///evil.example",
            "/\\evil.example",
            "\\/evil.example",
            "\\\\evil.example",
            "/\t/evil.example",
            "/\n/evil.example",
            "\t//evil.example",
            " //evil.example",
            "https://evil.example",
            "https:evil.example",
            "javascript:alert(1)",
            "https://h5.example.com@evil.example/",
            "/a\r\nSet-Cookie: x=y",
            "/a b",
            "/中文",
            "/\u{0}",
            "/\u{7f}",
            "//h5.example.com/",
            "?a",
            "#a",
            "@evil.example",
            ".evil.example",
            "/.//evil.example",
            "/..//evil.example",
            "/x/..//evil.example",
            "/x/%2e%2E//evil.example",
            "/x/.%2e/y",
            "/a/.",
            "/a/..?b",
            "/%2e#b",
        ] {
            assert_eq!(ReturnTo::new(trick), None, "{trick:?}");
        }
        assert_eq!(ReturnTo::new(&format!("/{}", "a".repeat(LONGEST))), None);
    }

    #[test]
    fn pages_stay_as_they_are() {
        for page in [
            "/",
            "/a?b=c&d=%2F%2Fe",
            "/a#b",
            "/%0d%0aSet-Cookie:x",
            "/a//b",
            "/@evil.example",
            "/?next=https://evil.example",
            "/a:b",
            "/.well-known/x",
            "/a...b/.../..c",
            "/a?next=/../b",
        ] {
            let page = ReturnTo::new(page).unwrap();
            assert_eq!(followed(&page).origin(), Url::parse(PAGE).unwrap().origin());
        }
    }

    #[test]
    fn a_referer_counts_only_from_our_own_origin() {
        let of = |referer| {
            ReturnTo::of_referer(referer, "https://h5.example.com").map(|path| path.0.into_string())
        };
        assert_eq!(of("https://h5.example.com/a?b#c").as_deref(), Some("/a?b"));
        assert_eq!(of("https://h5.example.com").as_deref(), Some("/"));
        assert_eq!(of("https://h5.example.com.evil.example/a"), None);
        assert_eq!(of("https://h5.example.com@evil.example/a"), None);
        assert_eq!(of("https://h5.example.com:8443/a"), None);
        assert_eq!(of("http://h5.example.com/a"), None);
        assert_eq!(of("https://h5.example.com//evil.example"), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn whatever_is_let_through_stays_on_the_origin(
            path in prop_oneof![
                "\\PC{0,30}",
                "[/\\\\]{0,3}[\t\n\r @:.?#%/\\\\a-zA-Z0-9]{0,20}",
                "/[ -~]{0,40}",
                "(/|/|\\.|%2e|%2E|x|\\?){0,12}",
                any::<String>(),
            ]
        ) {
            if let Some(path) = ReturnTo::new(&path) {
                let url = followed(&path);
                prop_assert_eq!(url.origin(), Url::parse(PAGE).unwrap().origin());
                prop_assert_eq!(url.username(), "");
                prop_assert!(!url.path().starts_with("//"), "{}", url);
                // The page is the one that was checked: nothing in it was resolved.
                let segments = |path: &str| path.split('/').count();
                prop_assert_eq!(segments(url.path()), segments(path.path()), "{}", url);
                prop_assert!(http::HeaderValue::from_str(path.as_str()).is_ok());
            }
        }

        #[test]
        fn whatever_a_referer_says_stays_on_the_origin(rest in "\\PC{0,40}") {
            let origin = "https://h5.example.com";
            if let Some(path) = ReturnTo::of_referer(&format!("{origin}{rest}"), origin) {
                prop_assert_eq!(followed(&path).origin(), Url::parse(PAGE).unwrap().origin());
            }
        }
    }
}
