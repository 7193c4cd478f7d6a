//! The service around the application.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::header::ACCESS_CONTROL_REQUEST_METHOD;
use http::{Method, Request, Response};
use tower_service::Service;

use super::future::ResponseFuture;
use super::rejection::{Reject, Rejection};
use super::user::PassedWithoutUser;
use super::{Policy, Shared, WechatUser};
use crate::identity::{Identify, Identity, RequestHead};
use crate::observe::Outcome;

/// What [`WechatLayer`](crate::WechatLayer) makes of a service.
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
        let rejection = match shared.identity.identify(&head) {
            Identity::User(user) => match shared.users.cached(&user.id) {
                Some(token) => {
                    shared.requests.count(Outcome::Cache);
                    let set_cookie = user.set_cookie;
                    WechatUser::enter(&mut request, token, &shared.users);
                    return ResponseFuture::calling(self.inner.call(request), set_cookie);
                }
                None => {
                    let (id, set_cookie) = (user.id.into_owned(), user.set_cookie);
                    let users = shared.users.clone();
                    let token = Box::pin(async move { users.get_by_str(&id).await });
                    // The instance that was polled ready is the one that must be called; a clone
                    // may not be ready. So the clone stays here, for the next request.
                    let clone = self.inner.clone();
                    let ready = std::mem::replace(&mut self.inner, clone);
                    return ResponseFuture::resolving(
                        token,
                        ready,
                        request,
                        Arc::clone(shared),
                        set_cookie,
                    );
                }
            },
            Identity::Nobody if shared.policy == Policy::Optional => {
                shared.requests.count(Outcome::Login);
                request.extensions_mut().insert(PassedWithoutUser);
                return ResponseFuture::calling(self.inner.call(request), None);
            }
            Identity::Nobody => Rejection::nobody(),
            Identity::Invalid(invalid) => Rejection::invalid(invalid),
        };
        shared.requests.count(rejection.outcome());
        ResponseFuture::answered(shared.reject.reject(&rejection, &head))
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
