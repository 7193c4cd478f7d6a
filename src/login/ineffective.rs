//! Logins that succeed and do not help: the page that follows knows nobody, and would begin the next
//! one.

use super::failure::LoginFailure;
use super::handler::LoginHandler;
use super::reply::LoginReply;
use super::return_to::ReturnTo;
use crate::identity::{Identify, Identity, RequestHead};
use crate::metrics;
use crate::navigation::{Initiator, initiator};

/// How many logins of one browser within a minute have helped nobody when its next page load is not
/// sent to WeChat any more.
const LOGINS_IN_VAIN: usize = 3;

/// How many seconds after a login the page load follows that the login itself leads to. A person who
/// signs out and in again takes longer.
const FOLLOWS_WITHIN: u64 = 5;

impl LoginHandler {
    /// Returns the answer to a page load of a browser that was just signed in several times and that
    /// the layer knows nobody for. `unnamed` is whether the layer's identity names nobody.
    ///
    /// It must not meet a person who signs out and in again. Such a person has no session left, or
    /// has one that a logout everywhere has ended, which the layer's identity reads all the same. And
    /// they do not come from WeChat.
    pub(super) fn not_kept(
        &self,
        head: &RequestHead<'_>,
        page: &ReturnTo,
        unnamed: bool,
    ) -> Option<LoginReply> {
        let browser = self.0.login_cookies.read(head.headers, self.now());
        let has_logged_in = browser.recent_logins() >= LOGINS_IN_VAIN;
        if !has_logged_in || browser.since_login()? > FOLLOWS_WITHIN {
            return None;
        }
        let brings_session = matches!(self.0.session_cookie.identify(head), Identity::User(_));
        let from_wechat = initiator(head.headers) == Some(Initiator::OtherOrigin);
        match (brings_session, from_wechat) {
            (true, _) if unnamed => self.log_unread_session(),
            (true, true) => self.log_unread_session(),
            (false, true) => self.log_lost_session(),
            (_, false) => return None,
        }
        metrics::count_login(LoginFailure::NotKept.as_str());
        let again = self.0.settings.login_url(Some(page), None);
        Some(self.reply_with_failure(LoginFailure::NotKept, Some(again)))
    }

    fn log_unread_session(&self) {
        if let Some(more) = self.0.log_limiter.allow_line("unread_session") {
            tracing::warn!(
                target: "tower_wechat::login",
                app = %self.0.users.app_id(),
                more,
                "a browser brings the session of its last login and is nobody all the same, three \
                 logins within a minute: the layer's identity does not read that session (a header \
                 that the gateway leaves out, a cookie of another name or other keys), this process \
                 does not find the tokens that the login stored (another Redis), or a handler \
                 refuses them"
            );
        }
    }

    fn log_lost_session(&self) {
        if let Some(more) = self.0.log_limiter.allow_line("lost_session") {
            tracing::warn!(
                target: "tower_wechat::login",
                app = %self.0.users.app_id(),
                more,
                "a browser does not bring the session of its last login, three logins within a \
                 minute: a proxy in front takes the session's cookie out of responses or requests, \
                 or another application of this host ends it"
            );
        }
    }
}
