//! What must hold in every state, named after the promises of the crate.

use stateright::Property;

use crate::protocol::{Protocol, State, Step};

pub const ONE_HOLDER: &str = "R1 one renewal: nobody renews beside a holder whose lease lasts";
pub const ONE_RENEWAL: &str = "R1 one renewal: WeChat is asked once for each stored pair";
pub const NEWEST_WINS: &str = "R2 the newest wins: nothing older is written over it";
pub const DELETED_STAYS_DELETED: &str = "R2 the newest wins: what was deleted is not brought back";
pub const NOTHING_LOST: &str =
    "R3 nothing is lost: what WeChat granted is stored, or is old by now";
pub const ABANDONED_RELEASED: &str =
    "R7 followers wait cheaply: a lease that nobody uses is given back by its process";
pub const ONLY_EXPIRED_DELETED: &str = "R5 failures are sorted: no pair that lives is deleted";
pub const REPORTS_COMPARED: &str =
    "R6 reports are compared: a fresh pair is renewed for its own report only";

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
        // That the exploration comes to where it hurts.
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
