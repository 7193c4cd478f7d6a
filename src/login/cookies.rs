//! What a login keeps in a browser: cookies that bind each login to the browser that began it, say
//! where it leads, and remember how it ended.
//!
//! All of them together stay below 4 KiB, however many tabs are open, because there is a fixed
//! number of names and each has a largest size. Requests of several tabs that do not see each
//! other's cookies therefore overwrite, and never add up.
//!
//! | cookie | holds |
//! |---|---|
//! | `wechat_login_TAG0` … `5` | logins under way: number, time, scope and page; several where they fit |
//! | `wechat_login_TAGt` | the trail: how the last logins ended, and logins whose place was given to newer ones |
//!
//! `TAG` is made of the AppID and the callback's path, so that several accounts share a host. Under
//! https the names begin with `__Host-`: no other host, sibling or parent, can set such a cookie.
//! The trail is apart from the places because the answer to a callback holds the page already, in
//! its `Location`, and proxies take no more than 4 KiB of headers.

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderMap;
use sha2::{Digest, Sha256};

use super::Scope;
use super::return_to::{MAX_RETURN_TO_BYTES, ReturnTo};
use super::state::{LoginState, TAG_BYTES, compute_tag, unix_seconds, verify_tag};
use crate::clock::Timestamp;
use crate::credential::AppId;
use crate::identity::{CookieKeys, KeyedMac, cookies};

/// The longest pages of each place, in bytes: one of any length, one of middling length, and four
/// as most pages are.
const SLOT_PAGE_BYTES: [usize; 6] = [MAX_RETURN_TO_BYTES, 1_024, 40, 40, 40, 40];

/// The bytes of a login besides its page: number, time, marks, and the length of the page.
const ATTEMPT_BYTES: usize = 8 + 4 + 1 + 2;

/// How many logins the trail remembers.
pub(super) const MAX_HISTORY_ENTRIES: usize = 10;

/// The bytes of a login in the trail: number (cut), time, how it ended, and a part of its code.
const HISTORY_ENTRY_BYTES: usize = 6 + 4 + 1 + FINGERPRINT_BYTES;

/// A part of a code's hash that tells a reload of a callback from another code.
const FINGERPRINT_BYTES: usize = 3;

/// How many cookies of our names are looked at. Browsers send several of one name where another
/// host or path has set them too.
const MAX_COOKIES_READ: usize = 128;

/// How long duplicates of a callback get the answer of the first, in seconds.
const DUPLICATE_SECONDS: u64 = 600;

/// Within which time loops are looked for, in seconds.
pub(super) const LOOP_WINDOW_SECONDS: u64 = 60;

const USER_INFO_FLAG: u8 = 0b1000_0000;
const LOW_BITS: u8 = 0b0000_1111;

/// How far a login has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AttemptStatus {
    /// The user is at WeChat's page.
    Open,
    /// The code with this mark has signed the user in, at this second.
    SignedIn {
        at: u64,
        fingerprint: CodeFingerprint,
    },
    /// It was begun anew by itself, at this second.
    Retried { at: u64 },
}

/// What is remembered of a code that signed a user in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CodeFingerprint([u8; FINGERPRINT_BYTES]);

impl CodeFingerprint {
    /// Returns the mark of a code with this hash.
    pub(crate) fn from_hash(hash: &str) -> Self {
        let digest = Sha256::digest(hash.as_bytes());
        Self([digest[0], digest[1], digest[2]])
    }
}

/// One login of one browser.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LoginAttempt {
    pub(crate) state: LoginState,
    pub(crate) scope: Scope,
    pub(crate) return_to: ReturnTo,
    pub(crate) status: AttemptStatus,
    /// How often it was begun again, for the same page, before it came to an end.
    pub(crate) repeats: u8,
}

/// One login in the trail.
#[derive(Debug, Clone, PartialEq, Eq)]
struct HistoryEntry {
    login_id: u64,
    /// When it ended; when it began where it has not.
    at: u64,
    scope: Scope,
    status: AttemptStatus,
}

/// Writes and reads the cookies of one account's logins.
#[derive(Clone)]
pub(crate) struct LoginCookies {
    macs: Vec<KeyedMac>,
    /// What all names begin with.
    name_prefix: String,
    lifetime: Duration,
    start_page: ReturnTo,
}

/// What one browser has of its logins.
#[derive(Debug, Clone)]
pub(crate) struct BrowserLogins {
    slots: [Vec<LoginAttempt>; SLOT_PAGE_BYTES.len()],
    history: Vec<HistoryEntry>,
    slot_changed: [bool; SLOT_PAGE_BYTES.len()],
    history_changed: bool,
    now: u64,
    start_page: ReturnTo,
}

impl LoginAttempt {
    /// Returns how long ago the login began, in seconds.
    pub(crate) fn age_seconds(&self, now: Timestamp) -> u64 {
        unix_seconds(now).saturating_sub(self.state.issued_at)
    }
}

impl LoginCookies {
    /// Returns the cookies of logins whose callback has this public path.
    pub(crate) fn new(
        app: &AppId,
        keys: &CookieKeys,
        callback: &str,
        secure: bool,
        lifetime: Duration,
        start_page: ReturnTo,
    ) -> Self {
        let digest = Sha256::digest(format!("{} {callback}", app.as_str()));
        let host = if secure { "__Host-" } else { "" };
        Self {
            macs: keys.derive_macs(&["tower-wechat login cookie 2", app.as_str(), callback]),
            name_prefix: format!("{host}wechat_login_{:02x}{:02x}", digest[0], digest[1]),
            lifetime,
            start_page,
        }
    }

    /// Returns what the names of these cookies begin with.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn prefix(&self) -> &str {
        &self.name_prefix
    }

    /// Reads what a browser has, as far as it is ours and still counts.
    pub(crate) fn read(&self, headers: &HeaderMap, now: Timestamp) -> BrowserLogins {
        let now = unix_seconds(now);
        let mut browser = BrowserLogins {
            slots: Default::default(),
            history: Vec::new(),
            slot_changed: [false; SLOT_PAGE_BYTES.len()],
            history_changed: false,
            now,
            start_page: self.start_page.clone(),
        };
        for cookie in cookies::text_after_prefix(headers, &self.name_prefix).take(MAX_COOKIES_READ)
        {
            let Some((name, value)) = cookie.split_once('=') else {
                continue;
            };
            if name == "t" {
                browser.history.extend(self.decode_history(value));
            } else if name.len() == 1
                && let Ok(place) = name.parse::<usize>()
                && let Some(logins) = browser.slots.get_mut(place)
            {
                logins.extend(self.decode_slot(place, value));
            }
        }
        browser.history.retain(|step| self.is_current(step, now));
        for place in 0..SLOT_PAGE_BYTES.len() {
            let progress: Vec<_> = browser.slots[place]
                .iter()
                .map(|attempt| browser.status_of(attempt.state.login_id))
                .collect();
            for (attempt, progress) in browser.slots[place].iter_mut().zip(progress) {
                attempt.status = progress;
            }
            browser.slots[place].retain(|attempt| now < self.expires_at(attempt));
        }
        browser
    }

    /// Returns the cookies that have changed, as `NAME=VALUE` and the seconds that each has to
    /// live; zero clears it.
    pub(crate) fn write(&self, browser: &BrowserLogins) -> Vec<(String, u64)> {
        let mut cookies = Vec::new();
        for (place, logins) in browser.slots.iter().enumerate() {
            if browser.slot_changed[place] {
                cookies.push(self.encode_slot(place, logins, browser.now));
            }
        }
        if browser.history_changed {
            cookies.push(self.encode_history(&browser.history));
        }
        cookies
    }

    /// Returns until when a login counts, in seconds since the epoch. One that has succeeded
    /// answers its duplicates for ten minutes from then, however long its user stayed at WeChat.
    fn expires_at(&self, attempt: &LoginAttempt) -> u64 {
        let ends = attempt
            .state
            .issued_at
            .saturating_add(self.lifetime.as_secs());
        match attempt.status {
            AttemptStatus::SignedIn { at, .. } => ends.max(at.saturating_add(DUPLICATE_SECONDS)),
            AttemptStatus::Open | AttemptStatus::Retried { .. } => ends,
        }
    }

    fn is_current(&self, entry: &HistoryEntry, now: u64) -> bool {
        let span = match entry.status {
            AttemptStatus::SignedIn { .. } => DUPLICATE_SECONDS.max(self.lifetime.as_secs()),
            AttemptStatus::Open | AttemptStatus::Retried { .. } => self.lifetime.as_secs(),
        };
        now < entry.at.saturating_add(span)
    }

    fn encode_slot(&self, slot: usize, attempts: &[LoginAttempt], now: u64) -> (String, u64) {
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
            // The one byte of a page that ends a cookie; no page has a circumflex.
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
        // It is asked for duplicates after the login has ended.
        let life = ends.unwrap_or(now).saturating_sub(now);
        (text, life.saturating_add(DUPLICATE_SECONDS))
    }

    fn decode_slot(&self, slot: usize, value: &str) -> Vec<LoginAttempt> {
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

    fn encode_history(&self, history: &[HistoryEntry]) -> (String, u64) {
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

    fn decode_history(&self, value: &str) -> Vec<HistoryEntry> {
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

impl BrowserLogins {
    /// Returns `true` if the browser has no login of ours.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn is_empty(&self) -> bool {
        self.history.is_empty() && self.slots.iter().all(Vec::is_empty)
    }

    /// Returns the login of a state, if this browser began it. One whose place was given away leads
    /// to the start page.
    pub(crate) fn find_attempt(&self, state: LoginState) -> Option<LoginAttempt> {
        let mut placed = self.slots.iter().flatten();
        if let Some(attempt) = placed.rfind(|attempt| attempt.state == state) {
            return Some(attempt.clone());
        }
        let step = self.history_entry(state.login_id)?;
        Some(LoginAttempt {
            state,
            scope: step.scope,
            return_to: self.start_page.clone(),
            status: step.status.clone(),
            repeats: 0,
        })
    }

    /// Returns `true` if the login of a state has signed its user in, within its time or not.
    pub(crate) fn has_succeeded(&self, state: LoginState) -> bool {
        let progress = self.status_of(state.login_id);
        matches!(progress, AttemptStatus::SignedIn { .. })
    }

    /// Returns a login of this browser that was begun a moment ago for the same page and has not
    /// ended, with the number of times that it was begun counted up.
    pub(crate) fn reuse_attempt(
        &mut self,
        scope: Scope,
        return_to: &ReturnTo,
    ) -> Option<LoginAttempt> {
        let now = self.now;
        for (place, size) in SLOT_PAGE_BYTES.into_iter().enumerate() {
            let same = |attempt: &&mut LoginAttempt| {
                attempt.status == AttemptStatus::Open
                    && attempt.scope == scope
                    && attempt.return_to == *return_to
                    && attempt.state.issued_at <= now
                    && now < attempt.state.issued_at.saturating_add(LOOP_WINDOW_SECONDS)
            };
            if let Some(attempt) = self.slots[place].iter_mut().find(same) {
                attempt.repeats = (attempt.repeats + 1).min(LOW_BITS);
                let attempt = attempt.clone();
                // Only this one, where copies of the cookie have made the place too full.
                if self.used_bytes(place, None) > size {
                    self.slots[place] = vec![attempt.clone()];
                }
                self.slot_changed[place] = true;
                return Some(attempt);
            }
        }
        None
    }

    /// Finds a place for a login that begins. Older ones give way: first those that have ended,
    /// then the oldest, of which the number stays in the trail.
    pub(crate) fn add_attempt(&mut self, attempt: LoginAttempt) {
        let length = attempt.return_to.as_str().len();
        // The largest place is for pages that fit nowhere else, as long as there is room elsewhere.
        let empty =
            |place: &usize| self.slots[*place].is_empty() && SLOT_PAGE_BYTES[*place] >= length;
        let empties: Vec<usize> = (1..SLOT_PAGE_BYTES.len()).filter(empty).collect();
        let place = match empties.len() {
            0 => (0..SLOT_PAGE_BYTES.len())
                .rev()
                .find(|place| self.used_bytes(*place, Some(length)) <= SLOT_PAGE_BYTES[*place])
                .unwrap_or_else(|| self.choose_slot_to_evict(length)),
            // Chance decides, so that tabs that begin together seldom take the same place.
            several => empties[fastrand::usize(..several)],
        };
        self.evict_until_fits(place, length);
        self.slots[place].push(attempt);
        self.slot_changed[place] = true;
    }

    /// Returns how much of a place is taken, by one login more where there is one.
    fn used_bytes(&self, slot: usize, added_length: Option<usize>) -> usize {
        let lengths = self.slots[slot]
            .iter()
            .map(|one| one.return_to.as_str().len());
        let lengths = lengths.chain(added_length);
        // The first login is paid for by the cookie itself; each further one costs its own bytes,
        // in base64, out of the pages' room.
        let cost = ATTEMPT_BYTES * 4 / 3;
        let (count, pages) = lengths.fold((0, 0), |(count, all), one| (count + 1, all + one));
        pages + cost * usize::max(count, 1) - cost
    }

    /// Returns the place of enough size whose newest login is of least use.
    fn choose_slot_to_evict(&self, length: usize) -> usize {
        let newest = |place: &usize| {
            let logins = self.slots[*place].iter();
            logins.map(eviction_order).max()
        };
        let candidates = (0..SLOT_PAGE_BYTES.len())
            .rev()
            .filter(|place| SLOT_PAGE_BYTES[*place] >= length);
        candidates.min_by_key(newest).unwrap_or(0)
    }

    /// Takes the oldest logins from a place until a page of this length fits. Their numbers stay in
    /// the trail.
    fn evict_until_fits(&mut self, slot: usize, length: usize) {
        while !self.slots[slot].is_empty()
            && self.used_bytes(slot, Some(length)) > SLOT_PAGE_BYTES[slot]
        {
            let logins = self.slots[slot].iter().enumerate();
            let oldest = logins.min_by_key(|(_, one)| eviction_order(one));
            let at = oldest.map_or(0, |(at, _)| at);
            let evicted = self.slots[slot].remove(at);
            self.slot_changed[slot] = true;
            if evicted.status == AttemptStatus::Open {
                self.record(
                    evicted.state.login_id,
                    evicted.scope,
                    AttemptStatus::Open,
                    evicted.state.issued_at,
                );
            }
        }
    }

    /// Remembers how a login came to an end.
    pub(crate) fn record_end(&mut self, attempt: &LoginAttempt) {
        let at = match attempt.status {
            AttemptStatus::SignedIn { at, .. } | AttemptStatus::Retried { at } => at,
            AttemptStatus::Open => attempt.state.issued_at,
        };
        let number = attempt.state.login_id;
        self.record(number, attempt.scope, attempt.status.clone(), at);
        for one in self.slots.iter_mut().flatten() {
            if one.state == attempt.state {
                one.status = attempt.status.clone();
            }
        }
    }

    fn record(&mut self, login_id: u64, scope: Scope, status: AttemptStatus, at: u64) {
        let number = truncate_id(login_id);
        self.history.retain(|step| step.login_id != number);
        self.history.push(HistoryEntry {
            login_id: number,
            at,
            scope,
            status,
        });
        while self.history.len() > MAX_HISTORY_ENTRIES {
            let steps = self.history.iter().enumerate();
            // Loops are told by how logins ended, so those that have not go first.
            let oldest =
                steps.min_by_key(|(_, step)| (step.status != AttemptStatus::Open, step.at));
            let at = oldest.map_or(0, |(at, _)| at);
            self.history.remove(at);
        }
        self.history_changed = true;
    }

    fn history_entry(&self, login_id: u64) -> Option<&HistoryEntry> {
        let number = truncate_id(login_id);
        let steps = self.history.iter().filter(|step| step.login_id == number);
        // Where two copies of the trail differ, the later word counts.
        steps.max_by_key(|step| (step.status != AttemptStatus::Open, step.at))
    }

    fn status_of(&self, login_id: u64) -> AttemptStatus {
        self.history_entry(login_id)
            .map_or(AttemptStatus::Open, |step| step.status.clone())
    }

    /// Returns how often a login of this browser began anew by itself within the last minute.
    pub(crate) fn recent_retries(&self) -> usize {
        self.count_recent(|progress| matches!(progress, AttemptStatus::Retried { .. }))
    }

    /// Returns how often this browser was logged in within the last minute.
    pub(crate) fn recent_logins(&self) -> usize {
        self.count_recent(|progress| matches!(progress, AttemptStatus::SignedIn { .. }))
    }

    /// Returns how many seconds ago this browser was logged in last.
    pub(crate) fn since_login(&self) -> Option<u64> {
        let logins = self.history.iter().filter_map(|step| match step.status {
            AttemptStatus::SignedIn { at, .. } => Some(at),
            AttemptStatus::Open | AttemptStatus::Retried { .. } => None,
        });
        logins.max().map(|last| self.now.saturating_sub(last))
    }

    /// Returns `true` if a login of this browser that asked for `scope` has signed a user in within
    /// the last minute.
    pub(crate) fn signed_in_recently_with(&self, scope: Scope) -> bool {
        let mut steps = self.history.iter().filter(|step| self.is_recent(step));
        steps.any(|step| {
            step.scope == scope && matches!(step.status, AttemptStatus::SignedIn { .. })
        })
    }

    fn count_recent(&self, matches: impl Fn(&AttemptStatus) -> bool) -> usize {
        let steps = self.history.iter().filter(|step| matches(&step.status));
        steps.filter(|step| self.is_recent(step)).count()
    }

    fn is_recent(&self, step: &HistoryEntry) -> bool {
        step.at.saturating_add(LOOP_WINDOW_SECONDS) > self.now
    }
}

/// What orders logins by their use: those that have ended before those that have not, each by age.
fn eviction_order(attempt: &LoginAttempt) -> (bool, (u64, u64)) {
    (
        attempt.status == AttemptStatus::Open,
        attempt.state.begin_order(),
    )
}

/// The trail keeps six bytes of a number: enough within one browser.
fn truncate_id(login_id: u64) -> u64 {
    login_id & 0xffff_ffff_ffff
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

fn parse_big_endian(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0, |all, byte| (all << 8) | u64::from(*byte))
}

fn mac_input(name: &str, bytes: &[u8], pages: &str) -> Vec<u8> {
    let length = (bytes.len() as u32).to_be_bytes();
    [name.as_bytes(), b"=", &length, bytes, pages.as_bytes()].concat()
}

impl fmt::Debug for LoginCookies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoginCookies")
            .field("prefix", &self.name_prefix)
            .field("lifetime", &self.lifetime)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
