//! Login codes. If a callback arrives several times, one request exchanges the code, and the other
//! requests receive the outcome of that exchange.

use std::fmt;
use std::time::Duration;

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

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
    /// The caller holds the lease. An earlier owner has exchanged the code and was suspended before
    /// the end of the login. The caller resumes with WeChat's response.
    Resumed(PendingResponse),
    /// Another owner holds the lease and exchanges the code.
    Busy,
    /// The exchange has finished with this outcome.
    Finished(String),
}

/// WeChat's response to the exchange of a code, as a text, whose login has not ended. The text
/// contains tokens: `Debug` hides it, and dropping it overwrites its memory.
#[derive(Clone, PartialEq, Eq)]
pub struct PendingResponse(Zeroizing<String>);

impl PendingResponse {
    /// Creates a pending response from its text.
    pub fn new(text: Zeroizing<String>) -> Self {
        Self(text)
    }

    /// Returns the text.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for PendingResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PendingResponse(***)")
    }
}

/// The state of an exchange that is suspended, with the lifetimes of its parts.
#[derive(Debug)]
pub struct Suspension<'a> {
    /// The outcome that copies of the callback receive meanwhile.
    pub outcome: &'a str,
    /// Time for which the store keeps the outcome. The exchange can be resumed afterwards.
    pub outcome_ttl: Duration,
    /// WeChat's response.
    pub response: &'a PendingResponse,
    /// Time for which the store keeps the response.
    pub response_ttl: Duration,
}
