//! Return pages of logins: paths that lead to the application's own origin in every browser.

use std::borrow::Cow;
use std::fmt;

use super::public_url::PublicUrl;

/// Maximum length of a page: 2,048 bytes of percent-encoded path, query and fragment. The page must
/// fit into a cookie on the way to WeChat, and into a `Location` on the way back. By default, nginx
/// accepts at most 4,096 bytes of headers from an application.
pub(super) const MAX_RETURN_TO_BYTES: usize = 2_048;

/// A path of the application's own origin, with its query: a page to which a login leads.
///
/// A page starts with one slash and consists of visible ASCII.
///
/// - Characters that browsers encode (letters beyond ASCII, blanks, quotation marks) are
///   percent-encoded.
/// - Pages with characters that browsers remove or replace (control characters, the backslash) are
///   rejected.
/// - Pages with dot segments are rejected. Browsers resolve these segments before they send a
///   request, so that `/.//evil.example` would become `//evil.example`, the address of another
///   host.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct ReturnTo(Box<str>);

/// Reason for which a login does not lead to the requested page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReturnToError {
    /// The page is longer than 2,048 bytes ([`MAX_RETURN_TO_BYTES`]).
    TooLong,
    /// The page is no path of the application's own origin, or some browser would leave that
    /// origin.
    Unsafe,
}

impl ReturnToError {
    /// Returns the reason for log lines: why the requested page is not used.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::TooLong => "it is longer than 2,048 bytes",
            Self::Unsafe => "it is no path of our own origin",
        }
    }
}

impl ReturnTo {
    /// Parses a path of the application, or a URL with the application's origin in front. Adds the
    /// prefix of the public URL to a path that lacks it.
    pub(crate) fn parse(page: &[u8], public_url: &PublicUrl) -> Result<Self, ReturnToError> {
        let path = match std::str::from_utf8(page)
            .ok()
            .and_then(|url| public_url.strip_origin(url))
        {
            Some("") => b"/",
            Some(path) => path.as_bytes(),
            None => page,
        };
        let slash = if path.starts_with(b"?") || path.starts_with(b"#") {
            "/"
        } else {
            ""
        };
        // A page may begin with `?` or `#` only if the origin stood in front.
        if !slash.is_empty() && path.len() == page.len() {
            return Err(ReturnToError::Unsafe);
        }
        let path = encode_like_browsers(path).ok_or(ReturnToError::Unsafe)?;
        let path = format!("{slash}{path}");
        if !is_safe_path(&path) {
            return Err(ReturnToError::Unsafe);
        }
        let path = public_url.public_path(&path);
        if path.len() > MAX_RETURN_TO_BYTES {
            return Err(ReturnToError::TooLong);
        }
        Ok(Self(path.into()))
    }

    /// Parses a page that [`as_str`](Self::as_str) has returned. Returns `None` if the text is too
    /// long or unsafe.
    pub(crate) fn from_stored(path: &str) -> Option<Self> {
        (path.len() <= MAX_RETURN_TO_BYTES && is_safe_path(path)).then(|| Self(path.into()))
    }

    /// Returns the start page of the application.
    pub(crate) fn start_page(public_url: &PublicUrl) -> Self {
        Self(format!("{}/", public_url.path_prefix()).into())
    }

    /// Returns the page that a request asked for. If the query makes the page too long or unsafe,
    /// returns the path alone. If the path is not valid either, returns the start page. The second
    /// value is the reason for such a change.
    pub(crate) fn from_uri(
        uri: &http::Uri,
        public_url: &PublicUrl,
    ) -> (Self, Option<ReturnToError>) {
        let whole = uri.path_and_query().map_or("/", |all| all.as_str());
        let reason = match Self::parse(whole.as_bytes(), public_url) {
            Ok(page) => return (page, None),
            Err(reason) => reason,
        };
        let path = Self::parse(uri.path().as_bytes(), public_url).ok();
        (
            path.unwrap_or_else(|| Self::start_page(public_url)),
            Some(reason),
        )
    }

    /// Returns the page that a `Referer` names, without its fragment. Returns `None` if the
    /// `Referer` has another origin than the application.
    pub(crate) fn from_referer(referer: &[u8], public_url: &PublicUrl) -> Option<Self> {
        let url = std::str::from_utf8(referer).ok()?;
        public_url.strip_origin(url)?;
        let page = url.split('#').next().unwrap_or_default();
        Self::parse(page.as_bytes(), public_url).ok()
    }

    /// Returns the path, query and fragment.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the path without query and fragment.
    pub(crate) fn path(&self) -> &str {
        strip_query(&self.0)
    }
}

/// Percent-encodes the characters that browsers encode in a path or a query. Returns `None` if the
/// text has control characters, which browsers remove.
fn encode_like_browsers(path: &[u8]) -> Option<Cow<'_, str>> {
    let control = |byte: &u8| byte.is_ascii_control();
    let controls_beyond_ascii = |text: &str| text.chars().any(char::is_control);
    if path.iter().any(control) || std::str::from_utf8(path).is_ok_and(controls_beyond_ascii) {
        return None;
    }
    // The circumflex is encoded, because login cookies contain `^` in place of each semicolon.
    let stays = |byte: u8| byte.is_ascii_graphic() && !b"\"<>^".contains(&byte);
    if path.iter().all(|byte| stays(*byte)) {
        return std::str::from_utf8(path).ok().map(Cow::Borrowed);
    }
    let mut text = String::with_capacity(path.len() + 32);
    for byte in path {
        if stays(*byte) {
            text.push(char::from(*byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    Some(Cow::Owned(text))
}

/// Returns `true` if this path stays on the application's origin in all browsers, and behind
/// proxies that decode paths.
fn is_safe_path(path: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_graphic() && !b"\\\"<>^".contains(&byte);
    if !path.starts_with('/') || !path.bytes().all(plain) {
        return false;
    }
    // Some proxies decode dots and slashes before they resolve dot segments.
    let decoded = strip_query(path)
        .to_ascii_lowercase()
        .replace("%2e", ".")
        .replace("%2f", "/")
        .replace("%5c", "\\");
    !decoded[1..].starts_with(['/', '\\'])
        && !decoded
            .split(['/', '\\'])
            .any(|segment| matches!(segment, "." | ".."))
}

/// Returns a path without its query and fragment.
fn strip_query(path: &str) -> &str {
    path.split(['?', '#']).next().unwrap_or_default()
}

impl fmt::Debug for ReturnTo {
    /// Writes the path alone, because the query and the fragment may contain secrets.
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

    fn public_url() -> PublicUrl {
        PublicUrl::parse("https://h5.example.com").unwrap()
    }

    fn read(page: &str) -> Result<String, ReturnToError> {
        ReturnTo::parse(page.as_bytes(), &public_url()).map(|page| page.as_str().to_owned())
    }

    /// Returns the URL that a browser requests after a redirect to this page.
    fn follow(path: &ReturnTo) -> Url {
        Url::parse(PAGE).unwrap().join(path.as_str()).unwrap()
    }

    #[test]
    fn rejects_paths_that_leave_the_origin() {
        for page in [
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
            " /a",
            "https://evil.example",
            "https:evil.example",
            "javascript:alert(1)",
            "https://h5.example.com@evil.example/",
            "https://h5.example.com:8443/",
            "https://h5.example.com.evil.example/",
            "https://h5.example.com//evil.example",
            "https://h5.example.com/\\evil.example",
            "https://h5.example.com\\evil.example",
            "https:h5.example.com/a",
            "http://h5.example.com/",
            "/a\r\nSet-Cookie: x=y",
            "/\u{0}",
            "/\u{7f}",
            "/\u{85}",
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
            "/%2f/evil.example",
            "/%2Fevil.example",
            "/%5cevil.example",
            "/%5C/evil.example",
            "/x%2f..%2f..%2fy",
            "/x/..%5Cy",
        ] {
            assert_eq!(read(page), Err(ReturnToError::Unsafe), "{page:?}");
        }
    }

    #[test]
    fn keeps_safe_pages_unchanged() {
        for page in [
            "/",
            "/a?b=c&d=%2F%2Fe",
            "/a#b",
            "/%0d%0aSet-Cookie:x",
            "/a//b",
            "/a%2Fb%5Cc",
            "/@evil.example",
            "/?next=https://evil.example",
            "/a:b;c,d?e=f;g,h",
            "/.well-known/x",
            "/a...b/.../..c",
            "/a?next=/../b",
            "/a?list[]=1&json={x|y}",
            "/s?gbk=%C4%E3%BA%C3&broken=%zz%",
        ] {
            assert_eq!(read(page).as_deref(), Ok(page));
            let page = ReturnTo::from_stored(page).unwrap();
            assert_eq!(follow(&page).origin(), Url::parse(PAGE).unwrap().origin());
        }
    }

    #[test]
    fn encodes_like_browsers() {
        for (page, encoded) in [
            ("/a b", "/a%20b"),
            ("/a ", "/a%20"),
            (
                "/\u{4e2d}\u{6587}?q=\u{8336}",
                "/%E4%B8%AD%E6%96%87?q=%E8%8C%B6",
            ),
            ("/?q=\u{1f44d}", "/?q=%F0%9F%91%8D"),
            ("/?q=\"<x>\"", "/?q=%22%3Cx%3E%22"),
            ("/?q=a^b", "/?q=a%5Eb"),
            ("/a\u{202e}b", "/a%E2%80%AEb"),
            ("https://h5.example.com", "/"),
            ("https://h5.example.com/a?b#c", "/a?b#c"),
            ("https://h5.example.com?b", "/?b"),
            ("HTTPS://H5.EXAMPLE.COM:443/\u{8336}", "/%E8%8C%B6"),
        ] {
            assert_eq!(read(page).as_deref(), Ok(encoded));
        }
        // Bytes that are not UTF-8, here GBK, are percent-encoded unchanged.
        let gbk = ReturnTo::parse(b"/s?q=\xc4\xe3", &public_url()).unwrap();
        assert_eq!(gbk.as_str(), "/s?q=%C4%E3");
    }

    #[test]
    fn limits_pages_to_2048_bytes() {
        let longest = format!("/{}", "a".repeat(MAX_RETURN_TO_BYTES - 1));
        assert_eq!(read(&longest).as_deref(), Ok(longest.as_str()));
        assert_eq!(read(&format!("{longest}a")), Err(ReturnToError::TooLong));
        let uri = format!("/page?q={}", "a".repeat(MAX_RETURN_TO_BYTES));
        let (page, reason) = ReturnTo::from_uri(&uri.parse().unwrap(), &public_url());
        assert_eq!(
            (page.as_str(), reason),
            ("/page", Some(ReturnToError::TooLong))
        );
    }

    #[test]
    fn adds_the_prefix_once() {
        let public_url = PublicUrl::parse("https://a.b/app").unwrap();
        for (page, public) in [
            ("/", "/app/"),
            ("/me?a", "/app/me?a"),
            ("/app", "/app"),
            ("/app/me", "/app/me"),
            ("https://a.b/app/me", "/app/me"),
        ] {
            let page = ReturnTo::parse(page.as_bytes(), &public_url).unwrap();
            assert_eq!(page.as_str(), public);
        }
        assert_eq!(ReturnTo::start_page(&public_url).as_str(), "/app/");
    }

    #[test]
    fn accepts_only_referers_of_its_origin() {
        let of = |referer: &str| {
            ReturnTo::from_referer(referer.as_bytes(), &public_url())
                .map(|path| path.0.into_string())
        };
        assert_eq!(of("https://h5.example.com/a?b#c").as_deref(), Some("/a?b"));
        assert_eq!(of("https://h5.example.com").as_deref(), Some("/"));
        assert_eq!(of("https://h5.example.com.evil.example/a"), None);
        assert_eq!(of("https://h5.example.com@evil.example/a"), None);
        assert_eq!(of("https://h5.example.com:8443/a"), None);
        assert_eq!(of("http://h5.example.com/a"), None);
        assert_eq!(of("https://h5.example.com//evil.example"), None);
        assert_eq!(of("/a"), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn accepted_paths_stay_on_the_origin(
            path in prop_oneof![
                "\\PC{0,30}",
                "[/\\\\]{0,3}[\t\n\r @:.?#%/\\\\a-zA-Z0-9]{0,20}",
                "/[ -~]{0,40}",
                "(/|/|\\.|%2e|%2E|%2f|%5C|x|\\?|;|\u{4e2d}| ){0,12}",
                "(https?:/{0,3}|HTTPS://)h5\\.example\\.com[@:/.?#\\\\a-z0-9]{0,20}",
                any::<String>(),
            ],
            prefix in prop_oneof![Just(""), Just("/app")],
        ) {
            let public_url = PublicUrl::parse(&format!("https://h5.example.com{prefix}")).unwrap();
            if let Ok(path) = ReturnTo::parse(path.as_bytes(), &public_url) {
                let url = follow(&path);
                prop_assert_eq!(url.origin(), Url::parse(PAGE).unwrap().origin());
                prop_assert_eq!(url.username(), "");
                prop_assert!(!url.path().starts_with("//"), "{}", url);
                prop_assert!(url.path().starts_with(prefix), "{}", url);
                // The browser resolves no segment, so that it requests the page that was checked.
                let segments = |path: &str| path.split('/').count();
                prop_assert_eq!(segments(url.path()), segments(path.path()), "{}", url);
                prop_assert!(http::HeaderValue::from_str(path.as_str()).is_ok());
                prop_assert_eq!(ReturnTo::from_stored(path.as_str()), Some(path));
            }
        }

        /// After a login, the address bar of a browser shows the same page as before.
        #[test]
        fn browsers_return_to_the_same_page(path in "/[a-z0-9\u{4e00}-\u{4eff} \u{1f600}-\u{1f64f}\"'();,@&=+$!*~_-]{0,40}",
            query in "[a-z0-9\u{4e00}-\u{4eff} \"'();,@&=+$!*~_/?:{}|\\[\\]-]{0,40}") {
            let shown = Url::parse(&format!("https://h5.example.com{path}?{query}")).unwrap();
            let page = ReturnTo::parse(shown.as_str().as_bytes(), &public_url()).unwrap();
            prop_assert_eq!(follow(&page), shown.clone());
            prop_assume!(!query.ends_with(' '));
            // A link may contain the page without encoding.
            let page = ReturnTo::parse(format!("{path}?{query}").as_bytes(), &public_url()).unwrap();
            prop_assert_eq!(follow(&page), shown);
        }

        #[test]
        fn referers_stay_on_the_origin(rest in "\\PC{0,40}") {
            let referer = format!("https://h5.example.com{rest}");
            if let Some(path) = ReturnTo::from_referer(referer.as_bytes(), &public_url()) {
                prop_assert_eq!(follow(&path).origin(), Url::parse(PAGE).unwrap().origin());
            }
        }
    }
}
