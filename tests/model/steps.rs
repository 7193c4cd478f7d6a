//! What each action does to the state.

use crate::protocol::{Action, Mutant, Need, Process, Protocol, State, Step};

pub fn take(protocol: &Protocol, state: &mut State, action: Action) {
    match action {
        Action::TimePasses => {
            state.now += 1;
            state
                .processes
                .iter_mut()
                .for_each(|one| one.paused = false);
        }
        Action::LeaseRunsOut => lease_runs_out(state),
        Action::Request(at) => protocol.go_on(state, at, state.stored, Need::Usable),
        Action::Report(at, refused) => {
            state.events += 1;
            protocol.go_on(state, at, state.stored, Need::OtherThan(refused));
        }
        Action::Claim(at) => {
            claim(protocol, state, at);
        }
        Action::ClaimAnswerLost(at) => {
            state.faults += 1;
            if claim(protocol, state, at) {
                state.processes[at].leases = false;
                state.processes[at].left = true;
            }
            state.processes[at].land();
            gives_back(protocol, state, at);
        }
        Action::ClaimLate(at) => {
            state.faults += 1;
            if let Step::Claiming { seen, .. } = state.processes[at].step {
                state.processes[at].late = Some(seen);
            }
            state.processes[at].land();
            gives_back(protocol, state, at);
        }
        // The step `Claim`, whose answer nobody hears.
        Action::LateClaim(at) => {
            let seen = state.processes[at].late.take();
            if state.stored == seen && state.is_free() {
                state.processes[at].left = true;
                state.seen.abandoned |= !state.processes[at].gives_back;
            }
        }
        // `lease::give_back`, until the claim can be on its way no more.
        Action::GiveBack(at) => {
            let process = &mut state.processes[at];
            process.left = false;
            process.gives_back =
                process.late.is_some() && protocol.mutant != Mutant::ClaimGivenBackOnce;
        }
        Action::Announce(at) => {
            if let Step::Announcing { seen, need } = state.processes[at].step {
                protocol.announce(state, at, seen, need);
            }
        }
        Action::Ask(at) => {
            if let Step::Asking { seen, need } = state.processes[at].step {
                protocol.ask(state, at, seen, need);
            }
        }
        Action::AskAnswerLost(at) => {
            let Step::Asking { seen, need } = state.processes[at].step else {
                return;
            };
            state.faults += 1;
            protocol.ask(state, at, seen, need);
            state.excuse(seen);
            state.processes[at].step = match protocol.mutant {
                Mutant::DeleteOnFailure => Step::Announcing { seen, need },
                _ => Step::Retrying { seen, need },
            };
        }
        // `Course::overtaken`: the store is looked at before the next try.
        Action::AskAgain(at) => {
            if let Step::Retrying { seen, need } = state.processes[at].step {
                state.processes[at].step = match state.stored {
                    Some(same) if same == seen => Step::Asking { seen, need },
                    newer => Step::Releasing {
                        next: newer.map(|newer| (newer, need)),
                    },
                };
            }
        }
        Action::GiveUpAsking(at) => state.processes[at].step = Step::Releasing { next: None },
        Action::Commit(at) => protocol.commit(state, at),
        Action::CommitLost(at) => {
            state.faults += 1;
            commit_lost(protocol, state, at);
        }
        Action::CommitAnswerLost(at) => {
            state.faults += 1;
            let before = state.processes[at].step;
            let outlived = state.processes[at].outlived;
            protocol.commit(state, at);
            // The store has done what it does; the flight knows nothing of it and tries again.
            match before {
                Step::Committing { .. } if protocol.mutant != Mutant::CommitOnce => {
                    let process = &mut state.processes[at];
                    process.ended |= process.step != before;
                    process.step = before;
                    process.outlived = outlived;
                }
                _ => state.processes[at].land(),
            }
        }
        Action::GiveUpCommit(at) => state.processes[at].land(),
        Action::Release(at) => release(protocol, state, at),
        Action::ReleaseLost(at) => {
            state.faults += 1;
            after_release(protocol, state, at);
        }
        Action::Crash(at) => crash(state, at),
        Action::LogIn => {
            state.events += 1;
            // Of two logins at once the checker looks at the later one.
            state.login = Some(state.wechat.log_in(state.now));
        }
        Action::LoginStored => {
            let login = state.login.take();
            state.store(login);
            state.seen.forgotten = false;
        }
        Action::LoginLost => {
            state.faults += 1;
            state.login = None;
        }
        Action::Forget => {
            state.events += 1;
            let tombstone = state.tombstone;
            state.store(None);
            if protocol.mutant == Mutant::TombstoneAfterLogout {
                state.tombstone = tombstone;
            }
            state.seen.forgotten = true;
        }
    }
}

fn claim(protocol: &Protocol, state: &mut State, at: usize) -> bool {
    match state.processes[at].step {
        Step::Claiming { seen, need, dead } => protocol.claim(state, at, seen, need, dead),
        _ => false,
    }
}

/// A flight whose claim got no answer leaves a task behind.
fn gives_back(protocol: &Protocol, state: &mut State, at: usize) {
    let process = &mut state.processes[at];
    process.gives_back = protocol.mutant != Mutant::ClaimNotGivenBack;
    state.seen.abandoned |= process.left && !process.gives_back;
}

fn lease_runs_out(state: &mut State) {
    if std::mem::take(&mut state.orphaned) {
        return; // its time has come: that is no fault
    }
    state.faults += 1;
    for process in &mut state.processes {
        process.left = false;
    }
    let Some(at) = state.processes.iter().position(|one| one.leases) else {
        return;
    };
    state.processes[at].leases = false;
    if let Some(seen) = state.processes[at].holds() {
        state.processes[at].outlived = true;
        state.excuse(seen);
    }
}

/// The store does not answer, and has not done anything.
fn commit_lost(protocol: &Protocol, state: &mut State, at: usize) {
    match state.processes[at].step {
        Step::Committing { seen, answer, .. } if protocol.mutant == Mutant::CommitOnce => {
            state.drop_answer(at, seen, answer);
            state.processes[at].land();
        }
        Step::Committing { .. } => {}
        Step::Deleting { seen, .. } => {
            state.excuse(seen);
            state.processes[at].land();
        }
        _ => {}
    }
}

/// The script `RELEASE`.
fn release(protocol: &Protocol, state: &mut State, at: usize) {
    if protocol.mutant == Mutant::ReleaseWithoutOwner {
        state
            .processes
            .iter_mut()
            .for_each(|one| (one.leases, one.left) = (false, false));
        state.orphaned = false;
    }
    if protocol.mutant == Mutant::OneOwner {
        let all = state.processes.iter_mut();
        all.for_each(|one| one.leases = false);
    }
    state.processes[at].leases = false;
    after_release(protocol, state, at);
}

fn after_release(protocol: &Protocol, state: &mut State, at: usize) {
    match state.processes[at].step {
        Step::Releasing {
            next: Some((newer, need)),
        } => protocol.go_on(state, at, Some(newer), need),
        _ => state.processes[at].land(),
    }
}

/// Another process starts in its place, under another name.
fn crash(state: &mut State, at: usize) {
    state.faults += 1;
    let process = std::mem::replace(&mut state.processes[at], Process::resting());
    state.orphaned |= process.leases || process.left;
    let asked = matches!(
        process.step,
        Step::Committing { .. } | Step::Announcing { .. } | Step::Deleting { .. }
    );
    if let Some(seen) = process.holds().filter(|_| asked && !process.outlived) {
        state.excuse(seen);
    }
}
