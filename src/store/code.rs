//! Login codes. If a callback arrives several times, one request exchanges the code, and the other
//! requests receive the outcome of that exchange.

use std::fmt;

use sha2::{Digest, Sha256};

use crate::bytes::encode_hex;
use crate::credential::AppId;

/// The identity of a login code, which does not reveal the code.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct LoginCodeKey {
    /// The account for which WeChat issued the code.
    pub app: AppId,
    /// The SHA-256 hash of the code, in hexadecimal.
    pub hash: Box<str>,
}

impl LoginCodeKey {
    /// Creates the key of a login code: its account and the hash of the code.
    pub fn new(app: &AppId, code: &str) -> Self {
        let digest = Sha256::digest(code.as_bytes());
        Self {
            app: app.clone(),
            hash: encode_hex(&digest).into(),
        }
    }
}

impl fmt::Debug for LoginCodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "LoginCodeKey({})",
            self.hash.get(..8).unwrap_or_default()
        )
    }
}

/// The outcome of an attempt to bind a code to a login.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CodeBindResult {
    /// The code is now bound to this login.
    Bound,
    /// The code was already bound to this login. The binding has been extended.
    AlreadyBound,
    /// The code is bound to another login.
    BoundElsewhere,
}

/// The outcome of an attempt to acquire the lease of a code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CodeLeaseResult {
    /// The caller holds the lease and exchanges the code.
    Acquired,
    /// Another owner holds the lease and exchanges the code.
    Busy,
    /// The exchange has finished with this outcome.
    Finished(String),
}
