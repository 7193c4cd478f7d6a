//! The account as a handler sees it: its token, and signatures for the current page.

use std::fmt;
use std::sync::Arc;

use http::header::{HOST, REFERER};
use http::{HeaderMap, Request, Uri};

use crate::accounts::AccountTokens;
use crate::credential::AppId;
use crate::error::{Error, ErrorKind};
use crate::identity::RequestHead;
use crate::jssdk::JsConfig;
use crate::tickets::Tickets;

/// The account of a request, put into its extensions by
/// [`WechatLayer::account`](super::WechatLayer::account): a handle, nothing is fetched for it.
///
/// ```
/// use tower_wechat::{Error, WechatAccount};
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
/// use tower_wechat::{AppId, Error, JsConfig, Tickets, WechatAccount};
///
/// /// For `WechatLayer::account`: with tickets, pages can be signed.
/// fn account(tickets: Tickets) -> WechatAccount {
///     WechatAccount::from(tickets).public_url("https://h5.example.com")
/// }
///
/// /// Of the accounts that layers around a route have left, this one.
/// async fn sign(account: &WechatAccount, headers: &HeaderMap, shop: &AppId) -> Result<JsConfig, Error> {
///     let account = account.of(shop).unwrap_or(account);
///     println!("{} signs, with tickets: {}", account.app_id(), account.tickets().is_some());
///     account.js_config(headers).await
/// }
/// ```
#[derive(Clone)]
pub struct WechatAccount {
    shared: Arc<Shared>,
    /// What the request asked for before a router took its prefix away.
    uri: Uri,
    /// The account of a layer further out on the same route.
    outer: Option<Arc<WechatAccount>>,
}

#[derive(Clone)]
struct Shared {
    accounts: AccountTokens,
    tickets: Option<Tickets>,
    /// Scheme and host, without a slash at the end.
    public_url: Option<String>,
}

impl From<AccountTokens> for WechatAccount {
    fn from(accounts: AccountTokens) -> Self {
        Self::new(Shared {
            accounts,
            tickets: None,
            public_url: None,
        })
    }
}

impl From<Tickets> for WechatAccount {
    fn from(tickets: Tickets) -> Self {
        Self::new(Shared {
            accounts: tickets.accounts().clone(),
            tickets: Some(tickets),
            public_url: None,
        })
    }
}

impl WechatAccount {
    fn new(shared: Shared) -> Self {
        Self {
            shared: Arc::new(shared),
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
        let mut shared = Arc::unwrap_or_clone(self.shared);
        shared.public_url = Some(origin.as_ref().trim_end_matches('/').to_owned());
        Self::new(shared)
    }

    /// The account's tokens.
    pub fn tokens(&self) -> &AccountTokens {
        &self.shared.accounts
    }

    /// The account's ticket and signatures, where the layer was given them.
    pub fn tickets(&self) -> Option<&Tickets> {
        self.shared.tickets.as_ref()
    }

    /// Which account this is.
    pub fn app_id(&self) -> &AppId {
        self.shared.accounts.app_id()
    }

    /// This account or that of a layer further out, by its AppID.
    pub fn of(&self, app_id: &AppId) -> Option<&WechatAccount> {
        let mut account = Some(self);
        while let Some(candidate) = account {
            if candidate.app_id() == app_id {
                return Some(candidate);
            }
            account = candidate.outer.as_deref();
        }
        None
    }

    /// The signature of the page that asks: the one that this request loads, or, where a script
    /// makes the request, the page that it runs on, as its `Referer` tells.
    ///
    /// # Errors
    /// As [`Tickets::js_config`]; [`ErrorKind::BadRequest`] for a script's request without a
    /// `Referer`, and [`ErrorKind::Configuration`] where the layer was given no [`Tickets`].
    pub async fn js_config(&self, headers: &HeaderMap) -> Result<JsConfig, Error> {
        let Some(tickets) = self.tickets() else {
            let message = "the layer was given no Tickets, so no page can be signed: pass them to \
                           WechatLayer::account";
            return Err(Error::new(ErrorKind::Configuration, message));
        };
        tickets.js_config(&self.page(headers)?).await
    }

    fn page(&self, headers: &HeaderMap) -> Result<String, Error> {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        if !is_navigation(headers) {
            return text(REFERER.as_str()).map(str::to_owned).ok_or_else(|| {
                let message = "a script's request for a JS-SDK configuration needs a Referer: set \
                               no Referrer-Policy that hides the page, or pass its URL yourself";
                Error::new(ErrorKind::BadRequest, message)
            });
        }
        let path = self.uri.path_and_query().map_or("/", |path| path.as_str());
        if let Some(origin) = &self.shared.public_url {
            return Ok(format!("{origin}{path}"));
        }
        let host = text(HOST.as_str()).or(self.uri.authority().map(|host| host.as_str()));
        let scheme = match text("x-forwarded-proto") {
            Some("http") => "http",
            _ => "https",
        };
        Ok(format!("{scheme}://{}{path}", host.unwrap_or_default()))
    }

    /// Puts the account into a request. That of a layer further out is kept behind.
    pub(super) fn enter<B>(&self, request: &mut Request<B>) {
        // The page's own, before a router took its prefix away: that is what is signed.
        let uri = RequestHead::of(request).asked().clone();
        let extensions = request.extensions_mut();
        let outer = match extensions.remove::<Self>() {
            Some(outer) if outer.app_id() == self.app_id() => outer.outer,
            outer => outer.map(Arc::new),
        };
        extensions.insert(Self {
            shared: Arc::clone(&self.shared),
            uri,
            outer,
        });
    }
}

/// Whether a browser loads a page with this request, and not a script something from a page.
fn is_navigation(headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    match text("sec-fetch-mode") {
        Some(mode) => mode == "navigate",
        None => text("accept").is_some_and(|accept| accept.contains("text/html")),
    }
}

impl fmt::Debug for WechatAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WechatAccount")
            .field("app_id", self.app_id())
            .field("public_url", &self.shared.public_url)
            .finish_non_exhaustive()
    }
}
