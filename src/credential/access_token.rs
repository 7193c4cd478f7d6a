//! [`AccessToken`], through which handlers receive an access token or a `jsapi_ticket`.

use std::fmt;

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::secret::fingerprint;
use super::secret_bytes::SecretBytes;

/// Number of bytes of the length prefix: the size of the `u32` that holds the length of the token's
/// text.
const LENGTH_BYTES: usize = size_of::<u32>();

/// Maximum number of bytes of a token: four times the 512 characters for which WeChat's
/// documentation recommends storage.
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
    /// The length of the text as a little-endian `u32`, then the text. If the memory belongs to a
    /// cache entry, more bytes follow, which the token ignores.
    SecretBytes,
);

impl AccessToken {
    /// Creates a token from its text. The memory of a `String` that is passed is overwritten with
    /// zeros.
    pub fn new(text: impl Into<String>) -> Self {
        let text = Zeroizing::new(text.into());
        Self::from(text.as_str())
    }

    /// Returns a handle to the token at the start of shared memory: its
    /// [`length_prefix`](Self::length_prefix) and its text. The handle shares all of the memory,
    /// and uses none of the bytes after the text.
    #[inline]
    pub(crate) fn at_start_of(memory: SecretBytes) -> Self {
        Self(memory)
    }

    /// Returns the bytes that precede `text` in the memory of a token: its length as a
    /// little-endian `u32`.
    #[inline]
    pub(crate) fn length_prefix(text: &str) -> [u8; LENGTH_BYTES] {
        // The length of a text of 4 GiB or more does not fit into a `u32`. `is_valid_token` rejects
        // every text above 2 KiB.
        u32::try_from(text.len()).unwrap_or(u32::MAX).to_le_bytes()
    }

    /// Splits the memory of the token into its text and the bytes after it.
    #[inline]
    pub(crate) fn split_memory(&self) -> (&[u8], &[u8]) {
        let (length, rest) = self
            .0
            .split_first_chunk()
            .unwrap_or((&[0; LENGTH_BYTES], &[]));
        let length = u32::from_le_bytes(*length) as usize;
        rest.split_at_checked(length).unwrap_or((rest, &[]))
    }

    /// Returns the text of the token, which is secret. Keep the text out of logs, errors and
    /// metrics.
    pub fn expose(&self) -> &str {
        // The bytes are always valid UTF-8, because each token was created from a `str`.
        std::str::from_utf8(self.split_memory().0).unwrap_or_default()
    }

    /// Returns the first 16 hexadecimal digits of the text's SHA-256. The digits distinguish two
    /// secrets in a log or a support case, and the secret cannot be computed from them.
    pub fn fingerprint(&self) -> String {
        fingerprint(self.expose())
    }
}

/// Returns `true` if a text may be a token, whether it comes from WeChat, Redis or another service.
///
/// A token has 1 to 2,048 visible ASCII characters and no `#`. Such a text survives the stored form
/// `TOKEN#TIME`, which is split at `#`.
pub(crate) fn is_valid_token(text: &str) -> bool {
    // Without a branch for each byte, the compiler checks many bytes at once. Every read of a store
    // checks its tokens.
    let is_allowed = |byte: u8| byte.is_ascii_graphic() & (byte != b'#');
    let all_allowed = || text.bytes().fold(true, |all, byte| all & is_allowed(byte));
    (1..=MAX_TOKEN_BYTES).contains(&text.len()) && all_allowed()
}

impl PartialEq for AccessToken {
    fn eq(&self, other: &Self) -> bool {
        self.split_memory().0.ct_eq(other.split_memory().0).into()
    }
}

impl Eq for AccessToken {}

impl From<&str> for AccessToken {
    fn from(text: &str) -> Self {
        let parts: [&[u8]; 2] = [&Self::length_prefix(text), text.as_bytes()];
        Self(SecretBytes::concat(&parts))
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn in_memory_with(text: &str, after: &[u8]) -> AccessToken {
        let parts: [&[u8]; 3] = [&AccessToken::length_prefix(text), text.as_bytes(), after];
        AccessToken::at_start_of(SecretBytes::concat(&parts))
    }

    #[test]
    fn equality_ignores_the_bytes_after_the_text() {
        let alone = AccessToken::from("tok");
        assert_eq!(alone, in_memory_with("tok", b"more"));
        assert_ne!(alone, in_memory_with("to", b"k"));
        assert_ne!(alone, AccessToken::from(""));
    }

    #[test]
    fn the_fingerprint_is_a_prefix_of_sha256() {
        assert_eq!(AccessToken::from("abc").fingerprint(), "ba7816bf8f01cfea");
    }

    proptest! {
        #[test]
        fn every_token_round_trips(text: String, after: Vec<u8>) {
            let token = in_memory_with(&text, &after);
            prop_assert_eq!(token.expose(), text.as_str());
            prop_assert_eq!(token.split_memory().1, after.as_slice());
            prop_assert_eq!(AccessToken::new(text.clone()), token);
        }
    }
}
