//! The account of a request, as its handler receives it: the account's token, and signatures for pages.

use std::fmt;
use std::sync::Arc;

use http::header::{HOST, ORIGIN, REFERER};
use http::{Extensions, HeaderMap, Method, Request, Uri};

use super::outer::{OfAccount, Outer, find};
use crate::accounts::AccountTokens;
use crate::credential::AppId;
use crate::error::{Error, ErrorKind};
use crate::identity::{RequestHead, SessionCookie};
use crate::jssdk::{JsConfig, page_url};
use crate::login::LoginHandler;
use crate::login::public_url::PublicUrl;
use crate::navigation::{header_text, is_navigation};
use crate::tickets::Tickets;
use crate::users::UserTokens;

/// The account of a request: a handle to its token and its ticket.
///
/// [`WechatLayer::account`](super::WechatLayer::account) inserts a `WechatAccount` into the
/// request's extensions. A layer of [several accounts](crate::Accounts) always does: it is the account
/// that was selected for the request. The token and the ticket are fetched when the handler calls for
/// them.
///
/// axum handlers take a `WechatAccount`, an [`AccountToken`](crate::AccountToken), or the [`JsConfig`] of
/// the page that made the request, as an argument (feature `axum`). Other handlers read the account from the extensions:
///
/// ```
/// use tower_wechat::layer::WechatAccount;
/// use tower_wechat::{AccountToken, Error};
///
/// async fn token<B>(request: &http::Request<B>) -> Result<Option<AccountToken>, Error> {
///     let Some(account) = request.extensions().get::<WechatAccount>() else { return Ok(None) };
///     account.tokens().get().await.map(Some)
/// }
/// ```
///
/// With [`Tickets`], the account signs pages. On a route with layers for several accounts,
/// [`for_app`](Self::for_app) returns the account with an AppID:
///
/// ```
/// use http::HeaderMap;
/// use tower_wechat::credential::AppId;
/// use tower_wechat::layer::WechatAccount;
/// use tower_wechat::{Error, JsConfig, Tickets};
///
/// /// Returns the argument of `WechatLayer::account`.
/// fn account(tickets: Tickets) -> WechatAccount {
///     WechatAccount::from(tickets).public_url("https://h5.example.com")
/// }
///
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
    /// The URI that the browser requested. Nested routers remove their prefix from the request's URI.
    uri: Uri,
    outer: Outer<WechatAccount>,
}

#[derive(Clone)]
struct AccountConfig {
    tokens: AccountTokens,
    tickets: Option<Tickets>,
    /// The tokens of the account's users. `None` before the account is given to a layer.
    users: Option<UserTokens>,
    /// The session cookie of the account's login.
    session_cookie: Option<SessionCookie>,
    /// The origin that browsers see, without a slash at the end, as the application sets it.
    public_url: Option<String>,
    /// The public URL of the layer's login, which is the default of `public_url`. If both are
    /// `None`, the origin is read from the request.
    login_url: Option<PublicUrl>,
}

impl From<AccountTokens> for WechatAccount {
    fn from(accounts: AccountTokens) -> Self {
        Self::new(AccountConfig {
            tokens: accounts,
            tickets: None,
            users: None,
            session_cookie: None,
            public_url: None,
            login_url: None,
        })
    }
}

impl From<Tickets> for WechatAccount {
    fn from(tickets: Tickets) -> Self {
        Self::new(AccountConfig {
            tokens: tickets.accounts().clone(),
            tickets: Some(tickets),
            users: None,
            session_cookie: None,
            public_url: None,
            login_url: None,
        })
    }
}

impl WechatAccount {
    fn new(config: AccountConfig) -> Self {
        Self {
            config: Arc::new(config),
            method: Method::GET,
            uri: Uri::default(),
            outer: Outer::NONE,
        }
    }

    /// Sets the origin that browsers see, such as `https://h5.example.com`, for signatures of pages that
    /// this service renders. [`Tickets`] sign only pages of the hosts that they were created with.
    ///
    /// Default: the public URL of the layer's [`login`](super::WechatLayer::login), with its path if a
    /// proxy serves the application below one. Without a login: the host of the header `Host`, and
    /// the scheme of `X-Forwarded-Proto`, or `https` without that header.
    #[must_use]
    pub fn public_url(self, origin: impl AsRef<str>) -> Self {
        let mut config = Arc::unwrap_or_clone(self.config);
        config.public_url = Some(origin.as_ref().trim_end_matches('/').to_owned());
        Self::new(config)
    }

    /// Sets the default of [`public_url`](Self::public_url), and the session cookie: those of the
    /// layer's login.
    pub(super) fn with_login(self, login: &LoginHandler) -> Self {
        let mut config = Arc::unwrap_or_clone(self.config);
        config.login_url = Some(login.public_url().clone());
        config.session_cookie = Some(login.session_cookie().clone());
        Self::new(config)
    }

    /// Sets the tokens of the account's users.
    pub(super) fn with_users(self, users: &UserTokens) -> Self {
        let mut config = Arc::unwrap_or_clone(self.config);
        config.users = Some(users.clone());
        Self::new(config)
    }

    /// Returns the handle to the tokens of the account's users. Returns `None` if the layer serves the
    /// users of another account, or before the value is given to a layer.
    pub fn users(&self) -> Option<&UserTokens> {
        self.config.users.as_ref()
    }

    /// Returns the session cookie of the account's login, or `None` if the account has no login.
    ///
    /// With it an application's own login, for example by phone number, signs in a user of the selected
    /// account who has logged in with WeChat before:
    ///
    /// ```
    /// use http::header::SET_COOKIE;
    /// use http::{Response, StatusCode};
    /// use tower_wechat::UserId;
    /// use tower_wechat::layer::WechatAccount;
    ///
    /// /// Answers a request whose phone number belongs to this user of the account.
    /// fn sign_in(account: &WechatAccount, user: &UserId) -> Response<String> {
    ///     let Some(session) = account.session_cookie() else {
    ///         return status(StatusCode::NOT_FOUND);
    ///     };
    ///     let mut response = status(StatusCode::NO_CONTENT);
    ///     response.headers_mut().insert(SET_COOKIE, session.issue(user));
    ///     response
    /// }
    /// # fn status(status: StatusCode) -> Response<String> {
    /// #     let mut response = Response::default();
    /// #     *response.status_mut() = status;
    /// #     response
    /// # }
    /// ```
    pub fn session_cookie(&self) -> Option<&SessionCookie> {
        self.config.session_cookie.as_ref()
    }

    /// Returns the handle to the account's token.
    pub fn tokens(&self) -> &AccountTokens {
        &self.config.tokens
    }

    /// Returns the handle to the account's ticket, or `None` if the layer has no [`Tickets`].
    pub fn tickets(&self) -> Option<&Tickets> {
        self.config.tickets.as_ref()
    }

    /// Returns the account's AppID.
    pub fn app_id(&self) -> &AppId {
        self.config.tokens.app_id()
    }

    /// Returns the account with this AppID: this account, or one that a layer further out has
    /// inserted.
    pub fn for_app(&self, app_id: &AppId) -> Option<&WechatAccount> {
        find(self, app_id)
    }

    /// Returns the JS-SDK signature of the page that made the request.
    ///
    /// If the request loads a page, that page is signed. For a script's request, the page is the
    /// parameter `url` of the request (read by [`jssdk::page_url`](crate::jssdk::page_url)).
    /// Without that parameter, the page is the `Referer`.
    ///
    /// Some scripts must send `url`, because browsers shorten their `Referer` to the origin, or
    /// omit it. An origin alone looks like the URL of the start page:
    ///
    /// - scripts of a page of another origin; without `url` their request fails;
    /// - scripts of a page whose `Referrer-Policy` is `origin`, `strict-origin` or `no-referrer`.
    ///
    /// # Errors
    /// Returns the errors of [`Tickets::js_config`]; [`ErrorKind::BadRequest`] if a script's
    /// request does not contain the URL of its page; [`ErrorKind::Configuration`] if the layer has
    /// no [`Tickets`].
    pub async fn js_config(&self, headers: &HeaderMap) -> Result<JsConfig, Error> {
        let Some(tickets) = self.tickets() else {
            let message = "the account has no Tickets, so no page can be signed: pass them to \
                           WechatLayer::account, or call Account::page_hosts for one of several accounts";
            return Err(Error::configuration(message));
        };
        tickets.js_config(&self.page_url_of_request(headers)?).await
    }

    /// Returns the URL of the page that the request loads, or of the page whose script made the
    /// request.
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
        if let Some(url) = &self.config.login_url {
            return Ok(url.absolute_url(&url.public_path(path)));
        }
        let scheme = match header_text(headers, "x-forwarded-proto") {
            Some("http") => "http",
            _ => "https",
        };
        let host = self.requested_host(headers).unwrap_or_default();
        Ok(format!("{scheme}://{host}{path}"))
    }

    /// Returns the page on which a script runs, from the `Referer` of the script's request.
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

    /// Returns `true` if the script on `page` made the request to the page's own origin. Browsers
    /// then send the full `Referer`, so a bare origin is the URL of the start page.
    fn is_same_origin(&self, page: &str, headers: &HeaderMap) -> bool {
        if let Some(site) = header_text(headers, "sec-fetch-site") {
            return site.eq_ignore_ascii_case("same-origin");
        }
        // Older browsers do not send Sec-Fetch-Site, but they send Origin with a script's request
        // to another origin.
        let origin = page.trim_end_matches('/');
        if header_text(headers, ORIGIN.as_str()).is_some_and(|from| from != origin) {
            return false;
        }
        let host = origin.split_once("://").map(|(_, host)| host);
        let login_url = self.config.login_url.as_ref();
        self.config.public_url.as_deref() == Some(origin)
            || login_url.is_some_and(|url| url.strip_origin(origin) == Some(""))
            || (host.is_some() && host == self.requested_host(headers))
    }

    /// Returns the host to which the browser sent the request: the header `Host`, or the URI's
    /// host.
    fn requested_host<'a>(&'a self, headers: &'a HeaderMap) -> Option<&'a str> {
        header_text(headers, HOST.as_str()).or(self.uri.authority().map(|host| host.as_str()))
    }

    /// Inserts the account into a request, and keeps the account of a layer further out.
    pub(super) fn insert_into<B>(&self, request: &mut Request<B>) {
        // The browser's URL is signed. Nested routers remove their prefix from the request's URI.
        let uri = RequestHead::from_request(request).original_uri().clone();
        let method = request.method().clone();
        let extensions = request.extensions_mut();
        let outer = match extensions.remove::<Self>() {
            Some(replaced) => Outer::of_replaced(replaced, self.app_id()),
            None => Outer::NONE,
        };
        extensions.insert(Self {
            config: Arc::clone(&self.config),
            method,
            uri,
            outer,
        });
    }
}

/// Returns `true` if the query has a parameter `url`.
fn has_url_parameter(request: &Uri) -> bool {
    let mut pairs = request.query().unwrap_or_default().split('&');
    pairs.any(|pair| pair.split('=').next() == Some("url"))
}

/// Returns `true` if a URL has no path other than `/` and no query.
fn is_bare_origin(url: &str) -> bool {
    let after_scheme = url.split_once("://").map_or(url, |(_, rest)| rest);
    match after_scheme.split_once(['/', '?']) {
        Some((_, rest)) => after_scheme.ends_with('/') && rest.is_empty(),
        None => true,
    }
}

impl OfAccount for WechatAccount {
    fn account(&self) -> &AppId {
        self.app_id()
    }

    fn outer(&self) -> &Outer<Self> {
        &self.outer
    }
}

impl fmt::Debug for WechatAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WechatAccount")
            .field("app_id", self.app_id())
            .field("public_url", &self.config.public_url)
            .field("login_url", &self.config.login_url)
            .finish_non_exhaustive()
    }
}
