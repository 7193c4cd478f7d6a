//! The outer form of a sealed value: `#0#s1#KEY#BODY`.
//!
//! It is a text that no plain value can be, since a plain one begins with a token or with the
//! number of a form. The published Spring Boot service, which splits on `#` and takes the first two
//! parts, finds an empty token that expired in 1970: it asks for a login, and does not stumble. So
//! do versions of this crate that know nothing of seals.
//!
//! `s1` names the algorithm, `KEY` the key of the ring, and `BODY` is nonce, ciphertext and tag.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

const PREFIX: &str = "#0#s1#";

/// The bytes of a key's name. Two keys of one ring that share it are refused.
const ID_BYTES: usize = 6;

/// The same, written.
const ID_CHARS: usize = 8;

/// Names a sealing key without telling it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct SealingKeyId([u8; ID_BYTES]);

impl SealingKeyId {
    /// The name that begins these bytes.
    #[cfg(feature = "sealing")]
    pub(crate) fn from_digest(digest: &[u8; 32]) -> Self {
        let [a, b, c, d, e, f, ..] = *digest;
        Self([a, b, c, d, e, f])
    }

    /// Reads a name as `Display` writes it.
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

/// What a sealed value is bound to.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(
    not(feature = "sealing"),
    allow(dead_code, reason = "read where something is sealed or opened")
)]
pub(crate) struct SealBinding<'a> {
    pub(crate) app: &'a str,
    pub(crate) kind: &'a str,
    pub(crate) user: &'a str,
    /// The Redis key; a hash field is named by the user.
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
            // The length first, so that no two lists of parts run into the same bytes.
            bytes.extend((part.len() as u64).to_be_bytes());
            bytes.extend(part.as_bytes());
        }
        bytes
    }
}

/// Writes the form around a body.
#[cfg(feature = "sealing")]
pub(crate) fn write(key: SealingKeyId, body: &[u8]) -> String {
    format!("{PREFIX}{key}#{}", URL_SAFE_NO_PAD.encode(body))
}

/// Takes the form apart: which key, and the body as it is written. Nothing where the value is no
/// sealed one.
pub(crate) fn split(value: &[u8]) -> Option<(SealingKeyId, &[u8])> {
    let rest = value.strip_prefix(PREFIX.as_bytes())?;
    let (id, rest) = rest.split_at_checked(ID_CHARS)?;
    Some((SealingKeyId::parse(id)?, rest.strip_prefix(b"#")?))
}

/// The bytes of a body.
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
