//! Random tokens, tickets, codes and ids in WeChat's forms. These texts are unique but not secret,
//! because they give access to nothing real.

use std::time::Duration;

pub(super) const URL_SAFE: &[u8] =
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-";
const ALPHANUMERIC: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

fn random_text(alphabet: &[u8], length: usize) -> String {
    (0..length)
        .map(|_| char::from(alphabet[fastrand::usize(..alphabet.len())]))
        .collect()
}

/// Returns an access token or a refresh token: `83_` and 100 random characters.
pub(super) fn token() -> String {
    format!("83_{}", random_text(URL_SAFE, 100))
}

/// Returns a `jsapi_ticket`: 86 random characters without a prefix.
pub(super) fn ticket() -> String {
    random_text(URL_SAFE, 86)
}

/// Returns a code of the authorize page: `0` and 31 random letters and digits.
pub(super) fn code() -> String {
    format!("0{}", random_text(ALPHANUMERIC, 31))
}

/// Returns an openid: `o` and 27 random characters.
pub(super) fn openid() -> String {
    format!("o{}", random_text(URL_SAFE, 27))
}

/// Returns the id of a request, which ends an errmsg: `6114eeb9-0032c16a-61fbf7ce`. The first part
/// of the id is the time in seconds.
pub(super) fn rid(now: Duration) -> String {
    format!(
        "{:08x}-{:08x}-{:08x}",
        now.as_secs() & 0xffff_ffff,
        fastrand::u32(..),
        fastrand::u32(..)
    )
}
