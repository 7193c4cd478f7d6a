//! All logins that one browser has in its cookies: finding one, adding one, and counting loops.

use super::attempt::{AttemptStatus, HistoryEntry, LoginAttempt};
use super::format::{ATTEMPT_BYTES, MAX_REPEATS};
use crate::login::return_to::{MAX_RETURN_TO_BYTES, ReturnTo};
use crate::login::scope::Scope;
use crate::login::state::LoginState;

/// The longest pages of each place, in bytes: one of any length, one of middling length, and four
/// as most pages are.
pub(super) const SLOT_PAGE_BYTES: [usize; 6] = [MAX_RETURN_TO_BYTES, 1_024, 40, 40, 40, 40];

/// How many logins the trail remembers.
pub(in crate::login) const MAX_HISTORY_ENTRIES: usize = 10;

/// Within which time loops are looked for, in seconds.
pub(in crate::login) const LOOP_WINDOW_SECONDS: u64 = 60;

/// What one browser has of its logins.
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
                attempt.repeats = (attempt.repeats + 1).min(MAX_REPEATS);
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

    pub(super) fn status_of(&self, login_id: u64) -> AttemptStatus {
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
pub(super) fn truncate_id(login_id: u64) -> u64 {
    login_id & 0xffff_ffff_ffff
}
