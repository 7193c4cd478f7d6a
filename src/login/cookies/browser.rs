//! The logins in one browser's cookies: functions that find, add and evict logins, and count recent
//! ones.

use super::attempt::{AttemptStatus, HistoryEntry, LOOP_WINDOW_SECONDS, LoginAttempt, truncate_id};
use super::format::{ATTEMPT_BYTES, MAX_REPEATS};
use super::other_accounts::OtherCookie;
use crate::login::return_to::{MAX_RETURN_TO_BYTES, ReturnTo};
use crate::login::scope::Scope;
use crate::login::state::LoginState;

/// Maximum length of the pages in each slot, in bytes. The first slot takes pages of any length,
/// the second one medium pages, and the other four short pages, which are the usual ones, also with
/// an origin in front. These lengths keep all login cookies together below 4 KiB.
pub(super) const SLOT_PAGE_BYTES: [usize; 6] = [MAX_RETURN_TO_BYTES, 512, 168, 168, 168, 168];

/// Maximum number of logins in the history: ten. This many logins within [`LOOP_WINDOW_SECONDS`]
/// are a loop, so the detection of loops needs no longer history.
pub(in crate::login) const MAX_HISTORY_ENTRIES: usize = 10;

/// The logins of one browser, as its cookies contain them.
#[derive(Debug, Clone)]
pub(crate) struct BrowserLogins {
    /// The logins whose return page the cookies contain, for each slot.
    pub(super) slots: [Vec<LoginAttempt>; SLOT_PAGE_BYTES.len()],
    pub(super) history: Vec<HistoryEntry>,
    /// `true` for each slot whose cookie has to be written.
    pub(super) slot_changed: [bool; SLOT_PAGE_BYTES.len()],
    pub(super) history_changed: bool,
    /// The number of bytes of each login cookie of this account in the request, and the last
    /// character of its name.
    pub(super) own_cookies: Vec<(char, usize)>,
    /// The login cookies of other accounts in the request.
    pub(super) other_cookies: Vec<OtherCookie>,
    /// The time at which the cookies were read, in seconds since the Unix epoch.
    pub(super) now: u64,
    /// The return page of logins that were evicted from their slot.
    pub(super) start_page: ReturnTo,
}

impl BrowserLogins {
    /// Returns `true` if the browser has no logins.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn is_empty(&self) -> bool {
        self.history.is_empty() && self.slots.iter().all(Vec::is_empty)
    }

    /// Returns the login of a state, if this browser began it. A login that was evicted from its
    /// slot leads to the start page.
    pub(crate) fn find_attempt(&self, state: LoginState) -> Option<LoginAttempt> {
        let mut attempts = self.slots.iter().flatten();
        if let Some(attempt) = attempts.rfind(|attempt| attempt.state == state) {
            return Some(attempt.clone());
        }
        let entry = self.history_entry(state.login_id)?;
        Some(LoginAttempt {
            state,
            scope: entry.scope,
            return_to: self.start_page.clone(),
            status: entry.status.clone(),
            repeats: 0,
        })
    }

    /// Returns `true` if the login of a state has signed its user in.
    pub(crate) fn has_succeeded(&self, state: LoginState) -> bool {
        let status = self.status_of(state.login_id);
        matches!(status, AttemptStatus::SignedIn { .. })
    }

    /// Returns an open login of this browser for the same page and scope that began within the last
    /// minute. Increments the `repeats` of that login.
    pub(crate) fn reuse_attempt(
        &mut self,
        scope: Scope,
        return_to: &ReturnTo,
    ) -> Option<LoginAttempt> {
        let now = self.now;
        for (slot, size) in SLOT_PAGE_BYTES.into_iter().enumerate() {
            let same = |attempt: &&mut LoginAttempt| {
                attempt.status == AttemptStatus::Open
                    && attempt.scope == scope
                    && attempt.return_to == *return_to
                    && attempt.state.issued_at <= now
                    && now < attempt.state.issued_at.saturating_add(LOOP_WINDOW_SECONDS)
            };
            if let Some(attempt) = self.slots[slot].iter_mut().find(same) {
                attempt.repeats = (attempt.repeats + 1).min(MAX_REPEATS);
                let attempt = attempt.clone();
                // If the browser has sent several copies of the cookie, their logins together may
                // exceed the slot. In that case, the slot keeps this login only.
                if self.used_bytes(slot, None) > size {
                    self.slots[slot] = vec![attempt.clone()];
                }
                self.slot_changed[slot] = true;
                return Some(attempt);
            }
        }
        None
    }

    /// Adds a login to a slot. If no slot has room, evicts completed logins first, then the oldest
    /// open ones. The history keeps the ids of evicted open logins, which then lead to the start
    /// page.
    ///
    /// The login goes into an empty slot other than the largest, if the page fits, and otherwise
    /// shares the smallest slot that has room.
    pub(crate) fn add_attempt(&mut self, attempt: LoginAttempt) {
        let length = attempt.return_to.as_str().len();
        // The largest slot is reserved for pages that fit nowhere else, while other slots have
        // room.
        let is_empty =
            |slot: &usize| self.slots[*slot].is_empty() && SLOT_PAGE_BYTES[*slot] >= length;
        let empty_slots: Vec<usize> = (1..SLOT_PAGE_BYTES.len()).filter(is_empty).collect();
        let has_room =
            |slot: &usize| self.used_bytes(*slot, Some(length)) <= SLOT_PAGE_BYTES[*slot];
        let slot = match empty_slots.len() {
            0 => (0..SLOT_PAGE_BYTES.len())
                .rev()
                .find(has_room)
                .unwrap_or_else(|| self.choose_slot_to_evict(length)),
            // The slot is random, because tabs that begin together overwrite each other's cookie of
            // one slot. With random slots, such tabs seldom get the same slot.
            count => empty_slots[fastrand::usize(..count)],
        };
        self.evict_until_fits(slot, length);
        self.slots[slot].push(attempt);
        self.slot_changed[slot] = true;
    }

    /// Returns the number of bytes that the logins of a slot use, with a further page of
    /// `added_length` if there is one.
    fn used_bytes(&self, slot: usize, added_length: Option<usize>) -> usize {
        let lengths = self.slots[slot]
            .iter()
            .map(|attempt| attempt.return_to.as_str().len());
        let lengths = lengths.chain(added_length);
        // The slot's size includes the first login's fields. Each further login uses up room of the
        // pages for its own fields, which base64 lengthens by a third.
        let field_cost = ATTEMPT_BYTES * 4 / 3;
        let (count, pages) =
            lengths.fold((0, 0), |(count, pages), length| (count + 1, pages + length));
        pages + field_cost * usize::max(count, 1) - field_cost
    }

    /// Returns the slot from which logins are evicted: of the slots with room for this length, the
    /// one whose newest login is the oldest. Completed logins count as older than open ones.
    fn choose_slot_to_evict(&self, length: usize) -> usize {
        let newest = |slot: &usize| self.slots[*slot].iter().map(eviction_order).max();
        let candidates = (0..SLOT_PAGE_BYTES.len())
            .rev()
            .filter(|slot| SLOT_PAGE_BYTES[*slot] >= length);
        candidates.min_by_key(newest).unwrap_or(0)
    }

    /// Evicts logins from a slot until a page of this length fits. The history keeps the ids of
    /// evicted open logins.
    fn evict_until_fits(&mut self, slot: usize, length: usize) {
        while !self.slots[slot].is_empty()
            && self.used_bytes(slot, Some(length)) > SLOT_PAGE_BYTES[slot]
        {
            let attempts = self.slots[slot].iter().enumerate();
            let first = attempts.min_by_key(|(_, attempt)| eviction_order(attempt));
            let index = first.map_or(0, |(index, _)| index);
            let evicted = self.slots[slot].remove(index);
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

    /// Records in the history how a login ended, and sets its status in the slots.
    pub(crate) fn record_end(&mut self, attempt: &LoginAttempt) {
        let at = match attempt.status {
            AttemptStatus::SignedIn { at, .. } | AttemptStatus::Retried { at } => at,
            AttemptStatus::Open => attempt.state.issued_at,
        };
        let login_id = attempt.state.login_id;
        self.record(login_id, attempt.scope, attempt.status.clone(), at);
        for known in self.slots.iter_mut().flatten() {
            if known.state == attempt.state {
                known.status = attempt.status.clone();
            }
        }
    }

    /// Puts a login into the history, in place of its former entry. If the history is full, drops
    /// the oldest open login, or the oldest one if none is open.
    fn record(&mut self, login_id: u64, scope: Scope, status: AttemptStatus, at: u64) {
        let login_id = truncate_id(login_id);
        self.history.retain(|entry| entry.login_id != login_id);
        self.history.push(HistoryEntry {
            login_id,
            at,
            scope,
            status,
        });
        while self.history.len() > MAX_HISTORY_ENTRIES {
            let entries = self.history.iter().enumerate();
            // Only logins that have ended count towards a loop, so open logins are dropped first.
            let first =
                entries.min_by_key(|(_, entry)| (entry.status != AttemptStatus::Open, entry.at));
            let index = first.map_or(0, |(index, _)| index);
            self.history.remove(index);
        }
        self.history_changed = true;
    }

    /// Returns the history's entry of a login. If copies of the history differ, prefers entries of
    /// ended logins to entries of open ones, and then the latest entry.
    fn history_entry(&self, login_id: u64) -> Option<&HistoryEntry> {
        let login_id = truncate_id(login_id);
        let entries = self.history.iter();
        let entries = entries.filter(|entry| entry.login_id == login_id);
        entries.max_by_key(|entry| (entry.status != AttemptStatus::Open, entry.at))
    }

    /// Returns how a login ended, according to the history. A login without an entry is open.
    pub(super) fn status_of(&self, login_id: u64) -> AttemptStatus {
        self.history_entry(login_id)
            .map_or(AttemptStatus::Open, |entry| entry.status.clone())
    }

    /// Returns the number of retries of this browser within the last minute.
    pub(crate) fn recent_retries(&self) -> usize {
        self.count_recent(|status| matches!(status, AttemptStatus::Retried { .. }))
    }

    /// Returns the number of completed logins of this browser within the last minute.
    pub(crate) fn recent_logins(&self) -> usize {
        self.count_recent(|status| matches!(status, AttemptStatus::SignedIn { .. }))
    }

    /// Returns the seconds since this browser's last completed login, or `None` without such a
    /// login.
    pub(crate) fn since_login(&self) -> Option<u64> {
        let logins = self.history.iter().filter_map(|entry| match entry.status {
            AttemptStatus::SignedIn { at, .. } => Some(at),
            AttemptStatus::Open | AttemptStatus::Retried { .. } => None,
        });
        logins.max().map(|last| self.now.saturating_sub(last))
    }

    /// Returns `true` if a login of this browser that asked for `scope` has signed a user in within
    /// the last minute.
    pub(crate) fn signed_in_recently_with(&self, scope: Scope) -> bool {
        let mut entries = self.history.iter().filter(|entry| self.is_recent(entry));
        entries.any(|entry| {
            entry.scope == scope && matches!(entry.status, AttemptStatus::SignedIn { .. })
        })
    }

    /// Returns the number of logins of the last minute whose status matches.
    fn count_recent(&self, matches: impl Fn(&AttemptStatus) -> bool) -> usize {
        let entries = self.history.iter();
        let entries = entries.filter(|entry| matches(&entry.status));
        entries.filter(|entry| self.is_recent(entry)).count()
    }

    /// Returns `true` if an entry is less than a minute old.
    fn is_recent(&self, entry: &HistoryEntry) -> bool {
        entry.at.saturating_add(LOOP_WINDOW_SECONDS) > self.now
    }
}

/// Returns the order in which logins are evicted: completed logins before open ones, each by age.
fn eviction_order(attempt: &LoginAttempt) -> (bool, (u64, u64)) {
    (
        attempt.status == AttemptStatus::Open,
        attempt.state.begin_order(),
    )
}
