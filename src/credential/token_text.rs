//! What a token may consist of, wherever it comes from: WeChat, another service, or Redis.

/// The longest token that is accepted. WeChat asks for room for 512 characters.
const MAX_TOKEN_LEN: usize = 2_048;

/// Returns `true` if a text may be a token: it must survive the stored form, which is cut at `#`,
/// and a query string. Blanks, control characters, a byte order mark and letters beyond ASCII are
/// in no token of WeChat's.
pub(crate) fn is_valid_token(text: &str) -> bool {
    let visible = |byte: u8| byte.is_ascii_graphic() && byte != b'#';
    (1..=MAX_TOKEN_LEN).contains(&text.len()) && text.bytes().all(visible)
}
