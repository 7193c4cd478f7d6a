//! Login cookies, which bind each login to the browser that began it, and contain the login's
//! return page and status.
//!
//! There is a fixed number of names, and each cookie has a maximum size. All login cookies of one app
//! stay below 4 KiB together, however many tabs are open. Concurrent requests of several tabs
//! overwrite each other's cookies, and never add new ones.
//!
//! The login cookies of all accounts of a host, and of their websites, stay below 4 KiB together
//! too: a reply that writes login cookies removes cookies of other accounts until they fit, ended
//! logins first. A removed login whose history remains leads to the start page if that history
//! contains it. Otherwise its callback answers a page that offers another login. Logins of several
//! accounts that begin at the same time can exceed the limit until the next login. Session cookies
//! are never removed: those of about 28 accounts fit into 8 KiB beside the login cookies.
//!
//! | cookie | holds |
//! |---|---|
//! | `wechat_login_TAG0` … `5` | the slots: open logins with id, time, scope and page; several in one slot if they fit |
//! | `wechat_login_TAGt` | the history: how the last logins ended, and open logins that were evicted from their slot |
//!
//! `TAG` is derived from the AppID and the callback's path, so that several accounts can share a
//! host. It has 32 bits: one browser hardly ever meets two logins with the same tag. With https the
//! names begin with `__Host-`: no other host of the domain can set such a cookie. The history is
//! separate from the slots to keep the reply to a callback small. The `Location` of that reply
//! already contains the page, and proxies accept at most 4 KiB of headers by default.

mod attempt;
mod browser;
mod format;
mod other_accounts;

use std::fmt;
use std::time::Duration;

use http::HeaderMap;
use sha2::{Digest, Sha256};

pub(super) use self::attempt::CodeFingerprint;
use self::attempt::HistoryEntry;
pub(super) use self::attempt::LOOP_WINDOW_SECONDS;
pub(crate) use self::attempt::{AttemptStatus, LoginAttempt};
use self::browser::SLOT_PAGE_BYTES;
pub(super) use self::browser::{BrowserLogins, MAX_HISTORY_ENTRIES};
use super::return_to::ReturnTo;
use super::state::{LoginState, unix_seconds};
use crate::bytes::encode_hex;
use crate::clock::Timestamp;
use crate::credential::AppId;
use crate::identity::{CookieKeys, KeyedMac, cookies};

/// Maximum number of login cookies of one request that are read: 128. Browsers send several cookies
/// of one name if another host or path has set cookies of that name.
const MAX_COOKIES_READ: usize = 128;

/// Time for which the cookies keep a completed login, so that duplicates of its callback are
/// answered: 600 seconds. A duplicate is redirected to the page if the browser has a session.
/// Without a session, the login is retried.
const DUPLICATE_SECONDS: u64 = 600;

/// Start of the names of all accounts' login cookies, without `__Host-`. The tag follows.
const NAME_START: &str = "wechat_login_";

/// Writer and reader of the login cookies of one account.
#[derive(Clone)]
pub(crate) struct LoginCookies {
    macs: Vec<KeyedMac>,
    /// The prefix that the names of all login cookies have.
    name_prefix: String,
    secure: bool,
    lifetime: Duration,
    start_page: ReturnTo,
}

impl LoginCookies {
    /// Creates the writer and reader for logins whose callback has this public path.
    pub(crate) fn new(
        app: &AppId,
        keys: &CookieKeys,
        callback: &str,
        secure: bool,
        lifetime: Duration,
        start_page: ReturnTo,
    ) -> Self {
        let digest = Sha256::digest(format!("{} {callback}", app.as_str()));
        let host = host_prefix(secure);
        Self {
            macs: keys.derive_macs(&["tower-wechat login cookie 2", app.as_str(), callback]),
            name_prefix: format!("{host}{NAME_START}{}", encode_hex(&digest[..4])),
            secure,
            lifetime,
            start_page,
        }
    }

    /// Returns the prefix that the names of all login cookies have.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn prefix(&self) -> &str {
        &self.name_prefix
    }

    /// Returns the logins in a browser's cookies that have a valid MAC and have not expired.
    ///
    /// A browser may send several copies of one cookie; their logins are merged. The history
    /// decides the status of each login, because slots do not contain a status.
    pub(crate) fn read(&self, headers: &HeaderMap, now: Timestamp) -> BrowserLogins {
        let now = unix_seconds(now);
        let mut browser = BrowserLogins {
            slots: Default::default(),
            history: Vec::new(),
            slot_changed: [false; SLOT_PAGE_BYTES.len()],
            history_changed: false,
            own_cookies: Vec::new(),
            other_cookies: other_accounts::read(
                headers,
                self.name_start(),
                self.tag(),
                now,
                self.lifetime.as_secs(),
            ),
            now,
            start_page: self.start_page.clone(),
        };
        for cookie in cookies::text_after_prefix(headers, &self.name_prefix).take(MAX_COOKIES_READ)
        {
            let Some((name, value)) = cookie.split_once('=') else {
                continue;
            };
            if let (Some(kind), 1) = (name.chars().next(), name.len()) {
                let length = self.name_prefix.len() + cookie.len();
                let bytes = other_accounts::cookie_bytes(length);
                browser.own_cookies.push((kind, bytes));
            }
            if name == "t" {
                browser.history.extend(self.decode_history(value));
            } else if name.len() == 1
                && let Ok(slot) = name.parse::<usize>()
                && let Some(attempts) = browser.slots.get_mut(slot)
            {
                attempts.extend(self.decode_slot(slot, value));
            }
        }
        browser.history.retain(|entry| self.is_current(entry, now));
        for slot in 0..SLOT_PAGE_BYTES.len() {
            let statuses: Vec<_> = browser.slots[slot]
                .iter()
                .map(|attempt| browser.status_of(attempt.state.login_id))
                .collect();
            for (attempt, status) in browser.slots[slot].iter_mut().zip(statuses) {
                attempt.status = status;
            }
            // A completed login expires later than an open one, so the statuses are set before
            // expired logins are removed.
            browser.slots[slot].retain(|attempt| now < self.expires_at(attempt));
        }
        browser
    }

    /// Returns `true` if a browser has a login cookie of another account, or of another callback, that
    /// contains a login with this state. The function does not verify the cookie or the state, whose
    /// keys this account does not have.
    pub(crate) fn finds_foreign(&self, headers: &HeaderMap, state: LoginState) -> bool {
        cookies::text_after_prefix(headers, self.name_start())
            .take(MAX_COOKIES_READ)
            .filter(|cookie| !cookie.starts_with(self.tag()))
            .filter_map(|cookie| cookie.split_once('='))
            .any(|(_, value)| format::read_slot_unverified(value).contains(&state))
    }

    /// Returns the start of the names of all accounts' login cookies.
    fn name_start(&self) -> &str {
        let length = host_prefix(self.secure).len() + NAME_START.len();
        &self.name_prefix[..length]
    }

    /// Returns the tag of this account, which follows the start of its cookies' names.
    fn tag(&self) -> &str {
        &self.name_prefix[self.name_start().len()..]
    }

    /// Returns the changed cookies as `NAME=VALUE`, each with its lifetime in seconds. A lifetime
    /// of zero removes the cookie. Cookies of other accounts are among them if all login cookies
    /// together would be too long.
    pub(crate) fn write(&self, browser: &BrowserLogins) -> Vec<(String, u64)> {
        let mut cookies = Vec::new();
        for (slot, attempts) in browser.slots.iter().enumerate() {
            if browser.slot_changed[slot] {
                cookies.push(self.encode_slot(slot, attempts, browser.now));
            }
        }
        if browser.history_changed {
            cookies.push(self.encode_history(&browser.history));
        }
        let removals = self.removals_of_other_accounts(browser, &cookies);
        cookies.extend(removals);
        cookies
    }

    /// Returns the cookies that remove login cookies of other accounts, so that all login cookies
    /// fit beside those that a reply writes.
    fn removals_of_other_accounts(
        &self,
        browser: &BrowserLogins,
        written: &[(String, u64)],
    ) -> Vec<(String, u64)> {
        if written.is_empty() || browser.other_cookies.is_empty() {
            return Vec::new();
        }
        let is_written = |kind: char| {
            written
                .iter()
                .filter_map(|(text, _)| text.strip_prefix(&self.name_prefix))
                .any(|rest| rest.starts_with(kind))
        };
        let unchanged = browser.own_cookies.iter();
        let unchanged = unchanged.filter(|(kind, _)| !is_written(*kind));
        let kept = written.iter().filter(|(_, lifetime)| *lifetime > 0);
        let kept = kept.map(|(text, _)| other_accounts::cookie_bytes(text.len()));
        let own: Vec<usize> = unchanged.map(|(_, bytes)| *bytes).chain(kept).collect();
        let written: Vec<usize> = written.iter().map(|(text, _)| text.len()).collect();
        let removed = other_accounts::choose_removals(&browser.other_cookies, &own, &written);
        let start = self.name_start();
        let removals = removed
            .into_iter()
            .map(|suffix| (format!("{start}{suffix}="), 0));
        removals.collect()
    }

    /// Returns when a login expires, in seconds since the Unix epoch. A completed login answers its
    /// duplicates for ten minutes after its end, however long its user stayed at WeChat.
    fn expires_at(&self, attempt: &LoginAttempt) -> u64 {
        let expiry = attempt
            .state
            .issued_at
            .saturating_add(self.lifetime.as_secs());
        match attempt.status {
            AttemptStatus::SignedIn { at, .. } => expiry.max(at.saturating_add(DUPLICATE_SECONDS)),
            AttemptStatus::Open | AttemptStatus::Retried { .. } => expiry,
        }
    }

    /// Returns `true` if an entry of the history has not expired.
    fn is_current(&self, entry: &HistoryEntry, now: u64) -> bool {
        let lifetime = match entry.status {
            AttemptStatus::SignedIn { .. } => DUPLICATE_SECONDS.max(self.lifetime.as_secs()),
            AttemptStatus::Open | AttemptStatus::Retried { .. } => self.lifetime.as_secs(),
        };
        now < entry.at.saturating_add(lifetime)
    }
}

/// Returns the prefix that the names of secure cookies have.
fn host_prefix(secure: bool) -> &'static str {
    if secure { "__Host-" } else { "" }
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
