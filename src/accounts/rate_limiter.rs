//! Rate limit that all processes of an account share.
//!
//! WeChat limits some calls per account, so all processes count these calls together in the store.
//! Each process also counts its own calls in memory. Only the count in memory applies while the
//! store is unreachable or after the store was flushed.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::{DAY, Timestamp};
use crate::credential::AppId;
use crate::error::{Error, ErrorKind};
use crate::provider::RenewalFailure;
use crate::store::{Quota, Store};

/// Limit of one kind of call, by interval and by day.
///
/// # States of the last use
///
/// - **None**: no permit was acquired in the last `min_interval`. The next
///   [`acquire`](Self::acquire) counts a new use, in the store and in memory.
/// - **Spent**: a permit of this interval is in use, or its call succeeded. The next `acquire` is
///   denied until the interval ends. The state is then *none*.
/// - **Failed**: a permit of this interval was dropped without confirmation. The next `acquire`
///   gets the same use again, without the store, and the state is *spent*. A retry of a failed call
///   therefore need not wait. If no retry comes, the state is *none* at the end of the interval.
pub(crate) struct RateLimiter {
    app: AppId,
    store: Arc<dyn Store>,
    /// Name under which the store counts the uses.
    name: &'static str,
    min_interval: Duration,
    max_per_day: u32,
    local: Mutex<LocalCount>,
}

/// The uses of one day that this process has counted, and the last use.
#[derive(Debug, Default)]
struct LocalCount {
    /// Number of the day in Beijing, where WeChat's quotas start again at midnight.
    day: i64,
    uses: u32,
    last_use: Option<Timestamp>,
    /// `true` if the call that was made at `last_use` failed. The next permit of the interval then
    /// does not count as a new use.
    last_use_failed: bool,
}

/// Permit for one call. The call counts as failed if the permit is dropped without
/// [`confirm`](Self::confirm). The next [`acquire`](RateLimiter::acquire) then returns a permit for
/// the same use, so that the call can be retried within the interval.
#[must_use = "a permit that is not confirmed counts as failed"]
pub(crate) struct RatePermit<'a> {
    limiter: &'a RateLimiter,
    confirmed: bool,
}

impl RateLimiter {
    /// Creates a limit of `max_per_day` uses from midnight to midnight in Beijing, with at least
    /// `min_interval` between two uses.
    pub(crate) fn new(
        app: &AppId,
        store: &Arc<dyn Store>,
        name: &'static str,
        min_interval: Duration,
        max_per_day: u32,
    ) -> Self {
        Self {
            app: app.clone(),
            store: store.clone(),
            name,
            min_interval,
            max_per_day,
            local: Mutex::default(),
        }
    }

    /// Acquires a permit, or returns the time to wait. This is the remainder of the interval after
    /// this process's last use. If the store or the count of the day denies the use, the time is a
    /// whole interval.
    ///
    /// The local lock is not held while the store answers, because a lock must not be held across
    /// an `await`. Two callers of one process may therefore both pass the local check. The store
    /// then denies one of them; if the store is unreachable, both get a permit.
    pub(crate) async fn acquire(&self, now: Timestamp) -> Result<RatePermit<'_>, Duration> {
        if !self.reuse_failed_or_check(now)? {
            // The quota of the interval comes first. In the other order, each use that the interval
            // denies would spend a use of the day. If the day denies the use, only this interval is
            // spent.
            for quota in self.store_quotas(now) {
                match self.store.try_consume(&quota).await {
                    Ok(true) => {}
                    Ok(false) => return Err(self.min_interval),
                    Err(error) => {
                        let (app, limit) = (&self.app, self.name);
                        tracing::debug!(
                            target: "tower_wechat::account",
                            %app, limit, %error,
                            "a call was counted in this process only"
                        );
                    }
                }
            }
            let mut local = self.lock_local();
            local.uses = local.uses.saturating_add(1);
            local.last_use = Some(now);
        }
        Ok(RatePermit {
            limiter: self,
            confirmed: false,
        })
    }

    /// Runs `call` if the limit allows another use. A failed call leaves its use for a retry.
    ///
    /// # Errors
    /// If the limit denies the use, the failure is transient. It has the text `message` and the
    /// time to wait.
    pub(crate) async fn run<T>(
        &self,
        now: Timestamp,
        message: &'static str,
        call: impl Future<Output = Result<T, RenewalFailure>>,
    ) -> Result<T, RenewalFailure> {
        let permit = self.acquire(now).await.map_err(|wait| {
            let error = Error::new(ErrorKind::WechatUnavailable, message);
            RenewalFailure::Transient(error.with_retry_after(wait))
        })?;
        let reply = call.await?;
        permit.confirm();
        Ok(reply)
    }

    /// Returns `true` if the use of a failed call is available again, and takes that use. Returns
    /// `false` if the local count allows a new use.
    ///
    /// # Errors
    /// The time to wait, if the local count denies a use.
    fn reuse_failed_or_check(&self, now: Timestamp) -> Result<bool, Duration> {
        let mut local = self.lock_local();
        let day = now.beijing_day();
        if local.day != day {
            local.day = day;
            local.uses = 0;
        }
        // A use in the future means that the clock was set back. Ignore that use; otherwise every
        // use would be denied until the clock reaches the time of that use.
        let last_use = local.last_use.filter(|at| *at <= now);
        let next = last_use.map(|at| at.saturating_add(self.min_interval));
        if let Some(next) = next.filter(|next| now < *next) {
            if std::mem::take(&mut local.last_use_failed) {
                return Ok(true);
            }
            return Err(now.duration_until(next));
        }
        local.last_use_failed = false;
        if local.uses >= self.max_per_day {
            return Err(self.min_interval);
        }
        Ok(false)
    }

    /// Returns the quotas that a new use spends in the store: one use per interval, and
    /// `max_per_day` uses per day. The key of the daily quota contains the day.
    fn store_quotas(&self, now: Timestamp) -> [Quota; 2] {
        let quota = |purpose: String, limit, window| Quota {
            app: self.app.clone(),
            purpose: purpose.into(),
            limit,
            window,
        };
        [
            quota(self.name.to_owned(), 1, self.min_interval),
            quota(
                format!("{}:{}", self.name, now.beijing_day()),
                self.max_per_day,
                DAY,
            ),
        ]
    }

    fn lock_local(&self) -> MutexGuard<'_, LocalCount> {
        self.local.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RatePermit<'_> {
    /// Confirms that the call succeeded. The use of the call cannot be acquired again.
    pub(crate) fn confirm(mut self) {
        self.confirmed = true;
    }
}

impl Drop for RatePermit<'_> {
    fn drop(&mut self) {
        if !self.confirmed {
            self.limiter.lock_local().last_use_failed = true;
        }
    }
}

impl fmt::Debug for RateLimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimiter")
            .field("app", &self.app)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::store::MemoryStore;

    const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);
    const MIN_INTERVAL: Duration = Duration::from_secs(30);

    /// Creates a limiter with an empty store.
    fn limiter(max_per_day: u32) -> RateLimiter {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::with_clock(Clock::system()));
        RateLimiter::new(
            &AppId::new("wx1").unwrap(),
            &store,
            "test",
            MIN_INTERVAL,
            max_per_day,
        )
    }

    /// Returns the limiter with a new empty store, as after the loss of the store's data. Only the
    /// local count of the limiter then applies.
    fn with_flushed_store(limiter: RateLimiter) -> RateLimiter {
        RateLimiter {
            store: Arc::new(MemoryStore::new()),
            ..limiter
        }
    }

    #[tokio::test]
    async fn uses_keep_their_interval_and_daily_maximum() {
        let mut limiter = limiter(3);
        let mut now = NOW;
        limiter.acquire(now).await.ok().unwrap().confirm();
        let soon = now.saturating_add(Duration::from_secs(29));
        assert_eq!(
            limiter.acquire(soon).await.err(),
            Some(Duration::from_secs(1))
        );
        for _ in 1..3 {
            now = now.saturating_add(MIN_INTERVAL);
            limiter = with_flushed_store(limiter);
            limiter.acquire(now).await.ok().unwrap().confirm();
        }
        limiter = with_flushed_store(limiter);
        assert_eq!(
            limiter
                .acquire(now.saturating_add(MIN_INTERVAL))
                .await
                .err(),
            Some(MIN_INTERVAL)
        );
        limiter
            .acquire(now.saturating_add(DAY))
            .await
            .ok()
            .unwrap()
            .confirm();
        // The clock was an hour fast and is corrected.
        limiter = with_flushed_store(limiter);
        let corrected = now
            .saturating_add(DAY)
            .saturating_sub(Duration::from_secs(3_600));
        limiter.acquire(corrected).await.ok().unwrap().confirm();
    }

    #[tokio::test]
    async fn unconfirmed_permit_can_be_acquired_again() {
        let limiter = limiter(1);
        for _ in 0..3 {
            drop(limiter.acquire(NOW).await.ok().unwrap());
        }
        limiter.acquire(NOW).await.ok().unwrap().confirm();
        assert!(limiter.acquire(NOW).await.is_err());
    }
}
