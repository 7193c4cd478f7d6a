//! The page that loads a callback in a frame again.

use std::fmt::{self, Write};

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use crate::html_page::escape_html;

/// The parameter that marks the second request of a callback in a frame. WeChat uses no parameter of
/// this name.
const RELOAD_MARKER: &str = "frame_reload=1";

/// The characters of a query that are percent-encoded in the page: those that have a meaning in HTML
/// or in the value of a header, and those that browsers encode too. `&` stays, because it separates
/// the parameters. Characters outside of ASCII are always encoded.
const UNSAFE_IN_QUERY: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'\'')
    .add(b'<')
    .add(b'>')
    .add(b'\\')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

/// Maximum length of a URL that is sent in the header `Refresh` too: 2,048 bytes. Proxies accept
/// headers of a few KiB, and a code has at most 1,024 bytes.
const MAX_HEADER_URL_BYTES: usize = 2_048;

/// A page for a frame, which loads its own URL again.
#[derive(Clone)]
pub(crate) struct FramePage {
    /// The path and the query of the page's URL, with the marker.
    url: String,
}

impl FramePage {
    /// The content security policy of the page: it loads nothing, and only pages of the same origin
    /// may frame it.
    pub(crate) const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; base-uri 'none'; \
                                                      form-action 'none'; frame-ancestors 'self'";

    /// Creates the page for a callback with this public path and this query.
    pub(crate) fn new(path: &str, query: &str) -> Self {
        let mut url = format!("{path}?");
        if !query.is_empty() {
            // Writing to a string does not fail.
            let _ = write!(url, "{}&", utf8_percent_encode(query, UNSAFE_IN_QUERY));
        }
        url.push_str(RELOAD_MARKER);
        Self { url }
    }

    /// Returns `true` if a query has the marker, so that the page was sent before.
    pub(crate) fn is_marked(query: &str) -> bool {
        query.split('&').any(|pair| pair == RELOAD_MARKER)
    }

    /// Returns the page as HTML. It has no script, which its policy forbids.
    pub(crate) fn html(&self) -> String {
        format!(
            "<!doctype html><html lang=\"zh-CN\"><head><meta charset=\"utf-8\">\
             <meta name=\"robots\" content=\"noindex\">\
             <meta http-equiv=\"refresh\" content=\"0;url={}\"><title>微信登录</title></head>\
             <body></body></html>",
            escape_html(&self.url)
        )
    }

    /// Returns the value of the header `Refresh`, which does the same as the page. Frames of
    /// applications whose renderer ignores the page need it. Returns `None` for a URL that is too
    /// long for a header.
    pub(crate) fn refresh_header(&self) -> Option<String> {
        (self.url.len() <= MAX_HEADER_URL_BYTES).then(|| format!("0;url={}", self.url))
    }
}

impl fmt::Debug for FramePage {
    /// Omits the URL, which has a code.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FramePage").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Uri;
    use proptest::prelude::*;

    use crate::login::query::parse_code_and_state;

    /// Returns the URL to which a browser would go: the value of the `content` attribute, unescaped.
    fn target(page: &FramePage) -> String {
        let html = page.html();
        let (_, rest) = html.split_once("content=\"0;url=").unwrap();
        let (value, rest) = rest.split_once('"').unwrap();
        assert_eq!(
            rest, "><title>微信登录</title></head><body></body></html>",
            "the value ends where its attribute ends"
        );
        value
            .replace("&#39;", "'")
            .replace("&quot;", "\"")
            .replace("&lt;", "<")
            .replace("&gt;", ">")
            .replace("&amp;", "&")
    }

    #[test]
    fn pages_hold_the_query_escaped_and_marked() {
        for (query, expected) in [
            ("", "/callback?frame_reload=1"),
            ("code=a&state=b", "/callback?code=a&state=b&frame_reload=1"),
            (
                "code=\"><script>alert('1')</script>",
                "/callback?code=%22%3E%3Cscript%3Ealert(%271%27)%3C/script%3E&frame_reload=1",
            ),
            (
                "code=%22%3E&amp;state=\\`",
                "/callback?code=%22%3E&amp;state=%5C%60&frame_reload=1",
            ),
            (
                "state=状态",
                "/callback?state=%E7%8A%B6%E6%80%81&frame_reload=1",
            ),
            (
                "code=a\r\nset-cookie: x\t\0",
                "/callback?code=a%0D%0Aset-cookie:%20x%09%00&frame_reload=1",
            ),
        ] {
            let page = FramePage::new("/callback", query);
            assert_eq!(target(&page), expected);
            assert_eq!(page.refresh_header(), Some(format!("0;url={expected}")));
        }
    }

    #[test]
    fn long_queries_stay_out_of_the_header() {
        let query = format!("code={}", "<".repeat(8_192));
        let page = FramePage::new("/callback", &query);
        assert_eq!(page.refresh_header(), None);
        assert_eq!(target(&page).len(), page.url.len());
        assert!(page.html().len() < 32 * 1_024);
    }

    proptest! {
        /// The page leads to the callback with every query, and the second request has the same
        /// code and state.
        #[test]
        fn pages_lead_to_the_callback_with_the_same_parameters(query in "\\PC{0,200}") {
            let page = FramePage::new("/callback", &query);
            let target = target(&page);
            prop_assert!(target.starts_with("/callback?") && target.ends_with(RELOAD_MARKER));
            prop_assert!(target.bytes().all(|byte| byte.is_ascii_graphic()));
            if let (Ok(first), Ok(second)) =
                (format!("/callback?{query}").parse::<Uri>(), target.parse::<Uri>())
                && first.query() == Some(&*query)
            {
                prop_assert_eq!(parse_code_and_state(&first), parse_code_and_state(&second));
            }
        }
    }
}
