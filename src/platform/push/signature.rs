//! The signature of WeChat's pushes, and the parameters of the URL that it covers.

use http::Uri;
use percent_encoding::percent_decode_str;
use sha1::{Digest, Sha1};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::bytes::encode_hex;

/// Length of a SHA-1 digest: 20 bytes.
const DIGEST_BYTES: usize = 20;

/// One token of a platform's pushes (消息校验Token). Its memory is overwritten on drop.
#[derive(Clone)]
pub(crate) struct PushToken(Zeroizing<String>);

impl PushToken {
    pub(crate) fn new(text: &str) -> Self {
        Self(Zeroizing::new(text.to_owned()))
    }

    /// Returns the `msg_signature` of a push or of a reply: the SHA-1 of the token and of the three
    /// other texts, sorted by their bytes and joined without a separator.
    pub(crate) fn sign(&self, timestamp: &str, nonce: &str, encrypt: &str) -> String {
        encode_hex(&self.digest(timestamp, nonce, encrypt))
    }

    fn digest(&self, timestamp: &str, nonce: &str, encrypt: &str) -> [u8; DIGEST_BYTES] {
        let mut parts = [&**self.0, timestamp, nonce, encrypt];
        parts.sort_unstable();
        let mut hash = Sha1::new();
        for part in parts {
            hash.update(part);
        }
        hash.finalize().into()
    }
}

/// The parameters of a push's URL that its signature covers, and the signature.
#[derive(Debug)]
pub(crate) struct PushQuery {
    timestamp: String,
    nonce: String,
    signature: [u8; DIGEST_BYTES],
}

/// The reason why a URL has no usable signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum QueryError {
    /// A parameter is missing, or `msg_signature` is not a SHA-1 digest in lower-case hexadecimal.
    Unsigned,
    /// A parameter occurs twice. The sender and a proxy in between may have read different ones.
    Repeated,
}

impl PushQuery {
    /// Reads the parameters `timestamp`, `nonce` and `msg_signature` in any order. Ignores
    /// `signature`, which does not cover the body, and all others.
    ///
    /// # Errors
    /// Returns why the URL has no usable signature.
    pub(crate) fn parse(uri: &Uri) -> Result<Self, QueryError> {
        let (mut timestamp, mut nonce, mut signature) = (None, None, None);
        for pair in uri.query().unwrap_or_default().split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let parameter = match &*percent_decode_str(name).decode_utf8_lossy() {
                "timestamp" => &mut timestamp,
                "nonce" => &mut nonce,
                "msg_signature" => &mut signature,
                _ => continue,
            };
            let value = percent_decode_str(value).decode_utf8_lossy().into_owned();
            if parameter.replace(value).is_some() {
                return Err(QueryError::Repeated);
            }
        }
        let signature = signature.as_deref().and_then(parse_digest);
        Ok(Self {
            timestamp: timestamp.ok_or(QueryError::Unsigned)?,
            nonce: nonce.ok_or(QueryError::Unsigned)?,
            signature: signature.ok_or(QueryError::Unsigned)?,
        })
    }

    /// Returns the first token whose signature the URL has, or `None`.
    ///
    /// Computes and compares the signatures of all tokens, each comparison in constant time. The
    /// duration therefore shows neither a part of the right signature nor which token was right.
    pub(crate) fn signing_token<'a>(
        &self,
        tokens: &'a [PushToken],
        encrypt: &str,
    ) -> Option<&'a PushToken> {
        tokens.iter().fold(None, |found, token| {
            let digest = token.digest(&self.timestamp, &self.nonce, encrypt);
            let is_right = bool::from(digest.ct_eq(&self.signature));
            found.or(is_right.then_some(token))
        })
    }

    /// Returns the time of the push in seconds since the Unix epoch, or `None` if the text is not a
    /// number.
    pub(crate) fn timestamp_seconds(&self) -> Option<i64> {
        self.timestamp.parse().ok()
    }
}

/// Reads a SHA-1 digest in lower-case hexadecimal.
fn parse_digest(text: &str) -> Option<[u8; DIGEST_BYTES]> {
    let (digits, rest) = text.as_bytes().as_chunks::<2>();
    let digits: &[[u8; 2]; DIGEST_BYTES] = digits.try_into().ok()?;
    if !rest.is_empty() {
        return None;
    }
    let mut digest = [0; DIGEST_BYTES];
    for (byte, [high, low]) in digest.iter_mut().zip(digits) {
        *byte = (hex_value(*high)? << 4) | hex_value(*low)?;
    }
    Some(digest)
}

fn hex_value(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}
