//! The service around the application.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::header::ACCESS_CONTROL_REQUEST_METHOD;
use http::{Method, Request, Response};
use tower_service::Service;

use super::future::{PendingRequest, ResponseFuture};
use super::rejection::{Reject, Rejection};
use super::shared::Shared;
use super::{Policy, WechatUser};
use crate::credential::UserId;
use crate::identity::{IdentifiedUser, Identify, Identity, RequestHead, Session};
use crate::login::{HandlerReply, LoginHandler};
use crate::metrics::RequestOutcome;

/// What [`WechatLayer`](crate::WechatLayer) makes of a service.
///
/// ```
/// use tower_layer::Layer;
/// use tower_wechat::layer::WechatService;
/// use tower_wechat::{MemoryStore, TrustedHeader, UserTokens, WechatClient, WechatLayer};
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

    pub(super) fn shared(&self) -> &Shared<I, R> {
        &self.shared
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

    #[inline]
    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        Self::call(self, request)
    }
}

impl<S, I, R> WechatService<S, I, R> {
    /// As [`Service::call`]. It is found also where the layer cannot be used around the service, so
    /// that the compiler says what is missing: an identity, or a way to make the service's bodies.
    #[doc(hidden)]
    #[inline]
    pub fn call<ReqBody, ResBody>(
        &mut self,
        mut request: Request<ReqBody>,
    ) -> ResponseFuture<S, I, R, ReqBody>
    where
        S: Service<Request<ReqBody>, Response = Response<ResBody>> + Clone,
        I: Identify,
        R: Reject<ResBody>,
    {
        let shared = &self.shared;
        if let Some(account) = &shared.account {
            account.insert_into(&mut request);
        }
        if is_preflight(&request) {
            return self.handle_preflight(request);
        }
        let head = RequestHead::from_request(&request);
        if let Some(login) = &shared.login
            && login.handles_path(head.original_uri().path())
        {
            return self.handle_login(request);
        }
        if let Some(login) = &shared.login
            && let Some(answer) = login.reject_misrouted_callback(&head)
        {
            shared.count_request(RequestOutcome::Rejected, head.extensions);
            let answer = shared.respond(answer, &head);
            return self.respond_without_inner(answer);
        }
        match shared.identity.identify(&head) {
            Identity::User(user) => {
                let users = shared.users.for_user(user.session.snapshot);
                let Some(token) = users.cached(&user.id) else {
                    return self.wait_for_token(user.into_owned(), request);
                };
                if user.session.is_revoked(token.sessions_valid_from()) {
                    return self.reject_or_pass(Rejection::login_required(), request);
                }
                if let Some(scope) = shared.required_scope
                    && LoginHandler::lacks_scope(&token, scope)
                {
                    let rejection = Rejection::missing_scope(scope, user.session);
                    return self.reject_or_pass(rejection, request);
                }
                let set_cookie = user.set_cookie;
                let kept = shared.rejection_context::<_, ResBody>(&request, user.session);
                if WechatUser::insert_into(&mut request, token, users) {
                    shared.request_counter.count(RequestOutcome::Cache);
                }
                ResponseFuture::calling(self.inner.call(request), set_cookie, kept)
            }
            Identity::Anonymous => self.reject_or_pass(Rejection::unnamed(), request),
            Identity::Invalid(invalid) => {
                let answer = shared.reject(Rejection::invalid_user_id(invalid), &head);
                self.respond_without_inner(answer)
            }
        }
    }

    /// Answers without the inner service, which was polled ready and is not called. What it has
    /// reserved for the call (a place under a limit of concurrency, say) goes back at once: this
    /// service may be idle from now on, as that of a connection is between requests.
    fn respond_without_inner<ReqBody>(
        &mut self,
        answer: S::Response,
    ) -> ResponseFuture<S, I, R, ReqBody>
    where
        S: Service<Request<ReqBody>> + Clone,
    {
        self.release_inner();
        ResponseFuture::ready(answer)
    }

    /// Gives back what the inner service has reserved when it was polled ready.
    fn release_inner(&mut self)
    where
        S: Clone,
    {
        // A clone has reserved nothing. The instance that has goes.
        self.inner = self.inner.clone();
    }

    /// The request is a CORS preflight. Nobody's sign-in can be in it.
    fn handle_preflight<ReqBody, ResBody>(
        &mut self,
        request: Request<ReqBody>,
    ) -> ResponseFuture<S, I, R, ReqBody>
    where
        S: Service<Request<ReqBody>, Response = Response<ResBody>> + Clone,
        R: Reject<ResBody>,
    {
        match self.shared.pass_preflights {
            true => self.pass_without_user(Rejection::login_required(), request),
            false => self.reject_or_pass(Rejection::preflight(), request),
        }
    }

    /// The request is for one of the login's own paths.
    pub(super) fn handle_login<ReqBody, ResBody>(
        &mut self,
        request: Request<ReqBody>,
    ) -> ResponseFuture<S, I, R, ReqBody>
    where
        S: Service<Request<ReqBody>, Response = Response<ResBody>> + Clone,
        I: Identify,
        R: Reject<ResBody>,
    {
        self.release_inner();
        let shared = &self.shared;
        let head = RequestHead::from_request(&request);
        let Some(login) = &shared.login else {
            return ResponseFuture::ready(shared.reject(Rejection::login_required(), &head));
        };
        shared.request_counter.count(RequestOutcome::Login);
        let identified = match login
            .binds_to_identity()
            .then(|| shared.identity.identify(&head))
        {
            Some(Identity::User(user)) => UserId::new(user.id.into_owned()).ok(),
            Some(Identity::Invalid(invalid)) => {
                let rejection = Rejection::invalid_user_id(invalid);
                return ResponseFuture::ready(shared.reject(rejection, &head));
            }
            Some(Identity::Anonymous) | None => None,
        };
        match login.handle(&head, identified) {
            HandlerReply::Ready(answer) => ResponseFuture::ready(shared.respond(answer, &head)),
            HandlerReply::Pending(answer) => {
                ResponseFuture::handling_login(answer, request, Arc::clone(shared))
            }
        }
    }

    /// The request has no user whom its handler may see.
    fn reject_or_pass<ReqBody, ResBody>(
        &mut self,
        rejection: Rejection,
        request: Request<ReqBody>,
    ) -> ResponseFuture<S, I, R, ReqBody>
    where
        S: Service<Request<ReqBody>, Response = Response<ResBody>> + Clone,
        R: Reject<ResBody>,
    {
        match self.shared.policy {
            Policy::Optional => self.pass_without_user(rejection, request),
            Policy::Required => {
                let answer = self
                    .shared
                    .reject(rejection, &RequestHead::from_request(&request));
                self.respond_without_inner(answer)
            }
        }
    }

    fn pass_without_user<ReqBody, ResBody>(
        &mut self,
        rejection: Rejection,
        mut request: Request<ReqBody>,
    ) -> ResponseFuture<S, I, R, ReqBody>
    where
        S: Service<Request<ReqBody>, Response = Response<ResBody>>,
        R: Reject<ResBody>,
    {
        self.shared.pass_without_user(rejection, &mut request);
        let kept = self
            .shared
            .rejection_context::<_, ResBody>(&request, Session::default());
        ResponseFuture::calling(self.inner.call(request), None, kept)
    }

    /// The token is not in memory: the request waits for it.
    fn wait_for_token<ReqBody, ResBody>(
        &mut self,
        user: IdentifiedUser<'static>,
        request: Request<ReqBody>,
    ) -> ResponseFuture<S, I, R, ReqBody>
    where
        S: Service<Request<ReqBody>, Response = Response<ResBody>> + Clone,
        R: Reject<ResBody>,
    {
        // The inner service was polled ready. Others may want what it has reserved while this
        // request waits, so that goes back, and the future polls a clone when it has the token.
        self.release_inner();
        let IdentifiedUser {
            id,
            set_cookie,
            session,
        } = user;
        let kept = self
            .shared
            .rejection_context::<_, ResBody>(&request, session);
        let pending = PendingRequest {
            inner: self.inner.clone(),
            request,
            shared: Arc::clone(&self.shared),
            session,
        };
        ResponseFuture::loading_token(
            self.shared.load_token(id, session),
            pending,
            set_cookie,
            kept,
        )
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
