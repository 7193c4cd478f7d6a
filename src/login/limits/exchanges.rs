//! Limits of the exchanges of one login handler: concurrent exchanges, and codes that WeChat
//! rejects.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// Maximum number of concurrent exchanges of one login handler: 512. Further exchanges wait for a
/// permit.
const MAX_CONCURRENT_EXCHANGES: usize = 512;

/// Capacity of the rejection budget: 200 units. After about this many rejected codes in a short
/// time, exchanges have to wait until the budget is refilled.
const REJECTION_BURST: f64 = 200.0;

/// Number of units that the rejection budget gains each second: 100. In the long run, WeChat
/// therefore rejects at most this many codes of one login handler each second.
const REJECTIONS_PER_SECOND: f64 = 100.0;

/// Limiter of the exchanges of one login handler. An exchange takes a permit and one unit of the
/// rejection budget. The unit is refunded unless WeChat rejects the code as spent or invalid.
#[derive(Debug)]
pub(in crate::login) struct ExchangeLimiter {
    permits: Arc<Semaphore>,
    /// Serialises the exchanges that wait for a unit of the rejection budget.
    queue: Semaphore,
    budget: Mutex<RejectionBudget>,
}

/// Token bucket that limits how many codes WeChat rejects: each exchange takes one unit.
#[derive(Debug)]
struct RejectionBudget {
    available: f64,
    refilled_at: Instant,
}

impl RejectionBudget {
    /// Takes one unit of the rejection budget and returns `None`, or returns the time until a unit
    /// is available.
    fn take_or_wait_time(&mut self, now: Instant) -> Option<Duration> {
        let passed = now.saturating_duration_since(self.refilled_at);
        self.refilled_at = now;
        self.available =
            (self.available + passed.as_secs_f64() * REJECTIONS_PER_SECOND).min(REJECTION_BURST);
        if self.available >= 1.0 {
            self.available -= 1.0;
            return None;
        }
        Some(Duration::from_secs_f64(
            (1.0 - self.available) / REJECTIONS_PER_SECOND,
        ))
    }
}

/// Permit to exchange one code. Dropping the permit admits another exchange.
pub(in crate::login) struct ExchangePermit {
    limiter: Arc<ExchangeLimiter>,
    _permit: OwnedSemaphorePermit,
}

impl ExchangeLimiter {
    /// Creates a limiter whose permits are all free, with a full rejection budget.
    pub(in crate::login) fn new() -> Arc<Self> {
        Arc::new(Self {
            permits: Arc::new(Semaphore::new(MAX_CONCURRENT_EXCHANGES)),
            queue: Semaphore::new(1),
            budget: Mutex::new(RejectionBudget {
                available: REJECTION_BURST,
                refilled_at: Instant::now(),
            }),
        })
    }

    /// Waits for a permit, in the order of arrival. Returns `None` on timeout.
    ///
    /// A call takes its permit first, and then joins the queue for the rejection budget. At most
    /// [`MAX_CONCURRENT_EXCHANGES`] calls therefore wait in that queue. A cancelled call returns
    /// its permit and its place in the queue.
    pub(in crate::login) async fn acquire(
        self: &Arc<Self>,
        timeout: Duration,
    ) -> Option<ExchangePermit> {
        let acquired = async {
            let permit = Arc::clone(&self.permits).acquire_owned().await.ok()?;
            let _head_of_queue = self.queue.acquire().await.ok()?;
            while let Some(delay) = self.take_rejection() {
                tokio::time::sleep(delay).await;
            }
            Some(ExchangePermit {
                limiter: Arc::clone(self),
                _permit: permit,
            })
        };
        tokio::time::timeout(timeout, acquired).await.ok().flatten()
    }

    /// Takes one unit of the rejection budget at the current time, and returns `None`. If no unit
    /// is left, returns the time until one is available.
    fn take_rejection(&self) -> Option<Duration> {
        self.lock_budget().take_or_wait_time(Instant::now())
    }

    fn lock_budget(&self) -> std::sync::MutexGuard<'_, RejectionBudget> {
        self.budget.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ExchangePermit {
    /// Refunds the permit's unit of the rejection budget. Callers use this for a code that WeChat
    /// has not rejected.
    pub(in crate::login) fn refund_rejection(&self) {
        self.limiter.lock_budget().available += 1.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rejected_codes_are_throttled() {
        let now = Instant::now();
        let mut budget = RejectionBudget {
            available: REJECTION_BURST,
            refilled_at: now,
        };
        let at_once = (0..1_000)
            .filter(|_| budget.take_or_wait_time(now).is_none())
            .count();
        assert_eq!(at_once, 200);
        let later = now + Duration::from_secs(1);
        assert_eq!(
            (0..1_000)
                .filter(|_| budget.take_or_wait_time(later).is_none())
                .count(),
            100
        );
    }

    #[tokio::test(start_paused = true)]
    async fn permits_are_granted_until_the_timeout() {
        let limiter = ExchangeLimiter::new();
        limiter.lock_budget().available = -1_000.0;
        assert!(limiter.acquire(Duration::from_secs(5)).await.is_none());
        let permit = limiter.acquire(Duration::MAX).await.unwrap();
        permit.refund_rejection();
        assert!(limiter.acquire(Duration::ZERO).await.is_some());
    }
}
