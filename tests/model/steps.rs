//! The effect of each action on the state.

use crate::protocol::{Action, Mutant, Process, Protocol, State, Step, Wanted};

pub fn take(protocol: &Protocol, state: &mut State, action: Action) {
    match action {
        Action::TimePasses => {
            state.now += 1;
            state
                .processes
                .iter_mut()
                .for_each(|one| one.suppressed = false);
        }
        Action::LeaseRunsOut => lease_runs_out(state),
        Action::Request(at) => protocol.go_on(state, at, state.stored, Wanted::Any),
        Action::Report(at, refused) => {
            state.events += 1;
            protocol.go_on(state, at, state.stored, Wanted::Replacing(refused));
        }
        Action::Acquire(at) => {
            acquire(protocol, state, at);
        }
        Action::AcquireAnswerLost(at) => {
            state.faults += 1;
            if acquire(protocol, state, at) {
                state.processes[at].leases = false;
                state.processes[at].abandoned_lease = true;
            }
            state.processes[at].end();
            releases_abandoned(protocol, state, at);
        }
        Action::AcquireLate(at) => {
            state.faults += 1;
            if let Step::Acquiring { expected, .. } = state.processes[at].step {
                state.processes[at].late_acquire = Some(expected);
            }
            state.processes[at].end();
            releases_abandoned(protocol, state, at);
        }
        // The store runs an acquire command whose call has ended.
        Action::LateAcquire(at) => {
            let expected = state.processes[at].late_acquire.take();
            if state.stored == expected && state.is_free() {
                state.processes[at].abandoned_lease = true;
                state.history.never_released |= !state.processes[at].releases_abandoned;
            }
        }
        // One attempt of `lease::release_abandoned`, which repeats until the command has arrived.
        Action::ReleaseAbandoned(at) => {
            let process = &mut state.processes[at];
            process.abandoned_lease = false;
            process.releases_abandoned =
                process.late_acquire.is_some() && protocol.mutant != Mutant::AbandonedReleasedOnce;
        }
        Action::WriteTombstone(at) => {
            if let Step::WritingTombstone { expected, wanted } = state.processes[at].step {
                protocol.write_tombstone(state, at, expected, wanted);
            }
        }
        Action::Renew(at) => {
            if let Step::Renewing { expected, wanted } = state.processes[at].step {
                protocol.renew(state, at, expected, wanted);
            }
        }
        Action::RenewAnswerLost(at) => {
            let Step::Renewing { expected, wanted } = state.processes[at].step else {
                return;
            };
            state.faults += 1;
            protocol.renew(state, at, expected, wanted);
            state.excuse(expected);
            state.processes[at].step = match protocol.mutant {
                Mutant::DeleteOnFailure => Step::WritingTombstone { expected, wanted },
                _ => Step::Retrying { expected, wanted },
            };
        }
        // As `superseding` does, the call reads the store before it retries.
        Action::RetryRenewal(at) => {
            if let Step::Retrying { expected, wanted } = state.processes[at].step {
                state.processes[at].step = match state.stored {
                    Some(same) if same == expected => Step::Renewing { expected, wanted },
                    newer => Step::Releasing {
                        next: newer.map(|newer| (newer, wanted)),
                    },
                };
            }
        }
        Action::GiveUpRenewal(at) => state.processes[at].step = Step::Releasing { next: None },
        Action::Commit(at) => protocol.commit(state, at),
        Action::CommitLost(at) => {
            state.faults += 1;
            commit_lost(protocol, state, at);
        }
        Action::CommitAnswerLost(at) => {
            state.faults += 1;
            let before = state.processes[at].step;
            let lease_expired = state.processes[at].lease_expired;
            protocol.commit(state, at);
            // The store has run the command. The call did not get the reply, so it sends the
            // command again.
            match before {
                Step::Committing { .. } if protocol.mutant != Mutant::CommitOnce => {
                    let process = &mut state.processes[at];
                    process.commit_unconfirmed |= process.step != before;
                    process.step = before;
                    process.lease_expired = lease_expired;
                }
                _ => state.processes[at].end(),
            }
        }
        Action::GiveUpCommit(at) => state.processes[at].end(),
        Action::Release(at) => release(protocol, state, at),
        Action::ReleaseLost(at) => {
            state.faults += 1;
            after_release(protocol, state, at);
        }
        Action::Crash(at) => crash(state, at),
        Action::LogIn => {
            state.events += 1;
            // If two logins run at once, the model keeps the later one.
            state.login = Some(state.wechat.log_in(state.now));
        }
        Action::LoginStored => {
            let login = state.login.take();
            state.store(login);
            state.history.revoked = false;
        }
        Action::LoginLost => {
            state.faults += 1;
            state.login = None;
        }
        Action::Revoke => {
            state.events += 1;
            let tombstone = state.tombstone;
            state.store(None);
            if protocol.mutant == Mutant::TombstoneAfterLogout {
                state.tombstone = tombstone;
            }
            state.history.revoked = true;
        }
    }
}

fn acquire(protocol: &Protocol, state: &mut State, at: usize) -> bool {
    match state.processes[at].step {
        Step::Acquiring {
            expected,
            wanted,
            grant_error,
        } => protocol.acquire(state, at, expected, wanted, grant_error),
        _ => false,
    }
}

/// Starts a task that releases the lease of a call that ended without a reply.
fn releases_abandoned(protocol: &Protocol, state: &mut State, at: usize) {
    let process = &mut state.processes[at];
    process.releases_abandoned = protocol.mutant != Mutant::AbandonedNotReleased;
    state.history.never_released |= process.abandoned_lease && !process.releases_abandoned;
}

fn lease_runs_out(state: &mut State) {
    if std::mem::take(&mut state.orphaned_lease) {
        return; // the lease expired in time: this is not a fault
    }
    state.faults += 1;
    for process in &mut state.processes {
        process.abandoned_lease = false;
    }
    let Some(at) = state.processes.iter().position(|one| one.leases) else {
        return;
    };
    state.processes[at].leases = false;
    if let Some(expected) = state.processes[at].holds() {
        state.processes[at].lease_expired = true;
        state.excuse(expected);
    }
}

/// Loses the command of a commit or a deletion before the store runs it.
fn commit_lost(protocol: &Protocol, state: &mut State, at: usize) {
    match state.processes[at].step {
        Step::Committing {
            expected, answer, ..
        } if protocol.mutant == Mutant::CommitOnce => {
            state.drop_answer(at, expected, answer);
            state.processes[at].end();
        }
        Step::Committing { .. } => {}
        Step::Deleting { expected, .. } => {
            state.excuse(expected);
            state.processes[at].end();
        }
        _ => {}
    }
}

/// Runs the script `RELEASE` for the process's lease.
fn release(protocol: &Protocol, state: &mut State, at: usize) {
    if protocol.mutant == Mutant::ReleaseWithoutOwner {
        state
            .processes
            .iter_mut()
            .for_each(|one| (one.leases, one.abandoned_lease) = (false, false));
        state.orphaned_lease = false;
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
            next: Some((newer, wanted)),
        } => protocol.go_on(state, at, Some(newer), wanted),
        _ => state.processes[at].end(),
    }
}

/// Replaces the process with an idle one. A lease of the former process stays in the store until it
/// expires.
fn crash(state: &mut State, at: usize) {
    state.faults += 1;
    let process = std::mem::replace(&mut state.processes[at], Process::idle());
    state.orphaned_lease |= process.leases || process.abandoned_lease;
    let renewals = matches!(
        process.step,
        Step::Committing { .. } | Step::WritingTombstone { .. } | Step::Deleting { .. }
    );
    if let Some(expected) = process
        .holds()
        .filter(|_| renewals && !process.lease_expired)
    {
        state.excuse(expected);
    }
}
