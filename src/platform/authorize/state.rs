//! The state of an authorization, which travels in the path of the URL to which WeChat returns.
//!
//! WeChat passes no parameter of ours on. The state is a base64url text of: the time of issue (4
//! bytes), the hash of the pre-auth code (32), the customer (0 to 129)
//! and a MAC (16). The MAC makes it possible to verify a state without a store, on any
//! process.

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use subtle::ConstantTimeEq;

use super::customer::Customer;
use crate::clock::{MAX_CLOCK_SKEW, Timestamp};
use crate::credential::AppId;
use crate::identity::{CookieKeys, KeyedMac};

/// Time for which a state is valid: two hours. A pre-auth code lives for half an hour, and the code
/// with which WeChat returns for up to an hour after that.
const LIFETIME: Duration = Duration::from_secs(2 * 3_600);

/// Length of the MAC: 16 bytes, half of an HMAC-SHA256. A MAC of this length cannot be guessed.
const TAG_BYTES: usize = 16;

/// Length of the hash of a pre-auth code, which is a hexadecimal text.
const HASH_BYTES: usize = 32;

/// Length of a state without a customer.
const FIXED_BYTES: usize = 4 + HASH_BYTES + TAG_BYTES;

/// First character of a customer whom the application's guard has named. The name of a customer has no
/// control character.
const GUARDED: char = '\u{1}';

/// Maximum length of a state's text. Longer texts are rejected before they are decoded.
const MAX_TEXT_BYTES: usize = (FIXED_BYTES + 1 + Customer::MAX_BYTES).div_ceil(3) * 4;

/// The content of a state that this platform issued.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct AuthorizeState {
    /// The time of issue, in seconds since the Unix epoch.
    issued_at: u32,
    /// The hash of the page's pre-auth code. WeChat's event of this authorization has that code.
    pub(super) pre_auth_code_hash: String,
    pub(super) customer: Option<Customer>,
    /// Whether the guard of the application has named the customer. The return then needs the same
    /// customer.
    pub(super) is_guarded: bool,
}

/// Reason for which a state is invalid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StateError {
    /// The MAC is not valid, so these pages did not issue the state.
    Forged,
    /// These pages issued the state too long ago, or too far in the future.
    Expired,
}

impl AuthorizeState {
    pub(super) fn new(
        now: Timestamp,
        pre_auth_code_hash: String,
        customer: Option<Customer>,
    ) -> Self {
        debug_assert_eq!(pre_auth_code_hash.len(), HASH_BYTES);
        Self {
            issued_at: unix_seconds(now),
            pre_auth_code_hash,
            customer,
            is_guarded: false,
        }
    }

    /// Requires the customer of the state at the return.
    pub(super) fn guarded(self, is_guarded: bool) -> Self {
        Self { is_guarded, ..self }
    }

    fn to_bytes(&self) -> Vec<u8> {
        let customer = self.customer.as_ref().map_or("", Customer::as_str);
        let guarded = match self.is_guarded {
            true => GUARDED.encode_utf8(&mut [0; 4]).to_owned(),
            false => String::new(),
        };
        let parts = [
            &self.issued_at.to_be_bytes()[..],
            self.pre_auth_code_hash.as_bytes(),
            guarded.as_bytes(),
            customer.as_bytes(),
        ];
        parts.concat()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (issued_at, rest) = bytes.split_first_chunk()?;
        let (pre_auth_code_hash, customer) = std::str::from_utf8(rest)
            .ok()?
            .split_at_checked(HASH_BYTES)?;
        let unguarded = customer.strip_prefix(GUARDED);
        let is_guarded = unguarded.is_some();
        let customer = match unguarded.unwrap_or(customer) {
            "" => None,
            customer => Some(Customer::new(customer).ok()?),
        };
        Some(Self {
            issued_at: u32::from_be_bytes(*issued_at),
            pre_auth_code_hash: pre_auth_code_hash.to_owned(),
            customer,
            is_guarded,
        })
    }
}

impl fmt::Debug for AuthorizeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthorizeState")
            .field("issued_at", &self.issued_at)
            .field("customer", &self.customer)
            .finish_non_exhaustive()
    }
}

/// Issues and verifies states.
#[derive(Clone)]
pub(super) struct StateSigner(Vec<KeyedMac>);

impl StateSigner {
    /// Creates the signer for the pages of one platform with one return URL. States of other platforms
    /// or URLs are not valid.
    pub(super) fn new(component: &AppId, keys: &CookieKeys, return_url: &str) -> Self {
        let purpose = [
            "tower-wechat authorize state 1",
            component.as_str(),
            return_url,
        ];
        Self(keys.derive_macs(&purpose))
    }

    /// Returns the text of a state: one segment of a path.
    pub(super) fn encode(&self, state: &AuthorizeState) -> String {
        let mut bytes = state.to_bytes();
        if let Some(mac) = self.0.first() {
            let tag = mac.sign(&bytes);
            bytes.extend_from_slice(&tag[..TAG_BYTES]);
        }
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Verifies the text of a state, and returns its content.
    pub(super) fn verify(&self, text: &str, now: Timestamp) -> Result<AuthorizeState, StateError> {
        let bytes = match text.len() {
            ..=MAX_TEXT_BYTES => URL_SAFE_NO_PAD.decode(text).ok(),
            _ => None,
        };
        let bytes = bytes.filter(|bytes| bytes.len() >= FIXED_BYTES);
        let bytes = bytes.ok_or(StateError::Forged)?;
        let (message, tag) = bytes.split_at(bytes.len() - TAG_BYTES);
        let signs = |mac: &KeyedMac| bool::from(mac.sign(message)[..TAG_BYTES].ct_eq(tag));
        if !self.0.iter().any(signs) {
            return Err(StateError::Forged);
        }
        let state = AuthorizeState::from_bytes(message).ok_or(StateError::Forged)?;
        let (now, issued_at) = (u64::from(unix_seconds(now)), u64::from(state.issued_at));
        let is_current =
            now < issued_at + LIFETIME.as_secs() && issued_at <= now + MAX_CLOCK_SKEW.as_secs();
        match is_current {
            true => Ok(state),
            false => Err(StateError::Expired),
        }
    }
}

/// Returns a time in seconds since the Unix epoch.
fn unix_seconds(now: Timestamp) -> u32 {
    u32::try_from(now.as_millis() / 1_000).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

    fn signer(component: &str, keys: &[u8], url: &str) -> StateSigner {
        let component = AppId::new(component).unwrap();
        StateSigner::new(&component, &CookieKeys::for_tests(keys), url)
    }

    fn state(customer: &str) -> AuthorizeState {
        let customer = Some(customer).filter(|customer| !customer.is_empty());
        AuthorizeState::new(
            NOW,
            "7".repeat(HASH_BYTES),
            customer.map(|text| Customer::new(text).unwrap()),
        )
    }

    #[test]
    fn states_are_valid_until_they_expire() {
        let signer = signer("wxC", &[1], "https://a.b/authorized");
        for customer in ["", "42", "客户 42/?#"] {
            let issued = state(customer).guarded(customer.len() > 2);
            let text = signer.encode(&issued);
            assert!(
                text.bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
            );
            assert_eq!(signer.verify(&text, NOW), Ok(issued.clone()));
            let last = NOW.saturating_add(LIFETIME - Duration::from_secs(1));
            assert_eq!(signer.verify(&text, last), Ok(issued));
            for other in [
                NOW.saturating_add(LIFETIME),
                NOW.saturating_sub(Duration::from_secs(301)),
            ] {
                assert_eq!(signer.verify(&text, other), Err(StateError::Expired));
            }
        }
    }

    #[test]
    fn states_of_other_platforms_urls_and_keys_are_forged() {
        let url = "https://a.b/authorized";
        let text = signer("wxC", &[1], url).encode(&state("42"));
        for other in [
            signer("wxD", &[1], url),
            signer("wxC", &[2], url),
            signer("wxC", &[1], "https://a.c/authorized"),
        ] {
            assert_eq!(other.verify(&text, NOW), Err(StateError::Forged));
        }
        assert_eq!(
            signer("wxC", &[2, 1], url).verify(&text, NOW),
            Ok(state("42"))
        );
    }

    proptest! {
        #[test]
        fn changed_states_are_forged(at in 0usize..72, with in "[0-9a-zA-Z_=/.-]", customer in "\\PC{0,20}") {
            let signer = signer("wxC", &[1], "https://a.b/authorized");
            let text = signer.encode(&state(&customer));
            let at = at.min(text.len() - 1);
            let changed = format!("{}{with}{}", &text[..at], &text[at + 1..]);
            prop_assert!(changed == text || signer.verify(&changed, NOW) == Err(StateError::Forged));
            prop_assert_eq!(signer.verify(&text[..at], NOW), Err(StateError::Forged));
            prop_assert_eq!(signer.verify(&format!("{text}{with}"), NOW), Err(StateError::Forged));
        }

        #[test]
        fn arbitrary_text_is_forged(text in "\\PC{0,400}") {
            let signer = signer("wxC", &[1], "https://a.b/authorized");
            prop_assert_eq!(signer.verify(&text, NOW), Err(StateError::Forged));
        }
    }
}
