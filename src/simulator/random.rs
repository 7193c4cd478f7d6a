//! Random tokens, tickets, codes and ids in WeChat's forms, and ids derived from others. These texts are unique but not secret,
//! because they give access to nothing real.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use sha1::{Digest, Sha1};

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

/// Returns an openid or a unionid that depends on `space` and `openid` alone: `o` and 27 characters.
/// A user thus keeps the openid of an app, even in another simulator.
pub(super) fn derived_id(space: &str, openid: &str) -> String {
    let mut hash = Sha1::new();
    hash.update(space);
    hash.update([0]);
    hash.update(openid);
    format!("o{}", URL_SAFE_NO_PAD.encode(hash.finalize()))
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

/// Returns a secret of a third-party platform: `kind`, `@@@` and 80 random characters.
#[cfg(feature = "platform")]
pub(super) fn platform_secret(kind: &str) -> String {
    format!("{kind}@@@{}", random_text(URL_SAFE, 80))
}

/// Returns the original id of an account (原始ID), which depends on its AppID alone: `gh_` and 12 hexadecimal
/// digits.
#[cfg(feature = "platform")]
pub(super) fn original_id(app_id: &str) -> String {
    let hash = Sha1::digest(app_id);
    let digits: String = hash
        .iter()
        .take(6)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("gh_{digits}")
}
