//! The layer's own answers.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};

use crate::credential::InvalidIdentifier;
use crate::error::{Error, ErrorKind};
use crate::identity::RequestHead;
use crate::observe::Outcome;

/// Why a request did not reach its handler.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Rejection {
    kind: ErrorKind,
    message: String,
    retry_after: Option<Duration>,
    login_url: Option<String>,
}

impl Rejection {
    /// What went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The status of the answer: 400, 401 or 503.
    pub fn status(&self) -> StatusCode {
        match self.kind {
            ErrorKind::LoginRequired => StatusCode::UNAUTHORIZED,
            ErrorKind::BadRequest => StatusCode::BAD_REQUEST,
            ErrorKind::Configuration => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// The code for programs: `login_required`, `store_unavailable`, `wechat_unavailable`,
    /// `wechat_config`, `bad_request`.
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

    pub(crate) fn nobody() -> Self {
        Self::new(ErrorKind::LoginRequired, None)
    }

    pub(super) fn invalid(invalid: InvalidIdentifier) -> Self {
        let message = format!("The request cannot name a user: {invalid}.");
        Self {
            message,
            ..Self::new(ErrorKind::BadRequest, None)
        }
    }

    pub(crate) fn from_error(error: &Error) -> Self {
        // Whatever is behind it is told loudly, once, where it happened; this comes with every
        // request.
        if error.kind() != ErrorKind::LoginRequired {
            tracing::debug!(code = error.kind().code(), %error, "no usable token");
        }
        Self::new(error.kind(), error.retry_after())
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
            message: message.to_owned(),
            retry_after,
            login_url: None,
        }
    }

    pub(super) fn outcome(&self) -> Outcome {
        match self.kind {
            ErrorKind::LoginRequired => Outcome::Login,
            _ => Outcome::Rejected,
        }
    }

    /// Whole seconds for `Retry-After`, where the answer carries it.
    fn retry_after_secs(&self) -> Option<u64> {
        if self.status() != StatusCode::SERVICE_UNAVAILABLE {
            return None;
        }
        let wait = self.retry_after.unwrap_or(Duration::from_secs(1));
        Some(wait.as_secs() + u64::from(wait.subsec_nanos() > 0))
    }
}

/// Renders a [`Rejection`].
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
pub trait Reject<B> {
    /// The answer to a request that does not reach its handler.
    fn reject(&self, rejection: &Rejection, head: &RequestHead<'_>) -> Response<B>;
}

impl<F, B> Reject<B> for F
where
    F: Fn(&Rejection, &RequestHead<'_>) -> Response<B>,
{
    fn reject(&self, rejection: &Rejection, head: &RequestHead<'_>) -> Response<B> {
        self(rejection, head)
    }
}

/// Renders rejections as `{"error": CODE, "message": TEXT}`, with `login_url` where there is one.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct JsonRejection;

impl JsonRejection {
    /// The default rendering.
    pub const fn new() -> Self {
        Self
    }
}

impl<B: From<Bytes>> Reject<B> for JsonRejection {
    fn reject(&self, rejection: &Rejection, _head: &RequestHead<'_>) -> Response<B> {
        #[derive(serde::Serialize)]
        struct Body<'a> {
            error: &'a str,
            message: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            login_url: Option<&'a str>,
        }
        let body = Body {
            error: rejection.code(),
            message: rejection.message(),
            login_url: rejection.login_url(),
        };
        let body = Bytes::from(serde_json::to_vec(&body).unwrap_or_default());
        let mut response = Response::new(B::from(body));
        *response.status_mut() = rejection.status();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = rejection.retry_after_secs() {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
