//! The trait of the types that render rejections.

use http::Response;

use super::Rejection;
use crate::identity::RequestHead;

/// Renders a [`Rejection`].
///
/// The layer asks it for every answer of its own, and for those of handlers that cannot do without
/// what the layer could not give: axum's extractors ([`WechatUser`](crate::WechatUser),
/// [`AccountToken`](crate::AccountToken), [`JsConfig`](crate::JsConfig)), handlers that return an
/// [`Error`](crate::Error), and [`Rejection::response`]. Where a handler returns an error, the head has the
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
