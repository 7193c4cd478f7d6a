//! The text of a session: who it names, since when, and what it says besides.
//!
//! `USER.ISSUED.MARKS-AGE-EPOCH`. `ISSUED` is in seconds, `AGE` is how many seconds the login lay
//! back by then, `EPOCH` is in milliseconds, all in base 36. Sessions of before `AGE` and `EPOCH` were
//! written end with `ISSUED` or `ISSUED.MARKS`: they count as logins of when they were issued.

use std::borrow::Cow;

use memchr::memchr;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::base36::{Base36, parse_base36};
use crate::clock::Timestamp;

/// What the id of a user may keep in a cookie as it is. Openids have nothing else.
const USER_ID_ESCAPES: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_');

/// What a session is, besides somebody's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Session {
    /// Of a virtual user of a snapshot page (快照页).
    pub(crate) snapshot: bool,
    /// The user has been asked for `snsapi_userinfo` and has not granted it: asking again would
    /// be a loop.
    pub(crate) scope_declined: bool,
    /// The login happened a moment ago. Not written: follows from the time of the login.
    pub(crate) recent_login: bool,
    /// When the user logged in. Renewals of the session keep it.
    pub(crate) logged_in_at: Option<Timestamp>,
    /// The user's last logout everywhere that the login knew of, where a session says so. Renewals
    /// keep it. A later logout ends the session, whatever the clocks of the servers say.
    pub(crate) last_known_logout: Option<Timestamp>,
}

impl Session {
    /// Returns `true` if the user has logged out everywhere since the login of this session.
    #[inline]
    pub(crate) fn is_revoked(self, revoked_at: Option<Timestamp>) -> bool {
        match (self.last_known_logout, revoked_at) {
            (Some(epoch), Some(revoked_at)) => epoch < revoked_at,
            _ => false,
        }
    }

    fn from_flags(flags: &[u8]) -> Self {
        Self {
            snapshot: flags.contains(&b's'),
            scope_declined: flags.contains(&b'v'),
            ..Self::default()
        }
    }
}

/// What a session's text says, as far as nobody has authenticated it yet.
pub(in crate::identity) struct SessionText<'a> {
    id: &'a [u8],
    pub(in crate::identity) issued_at: Timestamp,
    pub(in crate::identity) logged_in_at: Timestamp,
    pub(in crate::identity) session: Session,
}

/// Writes a session that is issued now.
pub(in crate::identity) fn encode(user: &str, issued: Timestamp, session: Session) -> String {
    let issued = issued.as_millis().max(0) / 1_000;
    let login = session
        .logged_in_at
        .map_or(issued, |at| at.as_millis() / 1_000);
    let epoch = session.last_known_logout.map_or(0, Timestamp::as_millis);
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
        Base36(epoch),
    )
}

/// Reads a session. Costs little, so that junk is told before anything is authenticated.
pub(in crate::identity) fn decode(text: &[u8]) -> Option<SessionText<'_>> {
    let (id, rest) = split_once(text, b'.')?;
    let (issued, rest) = split_once(rest, b'.').unwrap_or((rest, b""));
    let issued = parse_number(issued)?.checked_mul(1_000)?;
    let (flags, age_and_epoch) = match split_once(rest, b'-') {
        Some((marks, behind)) => (marks, Some(split_once(behind, b'-')?)),
        None => (rest, None),
    };
    let (login, epoch) = match age_and_epoch {
        Some((age, epoch)) => {
            let age = parse_number(age)?.checked_mul(1_000)?;
            (issued.checked_sub(age)?, parse_number(epoch)?)
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
            last_known_logout: Some(Timestamp::from_millis(epoch)),
            ..Session::from_flags(flags)
        },
    })
}

impl<'a> SessionText<'a> {
    /// The user's id. Openids stand in a cookie as they are.
    pub(in crate::identity) fn user(&self) -> Option<Cow<'a, str>> {
        let id = std::str::from_utf8(self.id).ok()?;
        match memchr(b'%', self.id) {
            Some(_) => percent_decode_str(id).decode_utf8().ok(),
            None => Some(Cow::Borrowed(id)),
        }
    }
}

fn parse_number(digits: &[u8]) -> Option<i64> {
    parse_base36(std::str::from_utf8(digits).ok()?)
}

/// What stands before the first separator, and after it.
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
        for (text, asked_in_vain) in [("oA.sbjchc", false), ("oA.sbjchc.v", true)] {
            let text = decode(text.as_bytes()).unwrap();
            assert_eq!(text.session.scope_declined, asked_in_vain);
            assert_eq!(text.session.logged_in_at, Some(text.issued_at));
            assert_eq!(text.session.last_known_logout, Some(text.issued_at));
        }
    }
}
