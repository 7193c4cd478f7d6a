//! Return pages of logins: paths of the application's own origin, and URLs of the origins that the
//! application lists. They lead to these origins in every browser.

use std::borrow::Cow;
use std::fmt;

use super::origin::Origin;
use super::public_url::PublicUrl;
use super::return_origins::ReturnOrigins;

/// Maximum length of a page: 2,048 bytes of percent-encoded path, query and fragment, and of the
/// origin in front if it is another origin. The page must fit into a cookie on the way to WeChat,
/// and into a `Location` on the way back. By default, nginx accepts at most 4,096 bytes of headers
/// from an application.
pub(super) const MAX_RETURN_TO_BYTES: usize = 2_048;

/// A page to which a login leads: a path of the application's own origin, or an absolute URL of a
/// listed origin, with query and fragment.
///
/// A path starts with one slash and consists of visible ASCII. The path in an absolute URL follows
/// the same rules.
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
    /// The page is a URL of an origin that the application does not list.
    UnlistedOrigin,
    /// The page is a URL of the application's origin outside of the path of its public URL.
    OtherApplication,
    /// The page is neither a path nor a URL, or some browser would leave its origin.
    Unsafe,
}

impl ReturnToError {
    /// Returns the reason for log lines: why the requested page is not used.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::TooLong => "it is longer than 2,048 bytes",
            Self::UnlistedOrigin => "its origin is not in LoginBuilder::return_origins",
            Self::OtherApplication => "it lies outside of the path of the public URL",
            Self::Unsafe => "it is neither a path of our own origin nor a plain URL",
        }
    }
}

impl ReturnTo {
    /// Parses a path of the application, or a URL of the application's origin or of a listed one.
    /// Adds the prefix of the public URL to a path of the application that lacks it, because a proxy
    /// may have removed it.
    pub(crate) fn parse(
        page: &[u8],
        public_url: &PublicUrl,
        origins: &ReturnOrigins,
    ) -> Result<Self, ReturnToError> {
        let url = String::from_utf8_lossy(page);
        // The text before `rest` is ASCII, so it has the same length in `page`. Bytes behind it may
        // be of another encoding, such as GBK.
        let parse_rest = |rest: &str| parse_rest_of_url(&page[url.len() - rest.len()..]);
        if let Some((origin, rest)) = origins.split(&url) {
            let path = parse_rest(rest)?;
            return Self::limit_length(format!("{}{path}", origin.as_str()));
        }
        let path = match public_url.strip_origin(&url) {
            // A URL has the path that browsers show. It lacks the prefix only if its page belongs to
            // another application, such as another account on the same host.
            Some(rest) => match parse_rest(rest)? {
                path if path != "/" && !public_url.missing_prefix(&path).is_empty() => {
                    return Err(ReturnToError::OtherApplication);
                }
                path => path,
            },
            None if origin_of(&url).is_some() => return Err(ReturnToError::UnlistedOrigin),
            None => parse_path(page)?,
        };
        Self::limit_length(public_url.public_path(&path))
    }

    /// Returns the page, or an error if it is too long.
    fn limit_length(page: String) -> Result<Self, ReturnToError> {
        match page.len() {
            ..=MAX_RETURN_TO_BYTES => Ok(Self(page.into())),
            _ => Err(ReturnToError::TooLong),
        }
    }

    /// Parses a page that [`as_str`](Self::as_str) has returned. Returns `None` if the text is too
    /// long or unsafe.
    ///
    /// The origin of a stored URL may no longer be listed, so the caller must ask
    /// [`is_allowed`](Self::is_allowed) before it uses the page.
    pub(crate) fn from_stored(page: &str) -> Option<Self> {
        let path = match origin_of(page) {
            Some(origin) => page.strip_prefix(origin.as_str())?,
            None => page,
        };
        (page.len() <= MAX_RETURN_TO_BYTES && is_safe_path(path)).then(|| Self(page.into()))
    }

    /// Returns `true` if the page is a path of the application, or if its origin is listed.
    pub(super) fn is_allowed(&self, origins: &ReturnOrigins) -> bool {
        !self.is_absolute() || origins.split(&self.0).is_some()
    }

    /// Returns `true` if the page is a URL of another origin.
    pub(super) fn is_absolute(&self) -> bool {
        !self.0.starts_with('/')
    }

    /// Returns `true` if the page is a URL of this origin.
    pub(super) fn is_on(&self, origin: &Origin) -> bool {
        origin.strip_from(&self.0).is_some()
    }

    /// Returns the start page of a listed origin.
    pub(super) fn start_page_of(origin: &Origin) -> Self {
        Self(format!("{}/", origin.as_str()).into())
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
        let parse =
            |page: &str| Self::parse(page.as_bytes(), public_url, &ReturnOrigins::default());
        let reason = match parse(whole) {
            Ok(page) => return (page, None),
            Err(reason) => reason,
        };
        (
            parse(uri.path()).unwrap_or_else(|_| Self::start_page(public_url)),
            Some(reason),
        )
    }

    /// Returns the page that a `Referer` names, without its fragment. Returns `None` if the
    /// `Referer` has neither the application's origin nor a listed one.
    pub(crate) fn from_referer(
        referer: &[u8],
        public_url: &PublicUrl,
        origins: &ReturnOrigins,
    ) -> Option<Self> {
        let url = std::str::from_utf8(referer).ok()?;
        // A `Referer` that is a path is no URL of a browser.
        public_url
            .strip_origin(url)
            .or(origins.split(url).map(|(_, rest)| rest))?;
        let page = url.split('#').next().unwrap_or_default();
        Self::parse(page.as_bytes(), public_url, origins).ok()
    }

    /// Returns the path, query and fragment, with the origin in front if it is another origin.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the page without query and fragment.
    pub(crate) fn path(&self) -> &str {
        strip_query(&self.0)
    }
}

/// Returns the origin of an absolute URL, or `None` for any other text.
pub(super) fn origin_of(url: &str) -> Option<Origin> {
    if url.starts_with('/') {
        return None;
    }
    let (origin, rest) = Origin::split(url, "the URL").ok()?;
    (rest.is_empty() || rest.starts_with(['/', '?', '#'])).then_some(origin)
}

/// Parses what follows the origin in a URL: nothing, or a path, query and fragment. Browsers put a
/// slash in front of a query or a fragment that follows the origin.
fn parse_rest_of_url(rest: &[u8]) -> Result<String, ReturnToError> {
    match rest.first() {
        Some(b'/') => parse_path(rest),
        _ => parse_path(&[b"/", rest].concat()),
    }
}

/// Parses a path with its query and fragment.
fn parse_path(path: &[u8]) -> Result<String, ReturnToError> {
    let path = encode_like_browsers(path).filter(|path| is_safe_path(path));
    path.map(Cow::into_owned).ok_or(ReturnToError::Unsafe)
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
mod tests;
