//! Logins that succeed without effect: the next page load has no user, and would begin another
//! login.

use super::failure::LoginFailure;
use super::handler::LoginHandler;
use super::reply::LoginReply;
use super::return_to::ReturnTo;
use crate::identity::{Identity, RequestHead};
use crate::metrics;
use crate::navigation::{Initiator, initiator};

/// Number of logins of one browser within a minute, after which a page load without a user may
/// count as a loop: three. A loop is not redirected to WeChat.
const INEFFECTIVE_LOGINS: usize = 3;

/// Maximum time between a login and the page load to which the login leads: five seconds. A person
/// who signs out and in again takes longer.
const FOLLOW_UP_SECONDS: u64 = 5;

impl LoginHandler {
    /// Returns a failure for a page load without a user, if this browser logged in three times
    /// within the last minute and once within five seconds. `is_anonymous` is `true` if the layer's
    /// identity returned no user.
    ///
    /// A person who signs out and in again must not get this failure. The browser of such a person
    /// has no session, or has one that a logout everywhere has ended and that the layer's identity
    /// still reads. The page load of such a person does not come from WeChat.
    pub(super) fn not_kept(
        &self,
        head: &RequestHead<'_>,
        page: &ReturnTo,
        is_anonymous: bool,
    ) -> Option<LoginReply> {
        let browser_logins = self.0.login_cookies.read(head.headers, self.now());
        let has_logged_in = browser_logins.recent_logins() >= INEFFECTIVE_LOGINS;
        if !has_logged_in || browser_logins.since_login()? > FOLLOW_UP_SECONDS {
            return None;
        }
        let has_session = matches!(self.0.session_cookie.identify_own(head), Identity::User(_));
        let from_wechat = initiator(head.headers) == Some(Initiator::OtherOrigin);
        match (has_session, from_wechat) {
            (true, _) if is_anonymous => self.log_unread_session(),
            (true, true) => self.log_unread_session(),
            (false, true) => self.log_lost_session(),
            (_, false) => return None,
        }
        metrics::count_login(LoginFailure::NotKept.as_str());
        let login_url = self.0.settings.login_url(Some(page), None);
        Some(self.reply_with_failure(LoginFailure::NotKept, Some(login_url)))
    }

    /// Logs that the browser sends its session, but the page load still has no user.
    fn log_unread_session(&self) {
        if let Some(more) = self.0.log_limiter.allow_line("unread_session") {
            tracing::warn!(
                target: "tower_wechat::login",
                app = %self.0.users.app_id(),
                more,
                "a browser logged in three times within a minute and sent its session, but had no user: \
                 the layer's identity does not read that session (the gateway's header is missing, \
                 the cookie has another name or other keys), this process does not find the tokens \
                 that the login stored (another Redis), or a handler rejects them"
            );
        }
    }

    /// Logs that the browser does not send the session of its last login.
    fn log_lost_session(&self) {
        if let Some(more) = self.0.log_limiter.allow_line("lost_session") {
            tracing::warn!(
                target: "tower_wechat::login",
                app = %self.0.users.app_id(),
                more,
                "a browser logged in three times within a minute and did not send its session: a proxy \
                 removes the session cookie from responses or requests, or another application on \
                 this host ends the session"
            );
        }
    }
}
