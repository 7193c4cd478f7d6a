//! The layer's own answers.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, RETRY_AFTER,
};
use http::{Extensions, HeaderMap, HeaderValue, Method, Response, StatusCode, Uri};

use crate::credential::InvalidIdentifier;
use crate::error::{Error, ErrorKind};
use crate::identity::{RequestHead, Session};
use crate::login::{FailurePage, LoginHandler, Scope};
use crate::metrics::RequestOutcome;
use crate::navigation::{is_form_submission, is_navigation};

/// What a page of ours may load: its own style and nothing else. No other page may frame it, so
/// that nobody is led to press its button unawares.
const PAGE_CONTENT_SECURITY_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; \
                           form-action 'none'; frame-ancestors 'none'";

/// The errcode of a call that needs a scope which the user has not granted.
const SCOPE_NOT_GRANTED: i64 = 48_001;

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
    pub(super) scope: Option<Scope>,
    /// Whether the user was asked for that scope and did not grant it. They are not asked in a loop.
    pub(super) scope_declined: bool,
    /// Whether the layer's identity named nobody, rather than a user without a token.
    pub(super) unnamed: bool,
    /// The request, where whoever refused it had it at hand.
    pub(super) head: Option<Arc<OwnedHead>>,
}

/// A copy of a request's head.
pub(super) struct OwnedHead {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    extensions: Extensions,
}

impl OwnedHead {
    pub(super) fn borrow(&self) -> RequestHead<'_> {
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
    /// way to log in. In axum, [`Error`] and the extractors' rejections do this by themselves.
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
    pub(super) fn take_from<B>(response: &mut Response<B>) -> Option<Self> {
        if response.extensions().is_empty() {
            return None;
        }
        let status = response.status();
        let rejection: Self = response.extensions_mut().remove()?;
        (rejection.status() == status).then_some(rejection)
    }

    pub(crate) fn login_required() -> Self {
        Self::new(ErrorKind::LoginRequired, None)
    }

    /// The layer's identity names nobody.
    pub(super) fn unnamed() -> Self {
        Self {
            unnamed: true,
            ..Self::login_required()
        }
    }

    /// The user has granted less than this.
    pub(super) fn missing_scope(scope: Scope, session: Session) -> Self {
        Self {
            scope: Some(scope),
            scope_declined: session.snapshot || session.scope_declined,
            ..Self::login_required()
        }
    }

    /// Sets what a login asks for, unless that is known.
    pub(super) fn or_scope(self, scope: Option<Scope>) -> Self {
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

    /// No layer lies around the handler.
    pub(crate) fn no_layer() -> Self {
        tracing::error!(
            target: "tower_wechat::layer",
            "a handler takes a WechatUser, but no WechatLayer lies around its route"
        );
        Self::misconfigured()
    }

    /// The login's own routes have nothing there.
    pub(super) fn not_found() -> Self {
        Self {
            message: Cow::Borrowed("There is nothing at this address."),
            status: Some(StatusCode::NOT_FOUND),
            ..Self::new(ErrorKind::BadRequest, None)
        }
    }

    pub(crate) fn misconfigured() -> Self {
        Self::new(ErrorKind::Configuration, None)
    }

    /// A CORS preflight, which names no user.
    pub(super) fn preflight() -> Self {
        let message = "A CORS preflight names no user. Put the CORS layer outside of the \
                       WechatLayer, or set WechatLayer::pass_preflights.";
        Self {
            message: Cow::Borrowed(message),
            ..Self::login_required()
        }
    }

    /// A login leads the browser on; the address is added to whatever is rendered.
    pub(super) fn redirect() -> Self {
        Self {
            message: Cow::Borrowed("Go on to the address in the header Location."),
            status: Some(StatusCode::FOUND),
            ..Self::new(ErrorKind::LoginRequired, None)
        }
    }

    /// The content of a verification file. Status and type are added to whatever is rendered.
    pub(super) fn verification_file(content: String) -> Self {
        Self {
            message: Cow::Owned(content),
            status: Some(StatusCode::OK),
            ..Self::new(ErrorKind::LoginRequired, None)
        }
    }

    pub(super) fn with_login_url(mut self, url: String) -> Self {
        self.login_url = Some(url);
        self
    }

    /// A login that ended badly; a page for a reader, the same in one sentence for a program.
    pub(super) fn from_failure_page(problem: FailurePage) -> Self {
        let kind = problem.failure.kind();
        Self {
            message: Cow::Owned(problem.message()),
            status: Some(problem.failure.status()),
            failure_page: Some(Box::new(problem)),
            ..Self::new(kind, None)
        }
    }

    /// Where a login is mounted, readers get a page.
    pub(super) fn with_failure_page(self, login: &LoginHandler, head: &RequestHead<'_>) -> Self {
        let problem = login.failure_page(self.kind, self.retry_after, head.original_uri());
        Self {
            failure_page: self.failure_page.or(problem.map(Box::new)),
            ..self
        }
    }

    pub(super) fn invalid_user_id(invalid: InvalidIdentifier) -> Self {
        let message = format!("The request cannot name a user: {invalid}.");
        Self {
            message: Cow::Owned(message),
            ..Self::new(ErrorKind::BadRequest, None)
        }
    }

    fn new(kind: ErrorKind, retry_after: Option<Duration>) -> Self {
        let message = match kind {
            ErrorKind::LoginRequired => "Sign in with WeChat first.",
            ErrorKind::StoreUnavailable => "The store of tokens does not answer. Try again soon.",
            ErrorKind::WechatConfig => "WeChat does not accept this service at the moment.",
            ErrorKind::BadRequest => "The request cannot be right.",
            ErrorKind::Configuration => "The service is set up wrongly.",
            _ => "WeChat does not answer. Try again soon.",
        };
        Self {
            kind,
            message: Cow::Borrowed(message),
            retry_after,
            login_url: None,
            status: None,
            failure_page: None,
            scope: None,
            scope_declined: false,
            unnamed: false,
            head: None,
        }
    }

    pub(super) fn request_outcome(&self) -> RequestOutcome {
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

impl From<&Error> for Rejection {
    fn from(error: &Error) -> Self {
        // Whatever is behind it is told loudly, once, where it happened; this comes with every
        // request.
        if error.kind() != ErrorKind::LoginRequired {
            tracing::debug!(target: "tower_wechat::layer", code = error.kind().code(), %error, "no usable token");
        }
        let rejection = Self::new(error.kind(), error.retry_after());
        match error.kind() {
            // What is wrong with the request is its sender's to know.
            ErrorKind::BadRequest => Self {
                message: Cow::Owned(error.to_string()),
                ..rejection
            },
            // WeChat asks for the scope that this call needs.
            ErrorKind::LoginRequired if error.errcode() == Some(SCOPE_NOT_GRANTED) => Self {
                scope: Some(Scope::UserInfo),
                ..rejection
            },
            _ => rejection,
        }
    }
}

/// Renders a [`Rejection`].
///
/// The layer asks it for every answer of its own, and for those of handlers that cannot do without
/// what the layer could not give: axum's extractors ([`WechatUser`](crate::WechatUser),
/// [`AccountToken`](crate::AccountToken), [`JsConfig`](crate::JsConfig)), handlers that return an
/// [`Error`], and [`Rejection::response`]. Where a handler returns an error, the head has the
/// method, the URI that the browser requested, and the headers `Accept`, `Cookie`, `Referer`,
/// `Sec-Fetch-Mode` and `X-Requested-With`; the handler has taken the others.
///
/// Where a [`Login`](crate::Login) is mounted it is also asked for the redirects of a login, with
/// status 302, and for its verification files, with status 200 and their content as the
/// [`page`](Rejection::page): headers are added to what it returns.
///
/// Closures are renderers too, for bodies of any type:
///
/// ```
/// use http::Response;
/// use tower_wechat::{MemoryStore, Rejection, RequestHead, UserTokens, WechatClient, WechatLayer};
///
/// # fn main() -> Result<(), tower_wechat::Error> {
/// # let users = UserTokens::new(WechatClient::new("wx01", "secret")?, MemoryStore::new());
/// let layer = WechatLayer::new(users).reject(|rejection: &Rejection, _: &RequestHead<'_>| {
///     let mut response = Response::new(rejection.message().to_owned());
///     *response.status_mut() = rejection.status();
///     response
/// });
/// # Ok(()) }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` renders no rejection with a body of the type `{B}`",
    label = "no renderer for `{B}`",
    note = "say how: `.reject(JsonRejection::with(|bytes| ..))` makes a body from `Bytes`, and `.reject(|rejection: &Rejection, head: &RequestHead<'_>| ..)` a whole `Response<{B}>`",
    note = "where layers inside of this one wrap bodies (tracing, compression), put `tower_http::map_response_body::MapResponseBodyLayer::new(axum::body::Body::new)` between"
)]
pub trait Reject<B> {
    /// Whether this renders as [`Rejection::response`] does where no login is mounted. A response
    /// of a handler is left as it is then, and nothing of its request has to be kept.
    #[doc(hidden)]
    const IS_DEFAULT_RENDERING: bool = false;

    /// The answer to a request that does not reach its handler.
    fn reject(&self, rejection: &Rejection, head: &RequestHead<'_>) -> Response<B>;
}

#[diagnostic::do_not_recommend]
impl<F, B> Reject<B> for F
where
    F: Fn(&Rejection, &RequestHead<'_>) -> Response<B>,
{
    fn reject(&self, rejection: &Rejection, head: &RequestHead<'_>) -> Response<B> {
        self(rejection, head)
    }
}

/// Renders rejections as `{"error": CODE, "message": TEXT}`, with `login_url` where there is one.
/// Where a [`Login`](crate::Login) is mounted, a browser that opens a page gets a page instead.
///
/// ```
/// use bytes::Bytes;
/// use http::{HeaderValue, Response};
/// use tower_wechat::layer::{JsonRejection, Reject};
/// use tower_wechat::{Rejection, RequestHead};
///
/// /// The usual answers, with a header of the application's own.
/// fn reject(rejection: &Rejection, head: &RequestHead<'_>) -> Response<Bytes> {
///     let mut response: Response<Bytes> = JsonRejection::new().reject(rejection, head);
///     response.headers_mut().insert("x-service", HeaderValue::from_static("h5"));
///     response
/// }
/// ```
///
/// Bodies that are made from [`Bytes`] (axum's, `Full`, `Bytes`) need no more. For others,
/// [`with`](Self::with) takes a function.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct JsonRejection<M = FromBytes>(M);

impl JsonRejection {
    /// The default rendering, for bodies that are made from [`Bytes`].
    pub const fn new() -> Self {
        Self(FromBytes)
    }
}

impl<M> JsonRejection<M> {
    /// The default rendering, for bodies that this function makes: boxes of hyper's, bodies of
    /// gRPC.
    ///
    /// ```
    /// use bytes::Bytes;
    /// use http_body_util::{BodyExt, Full, combinators::BoxBody};
    /// use tower_wechat::layer::JsonRejection;
    /// use tower_wechat::{MemoryStore, UserTokens, WechatClient, WechatLayer};
    ///
    /// type Body = BoxBody<Bytes, std::io::Error>;
    ///
    /// # fn main() -> Result<(), tower_wechat::Error> {
    /// # let users = UserTokens::new(WechatClient::new("wx01", "secret")?, MemoryStore::new());
    /// let boxed = |bytes| Body::new(Full::new(bytes).map_err(|never| match never {}));
    /// let layer = WechatLayer::new(users).reject(JsonRejection::with(boxed));
    /// # Ok(()) }
    /// ```
    pub const fn with<B>(make: M) -> Self
    where
        M: Fn(Bytes) -> B,
    {
        Self(make)
    }
}

/// Makes bodies by their own `From<Bytes>`.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
#[allow(unnameable_types)]
pub struct FromBytes;

/// Makes the body of an answer.
#[diagnostic::on_unimplemented(
    message = "the layer cannot make a body of the type `{B}` for its own answers",
    label = "no `{B}` is made from bytes here",
    note = "say how: `.reject(JsonRejection::with(|bytes| ..))` makes a body from `Bytes`, and `.reject(|rejection: &Rejection, head: &RequestHead<'_>| ..)` a whole response",
    note = "where layers inside of this one wrap bodies (tracing, compression), put `tower_http::map_response_body::MapResponseBodyLayer::new(axum::body::Body::new)` between"
)]
#[allow(unnameable_types)]
pub trait MakeBody<B> {
    /// The body that holds these bytes.
    fn make(&self, bytes: Bytes) -> B;
}

#[diagnostic::do_not_recommend]
impl<B: From<Bytes>> MakeBody<B> for FromBytes {
    fn make(&self, bytes: Bytes) -> B {
        B::from(bytes)
    }
}

#[diagnostic::do_not_recommend]
impl<B, F: Fn(Bytes) -> B> MakeBody<B> for F {
    fn make(&self, bytes: Bytes) -> B {
        self(bytes)
    }
}

impl<B, M: MakeBody<B>> Reject<B> for JsonRejection<M> {
    const IS_DEFAULT_RENDERING: bool = true;

    fn reject(&self, rejection: &Rejection, head: &RequestHead<'_>) -> Response<B> {
        #[derive(serde::Serialize)]
        struct Body<'a> {
            error: &'a str,
            message: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            login_url: Option<&'a str>,
        }
        if rejection.status().is_redirection() {
            return Response::new(self.0.make(Bytes::new()));
        }
        let is_page =
            rejection.is_verification_file() || is_navigation(head) || is_form_submission(head);
        let page = rejection.page().filter(|_| is_page);
        let is_page = page.is_some();
        let (body, content_type) = match page {
            Some(page) => (page.into_bytes(), "text/html; charset=utf-8"),
            None => {
                let body = Body {
                    error: rejection.code(),
                    message: rejection.message(),
                    login_url: rejection.login_url(),
                };
                (
                    serde_json::to_vec(&body).unwrap_or_default(),
                    "application/json",
                )
            }
        };
        let mut response = Response::new(self.0.make(Bytes::from(body)));
        *response.status_mut() = rejection.status();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        if is_page {
            // The page stands at a URL with a code in it, and needs nothing from anywhere.
            headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
            headers.insert(
                CONTENT_SECURITY_POLICY,
                HeaderValue::from_static(PAGE_CONTENT_SECURITY_POLICY),
            );
        }
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = rejection.retry_after_secs() {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
