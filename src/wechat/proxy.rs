//! The forward proxy for calls to WeChat: the parser of its URL, and a warning if a proxy of the
//! environment is not used.

use std::sync::Once;

use reqwest::Url;

use crate::error::Error;

/// Examples of a valid URL, as the remedy at the end of each error about the proxy.
const EXAMPLE_HINT: &str =
    "set a URL such as http://user:password@proxy.internal:3128 or socks5://proxy.internal:1080";

/// Maximum length of a SOCKS5 user name and of a SOCKS5 password: 255 bytes each (RFC 1929).
const MAX_SOCKS_CREDENTIAL_BYTES: usize = 255;

/// Environment variables in which other programs look for their proxy. The client reads these
/// variables only to log a warning.
const PROXY_VARIABLES: [&str; 4] = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];

/// A proxy from a valid URL, ready for the HTTP client.
pub(super) struct ForwardProxy {
    pub(super) proxy: reqwest::Proxy,
    /// `host:port` of the proxy, without user name and password, for error texts.
    pub(super) address: String,
    /// `true` if the connection to the proxy itself uses TLS.
    pub(super) is_https: bool,
}

/// Parses the URL of a proxy. The error does not contain the URL, which may hold a password.
pub(super) fn parse_proxy(text: &str) -> Result<ForwardProxy, Error> {
    let wrong = |why: String| {
        let text = format!("the proxy {why}: {EXAMPLE_HINT}");
        Error::configuration(text)
    };
    let url = Url::parse(text.trim()).map_err(|why| wrong(format!("is not a URL ({why})")))?;
    let port = match url.scheme() {
        "http" => 80,
        "https" => 443,
        "socks5" | "socks5h" => 1080,
        // The error omits the scheme, because the parser takes the user name of
        // `user:password@host` for the scheme.
        _ => {
            let why = "does not begin with http://, https://, socks5:// or socks5h://";
            return Err(wrong(why.to_owned()));
        }
    };
    let Some(host) = url.host_str().filter(|host| !host.is_empty()) else {
        return Err(wrong("has no host".to_owned()));
    };
    if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
        return Err(wrong("has a path, a query or a fragment".to_owned()));
    }
    if url.port() == Some(0) {
        return Err(wrong("has the port 0".to_owned()));
    }
    if url.scheme().starts_with("socks") {
        check_socks_credentials(&url).map_err(wrong)?;
    }
    // reqwest ignores a proxy that it cannot parse, and would connect directly.
    let uri = url.as_str().parse::<http::Uri>();
    if !uri.is_ok_and(|uri| uri.host().is_some()) {
        let why = "holds characters that have to be percent-encoded";
        return Err(wrong(why.to_owned()));
    }
    let address = format!("{host}:{}", url.port().unwrap_or(port));
    let proxy = reqwest::Proxy::all(url.as_str())
        .map_err(|_| wrong("cannot be used".to_owned()))?
        // The operator set this proxy for this client, so `NO_PROXY` must not exempt hosts.
        .no_proxy(None);
    Ok(ForwardProxy {
        proxy,
        address,
        is_https: url.scheme() == "https",
    })
}

fn check_socks_credentials(url: &Url) -> Result<(), String> {
    let length = |text: &str| percent_encoding::percent_decode_str(text).count();
    let too_long = [Some(url.username()), url.password()]
        .into_iter()
        .flatten()
        .any(|text| length(text) > MAX_SOCKS_CREDENTIAL_BYTES);
    match too_long {
        true => Err("has a user or a password that is too long for SOCKS5".to_owned()),
        false => Ok(()),
    }
}

/// Logs a warning, once for each process, if the environment names a proxy. The client connects
/// directly in spite of such a proxy.
pub(super) fn warn_of_unused_proxy_variable() {
    static WARNED: Once = Once::new();
    let is_set = |name: &&str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    if let Some(variable) = PROXY_VARIABLES.into_iter().find(is_set) {
        WARNED.call_once(|| {
            tracing::warn!(
                target: "tower_wechat::api",
                "{variable} is set and not used: calls to WeChat are made directly; where they \
                 need a proxy, set WechatClientBuilder::proxy (the demo's WECHAT_PROXY)"
            );
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn parse_error(text: &str) -> String {
        match parse_proxy(text) {
            Ok(proxy) => panic!("{text} is taken for {}", proxy.address),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Configuration);
                error.to_string()
            }
        }
    }

    #[test]
    fn the_proxy_address_hides_credentials() {
        for (text, name) in [
            ("http://proxy.internal", "proxy.internal:80"),
            (
                "http://user:pass@proxy.internal:3128/",
                "proxy.internal:3128",
            ),
            (" https://user@proxy.internal\n", "proxy.internal:443"),
            ("socks5://10.0.0.1", "10.0.0.1:1080"),
            ("socks5h://u:p%40ss@[::1]:1081", "[::1]:1081"),
            ("HTTP://PROXY.internal:3128", "proxy.internal:3128"),
        ] {
            assert_eq!(parse_proxy(text).unwrap().address, name, "{text}");
        }
        assert!(parse_proxy("https://proxy").unwrap().is_https);
        assert!(!parse_proxy("http://proxy").unwrap().is_https);
    }

    #[test]
    fn an_invalid_proxy_is_rejected_without_its_password() {
        for (text, why) in [
            ("", "is not a URL"),
            ("proxy.internal:3128", "does not begin with"),
            ("user:s3cret@proxy.internal:3128", "does not begin with"),
            ("socks4://s3cret@proxy", "does not begin with"),
            ("ftp://u:s3cret@proxy", "does not begin with"),
            ("http://", "is not a URL"),
            ("socks5://u:s3cret@", "is not a URL"),
            ("socks5:///s3cret", "has no host"),
            ("http://u:s3cret@proxy/path", "has a path"),
            ("http://u:s3cret@proxy?a=b", "has a path"),
            ("http://u:s3cret@proxy:0", "the port 0"),
            ("http://u:s3cret@proxy:99999", "is not a URL"),
        ] {
            let message = parse_error(text);
            assert!(message.contains(why), "{text}: {message}");
            assert!(
                message.contains("set a URL such as") && !message.contains("s3cret"),
                "{message}"
            );
            assert!(!message.contains('\n'), "{message}");
        }
        let long = format!("socks5://u:{}@proxy", "p".repeat(256));
        assert!(parse_error(&long).contains("too long"));
    }

    #[test]
    fn any_password_is_accepted_or_rejected() {
        for letter in (0x20u8..0x7f).map(char::from) {
            let text = format!("http://user:a{letter}b@proxy.internal:3128");
            if let Ok(proxy) = parse_proxy(&text)
                && proxy.address != "proxy.internal:3128"
            {
                panic!("{text}: {}", proxy.address);
            }
        }
    }
}
