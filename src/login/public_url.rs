//! The public URL of the application: its origin, and its path if a proxy serves it below one.

use super::origin::Origin;
use crate::error::Error;

/// Public URL of an application: scheme, host and port in browsers' form, and the prefix of all
/// public paths.
///
/// A proxy may strip the prefix before it passes a request on, or keep the prefix. In both cases, a
/// path with the prefix counts as public, and any other path gets the prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PublicUrl {
    origin: Origin,
    /// The prefix of all public paths: empty, or a path with a slash at its start and none at its
    /// end.
    path_prefix: String,
}

impl PublicUrl {
    /// Parses a public URL.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`](crate::ErrorKind::Configuration): `url` is no `http` or `https`
    /// URL of a host and a plain path.
    pub(crate) fn parse(url: &str) -> Result<Self, Error> {
        let (origin, path) = Origin::split(url, "the public URL")?;
        let prefix = path.trim_end_matches('/');
        check_path_prefix(prefix)?;
        Ok(Self {
            origin,
            path_prefix: prefix.to_owned(),
        })
    }

    /// Returns the scheme, host and port.
    pub(super) fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Returns the host, with its port if it has one.
    pub(crate) fn host(&self) -> &str {
        let origin = self.origin.as_str();
        origin.split_once("://").map_or(origin, |(_, host)| host)
    }

    /// Returns `true` if the scheme of the public URL is `https`.
    pub(super) fn is_https(&self) -> bool {
        self.origin.is_https()
    }

    /// Returns the prefix of all public paths, which may be empty.
    pub(super) fn path_prefix(&self) -> &str {
        &self.path_prefix
    }

    /// Returns the absolute URL of a public path.
    pub(crate) fn absolute_url(&self, path: &str) -> String {
        format!("{}{path}", self.origin.as_str())
    }

    /// Returns the prefix of all public paths if `path` lacks it, and otherwise an empty string.
    pub(super) fn missing_prefix(&self, path: &str) -> &str {
        if self.strip_path_prefix(path).is_some() {
            ""
        } else {
            &self.path_prefix
        }
    }

    /// Returns a path as browsers know it: with the prefix, which is added if the path lacks it.
    pub(crate) fn public_path(&self, path: &str) -> String {
        format!("{}{path}", self.missing_prefix(path))
    }

    /// Returns the path, query and fragment behind the prefix. Returns `None` if the path does not
    /// lie below the prefix.
    pub(super) fn strip_path_prefix<'a>(&self, path: &'a str) -> Option<&'a str> {
        let rest = path.strip_prefix(self.path_prefix.as_str())?;
        (rest.is_empty() || rest.starts_with(['/', '?', '#'])).then_some(rest)
    }

    /// Returns the path, query and fragment of an absolute URL of this origin. Returns `None` for a
    /// URL of another scheme, host or port, or with a user in front of the host.
    pub(crate) fn strip_origin<'a>(&self, url: &'a str) -> Option<&'a str> {
        self.origin.strip_from(url)
    }
}

/// Returns an error with the reason unless `prefix` is empty or a plain path.
fn check_path_prefix(prefix: &str) -> Result<(), Error> {
    if prefix.is_empty() || is_plain_path(prefix) {
        return Ok(());
    }
    let end = prefix.find(['?', '#']);
    if let Some(mark) = end.and_then(|at| prefix.get(at..=at)) {
        return Err(Error::configuration(format!(
            "the public URL must end before its {mark:?}: it is an origin, and the path below which \
             a proxy puts the application, as in https://h5.example.com/app"
        )));
    }
    if let Some(other) = prefix
        .chars()
        .find(|character| !is_plain_path_char(*character))
    {
        return Err(Error::configuration(format!(
            "the path of the public URL holds {other:?}; give the application a path of letters, \
             digits and -_.~ only, such as https://h5.example.com/app"
        )));
    }
    Err(Error::configuration(format!(
        "the path {prefix:?} of the public URL has an empty segment, or one of dots: write the path \
         that browsers show, such as https://h5.example.com/app"
    )))
}

/// Returns `true` if a plain path may contain this character.
fn is_plain_path_char(character: char) -> bool {
    character.is_ascii_alphanumeric() || "/-_.~".contains(character)
}

/// Returns `true` if a path starts with a slash and consists of segments with only letters, digits
/// and `-_.~`. A plain path has no segment that is empty, `.` or `..`.
pub(super) fn is_plain_path(path: &str) -> bool {
    let segments = || path.split('/').skip(1);
    path.starts_with('/')
        && path.chars().all(is_plain_path_char)
        && !segments().any(|segment| matches!(segment, "" | "." | ".."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn parsed(url: &str) -> Option<(String, String)> {
        let url = PublicUrl::parse(url).ok()?;
        Some((url.origin.as_str().to_owned(), url.path_prefix))
    }

    #[test]
    fn parses_origin_and_optional_path() {
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
    fn errors_contain_the_reason_and_no_secret() {
        let scheme = "must begin with https:// or http://";
        let (host, user) = ("is no host and port", "and no user");
        let (query, fragment) = ("end before its \"?\"", "end before its \"#\"");
        let segment = "an empty segment, or one of dots";
        for (url, reason) in [
            ("", scheme),
            ("h5.example.com", scheme),
            ("//a.b", scheme),
            ("ws://a.b", scheme),
            ("https:/a.b", scheme),
            ("https:a.b", scheme),
            ("\"https://a.b\"", scheme),
            ("https\u{ff1a}//a.b", scheme),
            ("https://", "names no host"),
            ("https:///a", "names no host"),
            ("https://?a", "names no host"),
            ("https://user@a.b", user),
            ("https://user:secret@a.b/c d", user),
            ("https://\u{7528}\u{6237}@a.b", user),
            ("https://\u{4f8b}\u{5b50}.com/a", "no host in ASCII"),
            ("https://a b", host),
            ("https://a.b https://c.d", host),
            ("https://a.b:", host),
            ("https://a.b:0", host),
            ("https://a.b:080", host),
            ("https://a.b:99999", host),
            ("https://a.b:c", host),
            ("https://*.b", host),
            ("https://a%41.b", host),
            ("https://a.b,https:", host),
            ("https://[::1", host),
            ("https://[a]", host),
            ("https://256.1.1.1", host),
            ("https://1.2", host),
            ("https://a.b?c", query),
            ("https://a.b/c?", query),
            ("https://a.b/c d?e", query),
            ("https://a.b#", fragment),
            ("https://a.b/#/home", fragment),
            ("https://a.b/c#d?e", fragment),
            ("https://a.b/c d", "holds ' '"),
            ("https://a.b/%zz", "holds '%'"),
            ("https://a.b/%E8%8C%B6", "holds '%'"),
            ("https://a.b/c;d", "holds ';'"),
            ("https://a.b/\u{8336}", "holds '\u{8336}'"),
            ("https://a.b/c\\d", "holds '\\\\'"),
            ("https://a.b\\c", "holds '\\\\'"),
            ("https://a.b/c\u{202e}", "holds '\\u{202e}'"),
            ("https://a.b/../c", segment),
            ("https://a.b/c/..", segment),
            ("https://a.b/./c", segment),
            ("https://a.b//c", segment),
        ] {
            let error = PublicUrl::parse(url).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Configuration);
            let text = error.to_string();
            assert!(text.contains(reason), "{url:?}: {text}");
            assert!(
                !text.contains("secret") && !text.contains('\u{202e}'),
                "{text}"
            );
        }
        for url in [
            "https://a.b/c//",
            "http://a_b.c:8443/d",
            "https://1a.b",
            "https://b.1c",
            "http://10.0.0.1:80",
            "https://xn--fsqu00a.com",
        ] {
            assert!(PublicUrl::parse(url).is_ok(), "{url}");
        }
    }

    #[test]
    fn adds_the_prefix_once() {
        let url = PublicUrl::parse("https://a.b/app").unwrap();
        for (path, public) in [
            ("/", "/app/"),
            ("/me?a", "/app/me?a"),
            ("/app", "/app"),
            ("/app?a", "/app?a"),
            ("/app/me", "/app/me"),
            ("/application", "/app/application"),
        ] {
            assert_eq!(url.public_path(path), public);
        }
        assert_eq!(
            PublicUrl::parse("https://a.b").unwrap().public_path("/"),
            "/"
        );
    }

    #[test]
    fn strips_only_its_own_origin() {
        let url = PublicUrl::parse("https://a.b").unwrap();
        assert_eq!(url.strip_origin("https://a.b/c?d#e"), Some("/c?d#e"));
        assert_eq!(url.strip_origin("HTTPS://A.B:443/c"), Some("/c"));
        assert_eq!(url.strip_origin("https://a.b"), Some(""));
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
            assert_eq!(url.strip_origin(foreign), None, "{foreign}");
        }
    }
}
