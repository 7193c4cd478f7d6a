//! The middleware service: selects the account of a request, and passes the request on.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response};
use tower_service::Service;

use super::account_layer::AccountLayer;
use super::call::{handle_request, release_reservation};
use super::future::{HandleFn, ResponseFuture, UnselectedRequest};
use super::layer_accounts::LayerAccounts;
use super::registry::Selection;
use super::rejection::{Reject, Rejection};
use crate::identity::{Identify, RequestHead};

/// Middleware service that [`WechatLayer`](crate::WechatLayer) puts around a service.
pub struct WechatService<S, I, R> {
    inner: S,
    accounts: LayerAccounts<I, R>,
}

impl<S, I, R> WechatService<S, I, R> {
    pub(super) fn new(inner: S, accounts: LayerAccounts<I, R>) -> Self {
        Self { inner, accounts }
    }

    pub(super) fn accounts(&self) -> &LayerAccounts<I, R> {
        &self.accounts
    }

    /// Returns the inner service.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// Returns a mutable reference to the inner service.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// Removes this middleware and returns the inner service.
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
    /// Does what [`Service::call`] does.
    ///
    /// This method exists for the compiler's messages. [`Service::call`] does not exist if a bound of the
    /// implementation is not met. The bounds of this method make the compiler name what is missing: an
    /// identity, or a way to make bodies of the service's type.
    ///
    /// # Order of the checks
    ///
    /// 1. The account is selected and inserted first, because every request that reaches the inner
    ///    service has it.
    /// 2. Preflights come before the login's paths and before the identity: browsers send them without
    ///    cookies, so they contain neither a login nor a user.
    /// 3. The login's paths come before the identity, so that a user with a revoked session or an
    ///    invalid id can log in.
    /// 4. Misrouted callbacks come before the identity too. Without this check, a callback without a
    ///    session would start another login, which would end at the same wrong path.
    /// 5. The identity finds the user, and the cache the user's token.
    /// 6. The session is checked before the scope. A revoked session requires a login even if its
    ///    user has granted the scope.
    ///
    /// A token that is not in the cache is loaded by the future, which then makes the checks of
    /// step 6.
    #[doc(hidden)]
    #[inline]
    pub fn call<ReqBody, ResBody>(
        &mut self,
        request: Request<ReqBody>,
    ) -> ResponseFuture<S, I, R, ReqBody>
    where
        S: Service<Request<ReqBody>, Response = Response<ResBody>> + Clone,
        I: Identify,
        R: Reject<ResBody>,
    {
        // A layer of one account calls the function directly, so that the compiler can inline it.
        match &self.accounts {
            LayerAccounts::One(layer) => handle_request(&mut self.inner, layer, request),
            LayerAccounts::Several { .. } => self.call_with(request, handle_request),
        }
    }

    /// Selects the account of a request, and handles the request with `handle`.
    pub(super) fn call_with<ReqBody, ResBody>(
        &mut self,
        request: Request<ReqBody>,
        handle: HandleFn<S, I, R, ReqBody>,
    ) -> ResponseFuture<S, I, R, ReqBody>
    where
        S: Service<Request<ReqBody>, Response = Response<ResBody>> + Clone,
        I: Identify,
        R: Reject<ResBody>,
    {
        let (settings, accounts) = match &self.accounts {
            LayerAccounts::One(layer) => return handle(&mut self.inner, layer, request),
            LayerAccounts::Several { settings, accounts } => (settings, accounts),
        };
        let head = RequestHead::from_request(&request);
        match accounts.select(&head) {
            Selection::Account(parts) => {
                let layer = AccountLayer {
                    settings: Arc::clone(settings),
                    parts,
                };
                handle(&mut self.inner, &layer, request)
            }
            Selection::Unknown => {
                accounts.log_unknown_account(&head);
                let response = settings.reject_account(Rejection::unknown_account(), &head);
                release_reservation(&mut self.inner);
                ResponseFuture::ready(response)
            }
            Selection::Searching(search) => {
                let pending = UnselectedRequest {
                    request,
                    settings: Arc::clone(settings),
                    accounts: accounts.clone(),
                    handle,
                };
                // Other requests may need the reservation while the registry is asked.
                release_reservation(&mut self.inner);
                ResponseFuture::finding_account(search, self.inner.clone(), pending)
            }
        }
    }
}

impl<S: Clone, I, R> Clone for WechatService<S, I, R> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            accounts: self.accounts.clone(),
        }
    }
}

impl<S: fmt::Debug, I, R> fmt::Debug for WechatService<S, I, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WechatService")
            .field("inner", &self.inner)
            .field("policy", &self.accounts.settings().policy)
            .finish_non_exhaustive()
    }
}
