//! Callbacks that a proxy has sent to another path, or whose query the proxy has dropped.

use http::{HeaderMap, Uri};

use super::cookies::LoginAttempt;
use super::exchange::bind_code_to_login;
use super::failure::LoginFailure;
use super::handler::LoginHandler;
use super::query::{parse_code_and_state, query_pairs};
use super::reply::LoginReply;
use super::return_to::ReturnTo;
use crate::identity::RequestHead;
use crate::metrics;
use crate::navigation::{Initiator, initiator, is_navigation, is_script_request};
use crate::store::LoginCodeKey;

/// Number of page loads that repeat a login within a minute, without a callback, after which the
/// login may count as a loop: two. After that number, the browser has visited WeChat up to three
/// times. The first visit is for the page that the browser requested, and two are for the page to
/// which a proxy diverts the callback.
pub(super) const MAX_MISSED_CALLBACKS: u8 = 2;

/// Number of repeats of a login, 13, after which the login counts as a loop regardless of the
/// request's headers. No person opens so many tabs or reloads so often within a minute. A login
/// cookie can count 15 repeats.
const MAX_REPEATS_OF_PERSON: u8 = 13;

/// Minimum average time between two reloads of a page by a person: two seconds. Faster loads are
/// redirects.
const MIN_RELOAD_SECONDS: u64 = 2;

impl LoginHandler {
    /// Returns a failure if this page load is a callback at a wrong path: its query has a state
    /// that this application issued, for the account or for the website. Another login would end
    /// at the wrong path again.
    pub(crate) fn reject_misrouted_callback(&self, head: &RequestHead<'_>) -> Option<LoginReply> {
        let query = head.uri.query()?;
        // This search ends the function for nearly every request, and costs less than parsing the
        // query.
        memchr::memmem::find(query.as_bytes(), b"state=")?;
        let states = query_pairs(head.uri).filter(|(name, _)| name == "state");
        let (handler, state) = states
            .filter_map(|(_, value)| self.issuer_of(&value))
            .next()?;
        if !is_navigation(head) {
            return None;
        }
        handler.bind_misrouted_code(head.uri, state.login_id);
        Some(handler.reject_wrong_callback_path(head.original_uri().path()))
    }

    /// Binds the code of a misrouted callback to its login, so that no other login can use the
    /// code. Proxies may have logged the code.
    fn bind_misrouted_code(&self, uri: &Uri, login_id: u64) {
        let Ok((Some(code), _)) = parse_code_and_state(uri) else {
            return;
        };
        let code_key = LoginCodeKey::new(self.0.users.app_id(), &code);
        if self.0.unspent_codes.try_admit(login_id, &code_key.hash) {
            let users = self.0.users.clone();
            let bind = async move { bind_code_to_login(&users, &code_key, login_id).await };
            self.0.users.spawn(bind);
        }
    }

    /// Logs and counts a callback at a wrong path, and returns its failure page.
    pub(super) fn reject_wrong_callback_path(&self, path: &str) -> LoginReply {
        if let Some(more) = self.0.log_limiter.allow_line("misplaced") {
            let came: String = path.chars().take(200).collect();
            tracing::error!(
                target: "tower_wechat::login",
                app = %self.0.users.app_id(),
                ?came,
                expected = self.0.settings.public_url.public_path(&self.0.settings.callback_path),
                more,
                "WeChat sent a user back to a path that is not the callback; a proxy strips a prefix \
                 (add it to the public URL) or rewrites the path (pass it on unchanged)"
            );
        }
        metrics::count_login(LoginFailure::WrongCallbackPath.as_str());
        self.reply_with_failure(
            LoginFailure::WrongCallbackPath,
            Some(self.start_page().as_str().to_owned()),
        )
    }

    /// Returns `true` if this page load seems to be a callback without its path and query, rather
    /// than a person's reload. Older web views do not send the header that distinguishes a callback
    /// from a reload. For these web views, only a number of repeats that no person reaches counts
    /// as a loop.
    pub(super) fn seems_to_miss_callback(
        &self,
        attempt: &LoginAttempt,
        headers: &HeaderMap,
    ) -> bool {
        if attempt.repeats >= MAX_REPEATS_OF_PERSON {
            return true;
        }
        // A page with a query is no lost callback: the state in a callback's query is recognised at
        // any path.
        let has_query = attempt.return_to.as_str().contains('?');
        match initiator(headers) {
            // A page of another origin is no path to which a proxy could have diverted a callback.
            _ if has_query || attempt.return_to.is_absolute() => false,
            // The script of a page that shows a QR code has not returned from WeChat.
            _ if is_script_request(headers) => false,
            None => false,
            Some(Initiator::OtherOrigin) => true,
            // After an address that was typed or opened by another program, browsers send
            // `Sec-Fetch-Site: none` through all redirects. Redirects return faster than a person
            // reloads. The first two loads are not counted, because web views load a page twice.
            Some(Initiator::SameOriginOrNone) => {
                let reloads = u64::from(attempt.repeats).saturating_sub(1);
                attempt.age_seconds(self.now()) < MIN_RELOAD_SECONDS * reloads
            }
        }
    }

    /// Logs and counts a login whose callbacks get lost, and returns its failure page.
    pub(super) fn reject_missed_callback(&self, return_to: &ReturnTo) -> LoginReply {
        if let Some(more) = self.0.log_limiter.allow_line("misses_callback") {
            let came: String = return_to.path().chars().take(200).collect();
            tracing::error!(
                target: "tower_wechat::login",
                app = %self.0.users.app_id(),
                ?came,
                expected = self.0.settings.public_url.public_path(&self.0.settings.callback_path),
                more,
                "a browser returned from WeChat several times without a callback; a proxy rewrites the \
                 path or drops the query: pass both on unchanged"
            );
        }
        metrics::count_login(LoginFailure::RateLimited.as_str());
        let login_url = self.0.settings.login_url(Some(return_to), None);
        self.reply_with_failure(LoginFailure::RateLimited, Some(login_url))
    }
}
