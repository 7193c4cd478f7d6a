//! How often this process may ask WeChat for the account's token in a day.
//!
//! The counts live in memory, so that nothing that happens to the store gives them back. Forced
//! refreshes, of which the whole account has but a few, are counted in the store as well.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::clock::Timestamp;
use crate::credential::AppId;
use crate::store::Allowance;

/// WeChat's days begin at midnight in Beijing.
const BEIJING: Duration = Duration::from_secs(8 * 3_600);
const DAY: Duration = Duration::from_secs(24 * 3_600);

/// The documentation of `cgi-bin/stable_token` allows 20 forced refreshes a day.
const FORCED_A_DAY: u32 = 19;

/// Closer together, forced refreshes have no effect (same place); and tokens of `cgi-bin/token`
/// that are refused faster than this are not mended by still another one.
pub(super) const REFUSALS_APART: Duration = Duration::from_secs(30);

/// Why WeChat is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// There is no token, or its time has come.
    Due,
    /// Somebody reported a token as refused whose time has not come.
    Refused,
}

/// Why WeChat must not be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Denied {
    /// The day's budget is spent; so long until the next day.
    Spent(Duration),
    /// What reports of refused tokens may spend of it is spent; the rest is for tokens that are
    /// due.
    SpentByRefusals,
}

/// The counts of one day.
#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    day: i64,
    all: u32,
    by_refusals: u32,
    forced: u32,
}

#[derive(Debug)]
pub(super) struct Budget {
    a_day: u32,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    counts: Counts,
    forced_at: Option<Timestamp>,
}

impl Budget {
    pub(super) fn new(a_day: u32) -> Self {
        Self {
            a_day,
            state: Mutex::default(),
        }
    }

    /// Takes one call out of the day's budget. Reports of refused tokens get half of it at most:
    /// a loop of them must not leave a token that is due without a successor.
    pub(super) fn take(&self, cause: Cause, now: Timestamp) -> Result<(), Denied> {
        self.with_today(now, |state| {
            let counts = &mut state.counts;
            if counts.all >= self.a_day {
                return Err(Denied::Spent(until_next_day(now)));
            }
            if cause == Cause::Refused {
                if counts.by_refusals >= self.a_day / 2 {
                    return Err(Denied::SpentByRefusals);
                }
                counts.by_refusals += 1;
            }
            counts.all += 1;
            Ok(())
        })
    }

    /// Gives back what a call took that got no token: failures are bounded by back-off and
    /// cool-down, and a long outage must not spend what the day after it needs.
    pub(super) fn give_back(&self, cause: Cause, now: Timestamp) {
        self.with_today(now, |state| {
            let counts = &mut state.counts;
            counts.all = counts.all.saturating_sub(1);
            if cause == Cause::Refused {
                counts.by_refusals = counts.by_refusals.saturating_sub(1);
            }
        });
    }

    /// Whether a forced refresh is allowed now; it counts as done.
    pub(super) fn take_forced(&self, now: Timestamp) -> bool {
        self.with_today(now, |state| {
            // A clock that was set back must not lock the way for as long.
            let soon = state
                .forced_at
                .is_some_and(|at| at <= now && now < at.after(REFUSALS_APART));
            if soon || state.counts.forced >= FORCED_A_DAY {
                return false;
            }
            state.counts.forced += 1;
            state.forced_at = Some(now);
            true
        })
    }

    fn with_today<T>(&self, now: Timestamp, take: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let day = day_of(now);
        if state.counts.day != day {
            state.counts = Counts {
                day,
                ..Counts::default()
            };
        }
        take(&mut state)
    }
}

/// The same limits of forced refreshes for all processes together.
pub(super) fn forced_allowances(app: &AppId, now: Timestamp) -> [Allowance; 2] {
    let allowance = |name: String, uses, span| Allowance {
        app: app.clone(),
        name: name.into(),
        uses,
        span,
    };
    [
        allowance("forced".to_owned(), 1, REFUSALS_APART),
        allowance(format!("forced:{}", day_of(now)), FORCED_A_DAY, DAY),
    ]
}

fn day_millis() -> i64 {
    i64::try_from(DAY.as_millis()).unwrap_or(i64::MAX)
}

fn day_of(now: Timestamp) -> i64 {
    now.after(BEIJING).as_millis().div_euclid(day_millis())
}

fn until_next_day(now: Timestamp) -> Duration {
    let into = now.after(BEIJING).as_millis().rem_euclid(day_millis());
    DAY.saturating_sub(Duration::from_millis(into.unsigned_abs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2023-11-15 06:13:20 in Beijing.
    const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

    #[test]
    fn refusals_leave_half_of_the_day_for_what_is_due() {
        let budget = Budget::new(10);
        for _ in 0..5 {
            assert_eq!(budget.take(Cause::Refused, NOW), Ok(()));
        }
        for _ in 0..1_000 {
            assert_eq!(
                budget.take(Cause::Refused, NOW),
                Err(Denied::SpentByRefusals)
            );
        }
        for _ in 0..5 {
            assert_eq!(budget.take(Cause::Due, NOW), Ok(()));
        }
        budget.give_back(Cause::Due, NOW);
        assert_eq!(budget.take(Cause::Due, NOW), Ok(()));
        let left = DAY - Duration::from_secs(6 * 3_600 + 13 * 60 + 20);
        assert_eq!(budget.take(Cause::Due, NOW), Err(Denied::Spent(left)));
        assert_eq!(budget.take(Cause::Due, NOW.after(left)), Ok(()));
    }

    #[test]
    fn forced_refreshes_are_apart_and_few() {
        let budget = Budget::new(10);
        let mut now = NOW;
        assert!(budget.take_forced(now));
        assert!(!budget.take_forced(now.after(Duration::from_secs(29))));
        for _ in 1..FORCED_A_DAY {
            now = now.after(REFUSALS_APART);
            assert!(budget.take_forced(now));
        }
        assert!(!budget.take_forced(now.after(REFUSALS_APART)));
        assert!(budget.take_forced(now.after(DAY)));
        // The clock was an hour ahead and has been set right.
        assert!(budget.take_forced(now.after(DAY).before(Duration::from_secs(3_600))));
    }
}
