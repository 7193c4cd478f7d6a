//! How often this process may ask WeChat for the account's token in a day.
//!
//! The counts live in memory, so that nothing that happens to the store gives them back. What the
//! whole account has but little of is counted in the store as well: see [`Limit`](super::Limit).

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::clock::{Clock, Timestamp};

/// The documentation of `cgi-bin/stable_token` allows 20 forced refreshes a day.
pub(super) const MAX_FORCED_REFRESHES_PER_DAY: u32 = 19;

/// Closer together, forced refreshes have no effect (same place); and tokens of `cgi-bin/token`
/// that are refused faster than this are not mended by still another one.
pub(super) const MIN_REPORT_INTERVAL: Duration = Duration::from_secs(30);

/// Why WeChat is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RenewalReason {
    /// There is no token, or its time has come.
    Due,
    /// Somebody reported a token as refused whose time has not come.
    ReportedInvalid,
}

/// Why WeChat must not be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum QuotaExceeded {
    /// The day's budget is spent; so long until the next day.
    Daily(Duration),
    /// What reports of refused tokens may spend of it is spent; the rest is for tokens that are
    /// due.
    Reports,
}

/// The counts of one day.
#[derive(Debug, Clone, Copy, Default)]
struct DailyCounts {
    day: i64,
    total: u32,
    for_reports: u32,
}

#[derive(Debug)]
pub(super) struct DailyQuota {
    per_day: u32,
    counts: Mutex<DailyCounts>,
}

impl DailyQuota {
    pub(super) fn new(a_day: u32) -> Self {
        Self {
            per_day: a_day,
            counts: Mutex::default(),
        }
    }

    /// Takes one call out of the day's budget; see [`Taken`].
    pub(super) fn reserve<'a>(
        &'a self,
        reason: RenewalReason,
        clock: &'a Clock,
    ) -> Result<QuotaReservation<'a>, QuotaExceeded> {
        self.count_call(reason, clock.now())?;
        Ok(QuotaReservation {
            quota: self,
            clock,
            reason,
            confirmed: false,
        })
    }

    /// Reports of refused tokens get half of the budget at most: a loop of them must not leave a
    /// token that is due without a successor.
    fn count_call(&self, reason: RenewalReason, now: Timestamp) -> Result<(), QuotaExceeded> {
        self.with_today(now, |counts| {
            if counts.total >= self.per_day {
                return Err(QuotaExceeded::Daily(now.duration_until_beijing_midnight()));
            }
            if reason == RenewalReason::ReportedInvalid {
                if counts.for_reports >= self.max_for_reports() {
                    return Err(QuotaExceeded::Reports);
                }
                counts.for_reports += 1;
            }
            counts.total += 1;
            Ok(())
        })
    }

    fn refund(&self, reason: RenewalReason, now: Timestamp) {
        self.with_today(now, |counts| {
            counts.total = counts.total.saturating_sub(1);
            if reason == RenewalReason::ReportedInvalid {
                counts.for_reports = counts.for_reports.saturating_sub(1);
            }
        });
    }

    /// What reports of refused tokens may spend of a day.
    pub(super) fn max_for_reports(&self) -> u32 {
        self.per_day / 2
    }

    fn with_today<T>(&self, now: Timestamp, take: impl FnOnce(&mut DailyCounts) -> T) -> T {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let day = now.beijing_day();
        if counts.day != day {
            *counts = DailyCounts {
                day,
                ..DailyCounts::default()
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
pub(super) struct QuotaReservation<'a> {
    quota: &'a DailyQuota,
    clock: &'a Clock,
    reason: RenewalReason,
    confirmed: bool,
}

impl QuotaReservation<'_> {
    /// The call got a token.
    pub(super) fn confirm(mut self) {
        self.confirmed = true;
    }
}

impl Drop for QuotaReservation<'_> {
    fn drop(&mut self) {
        if !self.confirmed {
            self.quota.refund(self.reason, self.clock.now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::DAY;

    /// 2023-11-15 06:13:20 in Beijing.
    const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

    #[test]
    fn reports_leave_half_of_the_quota_for_due_renewals() {
        let budget = DailyQuota::new(10);
        for _ in 0..5 {
            assert_eq!(
                budget.count_call(RenewalReason::ReportedInvalid, NOW),
                Ok(())
            );
        }
        for _ in 0..1_000 {
            assert_eq!(
                budget.count_call(RenewalReason::ReportedInvalid, NOW),
                Err(QuotaExceeded::Reports)
            );
        }
        for _ in 0..5 {
            assert_eq!(budget.count_call(RenewalReason::Due, NOW), Ok(()));
        }
        budget.refund(RenewalReason::Due, NOW);
        assert_eq!(budget.count_call(RenewalReason::Due, NOW), Ok(()));
        let left = DAY - Duration::from_secs(6 * 3_600 + 13 * 60 + 20);
        assert_eq!(
            budget.count_call(RenewalReason::Due, NOW),
            Err(QuotaExceeded::Daily(left))
        );
        assert_eq!(
            budget.count_call(RenewalReason::Due, NOW.saturating_add(left)),
            Ok(())
        );
    }
}
