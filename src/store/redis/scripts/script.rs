//! The text of a script and its hash.

use sha1::{Digest, Sha1};

/// A Lua script, and the SHA-1 hash by which Redis identifies it.
pub(in crate::store::redis) struct Script {
    pub(super) text: String,
    pub(super) hash: String,
}

impl Script {
    pub(super) fn new(text: impl Into<String>) -> Self {
        let text = text.into();
        let digest = Sha1::digest(text.as_bytes());
        let hash = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        Self { text, hash }
    }
}
