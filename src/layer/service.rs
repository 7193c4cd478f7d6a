//! The service around the application.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::header::ACCESS_CONTROL_REQUEST_METHOD;
use http::{Method, Request, Response};
use tower_service::Service;
use tracing::Instrument;

use super::future::{ResponseFuture, Waiting};
use super::rejection::{Reject, Rejection};
use super::user::PassedWithoutUser;
use super::{Policy, Shared, WechatUser};
use crate::credential::UserId;
use crate::identity::{Identified, Identify, Identity, RequestHead};
use crate::login::{Reply, SignIn};
use crate::observe::Outcome;
use crate::store::BoxFuture;

/// What [`WechatLayer`](crate::WechatLayer) makes of a service.
///
/// ```
/// use tower_layer::Layer;
/// use tower_wechat::{
///     MemoryStore, TrustedHeader, UserTokens, WechatClient, WechatLayer, WechatService,
/// };
///
/// # fn main() -> Result<(), tower_wechat::Error> {
/// # let users = UserTokens::new(WechatClient::new("wx01", "secret")?, MemoryStore::new());
/// let layer = WechatLayer::new(users).identity(TrustedHeader::new("x-user-id")?);
/// // Any service; here one that is only a number.
/// let mut service: WechatService<u32, _, _> = layer.layer(1);
/// assert_eq!(service.get_ref(), &1);
/// *service.get_mut() = 2;
/// assert_eq!(service.into_inner(), 2);
/// # Ok(()) }
/// ```
pub struct WechatService<S, I, R> {
    inner: S,
    shared: Arc<Shared<I, R>>,
}

impl<S, I, R> WechatService<S, I, R> {
    pub(super) fn new(inner: S, shared: Arc<Shared<I, R>>) -> Self {
        Self { inner, shared }
    }

    /// The service inside.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The service inside, to change it.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// The service inside, without this one around it.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S, I, R, ReqBody, ResBody> Service<Request<ReqBody>> for WechatService<S, I, R>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>> + Clone,
    I: Identify,
    R: Reject<ResBody>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S, I, R, ReqBody>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<ReqBody>) -> Self::Future {
        let shared = &self.shared;
        if is_preflight(&request) {
            return ResponseFuture::calling(self.inner.call(request), None);
        }
        if let Some(account) = &shared.account {
            account.enter(&mut request);
        }
        let head = RequestHead::of(&request);
        if let Some(login) = &shared.login
            && login.owns(head.asked().path())
        {
            shared.requests.count(Outcome::Login);
            let named = match login.binds().then(|| shared.identity.identify(&head)) {
                Some(Identity::User(user)) => UserId::new(user.id.into_owned()).ok(),
                Some(Identity::Invalid(invalid)) => {
                    let rejection = Rejection::invalid(invalid);
                    return ResponseFuture::answered(shared.refuse(rejection, &head));
                }
                Some(Identity::Nobody) | None => None,
            };
            return match login.answer(&head, named) {
                Reply::Now(answer) => ResponseFuture::answered(shared.respond(answer, &head)),
                Reply::Later(answer) => {
                    ResponseFuture::signing_in(answer, request, Arc::clone(shared))
                }
            };
        }
        match shared.identity.identify(&head) {
            Identity::User(user) => {
                let users = if user.session.snapshot {
                    shared.users.snapshots()
                } else {
                    &shared.users
                };
                let Some(token) = users.cached(&user.id) else {
                    return self.resolve(user.into_owned(), request);
                };
                if user.session.is_revoked(token.sessions_from()) {
                    return self.nobody(request);
                }
                if let Some(scope) = shared.scope
                    && SignIn::lacks(&token, scope)
                {
                    let answer = shared.ask_for_more(scope, user.session, &head);
                    return ResponseFuture::answered(answer);
                }
                shared.requests.count(Outcome::Cache);
                let set_cookie = user.set_cookie;
                WechatUser::enter(&mut request, token, users);
                ResponseFuture::calling(self.inner.call(request), set_cookie)
            }
            Identity::Nobody => self.nobody(request),
            Identity::Invalid(invalid) => {
                let rejection = Rejection::invalid(invalid);
                ResponseFuture::answered(shared.refuse(rejection, &head))
            }
        }
    }
}

impl<S: Clone, I, R> WechatService<S, I, R> {
    /// The request has no user.
    fn nobody<ReqBody, ResBody>(
        &mut self,
        mut request: Request<ReqBody>,
    ) -> ResponseFuture<S, I, R, ReqBody>
    where
        S: Service<Request<ReqBody>, Response = Response<ResBody>>,
        R: Reject<ResBody>,
    {
        let shared = &self.shared;
        if shared.policy == Policy::Optional {
            shared.requests.count(Outcome::Login);
            PassedWithoutUser::enter(&mut request, shared.login.as_ref(), shared.scope);
            return ResponseFuture::calling(self.inner.call(request), None);
        }
        let head = RequestHead::of(&request);
        ResponseFuture::answered(shared.refuse(Rejection::nobody(), &head))
    }

    /// The token is not in memory: the request waits for it.
    fn resolve<ReqBody>(
        &mut self,
        user: Identified<'static>,
        request: Request<ReqBody>,
    ) -> ResponseFuture<S, I, R, ReqBody>
    where
        S: Service<Request<ReqBody>>,
    {
        let Identified {
            id,
            set_cookie,
            session,
        } = user;
        let users = if session.snapshot {
            self.shared.users.snapshots()
        } else {
            &self.shared.users
        };
        let asked = users.clone();
        let span = tracing::debug_span!(
            target: "tower_wechat::layer",
            "wechat.resolve",
            app = %asked.app_id(),
            user = ?id,
        );
        let token: BoxFuture<'static, _> = match (session.lately, span.is_disabled()) {
            (true, _) => {
                let token = async move { asked.get_after_login(&id).await };
                Box::pin(token.instrument(span))
            }
            (false, false) => {
                let token = async move { asked.get_uncached(id.into()).await };
                Box::pin(token.instrument(span))
            }
            // Nobody listens, as nearly always.
            (false, true) => Box::pin(async move { asked.get_uncached(id.into()).await }),
        };
        // The instance that was polled ready is the one that must be called; a clone may not be
        // ready. So the clone stays here, for the next request.
        let clone = self.inner.clone();
        let ready = std::mem::replace(&mut self.inner, clone);
        let waiting = Waiting {
            inner: ready,
            request,
            shared: Arc::clone(&self.shared),
            session,
        };
        ResponseFuture::resolving(token, waiting, set_cookie)
    }
}

/// Browsers send preflights without cookies, so nobody's sign-in can be in them.
fn is_preflight<B>(request: &Request<B>) -> bool {
    *request.method() == Method::OPTIONS
        && request
            .headers()
            .contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

impl<S: Clone, I, R> Clone for WechatService<S, I, R> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<S: fmt::Debug, I, R> fmt::Debug for WechatService<S, I, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WechatService")
            .field("inner", &self.inner)
            .field("policy", &self.shared.policy)
            .finish_non_exhaustive()
    }
}
