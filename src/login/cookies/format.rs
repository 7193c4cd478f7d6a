//! The text of the cookies.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::attempt::{
    AttemptStatus, CodeFingerprint, FINGERPRINT_BYTES, HistoryEntry, LoginAttempt,
};
use super::{DUPLICATE_SECONDS, LoginCookies};
use crate::login::return_to::ReturnTo;
use crate::login::scope::Scope;
use crate::login::state::{LoginState, TAG_BYTES, compute_tag, parse_big_endian, verify_tag};

/// Length of a login in a slot without its page: id, time, flags, and length of the page.
pub(super) const ATTEMPT_BYTES: usize = 8 + 4 + 1 + 2;

/// Length of a login in the history: truncated id, time, flags, and the code's fingerprint.
pub(super) const HISTORY_ENTRY_BYTES: usize = 6 + 4 + 1 + FINGERPRINT_BYTES;

/// Flag of the scope `snsapi_userinfo`.
const USER_INFO_FLAG: u8 = 0b1000_0000;

/// Low bits of the flags: the repeats of a login in a slot, or the status in the history.
const LOW_BITS: u8 = 0b0000_1111;

/// The most repeats that a slot counts: the low bits of its flags.
pub(super) const MAX_REPEATS: u8 = LOW_BITS;

impl LoginCookies {
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
            // A semicolon would end the cookie. Pages never contain a circumflex.
            pages.extend(
                page.chars()
                    .map(|letter| if letter == ';' { '^' } else { letter }),
            );
        }
        let tag = compute_tag(&self.macs, &mac_input(&name, &bytes, &pages));
        let text = format!(
            "{name}={}.{pages}",
            URL_SAFE_NO_PAD.encode([&tag[..], &bytes].concat())
        );
        let ends = attempts
            .iter()
            .map(|attempt| self.expires_at(attempt))
            .max();
        // Duplicates of the callback need the cookie after the login has ended.
        let life = ends.unwrap_or(now).saturating_sub(now);
        (text, life.saturating_add(DUPLICATE_SECONDS))
    }

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
        let mut logins = Vec::new();
        for login in bytes.chunks(ATTEMPT_BYTES) {
            let login: &[u8; ATTEMPT_BYTES] = login.try_into().ok()?;
            let (page, later) = rest.split_at_checked(parse_big_endian(&login[13..]) as usize)?;
            rest = later;
            logins.push(LoginAttempt {
                state: LoginState::from_bytes(&login[..12]),
                scope: scope_from_flag(login[12]),
                return_to: ReturnTo::from_stored(&page.replace('^', ";"))?,
                status: AttemptStatus::Open,
                repeats: login[12] & LOW_BITS,
            });
        }
        Some(logins)
    }

    pub(super) fn encode_history(&self, history: &[HistoryEntry]) -> (String, u64) {
        let name = format!("{}t", self.name_prefix);
        if history.is_empty() {
            return (format!("{name}="), 0);
        }
        let mut bytes = Vec::new();
        for step in history {
            bytes.extend(&step.login_id.to_be_bytes()[2..]);
            bytes.extend((step.at as u32).to_be_bytes());
            let (kind, code) = match step.status {
                AttemptStatus::Open => (0, [0; FINGERPRINT_BYTES]),
                AttemptStatus::SignedIn {
                    fingerprint: code, ..
                } => (1, code.0),
                AttemptStatus::Retried { .. } => (2, [0; FINGERPRINT_BYTES]),
            };
            bytes.push(scope_to_flag(step.scope) | kind);
            bytes.extend(code);
        }
        let tag = compute_tag(&self.macs, &mac_input(&name, &bytes, ""));
        let value = URL_SAFE_NO_PAD.encode([&tag[..], &bytes].concat());
        let life = DUPLICATE_SECONDS.max(self.lifetime.as_secs());
        (format!("{name}={value}"), life)
    }

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
        let steps = bytes.chunks(HISTORY_ENTRY_BYTES).map(|step| {
            let step: &[u8; HISTORY_ENTRY_BYTES] = step.try_into().ok()?;
            let at = parse_big_endian(&step[6..10]);
            let progress = match step[10] & LOW_BITS {
                0 => AttemptStatus::Open,
                1 => AttemptStatus::SignedIn {
                    at,
                    fingerprint: CodeFingerprint(step[11..].try_into().ok()?),
                },
                2 => AttemptStatus::Retried { at },
                _ => return None,
            };
            Some(HistoryEntry {
                login_id: parse_big_endian(&step[..6]),
                at,
                scope: scope_from_flag(step[10]),
                status: progress,
            })
        });
        steps.collect()
    }
}

fn scope_to_flag(scope: Scope) -> u8 {
    match scope {
        Scope::Base => 0,
        Scope::UserInfo => USER_INFO_FLAG,
    }
}

fn scope_from_flag(flag: u8) -> Scope {
    if flag & USER_INFO_FLAG == 0 {
        Scope::Base
    } else {
        Scope::UserInfo
    }
}

/// Returns the bytes whose MAC a cookie contains: its name, and all parts of its value.
fn mac_input(name: &str, bytes: &[u8], pages: &str) -> Vec<u8> {
    let length = (bytes.len() as u32).to_be_bytes();
    [name.as_bytes(), b"=", &length, bytes, pages.as_bytes()].concat()
}
