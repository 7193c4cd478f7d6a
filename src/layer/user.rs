//! The user as a handler sees them.

use std::fmt;
use std::sync::Arc;

use http::{Extensions, Request};

use super::Rejection;
use crate::credential::{AccessToken, AppId, Freshness, Lifetime, UserId};
use crate::error::{Error, InvalidToken};
use crate::identity::RequestHead;
use crate::login::Scope;
use crate::users::{UserToken, UserTokens};
use crate::wechat::UserInfo;

/// The WeChat user of a request: a snapshot with a fresh access token, and a handle to come back
/// for the next one.
///
/// axum handlers take it as an argument (feature `axum`); others read it from the request's
/// extensions:
///
/// ```
/// use tower_wechat::WechatUser;
///
/// fn greeting<B>(request: &http::Request<B>) -> String {
///     match request.extensions().get::<WechatUser>() {
///         Some(user) => format!("hello {}", user.id()),
///         None => "hello stranger".to_owned(),
///     }
/// }
///
/// async fn about(user: WechatUser) -> axum::Json<serde_json::Value> {
///     axum::Json(serde_json::json!({
///         "id": user.id(),
///         "account": user.app_id().as_str(),
///         "openid": user.openid(),
///         "unionid": user.unionid(),
///         "granted": user.scope(),
///         "snapshot": user.is_snapshot(),
///         "token": user.access_token().fingerprint(), // never the token itself
///         "freshness": user.freshness().as_str(),
///         "lives_for_secs": user.expires_in().as_secs(),
///         "renewed_at_ms": user.lifetime().renew_at().as_millis(),
///     }))
/// }
/// ```
///
/// The token in it is the one of the moment when the request came. A handler that outlives it (an
/// event stream, a WebSocket, a long job) asks [`current`](Self::current) for the one of then.
///
/// ```
/// use tower_wechat::client::{Language, UserInfo};
/// use tower_wechat::{Error, Scope, WechatUser};
///
/// async fn nickname(user: WechatUser) -> Result<String, Error> {
///     if user.has_granted(Scope::UserInfo) == Some(false) {
///         return Ok(user.id().to_owned());
///     }
///     Ok(user.profile().await?.nickname.clone())
/// }
///
/// /// Any call with the user's token, once more if WeChat refuses it.
/// async fn asked_anew(user: WechatUser) -> Result<UserInfo, Error> {
///     let wechat = user.users().wechat();
///     user.with_token(async |token| {
///         let openid = token.openid().unwrap_or_default();
///         wechat.user_info(token.access_token(), openid, Language::En).await
///     })
///     .await
/// }
///
/// /// A job that outlives its request.
/// async fn later(user: WechatUser) -> Result<(), Error> {
///     let token = user.current().await?;
/// #   let refused = user.token().access_token() != token.access_token();
///     // … if WeChat has refused the token of the request:
///     if refused {
///         user.report_invalid().await?;
///     }
///     // … and when the user closes the account:
///     user.revoke().await
/// }
/// ```
#[derive(Clone)]
pub struct WechatUser {
    token: UserToken,
    users: UserTokens,
    /// The user of a layer for another account, further out on the same route.
    outer: Option<Arc<WechatUser>>,
}

/// Left in the extensions of a request that passed without a user, so that the extractors can
/// tell it from one that never met the layer, and answer as the layer would.
#[derive(Clone)]
pub(crate) struct AnonymousRequest {
    /// What a handler answers that cannot do without a user.
    rejection: Rejection,
    /// The user of a layer for another account, further out on the same route: they are not the
    /// one whom handlers behind this layer mean.
    outer: Option<Arc<WechatUser>>,
}

impl AnonymousRequest {
    pub(super) fn insert_into<B>(request: &mut Request<B>, rejection: Rejection) {
        let extensions = request.extensions_mut();
        let passed = extensions.remove::<Self>().and_then(|passed| passed.outer);
        let outer = extensions.remove::<WechatUser>().map(Arc::new).or(passed);
        extensions.insert(Self { rejection, outer });
    }
}

/// Whether the request has come through a layer already.
pub(super) fn has_passed_layer(extensions: &Extensions) -> bool {
    extensions.get::<WechatUser>().is_some() || extensions.get::<AnonymousRequest>().is_some()
}

impl WechatUser {
    /// The user of a request, for handlers without axum that cannot do without one. In axum they take
    /// a [`WechatUser`] as an argument.
    ///
    /// # Errors
    /// Without a user, what the handler answers: see [`Rejection::response`]. Without a layer around
    /// the handler it is 500, and the log says so.
    ///
    /// ```
    /// use http::{Request, Response};
    /// use tower_wechat::WechatUser;
    ///
    /// fn greet<B>(request: &Request<B>) -> Response<String> {
    ///     match WechatUser::required(request) {
    ///         Ok(user) => Response::new(format!("hello {}", user.id())),
    ///         Err(rejection) => rejection.response().map(|body| String::from_utf8_lossy(&body).into()),
    ///     }
    /// }
    ///
    /// assert_eq!(greet(&Request::new(())).status(), 500);
    /// ```
    pub fn required<B>(request: &Request<B>) -> Result<&Self, Rejection> {
        Self::required_from(&RequestHead::from_request(request))
    }

    pub(crate) fn required_from<'a>(head: &RequestHead<'a>) -> Result<&'a Self, Rejection> {
        if let Some(user) = head.extensions.get::<Self>() {
            return Ok(user);
        }
        match head.extensions.get::<AnonymousRequest>() {
            Some(passed) => Err(passed.rejection.clone().retain_head(head)),
            None => Err(Rejection::no_layer()),
        }
    }

    /// Puts the user into a request. The user of another account, whom a layer further out has put
    /// there, is kept behind. Returns `true` if no layer further out has seen the request.
    #[inline]
    pub(super) fn insert_into<B>(
        request: &mut Request<B>,
        token: UserToken,
        users: &UserTokens,
    ) -> bool {
        let extensions = request.extensions_mut();
        let user = Self {
            token,
            users: users.clone(),
            outer: None,
        };
        if let Some(outer) = extensions.insert(user) {
            Self::keep_outer(extensions, outer);
            return false;
        }
        extensions.get::<AnonymousRequest>().is_none()
    }

    #[cold]
    fn keep_outer(extensions: &mut Extensions, outer: Self) {
        if let Some(user) = extensions.get_mut::<Self>() {
            user.outer = match user.app_id() == outer.app_id() {
                true => outer.outer,
                false => Some(Arc::new(outer)),
            };
        }
    }

    /// The id under which the user is known to the application; with WeChat's own login, the
    /// openid.
    pub fn id(&self) -> &str {
        self.token.user_id()
    }

    /// The account whose user this is.
    pub fn app_id(&self) -> &AppId {
        self.users.app_id()
    }

    /// The user's access token of the moment when the request came: usable, whichever process got
    /// it.
    pub fn access_token(&self) -> &AccessToken {
        self.token.access_token()
    }

    /// The same with all that is known of it.
    pub fn token(&self) -> &UserToken {
        &self.token
    }

    /// The user's openid, where the stored pair tells it.
    pub fn openid(&self) -> Option<&str> {
        self.token.openid()
    }

    /// What the user granted, comma-separated, where the stored pair tells it.
    pub fn scope(&self) -> Option<&str> {
        self.token.scope()
    }

    /// The user's unionid, where there is one and the stored pair tells it.
    pub fn unionid(&self) -> Option<&str> {
        self.token.unionid()
    }

    /// Whether this is the virtual user of a snapshot page (快照页).
    pub fn is_snapshot(&self) -> bool {
        self.users.is_for_snapshots()
    }

    /// When the token is due for renewal and when it dies.
    pub fn lifetime(&self) -> Lifetime {
        self.token.lifetime()
    }

    /// Where the token stands in its life now.
    pub fn freshness(&self) -> Freshness {
        self.lifetime().freshness(self.users.clock().now())
    }

    /// How long the token has to live from now.
    pub fn expires_in(&self) -> std::time::Duration {
        self.users
            .clock()
            .now()
            .duration_until(self.lifetime().expires_at())
    }

    /// The tokens of all users of the account.
    pub fn users(&self) -> &UserTokens {
        &self.users
    }

    /// The user's token of now.
    ///
    /// # Errors
    /// As [`UserTokens::get`].
    pub async fn current(&self) -> Result<UserToken, Error> {
        self.users.get(&self.user_id()?).await
    }

    /// Runs a call with the user's token, and once more with its successor if WeChat refuses it.
    ///
    /// # Errors
    /// As [`UserTokens::with_token`].
    pub async fn with_token<T, E, F, Fut>(&self, call: F) -> Result<T, E>
    where
        F: FnMut(UserToken) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: InvalidToken + From<Error>,
    {
        self.users.with_token(&self.user_id()?, call).await
    }

    /// Reports that WeChat refused the token of this request, and answers with the current one.
    ///
    /// # Errors
    /// As [`UserTokens::report_invalid`].
    pub async fn report_invalid(&self) -> Result<UserToken, Error> {
        self.users
            .report_invalid(&self.user_id()?, self.access_token())
            .await
    }

    /// The user's nickname, avatar and what else `sns/userinfo` tells; needs the scope
    /// `snsapi_userinfo`. Remembered by this process for ten minutes.
    ///
    /// # Errors
    /// As [`UserTokens::profile`].
    pub async fn profile(&self) -> Result<Arc<UserInfo>, Error> {
        self.users.profile(&self.user_id()?).await
    }

    /// Whether the user granted a scope; `None` where the stored pair does not tell.
    pub fn has_granted(&self, scope: Scope) -> Option<bool> {
        self.scope().map(|granted| scope.is_granted_by(granted))
    }

    /// Deletes the user's tokens: whatever still names the user leads to a new login.
    ///
    /// # Errors
    /// As [`UserTokens::revoke`].
    pub async fn revoke(&self) -> Result<(), Error> {
        self.users.revoke(&self.user_id()?).await
    }

    /// The user of this account among all that layers have put into a request's extensions, where
    /// layers for several accounts lie around one route. Finds them also where the innermost layer
    /// let the request pass without a user of its own.
    ///
    /// ```
    /// use tower_wechat::credential::AppId;
    /// use tower_wechat::WechatUser;
    ///
    /// fn of_shop<'a, B>(request: &'a http::Request<B>, shop: &AppId) -> Option<&'a WechatUser> {
    ///     WechatUser::from_extensions(request.extensions(), shop)
    /// }
    /// ```
    pub fn from_extensions<'a>(extensions: &'a Extensions, app: &AppId) -> Option<&'a WechatUser> {
        let passed = || {
            extensions
                .get::<AnonymousRequest>()?
                .outer
                .as_ref()?
                .for_app(app)
        };
        let user = extensions.get::<Self>();
        user.and_then(|user| user.for_app(app)).or_else(passed)
    }

    /// The user of this account, where layers for several accounts lie around one route.
    ///
    /// ```
    /// use tower_wechat::credential::AppId;
    /// use tower_wechat::WechatUser;
    ///
    /// fn of_both<'a>(user: &'a WechatUser, shop: &AppId) -> Option<&'a WechatUser> {
    ///     user.for_app(shop)
    /// }
    /// ```
    pub fn for_app(&self, app: &AppId) -> Option<&WechatUser> {
        let mut user = Some(self);
        while let Some(found) = user {
            if found.app_id() == app {
                return Some(found);
            }
            user = found.outer.as_deref();
        }
        None
    }

    fn user_id(&self) -> Result<UserId, Error> {
        Ok(UserId::new(self.id())?)
    }
}

impl fmt::Debug for WechatUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WechatUser")
            .field("app_id", self.app_id())
            .field("token", &self.token)
            .finish_non_exhaustive()
    }
}
