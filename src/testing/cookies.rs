//! The cookies of a test's browser.

use std::time::SystemTime;

use reqwest::Url;

/// The cookies that a browser keeps. `Secure` and the prefix `__Host-` have no effect, so that a test may
/// use `http`.
#[derive(Debug, Default)]
pub(super) struct CookieJar(Vec<Cookie>);

#[derive(Debug)]
struct Cookie {
    name: String,
    value: String,
    /// The host that set the cookie, or the host of its attribute `Domain`.
    host: String,
    /// `true` if the cookie has a `Domain`, and subdomains receive the cookie too.
    subdomains: bool,
    path: String,
}

impl Cookie {
    fn is_sent_to(&self, host: &str, path: &str) -> bool {
        let parent = host.strip_suffix(self.host.as_str());
        let of_host = match parent {
            Some("") => true,
            Some(parent) => self.subdomains && parent.ends_with('.'),
            None => false,
        };
        let below = path.strip_prefix(self.path.as_str());
        let of_path = below.is_some_and(|rest| {
            rest.is_empty() || rest.starts_with('/') || self.path.ends_with('/')
        });
        of_host && of_path
    }
}

impl CookieJar {
    /// Returns the header `Cookie` of a request to `url`, or `None` without cookies. Cookies with longer
    /// paths come first, as in browsers.
    pub(super) fn header(&self, url: &Url) -> Option<String> {
        let host = url.host_str().unwrap_or_default();
        let mut sent: Vec<_> = self.0.iter().collect();
        sent.retain(|cookie| cookie.is_sent_to(host, url.path()));
        sent.sort_by_key(|cookie| std::cmp::Reverse(cookie.path.len()));
        let sent: Vec<_> = sent
            .iter()
            .map(|cookie| format!("{}={}", cookie.name, cookie.value))
            .collect();
        (!sent.is_empty()).then(|| sent.join("; "))
    }

    /// Keeps or deletes the cookie of a header `Set-Cookie` in the response of `url`. Ignores a header
    /// without a name.
    pub(super) fn set(&mut self, url: &Url, header: &str) {
        let mut parts = header.split(';').map(str::trim);
        let Some((name, value)) = parts.next().and_then(|pair| pair.split_once('=')) else {
            return;
        };
        // The default path is the folder of the request's path.
        let folder = url.path().rsplit_once('/').map_or("", |(folder, _)| folder);
        let mut cookie = Cookie {
            name: name.to_owned(),
            value: value.to_owned(),
            host: url.host_str().unwrap_or_default().to_owned(),
            subdomains: false,
            path: if folder.is_empty() { "/" } else { folder }.to_owned(),
        };
        let (mut max_age, mut expires) = (None, None);
        for part in parts {
            let (attribute, value) = part.split_once('=').unwrap_or((part, ""));
            match attribute.to_ascii_lowercase().as_str() {
                "path" if value.starts_with('/') => value.clone_into(&mut cookie.path),
                "domain" if !value.is_empty() => {
                    cookie.host = value.trim_start_matches('.').to_ascii_lowercase();
                    cookie.subdomains = true;
                }
                "max-age" => max_age = value.parse::<i64>().ok(),
                "expires" => expires = httpdate::parse_http_date(value).ok(),
                _ => {}
            }
        }
        let expired = match max_age {
            Some(seconds) => seconds <= 0,
            None => expires.is_some_and(|at| at <= SystemTime::now()),
        };
        self.0.retain(|kept| {
            (&kept.name, &kept.host, &kept.path) != (&cookie.name, &cookie.host, &cookie.path)
        });
        if !expired {
            self.0.push(cookie);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    /// Returns the header of a request to `to` after a response of `https://h5.example.com/a/b` has set
    /// these cookies.
    fn sent_to(to: &str, set: &[&str]) -> Option<String> {
        let mut jar = CookieJar::default();
        for header in set {
            jar.set(&url("https://h5.example.com/a/b"), header);
        }
        jar.header(&url(to))
    }

    #[test]
    fn cookies_go_to_their_host_and_below_their_path() {
        let root = ["k=v; Path=/; HttpOnly; SameSite=Lax"];
        assert_eq!(sent_to("https://h5.example.com/", &root).unwrap(), "k=v");
        assert_eq!(sent_to("https://example.com/", &root), None);
        assert_eq!(sent_to("https://x.h5.example.com/", &root), None);
        let below = ["k=v; Path=/a"];
        assert!(sent_to("https://h5.example.com/a", &below).is_some());
        assert!(sent_to("https://h5.example.com/a/c", &below).is_some());
        assert!(sent_to("https://h5.example.com/ab", &below).is_none());
        // Without a path, a cookie belongs to the folder of the page that set it.
        assert!(sent_to("https://h5.example.com/a/c", &["k=v"]).is_some());
        assert!(sent_to("https://h5.example.com/c", &["k=v"]).is_none());
        let domain = ["k=v; Path=/; Domain=.Example.com"];
        assert!(sent_to("https://shop.example.com/", &domain).is_some());
        assert!(sent_to("https://badexample.com/", &domain).is_none());
    }

    #[test]
    fn secure_cookies_are_sent_over_http_too() {
        let set = ["__Host-k=v; Path=/; Secure"];
        assert_eq!(
            sent_to("http://h5.example.com/", &set).unwrap(),
            "__Host-k=v"
        );
    }

    #[test]
    fn cookies_are_replaced_and_deleted_by_name_and_path() {
        let sent = |set: &[&str]| sent_to("https://h5.example.com/a/b", set);
        let two = sent(&["k=1; Path=/", "k=2; Path=/a", "k=3; Path=/"]);
        assert_eq!(two.unwrap(), "k=2; k=3");
        assert_eq!(sent(&["k=1; Path=/", "k=; Path=/; Max-Age=0"]), None);
        let past = "k=; Path=/; Expires=Thu, 01 Jan 1970 00:00:00 GMT";
        assert_eq!(sent(&["k=1; Path=/", past]), None);
        let kept = sent(&[
            "k=1; Path=/",
            "k=2; Path=/; Max-Age=60; Expires=Thu, 01 Jan 1970 00:00:00 GMT",
        ]);
        assert_eq!(kept.unwrap(), "k=2");
        assert_eq!(sent(&["no name"]), None);
    }
}
