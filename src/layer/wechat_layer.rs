//! [`WechatLayer`] and its settings.

use std::fmt;
use std::sync::Arc;

use tower_layer::Layer;

use super::account_layer::{AccountLayer, AccountParts};
use super::layer_accounts::LayerAccounts;
use super::registry::Accounts;
use super::settings::{IdentityOrSession, LayerSettings};
use super::{AccountSession, JsonRejection, Policy, WechatAccount, WechatService};
#[cfg(doc)]
use super::{Reject, WechatUser};
use crate::credential::AppId;
use crate::identity::{NoIdentity, SessionCookie};
use crate::login::{Login, Scope};
use crate::users::UserTokens;

/// Layer that inserts the [`WechatUser`] of a request, with a usable access token, into the request's
/// extensions.
///
/// # What happens to a request
///
/// | request | result |
/// |---|---|
/// | its user's token is fresh and in this process's memory | the layer calls the inner service at once, without Redis |
/// | its user's token is in the store | one round trip to the store, then the inner service; a token that is due for renewal is used, and renewed in the background |
/// | its user's token has expired | the request waits for the renewal: 5 seconds at most, or 1 second under [`Policy::Optional`] |
/// | it has no user, or a user without tokens | 401, or it passes under [`Policy::Optional`]; with a [`login`](Self::login), page loads are redirected to WeChat, and the 401 contains the `login_url` |
/// | it names a user by a value that cannot be an id | 400 |
/// | no usable token can be had because the store or WeChat fails | 503 with `Retry-After`, or it passes under [`Policy::Optional`] |
/// | CORS preflight | 401; with [`pass_preflights`](Self::pass_preflights) or under [`Policy::Optional`] it passes without a user |
///
/// The layer itself never fails: it turns every failure into a response, and passes errors of the inner
/// service on unchanged.
///
/// While a request waits for its token, and when the layer responds itself, the inner service is not kept
/// ready. A concurrency limit inside therefore counts only the requests that the inner service serves.
///
/// # Order of layers
///
/// - Outside of this layer: panic catching, tracing, CORS, timeouts, load shedding, and sessions that
///   identify the user.
/// - Inside: concurrency limits.
///
/// In axum the last `.layer(..)` is the outermost. The layer costs least around the whole router:
/// `layer.layer(router)`.
///
/// # Example
///
/// ```
/// use axum::{Router, body::Body, routing::get};
/// use http::Response;
/// use tower_wechat::{
///     MemoryStore, Policy, Rejection, RequestHead, TrustedHeader, UserTokens, WechatClient,
///     WechatLayer, WechatUser,
/// };
///
/// async fn me(user: WechatUser) -> String {
///     format!("hello {}", user.id()) // user.access_token() has not expired
/// }
///
/// # fn main() -> Result<(), tower_wechat::Error> {
/// let wechat = WechatClient::new("wx0123456789abcdef", "secret")?;
/// let users = UserTokens::new(wechat, MemoryStore::new());
/// let layer = WechatLayer::new(users).identity(TrustedHeader::new("x-user-id")?);
/// let app: Router = Router::new().route("/me", get(me)).layer(layer.clone());
///
/// // Serves anonymous requests too, and renders rejections in the application's own form.
/// let open = layer.policy(Policy::Optional).reject(|rejection: &Rejection, _: &RequestHead<'_>| {
///     let response = Response::builder().status(rejection.status());
///     response.body(Body::from(rejection.message().to_owned())).unwrap()
/// });
/// let app = app.route("/", get(async |user: Option<WechatUser>| "hello").layer(open));
/// # let _: Router = app;
/// # Ok(()) }
/// ```
pub struct WechatLayer<I = NoIdentity, R = JsonRejection>(pub(super) LayerAccounts<I, R>);

impl WechatLayer {
    /// Creates a layer for the users of this account. The layer can be used once it has an
    /// [`identity`](Self::identity) or a [`login`](Self::login).
    pub fn new(users: UserTokens) -> Self {
        Self(LayerAccounts::One(AccountLayer {
            settings: Arc::new(LayerSettings::new(NoIdentity, JsonRejection::new())),
            parts: Arc::new(AccountParts {
                users,
                account: None,
                login: None,
            }),
        }))
    }
}

impl WechatLayer<AccountSession> {
    /// Creates a layer of several accounts. For each request, the layer first selects the account, and
    /// then serves the request as a layer of that account.
    ///
    /// Each account has its own login and settings ([`Account`](crate::Account)), so
    /// [`login`](Self::login) and [`account`](Self::account) have no effect on this layer. All other
    /// settings are the same for all accounts. By default, the session cookie of the selected account
    /// identifies the user.
    ///
    /// The layer must receive every request, also for unknown paths: put it around the whole router.
    /// Handlers receive the account as a [`WechatAccount`] in the request's extensions.
    pub fn for_accounts(accounts: Accounts) -> Self {
        Self(LayerAccounts::Several {
            settings: Arc::new(LayerSettings::new(AccountSession, JsonRejection::new())),
            accounts,
        })
    }
}

impl<I, R> WechatLayer<I, R> {
    /// Sets the identity, which reads the user of a request from its head: a
    /// [`SessionCookie`](crate::SessionCookie), a [`TrustedHeader`](crate::TrustedHeader), an
    /// [`ExtensionIdentity`](crate::identity::ExtensionIdentity) or a closure
    /// `|head: &RequestHead<'_>| -> Option<UserId>`, whose argument needs its type. Default: none,
    /// or the session cookie of the [`login`](Self::login).
    #[must_use]
    pub fn identity<J>(self, identity: J) -> WechatLayer<J, R> {
        self.map_settings(|settings| {
            settings.with_types(|_, renderer| (Arc::new(identity), renderer))
        })
    }

    /// Sets what happens to requests without a user or without a usable token. Default:
    /// [`Policy::Required`].
    #[must_use]
    pub fn policy(self, policy: Policy) -> Self {
        self.map_settings(|settings| LayerSettings { policy, ..settings })
    }

    /// Sets whether CORS preflights (`OPTIONS` with `Access-Control-Request-Method`) reach the application
    /// without a user. Default: `false`, the layer rejects them with 401.
    ///
    /// Set `true` if a CORS layer inside of this layer responds to preflights. A CORS layer outside
    /// needs no setting. Any client can send a request with these headers, also without `Origin`.
    /// Handlers that accept `OPTIONS` receive such a request.
    ///
    /// Under [`Policy::Optional`] preflights pass in any case.
    ///
    /// ```
    /// use axum::{Router, routing::get};
    /// use tower_http::cors::CorsLayer;
    /// # use tower_wechat::{CookieKeys, MemoryStore, UserTokens, WechatClient};
    /// use tower_wechat::{Login, WechatLayer, WechatUser};
    ///
    /// # fn main() -> Result<(), tower_wechat::Error> {
    /// # let users = UserTokens::new(WechatClient::new("wx01", "secret")?, MemoryStore::new());
    /// # let login = Login::new("https://h5.example.com", CookieKeys::random()?)?;
    /// let app: Router = Router::new()
    ///     .route("/me", get(async |user: WechatUser| user.id().to_owned()))
    ///     .layer(CorsLayer::permissive())
    ///     // Outside of the CORS layer: without the setting, preflights would not reach the latter.
    ///     .layer(WechatLayer::new(users).login(login).pass_preflights(true));
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn pass_preflights(self, pass: bool) -> Self {
        self.map_settings(|settings| LayerSettings {
            pass_preflights: pass,
            ..settings
        })
    }

    /// Inserts a [`WechatAccount`] into every request: the handle to the account's own token, for
    /// calls to WeChat's API in the account's name. If `account` is made from
    /// [`Tickets`](crate::Tickets), the handle also signs JS-SDK pages. The token and the ticket
    /// are fetched when a handler calls for them.
    ///
    /// ```
    /// use axum::Json;
    /// use tower_wechat::{
    ///     AccountTokens, JsConfig, MemoryStore, Tickets, UserTokens, WechatClient, WechatLayer,
    /// };
    ///
    /// /// Returns the JS-SDK configuration of the page whose script made the request.
    /// async fn config(config: JsConfig) -> Json<JsConfig> {
    ///     Json(config)
    /// }
    ///
    /// # fn main() -> Result<(), tower_wechat::Error> {
    /// let wechat = WechatClient::new("wx0123456789abcdef", "secret")?;
    /// let accounts = AccountTokens::new(wechat.clone(), MemoryStore::new());
    /// let tickets = Tickets::new(&accounts, ["h5.example.com"])?;
    /// let layer = WechatLayer::new(UserTokens::new(wechat, MemoryStore::new())).account(tickets);
    /// # let _ = (layer, config);
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn account(self, account: impl Into<WechatAccount>) -> Self {
        Self(self.0.map_parts(
            "WechatLayer::account",
            "Account::account_tokens and Account::page_hosts",
            |parts| {
                let account = account.into();
                let account = match parts.users.app_id() == account.app_id() {
                    true => account.with_users(&parts.users),
                    false => account,
                };
                AccountParts {
                    account: Some(match &parts.login {
                        Some(login) => account.with_login(login),
                        None => account,
                    }),
                    ..parts
                }
            },
        ))
    }

    /// Adds a login with WeChat. The layer redirects page loads without a user to WeChat, and handles
    /// requests to the login's own paths, `/wechat/callback` and `/wechat/login`.
    ///
    /// Unless an [`identity`](Self::identity) is set, the login's session cookie identifies users.
    ///
    /// A layer around the whole application receives every request, also those to the login's
    /// paths. A layer around a merged or nested router may not receive requests to these paths. In
    /// that case add the paths with [`login_routes`](Self::login_routes), or with
    /// [`login_service`](Self::login_service) without axum.
    #[must_use]
    pub fn login(self, login: Login) -> WechatLayer<I::Identity, R>
    where
        I: IdentityOrSession,
    {
        let mut session = login.session_cookie_of(&AppId::of_no_account());
        let accounts = self
            .0
            .map_parts("WechatLayer::login", "Account::login", |parts| {
                let login = login.into_handler(&parts.users);
                session = login.session_cookie().clone();
                AccountParts {
                    account: parts.account.map(|account| account.with_login(&login)),
                    login: Some(login),
                    ..parts
                }
            });
        WechatLayer(accounts.map_settings(|settings| {
            settings.with_types(|identity, renderer| (I::or_session(identity, session), renderer))
        }))
    }

    /// Sets the scope that users must have granted. Default: none, every user passes.
    ///
    /// A user who has not granted the scope is asked to grant it. A page load is redirected to
    /// WeChat, and any other request receives 401 with a `login_url` for this scope. A user who
    /// declines receives 403. A user whose stored tokens do not contain the granted scopes passes;
    /// other services may store such tokens.
    ///
    /// Under [`Policy::Optional`] the request passes without its user. A handler that takes a
    /// [`WechatUser`] rejects the request, and asks the user for the scope.
    ///
    /// To require `snsapi_userinfo` for some routes only, let their handlers take a
    /// `GrantedUserInfo`, or call [`WechatUser::required_with_scope`].
    ///
    /// ```
    /// # use tower_wechat::{CookieKeys, MemoryStore, UserTokens, WechatClient};
    /// use tower_wechat::{Login, Scope, WechatLayer};
    ///
    /// # fn main() -> Result<(), tower_wechat::Error> {
    /// # let users = UserTokens::new(WechatClient::new("wx01", "secret")?, MemoryStore::new());
    /// # let login = Login::new("https://h5.example.com", CookieKeys::random()?)?;
    /// let layer = WechatLayer::new(users).login(login).require_scope(Scope::UserInfo);
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn require_scope(self, scope: Scope) -> Self {
        self.map_settings(|settings| LayerSettings {
            required_scope: Some(scope),
            ..settings
        })
    }

    /// Sets the renderer of the layer's own rejections, of the rejections of axum's extractors, and
    /// of errors that handlers return ([`Reject`] lists all of these). The arguments of a closure need
    /// their types: `|rejection: &Rejection, head: &RequestHead<'_>|`. Default: [`JsonRejection`].
    #[must_use]
    pub fn reject<Q>(self, renderer: Q) -> WechatLayer<I, Q> {
        self.map_settings(|settings| {
            settings.with_types(|identity, _| (identity, Arc::new(renderer)))
        })
    }

    fn map_settings<J, Q>(
        self,
        change: impl FnOnce(LayerSettings<I, R>) -> LayerSettings<J, Q>,
    ) -> WechatLayer<J, Q> {
        WechatLayer(self.0.map_settings(change))
    }
}

impl<R> WechatLayer<SessionCookie, R> {
    /// Returns the session cookie that identifies the layer's users: that of the
    /// [`login`](Self::login), or the [`identity`](Self::identity) of a layer that was given a
    /// [`SessionCookie`].
    ///
    /// With it an application's own login signs in a user who has logged in with WeChat before, for
    /// example by phone number:
    ///
    /// ```
    /// use axum::extract::State;
    /// use axum::http::{HeaderName, HeaderValue, StatusCode, header::SET_COOKIE};
    /// use axum::{Router, routing::post};
    /// use tower_wechat::{
    ///     CookieKeys, Error, Login, MemoryStore, SessionCookie, UserId, UserTokens, WechatClient,
    ///     WechatLayer,
    /// };
    ///
    /// async fn sign_in(
    ///     State(session): State<SessionCookie>,
    ///     phone: String,
    /// ) -> Result<[(HeaderName, HeaderValue); 1], StatusCode> {
    ///     let user = check_code_of(&phone).await.ok_or(StatusCode::FORBIDDEN)?;
    ///     Ok([(SET_COOKIE, session.issue(&user))])
    /// }
    /// # async fn check_code_of(_phone: &str) -> Option<UserId> { None }
    ///
    /// # fn main() -> Result<(), Error> {
    /// # let users = UserTokens::new(WechatClient::new("wx01", "secret")?, MemoryStore::new());
    /// # let login = Login::new("https://h5.example.com", CookieKeys::random()?)?;
    /// let layer = WechatLayer::new(users).login(login);
    /// let session = layer.session_cookie().clone();
    /// let app: Router = Router::new()
    ///     // … the application's pages
    ///     .layer(layer)
    ///     .route("/sign-in", post(sign_in).with_state(session));
    /// # Ok(()) }
    /// ```
    pub fn session_cookie(&self) -> &SessionCookie {
        &self.0.settings().identity
    }
}

impl<S, I, R> Layer<S> for WechatLayer<I, R> {
    type Service = WechatService<S, I, R>;

    fn layer(&self, inner: S) -> Self::Service {
        WechatService::new(inner, self.0.clone())
    }
}

impl<I, R> Clone for WechatLayer<I, R> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<I, R> fmt::Debug for WechatLayer<I, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WechatLayer")
            .field("users", &self.0.parts().map(|parts| &parts.users))
            .field("policy", &self.0.settings().policy)
            .finish_non_exhaustive()
    }
}
