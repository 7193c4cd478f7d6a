//! What a request gets instead of its handler: a way to log in, or what went wrong.

use http::header::{CACHE_CONTROL, LOCATION, PRAGMA, SET_COOKIE};
use http::{Extensions, HeaderValue, Request, Response, StatusCode};

use super::Shared;
use super::rejection::{Reject, Rejection};
use super::user::{PassedWithoutUser, has_met_layer};
use crate::error::ErrorKind;
use crate::identity::{RequestHead, Session};
use crate::login::{Answer, Outcome, Scope, SignIn, is_navigation};
use crate::observe::Outcome as Counted;

/// Why a request is not served with its user, and what would help.
#[derive(Debug, Clone)]
pub(crate) struct Refusal {
    rejection: Rejection,
    /// What the user has to grant. `None`: whatever the login asks for.
    scope: Option<Scope>,
    /// Whether the user was asked for that scope and did not grant it. They are not asked in a loop.
    declined: bool,
}

impl From<Rejection> for Refusal {
    fn from(rejection: Rejection) -> Self {
        Self {
            rejection,
            scope: None,
            declined: false,
        }
    }
}

impl Refusal {
    /// The user has granted less than this.
    pub(super) fn lacks(scope: Scope, session: Session) -> Self {
        Self {
            scope: Some(scope),
            declined: session.snapshot || session.asked_in_vain,
            ..Self::from(Rejection::nobody())
        }
    }

    /// Sets what a login asks for, unless that is known.
    pub(super) fn asking(mut self, scope: Option<Scope>) -> Self {
        self.scope = self.scope.or(scope);
        self
    }

    /// The response. Where a login is mounted, a page load without a user is sent to WeChat, and
    /// every other request learns where to log in.
    pub(super) fn response<B, R: Reject<B>>(
        self,
        reject: &R,
        login: Option<&SignIn>,
        head: &RequestHead<'_>,
    ) -> Response<B> {
        let Self {
            rejection,
            scope,
            declined,
        } = self;
        let rejection = match (login, rejection.kind()) {
            (None, _) => rejection,
            (Some(login), ErrorKind::LoginRequired) => match scope {
                Some(scope) if declined => {
                    return respond(reject, login.not_granted(head, scope), head);
                }
                _ if is_navigation(head) => {
                    return respond(reject, login.redirect(head, scope), head);
                }
                _ => rejection.with_login_url(login.login_url(head, scope)),
            },
            (Some(_), _) => rejection.for_reader(head),
        };
        reject.reject(&rejection, head)
    }

    fn outcome(&self) -> Counted {
        match self.declined {
            true => Counted::Rejected,
            false => self.rejection.outcome(),
        }
    }
}

impl<I, R> Shared<I, R> {
    /// Answers a request that does not reach its handler.
    pub(super) fn refuse<B>(
        &self,
        refusal: impl Into<Refusal>,
        head: &RequestHead<'_>,
    ) -> Response<B>
    where
        R: Reject<B>,
    {
        let refusal = refusal.into().asking(self.scope);
        self.count(refusal.outcome(), head.extensions);
        refusal.response(&*self.reject, self.login.as_ref(), head)
    }

    /// Lets a request pass without a user. Its handler may still refuse it.
    pub(super) fn pass_without_user<B>(
        &self,
        refusal: impl Into<Refusal>,
        request: &mut Request<B>,
    ) {
        let refusal = refusal.into().asking(self.scope);
        self.count(refusal.outcome(), request.extensions());
        let login = self.login.as_ref();
        PassedWithoutUser::enter(request, login, refusal);
    }

    /// Counts a request, unless a layer further out has done so.
    fn count(&self, outcome: Counted, extensions: &Extensions) {
        if !has_met_layer(extensions) {
            self.requests.count(outcome);
        }
    }

    /// Makes a response of what the login answers on its own paths.
    pub(super) fn respond<B>(&self, answer: Answer, head: &RequestHead<'_>) -> Response<B>
    where
        R: Reject<B>,
    {
        respond(&*self.reject, answer, head)
    }
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
