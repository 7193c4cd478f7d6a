//! The receiver of a platform's pushes: verifies, decrypts and reads them. It does no I/O.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use zeroize::Zeroizing;

use super::cipher::{CipherError, PushCipher, decode_ciphertext};
use super::envelope::{read_envelope, write_reply};
use super::event::read_event;
use super::keys::PushKeys;
use super::message::PlatformPush;
use super::refusal::PushRefusal;
use super::signature::{PushQuery, PushToken};
use crate::clock::{Clock, Timestamp};
use crate::credential::AppId;
use crate::error::Error;
use crate::log_limiter::LogLimiter;
use crate::platform::event::PlatformEvent;
use crate::store::BoxFuture;

/// Time by which the timestamp of a push may differ from our clock without a line in the log: ten
/// minutes. WeChat documents neither a maximum nor the delay of its retries, so other pushes are
/// accepted too.
const EXPECTED_DELAY: Duration = Duration::from_secs(10 * 60);

/// The part of a platform that stores what its events bring.
pub(crate) trait HandlePlatformEvents: Send + Sync + 'static {
    /// Handles an event. Returns when everything that must not be lost is stored.
    ///
    /// # Errors
    /// The store failed. WeChat repeats the event.
    fn handle_event(&self, event: PlatformEvent) -> BoxFuture<'_, Result<(), Error>>;
}

/// The receiver of the pushes of one platform, which all clones of its layers and services share.
pub(crate) struct PushReceiver {
    component: AppId,
    /// The keys of the pushes. `None`: the application has set none.
    keys: Option<PushKeys>,
    clock: Clock,
    pub(super) log_limiter: LogLimiter,
    pub(super) events: Arc<dyn HandlePlatformEvents>,
}

/// A genuine push for this platform.
pub(crate) struct OpenedPush {
    pub(crate) content: PushContent,
    pub(super) reply_keys: ReplyKeys,
}

/// The token and the key of a push, with which a reply is signed and encrypted.
pub(crate) struct ReplyKeys {
    token: PushToken,
    cipher: PushCipher,
}

/// The content of a genuine push, by who handles it.
pub(crate) enum PushContent {
    /// This crate handles the push.
    Event(PlatformEvent),
    /// The application handles the push.
    Application(PlatformPush),
}

impl PushReceiver {
    pub(crate) fn new(
        component: AppId,
        keys: Option<PushKeys>,
        clock: Clock,
        events: Arc<dyn HandlePlatformEvents>,
    ) -> Self {
        Self {
            component,
            keys,
            clock,
            log_limiter: LogLimiter::default(),
            events,
        }
    }

    pub(super) fn component(&self) -> &AppId {
        &self.component
    }

    /// Verifies, decrypts and reads a push.
    ///
    /// The work before the check of the signature depends on the length of the body only. Nothing
    /// is stored.
    ///
    /// # Errors
    /// Returns why the request is not a genuine push for this platform.
    pub(crate) fn open(&self, uri: &Uri, body: &[u8]) -> Result<OpenedPush, PushRefusal> {
        let keys = self.keys.as_ref().ok_or(PushRefusal::NoKeys)?;
        let query = PushQuery::parse(uri)?;
        let encrypt = read_envelope(body, &self.component)?;
        let token = query
            .signing_token(keys.tokens(), &encrypt)
            .ok_or(PushRefusal::Signature)?;
        let now = self.clock.now();
        self.note_delay(&query, now);
        let (message, cipher) = self.decrypt(&encrypt, keys)?;
        let push = PlatformPush::parse(message, &self.component)?;
        let content = match read_event(&push, now)? {
            Some(event) => PushContent::Event(event),
            None => PushContent::Application(push),
        };
        Ok(OpenedPush {
            content,
            reply_keys: ReplyKeys {
                token: token.clone(),
                cipher: cipher.clone(),
            },
        })
    }

    /// Decrypts a message with the first key that opens it, and returns that key too.
    fn decrypt<'a>(
        &self,
        encrypt: &str,
        keys: &'a PushKeys,
    ) -> Result<(Zeroizing<Vec<u8>>, &'a PushCipher), CipherError> {
        let ciphertext = decode_ciphertext(encrypt)?;
        let mut problem = CipherError::Undecryptable;
        for cipher in keys.ciphers() {
            match cipher.decrypt(&ciphertext, self.component.as_str()) {
                Ok(message) => return Ok((message, cipher)),
                // A key that opens the message for another AppID is the right key.
                Err(CipherError::Foreign) => problem = CipherError::Foreign,
                Err(CipherError::Undecryptable) => {}
            }
        }
        Err(problem)
    }

    /// Writes a debug line if a genuine push is much older or newer than our clock.
    fn note_delay(&self, query: &PushQuery, now: Timestamp) {
        let Some(sent) = query.timestamp_seconds() else {
            return;
        };
        let seconds = (now.as_millis() / 1_000).saturating_sub(sent);
        if seconds.unsigned_abs() > EXPECTED_DELAY.as_secs() {
            tracing::debug!(
                target: "tower_wechat::platform",
                app = %self.component,
                seconds,
                "a genuine push has a timestamp that differs from the clock by more than ten minutes"
            );
        }
    }

    /// Returns the envelope of a reply to a push, encrypted with the key of the push. Returns `None`
    /// if the system returns no random bytes.
    pub(super) fn encrypt_reply(&self, to: &ReplyKeys, message: &str) -> Option<String> {
        write_reply(
            message,
            &self.component,
            &to.token,
            &to.cipher,
            self.clock.now(),
        )
    }
}

impl fmt::Debug for PushReceiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PushReceiver")
            .field("component", &self.component)
            .field("keys", &self.keys)
            .finish_non_exhaustive()
    }
}
