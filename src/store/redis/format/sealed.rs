//! The text format of a sealed value: `#0#s1#KEY#BODY`.
//!
//! No plain value has this format, because a plain value starts with a token or with the number of
//! its format. The published Spring Boot service splits a value on `#` and uses the first two
//! parts. The service finds an empty token that expired in 1970, and asks for a login. Versions of
//! this crate without sealing also ask for a login.
//!
//! `s1` is the algorithm, `KEY` is the id of the key, and `BODY` is nonce, ciphertext and tag.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

const PREFIX: &str = "#0#s1#";

/// Length of the id of a key, in bytes. A list with two keys of the same id is rejected.
const ID_BYTES: usize = 6;

/// Length of the id of a key in base64, in characters.
const ID_CHARS: usize = 8;

/// The id of a sealing key, which does not reveal the key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct SealingKeyId([u8; ID_BYTES]);

impl SealingKeyId {
    /// Creates an id from the first bytes of a hash.
    #[cfg(feature = "sealing")]
    pub(crate) fn from_digest(digest: &[u8; 32]) -> Self {
        let [a, b, c, d, e, f, ..] = *digest;
        Self([a, b, c, d, e, f])
    }

    /// Parses an id from the text that `Display` writes.
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        bytes.try_into().ok().map(Self)
    }
}

impl fmt::Display for SealingKeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for SealingKeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealId({self})")
    }
}

/// The context to which a sealed value is bound. A value with another context cannot be decrypted.
/// Log lines name the place of a value by the same context.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SealBinding<'a> {
    pub(crate) app: &'a str,
    pub(crate) kind: &'a str,
    pub(crate) user: &'a str,
    /// The Redis key. If the key holds a hash, the field is the user id.
    pub(crate) key: &'a str,
}

#[cfg(feature = "sealing")]
impl SealBinding<'_> {
    pub(crate) fn to_bytes(self) -> Vec<u8> {
        let parts = [
            "tower-wechat sealed 1",
            self.app,
            self.kind,
            self.user,
            self.key,
        ];
        let mut bytes = Vec::with_capacity(128);
        for part in parts {
            // The length precedes each part, so that two different contexts never have the same
            // bytes.
            bytes.extend((part.len() as u64).to_be_bytes());
            bytes.extend(part.as_bytes());
        }
        bytes
    }
}

/// Formats a sealed value from the id of its key and its encrypted body.
#[cfg(feature = "sealing")]
pub(crate) fn write(key: SealingKeyId, body: &[u8]) -> String {
    format!("{PREFIX}{key}#{}", URL_SAFE_NO_PAD.encode(body))
}

/// Splits a sealed value into the id of its key and its encoded body. Returns `None` for a plain
/// value.
pub(crate) fn split(value: &[u8]) -> Option<(SealingKeyId, &[u8])> {
    let rest = value.strip_prefix(PREFIX.as_bytes())?;
    let (id, rest) = rest.split_at_checked(ID_CHARS)?;
    Some((SealingKeyId::parse(id)?, rest.strip_prefix(b"#")?))
}

/// Decodes the base64 text of a body. The bytes are the nonce, the ciphertext and the tag, not yet
/// split.
#[cfg(feature = "sealing")]
pub(crate) fn decode_body(written: &[u8]) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(written).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::redis::format::{hash, record};

    #[test]
    fn plain_readers_reject_sealed_values() {
        let value = b"#0#s1#AAECAwQF#AAAA";
        assert!(split(value).is_some());
        assert!(hash::read_token(value, std::time::Duration::ZERO).is_err());
        assert!(hash::read_refresh(value, "u").is_err());
        assert!(record::read(value, "u").is_err());
    }

    #[test]
    fn other_values_are_not_taken_as_sealed() {
        for other in [
            &b"tok#1700000000000"[..],
            b"#0#s1#",
            b"#0#s1#AAECAwQF",
            b"#0#s1#AAECAwQ#AAAA",
            b"#0#s1#AAEC+wQF#AAAA",
            b"#0#s2#AAECAwQF#AAAA",
            b"",
        ] {
            assert_eq!(split(other), None, "{other:?}");
        }
    }
}
