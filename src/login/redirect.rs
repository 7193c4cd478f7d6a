//! Redirects to WeChat, for requests without a user or without a granted scope.

use std::time::Duration;

use http::header::{HeaderName, ORIGIN, REFERER};
use http::{HeaderMap, HeaderValue, Uri};
use percent_encoding::percent_decode_str;

use super::cookies::{BrowserLogins, LoginAttempt};
use super::failure::LoginFailure;
use super::handler::LoginHandler;
use super::misrouted::MAX_MISSED_CALLBACKS;
use super::page::FailurePage;
use super::reply::LoginReply;
use super::return_to::{ReturnTo, ReturnToError, origin_of};
use super::scope::Scope;
use crate::error::ErrorKind;
use crate::identity::RequestHead;
use crate::users::UserToken;

impl LoginHandler {
    /// Returns a redirect to WeChat for a page load that has no user, or whose user lacks a scope.
    /// The browser decides whether the account or the website logs the user in. Returns a failure
    /// if another login would not help, for example because recent logins had no effect.
    /// `is_anonymous` is `true` if the layer's identity returned no user.
    pub(crate) fn redirect_to_wechat(
        &self,
        head: &RequestHead<'_>,
        scope: Option<Scope>,
        is_anonymous: bool,
    ) -> LoginReply {
        let page = match self.requested_page(head) {
            Ok(page) => page,
            Err(reply) => return reply,
        };
        let Some(handler) = self.handler_for_browser(head.headers) else {
            return self.reject_outside_wechat(&page);
        };
        if let Some(reply) = handler.not_kept(head, &page, is_anonymous) {
            return handler.marked_as_varying(reply);
        }
        let scope = scope.unwrap_or(handler.0.settings.scope);
        handler.begin_or_reuse_attempt(scope, page, head.headers)
    }

    /// Returns the page that a request asked for, as the return page of the login. Returns a
    /// failure if the request seems to be a callback at a wrong path.
    fn requested_page(&self, head: &RequestHead<'_>) -> Result<ReturnTo, LoginReply> {
        let uri = head.original_uri();
        if self.0.settings.resembles_callback_path(uri.path()) {
            // WeChat has probably sent the user to the callback, and a proxy has changed the path
            // and dropped the query.
            return Err(self.reject_wrong_callback_path(uri.path()));
        }
        let (page, error) = ReturnTo::from_uri(uri, &self.0.settings.public_url);
        if let Some(reason) = error {
            let whole = uri.path_and_query().map_or("", |whole| whole.as_str());
            self.log_unusable_return_to(reason, whole.as_bytes());
        }
        Ok(page)
    }

    /// Returns a redirect to the login path, for a page load of which only some headers are
    /// available. The browser sends all its headers to the login path.
    pub(crate) fn redirect_to_login(
        &self,
        head: &RequestHead<'_>,
        scope: Option<Scope>,
    ) -> LoginReply {
        let page = match self.requested_page(head) {
            Ok(page) => page,
            Err(reply) => return reply,
        };
        // Without the header `User-Agent`, both logins are considered.
        let not_kept = |handler: &Self| handler.not_kept(head, &page, false);
        if let Some(reply) = not_kept(self).or_else(|| self.website().and_then(not_kept)) {
            return reply;
        }
        let url = self.0.settings.login_url(Some(&page), scope);
        self.redirect_to_own_path(url, Vec::new())
    }

    /// Returns a redirect for a form that was submitted without a user: to a login that leads back
    /// to the page with the form. The browser does not send the form's data again.
    pub(crate) fn redirect_form_to_login(
        &self,
        head: &RequestHead<'_>,
        scope: Option<Scope>,
    ) -> LoginReply {
        self.redirect_to_own_path(self.login_url_for_script(head, scope), Vec::new())
    }

    /// Returns a redirect to this path of the application, with these `Set-Cookie` values.
    pub(super) fn redirect_to_own_path(
        &self,
        path: String,
        cookies: Vec<HeaderValue>,
    ) -> LoginReply {
        match HeaderValue::try_from(path) {
            Ok(path) => LoginReply::redirect(path, cookies),
            Err(_) => self.reply_with_failure(LoginFailure::BadRequest, None),
        }
    }

    /// Returns the URL of a login for a request that a script or a form sent. The login leads back
    /// to the page in the request's `Referer`, or else to the start page. For a page of a listed
    /// origin, the URL is absolute.
    pub(crate) fn login_url_for_script(
        &self,
        head: &RequestHead<'_>,
        scope: Option<Scope>,
    ) -> String {
        let page = self.page_of_script(head.headers);
        let page = page.filter(|page| !self.is_login_page(page));
        self.0.settings.login_url(page.as_ref(), scope)
    }

    /// Returns the page whose script or form sent a request, or `None` if the page is not known or
    /// its origin is not listed.
    ///
    /// A page of a listed origin is known by the header `Origin`, which browsers send with each
    /// request that may read a response of another origin. By default, browsers shorten the
    /// `Referer` of such a request to the origin, so the result is the origin's start page.
    fn page_of_script(&self, headers: &HeaderMap) -> Option<ReturnTo> {
        let (public_url, listed) = (&self.0.settings.public_url, &self.0.settings.return_origins);
        let text = |name: HeaderName| headers.get(name)?.to_str().ok();
        let referer = headers.get(REFERER).map(HeaderValue::as_bytes);
        let page = referer.and_then(|url| ReturnTo::from_referer(url, public_url, listed));
        let Some(origin) = text(ORIGIN) else {
            return page;
        };
        match listed.find(origin) {
            Some(origin) => page
                .filter(|page| page.is_on(origin))
                .or_else(|| Some(ReturnTo::start_page_of(origin))),
            None => page.filter(|page| !page.is_absolute()),
        }
    }

    /// Parses the `return_to` of a link to the login. Returns `None` if the page is one of the
    /// login's own paths. Logs a warning and returns `None` if the page is too long or unsafe.
    pub(super) fn parse_return_to(&self, path: &[u8]) -> Option<ReturnTo> {
        match self.0.settings.parse_return_to(path) {
            Ok(page) => Some(page).filter(|page| !self.is_login_page(page)),
            Err(reason) => {
                self.log_unusable_return_to(reason, path);
                None
            }
        }
    }

    /// Returns `true` if a page is one of the login's own paths, even if the path is
    /// percent-encoded.
    fn is_login_page(&self, page: &ReturnTo) -> bool {
        self.handles_path(&percent_decode_str(page.path()).decode_utf8_lossy())
    }

    /// Logs that a login does not lead to the requested page, at most once a minute for each
    /// reason.
    pub(super) fn log_unusable_return_to(&self, reason: ReturnToError, page: &[u8]) {
        let kind = reason.as_str();
        if let Some(more) = self.0.log_limiter.allow_line(kind) {
            // Only the origin is logged, because the rest of the page may contain secrets.
            let unlisted = match reason {
                ReturnToError::UnlistedOrigin => origin_of(&String::from_utf8_lossy(page)),
                ReturnToError::TooLong
                | ReturnToError::OtherApplication
                | ReturnToError::Unsafe => None,
            };
            let origin =
                unlisted.map(|origin| origin.as_str().chars().take(200).collect::<String>());
            tracing::warn!(target: "tower_wechat::login", app = %self.0.users.app_id(), reason = kind, origin, bytes = page.len(), more, "the return page of a login was shortened or replaced by the start page; use a shorter path of this application, or list the page's origin");
        }
    }

    /// Returns `true` if a user's token is known not to cover a scope. If the granted scope is
    /// unknown, returns `false`: the application's call to WeChat then shows whether the scope
    /// suffices.
    pub(crate) fn lacks_scope(token: &UserToken, scope: Scope) -> bool {
        token
            .scope()
            .is_some_and(|granted| !scope.is_granted_by(granted))
    }

    /// Returns `true` if this browser has completed a login that asked for `scope` within the last
    /// minute.
    pub(crate) fn signed_in_recently_with(&self, scope: Scope, headers: &HeaderMap) -> bool {
        self.0
            .login_cookies
            .read(headers, self.now())
            .signed_in_recently_with(scope)
    }

    /// Returns the failure page of a user who lacks a scope and has declined to grant it.
    pub(crate) fn reject_declined_scope(&self, head: &RequestHead<'_>, scope: Scope) -> LoginReply {
        let (page, _) = ReturnTo::from_uri(head.original_uri(), &self.0.settings.public_url);
        let button_url = self.0.settings.login_url(Some(&page), Some(scope));
        self.reply_with_failure(LoginFailure::ProfileNotGranted, Some(button_url))
    }

    /// Returns a redirect to WeChat, for an open login of this browser with this page and scope, or
    /// else for a new login. Returns a failure if the browser's callbacks seem to get lost.
    pub(super) fn begin_or_reuse_attempt(
        &self,
        scope: Scope,
        return_to: ReturnTo,
        headers: &HeaderMap,
    ) -> LoginReply {
        let reply = match self.open_attempt(scope, return_to, headers) {
            Ok((attempt, browser)) => self.redirect_for_attempt(&attempt, &browser),
            Err(reply) => reply,
        };
        self.marked_as_varying(reply)
    }

    /// Returns an open login of this browser with this page and scope, or else a new login, and all
    /// logins of the browser. Returns a failure if the browser's callbacks seem to get lost.
    pub(super) fn open_attempt(
        &self,
        scope: Scope,
        return_to: ReturnTo,
        headers: &HeaderMap,
    ) -> Result<(LoginAttempt, BrowserLogins), LoginReply> {
        let scope = self.requestable_scope(scope);
        let mut browser = self.0.login_cookies.read(headers, self.now());
        let attempt = match browser.reuse_attempt(scope, &return_to) {
            None => self.add_attempt(scope, return_to, &mut browser)?,
            Some(attempt)
                if attempt.repeats >= MAX_MISSED_CALLBACKS
                    && self.seems_to_miss_callback(&attempt, headers) =>
            {
                return Err(self.reject_missed_callback(&return_to));
            }
            Some(attempt) => attempt,
        };
        Ok((attempt, browser))
    }

    /// Returns the page for a user whose page load failed with an error of this kind, or `None` if
    /// no page describes that error.
    pub(crate) fn failure_page(
        &self,
        kind: ErrorKind,
        retry_after: Option<Duration>,
        uri: &Uri,
    ) -> Option<FailurePage> {
        let (page, _) = ReturnTo::from_uri(uri, &self.0.settings.public_url);
        Some(FailurePage {
            failure: LoginFailure::from_page_error(kind)?,
            button_url: page.as_str().to_owned(),
            retry_after,
        })
    }
}
