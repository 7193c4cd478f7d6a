//! What all processes of an account may do but rarely.
//!
//! WeChat's limits are the account's, so the processes count together, in the store. Where the
//! store does not answer, or was flushed, this process's own count holds.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::{DAY, Timestamp};
use crate::credential::AppId;
use crate::error::{Error, ErrorKind};
use crate::provider::RenewalFailure;
use crate::store::{Quota, Store};

pub(crate) struct RateLimiter {
    app: AppId,
    store: Arc<dyn Store>,
    /// What is limited, as the store names it.
    name: &'static str,
    min_interval: Duration,
    max_per_day: u32,
    local: Mutex<LocalCount>,
}

/// This process's own count.
#[derive(Debug, Default)]
struct LocalCount {
    day: i64,
    uses: u32,
    last_use: Option<Timestamp>,
    /// The use taken at `at` came to nothing.
    last_use_failed: bool,
}

/// One use. Dropped without being [`used`](Right::used) it stays this process's until the next
/// one could be taken: a call that failed is tried again, and not put off.
#[must_use = "a right is lost unless it is used"]
pub(crate) struct RatePermit<'a> {
    limiter: &'a RateLimiter,
    confirmed: bool,
}

impl RateLimiter {
    /// `a_day` uses from midnight to midnight in Beijing, no two of them closer than `apart`.
    pub(crate) fn new(
        app: &AppId,
        store: &Arc<dyn Store>,
        name: &'static str,
        apart: Duration,
        a_day: u32,
    ) -> Self {
        Self {
            app: app.clone(),
            store: store.clone(),
            name,
            min_interval: apart,
            max_per_day: a_day,
            local: Mutex::default(),
        }
    }

    /// Takes one use, or returns the time to wait: the rest of the interval after this process's
    /// last use, or a whole interval if the store or the day's count denies it.
    pub(crate) async fn acquire(&self, now: Timestamp) -> Result<RatePermit<'_>, Duration> {
        if !self.reuse_failed_or_check(now)? {
            for quota in self.store_quotas(now) {
                match self.store.try_consume(&quota).await {
                    Ok(true) => {}
                    Ok(false) => return Err(self.min_interval),
                    Err(error) => {
                        let (app, limit) = (&self.app, self.name);
                        tracing::debug!(target: "tower_wechat::account", %app, limit, %error, "counted by this process alone");
                    }
                }
            }
            let mut own = self.lock_local();
            own.uses = own.uses.saturating_add(1);
            own.last_use = Some(now);
        }
        Ok(RatePermit {
            limiter: self,
            confirmed: false,
        })
    }

    /// Runs `call` if the limit allows another use, which counts once the call has succeeded.
    ///
    /// Where the limit does not, the failure is transient, says `message`, and carries the time to
    /// wait.
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

    /// Whether a use is left over that came to nothing; else whether the own count allows one.
    fn reuse_failed_or_check(&self, now: Timestamp) -> Result<bool, Duration> {
        let mut own = self.lock_local();
        let day = now.beijing_day();
        if own.day != day {
            own.day = day;
            own.uses = 0;
        }
        // A clock that was set back must not lock the way for as long.
        let taken = own.last_use.filter(|at| *at <= now);
        let next = taken.map(|at| at.saturating_add(self.min_interval));
        if let Some(next) = next.filter(|next| now < *next) {
            if std::mem::take(&mut own.last_use_failed) {
                return Ok(true);
            }
            return Err(now.duration_until(next));
        }
        own.last_use_failed = false;
        if own.uses >= self.max_per_day {
            return Err(self.min_interval);
        }
        Ok(false)
    }

    fn store_quotas(&self, now: Timestamp) -> [Quota; 2] {
        let allowance = |name: String, uses, span| Quota {
            app: self.app.clone(),
            purpose: name.into(),
            limit: uses,
            window: span,
        };
        [
            allowance(self.name.to_owned(), 1, self.min_interval),
            allowance(
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
    /// It has served; the next one is to be taken anew.
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

    /// Each with a store of its own, so that the process's own count is what holds.
    fn limiter(a_day: u32) -> RateLimiter {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::with_clock(Clock::system()));
        RateLimiter::new(
            &AppId::new("wx1").unwrap(),
            &store,
            "test",
            MIN_INTERVAL,
            a_day,
        )
    }

    fn with_flushed_store(limit: RateLimiter) -> RateLimiter {
        RateLimiter {
            store: Arc::new(MemoryStore::new()),
            ..limit
        }
    }

    #[tokio::test]
    async fn uses_keep_their_interval_and_daily_maximum() {
        let mut limit = limiter(3);
        let mut now = NOW;
        limit.acquire(now).await.ok().unwrap().confirm();
        let soon = now.saturating_add(Duration::from_secs(29));
        assert_eq!(
            limit.acquire(soon).await.err(),
            Some(Duration::from_secs(1))
        );
        for _ in 1..3 {
            now = now.saturating_add(MIN_INTERVAL);
            limit = with_flushed_store(limit);
            limit.acquire(now).await.ok().unwrap().confirm();
        }
        limit = with_flushed_store(limit);
        assert_eq!(
            limit.acquire(now.saturating_add(MIN_INTERVAL)).await.err(),
            Some(MIN_INTERVAL)
        );
        limit
            .acquire(now.saturating_add(DAY))
            .await
            .ok()
            .unwrap()
            .confirm();
        // The clock was an hour ahead and has been set right.
        limit = with_flushed_store(limit);
        let right = now
            .saturating_add(DAY)
            .saturating_sub(Duration::from_secs(3_600));
        limit.acquire(right).await.ok().unwrap().confirm();
    }

    #[tokio::test]
    async fn unconfirmed_permit_can_be_acquired_again() {
        let limit = limiter(1);
        for _ in 0..3 {
            drop(limit.acquire(NOW).await.ok().unwrap());
        }
        limit.acquire(NOW).await.ok().unwrap().confirm();
        assert!(limit.acquire(NOW).await.is_err());
    }
}
