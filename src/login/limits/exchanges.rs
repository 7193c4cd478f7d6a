//! Who exchanges a code next: copies of one callback share one exchange, and codes that WeChat
//! refuses are slowed down before they cost an account its quota.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;

use crate::credential::UserId;
use crate::login::exchange::ExchangeOutcome;
use crate::store::LoginCodeKey;

/// How many exchanges of codes one process may run at once.
const MAX_CONCURRENT_EXCHANGES: usize = 512;

/// How many different callbacks may be under way or wait in one process; further ones are told to
/// come again in a moment.
const MAX_RUNNING_EXCHANGES: usize = 2_048;

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

/// What makes two callbacks copies of each other.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in crate::login) struct CallbackKey {
    pub(in crate::login) code: LoginCodeKey,
    /// The number of the login.
    pub(in crate::login) login_id: u64,
    pub(in crate::login) bound_user: Option<UserId>,
}

type OutcomeReceiver = watch::Receiver<Option<ExchangeOutcome>>;

/// The exchanges that this process runs.
#[derive(Debug, Default)]
pub(in crate::login) struct RunningExchanges(Mutex<HashMap<CallbackKey, OutcomeReceiver>>);

impl RunningExchanges {
    /// Joins the exchange of which a callback is a copy, or starts it. `None`: too many are under
    /// way.
    pub(in crate::login) fn join_or_start(
        self: &Arc<Self>,
        key: CallbackKey,
        start: impl FnOnce(OutcomeSender),
    ) -> Option<OutcomeReceiver> {
        let mut running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(told) = running.get(&key) {
            return Some(told.clone());
        }
        if running.len() >= MAX_RUNNING_EXCHANGES {
            return None;
        }
        let (sender, receiver) = watch::channel(None);
        running.insert(key.clone(), receiver.clone());
        drop(running);
        start(OutcomeSender {
            running: Arc::clone(self),
            key,
            sender,
        });
        Some(receiver)
    }
}

/// Tells all copies what came of their code. Dropped before that, it tells them that nothing did.
pub(in crate::login) struct OutcomeSender {
    running: Arc<RunningExchanges>,
    key: CallbackKey,
    sender: watch::Sender<Option<ExchangeOutcome>>,
}

impl OutcomeSender {
    pub(in crate::login) fn send(self, verdict: ExchangeOutcome) {
        self.sender.send_replace(Some(verdict));
    }
}

impl Drop for OutcomeSender {
    fn drop(&mut self) {
        let mut running = self
            .running
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        running.remove(&self.key);
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

    #[test]
    fn duplicate_callbacks_share_one_exchange() {
        let running = Arc::new(RunningExchanges::default());
        let app = crate::credential::AppId::new("wx1").unwrap();
        let key = |login| CallbackKey {
            code: LoginCodeKey::new(&app, "code"),
            login_id: login,
            bound_user: None,
        };
        let mut leaders = Vec::new();
        let told = running
            .join_or_start(key(1), |leader| leaders.push(leader))
            .unwrap();
        let copy = running
            .join_or_start(key(1), |leader| leaders.push(leader))
            .unwrap();
        running
            .join_or_start(key(2), |leader| leaders.push(leader))
            .unwrap();
        assert_eq!(leaders.len(), 2);
        leaders.remove(0).send(ExchangeOutcome::CodeSpent);
        assert_eq!(*told.borrow(), Some(ExchangeOutcome::CodeSpent));
        assert_eq!(*copy.borrow(), Some(ExchangeOutcome::CodeSpent));
        running
            .join_or_start(key(1), |leader| leaders.push(leader))
            .unwrap();
        assert_eq!(leaders.len(), 2, "the next copy asks the store");
        for login in 10..10 + MAX_RUNNING_EXCHANGES as u64 {
            running.join_or_start(key(login), |leader| leaders.push(leader));
        }
        assert!(
            running.join_or_start(key(7), |_| {}).is_none(),
            "a bounded number"
        );
    }
}
