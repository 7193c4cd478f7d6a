//! The state of the browser that sends a callback: its logins, its state cookie and its session.

use super::cookies::BrowserLogins;

/// The state of the browser that sends a callback.
pub(super) struct CallbackContext {
    pub(super) browser_logins: BrowserLogins,
    /// `true` if the browser has the cookie of this login.
    pub(super) has_state_cookie: bool,
    /// The user of the browser's session, unless it is a virtual user.
    pub(super) session_user_id: Option<Box<str>>,
    /// `true` if the browser has a session of this application, be it that of a virtual user.
    pub(super) has_session: bool,
    /// `true` if the browser has a session under this cookie's name that this application did not
    /// sign.
    pub(super) foreign_session: bool,
}
