//! Properties that hold in every state, named after the promises of the crate.

use stateright::Property;

use crate::protocol::{Protocol, State, Step};

pub const ONE_HOLDER: &str = "one renewal: no process renews beside the holder of a lease";
pub const ONE_RENEWAL: &str = "one renewal: WeChat receives one call for each stored pair";
pub const NEWEST_WINS: &str = "newest wins: no older pair replaces it";
pub const DELETED_STAYS_DELETED: &str = "newest wins: a deleted pair does not come back";
pub const NOTHING_LOST: &str = "nothing lost: a pair from WeChat is stored, or superseded";
pub const ABANDONED_RELEASED: &str =
    "followers bounded: a process releases a lease that it does not use";
pub const ONLY_EXPIRED_DELETED: &str = "failures sorted: no valid pair is deleted";
pub const REPORTS_COMPARED: &str =
    "reports compared: only a report of this pair renews a fresh pair";

pub fn all() -> Vec<Property<Protocol>> {
    vec![
        Property::always(ONE_HOLDER, |_, state: &State| state.holders() <= 1),
        Property::always(ONE_RENEWAL, |_, state: &State| {
            state.history.renewals.iter().all(|renewals| *renewals <= 1)
        }),
        Property::always(NEWEST_WINS, |_, state: &State| {
            !state.history.older_over_newer
        }),
        Property::always(DELETED_STAYS_DELETED, |_, state: &State| {
            !state.history.restored_deleted_pair
        }),
        Property::always(NOTHING_LOST, |_, state: &State| !state.history.lost),
        Property::always(ABANDONED_RELEASED, |_, state: &State| {
            !state.history.never_released
        }),
        Property::always(ONLY_EXPIRED_DELETED, |_, state: &State| {
            !state.history.deleted_valid_pair
        }),
        Property::always(REPORTS_COMPARED, |_, state: &State| {
            !state.history.renewed_without_reason
        }),
        // The checker must reach each of these states. Otherwise the model does not explore the
        // difficult cases.
        Property::sometimes(
            "a holder outlives its lease while another renews",
            |_, state: &State| {
                state.processes.iter().any(|one| one.lease_expired) && state.holders() == 1
            },
        ),
        Property::sometimes("a late answer finds something newer", |_, state: &State| {
            state.processes.iter().any(|one| {
                matches!(one.step, Step::Committing { answer, .. }
                    if state.stored.is_some_and(|stored| stored.grant > answer.grant))
            })
        }),
        Property::sometimes("a dead pair is deleted", |_, state: &State| {
            state.stored.is_none() && !state.history.revoked
        }),
        Property::sometimes(
            "a claim comes late",
            |protocol: &Protocol, state: &State| {
                !protocol.late_acquires
                    || state.processes.iter().any(|one| one.late_acquire.is_some())
            },
        ),
        Property::sometimes("a token is replaced", |_, state: &State| {
            state.stored.is_some_and(|stored| stored.access != 0)
        }),
    ]
}
