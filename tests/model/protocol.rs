//! The renewal of one credential, as `src/provider` and the Lua scripts of `src/store/redis` run it,
//! by several processes on one store and one WeChat.
//!
//! Each step is one exchange with the store or with WeChat. Between any two steps other processes may
//! act, time may pass, leases may expire and processes may crash. A slow reply is a process that
//! takes its next step late.
//!
//! The model simplifies:
//!
//! - Requests within a process share one call, so the model has one call for each process. A call
//!   that was detached by a login is another process here, since its lease has another name.
//! - A lease may expire at any moment. No real clock is worse.
//! - Tombstones do not expire: they last longer than any process offers a pair to the store.

use stateright::{Model, Property};

use crate::wechat::{Pair, Rotation, Wechat};

/// The token that a call has to return: any, or another one than the reported token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Wanted {
    Any,
    Replacing(u8),
}

/// Next step of a process's call. `expected` is the pair that the call has read from the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Step {
    Idle,
    Acquiring {
        expected: Pair,
        wanted: Wanted,
        /// `true` if WeChat has rejected the refresh token. With the lease, the call then writes a
        /// tombstone instead of a renewal.
        grant_error: bool,
    },
    // In the steps from `Renewing` to `Deleting`, the call assumes that it holds the lease.
    Renewing {
        expected: Pair,
        wanted: Wanted,
    },
    Retrying {
        expected: Pair,
        wanted: Wanted,
    },
    Committing {
        expected: Pair,
        wanted: Wanted,
        answer: Pair,
    },
    /// WeChat has rejected the refresh token, and the call is about to write a tombstone.
    WritingTombstone {
        expected: Pair,
        wanted: Wanted,
    },
    Deleting {
        expected: Pair,
        wanted: Wanted,
    },
    Releasing {
        next: Option<(Pair, Wanted)>,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Process {
    pub step: Step,
    /// `true` if the lease in the store has the name of this process's call.
    pub leases: bool,
    /// `true` if the lease expired during this call. Only the checker reads this.
    pub lease_expired: bool,
    /// `true` if the store has run the commit, which released the lease, and the reply was lost.
    /// Only the checker reads this.
    pub commit_unconfirmed: bool,
    /// `true` if a renewal returned the reported token once more. Until time passes, the process
    /// makes no further call.
    pub suppressed: bool,
    /// `true` if the lease in the store has the name of a call that has ended.
    pub abandoned_lease: bool,
    /// The pair of an acquire command whose call has ended and which has not reached the store yet.
    pub late_acquire: Option<Pair>,
    /// `true` if a task of this process releases the lease of an ended call.
    pub releases_abandoned: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct State {
    pub now: u8,
    pub wechat: Wechat,
    pub stored: Option<Pair>,
    /// The refresh token of a pair that was, or is about to be, deleted.
    pub tombstone: Option<u8>,
    /// The processes, sorted, so that the checker explores states once that differ only in their
    /// order.
    pub processes: Vec<Process>,
    /// `true` if the lease has the name of a process that has crashed.
    pub orphaned_lease: bool,
    /// A login's pair that WeChat has issued and the store does not have yet.
    pub login: Option<Pair>,
    pub faults: u8,
    pub events: u8,
    pub history: History,
}

/// Facts about the past that the properties need.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct History {
    /// For each stored pair, the number of calls to renew it. A call does not count if it had to be
    /// repeated because of a failure, a crash of the holder or an expired lease.
    pub renewals: [i8; GRANTS],
    /// Numbers of the pairs that have reached the store, as bits.
    pub stored: u32,
    /// `true` if the user was revoked and has not logged in since.
    pub revoked: bool,
    pub older_over_newer: bool,
    pub restored_deleted_pair: bool,
    pub lost: bool,
    /// `true` if a lease has the name of a call that has ended, and no task of its process releases
    /// it.
    pub never_released: bool,
    pub deleted_valid_pair: bool,
    pub renewed_without_reason: bool,
}

/// Maximum number of pairs in a run, 16. The bounds of the tests allow fewer.
const GRANTS: usize = 16;

/// A mistake that a test puts into the protocol. Each mistake is known from other systems.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutant {
    None,
    /// Acquires the lease without comparing the stored pair.
    AcquireWithoutCompare,
    CommitWithoutCompare,
    DeleteWithoutCompare,
    /// Releases the lease even if it has another process's name.
    ReleaseWithoutOwner,
    /// Treats a network failure as a rejection of the refresh token.
    DeleteOnFailure,
    /// Gives up a commit after one attempt without a reply.
    CommitOnce,
    /// Commits although another process holds the lease.
    CommitBesideHolder,
    /// Renews the stored token even if another token was reported.
    ReportsWithoutCompare,
    /// Deletes an expired pair without writing a tombstone.
    NoTombstone,
    /// Keeps the tombstone when the user logs out.
    TombstoneAfterLogout,
    /// Lets a pair replace a tombstone although the pair has the tombstone's own refresh token.
    TombstoneAllowsSameToken,
    /// Gives all leases of a process one name.
    OneOwner,
    /// Does not release a lease whose acquisition got no reply.
    AbandonedNotReleased,
    /// Releases a lease whose acquisition got no reply only once, although the command may arrive
    /// later.
    AbandonedReleasedOnce,
}

/// Bounds of an exploration, and the mistake in it.
#[derive(Debug, Clone)]
pub struct Protocol {
    pub processes: usize,
    /// Maximum number of crashes, leases that expire early and lost messages.
    pub faults: u8,
    /// Maximum number of logins, revocations and reports.
    pub events: u8,
    pub time: u8,
    pub rotation: Rotation,
    /// `true` if a command without a reply may reach the store later.
    pub late_acquires: bool,
    pub mutant: Mutant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    TimePasses,
    LeaseRunsOut,
    Request(usize),
    Report(usize, u8),
    Acquire(usize),
    AcquireAnswerLost(usize),
    /// A command to acquire the lease gets no reply, and reaches the store later.
    AcquireLate(usize),
    LateAcquire(usize),
    ReleaseAbandoned(usize),
    Renew(usize),
    RenewAnswerLost(usize),
    RetryRenewal(usize),
    GiveUpRenewal(usize),
    WriteTombstone(usize),
    Commit(usize),
    CommitLost(usize),
    CommitAnswerLost(usize),
    GiveUpCommit(usize),
    Release(usize),
    ReleaseLost(usize),
    Crash(usize),
    LogIn,
    LoginStored,
    LoginLost,
    Revoke,
}

impl Process {
    pub fn idle() -> Self {
        Self {
            step: Step::Idle,
            leases: false,
            lease_expired: false,
            commit_unconfirmed: false,
            suppressed: false,
            abandoned_lease: false,
            late_acquire: None,
            releases_abandoned: false,
        }
    }

    /// Returns `true` if no call of the process is under way, and no lease has its name.
    pub fn is_idle(&self) -> bool {
        self.step == Step::Idle
            && !self.leases
            && !self.abandoned_lease
            && self.late_acquire.is_none()
    }

    /// Returns the pair that a call has read, if the call assumes that it holds the lease.
    pub fn holds(&self) -> Option<Pair> {
        match self.step {
            Step::Renewing { expected, .. }
            | Step::Retrying { expected, .. }
            | Step::Committing { expected, .. }
            | Step::WritingTombstone { expected, .. }
            | Step::Deleting { expected, .. } => Some(expected),
            _ => None,
        }
    }

    pub fn end(&mut self) {
        self.step = Step::Idle;
        self.lease_expired = false;
        self.commit_unconfirmed = false;
    }
}

impl Protocol {
    /// Returns the next step of a call that has read the store: `RenewalTask::decide`.
    fn decide(
        &self,
        state: &State,
        stored: Option<Pair>,
        wanted: Wanted,
        suppressed: bool,
    ) -> Step {
        let Some(pair) = stored else {
            return Step::Idle;
        };
        let meets = match wanted {
            Wanted::Any => true,
            Wanted::Replacing(refused) => {
                pair.access != refused && self.mutant != Mutant::ReportsWithoutCompare
            }
        };
        if suppressed || (meets && !pair.is_due(state.now)) {
            Step::Idle
        } else {
            Step::Acquiring {
                expected: pair,
                wanted,
                grant_error: false,
            }
        }
    }

    pub fn go_on(&self, state: &mut State, at: usize, stored: Option<Pair>, wanted: Wanted) {
        let suppressed = state.processes[at].suppressed;
        let step = self.decide(state, stored, wanted, suppressed);
        state.processes[at].end();
        state.processes[at].step = step;
    }

    /// Runs the step `Acquire`. Returns `true` if the process gets the lease.
    pub fn acquire(
        &self,
        state: &mut State,
        at: usize,
        expected: Pair,
        wanted: Wanted,
        grant_error: bool,
    ) -> bool {
        if state.stored != Some(expected) && self.mutant != Mutant::AcquireWithoutCompare {
            self.go_on(state, at, state.stored, wanted);
            return false;
        }
        let granted = self.mutant == Mutant::OneOwner || !state.is_busy_for(at);
        if granted {
            state.processes[at].leases = true;
            state.processes[at].lease_expired = false;
            state.processes[at].step = match grant_error {
                true => Step::WritingTombstone { expected, wanted },
                false => Step::Renewing { expected, wanted },
            };
        }
        granted
    }

    /// Acquires the lease again and writes a tombstone, in one step. If another process has the
    /// lease, the call waits for it.
    pub fn write_tombstone(&self, state: &mut State, at: usize, expected: Pair, wanted: Wanted) {
        if state.stored != Some(expected) {
            // The call releases the lease before it decides about the newer pair.
            state.processes[at].leases = false;
            return self.go_on(state, at, state.stored, wanted);
        }
        if state.is_busy_for(at) {
            state.processes[at].step = Step::Acquiring {
                expected,
                wanted,
                grant_error: true,
            };
            return;
        }
        state.processes[at].leases = true;
        state.put_tombstone(self, expected);
        state.processes[at].step = Step::Deleting { expected, wanted };
    }

    pub fn renew(
        &self,
        state: &mut State,
        at: usize,
        expected: Pair,
        wanted: Wanted,
    ) -> Option<Pair> {
        state.history.renewals[usize::from(expected.grant)] += 1;
        state.history.renewed_without_reason |=
            !expected.is_due(state.now) && wanted != Wanted::Replacing(expected.access);
        let answer = state
            .wechat
            .refresh(expected.refresh, state.now, self.rotation);
        state.processes[at].step = match answer {
            Some(answer) => Step::Committing {
                expected,
                wanted,
                answer,
            },
            None => Step::WritingTombstone { expected, wanted },
        };
        answer
    }

    /// Runs the step `Commit`, which writes or deletes the pair and releases the lease.
    pub fn commit(&self, state: &mut State, at: usize) {
        let (expected, wanted, answer) = match state.processes[at].step {
            Step::Committing {
                expected,
                wanted,
                answer,
            } => (expected, wanted, Some(answer)),
            Step::Deleting { expected, wanted } => (expected, wanted, None),
            _ => return,
        };
        let compares = match answer {
            Some(_) => self.mutant != Mutant::CommitWithoutCompare,
            None => self.mutant != Mutant::DeleteWithoutCompare,
        };
        let succeeds = answer.is_some_and(|answer| {
            let other = answer.refresh != expected.refresh;
            state.tombstone == Some(expected.refresh)
                && (other || self.mutant == Mutant::TombstoneAllowsSameToken)
        });
        let free = succeeds && state.stored.is_none();
        if compares && state.stored != Some(expected) && !free {
            state.processes[at].leases = false;
            if let Some(answer) = answer {
                state.drop_answer(at, expected, answer);
            }
            return self.go_on(state, at, state.stored, wanted);
        }
        let beside = answer.is_some() && self.mutant == Mutant::CommitBesideHolder;
        if state.is_busy_for(at) && !beside && !succeeds {
            if answer.is_none() {
                state.processes[at].step = Step::Acquiring {
                    expected,
                    wanted,
                    grant_error: true,
                };
            }
            return;
        }
        match answer {
            Some(answer) => {
                state.history.older_over_newer |=
                    state.stored.is_some_and(|old| old.grant > answer.grant);
                // A pair may be stored after a deletion if the tombstone allows it: with another
                // refresh token, and not after a revocation.
                state.history.restored_deleted_pair |= state.stored.is_none()
                    && (state.history.revoked || !free || answer.refresh == expected.refresh);
                let same = matches!(wanted, Wanted::Replacing(refused) if refused == answer.access);
                state.processes[at].suppressed = same;
            }
            None => {
                state.history.deleted_valid_pair |= state
                    .stored
                    .is_some_and(|old| state.wechat.is_alive(old.refresh));
            }
        }
        state.store(answer);
        if answer.is_none() {
            state.put_tombstone(self, expected);
        }
        state.processes[at].leases = false;
        state.processes[at].end();
    }
}

impl State {
    /// Returns the number of calls that hold a lease which has not expired.
    pub fn holders(&self) -> usize {
        let at_work =
            |one: &&Process| one.holds().is_some() && !one.lease_expired && !one.commit_unconfirmed;
        self.processes.iter().filter(at_work).count()
    }

    fn is_busy_for(&self, at: usize) -> bool {
        let others = self.processes.iter().enumerate();
        self.orphaned_lease
            || self.processes.iter().any(|one| one.abandoned_lease)
            || others
                .filter(|(other, _)| *other != at)
                .any(|(_, other)| other.leases)
    }

    /// Returns `true` if the store has no lease.
    pub fn is_free(&self) -> bool {
        !self.orphaned_lease
            && !self
                .processes
                .iter()
                .any(|one| one.abandoned_lease || one.leases)
    }

    fn put_tombstone(&mut self, protocol: &Protocol, expected: Pair) {
        self.tombstone = (protocol.mutant != Mutant::NoTombstone).then_some(expected.refresh);
    }

    pub fn store(&mut self, pair: Option<Pair>) {
        self.stored = pair;
        self.tombstone = None;
        self.history.stored |= pair.map_or(0, |pair| 1 << pair.grant);
    }

    pub fn excuse(&mut self, expected: Pair) {
        self.history.renewals[usize::from(expected.grant)] -= 1;
    }

    /// Drops a response of WeChat, and records whether its pair is lost. The pair is not lost if
    /// the store had this pair or a newer one, or if it is revoked.
    ///
    /// One case is excused: another process has renewed with the same refresh token meanwhile and
    /// kept that token, and only this response has a new one. A token expires between two such
    /// renewals, which takes two hours. No call lasts as long.
    pub fn drop_answer(&mut self, at: usize, expected: Pair, answer: Pair) {
        let it_or_newer_was_stored = self.history.stored >> answer.grant != 0;
        // A stored pair with the same tokens and an earlier time is as good: WeChat received both
        // calls before the token expired.
        let tokens = |pair: Pair| (pair.access, pair.refresh);
        let same = self.stored.map(tokens) == Some(tokens(answer));
        // A call whose lease has expired may lose an access token if its refresh token is stored:
        // the next renewal returns that access token again.
        let again = |stored: Pair| stored.refresh == answer.refresh;
        let again = self.processes[at].lease_expired && self.stored.is_some_and(again);
        let kept =
            |stored: Pair| stored.refresh == expected.refresh && answer.refresh != expected.refresh;
        let hours_later = self.stored.is_some_and(kept);
        let grant_error = !self.wechat.is_alive(answer.refresh);
        let excused = self.history.revoked || grant_error || again || hours_later;
        self.history.lost |= !it_or_newer_was_stored && !same && !excused;
    }
}

impl Model for Protocol {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let pair = Pair {
            access: 0,
            refresh: 0,
            grant: 0,
            at: 0,
        };
        vec![State {
            now: 0,
            wechat: Wechat::new(pair),
            stored: Some(pair),
            tombstone: None,
            processes: vec![Process::idle(); self.processes],
            orphaned_lease: false,
            login: None,
            faults: 0,
            events: 0,
            history: History {
                stored: 1,
                ..History::default()
            },
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let faulty = state.faults < self.faults;
        if state.now < self.time {
            actions.push(Action::TimePasses);
        }
        if state.orphaned_lease || (faulty && state.processes.iter().any(|one| one.leases)) {
            actions.push(Action::LeaseRunsOut);
        }
        if state.events < self.events {
            actions.extend([Action::LogIn, Action::Revoke]);
        }
        if state.login.is_some() {
            actions.push(Action::LoginStored);
            if faulty {
                actions.push(Action::LoginLost);
            }
        }
        for (at, process) in state.processes.iter().enumerate() {
            if at > 0 && state.processes[at - 1] == *process {
                continue; // an equal process has the same actions
            }
            let mut perhaps = |fault: Action| actions.extend(faulty.then_some(fault));
            match process.step {
                Step::Idle => {}
                // In the model, a process has at most one lease of an ended call at a time.
                Step::Acquiring { .. } if !process.releases_abandoned => {
                    perhaps(Action::AcquireAnswerLost(at));
                    if self.late_acquires {
                        perhaps(Action::AcquireLate(at));
                    }
                }
                Step::Acquiring { .. } => {}
                Step::Renewing { .. } => perhaps(Action::RenewAnswerLost(at)),
                Step::WritingTombstone { .. } => {}
                Step::Committing { .. } | Step::Deleting { .. } => {
                    perhaps(Action::CommitLost(at));
                    perhaps(Action::CommitAnswerLost(at));
                }
                Step::Releasing { .. } => perhaps(Action::ReleaseLost(at)),
                Step::Retrying { .. } => {}
            }
            if !process.is_idle() {
                perhaps(Action::Crash(at));
            }
            if process.late_acquire.is_some() {
                actions.push(Action::LateAcquire(at));
            }
            if process.releases_abandoned {
                actions.push(Action::ReleaseAbandoned(at));
            }
            match process.step {
                Step::Idle => {
                    actions.push(Action::Request(at));
                    if state.events < self.events {
                        actions.push(Action::Report(at, 0));
                        let current = state.stored.map(|pair| pair.access);
                        actions.extend(
                            current
                                .filter(|it| *it != 0)
                                .map(|it| Action::Report(at, it)),
                        );
                    }
                }
                Step::Acquiring { .. } => actions.push(Action::Acquire(at)),
                Step::Renewing { .. } => actions.push(Action::Renew(at)),
                Step::Retrying { .. } => {
                    actions.extend([Action::RetryRenewal(at), Action::GiveUpRenewal(at)]);
                }
                Step::Committing { .. } => {
                    actions.push(Action::Commit(at));
                    if process.lease_expired {
                        actions.push(Action::GiveUpCommit(at));
                    }
                }
                Step::WritingTombstone { .. } => actions.push(Action::WriteTombstone(at)),
                Step::Deleting { .. } => actions.push(Action::Commit(at)),
                Step::Releasing { .. } => actions.push(Action::Release(at)),
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        crate::steps::take(self, &mut state, action);
        state.processes.sort();
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        crate::invariants::all()
    }

    fn within_boundary(&self, state: &State) -> bool {
        usize::from(state.wechat.live.grant) < GRANTS
    }
}
