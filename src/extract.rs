//! axum extractors: the user as an argument of a handler.

use axum_core::body::Body;
use axum_core::extract::{FromRequestParts, OptionalFromRequestParts};
use axum_core::response::{IntoResponse, Response};
use http::request::Parts;

use crate::accounts::AccountToken;
use crate::error::Error;
use crate::identity::RequestHead;
use crate::jssdk::JsConfig;
use crate::layer::{AnonymousRequest, Rejection, WechatAccount, WechatUser};

/// Why a handler that takes a [`WechatUser`] was not called.
///
/// The layer answers it as it would have under [`Policy::Required`](crate::Policy::Required): in the
/// application's form ([`WechatLayer::reject`](crate::WechatLayer::reject)), with the way to log in.
///
/// ```
/// use axum::response::{IntoResponse, Response};
/// use tower_wechat::layer::WechatUserRejection;
/// use tower_wechat::WechatUser;
///
/// /// A handler that says something of its own to strangers, under `Policy::Optional`.
/// async fn me(user: Result<WechatUser, WechatUserRejection>) -> Response {
///     match user {
///         Ok(user) => format!("hello {}", user.id()).into_response(),
///         Err(missing) => {
///             // 401 with the `login_url`, the way to WeChat, or 500 where no layer is.
///             let mut answer = missing.into_response();
///             answer.headers_mut().insert("x-help", "/how-to-log-in".parse().unwrap());
///             answer
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

/// A page that is open to everybody takes an `Option<WechatUser>`, under
/// [`Policy::Optional`](crate::Policy::Optional). Where no layer lies around its route, that is 500
/// as it is for a [`WechatUser`], and not `None`.
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

/// Why a handler that takes an [`AccountToken`] or a [`JsConfig`] was not called.
///
/// ```
/// use axum::response::{IntoResponse, Response};
/// use tower_wechat::layer::WechatAccountRejection;
/// use tower_wechat::JsConfig;
///
/// /// A page works without the JS-SDK, if it has to.
/// async fn config(config: Result<JsConfig, WechatAccountRejection>) -> Response {
///     match config {
///         Ok(config) => axum::Json(config).into_response(),
///         // 503 while WeChat is away, 400 for a page that is not signed, 500 where no layer is.
///         Err(missing) => missing.into_response(),
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

fn account_from_parts(parts: &Parts) -> Result<WechatAccount, WechatAccountRejection> {
    let account = parts.extensions.get::<WechatAccount>();
    account.cloned().ok_or_else(|| {
        tracing::error!(
            target: "tower_wechat::layer",
            "a handler takes the account's token or a JsConfig, but no WechatLayer with an account \
             lies around its route"
        );
        WechatAccountRejection(Rejection::misconfigured())
    })
}

/// The account's token, fetched if it must be.
impl<S: Sync> FromRequestParts<S> for AccountToken {
    type Rejection = WechatAccountRejection;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Self::Rejection> {
        let token = account_from_parts(parts)?.tokens().get().await;
        token.map_err(|error| WechatAccountRejection::from_error(&error, parts))
    }
}

/// The signature of the page that asks; see [`WechatAccount::js_config`].
impl<S: Sync> FromRequestParts<S> for JsConfig {
    type Rejection = WechatAccountRejection;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Self::Rejection> {
        let config = account_from_parts(parts)?.js_config(&parts.headers).await;
        config.map_err(|error| WechatAccountRejection::from_error(&error, parts))
    }
}

/// Handlers may return the crate's errors. The layer around them renders them as it does its own
/// answers: in the application's form, and where the user has to log in, with the way there.
impl IntoResponse for Error {
    fn into_response(self) -> Response {
        Rejection::from(&self).response().map(Body::from)
    }
}
