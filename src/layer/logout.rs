//! The logout of one browser: a value that a handler puts into its response.

use http::Response;
#[cfg(feature = "axum")]
use {
    axum_core::response::{IntoResponse, IntoResponseParts, ResponseParts},
    std::convert::Infallible,
};

use super::account_layer::AccountLayer;
use super::cache_control::add_removal_cookie;

use crate::identity::Identify;
use crate::login::LoginHandler;

/// Ends the session of the browser that receives the response.
///
/// A handler returns a `Logout`, and the layer around the handler adds the `Set-Cookie` header that
/// removes its session cookie. The handler needs neither the login nor the session cookie. The layer
/// does not renew the session in the same response, and marks the response `no-store`.
///
/// In axum, `Logout` is a response with status 204, or a part of another response:
///
/// ```
/// use axum::response::Redirect;
/// use axum::{Router, routing::post};
/// use tower_wechat::{Logout, WechatUser};
///
/// async fn logout(_: WechatUser) -> Logout {
///     Logout
/// }
///
/// async fn logout_everywhere(user: WechatUser) -> Result<(Logout, Redirect), tower_wechat::Error> {
///     user.revoke().await?; // also ends the user's sessions in all other browsers
///     Ok((Logout, Redirect::to("/goodbye")))
/// }
///
/// let app: Router = Router::new()
///     .route("/logout", post(logout))
///     .route("/logout/everywhere", post(logout_everywhere));
/// ```
///
/// Without axum, a handler inserts it into the extensions of its response:
///
/// ```
/// use http::{Response, StatusCode};
/// use tower_wechat::Logout;
///
/// fn logout() -> Response<String> {
///     let mut response = Response::new(String::new());
///     *response.status_mut() = StatusCode::NO_CONTENT;
///     response.extensions_mut().insert(Logout);
///     response
/// }
/// ```
///
/// Accept POST requests only, and take the user as an argument. Browsers send the session cookie with
/// no POST of another site, so another site can then log nobody out.
///
/// If the login has a [website](crate::login::LoginBuilder::website), the layer removes the session
/// cookies of both apps.
///
/// A request whose session has ended does not reach a handler that takes the user: it gets 401, and
/// keeps its cookie. The cookie has no effect, and the next login replaces it. A route under
/// [`Policy::Optional`](crate::Policy::Optional) whose handler returns `Logout` without a user removes
/// it at once.
///
/// # Several layers
///
/// On a route with layers for two accounts, the innermost layer that has a session cookie ends its
/// session. The user's session with the other account continues. A layer that has neither a login
/// nor an identity with a [`session_cookie`](crate::identity::Identify::session_cookie) leaves the
/// value to the layers further out. Outside of all layers a `Logout` has no effect.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Logout;

impl Logout {
    /// Returns `true` if a handler has put a `Logout` into its response.
    #[inline]
    pub(super) fn is_in<B>(response: &Response<B>) -> bool {
        let extensions = response.extensions();
        !extensions.is_empty() && extensions.get::<Self>().is_some()
    }
}

impl<I: Identify, R> AccountLayer<I, R> {
    /// Removes the [`Logout`] from a response, and adds the headers that remove this layer's session
    /// cookies, also that of the login's website. Returns `false` and leaves the response unchanged
    /// if the layer has no session cookie.
    ///
    /// The session cookies of the identity and of the login differ if the application has given the
    /// layer both.
    #[cold]
    pub(super) fn end_session<B>(&self, response: &mut Response<B>) -> bool {
        let of_login = self.parts.login.as_ref().map(LoginHandler::session_cookie);
        let cookies = [self.settings.identity.session_cookie(), of_login];
        let has_session_cookie = cookies.iter().any(Option::is_some);
        if has_session_cookie {
            response.extensions_mut().remove::<Logout>();
        }
        for cookie in cookies.into_iter().flatten() {
            for removal in cookie.clear_with_website() {
                add_removal_cookie(response, removal);
            }
        }
        has_session_cookie
    }
}

/// Returns 204 with the value in the response's extensions.
#[cfg(feature = "axum")]
#[cfg_attr(docsrs, doc(cfg(feature = "axum")))]
impl IntoResponse for Logout {
    fn into_response(self) -> axum_core::response::Response {
        (http::StatusCode::NO_CONTENT, self, ()).into_response()
    }
}

/// Inserts the value into the extensions of another response.
#[cfg(feature = "axum")]
#[cfg_attr(docsrs, doc(cfg(feature = "axum")))]
impl IntoResponseParts for Logout {
    type Error = Infallible;

    fn into_response_parts(self, mut parts: ResponseParts) -> Result<ResponseParts, Infallible> {
        parts.extensions_mut().insert(self);
        Ok(parts)
    }
}
