//! What a request gets instead of its handler: a way to log in, or what went wrong.

use http::header::{CACHE_CONTROL, CONTENT_TYPE, LOCATION, PRAGMA, SET_COOKIE};
use http::{Extensions, HeaderValue, Request, Response, StatusCode};

use super::rejection::{Reject, Rejection};
use super::retained_head::RetainedHead;
use super::shared::Shared;
use super::user::{AnonymousRequest, has_passed_layer};
use crate::error::ErrorKind;
use crate::identity::RequestHead;
use crate::login::{LoginReply, ReplyContent};
use crate::metrics::RequestOutcome as Counted;
use crate::navigation::{is_form_submission, is_navigation};

impl<I, R> Shared<I, R> {
    /// Answers a request that does not reach its handler.
    pub(super) fn reject<B>(&self, rejection: Rejection, head: &RequestHead<'_>) -> Response<B>
    where
        R: Reject<B>,
    {
        let rejection = self
            .with_scope_declined(rejection, head)
            .or_scope(self.required_scope);
        self.count_request(rejection.request_outcome(), head.extensions);
        self.render_with_login(rejection, head, RedirectTarget::Wechat)
    }

    /// Marks the rejection of a user who lacks a scope as declined, if this browser has come back
    /// from WeChat a moment ago without it. The session remembers that too, but users whom a header
    /// names have none, and WeChat does not always say what was granted.
    fn with_scope_declined(&self, mut rejection: Rejection, head: &RequestHead<'_>) -> Rejection {
        if let (Some(scope), Some(login)) = (rejection.scope, &self.login) {
            rejection.scope_declined |=
                is_navigation(head) && login.signed_in_recently_with(scope, head.headers);
        }
        rejection
    }

    /// Lets a request pass without a user. Its handler may still refuse it.
    pub(super) fn pass_without_user<B>(&self, rejection: Rejection, request: &mut Request<B>) {
        let rejection = self
            .with_scope_declined(rejection, &RequestHead::from_request(request))
            .or_scope(self.required_scope);
        self.count_request(rejection.request_outcome(), request.extensions());
        AnonymousRequest::insert_into(request, rejection);
    }

    /// Renders what a handler refused, in place of the response that it returned.
    pub(super) fn render_handler_rejection<B>(
        &self,
        mut rejection: Rejection,
        retained: &RetainedHead,
        response: Response<B>,
    ) -> Response<B>
    where
        R: Reject<B>,
    {
        rejection.scope_declined |= rejection.scope.is_some() && retained.scope_declined;
        // An extractor saw the request's whole head. A handler that returns an error did not.
        let rendered = match rejection.head.clone() {
            Some(head) => {
                let rejection = rejection.or_scope(self.required_scope);
                self.render_with_login(rejection, &head.borrow(), RedirectTarget::Wechat)
            }
            None => retained.with_head(|head| {
                let rejection = self
                    .with_scope_declined(rejection, head)
                    .or_scope(self.required_scope);
                self.render_with_login(rejection, head, RedirectTarget::LoginPath)
            }),
        };
        merge_handler_headers(response, rendered)
    }

    /// Where a login is mounted, a page load without a user is sent there, and every other request
    /// learns where to log in.
    fn render_with_login<B>(
        &self,
        rejection: Rejection,
        head: &RequestHead<'_>,
        target: RedirectTarget,
    ) -> Response<B>
    where
        R: Reject<B>,
    {
        let Some(login) = &self.login else {
            return self.renderer.reject(&rejection, head);
        };
        if rejection.kind() != ErrorKind::LoginRequired {
            return self
                .renderer
                .reject(&rejection.with_failure_page(login, head), head);
        }
        match rejection.scope {
            Some(scope) if rejection.scope_declined => {
                self.respond(login.reject_declined_scope(head, scope), head)
            }
            scope if is_navigation(head) => {
                let answer = match target {
                    RedirectTarget::Wechat => {
                        login.redirect_to_wechat(head, scope, rejection.unnamed)
                    }
                    RedirectTarget::LoginPath => login.redirect_to_login(head, scope),
                };
                self.respond(answer, head)
            }
            scope if is_form_submission(head) => {
                let mut response = self.respond(login.redirect_form_to_login(head, scope), head);
                if response.status() == StatusCode::FOUND {
                    *response.status_mut() = StatusCode::SEE_OTHER;
                }
                response
            }
            scope => {
                let rejection = rejection.with_login_url(login.login_url_for_script(head, scope));
                self.renderer.reject(&rejection, head)
            }
        }
    }

    /// Counts a request, unless a layer further out has done so.
    pub(super) fn count_request(&self, outcome: Counted, extensions: &Extensions) {
        if !has_passed_layer(extensions) {
            self.request_counter.count(outcome);
        }
    }

    /// Makes a response of what the login answers.
    pub(super) fn respond<B>(&self, answer: LoginReply, head: &RequestHead<'_>) -> Response<B>
    where
        R: Reject<B>,
    {
        respond(&*self.renderer, answer, head)
    }
}

/// Where a page load without a user is sent.
#[derive(Clone, Copy)]
enum RedirectTarget {
    /// To WeChat's authorize page at once.
    Wechat,
    /// To the login's own path, which starts the login. A redirect to WeChat needs `User-Agent` and
    /// `Sec-Fetch-Site`, and the layer has not retained those headers of this request.
    LoginPath,
}

fn respond<B, R: Reject<B>>(reject: &R, answer: LoginReply, head: &RequestHead<'_>) -> Response<B> {
    let mut response = match answer.content {
        ReplyContent::Redirect(location) => {
            let mut response = reject.reject(&Rejection::redirect(), head);
            *response.status_mut() = StatusCode::FOUND;
            response.headers_mut().insert(LOCATION, location);
            response
        }
        ReplyContent::FailurePage(problem) => {
            reject.reject(&Rejection::from_failure_page(problem), head)
        }
        ReplyContent::File(content) => {
            let mut response = reject.reject(&Rejection::verification_file(content), head);
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
    for cookie in answer.set_cookies {
        headers.append(SET_COOKIE, cookie);
    }
    response
}

/// The rendered response, with the headers that the handler and the layers inside have set: those
/// of CORS, say. Headers that describe the former body go.
fn merge_handler_headers<B>(
    handler_response: Response<B>,
    mut rendered: Response<B>,
) -> Response<B> {
    use http::header::{
        ACCEPT_RANGES, CONTENT_DISPOSITION, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LENGTH,
        CONTENT_RANGE, CONTENT_TYPE, ETAG, EXPIRES, LAST_MODIFIED, RETRY_AFTER, TRANSFER_ENCODING,
    };
    let (parts, _) = handler_response.into_parts();
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
