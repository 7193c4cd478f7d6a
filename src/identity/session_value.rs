//! The text of a session: who it names, since when, and what it says besides.
//!
//! `USER.ISSUED.MARKS-AGE-EPOCH`. `ISSUED` is in seconds, `AGE` is how many seconds the login lay
//! back by then, `EPOCH` is in milliseconds, all in base 36. Sessions of before `AGE` and `EPOCH` were
//! written end with `ISSUED` or `ISSUED.MARKS`: they count as logins of when they were issued.

use std::borrow::Cow;

use memchr::memchr;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::clock::Timestamp;
use crate::credential::{Base36, read_base36};

/// What the id of a user may keep in a cookie as it is. Openids have nothing else.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_');

/// What a session is, besides somebody's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Session {
    /// Of a virtual user of a snapshot page (快照页).
    pub(crate) snapshot: bool,
    /// The user has been asked for `snsapi_userinfo` and has not granted it: asking again would
    /// be a loop.
    pub(crate) asked_in_vain: bool,
    /// The login happened a moment ago. Not written: follows from the time of the login.
    pub(crate) lately: bool,
    /// When the user logged in. Renewals of the session keep it.
    pub(crate) login: Option<Timestamp>,
    /// The user's last logout everywhere that the login knew of, where a session says so. Renewals
    /// keep it. A later logout ends the session, whatever the clocks of the servers say.
    pub(crate) epoch: Option<Timestamp>,
}

impl Session {
    /// Returns `true` if the user has logged out everywhere since the login of this session.
    #[inline]
    pub(crate) fn is_revoked(self, revoked_at: Option<Timestamp>) -> bool {
        match (self.epoch, revoked_at) {
            (Some(epoch), Some(revoked_at)) => epoch < revoked_at,
            _ => false,
        }
    }

    fn marked(marks: &[u8]) -> Self {
        Self {
            snapshot: marks.contains(&b's'),
            asked_in_vain: marks.contains(&b'v'),
            ..Self::default()
        }
    }
}

/// What a session's text says, as far as nobody has authenticated it yet.
pub(super) struct Text<'a> {
    id: &'a [u8],
    pub(super) issued: Timestamp,
    pub(super) login: Timestamp,
    pub(super) session: Session,
}

/// Writes a session that is issued now.
pub(super) fn write(user: &str, issued: Timestamp, session: Session) -> String {
    let issued = issued.as_millis().max(0) / 1_000;
    let login = session.login.map_or(issued, |at| at.as_millis() / 1_000);
    let epoch = session.epoch.map_or(0, Timestamp::as_millis);
    let marks = match (session.snapshot, session.asked_in_vain) {
        (false, false) => "",
        (true, false) => "s",
        (false, true) => "v",
        (true, true) => "sv",
    };
    format!(
        "{}.{}.{marks}-{}-{}",
        utf8_percent_encode(user, ENCODED),
        Base36(issued),
        Base36((issued - login).max(0)),
        Base36(epoch),
    )
}

/// Reads a session. Costs little, so that junk is told before anything is authenticated.
pub(super) fn read(text: &[u8]) -> Option<Text<'_>> {
    let (id, rest) = split_once(text, b'.')?;
    let (issued, rest) = split_once(rest, b'.').unwrap_or((rest, b""));
    let issued = number(issued)?.checked_mul(1_000)?;
    let (marks, age_and_epoch) = match split_once(rest, b'-') {
        Some((marks, behind)) => (marks, Some(split_once(behind, b'-')?)),
        None => (rest, None),
    };
    let (login, epoch) = match age_and_epoch {
        Some((age, epoch)) => {
            let age = number(age)?.checked_mul(1_000)?;
            (issued.checked_sub(age)?, number(epoch)?)
        }
        None => (issued, issued),
    };
    let login = Timestamp::from_millis(login);
    Some(Text {
        id,
        issued: Timestamp::from_millis(issued),
        login,
        session: Session {
            login: Some(login),
            epoch: Some(Timestamp::from_millis(epoch)),
            ..Session::marked(marks)
        },
    })
}

impl<'a> Text<'a> {
    /// The user's id. Openids stand in a cookie as they are.
    pub(super) fn user(&self) -> Option<Cow<'a, str>> {
        let id = std::str::from_utf8(self.id).ok()?;
        match memchr(b'%', self.id) {
            Some(_) => percent_decode_str(id).decode_utf8().ok(),
            None => Some(Cow::Borrowed(id)),
        }
    }
}

fn number(digits: &[u8]) -> Option<i64> {
    read_base36(std::str::from_utf8(digits).ok()?)
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
        fn every_session_reads_back(
            id in "\\PC{1,60}", snapshot: bool, asked_in_vain: bool,
            login in 0i64..4_000_000_000, age in 0i64..400_000_000, epoch in 0i64..4_000_000_000_000,
        ) {
            let session = Session {
                snapshot,
                asked_in_vain,
                lately: false,
                login: Some(at(login * 1_000)),
                epoch: Some(at(epoch)),
            };
            let issued = at((login + age) * 1_000);
            let written = write(&id, issued, session);
            let text = read(written.as_bytes()).unwrap();
            prop_assert_eq!(text.user().unwrap(), id);
            prop_assert_eq!((text.issued, text.session), (issued, session));
        }

        #[test]
        fn every_text_is_a_session_or_none(text in "[a-z0-9.%-]{0,40}") {
            if let Some(text) = read(text.as_bytes()) {
                let _ = (text.user(), text.session.is_revoked(Some(at(1))));
            }
        }
    }

    #[test]
    fn an_openids_session_fits_into_two_blocks_of_sha_256() {
        let now = at(1_900_000_000_000);
        let session = Session {
            asked_in_vain: true,
            login: Some(now.before(std::time::Duration::from_secs(90 * 86_400))),
            epoch: Some(now),
            ..Session::default()
        };
        let written = write("o6_bmjrPTlm6_2sgVt7hMZOPfL2M", now, session);
        assert!(written.len() <= 55, "{} bytes", written.len());
    }

    #[test]
    fn a_session_of_before_counts_as_a_login_of_when_it_was_issued() {
        for (text, asked_in_vain) in [("oA.sbjchc", false), ("oA.sbjchc.v", true)] {
            let text = read(text.as_bytes()).unwrap();
            assert_eq!(text.session.asked_in_vain, asked_in_vain);
            assert_eq!(text.session.login, Some(text.issued));
            assert_eq!(text.session.epoch, Some(text.issued));
        }
    }
}
