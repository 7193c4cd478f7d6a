//! The response to come.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::{HeaderValue, Request, Response};
use pin_project_lite::pin_project;
use tower_service::Service;

use super::caching;
use super::rejection::{Reject, Rejection};
use super::retained::Retained;
use super::{Policy, Shared, WechatUser};
use crate::credential::Freshness;
use crate::error::{Error, ErrorKind};
use crate::identity::{RequestHead, Session};
use crate::login::{Answer as LoginAnswer, SignIn};
use crate::observe::Outcome;
use crate::store::BoxFuture;
use crate::users::UserToken;

pin_project! {
    /// The future of [`WechatService`](crate::WechatService).
    ///
    /// Where the user's token is in memory it is the inner service's own future, and a cookie to
    /// set; only a request that has to wait for its token keeps the rest.
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
        state: State<S::Future, S, I, R, ReqBody, S::Response>,
        set_cookie: Option<HeaderValue>,
        // Where nothing is kept, a handler's refusal is as the layer would render it.
        kept: Option<Kept<I, R>>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<F, S, I, R, ReqBody, Answer> {
        /// The inner service is at work.
        Calling { #[pin] call: F },
        /// The user's token is on its way.
        Resolving {
            token: BoxFuture<'static, Result<UserToken, Error>>,
            // Taken when the token is there.
            waiting: Option<Waiting<S, I, R, ReqBody>>,
        },
        /// The token is there, and the inner service has to be ready for its request.
        Readying { inner: S, request: Option<Request<ReqBody>> },
        /// The login is at work for a callback.
        SigningIn {
            answer: BoxFuture<'static, LoginAnswer>,
            // Taken when the answer is there.
            waiting: Option<(Request<ReqBody>, Arc<Shared<I, R>>)>,
        },
        /// The layer has answered itself.
        Answered { answer: Option<Answer> },
    }
}

/// Who renders what a handler refuses, and what is kept of its request.
pub(super) type Kept<I, R> = (Arc<Shared<I, R>>, Retained);

/// What waits for a token.
pub(super) struct Waiting<S, I, R, ReqBody> {
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
        kept: Option<Kept<I, R>>,
    ) -> Self {
        Self {
            state: State::Calling { call },
            set_cookie,
            kept,
        }
    }

    pub(super) fn resolving(
        token: BoxFuture<'static, Result<UserToken, Error>>,
        waiting: Waiting<S, I, R, ReqBody>,
        set_cookie: Option<HeaderValue>,
        kept: Option<Kept<I, R>>,
    ) -> Self {
        Self {
            state: State::Resolving {
                token,
                waiting: Some(waiting),
            },
            set_cookie,
            kept,
        }
    }

    pub(super) fn signing_in(
        answer: BoxFuture<'static, LoginAnswer>,
        request: Request<ReqBody>,
        shared: Arc<Shared<I, R>>,
    ) -> Self {
        Self {
            state: State::SigningIn {
                answer,
                waiting: Some((request, shared)),
            },
            set_cookie: None,
            kept: None,
        }
    }

    pub(super) fn answered(answer: S::Response) -> Self {
        Self {
            state: State::Answered {
                answer: Some(answer),
            },
            set_cookie: None,
            kept: None,
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
                StateProjection::Calling { call } => {
                    let mut response = ready!(call.poll(cx))?;
                    if let Some(rejection) = Rejection::take(&mut response)
                        && let Some((shared, retained)) = this.kept.take()
                    {
                        if rejection.kind() == ErrorKind::LoginRequired {
                            // Whoever has to log in has no session that could go on.
                            *this.set_cookie = None;
                        }
                        response = shared.render_refused(rejection, &retained, response);
                    }
                    if let Some(cookie) = this.set_cookie.take() {
                        caching::add_session(&mut response, cookie);
                    }
                    return Poll::Ready(Ok(response));
                }
                StateProjection::Resolving { token, waiting } => {
                    let token = ready!(token.as_mut().poll(cx));
                    let Some(waiting) = waiting.take() else {
                        return Poll::Pending;
                    };
                    let token = waiting.admit(token);
                    if token.is_err() {
                        // Nobody's session is issued anew: one that has been revoked would live
                        // again by it.
                        *this.set_cookie = None;
                    }
                    waiting.proceed(token)
                }
                StateProjection::Readying { inner, request } => {
                    ready!(inner.poll_ready(cx))?;
                    let Some(request) = request.take() else {
                        return Poll::Pending;
                    };
                    State::Calling {
                        call: inner.call(request),
                    }
                }
                StateProjection::SigningIn { answer, waiting } => {
                    let answer = ready!(answer.as_mut().poll(cx));
                    return match waiting.take() {
                        Some((request, shared)) => {
                            let head = RequestHead::of(&request);
                            Poll::Ready(Ok(shared.respond(answer, &head)))
                        }
                        None => Poll::Pending,
                    };
                }
                // A future that is polled after it has answered has nothing more to say.
                StateProjection::Answered { answer } => {
                    return answer
                        .take()
                        .map_or(Poll::Pending, |answer| Poll::Ready(Ok(answer)));
                }
            };
            this.state.set(next);
        }
    }
}

impl<S, I, R, ReqBody, ResBody> Waiting<S, I, R, ReqBody>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
    R: Reject<ResBody>,
{
    /// The token, unless the session is one that its user has ended.
    fn admit(&self, token: Result<UserToken, Error>) -> Result<UserToken, Error> {
        let token = token?;
        if self.session.is_revoked(token.sessions_from()) {
            let message = "the user has logged out everywhere since this session began";
            return Err(Error::new(ErrorKind::LoginRequired, message));
        }
        Ok(token)
    }

    /// Goes on to the inner service, or answers in its place.
    fn proceed(
        self,
        token: Result<UserToken, Error>,
    ) -> State<S::Future, S, I, R, ReqBody, Response<ResBody>> {
        let Self {
            inner,
            mut request,
            shared,
            session,
        } = self;
        let rejection = match token {
            Ok(token) => match shared.scope.filter(|scope| SignIn::lacks(&token, *scope)) {
                Some(scope) => Some(Rejection::lacks(scope, session)),
                None => {
                    shared.enter(token, session, &mut request);
                    None
                }
            },
            Err(error) => Some(Rejection::from(&error)),
        };
        match (rejection, shared.policy) {
            (Some(rejection), Policy::Require) => {
                let answer = shared.refuse(rejection, &RequestHead::of(&request));
                return State::Answered {
                    answer: Some(answer),
                };
            }
            (Some(rejection), Policy::Optional) => {
                shared.pass_without_user(rejection, &mut request);
            }
            (None, _) => {}
        }
        State::Readying {
            inner,
            request: Some(request),
        }
    }
}

impl<I, R> Shared<I, R> {
    /// Puts the user into the request that has waited for their token.
    fn enter<B>(&self, token: UserToken, session: Session, request: &mut Request<B>) {
        let now = self.users.clock().now();
        let stale = token.lifetime().freshness(now) != Freshness::Fresh;
        let outcome = match (stale, token.was_renewed()) {
            (true, _) => Outcome::Stale,
            (false, true) => Outcome::Renewed,
            (false, false) => Outcome::Store,
        };
        let users = match session.snapshot {
            true => self.users.snapshots(),
            false => &self.users,
        };
        if WechatUser::enter(request, token, users) {
            self.requests.count(outcome);
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
