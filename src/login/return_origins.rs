//! The origins of front ends to which a login may lead, besides the application's own origin.

use super::origin::Origin;
use super::public_url::PublicUrl;
use crate::error::Error;

/// The origins of front ends to which a login may lead. Empty by default: every login then leads
/// to the application's own origin.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct ReturnOrigins(Vec<Origin>);

impl ReturnOrigins {
    /// Parses origins, such as `https://www.example.com`. Omits duplicates and the origin of the
    /// public URL.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`](crate::ErrorKind::Configuration): an entry is no origin, or is
    /// an `http` origin although the public URL is `https`.
    pub(crate) fn parse<O: AsRef<str>>(
        origins: impl IntoIterator<Item = O>,
        public_url: &PublicUrl,
    ) -> Result<Self, Error> {
        let mut parsed = Vec::new();
        for origin in origins {
            let origin = parse_return_origin(origin.as_ref(), public_url)?;
            if origin != *public_url.origin() && !parsed.contains(&origin) {
                parsed.push(origin);
            }
        }
        Ok(Self(parsed))
    }

    /// Splits an absolute URL into its origin and the rest. Returns `None` if the origin is not
    /// listed.
    pub(super) fn split<'a>(&self, url: &'a str) -> Option<(&Origin, &'a str)> {
        let mut origins = self.0.iter();
        origins.find_map(|origin| Some((origin, origin.strip_from(url)?)))
    }

    /// Returns the listed origin that a header `Origin` names.
    pub(super) fn find(&self, header: &str) -> Option<&Origin> {
        let (origin, rest) = self.split(header)?;
        rest.is_empty().then_some(origin)
    }
}

/// Parses one origin for the login of an application at `public_url`.
fn parse_return_origin(text: &str, public_url: &PublicUrl) -> Result<Origin, Error> {
    // The text before an `@` may be a password, which the error must not contain.
    let what = match text.contains('@') {
        true => "a return origin".to_owned(),
        false => format!("the return origin {text:?}"),
    };
    let (origin, rest) = Origin::split(text, &what)?;
    if !rest.is_empty() {
        return Err(Error::configuration(format!(
            "{what} must end after its host and port: write it as {:?}",
            origin.as_str()
        )));
    }
    if public_url.is_https() && !origin.is_https() {
        return Err(Error::configuration(format!(
            "{what} must begin with https://, as the public URL does: browsers do not send the \
             session with requests of http pages"
        )));
    }
    Ok(origin)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use proptest::prelude::*;
    use url::Url;

    fn parse(public_url: &str, origins: &[&str]) -> Result<Vec<String>, Error> {
        let public_url = PublicUrl::parse(public_url).unwrap();
        let parsed = ReturnOrigins::parse(origins, &public_url)?;
        Ok(parsed
            .0
            .into_iter()
            .map(|origin| origin.as_str().to_owned())
            .collect())
    }

    #[test]
    fn origins_have_the_form_of_browsers() {
        for (text, origin) in [
            ("https://www.example.com", "https://www.example.com"),
            ("HTTPS://WWW.Example.com", "https://www.example.com"),
            ("https://www.example.com:443", "https://www.example.com"),
            ("https://www.example.com:80", "https://www.example.com:80"),
            (
                "https://www.example.com:8443",
                "https://www.example.com:8443",
            ),
            ("https://xn--fsqu00a.com", "https://xn--fsqu00a.com"),
            ("https://localhost:5173", "https://localhost:5173"),
            ("https://10.0.0.1", "https://10.0.0.1"),
            ("https://[::1]:3000", "https://[::1]:3000"),
            ("https://[0:0:0:0:0:0:0:1]:3000", "https://[::1]:3000"),
            ("https://[2001:DB8::0:1]:443", "https://[2001:db8::1]"),
            ("https://[::ffff:10.0.0.1]", "https://[::ffff:a00:1]"),
        ] {
            assert_eq!(parse("https://api.example.com", &[text]).unwrap(), [origin]);
        }
        let local = ["http://localhost:5173", "https://localhost:5174"];
        assert_eq!(parse("http://localhost:3000", &local).unwrap(), local);
        assert_eq!(
            parse("http://localhost:3000", &["http://localhost:80"]).unwrap(),
            ["http://localhost"]
        );
    }

    #[test]
    fn own_origin_and_duplicates_are_omitted() {
        let origins = [
            "https://api.example.com",
            "https://www.example.com",
            "https://API.example.com:443",
            "https://www.example.com:443",
        ];
        let parsed = parse("https://api.example.com/v1", &origins).unwrap();
        assert_eq!(parsed, ["https://www.example.com"]);
        assert!(parse("https://api.example.com", &[]).unwrap().is_empty());
    }

    #[test]
    fn other_texts_are_errors_with_a_remedy() {
        let scheme = "must begin with https:// or http://";
        let (end, host) = ("must end after its host and port", "is no host and port");
        for (text, reason) in [
            ("*", scheme),
            ("null", scheme),
            ("", scheme),
            (" https://a.b", scheme),
            ("www.example.com", scheme),
            ("//www.example.com", scheme),
            ("wss://a.b", scheme),
            ("javascript:alert(1)", scheme),
            ("https:\\\\a.b", scheme),
            ("https://", "names no host"),
            ("https://a.b/", end),
            ("https://a.b//", end),
            ("https://a.b/shop", end),
            ("https://a.b?", end),
            ("https://a.b#", end),
            ("https://a.b\\", end),
            ("https://*", host),
            ("https://*.a.b", host),
            ("https://a.b:*", host),
            ("https://a.b:", host),
            ("https://a.b:0443", host),
            ("https://a.b ", host),
            ("https://a.b,https:", host),
            ("https://a.b\n", host),
            ("https://a.%62", host),
            ("https://0.", host),
            ("https://127.0.0.1.", host),
            ("https://a.0x7F", host),
            ("https://010.0.0.1", host),
            ("https://\u{4f8b}\u{5b50}.com", "no host in ASCII"),
            ("https://a\u{3002}b", "no host in ASCII"),
            ("https://user:secret@a.b", "and no user"),
            ("https://a.b/secret@", end),
            (
                "http://a.b",
                "must begin with https://, as the public URL does",
            ),
        ] {
            let error = parse("https://api.example.com", &["https://fine.example", text]);
            let error = error.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Configuration);
            let message = error.to_string();
            assert!(message.contains(reason), "{text:?}: {message}");
            // A message names the entry, or at least its host.
            let named = message.contains("return origin") || reason == "no host in ASCII";
            assert!(named, "{text:?}: {message}");
            assert!(
                !message.contains("secret") && !message.contains('\n'),
                "{message}"
            );
        }
        let error = parse("https://a.b", &["https://c.d:443/"])
            .unwrap_err()
            .to_string();
        assert_eq!(
            error,
            "the return origin \"https://c.d:443/\" must end after its host and port: write it as \
             \"https://c.d\""
        );
    }

    proptest! {
        /// A browser that is on a page of a listed origin sends exactly that text as `Origin`.
        #[test]
        fn browsers_write_accepted_origins_alike(
            text in "(https|HTTPS|http)://([a-zA-Z0-9.-]{1,12}|[0-9afx.]{1,9}|\\[[0-9aF:.]{2,12}\\])\
                     (:(443|80|8443|[0-9]{1,5}))?",
        ) {
            let public_url = PublicUrl::parse("http://api.example.com").unwrap();
            if let (Ok(origins), Ok(url)) =
                (ReturnOrigins::parse([&text], &public_url), Url::parse(&text))
            {
                let header = url.origin().ascii_serialization();
                prop_assert_eq!(origins.find(&header).unwrap().as_str(), header);
            }
        }
    }
}
