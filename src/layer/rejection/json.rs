//! The default rendering: JSON for scripts, pages for browsers.

use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, RETRY_AFTER,
};
use http::{HeaderValue, Response};

use super::{Reject, Rejection};
use crate::identity::RequestHead;
use crate::navigation::{is_form_submission, is_navigation};

/// What a page of ours may load: its own style and nothing else. No other page may frame it, so
/// that nobody is led to press its button unawares.
const PAGE_CONTENT_SECURITY_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; \
                           form-action 'none'; frame-ancestors 'none'";

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
