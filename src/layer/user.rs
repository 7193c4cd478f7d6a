//! The user of a request, as its handler receives it.

use std::fmt;
use std::sync::Arc;

use http::{Extensions, Request};

use super::Rejection;
use super::outer::{OfAccount, Outer, find};
use crate::credential::{AccessToken, AppId, Freshness, Lifetime, UserId};
use crate::error::{Error, InvalidToken};
use crate::identity::{RequestHead, Session};
use crate::login::{LoginHandler, Scope};
use crate::users::{UserToken, UserTokens};
use crate::wechat::UserInfo;

/// The WeChat user of a request, with a usable access token.
///
/// axum handlers take a `WechatUser` as an argument (feature `axum`). Other handlers read it from
/// the request's extensions:
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
///         "expires_in_secs": user.expires_in().as_secs(),
///         "renewed_at_ms": user.lifetime().renew_at().as_millis(),
///     }))
/// }
/// ```
///
/// The token was usable when the request came. A handler that runs for longer, such as an event
/// stream, a WebSocket or a job, calls [`current`](Self::current) when it needs a token later.
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
/// /// Makes a call with the user's token, and retries once if WeChat rejects the token.
/// async fn user_info(user: WechatUser) -> Result<UserInfo, Error> {
///     let wechat = user.users().wechat();
///     user.with_token(async |token| {
///         let openid = token.openid().unwrap_or_default();
///         wechat.user_info(token.access_token(), openid, Language::En).await
///     })
///     .await
/// }
///
/// /// A job that runs for longer than its request.
/// async fn later(user: WechatUser) -> Result<(), Error> {
///     let token = user.current().await?;
/// #   let rejected = user.token().access_token() != token.access_token();
///     // … if WeChat has rejected the token of the request:
///     if rejected {
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
    outer: Outer<WechatUser>,
}

/// The mark in the extensions of a request that passed a layer without a user.
///
/// The mark shows that the route has a layer. The extractors return the rejection that this layer
/// would have returned.
#[derive(Clone)]
pub(crate) struct AnonymousRequest {
    /// The rejection that a handler returns if it requires a user.
    rejection: Rejection,
    /// The user of a layer for another account. Handlers inside of this layer do not receive that user
    /// as an argument, because the user belongs to the other account.
    outer: Outer<WechatUser>,
}

impl AnonymousRequest {
    /// Marks a request as one without a user, and removes the user of a layer further out.
    ///
    /// [`WechatUser::from_extensions`] still returns the removed user. If no user was removed, that
    /// method returns the user that an earlier mark keeps.
    pub(super) fn insert_into<B>(request: &mut Request<B>, rejection: Rejection) {
        let extensions = request.extensions_mut();
        let mark = extensions.remove::<Self>();
        let user = extensions.remove::<WechatUser>();
        let outer = match (user, mark) {
            (Some(user), _) => Outer::new(user),
            (None, Some(mark)) => mark.outer,
            (None, None) => Outer::NONE,
        };
        extensions.insert(Self { rejection, outer });
    }
}

/// Values of the feature `testing`, which do not come from a layer.
#[cfg(all(feature = "testing", debug_assertions))]
mod without_layer {
    use super::*;

    impl AnonymousRequest {
        /// Returns the mark that a layer without a login inserts.
        pub(crate) fn without_layer() -> Self {
            Self {
                rejection: Rejection::login_required(),
                outer: Outer::NONE,
            }
        }
    }

    impl WechatUser {
        /// Returns the user that a layer of `users` inserts.
        pub(crate) fn without_layer(token: UserToken, users: UserTokens) -> Self {
            Self {
                token,
                users,
                outer: Outer::NONE,
            }
        }
    }
}

/// Returns `true` if a layer further out has seen the request.
pub(super) fn has_passed_layer(extensions: &Extensions) -> bool {
    extensions.get::<WechatUser>().is_some() || extensions.get::<AnonymousRequest>().is_some()
}

impl WechatUser {
    /// Returns the user of a request, for handlers without axum that require a user. axum handlers
    /// take a [`WechatUser`] as an argument instead.
    ///
    /// # Errors
    /// Returns the rejection of a request without a user. The handler returns its
    /// [`response`](Rejection::response). Without a layer around the handler, the status is 500 and an
    /// error is logged.
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

    /// Does the same as [`required`](Self::required) with the head of the request.
    pub(crate) fn required_from<'a>(head: &RequestHead<'a>) -> Result<&'a Self, Rejection> {
        if let Some(user) = head.extensions.get::<Self>() {
            return Ok(user);
        }
        match head.extensions.get::<AnonymousRequest>() {
            Some(mark) => Err(mark.rejection.clone().retain_head(head)),
            None => Err(Rejection::no_layer()),
        }
    }

    /// Returns the user of a request if the user has granted this scope. axum handlers take a
    /// `GrantedUserInfo` as an argument instead.
    ///
    /// The layer renders the rejection of a user who has not granted the scope as
    /// [`WechatLayer::require_scope`](crate::WechatLayer::require_scope) says. Users whose stored
    /// tokens do not contain the granted scopes pass.
    ///
    /// # Errors
    /// Returns the rejection of a request without a user, as [`required`](Self::required) does, or of
    /// a user who has not granted the scope. The login of either asks for the scope.
    ///
    /// ```
    /// use bytes::Bytes;
    /// use http::{Request, Response};
    /// use http_body_util::Full;
    /// use tower_wechat::{Rejection, Scope, WechatUser};
    ///
    /// async fn nickname<B>(request: Request<B>) -> Result<String, Rejection> {
    ///     let user = WechatUser::required_with_scope(&request, Scope::UserInfo)?.clone();
    ///     Ok(user.profile().await?.nickname.clone())
    /// }
    ///
    /// async fn card<B>(request: Request<B>) -> Response<Full<Bytes>> {
    ///     match nickname(request).await {
    ///         Ok(nickname) => Response::new(Full::from(nickname)),
    ///         Err(rejection) => rejection.response().map(Full::new),
    ///     }
    /// }
    /// ```
    pub fn required_with_scope<B>(request: &Request<B>, scope: Scope) -> Result<&Self, Rejection> {
        Self::required_with_scope_from(&RequestHead::from_request(request), scope)
    }

    /// Does the same as [`required_with_scope`](Self::required_with_scope) with the head of the
    /// request.
    pub(crate) fn required_with_scope_from<'a>(
        head: &RequestHead<'a>,
        scope: Scope,
    ) -> Result<&'a Self, Rejection> {
        match Self::required_from(head) {
            Ok(user) if LoginHandler::lacks_scope(&user.token, scope) => {
                // The layer that renders the rejection adds what the session says about the scope.
                let rejection = Rejection::missing_scope(scope, Session::default());
                Err(rejection.retain_head(head))
            }
            Ok(user) => Ok(user),
            Err(rejection) => Err(rejection.at_least_scope(scope)),
        }
    }

    /// Inserts the user into a request, and keeps the user that a layer for another account has inserted.
    /// Returns `true` if no layer further out has seen the request.
    ///
    /// An [`AnonymousRequest`] of a layer further out stays in the extensions. Extractors look for a user
    /// first, and the mark still gives access to the users that it keeps.
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
            outer: Outer::NONE,
        };
        if let Some(replaced) = extensions.insert(user) {
            Self::keep_replaced(extensions, replaced);
            return false;
        }
        extensions.get::<AnonymousRequest>().is_none()
    }

    /// Keeps the user `replaced` as the outer value of the user that has replaced it, by the rules
    /// of [`Outer::of_replaced`]. Cold, because most applications have one layer around a route.
    #[cold]
    fn keep_replaced(extensions: &mut Extensions, replaced: Self) {
        if let Some(user) = extensions.get_mut::<Self>() {
            user.outer = Outer::of_replaced(replaced, user.app_id());
        }
    }

    /// Returns the id under which the application knows the user. After a login with WeChat this is the
    /// openid.
    pub fn id(&self) -> &str {
        self.token.user_id_text()
    }

    /// Returns the [`id`](Self::id) as a [`UserId`], the argument of the methods of [`UserTokens`].
    pub fn user_id(&self) -> &UserId {
        self.token.user_id()
    }

    /// Returns the AppID of the account whose user this is, or that of the
    /// [website](crate::login::LoginBuilder::website) with which the user has logged in.
    pub fn app_id(&self) -> &AppId {
        self.users.app_id()
    }

    /// Returns the user's access token, which was usable when the request came.
    pub fn access_token(&self) -> &AccessToken {
        self.token.access_token()
    }

    /// Returns the access token with its lifetime, openid and granted scope.
    pub fn token(&self) -> &UserToken {
        &self.token
    }

    /// Returns the user's openid, or `None` if the stored tokens do not contain it.
    pub fn openid(&self) -> Option<&str> {
        self.token.openid()
    }

    /// Returns the scopes that the user granted, comma-separated, or `None` if the stored tokens do not
    /// contain them.
    pub fn scope(&self) -> Option<&str> {
        self.token.scope()
    }

    /// Returns the user's unionid, or `None` if the stored tokens do not contain one.
    pub fn unionid(&self) -> Option<&str> {
        self.token.unionid()
    }

    /// Returns `true` if this is the virtual user of a snapshot page (快照页).
    pub fn is_snapshot(&self) -> bool {
        self.users.is_for_snapshots()
    }

    /// Returns the times at which the token is due for renewal and at which it expires.
    pub fn lifetime(&self) -> Lifetime {
        self.token.lifetime()
    }

    /// Returns `Fresh`, `Stale` or `Expired` for the token at the present time.
    pub fn freshness(&self) -> Freshness {
        self.lifetime().freshness(self.users.clock().now())
    }

    /// Returns the time until the token expires, or zero if the token has expired.
    pub fn expires_in(&self) -> std::time::Duration {
        self.users
            .clock()
            .now()
            .duration_until(self.lifetime().expires_at())
    }

    /// Returns the handle to the tokens of all users of the [`app_id`](Self::app_id).
    pub fn users(&self) -> &UserTokens {
        &self.users
    }

    /// Returns the user's current token. Renews the token first if it has expired.
    ///
    /// # Errors
    /// Returns the errors of [`UserTokens::get`].
    pub async fn current(&self) -> Result<UserToken, Error> {
        self.users.get(self.user_id()).await
    }

    /// Runs a call with the user's token. If WeChat rejects the token, runs the call once more with
    /// a new token.
    ///
    /// # Errors
    /// Returns the errors of [`UserTokens::with_token`].
    pub async fn with_token<T, E, F, Fut>(&self, call: F) -> Result<T, E>
    where
        F: FnMut(UserToken) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: InvalidToken + From<Error>,
    {
        self.users.with_token(self.user_id(), call).await
    }

    /// Reports that WeChat rejected the token of this request, and returns another token. Renews the token
    /// if no other process has done so.
    ///
    /// # Errors
    /// Returns the errors of [`UserTokens::report_invalid`].
    pub async fn report_invalid(&self) -> Result<UserToken, Error> {
        self.users
            .report_invalid(self.user_id(), self.access_token())
            .await
    }

    /// Returns the user's nickname, avatar and the other values of WeChat's `sns/userinfo`. Requires the
    /// scope `snsapi_userinfo`. This process caches the profile for ten minutes.
    ///
    /// # Errors
    /// Returns the errors of [`UserTokens::profile`].
    pub async fn profile(&self) -> Result<Arc<UserInfo>, Error> {
        self.users.profile(self.user_id()).await
    }

    /// Returns whether the user granted a scope, or `None` if the stored tokens do not contain the scopes.
    pub fn has_granted(&self, scope: Scope) -> Option<bool> {
        self.scope().map(|granted| scope.is_granted_by(granted))
    }

    /// Deletes the user's tokens and ends the user's sessions. The user's next request requires a login.
    ///
    /// The sessions are those of this user of [`app_id`](Self::app_id). For a user of a website app
    /// that stands beside several accounts, they end beside all of these accounts.
    ///
    /// # Errors
    /// Returns the errors of [`UserTokens::revoke`].
    pub async fn revoke(&self) -> Result<(), Error> {
        self.users.revoke(self.user_id()).await
    }

    /// Returns the user of this account, on a route with layers for several accounts. Also finds a user
    /// of a layer further out if the innermost layer let the request pass without a user.
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
        let kept_by_mark = || extensions.get::<AnonymousRequest>()?.outer.find(app);
        let user = extensions.get::<Self>();
        user.and_then(|user| user.for_app(app))
            .or_else(kept_by_mark)
    }

    /// Returns the user of this account: this user, or one that a layer further out has inserted.
    pub fn for_app(&self, app: &AppId) -> Option<&WechatUser> {
        find(self, app)
    }
}

impl OfAccount for WechatUser {
    fn account(&self) -> &AppId {
        self.app_id()
    }

    fn outer(&self) -> &Outer<Self> {
        &self.outer
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
