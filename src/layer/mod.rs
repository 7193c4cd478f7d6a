//! The Tower layer: every request meets its user's fresh token before it meets the handler.

mod account;
mod future;
mod rejection;
mod service;
mod user;

use std::fmt;
use std::sync::Arc;

use tower_layer::Layer;

pub use self::account::WechatAccount;
pub use self::future::ResponseFuture;
pub use self::rejection::{JsonRejection, Reject, Rejection};
pub use self::service::WechatService;
#[cfg(feature = "axum")]
pub(crate) use self::user::PassedWithoutUser;
pub use self::user::WechatUser;
use crate::identity::NoIdentity;
use crate::observe::Requests;
use crate::users::UserTokens;

/// What happens to a request without a user, or whose user has no usable token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Policy {
    /// It is answered: 401 with a JSON body.
    #[default]
    Require,
    /// It passes, without a [`WechatUser`].
    Optional,
}

/// Puts the [`WechatUser`] of a request, with a fresh access token, into its extensions.
///
/// # What happens to a request
///
/// | the request | the answer |
/// |---|---|
/// | names a user whose token this process holds fresh | the inner service is called at once: no wait, no Redis |
/// | names another user | one round trip to the store, then as above; a token that is due for renewal is used, and renewed in the background |
/// | names a user whose token has expired | waits for its renewal, 5 seconds at most |
/// | names nobody, or a user without tokens | 401, or passes under [`Policy::Optional`] |
/// | names what cannot be a user | 400 |
/// | while the store or WeChat fails and no usable token is at hand | 503 with `Retry-After` |
/// | is a CORS preflight | passes untouched: browsers send it without cookies |
///
/// The caller's error type passes through unchanged: this layer never fails, it answers.
///
/// # Order of layers
///
/// Outside of this one: catching panics, tracing, CORS, time-outs, load shedding, and sessions
/// that name the user. Inside: concurrency limits, since a request that waits for a token keeps
/// the inner service's readiness. In axum the last `.layer(..)` is the outermost; the cheapest
/// mount is around the whole router, `layer.layer(router)`.
///
/// # Example
///
/// ```
/// use axum::{Router, routing::get};
/// use tower_wechat::{
///     MemoryStore, TrustedHeader, UserTokens, WechatClient, WechatLayer, WechatUser,
/// };
///
/// async fn me(user: WechatUser) -> String {
///     format!("hello {}", user.id()) // user.access_token() is fresh
/// }
///
/// # fn main() -> Result<(), tower_wechat::Error> {
/// let wechat = WechatClient::new("wx0123456789abcdef", "secret")?;
/// let users = UserTokens::new(wechat, MemoryStore::new());
/// let app: Router = Router::new()
///     .route("/me", get(me))
///     .layer(WechatLayer::new(users).identity(TrustedHeader::new("x-user-id")?));
/// # Ok(()) }
/// ```
pub struct WechatLayer<I = NoIdentity, R = JsonRejection>(Arc<Shared<I, R>>);

/// What all clones of a layer and its services share.
#[derive(Debug)]
struct Shared<I, R> {
    users: UserTokens,
    account: Option<WechatAccount>,
    policy: Policy,
    identity: I,
    reject: R,
    requests: Requests,
}

impl WechatLayer {
    /// A layer for the users of this account. It needs an [`identity`](Self::identity) before it
    /// can be used.
    pub fn new(users: UserTokens) -> Self {
        Self(Arc::new(Shared {
            users,
            account: None,
            policy: Policy::Require,
            identity: NoIdentity,
            reject: JsonRejection::new(),
            requests: Requests::new(),
        }))
    }
}

impl<I, R> WechatLayer<I, R> {
    /// How to tell who is asking: a [`SessionCookie`](crate::SessionCookie), a
    /// [`TrustedHeader`](crate::TrustedHeader), an [`ExtensionIdentity`](crate::ExtensionIdentity)
    /// or a closure.
    #[must_use]
    pub fn identity<J>(self, identity: J) -> WechatLayer<J, R>
    where
        I: Clone,
        R: Clone,
    {
        let Shared {
            users,
            account,
            policy,
            reject,
            requests,
            ..
        } = self.settings();
        WechatLayer(Arc::new(Shared {
            users,
            account,
            policy,
            identity,
            reject,
            requests,
        }))
    }

    /// What happens to requests without a user. Default: [`Policy::Require`].
    #[must_use]
    pub fn policy(self, policy: Policy) -> Self
    where
        I: Clone,
        R: Clone,
    {
        Self(Arc::new(Shared {
            policy,
            ..self.settings()
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
    pub fn account(self, account: impl Into<WechatAccount>) -> Self
    where
        I: Clone,
        R: Clone,
    {
        Self(Arc::new(Shared {
            account: Some(account.into()),
            ..self.settings()
        }))
    }

    /// How the layer's own answers look. Default: [`JsonRejection`].
    #[must_use]
    pub fn reject<Q>(self, reject: Q) -> WechatLayer<I, Q>
    where
        I: Clone,
        R: Clone,
    {
        let Shared {
            users,
            account,
            policy,
            identity,
            requests,
            ..
        } = self.settings();
        WechatLayer(Arc::new(Shared {
            users,
            account,
            policy,
            identity,
            reject,
            requests,
        }))
    }

    fn settings(self) -> Shared<I, R>
    where
        I: Clone,
        R: Clone,
    {
        Arc::try_unwrap(self.0).unwrap_or_else(|shared| Shared {
            users: shared.users.clone(),
            account: shared.account.clone(),
            policy: shared.policy,
            identity: shared.identity.clone(),
            reject: shared.reject.clone(),
            requests: shared.requests.clone(),
        })
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
