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
use crate::login::Scope;

/// Extracts the user of a request. Rejects a request without a user as the layer does under
/// [`Policy::Required`](crate::Policy::Required), also under
/// [`Policy::Optional`](crate::Policy::Optional).
impl<S: Sync> FromRequestParts<S> for WechatUser {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Self::Rejection> {
        let user = WechatUser::required_from(&RequestHead::from_parts(parts));
        user.cloned()
    }
}

/// Extracts the user of a request, or `None` if the request passed the layer without a user, under
/// [`Policy::Optional`](crate::Policy::Optional). Outside of a layer the extractor rejects the
/// request with 500, as [`WechatUser`] does; it does not return `None`.
impl<S: Sync> OptionalFromRequestParts<S> for WechatUser {
    type Rejection = Rejection;

    async fn from_request_parts(
        parts: &mut Parts,
        _state: &S,
    ) -> Result<Option<Self>, Self::Rejection> {
        let user = parts.extensions.get::<WechatUser>();
        if user.is_none() && parts.extensions.get::<AnonymousRequest>().is_none() {
            return Err(Rejection::no_layer());
        }
        Ok(user.cloned())
    }
}

/// The user of a request, who has granted `snsapi_userinfo`: the nickname, the avatar and the other
/// values of the profile.
///
/// A handler that takes this argument asks a user for the scope who has not granted it. A page load
/// is redirected to WeChat, and any other request receives 401 with a `login_url` for the scope. A
/// user who declines receives 403. A request without a user starts a login for the scope, also
/// under [`Policy::Optional`](crate::Policy::Optional). A user whose stored tokens do not contain the
/// granted scopes passes; other services may store such tokens.
///
/// ```
/// use axum::{Router, routing::get};
/// # use tower_wechat::{CookieKeys, MemoryStore, UserTokens, WechatClient};
/// use tower_wechat::layer::GrantedUserInfo;
/// use tower_wechat::{Error, Login, Scope, WechatLayer, WechatUser};
///
/// async fn home(user: WechatUser) -> String {
///     format!("hello {}", user.id())
/// }
///
/// async fn card(GrantedUserInfo(user): GrantedUserInfo) -> Result<String, Error> {
///     Ok(user.profile().await?.nickname.clone())
/// }
///
/// # fn main() -> Result<(), Error> {
/// # let users = UserTokens::new(WechatClient::new("wx01", "secret")?, MemoryStore::new());
/// // `snsapi_base` asks the user nothing.
/// let login = Login::builder("https://h5.example.com", CookieKeys::random()?)
///     .scope(Scope::Base)
///     .build()?;
/// let app: Router = Router::new()
///     .route("/", get(home))
///     .route("/card", get(card))
///     .layer(WechatLayer::new(users).login(login));
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct GrantedUserInfo(pub WechatUser);

impl<S: Sync> FromRequestParts<S> for GrantedUserInfo {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Self::Rejection> {
        let head = RequestHead::from_parts(parts);
        let user = WechatUser::required_with_scope_from(&head, Scope::UserInfo)?;
        Ok(Self(user.clone()))
    }
}

/// Returns the account that a layer inserted into the request. Without an account, logs an error
/// and returns a rejection with status 500.
fn account_from_parts(parts: &Parts) -> Result<WechatAccount, Rejection> {
    let account = parts.extensions.get::<WechatAccount>();
    account.cloned().ok_or_else(|| {
        tracing::error!(
            target: "tower_wechat::layer",
            "a handler took a WechatAccount, the account's token or a JsConfig outside of a \
             WechatLayer with an account: put the layer around its route; a layer of one account \
             also needs WechatLayer::account"
        );
        Rejection::misconfigured()
    })
}

/// Returns the rejection of a request whose extractor failed with `error`.
fn rejection_of(error: &Error, parts: &Parts) -> Rejection {
    Rejection::from(error).retain_head(&RequestHead::from_parts(parts))
}

/// Extracts the account of the request. Rejects a request without an account with 500.
impl<S: Sync> FromRequestParts<S> for WechatAccount {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Self::Rejection> {
        account_from_parts(parts)
    }
}

/// Extracts the account's token. Waits for WeChat if this process does not hold a usable token.
impl<S: Sync> FromRequestParts<S> for AccountToken {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Self::Rejection> {
        let token = account_from_parts(parts)?.tokens().get().await;
        token.map_err(|error| rejection_of(&error, parts))
    }
}

/// Extracts the JS-SDK signature of the page that made the request; see
/// [`WechatAccount::js_config`].
impl<S: Sync> FromRequestParts<S> for JsConfig {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Self::Rejection> {
        let config = account_from_parts(parts)?.js_config(&parts.headers).await;
        config.map_err(|error| rejection_of(&error, parts))
    }
}

/// Extracts the push of a request behind a [`PushLayer`](crate::platform::PushLayer). Rejects other
/// requests with 500.
#[cfg(feature = "platform")]
impl<S: Sync> FromRequestParts<S> for crate::platform::PlatformPush {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Self::Rejection> {
        let push = parts.extensions.get::<Self>();
        push.cloned().ok_or_else(|| {
            tracing::error!(
                target: "tower_wechat::platform",
                "a handler took a PlatformPush outside of a PushLayer: put the layer of the \
                 platform around its route"
            );
            Rejection::misconfigured()
        })
    }
}

/// Lets handlers and extractors return rejections. The layer around the handler renders a returned
/// rejection like its own: in the application's form, and with the login's URL or a redirect if the
/// user has to log in.
impl IntoResponse for Rejection {
    fn into_response(self) -> Response {
        self.response().map(Body::from)
    }
}

/// Lets handlers return the crate's errors. The layer renders an error like the [`Rejection`] that
/// is made from it.
impl IntoResponse for Error {
    fn into_response(self) -> Response {
        Rejection::from(&self).into_response()
    }
}
