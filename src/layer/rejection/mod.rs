//! The layer's own answers.

mod causes;
mod json;
mod reject;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Extensions, HeaderMap, Method, Response, StatusCode, Uri};

pub use self::json::JsonRejection;
pub use self::reject::Reject;
use crate::error::ErrorKind;
use crate::identity::RequestHead;
use crate::login::{FailurePage, LoginHandler, Scope};
use crate::metrics::RequestOutcome;

/// Why a request did not reach its handler.
///
/// ```
/// use axum::body::Body;
/// use http::{Response, header::CONTENT_TYPE};
/// use tower_wechat::{ErrorKind, Rejection, RequestHead};
///
/// /// Answers in the application's own form, for `WechatLayer::reject`.
/// fn reject(rejection: &Rejection, _: &RequestHead<'_>) -> Response<Body> {
///     let response = Response::builder().status(rejection.status());
///     // Where a browser opens a page, and a login is mounted:
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
    message: Cow<'static, str>,
    retry_after: Option<Duration>,
    login_url: Option<String>,
    /// Where the kind does not tell it.
    status: Option<StatusCode>,
    /// What a reader is told instead of a program.
    failure_page: Option<Box<FailurePage>>,
    /// What the user has to grant. `None`: whatever the login asks for.
    pub(in crate::layer) scope: Option<Scope>,
    /// Whether the user was asked for that scope and did not grant it. They are not asked in a loop.
    pub(in crate::layer) scope_declined: bool,
    /// Whether the layer's identity named nobody, rather than a user without a token.
    pub(in crate::layer) unnamed: bool,
    /// The request, where whoever refused it had it at hand.
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
    /// What went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The status of the answer: 401 without a user, 400 for what makes no sense, 503 while the
    /// store or WeChat fails. Where a login ends badly: 400, 403, 429, 502 or 503.
    pub fn status(&self) -> StatusCode {
        if let Some(status) = self.status {
            return status;
        }
        match self.kind {
            ErrorKind::LoginRequired => StatusCode::UNAUTHORIZED,
            ErrorKind::BadRequest => StatusCode::BAD_REQUEST,
            ErrorKind::Configuration => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// The code for programs: `login_required`, `store_unavailable`, `wechat_unavailable`,
    /// `wechat_config`, `bad_request`; where a login ends badly also `invalid_state` and
    /// `login_denied`.
    pub fn code(&self) -> &'static str {
        match self.kind {
            ErrorKind::TokenRefused | ErrorKind::WechatRefused => {
                ErrorKind::WechatUnavailable.code()
            }
            kind => kind.code(),
        }
    }

    /// A sentence for people. Says nothing of addresses, errcodes or secrets: those are in the log.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// When it makes sense to try again, where that is known.
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// Where the user can log in: a path of our own. Set where the answer is 401 and the layer
    /// knows a login.
    pub fn login_url(&self) -> Option<&str> {
        self.login_url.as_deref()
    }

    /// The page that tells a reader what happened, as HTML in Chinese and English: where a
    /// [`Login`](crate::Login) is mounted and the request is a navigation. For a
    /// [verification file](crate::login::LoginBuilder::verification_file) its content, to be answered as it is.
    pub fn page(&self) -> Option<String> {
        match self.is_verification_file() {
            true => Some(self.message.clone().into_owned()),
            false => self.failure_page.as_ref().map(|problem| problem.html()),
        }
    }

    /// Returns `true` if this is the content of a file, and no rejection at all.
    fn is_verification_file(&self) -> bool {
        self.status == Some(StatusCode::OK)
    }

    /// The response of a handler that was called and cannot serve the request: `{"error": CODE,
    /// "message": TEXT}`, until it reaches the layer around the handler. The layer renders it in
    /// the application's own form ([`WechatLayer::reject`](crate::WechatLayer::reject)), with the
    /// way to log in. In axum, [`Error`](crate::Error) and the extractors' rejections do this by themselves.
    ///
    /// A handler may add headers and they stay. If it sets another status, the response stays as it
    /// is. Where several layers lie around the handler, the innermost renders.
    ///
    /// ```
    /// use std::convert::Infallible;
    ///
    /// use bytes::Bytes;
    /// use http::{Request, Response};
    /// use http_body_util::Full;
    /// use tower_wechat::{Rejection, WechatUser};
    ///
    /// /// A handler without axum.
    /// async fn card<B>(request: Request<B>) -> Result<Response<Full<Bytes>>, Infallible> {
    ///     let user = match WechatUser::required(&request) {
    ///         Ok(user) => user,
    ///         Err(rejection) => return Ok(rejection.response().map(Full::new)),
    ///     };
    ///     Ok(match user.profile().await {
    ///         Ok(profile) => Response::new(Full::from(profile.nickname.clone())),
    ///         Err(error) => Rejection::from(&error).response().map(Full::new),
    ///     })
    /// }
    /// ```
    pub fn response(self) -> Response<Bytes> {
        let (method, uri, headers, extensions) = Default::default();
        let empty_head = RequestHead {
            method: &method,
            uri: &uri,
            headers: &headers,
            extensions: &extensions,
        };
        let mut response: Response<Bytes> = JsonRejection::new().reject(&self, &empty_head);
        response.extensions_mut().insert(self);
        response
    }

    /// The rejection that a handler has left in its response, unless the handler has made another
    /// response of it since.
    #[inline]
    pub(in crate::layer) fn take_from<B>(response: &mut Response<B>) -> Option<Self> {
        if response.extensions().is_empty() {
            return None;
        }
        let status = response.status();
        let rejection: Self = response.extensions_mut().remove()?;
        (rejection.status() == status).then_some(rejection)
    }

    /// Sets what a login asks for, unless that is known.
    pub(in crate::layer) fn or_scope(self, scope: Option<Scope>) -> Self {
        Self {
            scope: self.scope.or(scope),
            ..self
        }
    }

    /// Keeps the request, for the layer that renders this.
    pub(crate) fn retain_head(self, head: &RequestHead<'_>) -> Self {
        let head = OwnedHead {
            method: head.method.clone(),
            // Before a router inside of the layer took a prefix away.
            uri: head.original_uri().clone(),
            headers: head.headers.clone(),
            extensions: head.extensions.clone(),
        };
        Self {
            head: Some(Arc::new(head)),
            ..self
        }
    }

    pub(in crate::layer) fn with_login_url(mut self, url: String) -> Self {
        self.login_url = Some(url);
        self
    }

    /// Where a login is mounted, readers get a page.
    pub(in crate::layer) fn with_failure_page(
        self,
        login: &LoginHandler,
        head: &RequestHead<'_>,
    ) -> Self {
        let problem = login.failure_page(self.kind, self.retry_after, head.original_uri());
        Self {
            failure_page: self.failure_page.or(problem.map(Box::new)),
            ..self
        }
    }

    pub(in crate::layer) fn request_outcome(&self) -> RequestOutcome {
        match self.kind {
            ErrorKind::LoginRequired if !self.scope_declined => RequestOutcome::Login,
            _ => RequestOutcome::Rejected,
        }
    }

    /// Whole seconds for `Retry-After`, where the answer carries it.
    fn retry_after_secs(&self) -> Option<u64> {
        if self.status() != StatusCode::SERVICE_UNAVAILABLE {
            return None;
        }
        let failure_page_retry_after = self
            .failure_page
            .as_ref()
            .and_then(|problem| problem.retry_after);
        let wait = self
            .retry_after
            .or(failure_page_retry_after)
            .unwrap_or(Duration::from_secs(1));
        Some(wait.as_secs() + u64::from(wait.subsec_nanos() > 0))
    }
}
