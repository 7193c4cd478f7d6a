//! What a request gets instead of its handler: a way to log in, or what went wrong.

use http::header::{CACHE_CONTROL, CONTENT_TYPE, LOCATION, PRAGMA, SET_COOKIE};
use http::{Extensions, HeaderValue, Request, Response, StatusCode};

use super::Shared;
use super::rejection::{Reject, Rejection};
use super::retained::Retained;
use super::user::{PassedWithoutUser, has_met_layer};
use crate::error::ErrorKind;
use crate::identity::RequestHead;
use crate::login::{Answer, Outcome, is_form, is_navigation};
use crate::observe::Outcome as Counted;

impl<I, R> Shared<I, R> {
    /// Answers a request that does not reach its handler.
    pub(super) fn refuse<B>(&self, rejection: Rejection, head: &RequestHead<'_>) -> Response<B>
    where
        R: Reject<B>,
    {
        let rejection = self.noting_decline(rejection, head).asking(self.scope);
        self.count(rejection.outcome(), head.extensions);
        self.render(rejection, head, Way::ToWechat)
    }

    /// Marks the rejection of a user who lacks a scope as declined, if this browser has come back
    /// from WeChat a moment ago without it. The session remembers that too, but users whom a header
    /// names have none, and WeChat does not always say what was granted.
    fn noting_decline(&self, mut rejection: Rejection, head: &RequestHead<'_>) -> Rejection {
        if let (Some(scope), Some(login)) = (rejection.scope, &self.login) {
            rejection.declined |= is_navigation(head) && login.was_asked_for(scope, head.headers);
        }
        rejection
    }

    /// Lets a request pass without a user. Its handler may still refuse it.
    pub(super) fn pass_without_user<B>(&self, rejection: Rejection, request: &mut Request<B>) {
        let rejection = self
            .noting_decline(rejection, &RequestHead::of(request))
            .asking(self.scope);
        self.count(rejection.outcome(), request.extensions());
        PassedWithoutUser::enter(request, rejection);
    }

    /// Renders what a handler refused, in place of the response that it returned.
    pub(super) fn render_refused<B>(
        &self,
        mut rejection: Rejection,
        retained: &Retained,
        response: Response<B>,
    ) -> Response<B>
    where
        R: Reject<B>,
    {
        rejection.declined |= rejection.scope.is_some() && retained.declined;
        // An extractor saw the request's whole head. A handler that returns an error did not.
        let rendered = match rejection.head.clone() {
            Some(head) => {
                let rejection = rejection.asking(self.scope);
                self.render(rejection, &head.borrow(), Way::ToWechat)
            }
            None => retained.with_head(|head| {
                let rejection = self.noting_decline(rejection, head).asking(self.scope);
                self.render(rejection, head, Way::ToLogin)
            }),
        };
        merge(response, rendered)
    }

    /// Where a login is mounted, a page load without a user is sent there, and every other request
    /// learns where to log in.
    fn render<B>(&self, rejection: Rejection, head: &RequestHead<'_>, way: Way) -> Response<B>
    where
        R: Reject<B>,
    {
        let Some(login) = &self.login else {
            return self.reject.reject(&rejection, head);
        };
        if rejection.kind() != ErrorKind::LoginRequired {
            return self.reject.reject(&rejection.for_reader(login, head), head);
        }
        match rejection.scope {
            Some(scope) if rejection.declined => self.respond(login.not_granted(head, scope), head),
            scope if is_navigation(head) => {
                let answer = match way {
                    Way::ToWechat => login.redirect(head, scope, rejection.unnamed),
                    Way::ToLogin => login.redirect_to_login(head, scope),
                };
                self.respond(answer, head)
            }
            scope if is_form(head) => {
                let mut response = self.respond(login.redirect_form(head, scope), head);
                if response.status() == StatusCode::FOUND {
                    *response.status_mut() = StatusCode::SEE_OTHER;
                }
                response
            }
            scope => {
                let rejection = rejection.with_login_url(login.login_url(head, scope));
                self.reject.reject(&rejection, head)
            }
        }
    }

    /// Counts a request, unless a layer further out has done so.
    pub(super) fn count(&self, outcome: Counted, extensions: &Extensions) {
        if !has_met_layer(extensions) {
            self.requests.count(outcome);
        }
    }

    /// Makes a response of what the login answers.
    pub(super) fn respond<B>(&self, answer: Answer, head: &RequestHead<'_>) -> Response<B>
    where
        R: Reject<B>,
    {
        respond(&*self.reject, answer, head)
    }
}

/// Where a page load without a user is sent.
#[derive(Clone, Copy)]
enum Way {
    /// To WeChat's authorize page at once.
    ToWechat,
    /// To the login's own path, which begins the login. It sees the browser's cookies, and the
    /// layer has not kept those of this request.
    ToLogin,
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
        Outcome::File(content) => {
            let mut response = reject.reject(&Rejection::file(content), head);
            *response.status_mut() = StatusCode::OK;
            let text = HeaderValue::from_static("text/plain; charset=utf-8");
            response.headers_mut().insert(CONTENT_TYPE, text);
            response
        }
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

/// The rendered response, with the headers that the handler and the layers inside have set: those
/// of CORS, say. Headers that describe the former body go.
fn merge<B>(handlers: Response<B>, mut rendered: Response<B>) -> Response<B> {
    use http::header::{
        ACCEPT_RANGES, CONTENT_DISPOSITION, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LENGTH,
        CONTENT_RANGE, CONTENT_TYPE, ETAG, EXPIRES, LAST_MODIFIED, RETRY_AFTER, TRANSFER_ENCODING,
    };
    let (parts, _) = handlers.into_parts();
    let mut headers = parts.headers;
    for name in [
        ACCEPT_RANGES,
        CACHE_CONTROL,
        CONTENT_DISPOSITION,
        CONTENT_ENCODING,
        CONTENT_LANGUAGE,
        CONTENT_LENGTH,
        CONTENT_RANGE,
        CONTENT_TYPE,
        ETAG,
        EXPIRES,
        LAST_MODIFIED,
        RETRY_AFTER,
        TRANSFER_ENCODING,
    ] {
        headers.remove(name);
    }
    let mut last = None;
    for (name, value) in std::mem::take(rendered.headers_mut()) {
        match name {
            // A cookie takes nothing from another cookie.
            Some(name) if name != SET_COOKIE => {
                headers.insert(&name, value);
                last = Some(name);
            }
            Some(name) => {
                headers.append(&name, value);
                last = Some(name);
            }
            // Another value of the same name.
            None => {
                if let Some(name) = &last {
                    headers.append(name, value);
                }
            }
        }
    }
    *rendered.headers_mut() = headers;
    let extensions = std::mem::replace(rendered.extensions_mut(), parts.extensions);
    rendered.extensions_mut().extend(extensions);
    rendered
}
