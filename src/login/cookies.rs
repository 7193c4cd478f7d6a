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
use super::return_to::{LONGEST, ReturnTo};
use super::state::{Issued, TAG_BYTES, is_tagged, seconds, tag};
use crate::clock::Timestamp;
use crate::credential::AppId;
use crate::identity::{CookieKeys, KeyedMac, cookies};

/// The longest pages of each place, in bytes: one of any length, one of middling length, and four
/// as most pages are.
const PLACES: [usize; 6] = [LONGEST, 1_024, 40, 40, 40, 40];

/// The bytes of a login besides its page: number, time, marks, and the length of the page.
const LOGIN_BYTES: usize = 8 + 4 + 1 + 2;

/// How many logins the trail remembers.
pub(super) const TRAIL: usize = 10;

/// The bytes of a login in the trail: number (cut), time, how it ended, and a part of its code.
const TRAIL_BYTES: usize = 6 + 4 + 1 + MARK_BYTES;

/// A part of a code's hash that tells a reload of a callback from another code.
const MARK_BYTES: usize = 3;

/// How many cookies of our names are looked at. Browsers send several of one name where another
/// host or path has set them too.
const COOKIES_READ: usize = 128;

/// How long duplicates of a callback get the answer of the first, in seconds.
const DUPLICATES_FOR: u64 = 600;

/// Within which time loops are looked for, in seconds.
pub(super) const WINDOW: u64 = 60;

const USER_INFO: u8 = 0b1000_0000;
const AGAIN: u8 = 0b0000_1111;

/// How far a login has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Progress {
    /// The user is at WeChat's page.
    Open,
    /// The code with this mark has signed the user in, at this second.
    SignedIn { at: u64, code: CodeMark },
    /// It was begun anew by itself, at this second.
    Restarted { at: u64 },
}

/// What is remembered of a code that signed a user in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CodeMark([u8; MARK_BYTES]);

impl CodeMark {
    /// Returns the mark of a code with this hash.
    pub(crate) fn of(hash: &str) -> Self {
        let digest = Sha256::digest(hash.as_bytes());
        Self([digest[0], digest[1], digest[2]])
    }
}

/// One login of one browser.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attempt {
    pub(crate) issued: Issued,
    pub(crate) scope: Scope,
    pub(crate) return_to: ReturnTo,
    pub(crate) progress: Progress,
    /// How often it was begun again, for the same page, before it came to an end.
    pub(crate) again: u8,
}

/// One login in the trail.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Step {
    number: u64,
    /// When it ended; when it began where it has not.
    at: u64,
    scope: Scope,
    progress: Progress,
}

/// Writes and reads the cookies of one account's logins.
#[derive(Clone)]
pub(crate) struct LoginCookies {
    macs: Vec<KeyedMac>,
    /// What all names begin with.
    prefix: String,
    lifetime: Duration,
    start_page: ReturnTo,
}

/// What one browser has of its logins.
#[derive(Debug, Clone)]
pub(crate) struct Browser {
    places: [Vec<Attempt>; PLACES.len()],
    trail: Vec<Step>,
    changed: [bool; PLACES.len()],
    trail_changed: bool,
    now: u64,
    start_page: ReturnTo,
}

impl Attempt {
    /// Returns how long ago the login began, in seconds.
    pub(crate) fn age(&self, now: Timestamp) -> u64 {
        seconds(now).saturating_sub(self.issued.at)
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
            macs: keys.for_purpose(&["tower-wechat login cookie 2", app.as_str(), callback]),
            prefix: format!("{host}wechat_login_{:02x}{:02x}", digest[0], digest[1]),
            lifetime,
            start_page,
        }
    }

    /// Returns what the names of these cookies begin with.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Reads what a browser has, as far as it is ours and still counts.
    pub(crate) fn read(&self, headers: &HeaderMap, now: Timestamp) -> Browser {
        let now = seconds(now);
        let mut browser = Browser {
            places: Default::default(),
            trail: Vec::new(),
            changed: [false; PLACES.len()],
            trail_changed: false,
            now,
            start_page: self.start_page.clone(),
        };
        for cookie in cookies::starting_with(headers, &self.prefix).take(COOKIES_READ) {
            let Some((name, value)) = cookie.split_once('=') else {
                continue;
            };
            if name == "t" {
                browser.trail.extend(self.read_trail(value));
            } else if name.len() == 1
                && let Ok(place) = name.parse::<usize>()
                && let Some(logins) = browser.places.get_mut(place)
            {
                logins.extend(self.read_place(place, value));
            }
        }
        browser.trail.retain(|step| self.counts(step, now));
        for place in 0..PLACES.len() {
            let progress: Vec<_> = browser.places[place]
                .iter()
                .map(|attempt| browser.progress_of(attempt.issued.number))
                .collect();
            for (attempt, progress) in browser.places[place].iter_mut().zip(progress) {
                attempt.progress = progress;
            }
            browser.places[place].retain(|attempt| now < self.ends(attempt));
        }
        browser
    }

    /// Returns the cookies that have changed, as `NAME=VALUE` and the seconds that each has to
    /// live; zero clears it.
    pub(crate) fn write(&self, browser: &Browser) -> Vec<(String, u64)> {
        let mut cookies = Vec::new();
        for (place, logins) in browser.places.iter().enumerate() {
            if browser.changed[place] {
                cookies.push(self.write_place(place, logins, browser.now));
            }
        }
        if browser.trail_changed {
            cookies.push(self.write_trail(&browser.trail));
        }
        cookies
    }

    /// Returns until when a login counts, in seconds since the epoch. One that has succeeded
    /// answers its duplicates for ten minutes from then, however long its user stayed at WeChat.
    fn ends(&self, attempt: &Attempt) -> u64 {
        let ends = attempt.issued.at.saturating_add(self.lifetime.as_secs());
        match attempt.progress {
            Progress::SignedIn { at, .. } => ends.max(at.saturating_add(DUPLICATES_FOR)),
            Progress::Open | Progress::Restarted { .. } => ends,
        }
    }

    fn counts(&self, step: &Step, now: u64) -> bool {
        let span = match step.progress {
            Progress::SignedIn { .. } => DUPLICATES_FOR.max(self.lifetime.as_secs()),
            Progress::Open | Progress::Restarted { .. } => self.lifetime.as_secs(),
        };
        now < step.at.saturating_add(span)
    }

    fn write_place(&self, place: usize, logins: &[Attempt], now: u64) -> (String, u64) {
        let name = format!("{}{place}", self.prefix);
        if logins.is_empty() {
            return (format!("{name}="), 0);
        }
        let (mut bytes, mut pages) = (Vec::new(), String::new());
        for attempt in logins {
            bytes.extend(attempt.issued.bytes());
            bytes.push(scope_mark(attempt.scope) | attempt.again.min(AGAIN));
            let page = attempt.return_to.as_str();
            bytes.extend((page.len() as u16).to_be_bytes());
            // The one byte of a page that ends a cookie; no page has a circumflex.
            pages.extend(
                page.chars()
                    .map(|letter| if letter == ';' { '^' } else { letter }),
            );
        }
        let tag = tag(&self.macs, &message(&name, &bytes, &pages));
        let text = format!(
            "{name}={}.{pages}",
            URL_SAFE_NO_PAD.encode([&tag[..], &bytes].concat())
        );
        let ends = logins.iter().map(|attempt| self.ends(attempt)).max();
        // It is asked for duplicates after the login has ended.
        let life = ends.unwrap_or(now).saturating_sub(now);
        (text, life.saturating_add(DUPLICATES_FOR))
    }

    fn read_place(&self, place: usize, value: &str) -> Vec<Attempt> {
        let name = format!("{}{place}", self.prefix);
        self.try_read_place(&name, value).unwrap_or_default()
    }

    fn try_read_place(&self, name: &str, value: &str) -> Option<Vec<Attempt>> {
        let (head, pages) = value.split_once('.')?;
        let bytes = URL_SAFE_NO_PAD.decode(head).ok()?;
        let (tag, bytes) = bytes.split_at_checked(TAG_BYTES)?;
        if bytes.is_empty() || !is_tagged(&self.macs, &message(name, bytes, pages), tag) {
            return None;
        }
        let mut rest = pages;
        let mut logins = Vec::new();
        for login in bytes.chunks(LOGIN_BYTES) {
            let login: &[u8; LOGIN_BYTES] = login.try_into().ok()?;
            let (page, later) = rest.split_at_checked(big_endian(&login[13..]) as usize)?;
            rest = later;
            logins.push(Attempt {
                issued: Issued::from_bytes(&login[..12]),
                scope: scope_marked(login[12]),
                return_to: ReturnTo::stored(&page.replace('^', ";"))?,
                progress: Progress::Open,
                again: login[12] & AGAIN,
            });
        }
        Some(logins)
    }

    fn write_trail(&self, trail: &[Step]) -> (String, u64) {
        let name = format!("{}t", self.prefix);
        if trail.is_empty() {
            return (format!("{name}="), 0);
        }
        let mut bytes = Vec::new();
        for step in trail {
            bytes.extend(&step.number.to_be_bytes()[2..]);
            bytes.extend((step.at as u32).to_be_bytes());
            let (kind, code) = match step.progress {
                Progress::Open => (0, [0; MARK_BYTES]),
                Progress::SignedIn { code, .. } => (1, code.0),
                Progress::Restarted { .. } => (2, [0; MARK_BYTES]),
            };
            bytes.push(scope_mark(step.scope) | kind);
            bytes.extend(code);
        }
        let tag = tag(&self.macs, &message(&name, &bytes, ""));
        let value = URL_SAFE_NO_PAD.encode([&tag[..], &bytes].concat());
        let life = DUPLICATES_FOR.max(self.lifetime.as_secs());
        (format!("{name}={value}"), life)
    }

    fn read_trail(&self, value: &str) -> Vec<Step> {
        let name = format!("{}t", self.prefix);
        self.try_read_trail(&name, value).unwrap_or_default()
    }

    fn try_read_trail(&self, name: &str, value: &str) -> Option<Vec<Step>> {
        let bytes = URL_SAFE_NO_PAD.decode(value).ok()?;
        let (tag, bytes) = bytes.split_at_checked(TAG_BYTES)?;
        if !is_tagged(&self.macs, &message(name, bytes, ""), tag) {
            return None;
        }
        let steps = bytes.chunks(TRAIL_BYTES).map(|step| {
            let step: &[u8; TRAIL_BYTES] = step.try_into().ok()?;
            let at = big_endian(&step[6..10]);
            let progress = match step[10] & AGAIN {
                0 => Progress::Open,
                1 => Progress::SignedIn {
                    at,
                    code: CodeMark(step[11..].try_into().ok()?),
                },
                2 => Progress::Restarted { at },
                _ => return None,
            };
            Some(Step {
                number: big_endian(&step[..6]),
                at,
                scope: scope_marked(step[10]),
                progress,
            })
        });
        steps.collect()
    }
}

impl Browser {
    /// Returns `true` if the browser has no login of ours.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn is_empty(&self) -> bool {
        self.trail.is_empty() && self.places.iter().all(Vec::is_empty)
    }

    /// Returns the login of a state, if this browser began it. One whose place was given away leads
    /// to the start page.
    pub(crate) fn attempt(&self, issued: Issued) -> Option<Attempt> {
        let mut placed = self.places.iter().flatten();
        if let Some(attempt) = placed.rfind(|attempt| attempt.issued == issued) {
            return Some(attempt.clone());
        }
        let step = self.step(issued.number)?;
        Some(Attempt {
            issued,
            scope: step.scope,
            return_to: self.start_page.clone(),
            progress: step.progress.clone(),
            again: 0,
        })
    }

    /// Returns `true` if the login of a state has signed its user in, within its time or not.
    pub(crate) fn has_succeeded(&self, issued: Issued) -> bool {
        let progress = self.progress_of(issued.number);
        matches!(progress, Progress::SignedIn { .. })
    }

    /// Returns a login of this browser that was begun a moment ago for the same page and has not
    /// ended, with the number of times that it was begun counted up.
    pub(crate) fn begun_again(&mut self, scope: Scope, return_to: &ReturnTo) -> Option<Attempt> {
        let now = self.now;
        for (place, size) in PLACES.into_iter().enumerate() {
            let same = |attempt: &&mut Attempt| {
                attempt.progress == Progress::Open
                    && attempt.scope == scope
                    && attempt.return_to == *return_to
                    && attempt.issued.at <= now
                    && now < attempt.issued.at.saturating_add(WINDOW)
            };
            if let Some(attempt) = self.places[place].iter_mut().find(same) {
                attempt.again = (attempt.again + 1).min(AGAIN);
                let attempt = attempt.clone();
                // Only this one, where copies of the cookie have made the place too full.
                if self.used(place, None) > size {
                    self.places[place] = vec![attempt.clone()];
                }
                self.changed[place] = true;
                return Some(attempt);
            }
        }
        None
    }

    /// Finds a place for a login that begins. Older ones give way: first those that have ended,
    /// then the oldest, of which the number stays in the trail.
    pub(crate) fn begin(&mut self, attempt: Attempt) {
        let length = attempt.return_to.as_str().len();
        // The largest place is for pages that fit nowhere else, as long as there is room elsewhere.
        let empty = |place: &usize| self.places[*place].is_empty() && PLACES[*place] >= length;
        let empties: Vec<usize> = (1..PLACES.len()).filter(empty).collect();
        let place = match empties.len() {
            0 => (0..PLACES.len())
                .rev()
                .find(|place| self.used(*place, Some(length)) <= PLACES[*place])
                .unwrap_or_else(|| self.best_to_empty(length)),
            // Chance decides, so that tabs that begin together seldom take the same place.
            several => empties[fastrand::usize(..several)],
        };
        self.make_room(place, length);
        self.places[place].push(attempt);
        self.changed[place] = true;
    }

    /// Returns how much of a place is taken, by one login more where there is one.
    fn used(&self, place: usize, one_more: Option<usize>) -> usize {
        let lengths = self.places[place]
            .iter()
            .map(|one| one.return_to.as_str().len());
        let lengths = lengths.chain(one_more);
        // The first login is paid for by the cookie itself; each further one costs its own bytes,
        // in base64, out of the pages' room.
        let cost = LOGIN_BYTES * 4 / 3;
        let (count, pages) = lengths.fold((0, 0), |(count, all), one| (count + 1, all + one));
        pages + cost * usize::max(count, 1) - cost
    }

    /// Returns the place of enough size whose newest login is of least use.
    fn best_to_empty(&self, length: usize) -> usize {
        let newest = |place: &usize| {
            let logins = self.places[*place].iter();
            logins.map(age).max()
        };
        let candidates = (0..PLACES.len())
            .rev()
            .filter(|place| PLACES[*place] >= length);
        candidates.min_by_key(newest).unwrap_or(0)
    }

    /// Takes the oldest logins from a place until a page of this length fits. Their numbers stay in
    /// the trail.
    fn make_room(&mut self, place: usize, length: usize) {
        while !self.places[place].is_empty() && self.used(place, Some(length)) > PLACES[place] {
            let logins = self.places[place].iter().enumerate();
            let oldest = logins.min_by_key(|(_, one)| age(one));
            let at = oldest.map_or(0, |(at, _)| at);
            let gone = self.places[place].remove(at);
            self.changed[place] = true;
            if gone.progress == Progress::Open {
                self.remember(
                    gone.issued.number,
                    gone.scope,
                    Progress::Open,
                    gone.issued.at,
                );
            }
        }
    }

    /// Remembers how a login came to an end.
    pub(crate) fn end(&mut self, attempt: &Attempt) {
        let at = match attempt.progress {
            Progress::SignedIn { at, .. } | Progress::Restarted { at } => at,
            Progress::Open => attempt.issued.at,
        };
        let number = attempt.issued.number;
        self.remember(number, attempt.scope, attempt.progress.clone(), at);
        for one in self.places.iter_mut().flatten() {
            if one.issued == attempt.issued {
                one.progress = attempt.progress.clone();
            }
        }
    }

    fn remember(&mut self, number: u64, scope: Scope, progress: Progress, at: u64) {
        let number = cut(number);
        self.trail.retain(|step| step.number != number);
        self.trail.push(Step {
            number,
            at,
            scope,
            progress,
        });
        while self.trail.len() > TRAIL {
            let steps = self.trail.iter().enumerate();
            // Loops are told by how logins ended, so those that have not go first.
            let oldest = steps.min_by_key(|(_, step)| (step.progress != Progress::Open, step.at));
            let at = oldest.map_or(0, |(at, _)| at);
            self.trail.remove(at);
        }
        self.trail_changed = true;
    }

    fn step(&self, number: u64) -> Option<&Step> {
        let number = cut(number);
        let steps = self.trail.iter().filter(|step| step.number == number);
        // Where two copies of the trail differ, the later word counts.
        steps.max_by_key(|step| (step.progress != Progress::Open, step.at))
    }

    fn progress_of(&self, number: u64) -> Progress {
        self.step(number)
            .map_or(Progress::Open, |step| step.progress.clone())
    }

    /// Returns how often a login of this browser began anew by itself within the last minute.
    pub(crate) fn restarts(&self) -> usize {
        self.lately(|progress| matches!(progress, Progress::Restarted { .. }))
    }

    /// Returns how often this browser was logged in within the last minute.
    pub(crate) fn logins(&self) -> usize {
        self.lately(|progress| matches!(progress, Progress::SignedIn { .. }))
    }

    /// Returns how many seconds ago this browser was logged in last.
    pub(crate) fn since_login(&self) -> Option<u64> {
        let logins = self.trail.iter().filter_map(|step| match step.progress {
            Progress::SignedIn { at, .. } => Some(at),
            Progress::Open | Progress::Restarted { .. } => None,
        });
        logins.max().map(|last| self.now.saturating_sub(last))
    }

    /// Returns `true` if a login of this browser that asked for `scope` has signed a user in within
    /// the last minute.
    pub(crate) fn was_asked_for(&self, scope: Scope) -> bool {
        let mut steps = self.trail.iter().filter(|step| self.is_recent(step));
        steps.any(|step| step.scope == scope && matches!(step.progress, Progress::SignedIn { .. }))
    }

    fn lately(&self, is_one: impl Fn(&Progress) -> bool) -> usize {
        let steps = self.trail.iter().filter(|step| is_one(&step.progress));
        steps.filter(|step| self.is_recent(step)).count()
    }

    fn is_recent(&self, step: &Step) -> bool {
        step.at.saturating_add(WINDOW) > self.now
    }
}

/// What orders logins by their use: those that have ended before those that have not, each by age.
fn age(attempt: &Attempt) -> (bool, (u64, u64)) {
    (attempt.progress == Progress::Open, attempt.issued.order())
}

/// The trail keeps six bytes of a number: enough within one browser.
fn cut(number: u64) -> u64 {
    number & 0xffff_ffff_ffff
}

fn scope_mark(scope: Scope) -> u8 {
    match scope {
        Scope::Base => 0,
        Scope::UserInfo => USER_INFO,
    }
}

fn scope_marked(mark: u8) -> Scope {
    if mark & USER_INFO == 0 {
        Scope::Base
    } else {
        Scope::UserInfo
    }
}

fn big_endian(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0, |all, byte| (all << 8) | u64::from(*byte))
}

fn message(name: &str, bytes: &[u8], pages: &str) -> Vec<u8> {
    let length = (bytes.len() as u32).to_be_bytes();
    [name.as_bytes(), b"=", &length, bytes, pages.as_bytes()].concat()
}

impl fmt::Debug for LoginCookies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoginCookies")
            .field("prefix", &self.prefix)
            .field("lifetime", &self.lifetime)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
