//! A Lua script: its text and its hash.

use sha1::{Digest, Sha1};

use crate::bytes::encode_hex;

/// A Lua script, and the SHA-1 hash by which Redis identifies it.
#[derive(PartialEq, Eq)]
pub(in crate::store::redis) struct Script {
    pub(super) text: String,
    pub(super) hash: String,
}

impl Script {
    pub(super) fn new(text: impl Into<String>) -> Self {
        let text = text.into();
        let hash = encode_hex(&Sha1::digest(text.as_bytes()));
        Self { text, hash }
    }
}
