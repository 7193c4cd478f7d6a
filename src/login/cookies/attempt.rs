//! One login of one browser, and what the browser remembers of it after its end.

use sha2::{Digest, Sha256};

use crate::clock::Timestamp;
use crate::login::return_to::ReturnTo;
use crate::login::scope::Scope;
use crate::login::state::{LoginState, unix_seconds};

/// Length of a fingerprint: enough to distinguish a reload of a callback from another code.
pub(super) const FINGERPRINT_BYTES: usize = 3;

/// Status of a login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AttemptStatus {
    /// The user is at WeChat's page.
    Open,
    /// The code with this fingerprint has signed the user in, at this second.
    SignedIn {
        at: u64,
        fingerprint: CodeFingerprint,
    },
    /// The login was retried at this second.
    Retried { at: u64 },
}

/// Fingerprint of a code that has signed a user in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CodeFingerprint(pub(super) [u8; FINGERPRINT_BYTES]);

impl CodeFingerprint {
    /// Returns the fingerprint of a code with this hash.
    pub(crate) fn from_hash(hash: &str) -> Self {
        let digest = Sha256::digest(hash.as_bytes());
        Self([digest[0], digest[1], digest[2]])
    }
}

/// One login of one browser.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LoginAttempt {
    pub(crate) state: LoginState,
    pub(crate) scope: Scope,
    pub(crate) return_to: ReturnTo,
    pub(crate) status: AttemptStatus,
    /// How often the browser was sent to WeChat again for this login.
    pub(crate) repeats: u8,
}

impl LoginAttempt {
    /// Returns how long ago the login began, in seconds.
    pub(crate) fn age_seconds(&self, now: Timestamp) -> u64 {
        unix_seconds(now).saturating_sub(self.state.issued_at)
    }
}

/// One login in the history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HistoryEntry {
    pub(super) login_id: u64,
    /// When the login ended, or when it began if it is open.
    pub(super) at: u64,
    pub(super) scope: Scope,
    pub(super) status: AttemptStatus,
}
