//! The default rendering: JSON for scripts, pages for browsers.

use bytes::Bytes;
use http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY};
use http::{HeaderValue, Response};
use serde::Serialize;

use super::{Reject, Rejection};
use crate::html_page::HtmlPage;
use crate::identity::RequestHead;
use crate::navigation::{is_form_submission, is_navigation};

/// The default renderer: `{"error": CODE, "message": TEXT}`, with `login_url` if the rejection has
/// one.
///
/// If the layer has a [`Login`](crate::Login), browsers that open a page receive an HTML page instead.
/// The application's own rejections ([`Rejection::new`]) have no page and are always JSON.
///
/// ```
/// use bytes::Bytes;
/// use http::{HeaderValue, Response};
/// use tower_wechat::layer::{JsonRejection, Reject};
/// use tower_wechat::{Rejection, RequestHead};
///
/// /// The default responses, with a header of the application's own.
/// fn reject(rejection: &Rejection, head: &RequestHead<'_>) -> Response<Bytes> {
///     let mut response: Response<Bytes> = JsonRejection::new().reject(rejection, head);
///     response.headers_mut().insert("x-service", HeaderValue::from_static("h5"));
///     response
/// }
/// ```
///
/// [`json`](Self::json) replaces the JSON by that of the application, and keeps pages, status and headers.
/// The function returns an owned value, such as `serde_json::Value`, that borrows nothing from the rejection.
///
/// The renderer makes bodies of every type that implements `From<Bytes>`, such as axum's body and
/// `Full`. For other bodies, pass a function to [`with`](Self::with).
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct JsonRejection<M = FromBytes, J = DefaultJson> {
    make_body: M,
    make_json: J,
}

impl JsonRejection {
    /// Creates a renderer for bodies that implement `From<Bytes>`.
    pub const fn new() -> Self {
        Self {
            make_body: FromBytes,
            make_json: DefaultJson,
        }
    }
}

impl<M> JsonRejection<M> {
    /// Creates a renderer that makes bodies with this function, for example boxed bodies and bodies of
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
        Self {
            make_body: make,
            make_json: DefaultJson,
        }
    }

    /// Sets the function that makes the JSON of a rejection.
    ///
    /// Browsers still receive pages and redirects to the login, WeChat receives verification files,
    /// and the responses have the same status and headers as in the default form.
    ///
    /// ```
    /// use serde_json::json;
    /// use tower_wechat::layer::JsonRejection;
    /// use tower_wechat::{MemoryStore, UserTokens, WechatClient, WechatLayer};
    ///
    /// # fn main() -> Result<(), tower_wechat::Error> {
    /// # let users = UserTokens::new(WechatClient::new("wx01", "secret")?, MemoryStore::new());
    /// let renderer = JsonRejection::new().json(|rejection| {
    ///     json!({ "code": rejection.code(), "msg": rejection.message(), "login": rejection.login_url() })
    /// });
    /// let layer = WechatLayer::new(users).reject(renderer);
    /// # Ok(()) }
    /// ```
    pub fn json<J, T>(self, json: J) -> JsonRejection<M, J>
    where
        J: Fn(&Rejection) -> T,
        T: Serialize,
    {
        JsonRejection {
            make_body: self.make_body,
            make_json: json,
        }
    }
}

impl Rejection {
    /// Returns a response for a handler without axum that cannot serve its request. In axum, a
    /// handler returns the rejection itself or an [`Error`](crate::Error).
    ///
    /// Its body is `{"error": CODE, "message": TEXT}`. The layer around the handler replaces the
    /// body with one of the application's own form
    /// ([`WechatLayer::reject`](crate::WechatLayer::reject)). It also adds the URL of the login, or
    /// a redirect to the login. With several layers around the handler, the innermost one does
    /// this.
    ///
    /// Headers that the handler adds are kept, except those about the body, its caching and
    /// `Retry-After`. If the handler sets another status, the layer leaves the response as it is.
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
}

/// The way to make a body from bytes that [`JsonRejection::new`] uses: `From<Bytes>`.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
#[allow(unnameable_types)]
pub struct FromBytes;

/// A way to make the body of a response from bytes.
#[diagnostic::on_unimplemented(
    message = "the layer cannot make a body of the type `{B}` for its own answers",
    label = "no `{B}` is made from bytes here",
    note = "say how: `.reject(JsonRejection::with(|bytes| ..))` makes a body from `Bytes`, and `.reject(|rejection: &Rejection, head: &RequestHead<'_>| ..)` a whole response",
    note = "where layers inside of this one wrap bodies (tracing, compression), put `tower_http::map_response_body::MapResponseBodyLayer::new(axum::body::Body::new)` between"
)]
#[allow(unnameable_types)]
pub trait MakeBody<B> {
    /// Returns a body that contains these bytes.
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

/// The JSON of [`JsonRejection::new`]: `{"error": CODE, "message": TEXT}`, and `login_url` if the
/// rejection has one.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
#[allow(unnameable_types)]
pub struct DefaultJson;

/// A way to make the JSON of a rejection.
#[allow(unnameable_types)]
pub trait MakeJson {
    /// `true` if this is the JSON of [`Rejection::response`].
    const IS_DEFAULT: bool;

    /// Returns the JSON as text, or nothing if it cannot be serialized.
    fn make(&self, rejection: &Rejection) -> Vec<u8>;
}

#[diagnostic::do_not_recommend]
impl MakeJson for DefaultJson {
    const IS_DEFAULT: bool = true;

    fn make(&self, rejection: &Rejection) -> Vec<u8> {
        #[derive(Serialize)]
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
        serde_json::to_vec(&body).unwrap_or_default()
    }
}

#[diagnostic::do_not_recommend]
impl<T: Serialize, F: Fn(&Rejection) -> T> MakeJson for F {
    const IS_DEFAULT: bool = false;

    fn make(&self, rejection: &Rejection) -> Vec<u8> {
        serde_json::to_vec(&self(rejection)).unwrap_or_default()
    }
}

impl<B, M: MakeBody<B>, J: MakeJson> Reject<B> for JsonRejection<M, J> {
    const IS_DEFAULT_RENDERING: bool = J::IS_DEFAULT;

    fn reject(&self, rejection: &Rejection, head: &RequestHead<'_>) -> Response<B> {
        if rejection.is_redirect_of_login() {
            return Response::new(self.make_body.make(Bytes::new()));
        }
        let is_page = rejection.is_content() || is_navigation(head) || is_form_submission(head);
        let page = rejection.page().filter(|_| is_page);
        let is_page = page.is_some();
        let (body, content_type) = match page {
            Some(page) => (page.into_bytes(), "text/html; charset=utf-8"),
            None => (self.make_json.make(rejection), "application/json"),
        };
        let mut response = Response::new(self.make_body.make(Bytes::from(body)));
        *response.status_mut() = rejection.status();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        if is_page {
            // The page's URL may contain an authorization code, which must not be sent to other sites as
            // a referrer. The page loads nothing.
            headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
            headers.insert(
                CONTENT_SECURITY_POLICY,
                HeaderValue::from_static(HtmlPage::CONTENT_SECURITY_POLICY),
            );
        }
        rejection.add_missing_headers(headers);
        response
    }
}
