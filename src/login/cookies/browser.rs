//! All logins that one browser has in its cookies: finding one, adding one, and counting loops.

use super::attempt::{AttemptStatus, HistoryEntry, LoginAttempt};
use super::format::{ATTEMPT_BYTES, MAX_REPEATS};
use crate::login::return_to::{MAX_RETURN_TO_BYTES, ReturnTo};
use crate::login::scope::Scope;
use crate::login::state::LoginState;

/// Maximum length of the pages in each slot, in bytes: one slot for pages of any length, one for medium
/// pages, and four for most pages.
pub(super) const SLOT_PAGE_BYTES: [usize; 6] = [MAX_RETURN_TO_BYTES, 1_024, 40, 40, 40, 40];

/// Maximum number of logins in the history.
pub(in crate::login) const MAX_HISTORY_ENTRIES: usize = 10;

/// Window in which loops are detected, in seconds.
pub(in crate::login) const LOOP_WINDOW_SECONDS: u64 = 60;

/// The logins of one browser.
#[derive(Debug, Clone)]
pub(crate) struct BrowserLogins {
    pub(super) slots: [Vec<LoginAttempt>; SLOT_PAGE_BYTES.len()],
    pub(super) history: Vec<HistoryEntry>,
    pub(super) slot_changed: [bool; SLOT_PAGE_BYTES.len()],
    pub(super) history_changed: bool,
    pub(super) now: u64,
    pub(super) start_page: ReturnTo,
}

impl BrowserLogins {
    /// Returns `true` if the browser has no logins.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn is_empty(&self) -> bool {
        self.history.is_empty() && self.slots.iter().all(Vec::is_empty)
    }

    /// Returns the login of a state, if this browser began it. A login that was evicted from its slot
    /// leads to the start page.
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

    /// Returns `true` if the login of a state has signed its user in.
    pub(crate) fn has_succeeded(&self, state: LoginState) -> bool {
        let progress = self.status_of(state.login_id);
        matches!(progress, AttemptStatus::SignedIn { .. })
    }

    /// Returns an open login of this browser for the same page and scope that began within the last
    /// minute. Increments its repeats.
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
                attempt.repeats = (attempt.repeats + 1).min(MAX_REPEATS);
                let attempt = attempt.clone();
                // Merged copies of the cookie may exceed the slot: keep only this login.
                if self.used_bytes(place, None) > size {
                    self.slots[place] = vec![attempt.clone()];
                }
                self.slot_changed[place] = true;
                return Some(attempt);
            }
        }
        None
    }

    /// Adds a login to a slot. If no slot has room, evicts completed logins first, then the oldest open
    /// ones. The history keeps the ids of evicted open logins.
    pub(crate) fn add_attempt(&mut self, attempt: LoginAttempt) {
        let length = attempt.return_to.as_str().len();
        // The largest slot is reserved for pages that fit nowhere else, while other slots have room.
        let empty =
            |place: &usize| self.slots[*place].is_empty() && SLOT_PAGE_BYTES[*place] >= length;
        let empties: Vec<usize> = (1..SLOT_PAGE_BYTES.len()).filter(empty).collect();
        let place = match empties.len() {
            0 => (0..SLOT_PAGE_BYTES.len())
                .rev()
                .find(|place| self.used_bytes(*place, Some(length)) <= SLOT_PAGE_BYTES[*place])
                .unwrap_or_else(|| self.choose_slot_to_evict(length)),
            // A random slot, so that tabs that begin together seldom use the same one.
            several => empties[fastrand::usize(..several)],
        };
        self.evict_until_fits(place, length);
        self.slots[place].push(attempt);
        self.slot_changed[place] = true;
    }

    /// Returns the used bytes of a slot, with a further page of `added_length` if there is one.
    fn used_bytes(&self, slot: usize, added_length: Option<usize>) -> usize {
        let lengths = self.slots[slot]
            .iter()
            .map(|one| one.return_to.as_str().len());
        let lengths = lengths.chain(added_length);
        // The slot's size includes the first login's fields. Each further login uses up room of the
        // pages for its own fields, in base64.
        let cost = ATTEMPT_BYTES * 4 / 3;
        let (count, pages) = lengths.fold((0, 0), |(count, all), one| (count + 1, all + one));
        pages + cost * usize::max(count, 1) - cost
    }

    /// Returns the slot of sufficient size whose newest login is evicted first.
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

    /// Evicts logins from a slot until a page of this length fits. The history keeps the ids of open
    /// ones.
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

    /// Records how a login ended.
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
        // If two copies of the history differ, the entry that has ended, and then the later one, counts.
        steps.max_by_key(|step| (step.status != AttemptStatus::Open, step.at))
    }

    pub(super) fn status_of(&self, login_id: u64) -> AttemptStatus {
        self.history_entry(login_id)
            .map_or(AttemptStatus::Open, |step| step.status.clone())
    }

    /// Returns the number of retries of this browser within the last minute.
    pub(crate) fn recent_retries(&self) -> usize {
        self.count_recent(|progress| matches!(progress, AttemptStatus::Retried { .. }))
    }

    /// Returns the number of completed logins of this browser within the last minute.
    pub(crate) fn recent_logins(&self) -> usize {
        self.count_recent(|progress| matches!(progress, AttemptStatus::SignedIn { .. }))
    }

    /// Returns the seconds since this browser's last completed login.
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

/// Returns the order in which logins are evicted: completed logins before open ones, each by age.
fn eviction_order(attempt: &LoginAttempt) -> (bool, (u64, u64)) {
    (
        attempt.status == AttemptStatus::Open,
        attempt.state.begin_order(),
    )
}

/// Returns the six bytes of an id that the history keeps: enough within one browser.
pub(super) fn truncate_id(login_id: u64) -> u64 {
    login_id & 0xffff_ffff_ffff
}
