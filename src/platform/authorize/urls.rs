//! The URLs of the application: the one to which WeChat returns, and the page after an authorization.

use super::customer::Customer;
use crate::credential::AppId;
use crate::error::Error;
use crate::login::public_url::PublicUrl;
use crate::login::query::encode_query_value;

/// The URL below which the returns from WeChat arrive: `https://h5.example.com/wechat/authorized` for
/// the returns to `https://h5.example.com/wechat/authorized/STATE`.
#[derive(Debug, Clone)]
pub(super) struct ReturnUrl {
    url: String,
    /// The last segment of the path.
    name: String,
}

impl ReturnUrl {
    /// Parses the URL.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`](crate::ErrorKind::Configuration): `url` is no `http` or `https` URL
    /// of a host and a plain path.
    pub(super) fn parse(url: &str) -> Result<Self, Error> {
        let invalid = |problem: &str| {
            Error::configuration(format!(
                "the return URL of the authorize pages {problem}: write the URL below which WeChat's \
                 returns arrive, such as https://h5.example.com/wechat/platform/authorized"
            ))
        };
        if url.contains(['{', '}']) {
            return Err(invalid(
                "ends before /{state}, which belongs to the route only",
            ));
        }
        if url.contains(['?', '#']) {
            return Err(invalid("has no query and no fragment"));
        }
        let parsed = PublicUrl::parse(url)
            .map_err(|_| invalid("is no http or https URL of a host and a plain path"))?;
        let path = parsed.public_path("");
        let Some(name) = path.rsplit('/').next().filter(|name| !name.is_empty()) else {
            return Err(invalid("has no path"));
        };
        Ok(Self {
            url: parsed.absolute_url(&path),
            name: name.to_owned(),
        })
    }

    /// Returns the URL without a slash at the end.
    pub(super) fn as_str(&self) -> &str {
        &self.url
    }

    /// Returns the URL to which WeChat returns with this state.
    pub(super) fn with_state(&self, state: &str) -> String {
        format!("{}/{state}", self.url)
    }

    /// Returns the state of a return, which is the segment behind the last segment of this URL. The
    /// state is empty if the path ends with that segment. Returns `None` for other paths.
    ///
    /// Only the end of the path is compared, because proxies add and remove prefixes.
    pub(super) fn state_in<'a>(&self, path: &'a str) -> Option<&'a str> {
        let path = path.strip_suffix('/').unwrap_or(path);
        let (before, last) = path.rsplit_once('/')?;
        if before.rsplit('/').next() == Some(&*self.name) {
            return Some(last);
        }
        (last == self.name).then_some("")
    }
}

/// The page of the application to which browsers are redirected after an authorization.
#[derive(Debug, Clone)]
pub(super) struct NextPage(String);

impl NextPage {
    /// Parses a path of the application, or the URL of a page.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`](crate::ErrorKind::Configuration): the text is neither.
    pub(super) fn parse(page: &str) -> Result<Self, Error> {
        let is_path = page.starts_with('/') && !page[1..].starts_with(['/', '\\']);
        let is_url = || {
            let end = page.find(['?', '#']).unwrap_or(page.len());
            PublicUrl::parse(&page[..end]).is_ok()
        };
        let is_plain = page.bytes().all(|byte| byte.is_ascii_graphic()) && !page.contains('#');
        match is_plain && (is_path || is_url()) {
            true => Ok(Self(page.to_owned())),
            false => Err(Error::configuration(format!(
                "{page:?} is no page to which the authorize pages can redirect: write a path such as \
                 /connected, or a URL such as https://www.example.com/connected"
            ))),
        }
    }

    /// Returns the URL of the page with the AppID of the account and the customer.
    pub(super) fn with_account(&self, account: &AppId, customer: Option<&Customer>) -> String {
        let separator = match self.0.contains('?') {
            true => '&',
            false => '?',
        };
        let account = encode_query_value(account.as_str());
        let url = format!("{}{separator}appid={account}", self.0);
        match customer {
            Some(customer) => format!("{url}&for={}", encode_query_value(customer.as_str())),
            None => url,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_found_behind_the_name_of_the_return_url() {
        let url = ReturnUrl::parse("https://H5.example.com:443/app/authorized/").unwrap();
        assert_eq!(url.as_str(), "https://h5.example.com/app/authorized");
        assert_eq!(
            url.with_state("S"),
            "https://h5.example.com/app/authorized/S"
        );
        for (path, state) in [
            ("/app/authorized/S", Some("S")),
            ("/authorized/S/", Some("S")),
            ("/other/authorized/S", Some("S")),
            ("/app/authorized", Some("")),
            ("/authorized/", Some("")),
            ("/app/authorized/S/more", None),
            ("/app/authorize", None),
            ("/", None),
            ("", None),
        ] {
            assert_eq!(url.state_in(path), state, "{path}");
        }
    }

    #[test]
    fn unusable_urls_are_rejected_with_one_sentence() {
        for url in [
            "",
            "/authorized",
            "https://",
            "https://a.b",
            "https://a.b/",
            "ftp://a.b/c",
            "https://a.b/c?x=1",
            "https://a.b/c#d",
            "https://a.b/c/../d",
            "https://user:password@a.b/c",
            "https://a.b/c/{state}",
        ] {
            let error = ReturnUrl::parse(url).unwrap_err();
            assert_eq!(
                error.kind(),
                crate::error::ErrorKind::Configuration,
                "{url}"
            );
            let text = error.to_string();
            assert!(
                text.contains("the return URL of the authorize pages"),
                "{text}"
            );
            assert!(!text.contains("public URL"), "{text}");
            assert_eq!(text.contains("/{state}"), url.contains('{'), "{text}");
            assert!(!error.to_string().contains("password"), "{error}");
        }
        for page in [
            "",
            "connected",
            "//evil",
            "/\\evil",
            "/a b",
            "/a#b",
            "ftp://a.b",
            "/a\nb",
        ] {
            assert!(NextPage::parse(page).is_err(), "{page}");
        }
    }

    #[test]
    fn the_next_page_names_the_account() {
        let account = AppId::new("wxA").unwrap();
        let customer = Customer::new("a&b 客").unwrap();
        for (page, expected) in [
            ("/connected", "/connected?appid=wxA&for=a%26b%20%E5%AE%A2"),
            (
                "https://a.b/c?d=1",
                "https://a.b/c?d=1&appid=wxA&for=a%26b%20%E5%AE%A2",
            ),
        ] {
            let page = NextPage::parse(page).unwrap();
            assert_eq!(page.with_account(&account, Some(&customer)), expected);
        }
        let page = NextPage::parse("/").unwrap();
        assert_eq!(page.with_account(&account, None), "/?appid=wxA");
    }
}
