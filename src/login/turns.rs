//! Who exchanges a code next: copies of one callback share one exchange, and codes that WeChat
//! refuses are slowed down before they cost an account its quota.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;

use super::exchange::Verdict;
use crate::credential::UserId;
use crate::store::CodeName;

/// How many exchanges of codes one process may run at once.
const AT_ONCE: usize = 512;

/// How many different callbacks may be under way or wait in one process; further ones are told to
/// come again in a moment.
const UNDER_WAY: usize = 2_048;

/// How many codes WeChat may refuse one process in a row before further exchanges are slowed down.
const REFUSED_AT_ONCE: f64 = 200.0;

/// How many refused codes a second are allowed from then on.
const REFUSED_A_SECOND: f64 = 100.0;

/// Bounds the exchanges of one process.
#[derive(Debug)]
pub(super) struct Turns {
    places: Arc<Semaphore>,
    /// Whoever waits for the budget, one after another.
    line: Semaphore,
    budget: Mutex<Budget>,
}

#[derive(Debug)]
struct Budget {
    left: f64,
    counted: Instant,
}

impl Budget {
    /// Takes one, or returns how long it takes until there is one.
    fn take(&mut self, now: Instant) -> Option<Duration> {
        let passed = now.saturating_duration_since(self.counted);
        self.counted = now;
        self.left = (self.left + passed.as_secs_f64() * REFUSED_A_SECOND).min(REFUSED_AT_ONCE);
        if self.left >= 1.0 {
            self.left -= 1.0;
            return None;
        }
        Some(Duration::from_secs_f64(
            (1.0 - self.left) / REFUSED_A_SECOND,
        ))
    }
}

/// The right to exchange one code.
pub(super) struct Turn {
    turns: Arc<Turns>,
    _place: OwnedSemaphorePermit,
}

impl Turns {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            places: Arc::new(Semaphore::new(AT_ONCE)),
            line: Semaphore::new(1),
            budget: Mutex::new(Budget {
                left: REFUSED_AT_ONCE,
                counted: Instant::now(),
            }),
        })
    }

    /// Waits for a turn, in the order of arrival. `None`: it did not come in time.
    pub(super) async fn take(self: &Arc<Self>, wait: Duration) -> Option<Turn> {
        let turn = async {
            let place = Arc::clone(&self.places).acquire_owned().await.ok()?;
            let _in_line = self.line.acquire().await.ok()?;
            while let Some(rest) = self.take_one() {
                tokio::time::sleep(rest).await;
            }
            Some(Turn {
                turns: Arc::clone(self),
                _place: place,
            })
        };
        tokio::time::timeout(wait, turn).await.ok().flatten()
    }

    fn take_one(&self) -> Option<Duration> {
        self.budget().take(Instant::now())
    }

    fn budget(&self) -> std::sync::MutexGuard<'_, Budget> {
        self.budget.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn {
    /// Gives back what a refused code would have cost: this one was not refused.
    pub(super) fn was_no_refusal(&self) {
        self.turns.budget().left += 1.0;
    }
}

/// What makes two callbacks copies of each other.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct CopyKey {
    pub(super) code: CodeName,
    /// The number of the login.
    pub(super) login: u64,
    pub(super) named: Option<UserId>,
}

type Told = watch::Receiver<Option<Verdict>>;

/// The exchanges that this process runs.
#[derive(Debug, Default)]
pub(super) struct Running(Mutex<HashMap<CopyKey, Told>>);

impl Running {
    /// Joins the exchange of which a callback is a copy, or starts it. `None`: too many are under
    /// way.
    pub(super) fn join(self: &Arc<Self>, key: CopyKey, start: impl FnOnce(Leader)) -> Option<Told> {
        let mut running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(told) = running.get(&key) {
            return Some(told.clone());
        }
        if running.len() >= UNDER_WAY {
            return None;
        }
        let (tell, told) = watch::channel(None);
        running.insert(key.clone(), told.clone());
        drop(running);
        start(Leader {
            running: Arc::clone(self),
            key,
            tell,
        });
        Some(told)
    }
}

/// Tells all copies what came of their code. Dropped before that, it tells them that nothing did.
pub(super) struct Leader {
    running: Arc<Running>,
    key: CopyKey,
    tell: watch::Sender<Option<Verdict>>,
}

impl Leader {
    pub(super) fn tell(self, verdict: Verdict) {
        self.tell.send_replace(Some(verdict));
    }
}

impl Drop for Leader {
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
    fn refused_codes_are_slowed_down_and_others_are_not() {
        let now = Instant::now();
        let mut budget = Budget {
            left: REFUSED_AT_ONCE,
            counted: now,
        };
        let at_once = (0..1_000).filter(|_| budget.take(now).is_none()).count();
        assert_eq!(at_once, 200);
        let later = now + Duration::from_secs(1);
        assert_eq!(
            (0..1_000).filter(|_| budget.take(later).is_none()).count(),
            100
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_comes_in_time_or_not_at_all() {
        let turns = Turns::new();
        turns.budget().left = -1_000.0;
        assert!(turns.take(Duration::from_secs(5)).await.is_none());
        let turn = turns.take(Duration::MAX).await.unwrap();
        turn.was_no_refusal();
        assert!(turns.take(Duration::ZERO).await.is_some());
    }

    #[test]
    fn copies_share_one_exchange_and_another_login_is_none_of_them() {
        let running = Arc::new(Running::default());
        let app = crate::credential::AppId::new("wx1").unwrap();
        let key = |login| CopyKey {
            code: CodeName::of(&app, "code"),
            login,
            named: None,
        };
        let mut leaders = Vec::new();
        let told = running.join(key(1), |leader| leaders.push(leader)).unwrap();
        let copy = running.join(key(1), |leader| leaders.push(leader)).unwrap();
        running.join(key(2), |leader| leaders.push(leader)).unwrap();
        assert_eq!(leaders.len(), 2);
        leaders.remove(0).tell(Verdict::Spent);
        assert_eq!(*told.borrow(), Some(Verdict::Spent));
        assert_eq!(*copy.borrow(), Some(Verdict::Spent));
        running.join(key(1), |leader| leaders.push(leader)).unwrap();
        assert_eq!(leaders.len(), 2, "the next copy asks the store");
        for login in 10..10 + UNDER_WAY as u64 {
            running.join(key(login), |leader| leaders.push(leader));
        }
        assert!(running.join(key(7), |_| {}).is_none(), "a bounded number");
    }
}
