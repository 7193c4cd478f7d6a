//! What a browser sends along with a callback.

use super::cookies::BrowserLogins;

/// What the browser brings along.
pub(super) struct CallbackContext {
    pub(super) browser_logins: BrowserLogins,
    /// Whether it has the cookie of this login.
    pub(super) has_state_cookie: bool,
    /// Whose session it has, apart from those of virtual users.
    pub(super) session_user_id: Option<Box<str>>,
    pub(super) has_session: bool,
    /// Whether it has a session under our cookie's name that is none of ours.
    pub(super) foreign_session: bool,
}
