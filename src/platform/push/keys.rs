//! The tokens and keys of a platform's pushes, with room for the previous ones.

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;

use super::cipher::{ENCODING_KEY_CHARACTERS, PushCipher};
use super::signature::PushToken;
use crate::error::Error;

/// Number of characters of a token: 3 to 32, as WeChat's console demands.
const TOKEN_CHARACTERS: RangeInclusive<usize> = 3..=32;

/// The tokens (消息校验Token) and keys (消息加解密Key, EncodingAESKey) of a platform's pushes, as
/// open.weixin.qq.com shows them. Dropping the last clone overwrites them in memory.
///
/// Pushes that any token has signed and any key has encrypted are accepted. To change one, put the
/// new one first and keep the previous one:
///
/// 1. Release `[NEW, OLD]` to all processes.
/// 2. Save the new one at open.weixin.qq.com.
/// 3. Remove the old one after a day, when no push with it arrives any more.
///
/// A reply to a user's message is encrypted with the key of that message.
///
/// ```
/// use tower_wechat::platform::PushKeys;
///
/// # fn main() -> Result<(), tower_wechat::Error> {
/// let key = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG";
/// let keys = PushKeys::new(["the token"], [key]);
/// assert!(keys.unwrap_err().to_string().starts_with("push token 1 contains a character"));
///
/// let keys = PushKeys::new(["current-token", "previous-token"], [key])?;
/// assert_eq!(format!("{keys:?}"), "PushKeys(2 tokens, 1 key)");
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct PushKeys(Arc<Inner>);

struct Inner {
    tokens: Vec<PushToken>,
    ciphers: Vec<PushCipher>,
}

impl PushKeys {
    /// Creates the lists of accepted tokens and keys, the current ones first.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`](crate::ErrorKind::Configuration): a list is empty, a token does
    /// not consist of 3 to 32 letters and digits (`-` and `_` are taken too), or a key does not
    /// consist of 43 letters and digits. The text never contains the token or the key.
    pub fn new<T: AsRef<str>, K: AsRef<str>>(
        tokens: impl IntoIterator<Item = T>,
        keys: impl IntoIterator<Item = K>,
    ) -> Result<Self, Error> {
        let tokens: Vec<_> = tokens
            .into_iter()
            .zip(1..)
            .map(|(token, number)| read_token(token.as_ref(), number))
            .collect::<Result<_, _>>()?;
        let ciphers: Vec<_> = keys
            .into_iter()
            .zip(1..)
            .map(|(key, number)| read_key(key.as_ref(), number))
            .collect::<Result<_, _>>()?;
        if tokens.is_empty() || ciphers.is_empty() {
            return Err(Error::configuration(
                "the pushes of a platform need at least one token (消息校验Token) and one key \
                 (消息加解密Key): set those that open.weixin.qq.com shows for the platform",
            ));
        }
        Ok(Self(Arc::new(Inner { tokens, ciphers })))
    }

    pub(super) fn tokens(&self) -> &[PushToken] {
        &self.0.tokens
    }

    pub(super) fn ciphers(&self) -> &[PushCipher] {
        &self.0.ciphers
    }
}

fn read_token(text: &str, number: usize) -> Result<PushToken, Error> {
    let problem = if is_token(text) {
        return Ok(PushToken::new(text));
    } else if text.is_empty() {
        "is empty".to_owned()
    } else if PushCipher::from_encoding_key(text).is_some() {
        "looks like a 消息加解密Key, and the token and the key are perhaps swapped".to_owned()
    } else if !text.bytes().all(is_token_byte) {
        "contains a character that no token has".to_owned()
    } else {
        let length = text.len();
        format!(
            "has {length} characters, and WeChat takes {} to {}",
            TOKEN_CHARACTERS.start(),
            TOKEN_CHARACTERS.end()
        )
    };
    Err(Error::configuration(format!(
        "push token {number} {problem}: set the 消息校验Token that open.weixin.qq.com shows for \
         the platform"
    )))
}

fn read_key(text: &str, number: usize) -> Result<PushCipher, Error> {
    let length = text.chars().count();
    let problem = if is_token(text) {
        format!(
            "has {length} characters like a 消息校验Token, and an EncodingAESKey has \
             {ENCODING_KEY_CHARACTERS}; the token and the key are perhaps swapped"
        )
    } else if length != ENCODING_KEY_CHARACTERS {
        format!("has {length} characters, and an EncodingAESKey has {ENCODING_KEY_CHARACTERS}")
    } else if let Some(cipher) = PushCipher::from_encoding_key(text) {
        return Ok(cipher);
    } else {
        "contains characters that no EncodingAESKey has".to_owned()
    };
    Err(Error::configuration(format!(
        "push key {number} {problem}: set the 消息加解密Key that open.weixin.qq.com shows for the \
         platform, without blanks and without `=`"
    )))
}

/// Returns `true` if the console could have taken this token. A shorter one could be guessed, and
/// pushes could be forged.
fn is_token(text: &str) -> bool {
    TOKEN_CHARACTERS.contains(&text.len()) && text.bytes().all(is_token_byte)
}

/// Returns `true` for letters and digits, of which WeChat's rule for tokens speaks, and for `-` and
/// `_`, which occur in tokens of test environments.
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_".contains(&byte)
}

impl fmt::Debug for PushKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counted = |number: usize, one: &str| match number {
            1 => format!("1 {one}"),
            _ => format!("{number} {one}s"),
        };
        let tokens = counted(self.0.tokens.len(), "token");
        let keys = counted(self.0.ciphers.len(), "key");
        write!(f, "PushKeys({tokens}, {keys})")
    }
}
