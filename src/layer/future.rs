//! The response to come.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::{HeaderValue, Request, Response};
use pin_project_lite::pin_project;
use tower_service::Service;

use super::cache_control;
use super::rejection::{Reject, Rejection};
use super::retained_head::RejectionContext;
use super::shared::Shared;
use super::{Policy, WechatUser};
use crate::credential::Freshness;
use crate::error::{Error, ErrorKind};
use crate::identity::{RequestHead, Session};
use crate::login::{LoginHandler, LoginReply as LoginAnswer};
use crate::metrics::RequestOutcome;
use crate::store::BoxFuture;
use crate::users::UserToken;

pin_project! {
    /// The future of [`WechatService`](crate::layer::WechatService).
    ///
    /// If the user's token is in memory, this holds the inner service's future and the cookie to
    /// set; with a login or a renderer of the application, also the retained head. A request that
    /// waits for its token is held as a whole.
    ///
    /// ```
    /// use std::convert::Infallible;
    ///
    /// use axum::body::Body;
    /// use http::{Request, Response};
    /// use tower::{Service, service_fn};
    /// use tower_layer::Layer;
    /// use tower_wechat::{MemoryStore, TrustedHeader, UserTokens, WechatClient, WechatLayer};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), tower_wechat::Error> {
    /// # let users = UserTokens::new(WechatClient::new("wx01", "secret")?, MemoryStore::new());
    /// let layer = WechatLayer::new(users).identity(TrustedHeader::new("x-user-id")?);
    /// let mut service = layer.layer(service_fn(async |_: Request<Body>| {
    ///     Ok::<_, Infallible>(Response::new(Body::empty()))
    /// }));
    /// // Nobody is named, so the layer answers by itself.
    /// let answer = service.call(Request::new(Body::empty())).await;
    /// assert_eq!(answer.unwrap().status(), 401);
    /// # Ok(()) }
    /// ```
    pub struct ResponseFuture<S, I, R, ReqBody>
    where
        S: Service<Request<ReqBody>>,
    {
        #[pin]
        state: FutureState<S::Future, S, I, R, ReqBody, S::Response>,
        set_cookie: Option<HeaderValue>,
        // Where nothing is kept, a handler's refusal is as the layer would render it.
        rejection_context: Option<RejectionContext<I, R>>,
    }
}

pin_project! {
    #[project = FutureStateProjection]
    enum FutureState<F, S, I, R, ReqBody, Answer> {
        /// The inner service is at work.
        Calling { #[pin] call: F },
        /// The user's token is on its way.
        LoadingToken {
            token: BoxFuture<'static, Result<UserToken, Error>>,
            // Taken when the token is there.
            pending: Option<PendingRequest<S, I, R, ReqBody>>,
        },
        /// The token is there, and the inner service has to be ready for its request.
        WaitingForInner { inner: S, request: Option<Request<ReqBody>> },
        /// The login is at work for a callback.
        HandlingLogin {
            answer: BoxFuture<'static, LoginAnswer>,
            // Taken when the answer is there.
            waiting: Option<(Request<ReqBody>, Arc<Shared<I, R>>)>,
        },
        /// The layer has answered itself.
        Ready { answer: Option<Answer> },
    }
}

/// What waits for a token.
pub(super) struct PendingRequest<S, I, R, ReqBody> {
    pub(super) inner: S,
    pub(super) request: Request<ReqBody>,
    pub(super) shared: Arc<Shared<I, R>>,
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
        rejection_context: Option<RejectionContext<I, R>>,
    ) -> Self {
        Self {
            state: FutureState::Calling { call },
            set_cookie,
            rejection_context,
        }
    }

    pub(super) fn loading_token(
        token: BoxFuture<'static, Result<UserToken, Error>>,
        waiting: PendingRequest<S, I, R, ReqBody>,
        set_cookie: Option<HeaderValue>,
        rejection_context: Option<RejectionContext<I, R>>,
    ) -> Self {
        Self {
            state: FutureState::LoadingToken {
                token,
                pending: Some(waiting),
            },
            set_cookie,
            rejection_context,
        }
    }

    pub(super) fn handling_login(
        answer: BoxFuture<'static, LoginAnswer>,
        request: Request<ReqBody>,
        shared: Arc<Shared<I, R>>,
    ) -> Self {
        Self {
            state: FutureState::HandlingLogin {
                answer,
                waiting: Some((request, shared)),
            },
            set_cookie: None,
            rejection_context: None,
        }
    }

    pub(super) fn ready(answer: S::Response) -> Self {
        Self {
            state: FutureState::Ready {
                answer: Some(answer),
            },
            set_cookie: None,
            rejection_context: None,
        }
    }
}

impl<S, I, R, ReqBody, ResBody> Future for ResponseFuture<S, I, R, ReqBody>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
    R: Reject<ResBody>,
{
    type Output = Result<Response<ResBody>, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let next = match this.state.as_mut().project() {
                FutureStateProjection::Calling { call } => {
                    let mut response = ready!(call.poll(cx))?;
                    if let Some(rejection) = Rejection::take_from(&mut response)
                        && let Some((shared, retained)) = this.rejection_context.take()
                    {
                        if rejection.kind() == ErrorKind::LoginRequired {
                            // Whoever has to log in has no session that could go on.
                            *this.set_cookie = None;
                        }
                        response = shared.render_handler_rejection(rejection, &retained, response);
                    }
                    if let Some(cookie) = this.set_cookie.take() {
                        cache_control::add_session_cookie(&mut response, cookie);
                    }
                    return Poll::Ready(Ok(response));
                }
                FutureStateProjection::LoadingToken {
                    token,
                    pending: waiting,
                } => {
                    let token = ready!(token.as_mut().poll(cx));
                    let Some(waiting) = waiting.take() else {
                        return Poll::Pending;
                    };
                    let token = waiting.check_session(token);
                    if token.is_err() {
                        // Nobody's session is issued anew: one that has been revoked would live
                        // again by it.
                        *this.set_cookie = None;
                    }
                    waiting.proceed(token)
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
                FutureStateProjection::HandlingLogin { answer, waiting } => {
                    let answer = ready!(answer.as_mut().poll(cx));
                    return match waiting.take() {
                        Some((request, shared)) => {
                            let head = RequestHead::from_request(&request);
                            Poll::Ready(Ok(shared.respond(answer, &head)))
                        }
                        None => Poll::Pending,
                    };
                }
                // A future that is polled after it has answered has nothing more to say.
                FutureStateProjection::Ready { answer } => {
                    return answer
                        .take()
                        .map_or(Poll::Pending, |answer| Poll::Ready(Ok(answer)));
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
    /// The token, unless the session is one that its user has ended.
    fn check_session(&self, token: Result<UserToken, Error>) -> Result<UserToken, Error> {
        let token = token?;
        if self.session.is_revoked(token.sessions_valid_from()) {
            let message = "the user has logged out everywhere since this session began";
            return Err(Error::new(ErrorKind::LoginRequired, message));
        }
        Ok(token)
    }

    /// Goes on to the inner service, or answers in its place.
    fn proceed(
        self,
        token: Result<UserToken, Error>,
    ) -> FutureState<S::Future, S, I, R, ReqBody, Response<ResBody>> {
        let Self {
            inner,
            mut request,
            shared,
            session,
        } = self;
        let rejection = match token {
            Ok(token) => match shared
                .required_scope
                .filter(|scope| LoginHandler::lacks_scope(&token, *scope))
            {
                Some(scope) => Some(Rejection::missing_scope(scope, session)),
                None => {
                    shared.insert_user(token, session, &mut request);
                    None
                }
            },
            Err(error) => Some(Rejection::from(&error)),
        };
        match (rejection, shared.policy) {
            (Some(rejection), Policy::Required) => {
                let answer = shared.reject(rejection, &RequestHead::from_request(&request));
                return FutureState::Ready {
                    answer: Some(answer),
                };
            }
            (Some(rejection), Policy::Optional) => {
                shared.pass_without_user(rejection, &mut request);
            }
            (None, _) => {}
        }
        FutureState::WaitingForInner {
            inner,
            request: Some(request),
        }
    }
}

impl<I, R> Shared<I, R> {
    /// Puts the user into the request that has waited for their token.
    fn insert_user<B>(&self, token: UserToken, session: Session, request: &mut Request<B>) {
        let now = self.users.clock().now();
        let stale = token.lifetime().freshness(now) != Freshness::Fresh;
        let outcome = match (stale, token.was_renewed()) {
            (true, _) => RequestOutcome::Stale,
            (false, true) => RequestOutcome::Renewed,
            (false, false) => RequestOutcome::Store,
        };
        let users = self.users.for_user(session.snapshot);
        if WechatUser::insert_into(request, token, users) {
            self.request_counter.count(outcome);
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
