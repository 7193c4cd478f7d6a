//! The `state` of a login: an id, the time of issue and a MAC of both, in 56 hexadecimal digits.
//!
//! The MAC makes it possible to verify a state without a store. The id has 64 bits: 10 for the
//! millisecond of the second, and 54 random bits. The millisecond orders logins of tabs that open
//! within one second. [`cookies`](super::cookies) bind the state to one browser.

use std::fmt;
use std::time::Duration;

use subtle::ConstantTimeEq;

use crate::bytes::{encode_hex, parse_big_endian};
use crate::clock::{MAX_CLOCK_SKEW, Timestamp};
use crate::credential::AppId;
use crate::identity::{CookieKeys, KeyedMac};

/// Length of the MAC in a state or a login cookie: 16 bytes, half of an HMAC-SHA256. A MAC of this
/// length cannot be guessed, and keeps the state below 64 characters.
pub(super) const TAG_BYTES: usize = 16;

/// Length of a decoded state, in bytes: 8 for the id, 4 for the time of issue, and the MAC.
const STATE_BYTES: usize = 8 + 4 + TAG_BYTES;

/// Number of random bits in the id of a login, below the ten bits of the millisecond.
const RANDOM_BITS: u32 = 54;

/// Reason for which a state is invalid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StateError {
    /// The MAC is not valid, so this application did not issue the state.
    Forged,
    /// This application issued the state too long ago, or too far in the future.
    Expired(LoginState),
}

/// The content of a state that this application issued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LoginState {
    pub(crate) login_id: u64,
    /// The time of issue, in seconds since the Unix epoch.
    pub(super) issued_at: u64,
}

/// Issues and verifies states.
#[derive(Clone)]
pub(crate) struct StateSigner {
    macs: Vec<KeyedMac>,
    lifetime: Duration,
}

impl StateSigner {
    /// Creates the signer of logins whose callback has this public path. States of logins with
    /// another callback are not valid.
    pub(crate) fn new(app: &AppId, keys: &CookieKeys, callback: &str, lifetime: Duration) -> Self {
        Self {
            macs: keys.derive_macs(&["tower-wechat login state 2", app.as_str(), callback]),
            lifetime,
        }
    }

    /// Creates the state of a new login. Returns `None` if the system returns no random bytes.
    pub(crate) fn issue(&self, now: Timestamp) -> Option<LoginState> {
        let mut random = [0; 8];
        getrandom::fill(&mut random).ok()?;
        let millisecond = u64::try_from(now.as_millis()).unwrap_or(0) % 1_000;
        Some(LoginState {
            login_id: millisecond << RANDOM_BITS | u64::from_be_bytes(random) >> (64 - RANDOM_BITS),
            issued_at: unix_seconds(now),
        })
    }

    /// Returns the value of the parameter `state`: the content and its MAC in hexadecimal digits.
    pub(crate) fn encode(&self, state: LoginState) -> String {
        let message = state.to_bytes();
        let tag = compute_tag(&self.macs, &message);
        encode_hex(message.iter().chain(&tag))
    }

    /// Verifies the value of the parameter `state`, and returns its content.
    pub(crate) fn verify(&self, text: &str, now: Timestamp) -> Result<LoginState, StateError> {
        let bytes = decode_hex(text).ok_or(StateError::Forged)?;
        let (message, tag) = bytes.split_at(12);
        if !verify_tag(&self.macs, message, tag) {
            return Err(StateError::Forged);
        }
        let state = LoginState::from_bytes(message);
        if self.is_current(state, now) {
            Ok(state)
        } else {
            Err(StateError::Expired(state))
        }
    }

    /// Returns the content of a state that another account may have issued, without a check of its
    /// MAC. Returns `None` if the text is no state.
    pub(crate) fn decode_unverified(text: &str) -> Option<LoginState> {
        let bytes = decode_hex(text)?;
        Some(LoginState::from_bytes(&bytes[..12]))
    }

    /// Returns `true` if a state has not expired, and was not issued too far in the future.
    fn is_current(&self, state: LoginState, now: Timestamp) -> bool {
        let now = unix_seconds(now);
        now < state.issued_at.saturating_add(self.lifetime.as_secs())
            && state.issued_at <= now.saturating_add(MAX_CLOCK_SKEW.as_secs())
    }
}

impl LoginState {
    /// Returns the order of logins by their time of issue: the second, and the millisecond in it.
    pub(super) fn begin_order(self) -> (u64, u64) {
        (self.issued_at, self.login_id >> RANDOM_BITS)
    }

    /// Returns the id and the time of issue in big-endian bytes.
    pub(super) fn to_bytes(self) -> [u8; 12] {
        let mut bytes = [0; 12];
        bytes[..8].copy_from_slice(&self.login_id.to_be_bytes());
        // Seconds fit into 32 bits until 2106.
        bytes[8..].copy_from_slice(&(self.issued_at as u32).to_be_bytes());
        bytes
    }

    /// Parses the bytes that [`to_bytes`](Self::to_bytes) has returned.
    pub(super) fn from_bytes(bytes: &[u8]) -> Self {
        let (id, issued_at) = bytes.split_at_checked(8).unwrap_or((bytes, &[]));
        Self {
            login_id: parse_big_endian(id),
            issued_at: parse_big_endian(issued_at),
        }
    }
}

impl fmt::Debug for StateSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StateSigner")
            .field("lifetime", &self.lifetime)
            .finish_non_exhaustive()
    }
}

/// Returns a time in seconds since the Unix epoch.
pub(crate) fn unix_seconds(now: Timestamp) -> u64 {
    u64::try_from(now.as_millis()).unwrap_or(0) / 1_000
}

/// Returns the MAC of a message with the first key, shortened to [`TAG_BYTES`].
pub(super) fn compute_tag(macs: &[KeyedMac], message: &[u8]) -> [u8; TAG_BYTES] {
    let mut tag = [0; TAG_BYTES];
    if let Some(mac) = macs.first() {
        tag.copy_from_slice(&mac.sign(message)[..TAG_BYTES]);
    }
    tag
}

/// Returns `true` if `tag` is the MAC of the message with any key. Compares in constant time.
pub(super) fn verify_tag(macs: &[KeyedMac], message: &[u8], tag: &[u8]) -> bool {
    macs.iter()
        .any(|mac| mac.sign(message)[..TAG_BYTES].ct_eq(tag).into())
}

/// Decodes the text of a state. Returns `None` unless the text has 56 lower-case hexadecimal
/// digits.
fn decode_hex(text: &str) -> Option<[u8; STATE_BYTES]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * STATE_BYTES {
        return None;
    }
    let mut bytes = [0; STATE_BYTES];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        // Upper case is rejected, so that each state has exactly one encoding.
        let digit = |digit: u8| match digit {
            b'0'..=b'9' => Some(digit - b'0'),
            b'a'..=b'f' => Some(digit - b'a' + 10),
            _ => None,
        };
        *byte = (digit(pair[0])? << 4) | digit(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);
    const LIFE: Duration = Duration::from_secs(600);

    fn signer(app: &str, key: u8) -> StateSigner {
        let keys = CookieKeys::for_tests(&[key]);
        StateSigner::new(&AppId::new(app).unwrap(), &keys, "/callback", LIFE)
    }

    #[test]
    fn states_are_valid_until_they_expire() {
        let signer = signer("wx1", 1);
        let issued = signer.issue(NOW).unwrap();
        let text = signer.encode(issued);
        assert!((16..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric()));
        assert_eq!(signer.verify(&text, NOW), Ok(issued));
        let last = NOW.saturating_add(LIFE - Duration::from_secs(1));
        assert_eq!(signer.verify(&text, last), Ok(issued));
        let late = signer.verify(&text, NOW.saturating_add(LIFE));
        assert!(matches!(late, Err(StateError::Expired(_))));
        let future = NOW.saturating_sub(Duration::from_secs(301));
        assert!(matches!(
            signer.verify(&text, future),
            Err(StateError::Expired(_))
        ));
        assert_eq!(
            self::signer("wx2", 1).verify(&text, NOW),
            Err(StateError::Forged)
        );
        assert_eq!(
            self::signer("wx1", 2).verify(&text, NOW),
            Err(StateError::Forged)
        );
    }

    proptest! {
        #[test]
        fn tampered_states_are_rejected(at in 0usize..56, with in "[0-9a-zA-F]") {
            let signer = signer("wx1", 1);
            let text = signer.encode(signer.issue(NOW).unwrap());
            let changed = format!("{}{with}{}", &text[..at], &text[at + 1..]);
            prop_assert!(changed == text || signer.verify(&changed, NOW) == Err(StateError::Forged));
            prop_assert_eq!(signer.verify(&text[..at], NOW), Err(StateError::Forged));
            prop_assert_eq!(signer.verify(&format!("{text}{with}"), NOW), Err(StateError::Forged));
        }

        #[test]
        fn arbitrary_text_is_rejected(text in "\\PC{0,80}") {
            prop_assert_eq!(signer("wx1", 1).verify(&text, NOW), Err(StateError::Forged));
        }
    }
}
