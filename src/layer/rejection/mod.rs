//! Rejections: why a request has no user or no token, and what its client receives.

mod causes;
mod json;
mod reject;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::header::{CACHE_CONTROL, RETRY_AFTER};
use http::{Extensions, HeaderMap, HeaderValue, Method, Response, StatusCode, Uri};

pub use self::json::JsonRejection;
pub use self::reject::Reject;
#[cfg(doc)]
use super::WechatUser;
#[cfg(doc)]
use crate::error::Error;
use crate::error::{ErrorKind, retry_after_seconds};
use crate::identity::RequestHead;
use crate::login::{FailurePage, LoginHandler, Scope};
use crate::metrics::RequestOutcome;

/// The reason why a request did not reach its handler, or why its handler could not serve it.
///
/// The layer makes rejections, and so do axum's extractors and [`WechatUser::required`]. An
/// application makes them from an [`Error`]. A handler returns a rejection, or its
/// [`response`](Self::response) without axum. The layer around the handler then renders it like its
/// own: with a redirect to the login or the login's URL, and in the application's own form.
///
/// ```
/// use axum::response::{IntoResponse, Response};
/// use tower_wechat::{Rejection, WechatUser};
///
/// /// Adds a header to the rejection of anonymous requests, under `Policy::Optional`.
/// async fn me(user: Result<WechatUser, Rejection>) -> Response {
///     match user {
///         Ok(user) => format!("hello {}", user.id()).into_response(),
///         Err(rejection) => ([("x-help", "/how-to-log-in")], rejection).into_response(),
///     }
/// }
/// ```
///
/// A [`Reject`] renders the rejection as a response:
///
/// ```
/// use axum::body::Body;
/// use http::{Response, header::CONTENT_TYPE};
/// use tower_wechat::{ErrorKind, Rejection, RequestHead};
///
/// /// Renders rejections in the application's own form, for `WechatLayer::reject`.
/// fn reject(rejection: &Rejection, _: &RequestHead<'_>) -> Response<Body> {
///     let response = Response::builder().status(rejection.status());
///     // A browser opens a page, and the layer has a login:
///     if let Some(page) = rejection.page() {
///         return response.header(CONTENT_TYPE, "text/html; charset=utf-8").body(page.into()).unwrap();
///     }
///     if rejection.kind() == ErrorKind::StoreUnavailable {
///         eprintln!("try again in {:?}", rejection.retry_after());
///     }
///     let body = serde_json::json!({
///         "ok": false,
///         "reason": rejection.code(),
///         "text": rejection.message(),
///         "login": rejection.login_url(),
///     });
///     response.body(body.to_string().into()).unwrap()
/// }
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Rejection {
    kind: ErrorKind,
    /// The code of a rejection of the application. `None`: the code that belongs to `kind`.
    code: Option<&'static str>,
    message: Cow<'static, str>,
    retry_after: Option<Duration>,
    login_url: Option<String>,
    /// The status of the response. `None`: the status that belongs to `kind`.
    status: Option<StatusCode>,
    /// The page that browsers receive in place of JSON.
    failure_page: Option<Box<FailurePage>>,
    /// The scope that the user has to grant. `None`: the scope in the login's settings.
    pub(in crate::layer) scope: Option<Scope>,
    /// `true` if WeChat has asked the user for `scope` and the user did not grant it, and for every
    /// user of a snapshot page. A second redirect would start a loop.
    pub(in crate::layer) scope_declined: bool,
    /// `true` if the request was rejected because the layer's identity found no user in it.
    pub(in crate::layer) unnamed: bool,
    /// The head of the rejected request, if an extractor has copied it. Without this copy, the
    /// layer renders with the part of the head that it has retained.
    pub(in crate::layer) head: Option<Arc<OwnedHead>>,
}

/// A copy of a request's head.
pub(in crate::layer) struct OwnedHead {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    extensions: Extensions,
}

impl OwnedHead {
    pub(in crate::layer) fn borrow(&self) -> RequestHead<'_> {
        RequestHead {
            method: &self.method,
            uri: &self.uri,
            headers: &self.headers,
            extensions: &self.extensions,
        }
    }
}

impl fmt::Debug for OwnedHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.borrow().fmt(f)
    }
}

impl Rejection {
    /// Creates a rejection of the application's own, which the layer around the handler renders in
    /// the form of all rejections. `code` is for scripts, and `message` is a sentence for people.
    ///
    /// The [`kind`](Self::kind) is [`ErrorKind::Application`]. No status starts a login, and there is
    /// no [`page`](Self::page): browsers that open a page receive the same JSON as scripts.
    ///
    /// ```
    /// use http::StatusCode;
    /// use tower_wechat::{Rejection, WechatUser};
    ///
    /// struct NotFound;
    ///
    /// impl From<NotFound> for Rejection {
    ///     fn from(_: NotFound) -> Self {
    ///         Self::new(StatusCode::NOT_FOUND, "not_found", "no such order")
    ///     }
    /// }
    ///
    /// async fn order(user: WechatUser) -> Result<String, Rejection> {
    ///     let buyer = user.profile().await?.nickname.clone();
    ///     let order: Option<String> = None;
    ///     Ok(order.ok_or(NotFound)? + &buyer)
    /// }
    /// ```
    pub fn new(
        status: StatusCode,
        code: &'static str,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            code: Some(code),
            message: message.into(),
            status: Some(status),
            ..Self::of_kind(ErrorKind::Application, None)
        }
    }

    /// Returns the kind of the failure.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Returns the status of the response: that of [`new`](Self::new), or that of
    /// [`Error::status`] for the same kind. A failed login has 400, 403, 429, 500, 502 or 503.
    /// A [`LoginService`](crate::layer::LoginService) rejects unknown paths with 404.
    pub fn status(&self) -> StatusCode {
        self.status.unwrap_or_else(|| self.kind.status())
    }

    /// Returns the code for scripts: that of [`new`](Self::new), or that of the
    /// [`kind`](ErrorKind::code). The kinds `TokenRefused` and `WechatRefused` have
    /// `wechat_unavailable`, because the difference concerns the log and not the script.
    pub fn code(&self) -> &'static str {
        match (self.code, self.kind) {
            (Some(code), _) => code,
            (None, ErrorKind::TokenRefused | ErrorKind::WechatRefused) => {
                ErrorKind::WechatUnavailable.code()
            }
            (None, kind) => kind.code(),
        }
    }

    /// Returns a sentence for people. The sentence contains no addresses, errcodes or secrets; the
    /// log has those.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Returns the time after which a retry can succeed, if it is known.
    pub fn retry_after(&self) -> Option<Duration> {
        let wait_of_page = || self.failure_page.as_ref()?.retry_after;
        self.retry_after.or_else(wait_of_page)
    }

    /// Returns the URL at which the user can log in, if the status is 401 and the layer has a
    /// login. The URL is a path of this service. For a page of a
    /// [listed origin](crate::login::LoginBuilder::return_origins), it is absolute.
    ///
    /// The login leads back to the page in the request's header `Referer`, or to `/` without one.
    pub fn login_url(&self) -> Option<&str> {
        self.login_url.as_deref()
    }

    /// Returns an HTML page in Chinese and English that describes the failure, if the layer has a
    /// [`Login`](crate::Login). The page is meant for browsers that open a page or send a form.
    ///
    /// For a reply of the login with status 200, returns the content, and the response must be exactly
    /// this content. Such replies are [verification
    /// files](crate::login::LoginBuilder::verification_file), the parameters of a QR code in a page,
    /// and the page that loads a callback in a frame again.
    pub fn page(&self) -> Option<String> {
        match self.is_content() {
            true => Some(self.message.clone().into_owned()),
            false => self.failure_page.as_ref().map(|page| page.html()),
        }
    }

    /// Returns `true` if this value has the content of a successful reply of the login, and is not a
    /// rejection.
    fn is_content(&self) -> bool {
        self.status == Some(StatusCode::OK) && self.kind != ErrorKind::Application
    }

    /// Returns `true` if this value stands for a redirect of the login and is not a rejection.
    fn is_redirect_of_login(&self) -> bool {
        self.status == Some(StatusCode::FOUND) && self.kind != ErrorKind::Application
    }

    /// Removes the rejection that a handler put into the extensions of its response, and returns
    /// it. Returns `None` if the response's status is no longer the rejection's.
    #[inline]
    pub(in crate::layer) fn take_from<B>(response: &mut Response<B>) -> Option<Self> {
        if response.extensions().is_empty() {
            return None;
        }
        let status = response.status();
        let rejection: Self = response.extensions_mut().remove()?;
        (rejection.status() == status).then_some(rejection)
    }

    /// Sets the scope that the user has to grant, unless the rejection already has a scope.
    pub(in crate::layer) fn or_scope(self, scope: Option<Scope>) -> Self {
        Self {
            scope: self.scope.or(scope),
            ..self
        }
    }

    /// Sets the scope that the user has to grant, unless the rejection has a broader scope.
    pub(in crate::layer) fn at_least_scope(self, scope: Scope) -> Self {
        let scope = self.scope.map_or(scope, |other| other.at_least(scope));
        Self {
            scope: Some(scope),
            ..self
        }
    }

    /// Copies the head of the request, with which the layer renders this rejection later.
    pub(crate) fn retain_head(self, head: &RequestHead<'_>) -> Self {
        let head = OwnedHead {
            method: head.method.clone(),
            // Nested routers inside of the layer have removed their prefix from the URI.
            uri: head.original_uri().clone(),
            headers: head.headers.clone(),
            extensions: head.extensions.clone(),
        };
        Self {
            head: Some(Arc::new(head)),
            ..self
        }
    }

    /// Sets the URL at which the user can log in.
    pub(in crate::layer) fn with_login_url(mut self, url: String) -> Self {
        self.login_url = Some(url);
        self
    }

    /// Sets the page that describes this failure to people, unless the rejection already has a
    /// page.
    pub(in crate::layer) fn with_failure_page(
        self,
        login: &LoginHandler,
        head: &RequestHead<'_>,
    ) -> Self {
        let page = login.failure_page(self.kind, self.retry_after, head.original_uri());
        Self {
            failure_page: self.failure_page.or(page.map(Box::new)),
            ..self
        }
    }

    /// Sets the page that describes a failure before the account of the request was known.
    pub(in crate::layer) fn with_page_without_account(self) -> Self {
        let page = FailurePage::without_account(self.kind, self.retry_after);
        Self {
            failure_page: page.map(Box::new),
            ..self
        }
    }

    /// Returns the outcome under which the metrics count the rejected request.
    pub(in crate::layer) fn request_outcome(&self) -> RequestOutcome {
        match self.kind {
            ErrorKind::LoginRequired if !self.scope_declined => RequestOutcome::Login,
            ErrorKind::LoginRequired
            | ErrorKind::StoreUnavailable
            | ErrorKind::WechatUnavailable
            | ErrorKind::WechatConfig
            | ErrorKind::TokenRefused
            | ErrorKind::WechatRefused
            | ErrorKind::InvalidState
            | ErrorKind::LoginDenied
            | ErrorKind::BadRequest
            | ErrorKind::UnknownAccount
            | ErrorKind::AccountsUnavailable
            | ErrorKind::PlatformStarting
            | ErrorKind::AccountNotAuthorized
            | ErrorKind::Configuration
            | ErrorKind::Application => RequestOutcome::Rejected,
        }
    }

    /// Returns the value of `Retry-After` for a response with status 503: the known wait, or one
    /// second. Returns `None` for every other status.
    fn retry_after_secs(&self) -> Option<u64> {
        if self.status() != StatusCode::SERVICE_UNAVAILABLE {
            return None;
        }
        let wait = self.retry_after().unwrap_or(Duration::from_secs(1));
        Some(retry_after_seconds(wait))
    }

    /// Adds headers that every response of a rejection needs, unless the renderer has set them:
    /// `Cache-Control`, because the next request may succeed, and `Retry-After` with status 503.
    pub(in crate::layer) fn add_missing_headers(&self, headers: &mut HeaderMap) {
        headers
            .entry(CACHE_CONTROL)
            .or_insert(HeaderValue::from_static("no-store"));
        if let Some(seconds) = self.retry_after_secs() {
            let wait = HeaderValue::from(seconds);
            headers.entry(RETRY_AFTER).or_insert(wait);
        }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Rejection {}
