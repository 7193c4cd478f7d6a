//! The renewal of one credential, as `src/keeper` and the Lua scripts of `src/store/redis` do it:
//! several processes, one store, one WeChat. Each step is one exchange with the store or with
//! WeChat; between any two of them others may act, time may pass, leases may run out and processes
//! may die. A slow reply is a process that takes its next step late.
//!
//! What is left out: requests within a process, which share one flight; a flight that was left
//! behind by a login is a process of its own here, since its lease has a name of its own. And the
//! clock of leases: a lease may run out at any moment, which is worse than any clock. Tombstones do
//! not run out, since they outlive everybody who offers a pair to the store.

use stateright::{Model, Property};

use crate::wechat::{Pair, Rotation, Wechat};

/// What a flight is for: `src/keeper/flight.rs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Need {
    Usable,
    OtherThan(u8),
}

/// How far the flight of a process has come. `seen` is the witness: what it read from the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Step {
    Resting,
    Claiming {
        seen: Pair,
        need: Need,
        /// WeChat has said that the refresh token is dead, and another process renews it.
        dead: bool,
    },
    // The steps from here on are under the lease.
    Asking {
        seen: Pair,
        need: Need,
    },
    Retrying {
        seen: Pair,
        need: Need,
    },
    Committing {
        seen: Pair,
        need: Need,
        answer: Pair,
    },
    /// WeChat has said that the refresh token is dead.
    Announcing {
        seen: Pair,
        need: Need,
    },
    Deleting {
        seen: Pair,
        need: Need,
    },
    Releasing {
        next: Option<(Pair, Need)>,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Process {
    pub step: Step,
    /// The lease in the store bears this process's name.
    pub leases: bool,
    /// The lease ran out under this flight (nobody but the checker knows).
    pub outlived: bool,
    /// Its commit has run and has given the lease back, but the answer was lost (nobody but the
    /// checker knows).
    pub ended: bool,
    /// WeChat had nothing new a moment ago: it is not asked for reports now.
    pub paused: bool,
    /// The lease in the store bears the name of a flight of this process that has ended.
    pub left: bool,
    /// A claim of a flight that has ended, which is still on its way.
    pub late: Option<Pair>,
    /// A task of this process gives that lease back.
    pub gives_back: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct State {
    pub now: u8,
    pub wechat: Wechat,
    pub stored: Option<Pair>,
    /// Names the refresh token of a pair that was, or is about to be, deleted.
    pub tombstone: Option<u8>,
    /// Kept in order: which process is which makes no difference.
    pub processes: Vec<Process>,
    /// The lease bears the name of a process that is no more.
    pub orphaned: bool,
    /// A login that WeChat has granted and the store has not yet.
    pub login: Option<Pair>,
    pub faults: u8,
    pub events: u8,
    pub seen: Seen,
}

/// What the invariants need to remember.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Seen {
    /// For each stored grant: how often WeChat was asked to renew it, less what excuses another
    /// try (a failed try; a holder that died or outlived its lease).
    pub asked: [i8; GRANTS],
    /// Grants that have reached the store, as bits.
    pub stored: u32,
    /// The user was forgotten and has not logged in since.
    pub forgotten: bool,
    pub older_over_newer: bool,
    pub raised_the_dead: bool,
    pub lost: bool,
    /// A lease bears the name of a flight that has ended, and its process does not care.
    pub abandoned: bool,
    pub killed_the_living: bool,
    pub renewed_unasked: bool,
}

/// More grants than any bound of the tests reaches.
const GRANTS: usize = 16;

/// What is wrong with the protocol, if anything: each is a mistake that others have made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutant {
    None,
    /// The lease is taken without reading the store again.
    ClaimWithoutCompare,
    CommitWithoutCompare,
    DeleteWithoutCompare,
    /// The lease is given back whoever has it.
    ReleaseWithoutOwner,
    /// A failure of the network is taken for a dead refresh token.
    DeleteOnFailure,
    /// A commit that the store did not answer is not tried again.
    CommitOnce,
    /// A commit does not mind that another renews by now, whose answer is newer.
    CommitBesideHolder,
    /// Whatever token is reported, the current one is renewed.
    ReportsWithoutCompare,
    /// A dead pair is deleted without a trace.
    NoTombstone,
    /// A logout leaves the tombstone where it is.
    TombstoneAfterLogout,
    /// A pair with the dead refresh token passes for its successor.
    TombstoneForTheDead,
    /// All leases of a process bear one name.
    OneOwner,
    /// A flight whose claim got no answer ends, and nothing else.
    ClaimNotGivenBack,
    /// It gives its lease back once, although the claim may still be on its way.
    ClaimGivenBackOnce,
}

/// The bounds of an exploration.
#[derive(Debug, Clone)]
pub struct Protocol {
    pub processes: usize,
    /// Crashes, leases that run out early, lost messages: so many in all.
    pub faults: u8,
    /// Logins, forgets and reports: so many in all.
    pub events: u8,
    pub time: u8,
    pub rotation: Rotation,
    /// Whether claims that got no answer may come later.
    pub late_claims: bool,
    pub mutant: Mutant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    TimePasses,
    LeaseRunsOut,
    Request(usize),
    Report(usize, u8),
    Claim(usize),
    ClaimAnswerLost(usize),
    /// The claim got no answer, and comes later.
    ClaimLate(usize),
    LateClaim(usize),
    GiveBack(usize),
    Ask(usize),
    AskAnswerLost(usize),
    AskAgain(usize),
    GiveUpAsking(usize),
    Announce(usize),
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
    Forget,
}

impl Process {
    pub fn resting() -> Self {
        Self {
            step: Step::Resting,
            leases: false,
            outlived: false,
            ended: false,
            paused: false,
            left: false,
            late: None,
            gives_back: false,
        }
    }

    /// Whether a process that is no more has left nothing behind.
    pub fn is_idle(&self) -> bool {
        self.step == Step::Resting && !self.leases && !self.left && self.late.is_none()
    }

    /// The witness of a flight that believes it has the lease.
    pub fn holds(&self) -> Option<Pair> {
        match self.step {
            Step::Asking { seen, .. }
            | Step::Retrying { seen, .. }
            | Step::Committing { seen, .. }
            | Step::Announcing { seen, .. }
            | Step::Deleting { seen, .. } => Some(seen),
            _ => None,
        }
    }

    pub fn land(&mut self) {
        self.step = Step::Resting;
        self.outlived = false;
        self.ended = false;
    }
}

impl Protocol {
    /// `Course::judge`: what a flight does next, after it has read the store.
    fn judge(&self, state: &State, stored: Option<Pair>, need: Need, paused: bool) -> Step {
        let Some(pair) = stored else {
            return Step::Resting;
        };
        let meets = match need {
            Need::Usable => true,
            Need::OtherThan(refused) => {
                pair.access != refused && self.mutant != Mutant::ReportsWithoutCompare
            }
        };
        if paused || (meets && !pair.is_due(state.now)) {
            Step::Resting
        } else {
            Step::Claiming {
                seen: pair,
                need,
                dead: false,
            }
        }
    }

    pub fn go_on(&self, state: &mut State, at: usize, stored: Option<Pair>, need: Need) {
        let paused = state.processes[at].paused;
        let step = self.judge(state, stored, need, paused);
        state.processes[at].land();
        state.processes[at].step = step;
    }

    /// The step `Claim`. Answers whether it granted the lease.
    pub fn claim(&self, state: &mut State, at: usize, seen: Pair, need: Need, dead: bool) -> bool {
        if state.stored != Some(seen) && self.mutant != Mutant::ClaimWithoutCompare {
            self.go_on(state, at, state.stored, need);
            return false;
        }
        let granted = self.mutant == Mutant::OneOwner || !state.held_by_another(at);
        if granted {
            state.processes[at].leases = true;
            state.processes[at].outlived = false;
            state.processes[at].step = match dead {
                true => Step::Announcing { seen, need },
                false => Step::Asking { seen, need },
            };
        }
        granted
    }

    /// The step `Claim`, with a tombstone.
    pub fn announce(&self, state: &mut State, at: usize, seen: Pair, need: Need) {
        if state.stored != Some(seen) {
            // The lease is given back before what is stored is judged.
            state.processes[at].leases = false;
            return self.go_on(state, at, state.stored, need);
        }
        if state.held_by_another(at) {
            state.processes[at].step = Step::Claiming {
                seen,
                need,
                dead: true,
            };
            return;
        }
        state.processes[at].leases = true;
        state.bury(self, seen);
        state.processes[at].step = Step::Deleting { seen, need };
    }

    pub fn ask(&self, state: &mut State, at: usize, seen: Pair, need: Need) -> Option<Pair> {
        state.seen.asked[usize::from(seen.grant)] += 1;
        state.seen.renewed_unasked |=
            !seen.is_due(state.now) && need != Need::OtherThan(seen.access);
        let answer = state.wechat.refresh(seen.refresh, state.now, self.rotation);
        state.processes[at].step = match answer {
            Some(answer) => Step::Committing { seen, need, answer },
            None => Step::Announcing { seen, need },
        };
        answer
    }

    /// The step `Commit`. Answers whether it ended the flight's hold.
    pub fn commit(&self, state: &mut State, at: usize) {
        let (seen, need, answer) = match state.processes[at].step {
            Step::Committing { seen, need, answer } => (seen, need, Some(answer)),
            Step::Deleting { seen, need } => (seen, need, None),
            _ => return,
        };
        let compares = match answer {
            Some(_) => self.mutant != Mutant::CommitWithoutCompare,
            None => self.mutant != Mutant::DeleteWithoutCompare,
        };
        let succeeds = answer.is_some_and(|answer| {
            let other = answer.refresh != seen.refresh;
            state.tombstone == Some(seen.refresh)
                && (other || self.mutant == Mutant::TombstoneForTheDead)
        });
        let free = succeeds && state.stored.is_none();
        if compares && state.stored != Some(seen) && !free {
            state.processes[at].leases = false;
            if let Some(answer) = answer {
                state.drop_answer(at, seen, answer);
            }
            return self.go_on(state, at, state.stored, need);
        }
        let beside = answer.is_some() && self.mutant == Mutant::CommitBesideHolder;
        if state.held_by_another(at) && !beside && !succeeds {
            if answer.is_none() {
                state.processes[at].step = Step::Claiming {
                    seen,
                    need,
                    dead: true,
                };
            }
            return;
        }
        match answer {
            Some(answer) => {
                state.seen.older_over_newer |=
                    state.stored.is_some_and(|old| old.grant > answer.grant);
                // What a tombstone lets through is alive, unless a login came meanwhile.
                state.seen.raised_the_dead |= state.stored.is_none()
                    && (state.seen.forgotten || !free || answer.refresh == seen.refresh);
                let same = matches!(need, Need::OtherThan(refused) if refused == answer.access);
                state.processes[at].paused = same;
            }
            None => {
                state.seen.killed_the_living |= state
                    .stored
                    .is_some_and(|old| state.wechat.is_alive(old.refresh));
            }
        }
        state.store(answer);
        if answer.is_none() {
            state.bury(self, seen);
        }
        state.processes[at].leases = false;
        state.processes[at].land();
    }
}

impl State {
    /// How many flights are at work under a lease that has not run out under them.
    pub fn holders(&self) -> usize {
        let at_work = |one: &&Process| one.holds().is_some() && !one.outlived && !one.ended;
        self.processes.iter().filter(at_work).count()
    }

    fn held_by_another(&self, at: usize) -> bool {
        let others = self.processes.iter().enumerate();
        self.orphaned
            || self.processes.iter().any(|one| one.left)
            || others
                .filter(|(other, _)| *other != at)
                .any(|(_, other)| other.leases)
    }

    /// Whether nobody has the lease.
    pub fn is_free(&self) -> bool {
        !self.orphaned && !self.processes.iter().any(|one| one.left || one.leases)
    }

    fn bury(&mut self, protocol: &Protocol, seen: Pair) {
        self.tombstone = (protocol.mutant != Mutant::NoTombstone).then_some(seen.refresh);
    }

    pub fn store(&mut self, pair: Option<Pair>) {
        self.stored = pair;
        self.tombstone = None;
        self.seen.stored |= pair.map_or(0, |pair| 1 << pair.grant);
    }

    pub fn excuse(&mut self, seen: Pair) {
        self.seen.asked[usize::from(seen.grant)] -= 1;
    }

    /// R3: WeChat's answer is let go of. It must have been stored, or something newer, or the user
    /// be gone, or the pair be dead.
    ///
    /// Nobody can be blamed where another process has renewed with the same refresh token meanwhile
    /// and kept it, and only this answer brought another one: between such two renewals a token
    /// expires, which takes two hours, and no flight lasts as long.
    pub fn drop_answer(&mut self, at: usize, seen: Pair, answer: Pair) {
        let it_or_newer_was_stored = self.seen.stored >> answer.grant != 0;
        // The same tokens count, be it with an earlier time: then both had asked before the expiry.
        let tokens = |pair: Pair| (pair.access, pair.refresh);
        let same = self.stored.map(tokens) == Some(tokens(answer));
        // Of a flight that has outlived its lease an access token may be lost, whose refresh token
        // is stored: the next renewal brings it again.
        let again = |stored: Pair| stored.refresh == answer.refresh;
        let again = self.processes[at].outlived && self.stored.is_some_and(again);
        let kept = |stored: Pair| stored.refresh == seen.refresh && answer.refresh != seen.refresh;
        let hours_later = self.stored.is_some_and(kept);
        let dead = !self.wechat.is_alive(answer.refresh);
        let excused = self.seen.forgotten || dead || again || hours_later;
        self.seen.lost |= !it_or_newer_was_stored && !same && !excused;
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
            processes: vec![Process::resting(); self.processes],
            orphaned: false,
            login: None,
            faults: 0,
            events: 0,
            seen: Seen {
                stored: 1,
                ..Seen::default()
            },
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let faulty = state.faults < self.faults;
        if state.now < self.time {
            actions.push(Action::TimePasses);
        }
        if state.orphaned || (faulty && state.processes.iter().any(|one| one.leases)) {
            actions.push(Action::LeaseRunsOut);
        }
        if state.events < self.events {
            actions.extend([Action::LogIn, Action::Forget]);
        }
        if state.login.is_some() {
            actions.push(Action::LoginStored);
            if faulty {
                actions.push(Action::LoginLost);
            }
        }
        for (at, process) in state.processes.iter().enumerate() {
            if at > 0 && state.processes[at - 1] == *process {
                continue; // what its twin does is the same
            }
            let mut perhaps = |fault: Action| actions.extend(faulty.then_some(fault));
            match process.step {
                Step::Resting => {}
                // A process has one such claim at a time here.
                Step::Claiming { .. } if !process.gives_back => {
                    perhaps(Action::ClaimAnswerLost(at));
                    if self.late_claims {
                        perhaps(Action::ClaimLate(at));
                    }
                }
                Step::Claiming { .. } => {}
                Step::Asking { .. } => perhaps(Action::AskAnswerLost(at)),
                Step::Announcing { .. } => {}
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
            if process.late.is_some() {
                actions.push(Action::LateClaim(at));
            }
            if process.gives_back {
                actions.push(Action::GiveBack(at));
            }
            match process.step {
                Step::Resting => {
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
                Step::Claiming { .. } => actions.push(Action::Claim(at)),
                Step::Asking { .. } => actions.push(Action::Ask(at)),
                Step::Retrying { .. } => {
                    actions.extend([Action::AskAgain(at), Action::GiveUpAsking(at)]);
                }
                Step::Committing { .. } => {
                    actions.push(Action::Commit(at));
                    if process.outlived {
                        actions.push(Action::GiveUpCommit(at));
                    }
                }
                Step::Announcing { .. } => actions.push(Action::Announce(at)),
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
