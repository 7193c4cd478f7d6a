//! Replies to a callback: a session, another login, or a failure page.

use crate::clock::Timestamp;
use crate::credential::UserId;
use crate::identity::Session;
use crate::login::context::CallbackContext;
use crate::login::cookies::{AttemptStatus, CodeFingerprint, LoginAttempt, MAX_HISTORY_ENTRIES};
use crate::login::exchange::SignedInUser;
use crate::login::failure::LoginFailure;
use crate::login::handler::LoginHandler;
use crate::login::reply::LoginReply;
use crate::login::return_to::ReturnTo;
use crate::login::scope::Scope;
use crate::login::state::unix_seconds;
use crate::metrics;

/// Maximum number of logins of one browser within a minute: ten. Several tabs may log in at once,
/// and a higher number is a loop of logins that have no effect.
const MAX_LOGINS_PER_WINDOW: usize = MAX_HISTORY_ENTRIES;

impl LoginHandler {
    /// Returns the reply that signs a user in, or a failure if the browser has logged in too often.
    ///
    /// The limit of logins applies here, after the code is spent, because only completed logins
    /// count. The logins of browsers without the state cookie are counted by user, who is known
    /// only after the exchange.
    ///
    /// The latest login wins: the reply also removes the session cookie of the other app of this
    /// login, so that no browser has a session of the account and one of its website.
    pub(super) fn complete_login(
        &self,
        signed_in: &SignedInUser,
        mut attempt: LoginAttempt,
        fingerprint: CodeFingerprint,
        mut context: CallbackContext,
    ) -> LoginReply {
        let now = self.now();
        let logins = if context.has_state_cookie {
            context.browser_logins.recent_logins()
        } else {
            // Without the state cookie, the browser may keep no cookies that could count its
            // logins.
            self.0.login_limiter.count_login(&signed_in.user, now) - 1
        };
        if logins >= MAX_LOGINS_PER_WINDOW {
            return self.reject_rate_limited(&attempt.return_to);
        }
        let Ok(user) = UserId::new(signed_in.user.as_str()) else {
            return self.reply_with_failure(LoginFailure::WechatUnavailable, None);
        };
        if context.foreign_session {
            self.log_replaced_session();
        }
        let granted = signed_in.scope.as_deref();
        let session = Session {
            snapshot: signed_in.snapshot,
            scope_declined: granted.is_some_and(|granted| !attempt.scope.is_granted_by(granted)),
            recent_login: true,
            website: false,
            logged_in_at: Some(now),
            last_known_logout: signed_in.epoch.map(Timestamp::from_millis),
        };
        attempt.status = AttemptStatus::SignedIn {
            at: unix_seconds(now),
            fingerprint,
        };
        context.browser_logins.record_end(&attempt);
        let session = self.0.session_cookie.issue_with(&user, session);
        let session_changes = [Some(session), context.other_session_removal.take()];
        let lost_scope = signed_in.had_more && attempt.scope == Scope::Base;
        let mut reply = if lost_scope && context.has_state_cookie {
            // This reply signs the user in and redirects to WeChat, which asks for the scope that
            // the former tokens covered.
            self.begin_attempt(Scope::UserInfo, attempt.return_to, context.browser_logins)
        } else {
            let cookies = self.changed_cookie_headers(&context.browser_logins);
            self.redirect_to_page(&attempt.return_to, cookies)
        };
        let session_changes = session_changes.into_iter().flatten();
        reply.set_cookies.splice(..0, session_changes);
        reply
    }

    /// Logs that a login has replaced a foreign session. Only completed logins cause this line,
    /// because any client can send a foreign session cookie.
    fn log_replaced_session(&self) {
        if let Some(more) = self.0.log_limiter.allow_line("foreign_session") {
            tracing::warn!(
                target: "tower_wechat::login",
                app = %self.0.users.app_id(),
                more,
                "a login replaced a session that this application cannot read; if this repeats, \
                 another application on this host uses the same cookie: give both the same keys, \
                 or give one of them another cookie name"
            );
        }
    }

    /// Returns a redirect to the page, and leaves the browser's session unchanged. The redirect
    /// counts as a retry, because a page that does not accept the session begins another login.
    /// Returns a failure if this browser has used all retries of the last minute.
    pub(super) fn keep_session(
        &self,
        mut attempt: LoginAttempt,
        mut context: CallbackContext,
    ) -> LoginReply {
        if self.has_used_all_retries(&context) {
            return self.reject_rate_limited(&attempt.return_to);
        }
        let at = unix_seconds(self.now());
        attempt.status = AttemptStatus::Retried { at };
        context.browser_logins.record_end(&attempt);
        let cookies = self.changed_cookie_headers(&context.browser_logins);
        self.redirect_to_page(&attempt.return_to, cookies)
    }

    /// Begins another login for the page and scope of `attempt`. If a login of this browser now
    /// begins elsewhere, because its `User-Agent` has changed, returns a redirect to the login path,
    /// which chooses. Returns a failure if this browser has used all retries of the last minute, or
    /// has no state cookie.
    pub(super) fn retry_login(
        &self,
        mut attempt: LoginAttempt,
        mut context: CallbackContext,
    ) -> LoginReply {
        if self.has_used_all_retries(&context) {
            return self.reject_rate_limited(&attempt.return_to);
        }
        if !context.has_state_cookie {
            // Without the state cookie, no cookie would count the retries.
            let login_url = self.0.settings.login_url(Some(&attempt.return_to), None);
            return self.reply_with_failure(LoginFailure::CodeRejected, Some(login_url));
        }
        let at = unix_seconds(self.now());
        attempt.status = AttemptStatus::Retried { at };
        context.browser_logins.record_end(&attempt);
        if !context.logs_in_browser {
            let (page, scope) = (Some(&attempt.return_to), Some(attempt.scope));
            let cookies = self.changed_cookie_headers(&context.browser_logins);
            return self.redirect_to_own_path(self.0.settings.login_url(page, scope), cookies);
        }
        self.begin_attempt(attempt.scope, attempt.return_to, context.browser_logins)
    }

    /// Returns `true` if this browser has used all retries of the last minute. A setting above
    /// [`MAX_HISTORY_ENTRIES`] counts as that number, because the history has no room for more
    /// logins.
    fn has_used_all_retries(&self, context: &CallbackContext) -> bool {
        context.browser_logins.recent_retries()
            >= self.0.settings.max_retries.min(MAX_HISTORY_ENTRIES)
    }

    /// Logs and counts a failure, and returns its page.
    pub(super) fn reject_callback(
        &self,
        failure: LoginFailure,
        button_url: Option<String>,
    ) -> LoginReply {
        // The level is `info`, because WeChat's servers also fetch callbacks, without the user's
        // cookies.
        if let Some(more) = self.0.log_limiter.allow_line(failure.as_str()) {
            tracing::info!(target: "tower_wechat::login", app = %self.0.users.app_id(), trouble = failure.as_str(), more, "a callback was rejected");
        }
        metrics::count_login(failure.as_str());
        self.reply_with_failure(failure, button_url)
    }

    /// Logs and counts that a browser has sent too many logins, retries or codes, and returns its
    /// failure page.
    pub(super) fn reject_rate_limited(&self, return_to: &ReturnTo) -> LoginReply {
        if let Some(more) = self.0.log_limiter.allow_line("too_often") {
            tracing::warn!(target: "tower_wechat::login", app = %self.0.users.app_id(), more, "a browser was rejected after too many logins, retries or codes; check that it keeps cookies, and that the pages accept its session");
        }
        metrics::count_login(LoginFailure::RateLimited.as_str());
        let login_url = self.0.settings.login_url(Some(return_to), None);
        self.reply_with_failure(LoginFailure::RateLimited, Some(login_url))
    }
}
