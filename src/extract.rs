//! axum extractors: the user as an argument of a handler.

use axum_core::extract::{FromRequestParts, OptionalFromRequestParts};
use axum_core::response::{IntoResponse, Response};
use http::StatusCode;
use http::request::Parts;

use crate::accounts::AccountToken;
use crate::error::Error;
use crate::identity::RequestHead;
use crate::jssdk::JsConfig;
use crate::layer::{
    JsonRejection, PassedWithoutUser, Reject, Rejection, WechatAccount, WechatUser,
};

/// Why a handler that takes a [`WechatUser`] was not called.
///
/// It answers as the layer would have, under [`Policy::Require`](crate::Policy::Require).
///
/// ```
/// use axum::response::{IntoResponse, Response};
/// use tower_wechat::{MissingUser, WechatUser};
///
/// /// A handler that says something of its own to strangers, under `Policy::Optional`.
/// async fn me(user: Result<WechatUser, MissingUser>) -> Response {
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
pub struct MissingUser(Missing);

#[derive(Debug)]
enum Missing {
    /// The layer let the request pass without a user.
    User(Response),
    /// The request never met the layer.
    Layer,
}

impl IntoResponse for MissingUser {
    fn into_response(self) -> Response {
        match self.0 {
            Missing::User(answer) => answer,
            Missing::Layer => {
                tracing::error!(
                    target: "tower_wechat::layer",
                    "a handler takes a WechatUser, but no WechatLayer lies around its route"
                );
                StatusCode::INTERNAL_SERVER_ERROR.into_response()
            }
        }
    }
}

impl<S: Sync> FromRequestParts<S> for WechatUser {
    type Rejection = MissingUser;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Self::Rejection> {
        if let Some(user) = parts.extensions.get::<WechatUser>() {
            return Ok(user.clone());
        }
        let Some(passed) = parts.extensions.get::<PassedWithoutUser>() else {
            return Err(MissingUser(Missing::Layer));
        };
        let answer = passed.refuse(&RequestHead::of_parts(parts));
        Err(MissingUser(Missing::User(answer)))
    }
}

impl<S: Sync> OptionalFromRequestParts<S> for WechatUser {
    type Rejection = MissingUser;

    async fn from_request_parts(
        parts: &mut Parts,
        _state: &S,
    ) -> Result<Option<Self>, Self::Rejection> {
        let user = parts.extensions.get::<WechatUser>();
        if user.is_none() && parts.extensions.get::<PassedWithoutUser>().is_none() {
            return Err(MissingUser(Missing::Layer));
        }
        Ok(user.cloned())
    }
}

/// Why a handler that takes an [`AccountToken`] or a [`JsConfig`] was not called.
///
/// ```
/// use axum::response::{IntoResponse, Response};
/// use tower_wechat::{JsConfig, MissingAccount};
///
/// /// A page works without the JS-SDK, if it has to.
/// async fn config(config: Result<JsConfig, MissingAccount>) -> Response {
///     match config {
///         Ok(config) => axum::Json(config).into_response(),
///         // 503 while WeChat is away, 400 for a page that is not signed, 500 where no layer is.
///         Err(missing) => missing.into_response(),
///     }
/// }
/// ```
#[derive(Debug)]
pub struct MissingAccount(Option<Error>);

impl IntoResponse for MissingAccount {
    fn into_response(self) -> Response {
        match self.0 {
            Some(error) => error.into_response(),
            None => {
                tracing::error!(
                    target: "tower_wechat::layer",
                    "a handler takes the account's token or a JsConfig, but no WechatLayer with \
                     an account lies around its route"
                );
                StatusCode::INTERNAL_SERVER_ERROR.into_response()
            }
        }
    }
}

fn account(parts: &Parts) -> Result<WechatAccount, MissingAccount> {
    let account = parts.extensions.get::<WechatAccount>();
    account.cloned().ok_or(MissingAccount(None))
}

/// The account's token, fetched if it must be.
impl<S: Sync> FromRequestParts<S> for AccountToken {
    type Rejection = MissingAccount;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Self::Rejection> {
        let token = account(parts)?.tokens().get().await;
        token.map_err(|error| MissingAccount(Some(error)))
    }
}

/// The signature of the page that asks; see [`WechatAccount::js_config`].
impl<S: Sync> FromRequestParts<S> for JsConfig {
    type Rejection = MissingAccount;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Self::Rejection> {
        let config = account(parts)?.js_config(&parts.headers).await;
        config.map_err(|error| MissingAccount(Some(error)))
    }
}

/// Handlers may return the crate's errors: they are answered as the layer answers its own.
impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let (method, uri, headers, extensions) = Default::default();
        let head = RequestHead {
            method: &method,
            uri: &uri,
            headers: &headers,
            extensions: &extensions,
        };
        JsonRejection::new().reject(&Rejection::from_error(&self), &head)
    }
}
