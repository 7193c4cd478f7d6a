//! What a request gets instead of its handler: a way to log in, or what went wrong.

use http::header::{CACHE_CONTROL, LOCATION, PRAGMA, SET_COOKIE};
use http::{HeaderValue, Response, StatusCode};

use super::Shared;
use super::rejection::{Reject, Rejection};
use crate::error::ErrorKind;
use crate::identity::{RequestHead, Session};
use crate::login::{Answer, Outcome, Scope, SignIn, is_navigation};
use crate::observe::Outcome as Counted;

impl<I, R> Shared<I, R> {
    /// Answers a request that does not reach its handler. Where a login is mounted, a page load
    /// without a user is sent to WeChat, and everything else learns where to log in.
    pub(super) fn refuse<B>(&self, rejection: Rejection, head: &RequestHead<'_>) -> Response<B>
    where
        R: Reject<B>,
    {
        self.requests.count(rejection.outcome());
        refuse(
            &self.reject,
            self.login.as_ref(),
            self.scope,
            rejection,
            head,
        )
    }

    /// Answers a request whose user has not granted enough. They are asked for more once, and
    /// never in a loop.
    pub(super) fn ask_for_more<B>(
        &self,
        scope: Scope,
        session: Session,
        head: &RequestHead<'_>,
    ) -> Response<B>
    where
        R: Reject<B>,
    {
        match &self.login {
            Some(login) if session.snapshot || session.asked_in_vain => {
                self.requests.count(Counted::Rejected);
                respond(&self.reject, login.not_granted(head, scope), head)
            }
            _ => self.refuse(Rejection::nobody(), head),
        }
    }

    /// Makes a response of what the login answers on its own paths.
    pub(super) fn respond<B>(&self, answer: Answer, head: &RequestHead<'_>) -> Response<B>
    where
        R: Reject<B>,
    {
        respond(&self.reject, answer, head)
    }
}

/// As [`Shared::refuse`], for those who come without the layer.
pub(super) fn refuse<B, R: Reject<B>>(
    reject: &R,
    login: Option<&SignIn>,
    scope: Option<Scope>,
    rejection: Rejection,
    head: &RequestHead<'_>,
) -> Response<B> {
    let rejection = match (login, rejection.kind()) {
        (None, _) => rejection,
        (Some(login), ErrorKind::LoginRequired) if is_navigation(head) => {
            return respond(reject, login.redirect(head, scope), head);
        }
        (Some(login), ErrorKind::LoginRequired) => {
            rejection.with_login_url(login.login_url(head, scope))
        }
        (Some(_), _) => rejection.for_reader(head),
    };
    reject.reject(&rejection, head)
}

fn respond<B, R: Reject<B>>(reject: &R, answer: Answer, head: &RequestHead<'_>) -> Response<B> {
    let mut response = match answer.outcome {
        Outcome::Redirect(location) => {
            let mut response = reject.reject(&Rejection::redirect(), head);
            *response.status_mut() = StatusCode::FOUND;
            response.headers_mut().insert(LOCATION, location);
            response
        }
        Outcome::Problem(problem) => reject.reject(&Rejection::of_login(problem), head),
    };
    let headers = response.headers_mut();
    // Some web views keep even redirects: a code that comes back from there is spent.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(PRAGMA, HeaderValue::from_static("no-cache"));
    for cookie in answer.cookies {
        headers.append(SET_COOKIE, cookie);
    }
    response
}
