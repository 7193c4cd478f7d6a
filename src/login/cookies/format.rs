//! The text of the login cookies.
//!
//! The value of a slot's cookie is `BASE64.PAGES`. `BASE64` encodes the MAC and then, for each
//! login, its id, its time of issue, its flags and the length of its page. `PAGES` are the pages
//! one after the other, with `^` for each semicolon.
//!
//! The value of the history's cookie is `BASE64`, which encodes the MAC and the logins. A login has
//! its truncated id, the time of its end (or of its begin), its flags and its code's fingerprint.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::attempt::{
    AttemptStatus, CodeFingerprint, FINGERPRINT_BYTES, HistoryEntry, LoginAttempt,
};
use super::{DUPLICATE_SECONDS, LoginCookies};
use crate::bytes::parse_big_endian;
use crate::login::return_to::ReturnTo;
use crate::login::scope::Scope;
use crate::login::state::{LoginState, TAG_BYTES, compute_tag, verify_tag};

/// Length of a login in a slot without its page, in bytes: id, time, flags, and length of the page.
pub(super) const ATTEMPT_BYTES: usize = 8 + 4 + 1 + 2;

/// Length of a login in the history, in bytes: truncated id, time, flags, and the code's
/// fingerprint.
pub(super) const HISTORY_ENTRY_BYTES: usize = 6 + 4 + 1 + FINGERPRINT_BYTES;

/// Bit of a login's flags that is set if the login asks for the scope `snsapi_userinfo`.
const USER_INFO_FLAG: u8 = 0b1000_0000;

/// Low bits of a login's flags: the number of repeats in a slot, or the status in the history.
const LOW_BITS: u8 = 0b0000_1111;

/// Maximum number of repeats of a login that a slot can count: 15, the largest value of four bits.
pub(super) const MAX_REPEATS: u8 = LOW_BITS;

impl LoginCookies {
    /// Returns the cookie of a slot as `NAME=VALUE`, and its lifetime in seconds. A lifetime of
    /// zero removes the cookie.
    pub(super) fn encode_slot(
        &self,
        slot: usize,
        attempts: &[LoginAttempt],
        now: u64,
    ) -> (String, u64) {
        let name = format!("{}{slot}", self.name_prefix);
        if attempts.is_empty() {
            return (format!("{name}="), 0);
        }
        let (mut bytes, mut pages) = (Vec::new(), String::new());
        for attempt in attempts {
            bytes.extend(attempt.state.to_bytes());
            bytes.push(scope_to_flag(attempt.scope) | attempt.repeats.min(LOW_BITS));
            let page = attempt.return_to.as_str();
            bytes.extend((page.len() as u16).to_be_bytes());
            // A semicolon would end the cookie, so the cookie has a circumflex instead, which no
            // page contains.
            pages.extend(
                page.chars()
                    .map(|character| if character == ';' { '^' } else { character }),
            );
        }
        let tag = compute_tag(&self.macs, &mac_input(&name, &bytes, &pages));
        let text = format!(
            "{name}={}.{pages}",
            URL_SAFE_NO_PAD.encode([&tag[..], &bytes].concat())
        );
        let last_expiry = attempts
            .iter()
            .map(|attempt| self.expires_at(attempt))
            .max();
        // Duplicates of the callback need the cookie after the login has ended.
        let lifetime = last_expiry.unwrap_or(now).saturating_sub(now);
        (text, lifetime.saturating_add(DUPLICATE_SECONDS))
    }

    /// Decodes the logins in a slot's value, with the status `Open`. Returns an empty list if the
    /// value is malformed or its MAC is not valid.
    pub(super) fn decode_slot(&self, slot: usize, value: &str) -> Vec<LoginAttempt> {
        let name = format!("{}{slot}", self.name_prefix);
        self.try_decode_slot(&name, value).unwrap_or_default()
    }

    fn try_decode_slot(&self, name: &str, value: &str) -> Option<Vec<LoginAttempt>> {
        let (head, pages) = value.split_once('.')?;
        let bytes = URL_SAFE_NO_PAD.decode(head).ok()?;
        let (tag, bytes) = bytes.split_at_checked(TAG_BYTES)?;
        if bytes.is_empty() || !verify_tag(&self.macs, &mac_input(name, bytes, pages), tag) {
            return None;
        }
        let mut rest = pages;
        let mut attempts = Vec::new();
        for fields in bytes.chunks(ATTEMPT_BYTES) {
            let fields: &[u8; ATTEMPT_BYTES] = fields.try_into().ok()?;
            let (page, later) = rest.split_at_checked(parse_big_endian(&fields[13..]) as usize)?;
            rest = later;
            attempts.push(LoginAttempt {
                state: LoginState::from_bytes(&fields[..12]),
                scope: scope_from_flag(fields[12]),
                return_to: ReturnTo::from_stored(&page.replace('^', ";"))?,
                status: AttemptStatus::Open,
                repeats: fields[12] & LOW_BITS,
            });
        }
        Some(attempts)
    }

    /// Returns the cookie of the history as `NAME=VALUE`, and its lifetime in seconds. A lifetime
    /// of zero removes the cookie.
    pub(super) fn encode_history(&self, history: &[HistoryEntry]) -> (String, u64) {
        let name = format!("{}t", self.name_prefix);
        if history.is_empty() {
            return (format!("{name}="), 0);
        }
        let mut bytes = Vec::new();
        for entry in history {
            bytes.extend(&entry.login_id.to_be_bytes()[2..]);
            bytes.extend((entry.at as u32).to_be_bytes());
            let (status, fingerprint) = match entry.status {
                AttemptStatus::Open => (0, [0; FINGERPRINT_BYTES]),
                AttemptStatus::SignedIn { fingerprint, .. } => (1, fingerprint.0),
                AttemptStatus::Retried { .. } => (2, [0; FINGERPRINT_BYTES]),
            };
            bytes.push(scope_to_flag(entry.scope) | status);
            bytes.extend(fingerprint);
        }
        let tag = compute_tag(&self.macs, &mac_input(&name, &bytes, ""));
        let value = URL_SAFE_NO_PAD.encode([&tag[..], &bytes].concat());
        let lifetime = DUPLICATE_SECONDS.max(self.lifetime.as_secs());
        (format!("{name}={value}"), lifetime)
    }

    /// Decodes the entries in the history's value. Returns an empty list if the value is malformed
    /// or its MAC is not valid.
    pub(super) fn decode_history(&self, value: &str) -> Vec<HistoryEntry> {
        let name = format!("{}t", self.name_prefix);
        self.try_decode_history(&name, value).unwrap_or_default()
    }

    fn try_decode_history(&self, name: &str, value: &str) -> Option<Vec<HistoryEntry>> {
        let bytes = URL_SAFE_NO_PAD.decode(value).ok()?;
        let (tag, bytes) = bytes.split_at_checked(TAG_BYTES)?;
        if !verify_tag(&self.macs, &mac_input(name, bytes, ""), tag) {
            return None;
        }
        decode_entries(bytes)
    }
}

/// Decodes the entries of a history without its MAC. Returns `None` if the bytes are malformed.
fn decode_entries(bytes: &[u8]) -> Option<Vec<HistoryEntry>> {
    let entries = bytes.chunks(HISTORY_ENTRY_BYTES).map(|fields| {
        let fields: &[u8; HISTORY_ENTRY_BYTES] = fields.try_into().ok()?;
        let at = parse_big_endian(&fields[6..10]);
        let status = match fields[10] & LOW_BITS {
            0 => AttemptStatus::Open,
            1 => AttemptStatus::SignedIn {
                at,
                fingerprint: CodeFingerprint(fields[11..].try_into().ok()?),
            },
            2 => AttemptStatus::Retried { at },
            _ => return None,
        };
        Some(HistoryEntry {
            login_id: parse_big_endian(&fields[..6]),
            at,
            scope: scope_from_flag(fields[10]),
            status,
        })
    });
    entries.collect()
}

/// Returns the states of the logins in the value of a slot's cookie. The function does not verify
/// the MAC.
pub(super) fn read_slot_unverified(value: &str) -> Vec<LoginState> {
    let head = value.split_once('.').map(|(head, _)| head);
    let bytes = head.and_then(|head| URL_SAFE_NO_PAD.decode(head).ok());
    let attempts = bytes.as_deref().and_then(|bytes| bytes.get(TAG_BYTES..));
    let attempts = attempts.unwrap_or_default().chunks_exact(ATTEMPT_BYTES);
    attempts
        .map(|fields| LoginState::from_bytes(&fields[..12]))
        .collect()
}

/// Returns the entries in the value of a history's cookie. The function does not verify the MAC.
pub(super) fn read_history_unverified(value: &str) -> Option<Vec<HistoryEntry>> {
    let bytes = URL_SAFE_NO_PAD.decode(value).ok()?;
    decode_entries(bytes.get(TAG_BYTES..)?)
}

/// Returns the bit that stores a scope in a login's flags. A third scope would need a second bit.
fn scope_to_flag(scope: Scope) -> u8 {
    match scope {
        Scope::Base => 0,
        Scope::UserInfo => USER_INFO_FLAG,
    }
}

/// Returns the scope that a login's flags contain.
fn scope_from_flag(flag: u8) -> Scope {
    if flag & USER_INFO_FLAG == 0 {
        Scope::Base
    } else {
        Scope::UserInfo
    }
}

/// Returns the input of a cookie's MAC: the cookie's name, the length of its binary part, the
/// binary part, and the pages.
fn mac_input(name: &str, bytes: &[u8], pages: &str) -> Vec<u8> {
    let length = (bytes.len() as u32).to_be_bytes();
    [name.as_bytes(), b"=", &length, bytes, pages.as_bytes()].concat()
}
