//! The token that requests carry, and in the same piece of memory what is held beside it.
//!
//! A process holds a million of them: one allocation for all that is known of a user is half the
//! memory of one for each part, and one wait for memory instead of four when a request comes.

use std::fmt;
use std::hash::{DefaultHasher, Hasher};
use std::sync::Arc;

use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

use super::secret::fingerprint;

/// The bytes that say where the token ends.
const LENGTH_BYTES: usize = size_of::<u32>();

/// An access token: the user's, the account's, or (in the same role) a `jsapi_ticket`. Cheap to
/// clone.
///
/// Its text shows only through `expose`; `Debug` prints a placeholder, comparison takes the same
/// time wherever two texts differ, and the memory is wiped when the last clone goes.
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
    /// The token's length, the token, and what is held beside it.
    Arc<[u8]>,
);

impl AccessToken {
    /// Wraps the text of a secret.
    pub fn new(text: impl Into<String>) -> Self {
        let text = Zeroizing::new(text.into());
        Self::beside(&text, &[])
    }

    /// The token with a copy of `parts` behind it, all in one allocation.
    pub(crate) fn beside(text: &str, parts: &[&[u8]]) -> Self {
        // No text is as long as four gigabytes; one that were would lose its end.
        let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
        let behind: usize = parts.iter().map(|part| part.len()).sum();
        let mut memory: Arc<[u8]> =
            std::iter::repeat_n(0, LENGTH_BYTES + text.len() + behind).collect();
        // Nobody else has it yet.
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

    /// What lies behind the token.
    #[inline]
    pub(crate) fn companion(&self) -> &[u8] {
        self.token_and_companion().1
    }

    /// The text itself. Keep it out of logs, errors and metrics.
    pub fn expose(&self) -> &str {
        // It was text when it was put there.
        std::str::from_utf8(self.token_and_companion().0).unwrap_or_default()
    }

    /// The first 16 hexadecimal digits of the text's SHA-256: enough to tell two secrets apart in
    /// a log or a support case, useless for anything else.
    pub fn fingerprint(&self) -> String {
        fingerprint(self.expose())
    }

    /// A number that is the same for this token in every process, and tells nothing of it.
    pub(crate) fn jitter_seed(text: &str) -> u64 {
        // Without a key of its own, unlike a map's; who could choose tokens is WeChat.
        let mut hasher = DefaultHasher::new();
        hasher.write(text.as_bytes());
        hasher.finish()
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
        // Two clones that go at the very same moment may each take the other for the last: then
        // the memory is given back as it is.
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
