//! Parsers of the queries of callbacks and of login links, and the encoding of values in queries.

use http::Uri;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use super::failure::LoginFailure;
use super::scope::Scope;

/// Maximum length of a code in a callback: 1,024 bytes. WeCom documents codes of at most 512 bytes,
/// and WeChat documents no maximum for Official Accounts.
const MAX_CALLBACK_CODE_BYTES: usize = 1_024;

/// The characters that JavaScript's `encodeURIComponent` encodes, as WeChat's documentation
/// requires.
pub(crate) const URI_COMPONENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'!')
    .remove(b'~')
    .remove(b'*')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')');

/// The parameters of a link to the login.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct LoginLink {
    pub(super) return_to: Option<Vec<u8>>,
    pub(super) scope: Option<Scope>,
    /// `true` for `format=json`: the parameters of a QR code in place of a redirect.
    pub(super) wants_qr_code: bool,
    /// `true` if `return_to` was not encoded, and parameters behind it were added to the page.
    pub(super) has_unencoded_parameters: bool,
}

impl LoginLink {
    /// Parses a query. If a link does not encode its `return_to`, as in `return_to=/a?x=1&y=2`, the
    /// parameters behind the first `&` belong to the page. An encoded `return_to` has neither a
    /// question mark nor an equals sign, so that parameters that other programs add (WeChat adds
    /// `from`) are ignored.
    pub(super) fn parse(query: &str) -> Self {
        let mut link = Self::default();
        let mut is_unencoded = false;
        for pair in query.split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, text) = (decode_query_text(name), decode_query_text(value));
            let scope = || Scope::from_name(std::str::from_utf8(&text).ok()?);
            match (&*name, &mut link.return_to) {
                (b"return_to", page) => {
                    is_unencoded = text.contains(&b'?') && value.contains(['?', '=']);
                    link.has_unencoded_parameters = false;
                    *page = Some(text);
                }
                (b"scope", _) if scope().is_some() => link.scope = scope(),
                (b"format", _) if !is_unencoded => link.wants_qr_code = *text == *b"json",
                (_, Some(page)) if is_unencoded && !pair.is_empty() => {
                    page.push(b'&');
                    page.extend(pair.bytes());
                    link.has_unencoded_parameters = true;
                }
                _ => {}
            }
        }
        link
    }
}

/// Returns the decoded names and values of a query. Replaces bytes that are not UTF-8 by U+FFFD.
pub(crate) fn query_pairs(uri: &Uri) -> impl Iterator<Item = (String, String)> + '_ {
    let text = |text| String::from_utf8_lossy(&decode_query_text(text)).into_owned();
    uri.query().unwrap_or_default().split('&').map(move |pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (text(name), text(value))
    })
}

/// Decodes a name or a value of a query: replaces `+` by a blank, and then percent-decodes the
/// text.
fn decode_query_text(text: &str) -> Vec<u8> {
    let spaced = text.replace('+', " ");
    percent_decode_str(&spaced).collect()
}

/// Returns the code and the state of a callback, each `None` if it is missing or empty.
///
/// # Errors
/// [`LoginFailure::BadRequest`]: `code` or `state` occurs twice, or the code is too long or not
/// visible ASCII.
pub(crate) fn parse_code_and_state(
    uri: &Uri,
) -> Result<(Option<String>, Option<String>), LoginFailure> {
    let (mut code, mut state) = (None, None);
    for (name, value) in query_pairs(uri) {
        let parameter = match &*name {
            "code" => &mut code,
            "state" => &mut state,
            _ => continue,
        };
        if parameter.replace(value).is_some() {
            return Err(LoginFailure::BadRequest);
        }
    }
    let code = code.filter(|code: &String| !code.is_empty());
    let is_plain = |code: &String| {
        code.len() <= MAX_CALLBACK_CODE_BYTES && code.bytes().all(|b| b.is_ascii_graphic())
    };
    if code.as_ref().is_some_and(|code| !is_plain(code)) {
        return Err(LoginFailure::BadRequest);
    }
    Ok((code, state.filter(|state: &String| !state.is_empty())))
}

/// Returns `true` if a callback names this account, and no other one, in its parameter `appid`. The
/// parameter may occur twice, because the URL of the callback may have it too.
pub(super) fn names_account(uri: &Uri, app_id: &str) -> bool {
    let mut names = query_pairs(uri).filter(|(name, _)| name == "appid");
    names.next().is_some_and(|(_, value)| value == app_id)
        && names.all(|(_, value)| value == app_id)
}

/// Percent-encodes a text for use as a value in a query.
pub(crate) fn encode_query_value(text: &str) -> impl std::fmt::Display + '_ {
    utf8_percent_encode(text, URI_COMPONENT)
}
