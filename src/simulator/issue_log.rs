//! What was handed out, and when: for tests that balance their books against WeChat's.

use std::{
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// What was handed out.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IssuedKind {
    /// A code of the authorize page.
    Code,
    /// A user's pair, for a code.
    SignIn,
    /// A user's pair, for a refresh token. Its tokens may be those of the pair before it.
    Refresh,
    /// A token of the account.
    AccountToken,
    /// A ticket.
    Ticket,
}

/// Something that was handed out.
#[doc(hidden)]
#[derive(Clone)]
pub struct IssuedCredential {
    /// What it is.
    pub kind: IssuedKind,
    /// Whose it is; empty where it is the account's.
    pub openid: String,
    /// The secret strings: of a pair, the access token and the refresh token.
    pub secrets: Vec<String>,
    /// When, by the simulator's clock.
    pub issued_at: SystemTime,
}

impl fmt::Debug for IssuedCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issued")
            .field("what", &self.kind)
            .field("openid", &self.openid)
            .field("at", &self.issued_at)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
pub(super) struct IssueLog(Vec<IssuedCredential>);

impl IssueLog {
    pub(super) fn record<const N: usize>(
        &mut self,
        what: IssuedKind,
        openid: &str,
        secrets: [&str; N],
        now: Duration,
    ) {
        self.0.push(IssuedCredential {
            kind: what,
            openid: openid.to_owned(),
            secrets: secrets.map(str::to_owned).into(),
            issued_at: UNIX_EPOCH + now,
        });
    }

    pub(super) fn entries(&self) -> &[IssuedCredential] {
        &self.0
    }
}
