//! The name of the session cookie.

use crate::credential::AppId;
use crate::error::Error;

/// Start of the session cookie's default name, without its prefix `__Host-`. The AppID follows.
const DEFAULT_NAME_PREFIX: &str = "wechat_session_";

/// Prefix of the cookie's name with https. Browsers accept a cookie with this prefix from this host
/// only, so no other host of the domain can set the session cookie.
const HOST_PREFIX: &str = "__Host-";

/// Maximum length of the cookie name that an application sets: 64 bytes.
const MAX_NAME_BYTES: usize = 64;

/// Returns the default name of an account's session cookie, without `__Host-`. The name contains the
/// AppID, so that the sessions of several accounts on one host do not replace each other. All
/// characters of an AppID can be in a cookie's name.
pub(super) fn default_name(app: &AppId) -> String {
    format!("{DEFAULT_NAME_PREFIX}{}", app.as_str())
}

/// Returns an error unless the name has at most 64 letters, digits and `-_.`, and more than the
/// prefix `__Host-`.
pub(super) fn check_name(name: &str) -> Result<(), Error> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let base = strip_host_prefix(name);
    if base.is_empty() || name.len() > MAX_NAME_BYTES || !name.bytes().all(plain) {
        return Err(Error::configuration(format!(
            "{name:?} is no name of a cookie; use letters, digits, '-', '_' and '.'"
        )));
    }
    Ok(())
}

/// Returns the name without `__Host-`. Browsers recognise the prefix in any letter case.
pub(super) fn strip_host_prefix(name: &str) -> &str {
    match name.split_at_checked(HOST_PREFIX.len()) {
        Some((prefix, base)) if prefix.eq_ignore_ascii_case(HOST_PREFIX) => base,
        Some(_) | None => name,
    }
}

/// Returns the name as browsers know it: with `__Host-` if the cookie is secure.
pub(super) fn prefixed_name(base: &str, secure: bool) -> String {
    match secure {
        true => format!("{HOST_PREFIX}{base}"),
        false => base.to_owned(),
    }
}
