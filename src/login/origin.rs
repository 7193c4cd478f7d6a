//! Origins: scheme, host and port, in the form in which browsers write them.

use std::borrow::Cow;
use std::net::{Ipv4Addr, Ipv6Addr};

use http::uri::Authority;

use crate::error::Error;

/// An origin with the scheme `http` or `https`, in lower case and without the default port of its
/// scheme.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Origin(String);

impl Origin {
    /// Splits a URL into its origin and the rest. `what` is the subject of the error's sentence.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`](crate::ErrorKind::Configuration): `url` is no `http` or `https`
    /// URL of an ASCII host.
    pub(super) fn split<'a>(url: &'a str, what: &str) -> Result<(Self, &'a str), Error> {
        let (scheme, rest) = url.split_once("://").unwrap_or_default();
        let scheme = scheme.to_ascii_lowercase();
        if scheme != "https" && scheme != "http" {
            return Err(Error::configuration(format!(
                "{what} must begin with https:// or http://, as https://h5.example.com does"
            )));
        }
        let end = rest.find(['/', '\\', '?', '#']).unwrap_or(rest.len());
        let (authority, rest) = rest.split_at(end);
        check_authority(authority, what)?;
        // Browsers write an origin in lower case, and without the scheme's default port.
        let authority = authority.to_ascii_lowercase();
        let default_port = default_port(scheme == "https");
        let authority = authority.strip_suffix(default_port).unwrap_or(&authority);
        let authority = shorten_ipv6_address(authority);
        Ok((Self(format!("{scheme}://{authority}")), rest))
    }

    /// Returns the origin as browsers write it, without a slash at the end.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns `true` if the scheme is `https`.
    pub(super) fn is_https(&self) -> bool {
        self.0.starts_with("https:")
    }

    /// Returns `true` if the origin has a port, which is not the default port of its scheme.
    fn has_port(&self) -> bool {
        let (_, behind_colon) = self.0.rsplit_once(':').unwrap_or_default();
        behind_colon.bytes().all(|byte| byte.is_ascii_digit())
    }

    /// Returns the path, query and fragment of an absolute URL of this origin. Returns `None` for a
    /// URL of another scheme, host or port, or with a user in front of the host.
    pub(super) fn strip_from<'a>(&self, url: &'a str) -> Option<&'a str> {
        let (front, rest) = url.split_at_checked(self.0.len())?;
        if !front.eq_ignore_ascii_case(&self.0) {
            return None;
        }
        let rest = match self.has_port() {
            true => rest,
            false => {
                let without_port = rest.strip_prefix(default_port(self.is_https()));
                without_port.unwrap_or(rest)
            }
        };
        (rest.is_empty() || rest.starts_with(['/', '?', '#'])).then_some(rest)
    }
}

/// Returns the port that browsers omit, with its colon.
fn default_port(is_https: bool) -> &'static str {
    if is_https { ":443" } else { ":80" }
}

/// Returns an error unless `authority` is an ASCII host with an optional port.
fn check_authority(authority: &str, what: &str) -> Result<(), Error> {
    if authority.is_empty() {
        return Err(Error::configuration(format!(
            "{what} names no host: write it like https://h5.example.com"
        )));
    }
    // The error must not contain the text before the `@`, which may be a password.
    if authority.contains('@') {
        return Err(Error::configuration(format!(
            "{what} must name a host, and no user"
        )));
    }
    if !authority.is_ascii() {
        return Err(Error::configuration(format!(
            "{authority:?} is no host in ASCII, which is how browsers send it: https://例子.com is \
             https://xn--fsqu00a.com"
        )));
    }
    if !is_host_and_port(authority) {
        return Err(Error::configuration(format!(
            "{authority:?} is no host and port: write {what} like https://h5.example.com or \
             https://h5.example.com:8443"
        )));
    }
    Ok(())
}

/// Returns `true` if `authority` is a host that browsers accept, with an optional port.
fn is_host_and_port(authority: &str) -> bool {
    let Ok(parsed) = authority.parse::<Authority>() else {
        return false;
    };
    let host = parsed.host();
    let port = authority.strip_prefix(host).unwrap_or_default();
    let is_port = match port.strip_prefix(':') {
        Some(digits) => digits.parse::<u16>().is_ok_and(|port| {
            // Browsers write a port without leading zeros.
            port > 0 && port.to_string() == digits
        }),
        None => port.is_empty(),
    };
    is_port && is_host(host)
}

/// Returns `true` if browsers accept this host: an IPv6 address in brackets, an IPv4 address, or a
/// name of letters, digits and `-._`.
fn is_host(host: &str) -> bool {
    if let Some(address) = host.strip_prefix('[') {
        let address = address.strip_suffix(']').map(str::parse::<Ipv6Addr>);
        return matches!(address, Some(Ok(_)));
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    // Browsers parse a host whose last label is a number as an IPv4 address, also with a dot behind
    // the number or with a hexadecimal number.
    let name = host.strip_suffix('.').unwrap_or(host);
    let last = name.rsplit('.').next().unwrap_or_default();
    let is_decimal = !last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit());
    let hexadecimal = last.strip_prefix("0x").or(last.strip_prefix("0X"));
    let is_number = is_decimal
        || hexadecimal.is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
    host.bytes().all(plain) && (!is_number || host.parse::<Ipv4Addr>().is_ok())
}

/// Returns a valid authority with its IPv6 address as browsers write it: `[0:0::1]` becomes `[::1]`.
/// Any other authority is returned unchanged.
fn shorten_ipv6_address(authority: &str) -> Cow<'_, str> {
    let parts = authority
        .strip_prefix('[')
        .and_then(|rest| rest.split_once(']'));
    let Some((address, port)) = parts else {
        return Cow::Borrowed(authority);
    };
    let Ok(address) = address.parse::<Ipv6Addr>() else {
        return Cow::Borrowed(authority);
    };
    match (address.to_ipv4_mapped(), address.segments()) {
        // Rust writes the last four bytes of such an address as an IPv4 address.
        (Some(_), [.., high, low]) => Cow::Owned(format!("[::ffff:{high:x}:{low:x}]{port}")),
        (None, _) => Cow::Owned(format!("[{address}]{port}")),
    }
}
