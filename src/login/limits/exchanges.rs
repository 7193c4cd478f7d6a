//! The exchanges of one process: how many run at once, and how fast codes that WeChat refuses may
//! follow each other.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// How many exchanges of codes one process may run at once.
const MAX_CONCURRENT_EXCHANGES: usize = 512;

/// How many codes WeChat may refuse one process in a row before further exchanges are slowed down.
const REJECTION_BURST: f64 = 200.0;

/// How many refused codes a second are allowed from then on.
const REJECTIONS_PER_SECOND: f64 = 100.0;

/// Bounds the exchanges of one process.
#[derive(Debug)]
pub(in crate::login) struct ExchangeLimiter {
    permits: Arc<Semaphore>,
    /// Whoever waits for the budget, one after another.
    queue: Semaphore,
    budget: Mutex<RejectionBudget>,
}

#[derive(Debug)]
struct RejectionBudget {
    available: f64,
    refilled_at: Instant,
}

impl RejectionBudget {
    /// Takes one, or returns how long it takes until there is one.
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

/// The right to exchange one code.
pub(in crate::login) struct ExchangePermit {
    limiter: Arc<ExchangeLimiter>,
    _permit: OwnedSemaphorePermit,
}

impl ExchangeLimiter {
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

    /// Waits for a turn, in the order of arrival. `None`: it did not come in time.
    pub(in crate::login) async fn acquire(
        self: &Arc<Self>,
        timeout: Duration,
    ) -> Option<ExchangePermit> {
        let turn = async {
            let place = Arc::clone(&self.permits).acquire_owned().await.ok()?;
            let _in_line = self.queue.acquire().await.ok()?;
            while let Some(delay) = self.take_rejection() {
                tokio::time::sleep(delay).await;
            }
            Some(ExchangePermit {
                limiter: Arc::clone(self),
                _permit: place,
            })
        };
        tokio::time::timeout(timeout, turn).await.ok().flatten()
    }

    fn take_rejection(&self) -> Option<Duration> {
        self.lock_budget().take_or_wait_time(Instant::now())
    }

    fn lock_budget(&self) -> std::sync::MutexGuard<'_, RejectionBudget> {
        self.budget.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ExchangePermit {
    /// Gives back what a refused code would have cost: this one was not refused.
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
    async fn permit_is_granted_in_time_or_refused() {
        let turns = ExchangeLimiter::new();
        turns.lock_budget().available = -1_000.0;
        assert!(turns.acquire(Duration::from_secs(5)).await.is_none());
        let turn = turns.acquire(Duration::MAX).await.unwrap();
        turn.refund_rejection();
        assert!(turns.acquire(Duration::ZERO).await.is_some());
    }
}
