//! The selector, which reads the AppID of an account from a request.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use http::header::{HOST, HeaderName};

use crate::credential::AppId;
use crate::error::Error;
use crate::identity::RequestHead;
use crate::login::Login;

/// The part of a request that names its account.
///
/// The layer selects the account of a request once, before it does anything else. A request that names
/// no account, or one that the layer does not serve, receives 404 `unknown_account`.
///
/// ```
/// use tower_wechat::credential::AppId;
/// use tower_wechat::{AccountSelector, RequestHead};
///
/// # fn main() -> Result<(), tower_wechat::Error> {
/// // https://h5.example.com/wx0123456789abcdef/orders
/// let by_path = AccountSelector::path();
/// // https://shop.example.com/orders
/// let by_host = AccountSelector::host([("shop.example.com", "wx0123456789abcdef")])?;
/// // A gateway sets the header, and removes it from the requests of its clients.
/// let by_header = AccountSelector::header("x-account")?;
/// // https://h5.example.com/orders?appid=wx0123456789abcdef
/// let by_query = AccountSelector::query("appid")?;
/// // https://h5.example.com/shop/orders
/// let by_name = AccountSelector::from_fn(|head: &RequestHead<'_>| {
///     match head.uri.path().split('/').nth(1)? {
///         "shop" => AppId::new("wx0123456789abcdef").ok(),
///         _ => None,
///     }
/// });
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct AccountSelector(Source);

type SelectFn = dyn Fn(&RequestHead<'_>) -> Option<AppId> + Send + Sync;

#[derive(Clone)]
enum Source {
    /// The first segment of the path, behind this prefix.
    Path(Box<str>),
    Host(Arc<HashMap<String, AppId>>),
    Header(HeaderName),
    Query(Box<str>),
    Function(Arc<SelectFn>),
}

/// The name of an account in a request. The text is not necessarily an AppID.
pub(super) enum SelectedName<'a> {
    Text(&'a str),
    AppId(AppId),
}

impl SelectedName<'_> {
    pub(super) fn as_str(&self) -> &str {
        match self {
            Self::Text(text) => text,
            Self::AppId(app_id) => app_id.as_str(),
        }
    }
}

impl AccountSelector {
    /// Selects by the first segment of the path, which is the AppID: `/APPID/…`. Routers inside of the
    /// layer serve `/{appid}/…`.
    ///
    /// The public URL of an account's login ends with the AppID, as in
    /// `https://h5.example.com/wx0123456789abcdef`, so that the callback lies below it.
    pub fn path() -> Self {
        Self(Source::Path("".into()))
    }

    /// Selects by the first segment of the path behind `prefix`: `/prefix/APPID/…`. A path without the
    /// prefix, which some proxies remove, is selected by its first segment.
    ///
    /// The public URL of an account's login ends with the prefix and the AppID, as in
    /// `https://example.com/h5/wx0123456789abcdef`.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`](crate::ErrorKind::Configuration): the prefix does not begin with a
    /// slash, or ends with one.
    pub fn path_below(prefix: &str) -> Result<Self, Error> {
        match prefix.starts_with('/') && !prefix.ends_with('/') {
            true => Ok(Self(Source::Path(prefix.into()))),
            false => Err(Error::configuration(format!(
                "{prefix:?} is no prefix of paths for accounts: write one like /h5"
            ))),
        }
    }

    /// Selects by the host of the request: pairs of a host and an AppID. The host is that of the header
    /// `Host`, in any letter case. A host with a port matches this port only, and a host without a port
    /// matches every port.
    ///
    /// A proxy must pass the header `Host` on.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`](crate::ErrorKind::Configuration): a host is empty, is no host or
    /// occurs twice, or an AppID is invalid.
    pub fn host<H, A>(accounts: impl IntoIterator<Item = (H, A)>) -> Result<Self, Error>
    where
        H: AsRef<str>,
        A: AsRef<str>,
    {
        let mut hosts = HashMap::new();
        for (host, app_id) in accounts {
            let host = host.as_ref();
            if host.parse::<http::uri::Authority>().is_err() || host.contains('@') {
                return Err(Error::configuration(format!(
                    "{host:?} is no host of an account: write one like shop.example.com"
                )));
            }
            let app_id = app_id.as_ref();
            let app_id = AppId::new(app_id).map_err(|why| {
                Error::configuration(format!(
                    "the account {app_id:?} of the host {host}: {why}; write pairs of a host and an \
                     AppID"
                ))
            })?;
            if hosts.insert(host.to_ascii_lowercase(), app_id).is_some() {
                return Err(Error::configuration(format!(
                    "the host {host} has two accounts: each host names one"
                )));
            }
        }
        Ok(Self(Source::Host(Arc::new(hosts))))
    }

    /// Selects by a header whose value is the AppID. A request with several values names no account.
    ///
    /// **Use it only behind a gateway that sets the header itself**, and removes the header from its
    /// clients' requests. The gateway must also set the header for WeChat's redirects to the callback.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`](crate::ErrorKind::Configuration): `name` is no name of a header.
    pub fn header(name: &str) -> Result<Self, Error> {
        let header = HeaderName::try_from(name);
        header.map(|name| Self(Source::Header(name))).map_err(|_| {
            Error::configuration(format!(
                "{name:?} is no header that names an account: write one like x-account"
            ))
        })
    }

    /// Selects by a parameter of the query whose value is the AppID. A request with several different
    /// values names no account.
    ///
    /// The login adds the parameter to its callback and to its own links. Links between the pages of
    /// the application must have it too.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`](crate::ErrorKind::Configuration): `name` is one of the login's own
    /// parameters, or has other characters than ASCII letters, digits, `-` and `_`.
    pub fn query(name: &str) -> Result<Self, Error> {
        let is_plain = |letter: u8| letter.is_ascii_alphanumeric() || b"-_".contains(&letter);
        let own = ["code", "format", "return_to", "scope", "state"];
        match !name.is_empty() && name.bytes().all(is_plain) && !own.contains(&name) {
            true => Ok(Self(Source::Query(name.into()))),
            false => Err(Error::configuration(format!(
                "{name:?} is no parameter that names an account: write one like appid"
            ))),
        }
    }

    /// Selects by a function of the request's head, such as one that looks up a name of the
    /// application. The argument of a closure needs its type: `|head: &RequestHead<'_>|`. The
    /// function runs for every request, so it must not block.
    ///
    /// WeChat's redirect to the callback must select the same account as the login's start: the
    /// callbacks of two accounts differ in what the function reads.
    pub fn from_fn<F>(select: F) -> Self
    where
        F: Fn(&RequestHead<'_>) -> Option<AppId> + Send + Sync + 'static,
    {
        Self(Source::Function(Arc::new(select)))
    }

    /// Returns the name of the request's account, or `None` if the request names none.
    #[inline]
    pub(super) fn select<'a>(&'a self, head: &RequestHead<'a>) -> Option<SelectedName<'a>> {
        match &self.0 {
            Source::Path(prefix) => {
                let path = head.original_uri().path();
                let below = path.strip_prefix(&**prefix).filter(|_| !prefix.is_empty());
                let below = below.filter(|rest| rest.starts_with('/')).unwrap_or(path);
                let below = below.strip_prefix('/')?;
                // For a name as short as an AppID, this search costs less than `split`.
                let end = memchr::memchr(b'/', below.as_bytes());
                Some(SelectedName::Text(end.map_or(below, |end| &below[..end])))
            }
            Source::Host(hosts) => {
                let host = requested_host(head)?;
                let app_id = hosts.get(&*host);
                let app_id = app_id.or_else(|| hosts.get(without_port(&host)))?;
                Some(SelectedName::Text(app_id.as_str()))
            }
            Source::Header(name) => {
                let mut values = head.headers.get_all(name).iter();
                let value = values.next()?;
                match values.next() {
                    Some(_) => None,
                    None => Some(SelectedName::Text(value.to_str().ok()?)),
                }
            }
            Source::Query(name) => {
                let pairs = head.uri.query()?.split('&');
                let mut values = pairs.filter_map(|pair| {
                    let (key, value) = pair.split_once('=')?;
                    (key == &**name).then_some(value)
                });
                let value = values.next()?;
                values
                    .all(|other| other == value)
                    .then_some(SelectedName::Text(value))
            }
            Source::Function(select) => select(head).map(SelectedName::AppId),
        }
    }

    /// Returns the text in which the selector looks for an account, for a log line. Returns `None` if
    /// the request lacks that text, or a function selects.
    pub(super) fn examined_text<'a>(&'a self, head: &RequestHead<'a>) -> Option<Cow<'a, str>> {
        match &self.0 {
            Source::Path(_) => Some(head.original_uri().path().into()),
            Source::Host(_) => requested_host(head),
            Source::Header(name) => {
                let value = head.headers.get(name)?;
                Some(String::from_utf8_lossy(value.as_bytes()))
            }
            Source::Query(_) => self
                .select(head)
                .map(|name| name.as_str().to_owned().into()),
            Source::Function(_) => None,
        }
    }

    /// Returns what to check if requests name no account.
    pub(super) const fn advice(&self) -> &'static str {
        match &self.0 {
            Source::Path(_) => {
                "the path must begin with the AppID: a proxy or an outer router may remove it, \
                 and links need it"
            }
            Source::Host(_) => {
                "the proxy must pass the header Host on, and AccountSelector::host must name it"
            }
            Source::Header(_) => "the gateway must set the header, also for WeChat's redirects",
            Source::Query(_) => "every link needs the parameter, and proxies must keep the query",
            Source::Function(_) => {
                "the function of AccountSelector::from_fn must select an account, also for callbacks"
            }
        }
    }

    /// Returns the parameter that the login of this account must add to its links and to its callback,
    /// such as `appid=wx01`.
    pub(super) fn query_parameter(&self, app_id: &AppId) -> Option<String> {
        match &self.0 {
            Source::Query(name) => Some(format!("{name}={}", app_id.as_str())),
            Source::Path(_) | Source::Host(_) | Source::Header(_) | Source::Function(_) => None,
        }
    }

    /// Returns an error if the callback of this login would not select its account.
    pub(super) fn check_login(&self, app_id: &AppId, login: &Login) -> Result<(), Error> {
        let app = app_id.as_str();
        match &self.0 {
            Source::Path(below) => {
                let path = login.public_path("/");
                let end = format!("{below}/{app}");
                match path.trim_end_matches('/').ends_with(&end) {
                    true => Ok(()),
                    false => Err(Error::configuration(format!(
                        "the account {app} is selected by path, so the public URL of its login must \
                         end with {end}; it ends with {path:?}"
                    ))),
                }
            }
            Source::Host(hosts) => {
                let host = login.public_host();
                let own = hosts.get(host).or_else(|| hosts.get(without_port(host)));
                let instead = match own {
                    Some(own) if own == app_id => return Ok(()),
                    Some(other) => format!("the account {}", other.as_str()),
                    None => "no account".to_owned(),
                };
                let mut named: Vec<_> = hosts
                    .iter()
                    .filter(|(_, account)| *account == app_id)
                    .map(|(host, _)| host.as_str())
                    .collect();
                named.sort_unstable();
                let named = match named.is_empty() {
                    true => "no host".to_owned(),
                    false => named.join(", "),
                };
                Err(Error::configuration(format!(
                    "the host {host} in the public URL of the login of the account {app} selects \
                     {instead}: name {host} in AccountSelector::host, which names {named} for the \
                     account"
                )))
            }
            Source::Header(_) | Source::Query(_) | Source::Function(_) => Ok(()),
        }
    }
}

/// Returns the host to which the browser sent the request, in lower case: the header `Host`, or the
/// URI's host with HTTP/2.
fn requested_host<'a>(head: &RequestHead<'a>) -> Option<Cow<'a, str>> {
    let mut hosts = head.headers.get_all(HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (Some(host), None) => host.to_str().ok()?,
        (Some(_), Some(_)) => return None,
        (None, _) => head.original_uri().authority()?.as_str(),
    };
    match host.bytes().any(|letter| letter.is_ascii_uppercase()) {
        true => Some(host.to_ascii_lowercase().into()),
        false => Some(host.into()),
    }
}

/// Returns a host without its port.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|digit| digit.is_ascii_digit()) => name,
        _ => host,
    }
}

impl Default for AccountSelector {
    /// Returns [`AccountSelector::path`].
    fn default() -> Self {
        Self::path()
    }
}

impl fmt::Debug for AccountSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Source::Path(prefix) => write!(f, "path {prefix}/APPID"),
            Source::Host(hosts) => write!(f, "{} hosts", hosts.len()),
            Source::Header(name) => write!(f, "header {name}"),
            Source::Query(name) => write!(f, "query {name}"),
            Source::Function(_) => f.write_str("function"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn selected(selector: &AccountSelector, uri: &str, headers: &[(&str, &str)]) -> Option<String> {
        let mut request = Request::get(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(()).unwrap();
        let name = selector.select(&RequestHead::from_request(&request));
        name.map(|name| name.as_str().to_owned())
    }

    #[test]
    fn the_path_names_an_account_by_its_first_segment() {
        let path = AccountSelector::path();
        for (uri, name) in [
            ("/wx1", Some("wx1")),
            ("/wx1/", Some("wx1")),
            ("/wx1/a/b?c=wx2", Some("wx1")),
            ("/", Some("")),
            ("//wx1", Some("")),
            ("http://h5.example.com/wx1/a", Some("wx1")),
        ] {
            assert_eq!(selected(&path, uri, &[]).as_deref(), name, "{uri}");
        }
        let below = AccountSelector::path_below("/h5").unwrap();
        assert_eq!(selected(&below, "/h5/wx1/a", &[]).as_deref(), Some("wx1"));
        assert_eq!(selected(&below, "/wx1/a", &[]).as_deref(), Some("wx1"));
        assert_eq!(selected(&below, "/h5x/wx1", &[]).as_deref(), Some("h5x"));
        assert!(AccountSelector::path_below("h5").is_err());
        assert!(AccountSelector::path_below("/").is_err());
    }

    #[test]
    fn the_host_names_an_account_in_any_case_and_with_any_port() {
        let hosts = [
            ("Shop.example.com", "wx1"),
            ("club.example.com:8443", "wx2"),
        ];
        let host = AccountSelector::host(hosts).unwrap();
        for (header, name) in [
            ("shop.example.com", Some("wx1")),
            ("SHOP.example.com:81", Some("wx1")),
            ("club.example.com:8443", Some("wx2")),
            ("club.example.com", None),
            ("club.example.com:443", None),
            ("example.com", None),
            ("", None),
            ("[::1]:80", None),
        ] {
            let found = selected(&host, "/", &[("host", header)]);
            assert_eq!(found.as_deref(), name, "{header}");
        }
        let twice = [("host", "shop.example.com"), ("host", "shop.example.com")];
        assert_eq!(selected(&host, "/", &twice), None);
        let http2 = selected(&host, "https://shop.example.com/a", &[]);
        assert_eq!(http2.as_deref(), Some("wx1"));
        for bad in [
            [("a.example", "wx1"), ("A.example", "wx2")],
            [("", "wx1"), ("b", "wx2")],
            [("a/b", "wx1"), ("b", "wx2")],
            [("a", "wx 1"), ("b", "wx2")],
        ] {
            assert!(AccountSelector::host(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_header_or_a_parameter_names_one_account() {
        let header = AccountSelector::header("X-Account").unwrap();
        let of = |values: &[&str]| {
            let headers: Vec<_> = values.iter().map(|value| ("x-account", *value)).collect();
            selected(&header, "/", &headers)
        };
        assert_eq!(of(&["wx1"]).as_deref(), Some("wx1"));
        assert_eq!(
            (of(&[]), of(&["wx1", "wx1"]), of(&["wx\u{e9}"])),
            (None, None, None)
        );
        assert!(AccountSelector::header("x account").is_err());

        let query = AccountSelector::query("appid").unwrap();
        for (uri, name) in [
            ("/?appid=wx1", Some("wx1")),
            ("/?a=b&appid=wx1&appid=wx1", Some("wx1")),
            ("/?appid=wx1&appid=wx2", None),
            ("/?Appid=wx1", None),
            ("/?appid", None),
            ("/", None),
        ] {
            assert_eq!(selected(&query, uri, &[]).as_deref(), name, "{uri}");
        }
        for bad in ["", "state", "return_to", "a b", "a&b"] {
            assert!(AccountSelector::query(bad).is_err(), "{bad}");
        }
    }
}
