//! The layer itself, and its settings.

use std::fmt;
use std::sync::Arc;

use tower_layer::Layer;

use super::shared::{IdentityOrSession, Shared};
use super::{JsonRejection, Policy, WechatAccount, WechatService};
#[cfg(doc)]
use super::{Reject, WechatUser};
use crate::identity::NoIdentity;
use crate::login::{Login, Scope};
use crate::metrics::RequestCounters;
use crate::users::UserTokens;

/// Puts the [`WechatUser`] of a request, with a fresh access token, into its extensions.
///
/// # What happens to a request
///
/// | the request | the answer |
/// |---|---|
/// | names a user whose token this process holds fresh | the inner service is called at once: no wait, no Redis |
/// | names another user | one round trip to the store, then as above; a token that is due for renewal is used, and renewed in the background |
/// | names a user whose token has expired | waits for its renewal, 5 seconds at most; 1 second under [`Policy::Optional`] |
/// | names nobody, or a user without tokens | 401, or passes under [`Policy::Optional`]; with a [`login`](Self::login), page loads are sent to WeChat, and 401 tells the `login_url` |
/// | names what cannot be a user | 400 |
/// | while the store or WeChat fails and no usable token is at hand | 503 with `Retry-After`, or passes under [`Policy::Optional`] |
/// | is a CORS preflight | 401: browsers send it without cookies, and anybody can send one; passes where the application [asks for it](Self::pass_preflights), and under [`Policy::Optional`] |
///
/// The caller's error type passes through unchanged: this layer never fails, it answers. While a
/// request waits for its token, and where the layer answers, the inner service is not kept ready:
/// a limit of concurrency inside counts the requests that it works on, and no others.
///
/// # Order of layers
///
/// Outside of this one: catching panics, tracing, CORS, time-outs, load shedding, and sessions
/// that name the user. Inside: concurrency limits. In axum the last `.layer(..)` is the outermost; the cheapest
/// mount is around the whole router, `layer.layer(router)`.
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
///     format!("hello {}", user.id()) // user.access_token() is fresh
/// }
///
/// # fn main() -> Result<(), tower_wechat::Error> {
/// let wechat = WechatClient::new("wx0123456789abcdef", "secret")?;
/// let users = UserTokens::new(wechat, MemoryStore::new());
/// let layer = WechatLayer::new(users).identity(TrustedHeader::new("x-user-id")?);
/// let app: Router = Router::new().route("/me", get(me)).layer(layer.clone());
///
/// // Open to strangers, and with answers of the application's own.
/// let open = layer.policy(Policy::Optional).reject(|why: &Rejection, _: &RequestHead<'_>| {
///     let response = Response::builder().status(why.status());
///     response.body(Body::from(why.message().to_owned())).unwrap()
/// });
/// let app = app.route("/", get(async |user: Option<WechatUser>| "hello").layer(open));
/// # let _: Router = app;
/// # Ok(()) }
/// ```
pub struct WechatLayer<I = NoIdentity, R = JsonRejection>(pub(super) Arc<Shared<I, R>>);

impl WechatLayer {
    /// A layer for the users of this account. It needs an [`identity`](Self::identity) before it
    /// can be used.
    pub fn new(users: UserTokens) -> Self {
        Self(Arc::new(Shared {
            users,
            account: None,
            policy: Policy::Required,
            pass_preflights: false,
            identity: Arc::new(NoIdentity),
            renderer: Arc::new(JsonRejection::new()),
            request_counter: RequestCounters::new(),
            login: None,
            required_scope: None,
        }))
    }
}

impl<I, R> WechatLayer<I, R> {
    /// How to tell who is asking: a [`SessionCookie`](crate::SessionCookie), a
    /// [`TrustedHeader`](crate::TrustedHeader), an [`ExtensionIdentity`](crate::identity::ExtensionIdentity)
    /// or a closure.
    #[must_use]
    pub fn identity<J>(self, identity: J) -> WechatLayer<J, R> {
        WechatLayer(Arc::new(
            self.into_shared()
                .with_types(|_, reject| (Arc::new(identity), reject)),
        ))
    }

    /// What happens to requests without a user. Default: [`Policy::Required`].
    #[must_use]
    pub fn policy(self, policy: Policy) -> Self {
        Self(Arc::new(Shared {
            policy,
            ..self.into_shared()
        }))
    }

    /// Lets CORS preflights (`OPTIONS` with `Access-Control-Request-Method`) through to the
    /// application, without a user. Default: no, the layer answers them with 401.
    ///
    /// Say yes where the application answers preflights itself, inside of this layer. Anybody can
    /// send such a request, with or without an `Origin`: handlers that answer every method get it
    /// too. A CORS layer that stands outside of this one needs no such setting. Under
    /// [`Policy::Optional`] preflights pass in any case, as every request does.
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
    ///     // Further out; without the setting it would refuse what the CORS layer answers.
    ///     .layer(WechatLayer::new(users).login(login).pass_preflights(true));
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn pass_preflights(self, pass: bool) -> Self {
        Self(Arc::new(Shared {
            pass_preflights: pass,
            ..self.into_shared()
        }))
    }

    /// Puts a handle to the account's own token into every request, as a [`WechatAccount`]: for
    /// calls of WeChat's API in the account's name, and, where [`Tickets`](crate::Tickets) are
    /// given, for signatures of JS-SDK pages. Nothing is fetched before somebody asks.
    ///
    /// ```
    /// use axum::Json;
    /// use tower_wechat::{
    ///     AccountTokens, JsConfig, MemoryStore, Tickets, UserTokens, WechatClient, WechatLayer,
    /// };
    ///
    /// /// A handler's argument: the configuration of the page that asks.
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
        Self(Arc::new(Shared {
            account: Some(account.into()),
            ..self.into_shared()
        }))
    }

    /// Signs users in with WeChat: the layer sends page loads without a user there, and answers the
    /// login's own paths, `/wechat/callback` and `/wechat/login`, before the application does.
    ///
    /// Users are told by the login's session cookie then, unless an
    /// [`identity`](Self::identity) is set.
    ///
    /// The layer answers them wherever it sees them: around a whole application it sees every
    /// request. Around a part of one, such as a router that is merged or nested, mount them as what
    /// they are: [`login_routes`](Self::login_routes), or [`login_service`](Self::login_service)
    /// without axum.
    #[must_use]
    pub fn login(self, login: Login) -> WechatLayer<I::Identity, R>
    where
        I: IdentityOrSession,
    {
        let shared = self.into_shared();
        let login = login.into_handler(&shared.users);
        let session = login.session_cookie();
        let settings =
            shared.with_types(|identity, reject| (I::or_session(identity, session), reject));
        WechatLayer(Arc::new(Shared {
            login: Some(login),
            ..settings
        }))
    }

    /// What users must have granted. Whoever has granted less is asked once more: by a redirect
    /// to WeChat for page loads, else by a 401 whose `login_url` asks for this scope. Who has been
    /// asked in vain gets 403. Where it is not known what a user granted, as with pairs that
    /// another service has stored, they pass. Default: whatever was granted does.
    ///
    /// Under [`Policy::Optional`] they pass without a user, as strangers do, and a handler that
    /// takes a [`WechatUser`] asks them.
    ///
    /// For some routes only, put a layer of its own around them, inside of the one with the login:
    ///
    /// ```
    /// use axum::{Router, routing::get};
    /// # use tower_wechat::{CookieKeys, MemoryStore, UserTokens, WechatClient};
    /// use tower_wechat::{Login, Scope, WechatLayer, WechatUser};
    ///
    /// async fn home(user: WechatUser) -> String {
    ///     format!("hello {}", user.id())
    /// }
    ///
    /// async fn card(user: WechatUser) -> Result<String, tower_wechat::Error> {
    ///     Ok(user.profile().await?.nickname.clone())
    /// }
    ///
    /// # fn main() -> Result<(), tower_wechat::Error> {
    /// # let users = UserTokens::new(WechatClient::new("wx01", "secret")?, MemoryStore::new());
    /// let login = Login::builder("https://h5.example.com", CookieKeys::random()?)
    ///     .scope(Scope::Base)
    ///     .build()?;
    /// let layer = WechatLayer::new(users).login(login);
    /// let app: Router = Router::new()
    ///     .route("/card", get(card))
    ///     .route_layer(layer.clone().require_scope(Scope::UserInfo))
    ///     .route("/", get(home))
    ///     .layer(layer);
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn require_scope(self, scope: Scope) -> Self {
        Self(Arc::new(Shared {
            required_scope: Some(scope),
            ..self.into_shared()
        }))
    }

    /// How refusals look: the layer's own, and those of axum's extractors and of handlers that
    /// return an [`Error`](crate::Error) ([`Reject`] says which). Default: [`JsonRejection`].
    #[must_use]
    pub fn reject<Q>(self, reject: Q) -> WechatLayer<I, Q> {
        WechatLayer(Arc::new(
            self.into_shared()
                .with_types(|identity, _| (identity, Arc::new(reject))),
        ))
    }

    fn into_shared(self) -> Shared<I, R> {
        Arc::try_unwrap(self.0).unwrap_or_else(|shared| shared.duplicate())
    }
}

impl<S, I, R> Layer<S> for WechatLayer<I, R> {
    type Service = WechatService<S, I, R>;

    fn layer(&self, inner: S) -> Self::Service {
        WechatService::new(inner, Arc::clone(&self.0))
    }
}

impl<I, R> Clone for WechatLayer<I, R> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<I, R> fmt::Debug for WechatLayer<I, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WechatLayer")
            .field("users", &self.0.users)
            .field("policy", &self.0.policy)
            .finish_non_exhaustive()
    }
}
