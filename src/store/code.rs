//! The codes of logins: which of many copies of one callback exchanges the code, and what the
//! others are told.

use std::fmt;

use sha2::{Digest, Sha256};

use crate::credential::AppId;

/// Names a code without telling it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct LoginCodeKey {
    /// The account.
    pub app: AppId,
    /// A hash of the code.
    pub hash: Box<str>,
}

impl LoginCodeKey {
    /// The name of this code of this account.
    pub fn new(app: &AppId, code: &str) -> Self {
        let digest = Sha256::digest(code.as_bytes());
        let hash: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        Self {
            app: app.clone(),
            hash: hash.into(),
        }
    }
}

impl fmt::Debug for LoginCodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CodeName({})", self.hash.get(..8).unwrap_or_default())
    }
}

/// Which login a code belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CodeBindResult {
    /// To the one that asks, from now on.
    Bound,
    /// To the one that asks, as before.
    AlreadyBound,
    /// To another one, which came first.
    BoundElsewhere,
}

/// The answer to a claim of a code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CodeLeaseResult {
    /// It is ours to exchange.
    Acquired,
    /// Somebody else is exchanging it.
    Busy,
    /// It has been exchanged, and this came of it.
    Finished(String),
}
