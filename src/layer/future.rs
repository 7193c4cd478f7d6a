//! The future of [`WechatService`](crate::layer::WechatService), and its states.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::{HeaderValue, Request, Response};
use pin_project_lite::pin_project;
use tower_service::Service;

use super::account_layer::{AccountLayer, AccountParts};
use super::cache_control;
use super::registry::{Accounts, FoundAccount};
use super::rejection::{Reject, Rejection};
use super::retained_head::ResponseContext;
use super::settings::LayerSettings;
use super::{Logout, Policy, WechatUser};
use crate::credential::Freshness;
use crate::error::{Error, ErrorKind};
use crate::identity::{Identify, RequestHead, Session};
use crate::login::{LoginHandler, LoginReply};
use crate::metrics::RequestOutcome;
use crate::store::BoxFuture;
use crate::users::UserToken;

pin_project! {
    /// The future of [`WechatService`](crate::layer::WechatService).
    ///
    /// If the user's token is in memory, this future contains the future of the inner service and
    /// the cookie to set. If the layer has a login or a renderer of the application's own, it also
    /// contains the retained head of the request. A future that waits for a token contains the
    /// whole request.
    ///
    /// A future that is dropped drops the request and the call to the inner service. The renewal of the
    /// token and the exchange of a login's code are tasks, which continue.
    pub struct ResponseFuture<S, I, R, ReqBody>
    where
        S: Service<Request<ReqBody>>,
    {
        #[pin]
        state: FutureState<S::Future, S, I, R, ReqBody, S::Response>,
        // The renewed cookie of the user's session. The cookie is removed if the request turns out
        // to have no user.
        set_cookie: Option<HeaderValue>,
        // What the layer needs to complete the response of the handler. `None` if the handler is not
        // called, or if its response is final (`AccountLayer::response_context`).
        response_context: Option<ResponseContext<I, R>>,
    }
}

pin_project! {
    /// The state of a [`ResponseFuture`].
    ///
    /// # `FindingAccount`
    ///
    /// The first state of a request whose account the registry is asked for. Next: `WaitingForCall`
    /// with the account, or `Ready` if there is no such account or the registry has failed.
    ///
    /// # `WaitingForCall`
    ///
    /// The account is found. The clone of the inner service is polled until it is ready, and then the
    /// request is handled as one whose account was known. Next: the first state of that request.
    ///
    /// # `LoadingToken`
    ///
    /// The first state of a request whose token is not in memory. The token is read from the store, and
    /// renewed if it has expired. Next: `WaitingForInner` with the user, or without one under
    /// `Policy::Optional`; `Ready` if the layer rejects the request.
    ///
    /// # `WaitingForInner`
    ///
    /// The request has its user, or passes without one. The clone of the inner service is polled
    /// until it is ready. Next: `Calling`. An error of `poll_ready` ends the future.
    ///
    /// # `Calling`
    ///
    /// The first state of a request whose token is in memory, or that passes without a user. The
    /// inner service handles the request. Its response or error ends the future. A rejection that
    /// the handler returned is rendered before the cookie is added, because a rejection that
    /// requires a login removes the cookie. So does a [`Logout`].
    ///
    /// # `HandlingLogin`
    ///
    /// The first state of a request to the login that waits for the store or for WeChat, such as a
    /// callback whose code is exchanged. The reply of the login ends the future.
    ///
    /// # `Ready`
    ///
    /// The first state of a request to which the layer responds at once. The response ends the future.
    #[project = FutureStateProjection]
    enum FutureState<F, S, I, R, ReqBody, Res>
    where
        S: Service<Request<ReqBody>>,
    {
        Calling { #[pin] call: F },
        FindingAccount {
            search: BoxFuture<'static, FoundAccount>,
            inner: Option<S>,
            // Moved out of the state as soon as the account is found.
            pending: Option<UnselectedRequest<S, I, R, ReqBody>>,
        },
        WaitingForCall {
            inner: S,
            parts: Arc<AccountParts>,
            pending: Option<UnselectedRequest<S, I, R, ReqBody>>,
        },
        LoadingToken {
            token: BoxFuture<'static, Result<UserToken, Error>>,
            // Moved out of the state as soon as the token is loaded.
            pending: Option<PendingRequest<S, I, R, ReqBody>>,
        },
        WaitingForInner { inner: S, request: Option<Request<ReqBody>> },
        HandlingLogin {
            reply: BoxFuture<'static, LoginReply>,
            // Moved out of the state as soon as the login has replied. The request is kept until
            // then, because the renderer receives its head.
            pending: Option<(Request<ReqBody>, AccountLayer<I, R>)>,
        },
        Ready { response: Option<Res> },
    }
}

/// A function that handles a request with the layer as it serves the request's account.
pub(super) type HandleFn<S, I, R, ReqBody> =
    fn(&mut S, &AccountLayer<I, R>, Request<ReqBody>) -> ResponseFuture<S, I, R, ReqBody>;

/// A request whose account the registry is asked for, and what is needed to continue it.
pub(super) struct UnselectedRequest<S, I, R, ReqBody>
where
    S: Service<Request<ReqBody>>,
{
    pub(super) request: Request<ReqBody>,
    pub(super) settings: Arc<LayerSettings<I, R>>,
    /// The accounts of the layer, one of which the request may name.
    pub(super) accounts: Accounts,
    pub(super) handle: HandleFn<S, I, R, ReqBody>,
}

/// A request that waits for its token, and what is needed to continue it.
pub(super) struct PendingRequest<S, I, R, ReqBody> {
    pub(super) inner: S,
    pub(super) request: Request<ReqBody>,
    pub(super) layer: AccountLayer<I, R>,
    pub(super) session: Session,
}

impl<S, I, R, ReqBody> ResponseFuture<S, I, R, ReqBody>
where
    S: Service<Request<ReqBody>>,
{
    #[inline]
    pub(super) fn calling(
        call: S::Future,
        set_cookie: Option<HeaderValue>,
        response_context: Option<ResponseContext<I, R>>,
    ) -> Self {
        Self {
            state: FutureState::Calling { call },
            set_cookie,
            response_context,
        }
    }

    pub(super) fn loading_token(
        token: BoxFuture<'static, Result<UserToken, Error>>,
        pending: PendingRequest<S, I, R, ReqBody>,
        set_cookie: Option<HeaderValue>,
        response_context: Option<ResponseContext<I, R>>,
    ) -> Self {
        Self {
            state: FutureState::LoadingToken {
                token,
                pending: Some(pending),
            },
            set_cookie,
            response_context,
        }
    }

    pub(super) fn finding_account(
        search: BoxFuture<'static, FoundAccount>,
        inner: S,
        pending: UnselectedRequest<S, I, R, ReqBody>,
    ) -> Self {
        Self {
            state: FutureState::FindingAccount {
                search,
                inner: Some(inner),
                pending: Some(pending),
            },
            set_cookie: None,
            response_context: None,
        }
    }

    pub(super) fn handling_login(
        reply: BoxFuture<'static, LoginReply>,
        request: Request<ReqBody>,
        layer: AccountLayer<I, R>,
    ) -> Self {
        Self {
            state: FutureState::HandlingLogin {
                reply,
                pending: Some((request, layer)),
            },
            set_cookie: None,
            response_context: None,
        }
    }

    pub(super) fn ready(response: S::Response) -> Self {
        Self {
            state: FutureState::Ready {
                response: Some(response),
            },
            set_cookie: None,
            response_context: None,
        }
    }
}

impl<S, I, R, ReqBody, ResBody> Future for ResponseFuture<S, I, R, ReqBody>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
    I: Identify,
    R: Reject<ResBody>,
{
    type Output = Result<Response<ResBody>, S::Error>;

    /// Runs through the states until one of them is pending or the future ends. Like most futures,
    /// this one must not be polled after its end.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let next = match this.state.as_mut().project() {
                FutureStateProjection::Calling { call } => {
                    let mut response = ready!(call.poll(cx))?;
                    let rejection = Rejection::take_from(&mut response);
                    if let Some(context) = this.response_context.take() {
                        if let (Some(rejection), Some(retained)) = (rejection, &context.retained) {
                            if rejection.kind() == ErrorKind::LoginRequired {
                                // A user who has to log in has no session to renew.
                                *this.set_cookie = None;
                            }
                            let layer = &context.layer;
                            response =
                                layer.render_handler_rejection(rejection, retained, response);
                        }
                        if Logout::is_in(&response) && context.layer.end_session(&mut response) {
                            // A renewed cookie would begin the ended session again.
                            *this.set_cookie = None;
                        }
                    }
                    if let Some(cookie) = this.set_cookie.take() {
                        cache_control::add_session_cookie(&mut response, cookie);
                    }
                    return Poll::Ready(Ok(response));
                }
                FutureStateProjection::FindingAccount {
                    search,
                    inner,
                    pending,
                } => {
                    let found = ready!(search.as_mut().poll(cx));
                    let (Some(inner), Some(pending)) = (inner.take(), pending.take()) else {
                        return Poll::Pending;
                    };
                    let rejection = match found {
                        Ok(Some(parts)) => Ok(parts),
                        Ok(None) => Err(Rejection::unknown_account()),
                        Err(error) => Err(Rejection::from(error)),
                    };
                    match rejection {
                        Ok(parts) => FutureState::WaitingForCall {
                            inner,
                            parts,
                            pending: Some(pending),
                        },
                        Err(rejection) => {
                            let head = RequestHead::from_request(&pending.request);
                            if rejection.kind() == ErrorKind::UnknownAccount {
                                pending.accounts.log_unknown_account(&head);
                            } else {
                                pending.accounts.log_misplaced_push(&head);
                            }
                            let response = pending.settings.reject_account(rejection, &head);
                            return Poll::Ready(Ok(response));
                        }
                    }
                }
                FutureStateProjection::WaitingForCall {
                    inner,
                    parts,
                    pending,
                } => {
                    ready!(inner.poll_ready(cx))?;
                    let Some(pending) = pending.take() else {
                        return Poll::Pending;
                    };
                    let layer = AccountLayer {
                        settings: pending.settings,
                        parts: Arc::clone(parts),
                    };
                    let next = (pending.handle)(inner, &layer, pending.request);
                    *this.set_cookie = next.set_cookie;
                    *this.response_context = next.response_context;
                    next.state
                }
                FutureStateProjection::LoadingToken { token, pending } => {
                    let token = ready!(token.as_mut().poll(cx));
                    let Some(pending) = pending.take() else {
                        return Poll::Pending;
                    };
                    let token = pending.check_session(token);
                    if token.is_err() {
                        // A renewed cookie would make a revoked session valid again.
                        *this.set_cookie = None;
                    }
                    pending.proceed(token)
                }
                FutureStateProjection::WaitingForInner { inner, request } => {
                    ready!(inner.poll_ready(cx))?;
                    let Some(request) = request.take() else {
                        return Poll::Pending;
                    };
                    FutureState::Calling {
                        call: inner.call(request),
                    }
                }
                FutureStateProjection::HandlingLogin { reply, pending } => {
                    let reply = ready!(reply.as_mut().poll(cx));
                    return match pending.take() {
                        Some((request, layer)) => {
                            let head = RequestHead::from_request(&request);
                            Poll::Ready(Ok(layer.settings.respond(reply, &head)))
                        }
                        None => Poll::Pending,
                    };
                }
                FutureStateProjection::Ready { response } => {
                    return response
                        .take()
                        .map_or(Poll::Pending, |response| Poll::Ready(Ok(response)));
                }
            };
            this.state.set(next);
        }
    }
}

impl<S, I, R, ReqBody, ResBody> PendingRequest<S, I, R, ReqBody>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
    R: Reject<ResBody>,
{
    /// Returns `token`, or an error if the user has logged out everywhere since the session began.
    fn check_session(&self, token: Result<UserToken, Error>) -> Result<UserToken, Error> {
        let token = token?;
        if self.session.is_revoked(token.sessions_valid_from()) {
            let message = "the user has logged out everywhere since this session began";
            return Err(Error::new(ErrorKind::LoginRequired, message));
        }
        Ok(token)
    }

    /// Returns the next state: the request waits for the inner service, or the layer's response is ready.
    fn proceed(
        self,
        token: Result<UserToken, Error>,
    ) -> FutureState<S::Future, S, I, R, ReqBody, Response<ResBody>> {
        let Self {
            inner,
            mut request,
            layer,
            session,
        } = self;
        let rejection = match token {
            Ok(token) => match layer
                .settings
                .required_scope
                .filter(|scope| LoginHandler::lacks_scope(&token, *scope))
            {
                Some(scope) => Some(Rejection::missing_scope(scope, session)),
                None => {
                    layer.insert_user(token, session, &mut request);
                    None
                }
            },
            Err(error) => Some(Rejection::from(&error)),
        };
        match (rejection, layer.settings.policy) {
            (Some(rejection), Policy::Required) => {
                let response = layer.reject(rejection, &RequestHead::from_request(&request));
                return FutureState::Ready {
                    response: Some(response),
                };
            }
            (Some(rejection), Policy::Optional) => {
                layer.pass_without_user(rejection, &mut request);
            }
            (None, _) => {}
        }
        FutureState::WaitingForInner {
            inner,
            request: Some(request),
        }
    }
}

impl<I, R> AccountLayer<I, R> {
    /// Inserts the user into a request that has waited for the token, and counts the request.
    fn insert_user<B>(&self, token: UserToken, session: Session, request: &mut Request<B>) {
        let now = self.parts.users.clock().now();
        let stale = token.lifetime().freshness(now) != Freshness::Fresh;
        let outcome = match (stale, token.was_renewed()) {
            (true, _) => RequestOutcome::Stale,
            (false, true) => RequestOutcome::Renewed,
            (false, false) => RequestOutcome::Store,
        };
        let users = self.parts.users_for(session);
        if WechatUser::insert_into(request, token, users) {
            self.settings.request_counter.count(outcome);
        }
    }
}

impl<S, I, R, ReqBody> fmt::Debug for ResponseFuture<S, I, R, ReqBody>
where
    S: Service<Request<ReqBody>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
