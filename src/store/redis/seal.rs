//! Encryption of stored values with the sealing keys of this process.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use zeroize::Zeroizing;

use crate::error::Error;
use crate::log_limiter::LogLimiter;
use crate::store::Expected;
#[cfg(feature = "sealing")]
use crate::store::redis::format::keys::{OpenError, SealingKeys};
use crate::store::redis::format::sealed::{self, SealBinding, SealingKeyId};
use crate::store::redis::format::text::{DecodeError, SERIALIZER_REMEDY};

/// Minimum interval between two log lines about a missing sealing key: ten seconds. Without it,
/// every read of a value with that seal would log a line.
const UNKNOWN_KEY_LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Minimum interval between two log lines about values of an unsupported serializer: one minute.
/// Without it, every read of such a value would log a line.
const SERIALIZER_LOG_INTERVAL: Duration = Duration::from_secs(60);

/// The sealing keys of this process. Without keys, values are written as plain text.
#[derive(Debug, Clone, Default)]
pub(super) struct Sealer {
    #[cfg(feature = "sealing")]
    keys: Option<SealingKeys>,
    log_limiter: Arc<LogLimiter>,
}

/// The plain text of a stored value: borrowed from a plain value, or decrypted from a sealed value.
pub(super) enum Plaintext<'a> {
    Borrowed(&'a [u8]),
    #[cfg(feature = "sealing")]
    Decrypted(Zeroizing<Vec<u8>>),
}

impl Deref for Plaintext<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Borrowed(text) => text,
            #[cfg(feature = "sealing")]
            Self::Decrypted(text) => text,
        }
    }
}

impl Sealer {
    #[cfg(feature = "sealing")]
    pub(super) fn with_keys(keys: SealingKeys) -> Self {
        Self {
            keys: Some(keys),
            ..Self::default()
        }
    }

    /// Returns `true` if the value is sealed with any key.
    pub(super) fn is_sealed(value: &[u8]) -> bool {
        sealed::split(value).is_some()
    }

    /// Returns the ids of the sealing keys of this process, for logs and errors.
    pub(super) fn key_ids(&self) -> Vec<String> {
        #[cfg(feature = "sealing")]
        if let Some(keys) = &self.keys {
            return keys.ids().collect();
        }
        Vec::new()
    }

    pub(super) fn has_key(&self, id: SealingKeyId) -> bool {
        #[cfg(feature = "sealing")]
        if let Some(keys) = &self.keys {
            return keys.has_key(id);
        }
        let _ = id;
        false
    }

    /// Returns the id of the key that seals new values. Returns `None` if new values are plain
    /// text.
    pub(super) fn active_key_id(&self) -> Option<SealingKeyId> {
        #[cfg(feature = "sealing")]
        if let Some(keys) = &self.keys {
            return keys.active_key_id();
        }
        None
    }

    /// Decrypts a stored value. Returns a plain value as it is, unless the sealing mode rejects
    /// plain values.
    pub(super) fn open<'a>(
        &self,
        value: &'a [u8],
        at: &SealBinding<'_>,
    ) -> Result<Plaintext<'a>, DecodeError> {
        #[cfg(feature = "sealing")]
        if let Some(keys) = &self.keys {
            return match sealed::split(value) {
                None if keys.rejects_plain() => Err(DecodeError::NotSealed),
                None => Ok(Plaintext::Borrowed(value)),
                Some((id, body)) => match keys.open(id, body, at) {
                    Ok(text) => Ok(Plaintext::Decrypted(text)),
                    Err(OpenError::UnknownKey) => Err(DecodeError::UnknownKey),
                    Err(OpenError::Corrupt) => Err(DecodeError::BrokenSeal),
                },
            };
        }
        let _ = at;
        match Self::is_sealed(value) {
            true => Err(DecodeError::UnknownKey),
            false => Ok(Plaintext::Borrowed(value)),
        }
    }

    /// Decrypts a stored value. Returns a plain value as it is, even if the sealing mode rejects
    /// plain values.
    #[cfg(feature = "cli")]
    pub(super) fn open_or_plain<'a>(
        &self,
        value: &'a [u8],
        at: &SealBinding<'_>,
    ) -> Result<Plaintext<'a>, DecodeError> {
        match Self::is_sealed(value) {
            true => self.open(value, at),
            false => Ok(Plaintext::Borrowed(value)),
        }
    }

    /// Encrypts a text, if this process has a key that seals new values. Otherwise returns the
    /// text.
    pub(super) fn seal(
        &self,
        text: Zeroizing<String>,
        at: &SealBinding<'_>,
    ) -> Result<Zeroizing<String>, Error> {
        #[cfg(feature = "sealing")]
        if let Some(keys) = self
            .keys
            .as_ref()
            .filter(|keys| keys.active_key_id().is_some())
        {
            return keys.seal(&text, at).map(Zeroizing::new);
        }
        let _ = at;
        Ok(text)
    }

    /// Returns the id of the key of a sealed value, if this process does not have that key.
    fn unknown_key_id(&self, value: &[u8]) -> Option<SealingKeyId> {
        let (id, _) = sealed::split(value)?;
        (!self.has_key(id)).then_some(id)
    }

    /// Returns `true` if the value is sealed with a key that this process does not have.
    pub(super) fn has_unknown_key(&self, value: &[u8]) -> bool {
        self.unknown_key_id(value).is_some()
    }

    /// Rejects a renewal if a stored value is sealed with a key that this process does not have.
    ///
    /// Another process may have the key and use that value, so a renewal must not replace it. A
    /// login does not call this function. The tokens of a login are newer than every stored value,
    /// so they may replace an unreadable value (newest wins).
    pub(super) fn check_replaceable(
        &self,
        kind: &'static str,
        expected: &Expected,
    ) -> Result<(), Error> {
        let mut stored = expected.0.iter().flatten();
        let Some(id) = stored.find_map(|value| self.unknown_key_id(value)) else {
            return Ok(());
        };
        Err(Error::configuration(format!(
            "the stored {kind} is sealed with key {id}, which this process does not have, and \
                 is left as it is: add that key to the sealing keys"
        )))
    }

    /// Logs an error about a missing sealing key, at most once in [`UNKNOWN_KEY_LOG_INTERVAL`].
    pub(super) fn log_unknown_key(&self, key: &str, value: &[u8]) {
        let Some(id) = self.unknown_key_id(value) else {
            return;
        };
        let limiter = &self.log_limiter;
        let line = limiter.allow_line_every("unknown_key", UNKNOWN_KEY_LOG_INTERVAL);
        if line.is_some() {
            tracing::error!(
                target: "tower_wechat::store",
                key,
                sealed_with = %id,
                keys = ?self.key_ids(),
                "a stored value is sealed with a key that this process does not have; it counts as \
                 missing here and is left as it is: add that key to the sealing keys"
            );
        }
    }

    /// Logs an error about a value of an unsupported serializer, at most once in
    /// [`SERIALIZER_LOG_INTERVAL`]. A service with such a serializer writes all of its values with
    /// that serializer, so one line is enough.
    pub(super) fn log_serializer(&self, at: &SealBinding<'_>, reason: DecodeError) {
        let limiter = &self.log_limiter;
        let line = limiter.allow_line_every("serializer", SERIALIZER_LOG_INTERVAL);
        if line.is_some() {
            let key = at.key;
            tracing::error!(
                target: "tower_wechat::store",
                app = at.app,
                kind = at.kind,
                key,
                "a value in {key} counts as missing, as does every other that is written like it: \
                 {reason}; {SERIALIZER_REMEDY}"
            );
        }
    }

    /// Returns `true` if a search for names of a Java serializer may run. Allows one search within
    /// `span`.
    pub(super) fn may_search_java_names(&self, span: Duration) -> bool {
        let limiter = &self.log_limiter;
        limiter.allow_line_every("java_names", span).is_some()
    }
}
