//! The daily quota of a process for calls that fetch the account's token.
//!
//! The counts are in memory, so a flushed store does not reset them. Calls that WeChat limits for
//! the whole account are also counted in the store, by [`RateLimiter`](super::RateLimiter).

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::clock::{Clock, Timestamp};
use crate::credential::AppId;
use crate::error::{Error, ErrorKind};
use crate::provider::RenewalFailure;

/// Maximum number of forced refreshes of an account per day: one less than the 20 that the
/// documentation of `cgi-bin/stable_token` allows.
pub(super) const MAX_FORCED_REFRESHES_PER_DAY: u32 = 19;

/// Minimum interval between two renewals that reports of invalid tokens cause: 30 seconds.
///
/// By the documentation of `cgi-bin/stable_token`, a forced refresh within 30 seconds of the last
/// one has no effect. The interval also applies to `cgi-bin/token`: if WeChat rejects a token that
/// is younger than this, a newer token does not help.
pub(super) const MIN_REPORT_INTERVAL: Duration = Duration::from_secs(30);

/// Reason of a call that fetches a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RenewalReason {
    /// The store has no token, or the token is due for renewal.
    Due,
    /// A caller reported that WeChat rejected the token, and the token is not due for renewal.
    ReportedInvalid,
}

/// Reason why the quota denies a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum QuotaExceeded {
    /// The quota of the day is spent. The duration is the time until midnight in Beijing.
    Daily(Duration),
    /// Reports of invalid tokens have spent their half of the daily quota. The other half is for
    /// tokens that are due for renewal.
    Reports,
}

/// Numbers of calls for the account's token on one day.
#[derive(Debug, Clone, Copy, Default)]
struct DailyCounts {
    /// Number of the day in Beijing, where WeChat's quotas start again at midnight.
    day: i64,
    total: u32,
    /// The part of `total` that reports of invalid tokens caused.
    for_reports: u32,
}

/// Maximum number of calls per day, and the numbers of calls on the current day.
///
/// The lock is held only while the counts change, never during a call to WeChat. Parallel calls
/// therefore each hold a reservation, and together cannot exceed the quota.
#[derive(Debug)]
pub(super) struct DailyQuota {
    per_day: u32,
    counts: Mutex<DailyCounts>,
}

impl DailyQuota {
    pub(super) fn new(per_day: u32) -> Self {
        Self {
            per_day,
            counts: Mutex::default(),
        }
    }

    /// Reserves one call of the day's quota, before the call starts.
    fn reserve<'a>(
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

    /// Reserves one call of the day's quota for the token of an account, before the call starts.
    ///
    /// # Errors
    /// A spent quota is a failure for the operator. Reports that have spent their half of the quota
    /// cause a transient failure, because the renewal that is due later still has the other half.
    pub(super) fn reserve_renewal<'a>(
        &'a self,
        reason: RenewalReason,
        clock: &'a Clock,
        app: &AppId,
    ) -> Result<QuotaReservation<'a>, RenewalFailure> {
        self.reserve(reason, clock).map_err(|denied| match denied {
            QuotaExceeded::Daily(wait) => RenewalFailure::Operator(
                Error::new(
                    ErrorKind::WechatConfig,
                    format!(
                        "this process has spent its daily quota of calls for the token of {app}: \
                         find out what invalidates the tokens so often (another service with the \
                         same AppID?)"
                    ),
                )
                .with_retry_after(wait),
            ),
            QuotaExceeded::Reports => RenewalFailure::Transient(
                Error::new(
                    ErrorKind::WechatUnavailable,
                    format!(
                        "tokens of {app} were reported as invalid too often today: further reports \
                         do not renew the token before it is due"
                    ),
                )
                .with_retry_after(MIN_REPORT_INTERVAL),
            ),
        })
    }

    /// Counts a call. Reports can spend half of the quota at most, so that a client that reports
    /// every token cannot prevent a renewal that is due.
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

    /// Removes a call from the counts of the current day. A call from before midnight that ends
    /// after midnight is removed from the new day, whose counts do not go below zero.
    fn refund(&self, reason: RenewalReason, now: Timestamp) {
        self.with_today(now, |counts| {
            counts.total = counts.total.saturating_sub(1);
            if reason == RenewalReason::ReportedInvalid {
                counts.for_reports = counts.for_reports.saturating_sub(1);
            }
        });
    }

    /// Returns the number of calls that reports may cause in a day.
    pub(super) fn max_for_reports(&self) -> u32 {
        self.per_day / 2
    }

    /// Runs `change` on the counts of the current day, which start at zero after midnight.
    fn with_today<T>(&self, now: Timestamp, change: impl FnOnce(&mut DailyCounts) -> T) -> T {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let day = now.beijing_day();
        if counts.day != day {
            *counts = DailyCounts {
                day,
                ..DailyCounts::default()
            };
        }
        change(&mut counts)
    }
}

/// One reserved call of the daily quota, in one of these states:
///
/// - **Reserved**: the call counts. The reservation is next confirmed or refunded.
/// - **Confirmed**: [`confirm`](Self::confirm) was called, because WeChat returned a token. The
///   call counts until midnight.
/// - **Refunded**: the reservation was dropped without confirmation, because the call failed or
///   its future was dropped. Failed calls do not count: back-off and the circuit breaker already
///   limit them, and an outage must not use up the calls that are needed after its end.
#[must_use = "a reservation that is not confirmed is refunded"]
#[derive(Debug)]
pub(super) struct QuotaReservation<'a> {
    quota: &'a DailyQuota,
    clock: &'a Clock,
    reason: RenewalReason,
    confirmed: bool,
}

impl QuotaReservation<'_> {
    /// Keeps the call in the counts of the day, because the call has returned a token.
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

    /// The time of the tests: 2023-11-15 06:13:20 in Beijing.
    const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

    #[test]
    fn reports_leave_half_of_the_quota_for_due_renewals() {
        let quota = DailyQuota::new(10);
        for _ in 0..5 {
            assert_eq!(
                quota.count_call(RenewalReason::ReportedInvalid, NOW),
                Ok(())
            );
        }
        for _ in 0..1_000 {
            assert_eq!(
                quota.count_call(RenewalReason::ReportedInvalid, NOW),
                Err(QuotaExceeded::Reports)
            );
        }
        for _ in 0..5 {
            assert_eq!(quota.count_call(RenewalReason::Due, NOW), Ok(()));
        }
        quota.refund(RenewalReason::Due, NOW);
        assert_eq!(quota.count_call(RenewalReason::Due, NOW), Ok(()));
        let left = DAY - Duration::from_secs(6 * 3_600 + 13 * 60 + 20);
        assert_eq!(
            quota.count_call(RenewalReason::Due, NOW),
            Err(QuotaExceeded::Daily(left))
        );
        assert_eq!(
            quota.count_call(RenewalReason::Due, NOW.saturating_add(left)),
            Ok(())
        );
    }
}
