//! One login of one browser.
//!
//! # States of a login
//!
//! ## Open
//!
//! The browser has been redirected to WeChat, and no callback has ended the login yet. A slot
//! contains the login and its page. If the slot is needed for newer logins, only the history
//! contains the login.
//!
//! - A callback signs the user in: *Signed in*.
//! - A callback spends or discards its code without signing the user in: *Retried*. Usually another
//!   login begins.
//! - The lifetime of the state has passed: the login expires.
//!
//! ## Signed in
//!
//! The login answers duplicates of its callback for ten minutes. The fingerprint of its code
//! distinguishes a duplicate from another code.
//!
//! - A duplicate arrives without a session: *Retried*.
//!
//! ## Retried
//!
//! The history counts the login as a retry for a minute. A further callback of the login is
//! exchanged like that of an open one.

use sha2::{Digest, Sha256};

use crate::clock::Timestamp;
use crate::login::return_to::ReturnTo;
use crate::login::scope::Scope;
use crate::login::state::{LoginState, unix_seconds};

/// Window in which logins and retries count towards a loop: 60 seconds.
pub(in crate::login) const LOOP_WINDOW_SECONDS: u64 = 60;

/// Length of a code's fingerprint: three bytes, which suffice to distinguish a reload of a callback
/// from another code.
pub(super) const FINGERPRINT_BYTES: usize = 3;

/// Status of a login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AttemptStatus {
    /// No callback has ended the login.
    Open,
    /// The code with this fingerprint has signed the user in. `at` is that time in seconds since
    /// the Unix epoch.
    SignedIn {
        at: u64,
        fingerprint: CodeFingerprint,
    },
    /// The login counts as a retry: another login has begun, or the browser has kept its session.
    /// `at` is that time in seconds since the Unix epoch.
    Retried { at: u64 },
}

/// Fingerprint of a code that has signed a user in: the first bytes of a SHA-256.
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
    /// Number of page loads that have repeated this login since it began. The maximum is 15.
    pub(crate) repeats: u8,
}

impl LoginAttempt {
    /// Returns how long ago the login began, in seconds.
    pub(crate) fn age_seconds(&self, now: Timestamp) -> u64 {
        unix_seconds(now).saturating_sub(self.state.issued_at)
    }
}

/// One login in the history of a browser's logins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HistoryEntry {
    pub(super) login_id: u64,
    /// The time at which the login ended, or began if it is open, in seconds since the Unix epoch.
    pub(super) at: u64,
    pub(super) scope: Scope,
    pub(super) status: AttemptStatus,
}

/// Returns the lowest six bytes of a login's id. The history keeps only these bytes, because they
/// distinguish the few logins of one browser.
pub(super) fn truncate_id(login_id: u64) -> u64 {
    login_id & 0xffff_ffff_ffff
}
