//! The log of issued credentials, which tests compare with those that an application has.

use std::{
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// The kind of an [`IssuedCredential`].
#[doc(hidden)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IssuedKind {
    /// A code of the authorize page.
    Code,
    /// A user's access token and refresh token, issued for a code or by
    /// [`Simulator::sign_in`](super::Simulator::sign_in).
    SignIn,
    /// A user's access token and refresh token, issued for a refresh token. A refresh may return
    /// unchanged tokens.
    Refresh,
    /// An access token of the account.
    AccountToken,
    /// A ticket of the account, such as a `jsapi_ticket`.
    Ticket,
    /// A verify ticket of a third-party platform.
    VerifyTicket,
    /// A code with which a page of a third-party platform opens: a pre_auth_code.
    PreAuthCode,
    /// The code of an account that has authorized a third-party platform.
    AuthorizationCode,
    /// The refresh token of an account, which a third-party platform uses.
    AuthorizerRefreshToken,
}

/// A code, pair of tokens, account token or ticket that the simulator has issued.
#[doc(hidden)]
#[derive(Clone)]
pub struct IssuedCredential {
    /// The kind of the credential, such as a code or a ticket.
    pub kind: IssuedKind,
    /// The AppID of the account or website app.
    pub app_id: String,
    /// The user's openid, which is empty for credentials of the account.
    pub openid: String,
    /// The secret texts. A pair has two: the access token and the refresh token.
    pub secrets: Vec<String>,
    /// The time of issue on the simulator's clock.
    pub issued_at: SystemTime,
}

impl fmt::Debug for IssuedCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IssuedCredential")
            .field("kind", &self.kind)
            .field("app_id", &self.app_id)
            .field("openid", &self.openid)
            .field("issued_at", &self.issued_at)
            .finish_non_exhaustive()
    }
}

/// The credentials of one account or website app.
#[derive(Debug)]
pub(super) struct IssueLog {
    app_id: String,
    entries: Vec<IssuedCredential>,
}

impl IssueLog {
    pub(super) fn new(app_id: &str) -> Self {
        Self {
            app_id: app_id.to_owned(),
            entries: Vec::new(),
        }
    }

    pub(super) fn record<const N: usize>(
        &mut self,
        kind: IssuedKind,
        openid: &str,
        secrets: [&str; N],
        now: Duration,
    ) {
        self.entries.push(IssuedCredential {
            kind,
            app_id: self.app_id.clone(),
            openid: openid.to_owned(),
            secrets: secrets.map(str::to_owned).into(),
            issued_at: UNIX_EPOCH + now,
        });
    }

    pub(super) fn entries(&self) -> &[IssuedCredential] {
        &self.entries
    }
}
