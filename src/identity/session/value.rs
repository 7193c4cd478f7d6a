//! The text of a session in a cookie.
//!
//! `USER.ISSUED.FLAGS-AGE-LOGOUT`, with numbers in base 36:
//!
//! - `USER` is the percent-encoded id of the user.
//! - `ISSUED` is the time when the session was issued, in seconds since the Unix epoch.
//! - `FLAGS` is empty, or has `s` for a snapshot page's virtual user and `v` for a declined scope.
//! - `AGE` is the number of seconds from the login to `ISSUED`.
//! - `LOGOUT` is a time in milliseconds, usually that of the user's last logout everywhere before
//!   the login. A logout everywhere after that time ends the session.
//!
//! Sessions in older formats end with `ISSUED` or `ISSUED.FLAGS`. Their time of issue counts as the
//! time of the login and as `LOGOUT`.

use std::borrow::Cow;

use memchr::memchr;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::base36::{Base36, parse_base36};
use crate::clock::Timestamp;

/// The characters of a user's id that are percent-encoded: all but those that openids consist of.
const USER_ID_ESCAPES: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_');

/// The state of a session, apart from the user's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Session {
    /// `true` if the user is the virtual user of a snapshot page (快照页).
    pub(crate) snapshot: bool,
    /// `true` if WeChat has asked the user for `snsapi_userinfo`, and the user has not granted that
    /// scope. The layer then does not redirect the user to WeChat again, because that would be a
    /// loop.
    pub(crate) scope_declined: bool,
    /// `true` if the login was within two minutes before the session was verified. The cookie does
    /// not contain this field, which follows from `logged_in_at`.
    pub(crate) recent_login: bool,
    /// `true` if the user has logged in through the website app (网站应用) beside the account. The
    /// cookie does not contain this field: the session is in the website's own cookie.
    pub(crate) website: bool,
    /// Time of the login, which does not change when the session is issued again. For `None`, the
    /// time of the issue is written.
    pub(crate) logged_in_at: Option<Timestamp>,
    /// A logout everywhere after this time ends the session. A login sets this field to the user's
    /// last logout everywhere before the login, so that the servers' clocks may differ. The field
    /// does not change when the session is issued again.
    pub(crate) last_known_logout: Option<Timestamp>,
}

impl Session {
    /// Returns `true` if a logout everywhere at `revoked_at` ends this session, because the logout
    /// came after `last_known_logout`.
    #[inline]
    pub(crate) fn is_revoked(self, revoked_at: Option<Timestamp>) -> bool {
        match (self.last_known_logout, revoked_at) {
            (Some(known), Some(revoked_at)) => known < revoked_at,
            (None, _) | (_, None) => false,
        }
    }

    /// Returns `true` if another login would not grant a scope that the user lacks: the user has
    /// declined it, is the virtual user of a snapshot page, or has logged in through the website,
    /// whose one scope covers all others.
    pub(crate) fn cannot_grant_more(self) -> bool {
        self.snapshot || self.scope_declined || self.website
    }

    /// Returns a session with the flags in `FLAGS`. Ignores unknown letters.
    fn from_flags(flags: &[u8]) -> Self {
        Self {
            snapshot: flags.contains(&b's'),
            scope_declined: flags.contains(&b'v'),
            ..Self::default()
        }
    }
}

/// The parsed text of a session, whose signature is not verified yet.
pub(in crate::identity) struct SessionText<'a> {
    id: &'a [u8],
    pub(in crate::identity) issued_at: Timestamp,
    pub(in crate::identity) logged_in_at: Timestamp,
    pub(in crate::identity) session: Session,
}

/// Returns the text of a session, which the caller signs.
pub(in crate::identity) fn encode(user: &str, issued: Timestamp, session: Session) -> String {
    let issued = issued.as_millis().max(0) / 1_000;
    let login = session
        .logged_in_at
        .map_or(issued, |at| at.as_millis() / 1_000);
    let logout = session.last_known_logout.map_or(0, Timestamp::as_millis);
    let flags = match (session.snapshot, session.scope_declined) {
        (false, false) => "",
        (true, false) => "s",
        (false, true) => "v",
        (true, true) => "sv",
    };
    format!(
        "{}.{}.{flags}-{}-{}",
        utf8_percent_encode(user, USER_ID_ESCAPES),
        Base36(issued),
        Base36((issued - login).max(0)),
        Base36(logout),
    )
}

/// Parses the text of a session, or returns `None` if the text is malformed. Parsing is cheap, so
/// callers reject malformed values before they verify the signature.
pub(in crate::identity) fn decode(text: &[u8]) -> Option<SessionText<'_>> {
    let (id, rest) = split_once(text, b'.')?;
    let (issued, rest) = split_once(rest, b'.').unwrap_or((rest, b""));
    let issued = parse_base36(issued)?.checked_mul(1_000)?;
    let (flags, age_and_logout) = match split_once(rest, b'-') {
        Some((flags, behind)) => (flags, Some(split_once(behind, b'-')?)),
        None => (rest, None),
    };
    let (login, logout) = match age_and_logout {
        Some((age, logout)) => {
            let age = parse_base36(age)?.checked_mul(1_000)?;
            (issued.checked_sub(age)?, parse_base36(logout)?)
        }
        None => (issued, issued),
    };
    let login = Timestamp::from_millis(login);
    Some(SessionText {
        id,
        issued_at: Timestamp::from_millis(issued),
        logged_in_at: login,
        session: Session {
            logged_in_at: Some(login),
            last_known_logout: Some(Timestamp::from_millis(logout)),
            ..Session::from_flags(flags)
        },
    })
}

impl<'a> SessionText<'a> {
    /// Returns the decoded id of the user, or `None` if it is not UTF-8. Openids are not
    /// percent-encoded, so they need no allocation.
    pub(in crate::identity) fn user(&self) -> Option<Cow<'a, str>> {
        let id = std::str::from_utf8(self.id).ok()?;
        match memchr(b'%', self.id) {
            Some(_) => percent_decode_str(id).decode_utf8().ok(),
            None => Some(Cow::Borrowed(id)),
        }
    }
}

/// Returns the bytes before the first separator, and the bytes after it. Returns `None` without a
/// separator.
fn split_once(bytes: &[u8], separator: u8) -> Option<(&[u8], &[u8])> {
    let at = memchr(separator, bytes)?;
    Some((&bytes[..at], &bytes[at + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    proptest! {
        #[test]
        fn sessions_round_trip(
            id in "\\PC{1,60}", snapshot: bool, scope_declined: bool,
            login in 0i64..4_000_000_000, age in 0i64..400_000_000, epoch in 0i64..4_000_000_000_000,
        ) {
            let session = Session {
                snapshot,
                scope_declined,
                recent_login: false,
                website: false,
                logged_in_at: Some(at(login * 1_000)),
                last_known_logout: Some(at(epoch)),
            };
            let issued = at((login + age) * 1_000);
            let written = encode(&id, issued, session);
            let text = decode(written.as_bytes()).unwrap();
            prop_assert_eq!(text.user().unwrap(), id);
            prop_assert_eq!((text.issued_at, text.session), (issued, session));
        }

        #[test]
        fn decoding_arbitrary_text_never_panics(text in "[a-z0-9.%-]{0,40}") {
            if let Some(text) = decode(text.as_bytes()) {
                let _ = (text.user(), text.session.is_revoked(Some(at(1))));
            }
        }
    }

    #[test]
    fn session_of_an_openid_fits_two_sha256_blocks() {
        let now = at(1_900_000_000_000);
        let session = Session {
            scope_declined: true,
            logged_in_at: Some(now.saturating_sub(std::time::Duration::from_secs(90 * 86_400))),
            last_known_logout: Some(now),
            ..Session::default()
        };
        let written = encode("o6_bmjrPTlm6_2sgVt7hMZOPfL2M", now, session);
        assert!(written.len() <= 55, "{} bytes", written.len());
    }

    #[test]
    fn old_sessions_use_issue_time_as_login_time() {
        for (text, scope_declined) in [("oA.sbjchc", false), ("oA.sbjchc.v", true)] {
            let text = decode(text.as_bytes()).unwrap();
            assert_eq!(text.session.scope_declined, scope_declined);
            assert_eq!(text.session.logged_in_at, Some(text.issued_at));
            assert_eq!(text.session.last_known_logout, Some(text.issued_at));
        }
    }
}
