//! The access token that handlers receive, and the bytes that the cache packs behind it.
//!
//! A process may cache a million users. One allocation for all the facts about a user takes half
//! the memory of one allocation for each fact, and a request waits for one cache miss
//! instead of for four.

use std::fmt;
use std::sync::Arc;

use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

use super::secret::fingerprint;

/// Bytes of the length prefix, which says where the token ends.
const LENGTH_BYTES: usize = size_of::<u32>();

/// The longest accepted token, in bytes. WeChat asks for room for 512 characters.
const MAX_TOKEN_BYTES: usize = 2_048;

/// An access token of a user or of the account, or a `jsapi_ticket`. Cheap to clone.
///
/// Only `expose` returns the text. `Debug` prints a placeholder, and comparison takes the same
/// time wherever two texts differ. Dropping the last clone overwrites the memory with zeros, unless
/// two threads drop the last two clones at the same moment.
///
/// ```
/// use tower_wechat::AccessToken;
///
/// let token = AccessToken::new("83_secret");
/// assert_eq!(token.expose(), "83_secret");
/// // For logs:
/// assert_eq!(format!("{token:?}"), "AccessToken(***)");
/// assert_eq!(token.fingerprint(), "6071158eae8aa830");
/// ```
#[derive(Clone)]
pub struct AccessToken(
    /// The token's length as a little-endian `u32`, the token, and the companion bytes.
    Arc<[u8]>,
);

impl AccessToken {
    /// Wraps the text of a secret.
    pub fn new(text: impl Into<String>) -> Self {
        let text = Zeroizing::new(text.into());
        Self::beside(&text, &[])
    }

    /// Creates a token with a copy of `parts` behind it, the companion, in one allocation.
    pub(crate) fn beside(text: &str, parts: &[&[u8]]) -> Self {
        // A text of 4 GiB or more would be cut. `is_valid_token` admits 2 KiB.
        let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
        let behind: usize = parts.iter().map(|part| part.len()).sum();
        let mut memory: Arc<[u8]> =
            std::iter::repeat_n(0, LENGTH_BYTES + text.len() + behind).collect();
        // Always succeeds: this is the only clone.
        if let Some(mut free) = Arc::get_mut(&mut memory) {
            let first: [&[u8]; 2] = [&length.to_le_bytes(), text.as_bytes()];
            for part in first.iter().chain(parts).filter(|part| !part.is_empty()) {
                let (here, rest) = free.split_at_mut(part.len());
                here.copy_from_slice(part);
                free = rest;
            }
        }
        Self(memory)
    }

    /// Returns the bytes behind the token.
    #[inline]
    pub(crate) fn companion(&self) -> &[u8] {
        self.token_and_companion().1
    }

    /// Returns the text. Keep it out of logs, errors and metrics.
    pub fn expose(&self) -> &str {
        // Always valid: every constructor takes a `str`.
        std::str::from_utf8(self.token_and_companion().0).unwrap_or_default()
    }

    /// Returns the first 16 hexadecimal digits of the text's SHA-256. In a log or a support case
    /// they distinguish two secrets, and the secret cannot be computed from them.
    pub fn fingerprint(&self) -> String {
        fingerprint(self.expose())
    }

    #[inline]
    fn token_and_companion(&self) -> (&[u8], &[u8]) {
        let (length, rest) = self
            .0
            .split_first_chunk()
            .unwrap_or((&[0; LENGTH_BYTES], &[]));
        let length = u32::from_le_bytes(*length) as usize;
        rest.split_at_checked(length).unwrap_or((rest, &[]))
    }
}

/// Returns `true` if a text may be a token, whether it comes from WeChat, Redis or another service.
///
/// A token has 1 to 2,048 visible ASCII characters and no `#`. So it survives the stored form
/// `TOKEN#TIME`, which is split at `#`, and a query string. No token of WeChat's has other ones.
pub(crate) fn is_valid_token(text: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_graphic() && byte != b'#';
    (1..=MAX_TOKEN_BYTES).contains(&text.len()) && text.bytes().all(is_allowed)
}

impl PartialEq for AccessToken {
    fn eq(&self, other: &Self) -> bool {
        self.token_and_companion()
            .0
            .ct_eq(other.token_and_companion().0)
            .into()
    }
}

impl Eq for AccessToken {}

impl From<&str> for AccessToken {
    fn from(text: &str) -> Self {
        Self::beside(text, &[])
    }
}

impl From<String> for AccessToken {
    fn from(text: String) -> Self {
        Self::new(text)
    }
}

impl fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AccessToken(***)")
    }
}

impl Drop for AccessToken {
    #[inline]
    fn drop(&mut self) {
        // Only the last clone may overwrite the memory. The plain count is a cheap first test,
        // because most clones are not the last; `get_mut` then checks it with the ordering that
        // makes the other clones' reads happen before the write. If two threads drop the last two
        // clones at the same moment, both may see a count of two: then nothing is overwritten.
        if Arc::strong_count(&self.0) == 1
            && let Some(memory) = Arc::get_mut(&mut self.0)
        {
            memory.zeroize();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn equality_ignores_the_companion_bytes() {
        let alone = AccessToken::from("tok");
        let held = AccessToken::beside("tok", &[b"with", b" more"]);
        assert_eq!(alone, held);
        assert_eq!(held.companion(), b"with more");
        assert_ne!(alone, AccessToken::beside("to", &[b"k"]));
        assert_ne!(alone, AccessToken::from(""));
    }

    #[test]
    fn the_fingerprint_is_a_prefix_of_sha256() {
        assert_eq!(AccessToken::from("abc").fingerprint(), "ba7816bf8f01cfea");
    }

    proptest! {
        #[test]
        fn every_token_round_trips(text: String, beside: Vec<u8>) {
            let token = AccessToken::beside(&text, &[&beside]);
            prop_assert_eq!(token.expose(), text.as_str());
            prop_assert_eq!(token.companion(), beside.as_slice());
            prop_assert_eq!(AccessToken::new(text.clone()), token);
        }
    }
}
