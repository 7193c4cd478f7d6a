//! Keys that sign cookies, and the derivation of a separate key for each purpose.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::credential::KeyList;
use crate::error::Error;

/// Minimum length of a key: 64 bytes, the block size of HMAC-SHA256.
const MIN_KEY_BYTES: usize = 64;

/// Form of the keys that an application sets, with a hint for errors.
const KEY_LIST: KeyList = KeyList {
    name: "cookie key",
    min_bytes: MIN_KEY_BYTES,
    hint: r"`openssl rand -base64 64 | tr -d '\n'` makes one",
};

type HmacSha256 = Hmac<Sha256>;

/// Keys that sign cookies: the first key signs, and all keys verify.
///
/// To change the key without ending sessions, release `OLD,NEW` first, so that all processes verify
/// the new key. Then release `NEW,OLD`, and remove the old key when its sessions have been issued
/// again or have ended.
///
/// ```
/// use tower_wechat::CookieKeys;
///
/// # fn run() -> Result<(), Box<dyn std::error::Error>> {
/// // COOKIE_KEY=NEW,OLD; a random key is enough for development.
/// let keys = match std::env::var("COOKIE_KEY") {
///     Ok(text) => CookieKeys::from_base64(&text)?,
///     Err(_) => CookieKeys::random()?,
/// };
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct CookieKeys(Vec<Zeroizing<Vec<u8>>>);

impl CookieKeys {
    /// Returns `true` if `other` has the same keys in the same order. Compares in constant time.
    pub(crate) fn has_same_keys(&self, other: &Self) -> bool {
        let mut pairs = self.0.iter().zip(&other.0);
        self.0.len() == other.0.len() && pairs.all(|(own, other)| own.ct_eq(other).into())
    }

    /// Reads keys of at least 64 bytes each, base64-encoded and separated by commas.
    ///
    /// `openssl rand -base64 64 | tr -d '\n'` creates one. Blanks and line breaks, which `openssl`
    /// inserts into a key of that length, are ignored.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`](crate::ErrorKind::Configuration): a key is not base64, is too
    /// short, or is missing.
    ///
    /// ```
    /// use tower_wechat::CookieKeys;
    ///
    /// let error = CookieKeys::from_base64("c2hvcnQ=").unwrap_err();
    /// assert!(error.to_string().starts_with("cookie key 1 has 5 bytes; it needs at least 64"));
    /// ```
    pub fn from_base64(text: &str) -> Result<Self, Error> {
        KEY_LIST.parse(text).map(Self)
    }

    /// Creates a random key, for development: sessions end when the process ends.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`](crate::ErrorKind::Configuration): the system returns no random
    /// bytes.
    pub fn random() -> Result<Self, Error> {
        let mut key = Zeroizing::new(vec![0; MIN_KEY_BYTES]);
        getrandom::fill(&mut key)
            .map_err(|_| Error::configuration("the system gives no random bytes for a key"))?;
        Ok(Self(vec![key]))
    }

    /// Derives the keys of one purpose, one from each key of the application. A value that was
    /// signed for one purpose is not valid for another.
    pub(crate) fn derive_macs(&self, purpose: &[&str]) -> Vec<KeyedMac> {
        self.0
            .iter()
            .map(|key| KeyedMac::new(key, purpose))
            .collect()
    }
}

impl fmt::Debug for CookieKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CookieKeys({} keys)", self.0.len())
    }
}

/// HMAC-SHA256 with the key of one purpose. The key is hashed in advance. A message of up to 55
/// bytes therefore costs two blocks, however long the name of the purpose is.
#[derive(Clone)]
pub(crate) struct KeyedMac(HmacSha256);

impl KeyedMac {
    /// Derives the key of a purpose: the MAC of the purpose with the application's key.
    fn new(key: &[u8], purpose: &[&str]) -> Self {
        let mut derived = hmac_with_key(key);
        for part in purpose {
            // The length comes first, so that two different lists of parts never give the same
            // bytes.
            derived.update(&(part.len() as u64).to_be_bytes());
            derived.update(part.as_bytes());
        }
        let derived: Zeroizing<[u8; 32]> = Zeroizing::new(derived.finalize().into_bytes().into());
        Self(hmac_with_key(&*derived))
    }

    /// Returns the MAC of a message.
    pub(crate) fn sign(&self, message: &[u8]) -> [u8; 32] {
        let mut mac = self.0.clone();
        mac.update(message);
        mac.finalize().into_bytes().into()
    }

    /// Returns `true` if `tag` is the MAC of the message. Compares in constant time.
    pub(crate) fn verifies(&self, message: &[u8], tag: &[u8]) -> bool {
        let mut mac = self.0.clone();
        mac.update(message);
        mac.verify_slice(tag).is_ok()
    }
}

/// Returns an HMAC-SHA256 with this key, which is ready for a message.
fn hmac_with_key(key: &[u8]) -> HmacSha256 {
    // HMAC accepts keys of any length, so the constructor never fails.
    <HmacSha256 as KeyInit>::new_from_slice(key)
        .unwrap_or_else(|_| <HmacSha256 as KeyInit>::new(&Default::default()))
}

#[cfg(test)]
impl CookieKeys {
    /// Returns keys for tests: one for each of `bytes`, which consists of that byte 64 times.
    pub(crate) fn for_tests(bytes: &[u8]) -> Self {
        let key = |byte: &u8| Zeroizing::new(vec![*byte; MIN_KEY_BYTES]);
        Self(bytes.iter().map(key).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    /// Returns the HMAC-SHA256 of a message, computed step by step as RFC 2104 defines it.
    fn hmac(key: &[u8], message: &[u8]) -> [u8; 32] {
        use sha2::Digest;
        let mut block = [0; 64];
        block[..key.len()].copy_from_slice(key);
        let padded = |with: u8| block.map(|byte| byte ^ with);
        let inner = Sha256::digest([&padded(0x36), message].concat());
        Sha256::digest([&padded(0x5c)[..], &inner].concat()).into()
    }

    fn mac(purpose: &[&str]) -> KeyedMac {
        KeyedMac::new(&[7; MIN_KEY_BYTES], purpose)
    }

    #[test]
    fn keys_may_contain_line_breaks() {
        let key = STANDARD.encode([7; MIN_KEY_BYTES]);
        let (first, second) = key.split_at(64);
        let tag = |text: &str| {
            let keys = CookieKeys::from_base64(text).unwrap().derive_macs(&["p"]);
            let tags: Vec<_> = keys.iter().map(|key| key.sign(b"message")).collect();
            tags
        };
        for wrapped in [
            format!("{first}\n{second}\n"),
            format!(" {first}\r\n{second}"),
            format!("{first} {second}\t"),
        ] {
            assert_eq!(tag(&wrapped), tag(&key), "{wrapped:?}");
        }
        assert_eq!(tag(&format!("{first}\n{second},\n{key}\n")).len(), 2);
        assert!(CookieKeys::from_base64(&format!("{first}-\n{second}")).is_err());
    }

    #[test]
    fn each_purpose_derives_its_own_key() {
        let purpose = b"\0\0\0\0\0\0\0\x01p\0\0\0\0\0\0\0\x03wx1";
        let derived = hmac(&[7; MIN_KEY_BYTES], purpose);
        let tag = mac(&["p", "wx1"]).sign(b"message");
        assert_eq!(tag, hmac(&derived, b"message"));
    }

    #[test]
    fn purposes_and_messages_cannot_be_confused() {
        let tag = mac(&["p", "wx1"]).sign(b"message");
        assert!(mac(&["p", "wx1"]).verifies(b"message", &tag));
        for (purpose, message) in [
            (&["pw", "x1"][..], &b"message"[..]),
            (&["pwx1"], b"message"),
            (&["p", "wx1", ""], b"message"),
            (&["p"], b"wx1message"),
            (&["p"], b"\0\0\0\0\0\0\0\x03wx1message"),
            (&["p", "wx1m"], b"essage"),
        ] {
            assert!(!mac(purpose).verifies(message, &tag), "{purpose:?}");
        }
    }
}
