//! Responses to requests that do not reach their handler: redirects to the login, and rejections.

use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, LOCATION, PRAGMA, REFERRER_POLICY,
    REFRESH, SET_COOKIE, VARY,
};
use http::{Extensions, HeaderMap, HeaderValue, Request, Response, StatusCode};

use super::account_layer::AccountLayer;
use super::framing::allow_frames_of_own_pages;
use super::rejection::{Reject, Rejection};
use super::retained_head::RetainedHead;
use super::settings::LayerSettings;
use super::user::{AnonymousRequest, WechatUser, has_passed_layer};
use crate::error::ErrorKind;
use crate::identity::RequestHead;
use crate::login::{FramePage, LoginReply, ReplyContent};
use crate::metrics::RequestOutcome;
use crate::navigation::{is_form_submission, is_navigation};

impl<I, R> AccountLayer<I, R> {
    /// Counts a request that does not reach its handler, and renders its rejection as a response.
    pub(super) fn reject<B>(&self, rejection: Rejection, head: &RequestHead<'_>) -> Response<B>
    where
        R: Reject<B>,
    {
        let rejection = self
            .with_scope_declined(rejection, head)
            .or_scope(self.settings.required_scope);
        self.settings
            .count_request(rejection.request_outcome(), head.extensions);
        self.render_with_login(rejection, head, RedirectTarget::Wechat)
    }

    /// Marks the scope of a rejected page load as declined if this browser has completed a login
    /// for that scope within the last minute.
    ///
    /// A session also shows that its user has declined the scope. But users of other identities
    /// have no session, and WeChat does not always return the granted scope.
    fn with_scope_declined(&self, mut rejection: Rejection, head: &RequestHead<'_>) -> Rejection {
        if let (Some(scope), Some(login)) = (rejection.scope, &self.parts.login) {
            rejection.scope_declined |=
                is_navigation(head) && login.signed_in_recently_with(scope, head.headers);
        }
        rejection
    }

    /// Counts a request that passes to its handler without a user, and inserts the rejection into
    /// its extensions. An extractor of the handler can return that rejection.
    pub(super) fn pass_without_user<B>(&self, rejection: Rejection, request: &mut Request<B>) {
        let rejection = self
            .with_scope_declined(rejection, &RequestHead::from_request(request))
            .or_scope(self.settings.required_scope);
        self.settings
            .count_request(rejection.request_outcome(), request.extensions());
        AnonymousRequest::insert_into(request, rejection);
    }

    /// Renders the rejection that a handler returned, in place of the handler's own response.
    pub(super) fn render_handler_rejection<B>(
        &self,
        rejection: Rejection,
        retained: &RetainedHead,
        response: Response<B>,
    ) -> Response<B>
    where
        R: Reject<B>,
    {
        let with_scope_declined = |mut rejection: Rejection, head: &RequestHead<'_>| {
            rejection.scope_declined |= rejection.scope.is_some() && retained.scope_declined;
            self.with_scope_declined(rejection, head)
        };
        // Rejections of extractors contain the whole head of the request. Errors of handlers do not.
        let rendered = match rejection.head.clone() {
            Some(head) => {
                let head = head.borrow();
                // A request without a user starts a login for the scope, and has declined nothing.
                let rejection = match head.extensions.get::<WechatUser>() {
                    Some(_) => with_scope_declined(rejection, &head),
                    None => rejection,
                };
                let rejection = rejection.or_scope(self.settings.required_scope);
                self.render_with_login(rejection, &head, RedirectTarget::Wechat)
            }
            None => retained.with_head(|head| {
                let rejection =
                    with_scope_declined(rejection, head).or_scope(self.settings.required_scope);
                self.render_with_login(rejection, head, RedirectTarget::LoginPath)
            }),
        };
        merge_handler_headers(response, rendered)
    }

    /// Renders a rejection. If the layer has a login and the user has to log in, page loads and
    /// forms are redirected to the login. Other requests receive a response with the login's URL.
    fn render_with_login<B>(
        &self,
        rejection: Rejection,
        head: &RequestHead<'_>,
        target: RedirectTarget,
    ) -> Response<B>
    where
        R: Reject<B>,
    {
        let Some(login) = &self.parts.login else {
            return self.settings.render(&rejection, head);
        };
        if rejection.kind() != ErrorKind::LoginRequired {
            return self
                .settings
                .render(&rejection.with_failure_page(login, head), head);
        }
        match rejection.scope {
            Some(scope) if rejection.scope_declined => self
                .settings
                .respond(login.reject_declined_scope(head, scope), head),
            scope if is_navigation(head) => {
                let reply = match target {
                    RedirectTarget::Wechat => {
                        login.redirect_to_wechat(head, scope, rejection.unnamed)
                    }
                    RedirectTarget::LoginPath => login.redirect_to_login(head, scope),
                };
                self.settings.respond(reply, head)
            }
            scope if is_form_submission(head) => {
                let mut response = self
                    .settings
                    .respond(login.redirect_form_to_login(head, scope), head);
                // After 303 the browser loads the page with GET. 302 would allow the browser to
                // repeat the POST.
                if response.status() == StatusCode::FOUND {
                    *response.status_mut() = StatusCode::SEE_OTHER;
                }
                response
            }
            scope => {
                let rejection = rejection.with_login_url(login.login_url_for_script(head, scope));
                self.settings.render(&rejection, head)
            }
        }
    }
}

impl<I, R> LayerSettings<I, R> {
    /// Counts and renders the rejection of a request that has no account. Browsers that open a page
    /// receive a page if the accounts are unavailable, and JSON if there is no such account.
    pub(super) fn reject_account<B>(
        &self,
        rejection: Rejection,
        head: &RequestHead<'_>,
    ) -> Response<B>
    where
        R: Reject<B>,
    {
        self.count_request(rejection.request_outcome(), head.extensions);
        self.render(&rejection.with_page_without_account(), head)
    }

    /// Renders a rejection, and adds headers that the renderer has left out.
    ///
    /// A renderer may use the response of the rejection, which contains the rejection in its
    /// extensions. This method removes that rejection, so that no layer further out renders it again.
    pub(super) fn render<B>(&self, rejection: &Rejection, head: &RequestHead<'_>) -> Response<B>
    where
        R: Reject<B>,
    {
        let mut response = self.renderer.reject(rejection, head);
        response.extensions_mut().remove::<Rejection>();
        rejection.add_missing_headers(response.headers_mut());
        response
    }

    /// Counts a request, unless a layer further out has counted it.
    pub(super) fn count_request(&self, outcome: RequestOutcome, extensions: &Extensions) {
        if !has_passed_layer(extensions) {
            self.request_counter.count(outcome);
        }
    }

    /// Renders a reply of the login, with its cookies, as a response that caches must not store.
    pub(super) fn respond<B>(&self, reply: LoginReply, head: &RequestHead<'_>) -> Response<B>
    where
        R: Reject<B>,
    {
        let mut response = match reply.content {
            ReplyContent::Redirect(location) => {
                let mut response = self.render(&Rejection::redirect(), head);
                *response.status_mut() = StatusCode::FOUND;
                response.headers_mut().insert(LOCATION, location);
                response
            }
            ReplyContent::FailurePage(page) => {
                self.render(&Rejection::from_failure_page(page), head)
            }
            ReplyContent::File(content) => {
                self.render_content(content, "text/plain; charset=utf-8", head)
            }
            ReplyContent::QrCodeParameters(json) => {
                self.render_content(json, "application/json", head)
            }
            ReplyContent::FramePage(page) => self.render_frame_page(&page, head),
        };
        let headers = response.headers_mut();
        if reply.in_frame {
            allow_frames_of_own_pages(headers);
        }
        // Some web views cache redirects. A cached redirect would start a login with an old
        // `state`, which may have expired.
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(PRAGMA, HeaderValue::from_static("no-cache"));
        for cookie in reply.set_cookies {
            headers.append(SET_COOKIE, cookie);
        }
        if reply.varies_by_user_agent {
            add_vary(headers, "user-agent");
        }
        response
    }
}

impl<I, R> LayerSettings<I, R> {
    /// Renders the content of a successful reply of the login.
    fn render_content<B>(
        &self,
        content: String,
        content_type: &'static str,
        head: &RequestHead<'_>,
    ) -> Response<B>
    where
        R: Reject<B>,
    {
        let mut response = self.render(&Rejection::content(content), head);
        *response.status_mut() = StatusCode::OK;
        let content_type = HeaderValue::from_static(content_type);
        response.headers_mut().insert(CONTENT_TYPE, content_type);
        response
    }

    /// Renders the page that loads a callback in a frame again. Its headers replace those of the
    /// renderer, because the page must load nothing and its URL has a code.
    fn render_frame_page<B>(&self, page: &FramePage, head: &RequestHead<'_>) -> Response<B>
    where
        R: Reject<B>,
    {
        let mut response = self.render_content(page.html(), "text/html; charset=utf-8", head);
        let headers = response.headers_mut();
        let policy = HeaderValue::from_static(FramePage::CONTENT_SECURITY_POLICY);
        headers.insert(CONTENT_SECURITY_POLICY, policy);
        headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        let refresh = page.refresh_header();
        if let Some(Ok(refresh)) = refresh.map(HeaderValue::try_from) {
            headers.insert(REFRESH, refresh);
        }
        response
    }
}

/// The target to which a page load without a user is redirected.
#[derive(Clone, Copy)]
enum RedirectTarget {
    /// A redirect to WeChat's authorize page.
    Wechat,
    /// A redirect to the login's own path, which redirects to WeChat. A redirect to WeChat needs
    /// the header `User-Agent`, which a [`RetainedHead`] does not contain.
    LoginPath,
}

/// Adds the name of a request's header to `Vary`, unless the response already varies by it.
fn add_vary(headers: &mut HeaderMap, name: &'static str) {
    let mut names = headers
        .get_all(VARY)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim);
    if !names.any(|known| known == "*" || known.eq_ignore_ascii_case(name)) {
        headers.append(VARY, HeaderValue::from_static(name));
    }
}

/// Returns the rendered response with the headers that the handler and the layers inside have set,
/// such as those of CORS. Omits the handler's headers about its body and about caching, because the
/// rendered response has another body.
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
            // The value in the rendered response replaces the handler's value.
            Some(name) if name != SET_COOKIE && name != VARY => {
                headers.insert(&name, value);
                last = Some(name);
            }
            // Cookies of the rendered response are added to the handler's cookies, and so are the
            // headers by which the rendered response varies.
            Some(name) => {
                headers.append(&name, value);
                last = Some(name);
            }
            // `HeaderMap` yields the name only with the first of several values.
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
