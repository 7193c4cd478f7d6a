//! The parser of the parameter `url`, in which a page sends its URL to be signed. The parser
//! rejects a URL that may be incomplete or decoded wrongly because the page did not encode it.

use http::Uri;
use percent_encoding::percent_decode_str;

use crate::error::{Error, ErrorKind};

/// Returns the page's URL from the query of a request such as `GET /api/jssdk?url=…`, for
/// [`Tickets::js_config`](crate::Tickets::js_config).
///
/// Pages send their URL as `"/api/jssdk?url=" + encodeURIComponent(location.href.split("#")[0])`.
/// Without `encodeURIComponent` the URL ends at its first `&`, and its escapes are decoded once too
/// often. Its signature is then right on some pages and wrong on others. The signature is often
/// right on the page itself, and wrong once WeChat has added `?from=…&isappinstalled=0` to a shared
/// link.
///
/// An encoded URL is returned decoded, and other parameters of the query are ignored. A URL that is not
/// encoded is returned only if it is certainly complete: it contains no escape, and no parameter follows
/// it. A `+` is not read as a space, because no URL contains a space.
///
/// # Errors
/// [`ErrorKind::BadRequest`], with a message that names `encodeURIComponent`, in these cases: `url` is
/// missing, empty or repeated; it is not encoded and may be incomplete or decoded wrongly; it contains an
/// invalid escape or is not UTF-8.
///
/// ```
/// use tower_wechat::jssdk::page_url;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let request = "/api/jssdk?url=https%3A%2F%2Fh5.example.com%2F%3Fa%3D1%26b%3D2".parse()?;
/// assert_eq!(page_url(&request)?, "https://h5.example.com/?a=1&b=2");
///
/// // Without `encodeURIComponent`, the URL may end too early.
/// let cut = "/api/jssdk?url=https://h5.example.com/?a=1&b=2".parse()?;
/// assert!(page_url(&cut).unwrap_err().to_string().contains("encodeURIComponent"));
/// # Ok(()) }
/// ```
pub fn page_url(request: &Uri) -> Result<String, Error> {
    let (url, followed) = url_parameter(request.query().unwrap_or_default())?;
    if url.bytes().any(|byte| !byte.is_ascii()) {
        return Err(invalid_url_parameter(
            "holds letters beyond ASCII that are not encoded",
        ));
    }
    if !is_encoded(url, followed) {
        // The URL is not encoded. A parameter after it may be part of the query of the page.
        if followed {
            return Err(invalid_url_parameter(
                "is not encoded and other parameters follow it, so that it may end too early",
            ));
        }
        // Decoding would change the URL, because the browser's URL contains the escapes.
        if url.contains('%') {
            return Err(invalid_url_parameter(
                "is not encoded as a whole, so that its own escapes would be decoded",
            ));
        }
        return Ok(url.to_owned());
    }
    if !has_only_complete_escapes(url) {
        return Err(invalid_url_parameter(
            "holds a % that no two hexadecimal digits follow",
        ));
    }
    percent_decode_str(url)
        .decode_utf8()
        .map(String::from)
        .map_err(|_| invalid_url_parameter("is not UTF-8 once it is decoded"))
}

fn invalid_url_parameter(what: &str) -> Error {
    let message = format!(
        "the parameter url, the URL of the page, {what}: \
         send url= and encodeURIComponent(location.href.split('#')[0])"
    );
    Error::new(ErrorKind::BadRequest, message)
}

/// Returns the raw value of the parameter `url`, and `true` if other parameters follow it.
fn url_parameter(query: &str) -> Result<(&str, bool), Error> {
    let mut found = None;
    let mut has_more_parameters = false;
    for pair in query.split('&') {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        if !percent_decode_str(name).eq("url".bytes()) {
            // An empty parameter counts too, because a URL may end with `&`.
            has_more_parameters |= found.is_some();
        } else if found.replace(value).is_some() {
            return Err(invalid_url_parameter("is there twice"));
        }
    }
    match found {
        Some("") | None => Err(invalid_url_parameter("is missing or empty")),
        Some(url) => Ok((url, has_more_parameters)),
    }
}

/// Returns `true` if a client has encoded this value as one parameter.
///
/// All encoders escape `&`, and nearly all escape `=`, which `encodeURIComponent` does too. Some
/// leave `:`, `/` and `?` alone, as RFC 3986 allows in a query. An escaped `?`, `=` or `&` of the
/// page's own query then shows that the value is encoded. A plain `=` after an escaped `?` is
/// accepted only if no other parameter follows.
///
/// | encoder | escapes |
/// |---|---|
/// | `encodeURIComponent` | all of `:` `/` `?` `=` `&` |
/// | axios | all but `:` |
/// | Python's `quote` | all but `/`, with `safe=":/"` all but `:` and `/` |
/// | by RFC 3986 | `=` and `&` only |
/// | some others | `?` and `&`, but not `=` |
fn is_encoded(value: &str, followed: bool) -> bool {
    let escaped = |sign: &str, within: &str| within.to_ascii_uppercase().contains(sign);
    if let Some((front, _)) = value.split_once('=') {
        return !followed && !value.contains('?') && escaped("%3F", front);
    }
    match (value.contains("://"), value.split_once('?')) {
        (false, None) => true,
        (true, None) => escaped("%3F", value),
        (_, Some((_, query))) => escaped("%3D", query) || escaped("%26", query),
    }
}

fn has_only_complete_escapes(value: &str) -> bool {
    value.split('%').skip(1).all(|rest| {
        let digits = rest.as_bytes().get(..2);
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
    use proptest::prelude::*;

    /// The characters that `encodeURIComponent` escapes (ECMA-262).
    const COMPONENT: &AsciiSet = &NON_ALPHANUMERIC
        .remove(b'-')
        .remove(b'_')
        .remove(b'.')
        .remove(b'!')
        .remove(b'~')
        .remove(b'*')
        .remove(b'\'')
        .remove(b'(')
        .remove(b')');

    fn encoded(url: &str) -> String {
        utf8_percent_encode(url, COMPONENT).to_string()
    }

    fn read_page_url(query: &str) -> Result<String, Error> {
        page_url(&format!("/api/jssdk?{query}").parse().expect(query))
    }

    #[track_caller]
    fn assert_rejected(query: &str) {
        let error = read_page_url(query).expect_err(query);
        assert_eq!(error.kind(), ErrorKind::BadRequest, "{query}");
        assert!(error.to_string().contains("encodeURIComponent"), "{error}");
    }

    const PAGES: [&str; 12] = [
        "http://mp.weixin.qq.com",
        "http://mp.weixin.qq.com?params=value",
        "https://h5.example.com/",
        "https://h5.example.com/p?a=1&b=2",
        "https://h5.example.com/p?a=1&url=https%3A%2F%2Fother.example%2F%3Fc%3D1",
        "https://h5.example.com/p?from=singlemessage&isappinstalled=0",
        "https://h5.example.com/%E9%A1%B5?%E5%90%8D=%E5%80%BC",
        "https://h5.example.com/p?discount=100%25&q=a+b",
        "https://h5.example.com/p?q=a%20b&",
        "https://h5.example.com/p?a=(b)*'c'!~",
        "https://h5.example.com/p;v=1/@me,you$",
        "https://h5.example.com/#/route?a=1&b=2",
    ];

    #[test]
    fn encoded_pages_are_decoded_once() {
        for page in PAGES {
            let url = encoded(page);
            assert_eq!(read_page_url(&format!("url={url}")).unwrap(), page);
            // Other parameters are ignored, before and after the URL.
            let beside = format!("t=1&url={url}&_=1700000000&callback=cb");
            assert_eq!(read_page_url(&beside).unwrap(), page);
            assert_eq!(read_page_url(&format!("url={url}&")).unwrap(), page);
        }
    }

    /// The outputs of encoders other than `encodeURIComponent`.
    #[test]
    fn other_url_encoders_are_recognized() {
        let page = "https://h5.example.com/p?a=1&b=%E5%80%BC";
        for url in [
            // the output of axios
            "https:%2F%2Fh5.example.com%2Fp%3Fa%3D1%26b%3D%25E5%2580%25BC",
            // the output of Python's `quote`
            "https%3A//h5.example.com/p%3Fa%3D1%26b%3D%25E5%2580%25BC",
            // the output of Python's `quote` with `safe=":/"`
            "https://h5.example.com/p%3Fa%3D1%26b%3D%25E5%2580%25BC",
            // an encoder that escapes only `=` and `&` in a query (RFC 3986)
            "https://h5.example.com/p?a%3D1%26b%3D%25E5%2580%25BC",
            // an encoder that escapes `?` and `&`, but not `=`
            "https://h5.example.com/p%3Fa=1%26b=%25E5%2580%25BC",
            // an encoder whose escapes have lower-case letters
            "https%3a%2f%2fh5.example.com%2fp%3fa%3d1%26b%3d%25E5%2580%25BC",
        ] {
            assert_eq!(read_page_url(&format!("url={url}")).unwrap(), page, "{url}");
        }
    }

    #[test]
    fn ambiguous_unencoded_urls_are_rejected() {
        for page in [
            "https://h5.example.com/p?a=1&b=2",
            "https://h5.example.com/p?a&b",
            "https://h5.example.com/p?a=1&",
            "https://h5.example.com/p?a=1&amp;b=2",
            "https://h5.example.com/p?from=singlemessage&isappinstalled=0",
            "https://h5.example.com/p?a=1&url=2",
            "https://h5.example.com/p?a=%E5%80%BC",
            "https://h5.example.com/%E9%A1%B5",
            "https://h5.example.com/p?q=a%20b",
            "https://h5.example.com/p?next=https%3A%2F%2Fh5.example.com",
            "https://h5.example.com/p?discount=100%25",
            "https://h5.example.com/p?a=值",
            "https://h5.example.com/页",
            "https://h5.example.com/p%3Fa=1&b=2",
            // the output of `encodeURI`, which escapes `%` but not `=` or `&`
            "https://h5.example.com/p?a=1&b=%25E5%2580%25BC",
            "https%3A%2F%2Fh5.example.com/p?a=1&b=2",
        ] {
            assert_rejected(&format!("url={page}"));
        }
    }

    #[test]
    fn complete_unencoded_urls_are_accepted() {
        for page in [
            "http://mp.weixin.qq.com",
            "http://mp.weixin.qq.com?params=value",
            "https://h5.example.com/a+b?q=c+d",
            "https://h5.example.com/p?from=singlemessage",
        ] {
            assert_eq!(read_page_url(&format!("url={page}")).unwrap(), page);
            assert_eq!(read_page_url(&format!("_=1&url={page}")).unwrap(), page);
        }
    }

    #[test]
    fn a_missing_or_invalid_parameter_is_rejected() {
        for query in [
            "",
            "url",
            "url=",
            "URL=https%3A%2F%2Fh5.example.com",
            "url=https%3A%2F%2Fh5.example.com&url=https%3A%2F%2Fh5.example.com",
            "url=https%3A%2F%2Fh5.example.com&%75rl=x",
            "url=%FF",
            "url=https%3A%2F%2Fh5.example.com%2F%E9%A1",
            "url=https%3A%2F%2Fh5.example.com%2F%",
            "url=https%3A%2F%2Fh5.example.com%2F%4",
            "url=https%3A%2F%2Fh5.example.com%2F%u9875",
            "url=https%3A%2F%2Fh5.example.com%2F%zz",
        ] {
            assert_rejected(query);
        }
    }

    proptest! {
        #[test]
        fn every_encoded_url_round_trips(page in "https?://[!-~]{1,60}", beside in "(&[a-z=]{0,5}){0,3}") {
            prop_assert_eq!(read_page_url(&format!("url={}{beside}", encoded(&page))).unwrap(), page);
        }

        /// A page that sends its URL unencoded never gets another page's signature.
        #[test]
        fn an_unencoded_url_is_returned_whole_or_rejected(
            page in "https?://h5\\.example\\.com(/[a-z%0-9A-F]{0,4}){0,2}(\\?[a-z0-9=&%+A-F/?:]{0,20})?",
        ) {
            let Ok(asked) = format!("/api/jssdk?url={page}").parse() else { return Ok(()) };
            if let Ok(read) = page_url(&asked) && read != page {
                // `read` may differ only if `page` looks encoded. No real page has an escaped `=`
                // but no plain `=`, or an escaped `?` in its path before a plain `=`.
                prop_assert!(is_encoded(&page, false), "{} for {}", read, page);
            }
        }

        #[test]
        fn arbitrary_queries_never_panic(query in "[!-\"$-~]{0,60}") {
            if let Ok(asked) = format!("/api/jssdk?{query}").parse() {
                let _ = page_url(&asked);
            }
        }
    }
}
