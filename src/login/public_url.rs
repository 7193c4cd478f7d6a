//! The address under which browsers know the application: an origin, and a path where a proxy puts
//! the application below one.

use http::Uri;

use crate::error::{Error, ErrorKind};

/// Scheme, host and port as browsers write them, and the prefix of all public paths.
///
/// A proxy may strip the prefix before it passes a request on, or leave it. Both work: a path that
/// has the prefix is public already, any other one gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PublicUrl {
    /// Scheme, host and port, without a slash at the end.
    origin: String,
    /// Empty, or a path that starts with a slash and does not end with one.
    prefix: String,
}

impl PublicUrl {
    /// Reads a public URL.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`]: this is no `http` or `https` URL of a host and a plain path.
    pub(super) fn parse(url: &str) -> Result<Self, Error> {
        let lower = url.get(..8).unwrap_or(url).to_ascii_lowercase();
        if !lower.starts_with("https://") && !lower.starts_with("http://") {
            return Err(wrong(
                "the public URL must begin with https:// or http://, as https://h5.example.com does",
            ));
        }
        let uri: Uri = url
            .parse()
            .map_err(|_| wrong("the public URL is none: write it like https://h5.example.com"))?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(wrong("the public URL has no host"));
        };
        if authority.as_str().contains('@') || authority.host().is_empty() {
            return Err(wrong("the public URL must name a host, and no user"));
        }
        let prefix = uri.path().trim_end_matches('/');
        if uri.query().is_some() || url.contains('#') || !(prefix.is_empty() || is_plain(prefix)) {
            return Err(wrong(
                "the public URL must end after the host, or after the path below which a proxy \
                 puts the application: https://h5.example.com/app. The login's own paths are set \
                 by callback_path and login_path",
            ));
        }
        // As browsers write an origin: in lower case, without the scheme's own port.
        let authority = authority.as_str().to_ascii_lowercase();
        let own_port = if scheme == "https" { ":443" } else { ":80" };
        let authority = authority.strip_suffix(own_port).unwrap_or(&authority);
        Ok(Self {
            origin: format!("{scheme}://{authority}"),
            prefix: prefix.to_owned(),
        })
    }

    /// Returns `true` if browsers use https.
    pub(super) fn is_secure(&self) -> bool {
        self.origin.starts_with("https:")
    }

    /// Returns the path below which all public paths lie; empty where there is none.
    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Returns the address of a public path.
    pub(super) fn address_of(&self, path: &str) -> String {
        format!("{}{path}", self.origin)
    }

    /// Returns the prefix that a path lacks to be public.
    pub(super) fn missing_prefix(&self, path: &str) -> &str {
        if self.below_prefix(path).is_some() {
            ""
        } else {
            &self.prefix
        }
    }

    /// Returns a path as browsers know it.
    pub(super) fn public(&self, path: &str) -> String {
        format!("{}{path}", self.missing_prefix(path))
    }

    /// Returns what follows the prefix in a path, query and fragment. `None` if the path does not
    /// lie below the prefix.
    pub(super) fn below_prefix<'a>(&self, path: &'a str) -> Option<&'a str> {
        let rest = path.strip_prefix(self.prefix.as_str())?;
        (rest.is_empty() || rest.starts_with(['/', '?', '#'])).then_some(rest)
    }

    /// Returns the path, query and fragment of an absolute URL of this very origin. `None` for any
    /// other URL: another scheme, host or port, or a user in front of the host.
    pub(super) fn path_of<'a>(&self, url: &'a str) -> Option<&'a str> {
        let (front, rest) = url.split_at_checked(self.origin.len())?;
        if !front.eq_ignore_ascii_case(&self.origin) {
            return None;
        }
        let own_port = if self.is_secure() { ":443" } else { ":80" };
        let rest = rest.strip_prefix(own_port).unwrap_or(rest);
        (rest.is_empty() || rest.starts_with(['/', '?', '#'])).then_some(rest)
    }
}

/// Returns `true` if a path has only letters, digits and `-_.~`, and no segment that is empty or
/// that browsers resolve.
pub(super) fn is_plain(path: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-_.~".contains(&byte);
    let segments = || path.split('/').skip(1);
    path.starts_with('/')
        && path.bytes().all(plain)
        && !segments().any(|segment| matches!(segment, "" | "." | ".."))
}

fn wrong(message: &str) -> Error {
    Error::new(ErrorKind::Configuration, message.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(url: &str) -> Option<(String, String)> {
        let url = PublicUrl::parse(url).ok()?;
        Some((url.origin, url.prefix))
    }

    #[test]
    fn a_public_url_is_an_origin_and_perhaps_a_path() {
        for (url, origin, prefix) in [
            ("https://h5.example.com", "https://h5.example.com", ""),
            ("HTTPS://H5.Example.com:443/", "https://h5.example.com", ""),
            ("http://127.0.0.1:3000", "http://127.0.0.1:3000", ""),
            ("http://[::1]:3000", "http://[::1]:3000", ""),
            ("https://a.b/app", "https://a.b", "/app"),
            ("https://a.b/App/v2/", "https://a.b", "/App/v2"),
        ] {
            assert_eq!(parsed(url), Some((origin.to_owned(), prefix.to_owned())));
        }
        for wrong in [
            "",
            "h5.example.com",
            "ftp://a.b",
            "https://",
            "https://a.b/?c",
            "https://a.b/app?c",
            "https://a.b/app#c",
            "https://a.b/a b",
            "https://a.b/a//b",
            "https://a.b/../b",
            "https://a.b/%41",
            "https://user@a.b",
            "https://a b",
            "//a.b",
        ] {
            assert_eq!(parsed(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_path_gets_the_prefix_once() {
        let url = PublicUrl::parse("https://a.b/app").unwrap();
        for (path, public) in [
            ("/", "/app/"),
            ("/me?a", "/app/me?a"),
            ("/app", "/app"),
            ("/app?a", "/app?a"),
            ("/app/me", "/app/me"),
            ("/application", "/app/application"),
        ] {
            assert_eq!(url.public(path), public);
        }
        assert_eq!(PublicUrl::parse("https://a.b").unwrap().public("/"), "/");
    }

    #[test]
    fn only_our_own_origin_is_ours() {
        let url = PublicUrl::parse("https://a.b").unwrap();
        assert_eq!(url.path_of("https://a.b/c?d#e"), Some("/c?d#e"));
        assert_eq!(url.path_of("HTTPS://A.B:443/c"), Some("/c"));
        assert_eq!(url.path_of("https://a.b"), Some(""));
        for foreign in [
            "http://a.b/",
            "https://a.b:8443/",
            "https://a.bc/",
            "https://a.b@evil.example/",
            "https://a.b.evil.example/",
            "https:a.b/",
            "//a.b/",
            "https://a.b\\evil",
        ] {
            assert_eq!(url.path_of(foreign), None, "{foreign}");
        }
    }
}
