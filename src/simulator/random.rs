//! Random texts in WeChat's forms. They need to be unique, not secret, because they give access to
//! nothing real.

use std::time::Duration;

pub(super) const URL_SAFE: &[u8] =
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-";
const ALPHANUMERIC: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

fn random_text(alphabet: &[u8], length: usize) -> String {
    (0..length)
        .map(|_| char::from(alphabet[fastrand::usize(..alphabet.len())]))
        .collect()
}

/// Returns an access token or a refresh token: a decimal prefix, an underscore, many characters.
pub(super) fn token() -> String {
    format!("83_{}", random_text(URL_SAFE, 100))
}

/// Returns a `jsapi_ticket`, which has no prefix.
pub(super) fn ticket() -> String {
    random_text(URL_SAFE, 86)
}

/// Returns a code of the authorize page: 32 characters that begin with a digit.
pub(super) fn code() -> String {
    format!("0{}", random_text(ALPHANUMERIC, 31))
}

/// Returns an openid or unionid: `o` and 27 more characters.
pub(super) fn openid() -> String {
    format!("o{}", random_text(URL_SAFE, 27))
}

/// Returns the id of a request, as at the end of an errmsg: `6114eeb9-0032c16a-61fbf7ce`. Its first part is
/// the time in seconds.
pub(super) fn rid(now: Duration) -> String {
    format!(
        "{:08x}-{:08x}-{:08x}",
        now.as_secs() & 0xffff_ffff,
        fastrand::u32(..),
        fastrand::u32(..)
    )
}
