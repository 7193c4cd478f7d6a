//! The state of the browser that sends a callback: its logins, its state cookie and its session.

use http::HeaderValue;

use super::cookies::BrowserLogins;

/// The state of the browser that sends a callback.
pub(super) struct CallbackContext {
    pub(super) browser_logins: BrowserLogins,
    /// `true` if the browser has a login cookie that contains the callback's login.
    pub(super) has_state_cookie: bool,
    /// The id of the session's user. `None` if the browser has no session, or if the user is
    /// virtual.
    pub(super) session_user_id: Option<Box<str>>,
    /// `true` if the browser has a valid session of this application, of a real or a virtual user.
    pub(super) has_session: bool,
    /// `true` if the browser has an unexpired session under the session cookie's name that this
    /// application did not sign.
    pub(super) foreign_session: bool,
    /// The `Set-Cookie` value that removes the session cookie of the login's other app, valid or
    /// not. `None` if the request does not have that cookie.
    pub(super) other_session_removal: Option<HeaderValue>,
    /// `true` if a new login of this browser begins with the app of this callback.
    pub(super) logs_in_browser: bool,
}
