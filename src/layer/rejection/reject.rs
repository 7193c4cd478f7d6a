//! The trait of the types that render rejections.

use http::Response;

use super::Rejection;
use crate::identity::RequestHead;

/// A renderer of rejections, which makes the response to a request that was rejected with a
/// [`Rejection`].
///
/// The layer passes these to its renderer:
///
/// - its own rejections;
/// - rejections of axum's extractors [`WechatUser`](crate::WechatUser),
///   [`GrantedUserInfo`](crate::layer::GrantedUserInfo), [`AccountToken`](crate::AccountToken) and
///   [`JsConfig`](crate::JsConfig);
/// - an [`Error`](crate::Error) or a [`Rejection`] that a handler returns in axum, also inside of an
///   error type whose `IntoResponse` calls theirs; without axum [`Rejection::response`];
/// - if the layer has a [`Login`](crate::Login), the login's redirects, with status 302;
/// - the login's verification files, the parameters of a QR code in a page, and the page that loads a
///   callback in a frame again, with status 200 and the content as the [`page`](Rejection::page).
///
/// For redirects and replies with status 200, the layer adds status and headers to the rendered
/// response. In a frame, the callback of a login with a website has the Content-Security-Policy
/// `frame-ancestors 'self'` in place of the renderer's, and no `X-Frame-Options`. To every response
/// the layer adds `Cache-Control: no-store`, and to one with status 503 `Retry-After`, unless the
/// renderer has set them. Only the renderer can make the [`page`](Rejection::page) that a browser
/// shows. [`JsonRejection::json`](crate::layer::JsonRejection::json) changes the JSON and keeps the
/// pages.
///
/// The renderer receives the head of the request. After a handler has taken the request, the layer
/// retains only a part of the head: the method, the URI that the browser requested, and some
/// headers. Among these headers are `Accept`, `Cookie`, `Origin`, `Referer`, `Sec-Fetch-Mode` and
/// `X-Requested-With`.
///
/// Closures implement this trait, for bodies of any type:
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
    note = "for JSON of your own: `.reject(JsonRejection::new().json(|rejection| ..))`",
    note = "say how: `.reject(JsonRejection::with(|bytes| ..))` makes a body from `Bytes`, and `.reject(|rejection: &Rejection, head: &RequestHead<'_>| ..)` a whole `Response<{B}>`",
    note = "where layers inside of this one wrap bodies (tracing, compression), put `tower_http::map_response_body::MapResponseBodyLayer::new(axum::body::Body::new)` between"
)]
pub trait Reject<B> {
    /// `true` if this type renders as [`Rejection::response`] does when the layer has no login. A
    /// handler's response is then final, and the layer need not retain the head of the request.
    #[doc(hidden)]
    const IS_DEFAULT_RENDERING: bool = false;

    /// Returns the response of a rejected request.
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
