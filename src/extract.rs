//! axum extractors: the user, the account's token and a page's signature as arguments of a handler.

use axum_core::body::Body;
use axum_core::extract::{FromRequestParts, OptionalFromRequestParts};
use axum_core::response::{IntoResponse, Response};
use http::request::Parts;

use crate::accounts::AccountToken;
use crate::error::Error;
use crate::identity::RequestHead;
use crate::jssdk::JsConfig;
use crate::layer::{AnonymousRequest, Rejection, WechatAccount, WechatUser};

/// The rejection of a handler that takes a [`WechatUser`], for a request without a user.
///
/// The layer renders the rejection as under [`Policy::Required`](crate::Policy::Required): with
/// [`WechatLayer::reject`](crate::WechatLayer::reject), and with a redirect to the login or the
/// login's URL.
///
/// ```
/// use axum::response::{IntoResponse, Response};
/// use tower_wechat::layer::WechatUserRejection;
/// use tower_wechat::WechatUser;
///
/// /// Adds a header to the rejection of anonymous requests, under `Policy::Optional`.
/// async fn me(user: Result<WechatUser, WechatUserRejection>) -> Response {
///     match user {
///         Ok(user) => format!("hello {}", user.id()).into_response(),
///         Err(rejection) => {
///             // 401 with the `login_url`, a redirect to WeChat, or 500 outside of a layer.
///             let mut response = rejection.into_response();
///             response.headers_mut().insert("x-help", "/how-to-log-in".parse().unwrap());
///             response
///         }
///     }
/// }
/// ```
#[derive(Debug)]
pub struct WechatUserRejection(Rejection);

impl IntoResponse for WechatUserRejection {
    fn into_response(self) -> Response {
        self.0.response().map(Body::from)
    }
}

impl<S: Sync> FromRequestParts<S> for WechatUser {
    type Rejection = WechatUserRejection;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Self::Rejection> {
        let user = WechatUser::required_from(&RequestHead::from_parts(parts));
        user.cloned().map_err(WechatUserRejection)
    }
}

/// Extracts the user of a request, or `None` if the request passed the layer without a user, under
/// [`Policy::Optional`](crate::Policy::Optional). Outside of a layer the extractor rejects the
/// request with 500, as [`WechatUser`] does; it does not return `None`.
impl<S: Sync> OptionalFromRequestParts<S> for WechatUser {
    type Rejection = WechatUserRejection;

    async fn from_request_parts(
        parts: &mut Parts,
        _state: &S,
    ) -> Result<Option<Self>, Self::Rejection> {
        let user = parts.extensions.get::<WechatUser>();
        if user.is_none() && parts.extensions.get::<AnonymousRequest>().is_none() {
            return Err(WechatUserRejection(Rejection::no_layer()));
        }
        Ok(user.cloned())
    }
}

/// The rejection of a handler that takes an [`AccountToken`] or a [`JsConfig`], if the layer cannot
/// provide the token or the signature.
///
/// ```
/// use axum::response::{IntoResponse, Response};
/// use tower_wechat::layer::WechatAccountRejection;
/// use tower_wechat::JsConfig;
///
/// /// Returns the JS-SDK configuration of a page, or the rejection, which the page can read.
/// async fn config(config: Result<JsConfig, WechatAccountRejection>) -> Response {
///     match config {
///         Ok(config) => axum::Json(config).into_response(),
///         // 503 while WeChat is unreachable, 400 for an unknown page, 500 outside of a layer.
///         Err(rejection) => rejection.into_response(),
///     }
/// }
/// ```
#[derive(Debug)]
pub struct WechatAccountRejection(Rejection);

impl WechatAccountRejection {
    fn from_error(error: &Error, parts: &Parts) -> Self {
        Self(Rejection::from(error).retain_head(&RequestHead::from_parts(parts)))
    }
}

impl IntoResponse for WechatAccountRejection {
    fn into_response(self) -> Response {
        self.0.response().map(Body::from)
    }
}

/// Returns the account that a layer inserted into the request. Without an account, logs an error
/// and returns a rejection with status 500.
fn account_from_parts(parts: &Parts) -> Result<WechatAccount, WechatAccountRejection> {
    let account = parts.extensions.get::<WechatAccount>();
    account.cloned().ok_or_else(|| {
        tracing::error!(
            target: "tower_wechat::layer",
            "a handler took the account's token or a JsConfig outside of a WechatLayer with an \
             account: call WechatLayer::account"
        );
        WechatAccountRejection(Rejection::misconfigured())
    })
}

/// Extracts the account's token. Waits for WeChat if this process does not hold a usable token.
impl<S: Sync> FromRequestParts<S> for AccountToken {
    type Rejection = WechatAccountRejection;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Self::Rejection> {
        let token = account_from_parts(parts)?.tokens().get().await;
        token.map_err(|error| WechatAccountRejection::from_error(&error, parts))
    }
}

/// Extracts the JS-SDK signature of the page that made the request; see
/// [`WechatAccount::js_config`].
impl<S: Sync> FromRequestParts<S> for JsConfig {
    type Rejection = WechatAccountRejection;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Self::Rejection> {
        let config = account_from_parts(parts)?.js_config(&parts.headers).await;
        config.map_err(|error| WechatAccountRejection::from_error(&error, parts))
    }
}

/// Lets handlers return the crate's errors. The layer around the handler renders an error like its
/// own rejections: in the application's form, and with the login's URL or a redirect if the user
/// has to log in.
impl IntoResponse for Error {
    fn into_response(self) -> Response {
        Rejection::from(&self).response().map(Body::from)
    }
}
