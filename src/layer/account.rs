//! The account as a handler sees it: its token, and signatures for the current page.

use std::fmt;
use std::sync::Arc;

use http::header::{HOST, ORIGIN, REFERER};
use http::{Extensions, HeaderMap, Method, Request, Uri};

use crate::accounts::AccountTokens;
use crate::credential::AppId;
use crate::error::{Error, ErrorKind};
use crate::identity::RequestHead;
use crate::jssdk::{JsConfig, page_url};
use crate::navigation::is_navigation;
use crate::tickets::Tickets;

/// The account of a request, put into its extensions by
/// [`WechatLayer::account`](super::WechatLayer::account): a handle, nothing is fetched for it.
///
/// ```
/// use tower_wechat::layer::WechatAccount;
/// use tower_wechat::Error;
///
/// async fn followers<B>(request: &http::Request<B>) -> Result<usize, Error> {
///     let Some(account) = request.extensions().get::<WechatAccount>() else { return Ok(0) };
///     let token = account.tokens().get().await?;
///     Ok(token.access_token().expose().len())
/// }
/// ```
///
/// axum handlers take an [`AccountToken`](crate::AccountToken), or the [`JsConfig`] of the page
/// that asks, as an argument (feature `axum`).
///
/// ```
/// use http::HeaderMap;
/// use tower_wechat::credential::AppId;
/// use tower_wechat::layer::WechatAccount;
/// use tower_wechat::{Error, JsConfig, Tickets};
///
/// /// For `WechatLayer::account`: with tickets, pages can be signed.
/// fn account(tickets: Tickets) -> WechatAccount {
///     WechatAccount::from(tickets).public_url("https://h5.example.com")
/// }
///
/// /// Of the accounts that layers around a route have left, this one.
/// async fn sign(account: &WechatAccount, headers: &HeaderMap, shop: &AppId) -> Result<JsConfig, Error> {
///     let account = account.for_app(shop).unwrap_or(account);
///     println!("{} signs, with tickets: {}", account.app_id(), account.tickets().is_some());
///     account.js_config(headers).await
/// }
/// ```
#[derive(Clone)]
pub struct WechatAccount {
    config: Arc<AccountConfig>,
    method: Method,
    /// What the request asked for before a router took its prefix away.
    uri: Uri,
    /// The account of a layer further out on the same route.
    outer: Option<Arc<WechatAccount>>,
}

#[derive(Clone)]
struct AccountConfig {
    tokens: AccountTokens,
    tickets: Option<Tickets>,
    /// Scheme and host, without a slash at the end.
    public_url: Option<String>,
}

impl From<AccountTokens> for WechatAccount {
    fn from(accounts: AccountTokens) -> Self {
        Self::new(AccountConfig {
            tokens: accounts,
            tickets: None,
            public_url: None,
        })
    }
}

impl From<Tickets> for WechatAccount {
    fn from(tickets: Tickets) -> Self {
        Self::new(AccountConfig {
            tokens: tickets.accounts().clone(),
            tickets: Some(tickets),
            public_url: None,
        })
    }
}

impl WechatAccount {
    fn new(config: AccountConfig) -> Self {
        Self {
            config: Arc::new(config),
            method: Method::GET,
            uri: Uri::default(),
            outer: None,
        }
    }

    /// The origin that browsers see, such as `https://h5.example.com`, for pages that this service
    /// renders itself. Without it their address is taken from `Host` and `X-Forwarded-Proto`
    /// (`https` where that is missing); only hosts that the [`Tickets`] know are signed either
    /// way.
    #[must_use]
    pub fn public_url(self, origin: impl AsRef<str>) -> Self {
        let mut shared = Arc::unwrap_or_clone(self.config);
        shared.public_url = Some(origin.as_ref().trim_end_matches('/').to_owned());
        Self::new(shared)
    }

    /// The account's tokens.
    pub fn tokens(&self) -> &AccountTokens {
        &self.config.tokens
    }

    /// The account's ticket and signatures, where the layer was given them.
    pub fn tickets(&self) -> Option<&Tickets> {
        self.config.tickets.as_ref()
    }

    /// Which account this is.
    pub fn app_id(&self) -> &AppId {
        self.config.tokens.app_id()
    }

    /// This account or that of a layer further out, by its AppID.
    pub fn for_app(&self, app_id: &AppId) -> Option<&WechatAccount> {
        let mut account = Some(self);
        while let Some(candidate) = account {
            if candidate.app_id() == app_id {
                return Some(candidate);
            }
            account = candidate.outer.as_deref();
        }
        None
    }

    /// The signature of the page that asks. Where this request loads a page, that is the page. Where
    /// a script makes it, the page is what the script sends as `url` (read by
    /// [`jssdk::page_url`](crate::jssdk::page_url)), else what the `Referer` tells.
    ///
    /// Browsers cut the `Referer` to the bare origin where a page calls a service of another origin.
    /// Such a request is refused and has to send `url`; so has every script of a page whose own
    /// `Referrer-Policy` cuts the `Referer` (`origin`, `strict-origin`, `no-referrer`), since a
    /// bare origin looks like the start page's URL.
    ///
    /// # Errors
    /// As [`Tickets::js_config`]; [`ErrorKind::BadRequest`] for a script's request that does not
    /// tell its page, and [`ErrorKind::Configuration`] where the layer was given no [`Tickets`].
    pub async fn js_config(&self, headers: &HeaderMap) -> Result<JsConfig, Error> {
        let Some(tickets) = self.tickets() else {
            let message = "the layer was given no Tickets, so no page can be signed: pass them to \
                           WechatLayer::account";
            return Err(Error::configuration(message));
        };
        tickets.js_config(&self.page_url_of_request(headers)?).await
    }

    fn page_url_of_request(&self, headers: &HeaderMap) -> Result<String, Error> {
        let head = RequestHead {
            method: &self.method,
            uri: &self.uri,
            headers,
            extensions: &Extensions::new(),
        };
        if !is_navigation(&head) {
            return match has_url_parameter(&self.uri) {
                true => page_url(&self.uri),
                false => self.page_url_of_referer(headers),
            };
        }
        let path = self.uri.path_and_query().map_or("/", |path| path.as_str());
        if let Some(origin) = &self.config.public_url {
            return Ok(format!("{origin}{path}"));
        }
        let scheme = match header_text(headers, "x-forwarded-proto") {
            Some("http") => "http",
            _ => "https",
        };
        let host = self.requested_host(headers).unwrap_or_default();
        Ok(format!("{scheme}://{host}{path}"))
    }

    /// The page that a script runs on, as its request's `Referer` tells.
    fn page_url_of_referer(&self, headers: &HeaderMap) -> Result<String, Error> {
        let bad_request = |what: &str| {
            let message = format!(
                "a script asks for a JS-SDK configuration, and {what}: send url= and \
                 encodeURIComponent(location.href.split('#')[0])"
            );
            Err(Error::new(ErrorKind::BadRequest, message))
        };
        let Some(page) = header_text(headers, REFERER.as_str()) else {
            return bad_request("its Referer is missing");
        };
        if is_bare_origin(page) && !self.is_same_origin(page, headers) {
            return bad_request("its Referer tells the origin of the page alone");
        }
        Ok(page.to_owned())
    }

    /// Whether a script of this origin asks for something of the same origin. Browsers then send the
    /// whole `Referer`, and an origin alone is the start page.
    fn is_same_origin(&self, page: &str, headers: &HeaderMap) -> bool {
        if let Some(site) = header_text(headers, "sec-fetch-site") {
            return site.eq_ignore_ascii_case("same-origin");
        }
        // Older browsers. They name the origin where it is another one, at least for scripts.
        let origin = page.trim_end_matches('/');
        if header_text(headers, ORIGIN.as_str()).is_some_and(|from| from != origin) {
            return false;
        }
        let host = origin.split_once("://").map(|(_, host)| host);
        self.config.public_url.as_deref() == Some(origin)
            || (host.is_some() && host == self.requested_host(headers))
    }

    fn requested_host<'a>(&'a self, headers: &'a HeaderMap) -> Option<&'a str> {
        header_text(headers, HOST.as_str()).or(self.uri.authority().map(|host| host.as_str()))
    }

    /// Puts the account into a request. That of a layer further out is kept behind.
    pub(super) fn insert_into<B>(&self, request: &mut Request<B>) {
        // The page's own, before a router took its prefix away: that is what is signed.
        let uri = RequestHead::from_request(request).original_uri().clone();
        let method = request.method().clone();
        let extensions = request.extensions_mut();
        let outer = match extensions.remove::<Self>() {
            Some(outer) if outer.app_id() == self.app_id() => outer.outer,
            outer => outer.map(Arc::new),
        };
        extensions.insert(Self {
            config: Arc::clone(&self.config),
            method,
            uri,
            outer,
        });
    }
}

fn header_text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// Whether a request brings the URL of its page.
fn has_url_parameter(request: &Uri) -> bool {
    let mut pairs = request.query().unwrap_or_default().split('&');
    pairs.any(|pair| pair.split('=').next() == Some("url"))
}

/// Whether a URL has neither a path nor a query.
fn is_bare_origin(url: &str) -> bool {
    let after_scheme = url.split_once("://").map_or(url, |(_, rest)| rest);
    match after_scheme.split_once(['/', '?']) {
        Some((_, rest)) => after_scheme.ends_with('/') && rest.is_empty(),
        None => true,
    }
}

impl fmt::Debug for WechatAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WechatAccount")
            .field("app_id", self.app_id())
            .field("public_url", &self.config.public_url)
            .finish_non_exhaustive()
    }
}
