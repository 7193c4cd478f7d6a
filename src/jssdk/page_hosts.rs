//! The hosts whose pages may be signed. A signature for another page would let that page use the
//! account.

use reqwest::Url;

use crate::error::{Error, ErrorKind};

/// Maximum length of a URL that is signed: 8,192 bytes. URLs in browsers and in WeChat are shorter.
const MAX_URL_BYTES: usize = 8_192;

/// The hosts whose pages may be signed.
#[derive(Debug, Clone, Default)]
pub(crate) struct AllowedHosts(Vec<AllowedHost>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct AllowedHost {
    /// The host in lower case. An international name has its ASCII form, and an IPv6 address has
    /// brackets.
    host: String,
    port: PortRule,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PortRule {
    /// Only the default port: 80 for http and 443 for https, whether the URL contains the port or
    /// not.
    SchemeDefault,
    Exact(u16),
    Any,
}

impl AllowedHosts {
    /// Parses hosts of the forms `HOST`, `HOST:PORT` and `HOST:*`. Returns an error if there is
    /// none.
    pub(crate) fn new<H: AsRef<str>>(hosts: impl IntoIterator<Item = H>) -> Result<Self, Error> {
        let hosts: Vec<_> = hosts
            .into_iter()
            .map(|host| parse_allowed_host(host.as_ref()))
            .collect::<Result<_, _>>()?;
        if hosts.is_empty() {
            return Err(Error::configuration(
                "no host is named whose pages may be signed: name those of JS接口安全域名, such \
                 as h5.example.com",
            ));
        }
        Ok(Self(hosts))
    }

    /// Returns an error unless `url` is the URL of a page on one of the hosts.
    ///
    /// The parser is strict and rejects what browsers would repair. So no URL can have one host
    /// here and a different host in a browser.
    pub(crate) fn check(&self, url: &str) -> Result<(), Error> {
        let refused = |why: &'static str| Err(Error::new(ErrorKind::BadRequest, why));
        if url.len() > MAX_URL_BYTES {
            return refused("the URL of the page is longer than 8192 bytes");
        }
        if url
            .chars()
            .any(|letter| letter.is_control() || letter == ' ' || letter == '\\')
        {
            return refused(
                "the URL of the page holds a blank, a backslash or a control character: send \
                 location.href as it is, by encodeURIComponent(location.href.split('#')[0])",
            );
        }
        // U+FFFD replaces bytes that are not UTF-8, so this text differs from the page's URL.
        if url.contains(char::REPLACEMENT_CHARACTER) {
            return refused(
                "the URL of the page holds U+FFFD, as what was decoded wrongly does: send \
                 encodeURIComponent(location.href.split('#')[0])",
            );
        }
        let Some((scheme, rest)) = url.split_once("://") else {
            return refused(
                "the URL of the page must begin with https:// or http://, and be encoded once: \
                 send encodeURIComponent(location.href.split('#')[0])",
            );
        };
        let usual_port = match scheme.to_ascii_lowercase().as_str() {
            "http" => 80,
            "https" => 443,
            _ => return refused("the URL of the page must begin with https:// or http://"),
        };
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        if authority.contains('@') {
            return refused("the URL of the page names a user");
        }
        let Some((host, port)) = split_host_and_port(authority) else {
            return refused("the URL of the page has no host that can be read");
        };
        let Ok(port) = port.map_or(Ok(usual_port), str::parse) else {
            return refused("the port in the URL of the page is none");
        };
        let allowed = self.0.iter().any(|known| {
            known.host.eq_ignore_ascii_case(host)
                && match known.port {
                    PortRule::SchemeDefault => port == usual_port,
                    PortRule::Exact(this) => port == this,
                    PortRule::Any => true,
                }
        });
        if allowed {
            Ok(())
        } else {
            refused("the host of the page is not one whose pages this service signs")
        }
    }
}

fn split_host_and_port(authority: &str) -> Option<(&str, Option<&str>)> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let end = rest.find(']')? + 2;
            let (host, port) = authority.split_at(end);
            (host, (!port.is_empty()).then_some(port))
        }
        None => match authority.find(':') {
            Some(at) => (authority.get(..at)?, authority.get(at..)),
            None => (authority, None),
        },
    };
    let port = match port {
        Some(port) => Some(port.strip_prefix(':')?),
        None => None,
    };
    // Rust would parse `+80` as a number, and browsers do not.
    let digits = |port: &str| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    (!host.is_empty() && port.is_none_or(digits)).then_some((host, port))
}

fn parse_allowed_host(text: &str) -> Result<AllowedHost, Error> {
    let wrong = || {
        let message = format!(
            "{text:?} is no host whose pages could be signed: name a host such as \
             h5.example.com, h5.example.com:8443 or localhost:*"
        );
        Error::configuration(message)
    };
    let (name, any_port) = match text.strip_suffix(":*") {
        Some(name) => (name, true),
        None => (text, false),
    };
    // The URL parser would accept or drop these characters, and then no page could match.
    let odd = |letter: char| matches!(letter, '*' | ',' | '@' | '\\') || letter.is_whitespace();
    if name.contains(odd) {
        return Err(wrong());
    }
    // Only the host is read from the parsed URL. The port is read from `name`, because the URL
    // parser drops the default port.
    let url = Url::parse(&format!("http://{name}")).map_err(|_| wrong())?;
    let plain = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
    let plain = plain && url.username().is_empty() && url.password().is_none();
    let (Some(host), true, false) = (url.host_str(), plain, name.ends_with('/')) else {
        return Err(wrong());
    };
    let named = split_host_and_port(name).ok_or_else(wrong)?.1;
    let port = match (any_port, named) {
        (true, None) => PortRule::Any,
        (true, Some(_)) => return Err(wrong()),
        (false, None) => PortRule::SchemeDefault,
        (false, Some(port)) => match port.parse() {
            Ok(0) | Err(_) => return Err(wrong()),
            Ok(port) => PortRule::Exact(port),
        },
    };
    Ok(AllowedHost {
        host: host.to_owned(),
        port,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hosts() -> AllowedHosts {
        AllowedHosts::new([
            "h5.example.com",
            "dev.example.com:8443",
            "localhost:*",
            "[::1]:3000",
        ])
        .unwrap()
    }

    #[test]
    fn pages_of_configured_hosts_are_signed() {
        for url in [
            "https://h5.example.com",
            "https://h5.example.com?a=1",
            "https://h5.example.com/p?x=https://evil.example/#@evil.example",
            "HTTP://H5.Example.COM:80/",
            "https://h5.example.com:443/",
            "https://dev.example.com:8443/",
            "http://localhost:5173/#/route",
            "http://[::1]:3000/",
            "https://h5.example.com/页面?名=值",
        ] {
            hosts()
                .check(url)
                .unwrap_or_else(|error| panic!("{url}: {error}"));
        }
    }

    #[test]
    fn pages_of_other_hosts_are_rejected() {
        for url in [
            "",
            "h5.example.com",
            "//h5.example.com/",
            "javascript://h5.example.com/%0aalert(1)",
            "ftp://h5.example.com/",
            "https://evil.example/",
            "https://evil.example/https://h5.example.com/",
            "https://h5.example.com.evil.example/",
            "https://sub.h5.example.com/",
            "https://example.com/",
            "https://user@h5.example.com/",
            "https://h5.example.com@evil.example/",
            "https://evil.example\\@h5.example.com/",
            "https://h5.example.com\\.evil.example/",
            "https://h5.example.com:8443/",
            "https://dev.example.com/",
            "https://h5.example.com:/",
            "https://h5.example.com:+443/",
            "https://h5.example.com:99999/",
            "https://h5.example.com:443:443/",
            "https:///h5.example.com/",
            "https:h5.example.com/",
            "https://h5.example.com./",
            "https://h5.example.com/a\nb",
            "https://h5.example.com/a\tb",
            " https://h5.example.com/",
            "https://h5.example.com/a b",
            "https://h5.example.com/\u{fffd}",
            "https://h5.example.com/?a=\u{fffd}#b",
            "https%3A%2F%2Fh5.example.com%2F",
            "https://[::1/",
            "https://[::1]x:3000/",
        ] {
            let error = hosts().check(url).expect_err(url);
            assert_eq!(error.kind(), ErrorKind::BadRequest, "{url}");
        }
        let long = format!("https://h5.example.com/{}", "x".repeat(9_000));
        assert!(hosts().check(&long).is_err());
    }

    #[test]
    fn invalid_hosts_are_rejected_at_start_up() {
        for host in [
            "",
            "https://h5.example.com",
            "h5.example.com/",
            "a b",
            "u@h",
            "h:70000",
            "h:1:*",
        ] {
            let error = AllowedHosts::new([host]).expect_err(host);
            assert_eq!(error.kind(), ErrorKind::Configuration, "{host}");
        }
        assert!(AllowedHosts::new::<&str>([]).is_err());
        let hosts = AllowedHosts::new(["例子.example"]).unwrap();
        assert!(hosts.check("https://xn--fsqu00a.example/").is_ok());
    }

    proptest! {
        #[test]
        fn accepted_urls_have_the_same_host_in_a_url_parser(
            url in "(https?|HTTPS|ftp)(://|:|:/)[a-z@:.\\[\\]/?#\\\\ 0-9%]{0,24}(h5\\.example\\.com|localhost)[a-z@:.\\[\\]/?#\\\\ 0-9%]{0,24}",
        ) {
            if hosts().check(&url).is_ok() {
                let read = Url::parse(&url).unwrap();
                prop_assert!(hosts().0.iter().any(|host| Some(host.host.as_str()) == read.host_str()), "{}", url);
                prop_assert!(read.username().is_empty() && read.password().is_none());
            }
        }

        #[test]
        fn arbitrary_text_never_panics(url: String) {
            let _ = hosts().check(&url);
        }
    }
}
