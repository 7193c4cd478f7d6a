//! A model of the renewal protocol, which a model checker explores exhaustively within bounds.
//!
//! `protocol.rs` is the model. `invariants.rs` has the properties, named after the promises. A test
//! puts each known mistake into the model and checks that the checker finds it.

#![allow(unreachable_pub)]

mod invariants;
mod protocol;
mod steps;
mod wechat;

use std::time::Instant;

use stateright::{Checker, HasDiscoveries, Model};

use invariants::{
    ABANDONED_RELEASED, DELETED_STAYS_DELETED, NEWEST_WINS, NOTHING_LOST, ONE_HOLDER, ONE_RENEWAL,
    ONLY_EXPIRED_DELETED, REPORTS_COMPARED,
};
use protocol::{Mutant, Protocol};
use wechat::Rotation;

const SMALL: Protocol = Protocol {
    processes: 2,
    faults: 2,
    events: 2,
    time: 2,
    rotation: Rotation::AfterExpiry,
    late_acquires: false,
    mutant: Mutant::None,
};

/// Explores all states, and checks that no property is violated.
fn holds(name: &str, protocol: Protocol) {
    let started = Instant::now();
    let bounds = format!("{protocol:?}");
    let checker = protocol.checker().threads(2).spawn_bfs().join();
    println!(
        "{name}: {} states, {} of them different, depth {}, {:.1?}; {bounds}",
        checker.state_count(),
        checker.unique_state_count(),
        checker.max_depth(),
        started.elapsed(),
    );
    checker.assert_properties();
    assert!(checker.is_done());
}

/// Puts `mutant` into the protocol, and checks that the model checker finds a violation of
/// `violated`.
fn is_found(mutant: Mutant, violated: &'static str, rotation: Rotation) {
    let protocol = Protocol {
        mutant,
        rotation,
        late_acquires: violated == ABANDONED_RELEASED,
        ..SMALL
    };
    let wanted = HasDiscoveries::AnyOf([violated].into());
    let checker = protocol.checker().finish_when(wanted).spawn_bfs().join();
    let path = checker
        .discovery(violated)
        .unwrap_or_else(|| panic!("{mutant:?} goes unnoticed: {violated}"));
    println!(
        "{mutant:?}: found after {} states: {:?}",
        checker.unique_state_count(),
        path.into_actions()
    );
}

#[test]
fn two_processes_where_refresh_tokens_change_after_expiry() {
    holds("two processes", SMALL);
}

#[test]
fn two_processes_where_refresh_tokens_stay() {
    holds(
        "refresh tokens stay",
        Protocol {
            rotation: Rotation::Never,
            ..SMALL
        },
    );
}

#[test]
fn two_processes_where_refresh_tokens_always_change() {
    holds(
        "refresh tokens always change",
        Protocol {
            rotation: Rotation::Always,
            ..SMALL
        },
    );
}

#[test]
fn leases_acquired_late() {
    holds(
        "claims come late",
        Protocol {
            events: 1,
            late_acquires: true,
            ..SMALL
        },
    );
}

#[test]
fn three_processes() {
    holds(
        "three processes",
        Protocol {
            processes: 3,
            events: 1,
            ..SMALL
        },
    );
}

/// A long run, started by hand: `cargo test --release --all-features --test model -- --ignored
/// --nocapture`
#[test]
#[ignore = "minutes, and gigabytes of memory"]
fn three_processes_and_more_of_everything() {
    for rotation in [Rotation::Never, Rotation::AfterExpiry, Rotation::Always] {
        holds(
            "more of everything",
            Protocol {
                processes: 3,
                faults: 2,
                events: 2,
                time: 2,
                rotation,
                ..SMALL
            },
        );
    }
}

#[test]
fn a_lease_without_reading_again_is_found() {
    is_found(Mutant::AcquireWithoutCompare, ONE_RENEWAL, Rotation::Never);
}

#[test]
fn a_commit_that_does_not_compare_is_found() {
    is_found(Mutant::CommitWithoutCompare, NEWEST_WINS, Rotation::Never);
    is_found(
        Mutant::CommitWithoutCompare,
        DELETED_STAYS_DELETED,
        Rotation::Never,
    );
}

#[test]
fn a_lease_released_by_others_is_found() {
    is_found(Mutant::ReleaseWithoutOwner, ONE_HOLDER, Rotation::Never);
}

#[test]
fn a_delete_that_does_not_compare_is_found() {
    is_found(
        Mutant::DeleteWithoutCompare,
        ONLY_EXPIRED_DELETED,
        Rotation::AfterExpiry,
    );
}

#[test]
fn a_network_failure_taken_for_a_rejection_is_found() {
    is_found(
        Mutant::DeleteOnFailure,
        ONLY_EXPIRED_DELETED,
        Rotation::Never,
    );
}

#[test]
fn a_commit_without_a_retry_is_found() {
    is_found(Mutant::CommitOnce, NOTHING_LOST, Rotation::Never);
}

/// Without the check of the lease, the commit of a process that had lost the store succeeds beside
/// the next holder. The next holder's pair is then lost.
#[test]
fn a_commit_beside_the_next_holder_is_found() {
    is_found(Mutant::CommitBesideHolder, NOTHING_LOST, Rotation::Never);
}

/// One process has a new pair and cannot reach the store, and another process deletes the old pair.
/// Without a tombstone, the new pair cannot be stored any more.
#[test]
fn a_deletion_without_a_tombstone_is_found() {
    is_found(Mutant::NoTombstone, NOTHING_LOST, Rotation::Always);
}

#[test]
fn a_tombstone_that_survives_a_logout_is_found() {
    is_found(
        Mutant::TombstoneAfterLogout,
        DELETED_STAYS_DELETED,
        Rotation::Always,
    );
}

#[test]
fn a_restored_pair_with_an_expired_token_is_found() {
    is_found(
        Mutant::TombstoneAllowsSameToken,
        DELETED_STAYS_DELETED,
        Rotation::Never,
    );
}

#[test]
fn leases_with_one_name_are_found() {
    is_found(Mutant::OneOwner, ONE_HOLDER, Rotation::Never);
}

#[test]
fn an_unreleased_lease_is_found() {
    is_found(
        Mutant::AbandonedNotReleased,
        ABANDONED_RELEASED,
        Rotation::Never,
    );
}

#[test]
fn an_unreleased_late_lease_is_found() {
    is_found(
        Mutant::AbandonedReleasedOnce,
        ABANDONED_RELEASED,
        Rotation::Never,
    );
}

#[test]
fn a_report_that_is_not_compared_is_found() {
    is_found(
        Mutant::ReportsWithoutCompare,
        REPORTS_COMPARED,
        Rotation::Never,
    );
}
