//! How often this process may ask WeChat for the account's token in a day.
//!
//! The counts live in memory, so that nothing that happens to the store gives them back. What the
//! whole account has but little of is counted in the store as well: see [`Limit`](super::Limit).

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::clock::{Clock, Timestamp};

/// WeChat's days begin at midnight in Beijing.
const BEIJING: Duration = Duration::from_secs(8 * 3_600);
pub(super) const DAY: Duration = Duration::from_secs(24 * 3_600);

/// The documentation of `cgi-bin/stable_token` allows 20 forced refreshes a day.
pub(super) const FORCED_A_DAY: u32 = 19;

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
}

#[derive(Debug)]
pub(super) struct Budget {
    a_day: u32,
    counts: Mutex<Counts>,
}

impl Budget {
    pub(super) fn new(a_day: u32) -> Self {
        Self {
            a_day,
            counts: Mutex::default(),
        }
    }

    /// Takes one call out of the day's budget; see [`Taken`].
    pub(super) fn call<'a>(&'a self, cause: Cause, clock: &'a Clock) -> Result<Taken<'a>, Denied> {
        self.take(cause, clock.now())?;
        Ok(Taken {
            budget: self,
            clock,
            cause,
            kept: false,
        })
    }

    /// Reports of refused tokens get half of the budget at most: a loop of them must not leave a
    /// token that is due without a successor.
    fn take(&self, cause: Cause, now: Timestamp) -> Result<(), Denied> {
        self.with_today(now, |counts| {
            if counts.all >= self.a_day {
                return Err(Denied::Spent(until_next_day(now)));
            }
            if cause == Cause::Refused {
                if counts.by_refusals >= self.for_refusals() {
                    return Err(Denied::SpentByRefusals);
                }
                counts.by_refusals += 1;
            }
            counts.all += 1;
            Ok(())
        })
    }

    fn give_back(&self, cause: Cause, now: Timestamp) {
        self.with_today(now, |counts| {
            counts.all = counts.all.saturating_sub(1);
            if cause == Cause::Refused {
                counts.by_refusals = counts.by_refusals.saturating_sub(1);
            }
        });
    }

    /// What reports of refused tokens may spend of a day.
    pub(super) fn for_refusals(&self) -> u32 {
        self.a_day / 2
    }

    fn with_today<T>(&self, now: Timestamp, take: impl FnOnce(&mut Counts) -> T) -> T {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let day = day_of(now);
        if counts.day != day {
            *counts = Counts {
                day,
                ..Counts::default()
            };
        }
        take(&mut counts)
    }
}

/// One call out of the budget. Dropped without being [`kept`](Taken::keep) it goes back: failures
/// are bounded by back-off and cool-down, and a long outage must not spend what the hours after it
/// need. A call that hangs ends with the future that waits for it, and goes back as well.
#[must_use = "a call goes back unless it is kept"]
#[derive(Debug)]
pub(super) struct Taken<'a> {
    budget: &'a Budget,
    clock: &'a Clock,
    cause: Cause,
    kept: bool,
}

impl Taken<'_> {
    /// The call got a token.
    pub(super) fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        if !self.kept {
            self.budget.give_back(self.cause, self.clock.now());
        }
    }
}

fn day_millis() -> i64 {
    i64::try_from(DAY.as_millis()).unwrap_or(i64::MAX)
}

pub(super) fn day_of(now: Timestamp) -> i64 {
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
}
