//! Encryption of stored values (sealing).
//!
//! A value is encrypted with AES-256-GCM and a random nonce of 96 bits. The account, the kind of
//! credential, the user and the Redis key are authenticated together with the value. A value that
//! is copied to another user or to another key cannot be decrypted.

use std::fmt;
use std::sync::Arc;

use aes_gcm::Aes256Gcm;
use aes_gcm::aead::{Aead, Payload};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::credential::KeyList;
use crate::error::Error;
use crate::store::redis::format::sealed::{self, SealBinding, SealingKeyId};

const KEY_LIST: KeyList = KeyList {
    name: "sealing key",
    min_bytes: 32,
    hint: "`openssl rand -base64 32` makes one",
};

/// Length of a nonce, in bytes. Random nonces are safe for 2^32 values under one key. A large
/// service should therefore change the key every year.
const NONCE_BYTES: usize = 12;

type HmacSha256 = Hmac<Sha256>;

/// The mode in which sealing keys are used: which values are read and which are written.
///
/// ```
/// use tower_wechat::redis::{SealingKeys, SealingMode};
///
/// # fn run(text: &str) -> Result<(), tower_wechat::Error> {
/// // The first step: able to read what is sealed, and still writing plain values.
/// let keys = SealingKeys::from_base64(text)?.mode(SealingMode::Open);
/// // As a setting writes it:
/// assert_eq!("require".parse::<SealingMode>()?, SealingMode::Require);
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum SealingMode {
    /// Reads sealed and plain values, and writes plain values. This is the first step of
    /// introducing sealing, until all processes have the keys. It is also the first step of
    /// removing sealing.
    Open,
    /// Reads sealed and plain values, and writes sealed values.
    #[default]
    Seal,
    /// Reads and writes only sealed values; plain values count as missing. This is the last step,
    /// after all values are sealed. Before this step, a program that can write to Redis can replace
    /// a token by a plain one.
    Require,
}

impl std::str::FromStr for SealingMode {
    type Err = Error;

    /// Parses `open`, `seal` or `require`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "open" => Ok(Self::Open),
            "seal" => Ok(Self::Seal),
            "require" => Ok(Self::Require),
            other => Err(Error::configuration(format!(
                "the sealing mode {other:?} is none of open, seal and require"
            ))),
        }
    }
}

/// The keys that encrypt values in Redis. The first key encrypts; all keys decrypt.
///
/// Requires the feature `sealing`. The feature is off by default, because a Spring Boot service
/// that shares the Redis cannot read sealed values. Such a service asks its users to log in.
///
/// # Introducing sealing
///
/// 1. Start all processes with the key and [`SealingMode::Open`], one after another. They still
///    write plain values, and can read sealed ones.
/// 2. Remove the mode, again from one process after another. Each login and each renewal now writes
///    a sealed value. Plain values stay readable.
/// 3. Run `tower-wechat reseal` (feature `cli`), which seals the remaining plain values.
/// 4. Set [`SealingMode::Require`], which rejects plain values.
///
/// # Changing the key
///
/// 1. Set `OLD,NEW` on all processes: both keys decrypt, and the old key encrypts.
/// 2. Set `NEW,OLD` on all processes: the new key encrypts.
/// 3. Run `tower-wechat reseal`, which also removes the old key from the registry.
/// 4. Set `NEW` on all processes.
///
/// Redis contains a registry of the ids of all keys in use (`wechat:sealing`). A process that lacks
/// one of these keys fails to start, and its error names the missing key.
///
/// # Limits
///
/// User ids are keys and fields in Redis, and are not encrypted. A program that can write to Redis
/// can delete a value, or restore an older value of the same user. The outcomes of logins contain
/// no token and stay plain, and so does the token of another system.
///
/// ```
/// use tower_wechat::redis::{SealingKeys, SealingMode};
///
/// # let new = "x".repeat(32); let old = "y".repeat(32);
/// # use base64::{Engine, engine::general_purpose::STANDARD};
/// # let text = format!("{},{}", STANDARD.encode(new), STANDARD.encode(old));
/// // As `openssl rand -base64 32` makes them: NEW,OLD
/// let keys = SealingKeys::from_base64(&text)?.mode(SealingMode::Require);
/// assert_eq!(keys.ids().count(), 2);
/// # Ok::<(), tower_wechat::Error>(())
/// ```
#[derive(Clone)]
pub struct SealingKeys {
    keys: Arc<[SealingKey]>,
    mode: SealingMode,
}

struct SealingKey {
    id: SealingKeyId,
    /// The cipher with the encryption key. The cipher overwrites the key with zeros when it is
    /// dropped.
    cipher: Aes256Gcm,
}

/// The reason why a sealed value cannot be decrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OpenError {
    /// The value is sealed with a key that is not among the sealing keys of this process.
    UnknownKey,
    /// The value was changed or truncated, or sealed for another user or Redis key.
    Corrupt,
}

impl SealingKeys {
    /// Parses keys of at least 32 bytes each, in base64 and separated by commas. Ignores spaces and
    /// line breaks. `openssl rand -base64 32` creates a key.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`](crate::ErrorKind::Configuration) if a key is not base64, too
    /// short or repeated, or if there is no key.
    ///
    /// ```
    /// use tower_wechat::redis::SealingKeys;
    ///
    /// let error = SealingKeys::from_base64("c2hvcnQ=").unwrap_err();
    /// assert!(error.to_string().starts_with("sealing key 1 has 5 bytes; it needs at least 32"));
    /// ```
    pub fn from_base64(text: &str) -> Result<Self, Error> {
        let mut ring: Vec<SealingKey> = Vec::new();
        for (secret, number) in KEY_LIST.parse(text)?.iter().zip(1..) {
            let key = SealingKey::new(secret);
            if let Some(same) = ring.iter().position(|other| other.id == key.id) {
                return Err(Error::configuration(format!(
                    "sealing key {number} is sealing key {} again; remove one of them",
                    same + 1
                )));
            }
            ring.push(key);
        }
        Ok(Self {
            keys: ring.into(),
            mode: SealingMode::default(),
        })
    }

    /// Sets the use of the keys for reads and writes. Default: [`SealingMode::Seal`].
    #[must_use]
    pub fn mode(mut self, mode: SealingMode) -> Self {
        self.mode = mode;
        self
    }

    /// Returns the ids of the keys, in the order of the keys. An id is a short hash that does not
    /// reveal its key.
    pub fn ids(&self) -> impl Iterator<Item = String> {
        self.keys.iter().map(|key| key.id.to_string())
    }

    /// Returns the id of the key that encrypts. Returns `None` if new values are plain.
    pub(crate) fn active_key_id(&self) -> Option<SealingKeyId> {
        let seals = self.mode != SealingMode::Open;
        self.keys.first().filter(|_| seals).map(|key| key.id)
    }

    pub(crate) fn rejects_plain(&self) -> bool {
        self.mode == SealingMode::Require
    }

    pub(crate) fn has_key(&self, id: SealingKeyId) -> bool {
        self.keys.iter().any(|key| key.id == id)
    }

    /// Encrypts a text with the first key, and returns the sealed value.
    pub(crate) fn seal(&self, text: &str, binding: &SealBinding<'_>) -> Result<String, Error> {
        let mut nonce = [0; NONCE_BYTES];
        getrandom::fill(&mut nonce)
            .map_err(|_| Error::configuration("the system gives no random bytes for a seal"))?;
        let bound = binding.to_bytes();
        let payload = Payload {
            msg: text.as_bytes(),
            aad: &bound,
        };
        let sealed = self.keys.first().and_then(|key| {
            let sealed = key.cipher.encrypt(&nonce.into(), payload).ok()?;
            Some(sealed::write(key.id, &[&nonce[..], &sealed[..]].concat()))
        });
        sealed.ok_or_else(|| Error::configuration("there is no sealing key"))
    }

    /// Decrypts a body that [`sealed::split`] has returned, with the key of this id.
    pub(crate) fn open(
        &self,
        id: SealingKeyId,
        written: &[u8],
        binding: &SealBinding<'_>,
    ) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let key = self.keys.iter().find(|key| key.id == id);
        let key = key.ok_or(OpenError::UnknownKey)?;
        let body = sealed::decode_body(written).ok_or(OpenError::Corrupt)?;
        let (nonce, sealed) = body
            .split_first_chunk::<NONCE_BYTES>()
            .ok_or(OpenError::Corrupt)?;
        let bound = binding.to_bytes();
        let payload = Payload {
            msg: sealed,
            aad: &bound,
        };
        let opened = key.cipher.decrypt(&(*nonce).into(), payload);
        opened.map(Zeroizing::new).map_err(|_| OpenError::Corrupt)
    }
}

impl SealingKey {
    /// Derives the encryption key and the id from a secret. The derivation is specific to sealing,
    /// so the secret may also be in use for another purpose.
    fn new(secret: &[u8]) -> Self {
        let derive = |purpose: &[u8]| {
            let mut mac = <HmacSha256 as KeyInit>::new_from_slice(secret)
                .unwrap_or_else(|_| <HmacSha256 as KeyInit>::new(&Default::default()));
            mac.update(b"tower-wechat sealing 1 ");
            mac.update(purpose);
            Zeroizing::new(<[u8; 32]>::from(mac.finalize().into_bytes()))
        };
        Self {
            id: SealingKeyId::from_digest(&derive(b"id")),
            cipher: Aes256Gcm::new((&*derive(b"key")).into()),
        }
    }
}

impl fmt::Debug for SealingKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids: Vec<SealingKeyId> = self.keys.iter().map(|key| key.id).collect();
        f.debug_struct("SealingKeys")
            .field("ids", &ids)
            .field("mode", &self.mode)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use proptest::prelude::*;

    fn encoded_key(byte: u8) -> String {
        STANDARD.encode([byte; 32])
    }

    fn keys(text: &str) -> SealingKeys {
        SealingKeys::from_base64(text).unwrap()
    }

    const HERE: SealBinding<'static> = SealBinding {
        app: "wx1",
        kind: "user",
        user: "oA",
        key: "user.wxUserAccessToken",
    };

    fn open(keys: &SealingKeys, value: &[u8], at: &SealBinding<'_>) -> Result<Vec<u8>, OpenError> {
        let (id, body) = sealed::split(value).ok_or(OpenError::Corrupt)?;
        keys.open(id, body, at).map(|text| text.to_vec())
    }

    #[test]
    fn key_errors_are_one_sentence() {
        let error = |text: &str| SealingKeys::from_base64(text).unwrap_err().to_string();
        let cure = "`openssl rand -base64 32` makes one";
        assert_eq!(
            error(""),
            format!("sealing key 1 has 0 bytes; it needs at least 32: {cure}")
        );
        let (a, b) = (encoded_key(1), encoded_key(2));
        assert_eq!(
            error(&format!("{a},c2hvcnQ=")),
            format!("sealing key 2 has 5 bytes; it needs at least 32: {cure}")
        );
        assert_eq!(
            error(&format!("{a}, *** ")),
            format!("sealing key 2 is not base64; {cure}")
        );
        assert_eq!(
            error(&format!("{a},{b}, {a}")),
            "sealing key 3 is sealing key 1 again; remove one of them"
        );
        assert!("sealed".parse::<SealingMode>().is_err());
    }

    #[test]
    fn debug_output_hides_the_keys() {
        let secret = encoded_key(7);
        let shown = format!("{:?}", keys(&secret));
        assert!(
            !shown.contains(&secret) && shown.contains("SealId("),
            "{shown}"
        );
    }

    #[test]
    fn all_keys_open_and_the_first_seals() {
        let (a, b) = (encoded_key(1), encoded_key(2));
        let sealed = keys(&a).seal("secret", &HERE).unwrap();
        let both = keys(&format!("{b},{a}"));
        assert_eq!(open(&both, sealed.as_bytes(), &HERE).unwrap(), b"secret");
        let again = both.seal("secret", &HERE).unwrap();
        assert_eq!(open(&keys(&b), again.as_bytes(), &HERE).unwrap(), b"secret");
        let closed = open(&keys(&a), again.as_bytes(), &HERE);
        assert_eq!(closed, Err(OpenError::UnknownKey));
    }

    #[test]
    fn each_seal_of_a_text_differs() {
        let ring = keys(&encoded_key(1));
        let seal = || ring.seal("secret", &HERE).unwrap();
        assert_ne!(seal(), seal());
    }

    proptest! {
        #[test]
        fn values_open_only_under_their_binding(
            text in ".{0,300}", app in "[a-z0-9]{1,8}", user in ".{0,20}", key in ".{1,20}",
            other in ".{0,20}",
        ) {
            let ring = keys(&encoded_key(1));
            let here = SealBinding { app: &app, kind: "user", user: &user, key: &key };
            let sealed = ring.seal(&text, &here).unwrap();
            prop_assert_eq!(open(&ring, sealed.as_bytes(), &here).unwrap(), text.as_bytes());
            for there in [
                SealBinding { app: &other, ..here },
                SealBinding { kind: &other, ..here },
                SealBinding { user: &other, ..here },
                SealBinding { key: &other, ..here },
                // The user and the key are exchanged, so the letters are the same.
                SealBinding { user: &key, key: &user, ..here },
            ] {
                let moved = (there.app, there.kind, there.user, there.key)
                    != (here.app, here.kind, here.user, here.key);
                let opened = open(&ring, sealed.as_bytes(), &there);
                prop_assert_eq!(opened.is_err(), moved);
            }
        }

        #[test]
        fn changed_or_truncated_values_do_not_open(
            text in ".{0,60}", at: prop::sample::Index, bit in 0u8..8, end: prop::sample::Index,
        ) {
            let ring = keys(&encoded_key(1));
            let sealed = ring.seal(&text, &HERE).unwrap().into_bytes();
            let cut = &sealed[..end.index(sealed.len())];
            prop_assert!(open(&ring, cut, &HERE).is_err());
            let mut changed = sealed;
            let at = at.index(changed.len());
            changed[at] ^= 1 << bit;
            prop_assert!(open(&ring, &changed, &HERE).is_err());
        }

        #[test]
        fn no_bytes_make_open_panic(bytes: Vec<u8>, body in "[A-Za-z0-9_#-]{0,60}") {
            let ring = keys(&encoded_key(1));
            let _ = open(&ring, &bytes, &HERE);
            let id = ring.ids().next().unwrap();
            let shaped = format!("#0#s1#{id}#{body}");
            prop_assert!(open(&ring, shaped.as_bytes(), &HERE).is_err());
        }
    }
}
