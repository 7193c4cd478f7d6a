//! What must hold in every state, named after the promises of the crate.

use stateright::Property;

use crate::protocol::{Protocol, State, Step};

pub const ONE_HOLDER: &str = "R1 one renewal: nobody renews beside a holder whose lease lasts";
pub const ASKED_ONCE: &str = "R1 one renewal: WeChat is asked once for each stored pair";
pub const NEWEST_WINS: &str = "R2 the newest wins: nothing older is written over it";
pub const GONE_IS_GONE: &str = "R2 the newest wins: what was deleted is not brought back";
pub const NOTHING_LOST: &str =
    "R3 nothing is lost: what WeChat granted is stored, or is old by now";
pub const GIVEN_BACK: &str =
    "R7 followers wait cheaply: a lease that nobody uses is given back by its process";
pub const ONLY_THE_DEAD: &str = "R5 failures are sorted: no pair that lives is deleted";
pub const COMPARED: &str =
    "R6 reports are compared: a fresh pair is renewed for its own report only";

pub fn all() -> Vec<Property<Protocol>> {
    vec![
        Property::always(ONE_HOLDER, |_, state: &State| state.holders() <= 1),
        Property::always(ASKED_ONCE, |_, state: &State| {
            state.seen.asked.iter().all(|asked| *asked <= 1)
        }),
        Property::always(NEWEST_WINS, |_, state: &State| !state.seen.older_over_newer),
        Property::always(GONE_IS_GONE, |_, state: &State| !state.seen.raised_the_dead),
        Property::always(NOTHING_LOST, |_, state: &State| !state.seen.lost),
        Property::always(GIVEN_BACK, |_, state: &State| !state.seen.abandoned),
        Property::always(ONLY_THE_DEAD, |_, state: &State| {
            !state.seen.killed_the_living
        }),
        Property::always(COMPARED, |_, state: &State| !state.seen.renewed_unasked),
        // That the exploration comes to where it hurts.
        Property::sometimes(
            "a holder outlives its lease while another renews",
            |_, state: &State| {
                state.processes.iter().any(|one| one.outlived) && state.holders() == 1
            },
        ),
        Property::sometimes("a late answer finds something newer", |_, state: &State| {
            state.processes.iter().any(|one| {
                matches!(one.step, Step::Committing { answer, .. }
                    if state.stored.is_some_and(|stored| stored.grant > answer.grant))
            })
        }),
        Property::sometimes("a dead pair is deleted", |_, state: &State| {
            state.stored.is_none() && !state.seen.forgotten
        }),
        Property::sometimes(
            "a claim comes late",
            |protocol: &Protocol, state: &State| {
                !protocol.late_claims || state.processes.iter().any(|one| one.late.is_some())
            },
        ),
        Property::sometimes("a token is replaced", |_, state: &State| {
            state.stored.is_some_and(|stored| stored.access != 0)
        }),
    ]
}
