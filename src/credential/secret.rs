//! Secret texts, which `Debug` does not print and whose memory is overwritten on drop.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

use crate::bytes::encode_hex;
use crate::error::Error;

macro_rules! secret {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        ///
        /// Only `expose` returns the text. `Debug` prints a placeholder, and comparison takes the
        /// same time wherever two texts differ. Dropping the secret overwrites its memory with
        /// zeros.
        #[derive(Clone)]
        pub struct $name(Box<str>);

        impl $name {
            /// Creates the secret from its text.
            pub fn new(text: impl Into<String>) -> Self {
                Self(text.into().into_boxed_str())
            }

            /// Returns the text of the secret. Keep the text out of logs, errors and metrics.
            pub fn expose(&self) -> &str {
                &self.0
            }

            /// Returns the first 16 hexadecimal digits of the text's SHA-256. The digits
            /// distinguish two secrets in a log or a support case, and the secret cannot be
            /// computed from them.
            pub fn fingerprint(&self) -> String {
                fingerprint(&self.0)
            }
        }

        impl PartialEq for $name {
            fn eq(&self, other: &Self) -> bool {
                self.0.as_bytes().ct_eq(other.0.as_bytes()).into()
            }
        }

        impl Eq for $name {}

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.into())
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self::new(text)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(***)"))
            }
        }

        impl Drop for $name {
            fn drop(&mut self) {
                self.0.zeroize();
            }
        }
    };
}

secret! {
    /// A refresh token of a user, for which WeChat issues new access tokens of this user.
    RefreshToken
}

secret! {
    /// The AppSecret of an account, with which this crate authenticates itself to WeChat.
    AppSecret
}

secret! {
    /// The secret with which a client of a token center authenticates itself:
    /// `Authorization: Bearer SECRET`.
    BearerSecret
}

impl AppSecret {
    /// Checks that the secret is not empty and has visible ASCII characters only.
    ///
    /// # Errors
    /// Returns a sentence that says what is wrong with the secret.
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        if self.0.is_empty() {
            return Err(
                "the AppSecret is empty: set the one that mp.weixin.qq.com shows for the account",
            );
        }
        // A secret from a file may end with a newline. WeChat rejects such a secret, and its errmsg
        // does not mention the newline.
        if !self.0.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(
                "the AppSecret holds white space or characters that none has: set it without them",
            );
        }
        Ok(())
    }
}

impl BearerSecret {
    /// Checks that the secret is not empty, and that a header can carry it.
    ///
    /// # Errors
    /// Returns a sentence that says what is wrong with the secret.
    pub(crate) fn check_header_value(&self) -> Result<(), &'static str> {
        if self.0.is_empty() {
            return Err("the bearer secret of the token center is empty: set a long random one");
        }
        if !self.0.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(
                "the bearer secret of the token center holds white space or characters that \
                 cannot stand in a header: set visible ASCII only",
            );
        }
        Ok(())
    }
}

/// A parser for a list of keys, with the name and the minimum length of the keys for error texts.
pub(crate) struct KeyList {
    /// Name of one key in error texts, such as `cookie key`.
    pub(crate) name: &'static str,
    /// Minimum length of a decoded key, in bytes.
    pub(crate) min_bytes: usize,
    /// A sentence with the command that creates a key, which ends each error text.
    pub(crate) hint: &'static str,
}

impl KeyList {
    /// Parses keys in base64 that are separated by commas. Returns at least one key, or an error.
    pub(crate) fn parse(&self, text: &str) -> Result<Vec<Zeroizing<Vec<u8>>>, Error> {
        let keys = text.split(',').map(str::trim).zip(1..);
        keys.map(|(key, number)| self.parse_key(key, number))
            .collect()
    }

    fn parse_key(&self, text: &str, number: usize) -> Result<Zeroizing<Vec<u8>>, Error> {
        let Self {
            name,
            min_bytes,
            hint,
        } = self;
        let wrong = |why: String| Error::configuration(format!("{name} {number} {why}"));
        let key = decode_base64_key(text).ok_or_else(|| wrong(format!("is not base64; {hint}")))?;
        if key.len() < *min_bytes {
            let length = key.len();
            return Err(wrong(format!(
                "has {length} bytes; it needs at least {min_bytes}: {hint}"
            )));
        }
        Ok(key)
    }
}

/// Decodes a key in base64. ASCII white space is skipped, because `openssl` wraps long output after
/// 64 characters, and files end with a newline.
fn decode_base64_key(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    let letters = text.bytes().filter(|byte| !byte.is_ascii_whitespace());
    // The vector is allocated once. If the vector grew, copies of the key would remain in freed
    // memory.
    let mut key = Zeroizing::new(Vec::with_capacity(text.len()));
    key.extend(letters);
    STANDARD.decode(&*key).map(Zeroizing::new).ok()
}

/// Returns the first 16 hexadecimal digits of a text's SHA-256.
pub(super) fn fingerprint(text: &str) -> String {
    encode_hex(Sha256::digest(text.as_bytes()).iter().take(8))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_hides_the_secret() {
        let shown = format!(
            "{:?} {:#?}",
            RefreshToken::from("tok-1"),
            AppSecret::from("sec-1")
        );
        assert!(!shown.contains("tok") && !shown.contains("sec-"), "{shown}");
    }

    #[test]
    fn spaces_around_a_key_of_a_list_are_ignored() {
        let list = KeyList {
            name: "test key",
            min_bytes: 5,
            hint: "",
        };
        // With a Chinese keyboard, the space after a comma is U+3000.
        let keys = list.parse(" c2hvcnQ= ,\u{3000}c2hv\ncnQ=\u{a0}").unwrap();
        assert_eq!(keys.len(), 2);
        assert!(keys.iter().all(|key| key.as_slice() == b"short"));
    }
}
