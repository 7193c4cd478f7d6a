//! What all processes of an account may do but rarely.
//!
//! WeChat's limits are the account's, so the processes count together, in the store. Where the
//! store does not answer, or was flushed, this process's own count holds.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::budget::{DAY, day_of};
use crate::clock::Timestamp;
use crate::credential::AppId;
use crate::store::{Allowance, Store};

pub(crate) struct Limit {
    app: AppId,
    store: Arc<dyn Store>,
    /// What is limited, as the store names it.
    name: &'static str,
    apart: Duration,
    a_day: u32,
    own: Mutex<Own>,
}

/// This process's own count.
#[derive(Debug, Default)]
struct Own {
    day: i64,
    uses: u32,
    at: Option<Timestamp>,
    /// The use taken at `at` came to nothing.
    unused: bool,
}

/// One use. Dropped without being [`used`](Right::used) it stays this process's until the next
/// one could be taken: a call that failed is tried again, and not put off.
#[must_use = "a right is lost unless it is used"]
pub(crate) struct Right<'a> {
    limit: &'a Limit,
    used: bool,
}

impl Limit {
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
            apart,
            a_day,
            own: Mutex::default(),
        }
    }

    /// Takes one use, or says how long to wait before asking again.
    pub(crate) async fn take(&self, now: Timestamp) -> Result<Right<'_>, Duration> {
        if !self.take_unused(now)? {
            for allowance in self.allowances(now) {
                match self.store.spend(&allowance).await {
                    Ok(true) => {}
                    Ok(false) => return Err(self.apart),
                    Err(error) => {
                        let (app, limit) = (&self.app, self.name);
                        tracing::debug!(target: "tower_wechat::account", %app, limit, %error, "counted by this process alone");
                    }
                }
            }
            let mut own = self.own();
            own.uses = own.uses.saturating_add(1);
            own.at = Some(now);
        }
        Ok(Right {
            limit: self,
            used: false,
        })
    }

    /// Whether a use is left over that came to nothing; else whether the own count allows one.
    fn take_unused(&self, now: Timestamp) -> Result<bool, Duration> {
        let mut own = self.own();
        let day = day_of(now);
        if own.day != day {
            own.day = day;
            own.uses = 0;
        }
        // A clock that was set back must not lock the way for as long.
        let taken = own.at.filter(|at| *at <= now);
        let next = taken.map(|at| at.after(self.apart));
        if let Some(next) = next.filter(|next| now < *next) {
            if std::mem::take(&mut own.unused) {
                return Ok(true);
            }
            return Err(now.until(next));
        }
        own.unused = false;
        if own.uses >= self.a_day {
            return Err(self.apart);
        }
        Ok(false)
    }

    fn allowances(&self, now: Timestamp) -> [Allowance; 2] {
        let allowance = |name: String, uses, span| Allowance {
            app: self.app.clone(),
            name: name.into(),
            uses,
            span,
        };
        [
            allowance(self.name.to_owned(), 1, self.apart),
            allowance(format!("{}:{}", self.name, day_of(now)), self.a_day, DAY),
        ]
    }

    fn own(&self) -> MutexGuard<'_, Own> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Right<'_> {
    /// It has served; the next one is to be taken anew.
    pub(crate) fn used(mut self) {
        self.used = true;
    }
}

impl Drop for Right<'_> {
    fn drop(&mut self) {
        if !self.used {
            self.limit.own().unused = true;
        }
    }
}

impl fmt::Debug for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limit")
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
    const APART: Duration = Duration::from_secs(30);

    /// Each with a store of its own, so that the process's own count is what holds.
    fn limit(a_day: u32) -> Limit {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::with_clock(Clock::system()));
        Limit::new(&AppId::new("wx1").unwrap(), &store, "test", APART, a_day)
    }

    fn flushed(limit: Limit) -> Limit {
        Limit {
            store: Arc::new(MemoryStore::new()),
            ..limit
        }
    }

    #[tokio::test]
    async fn uses_are_apart_and_few() {
        let mut limit = limit(3);
        let mut now = NOW;
        limit.take(now).await.ok().unwrap().used();
        let soon = now.after(Duration::from_secs(29));
        assert_eq!(limit.take(soon).await.err(), Some(Duration::from_secs(1)));
        for _ in 1..3 {
            now = now.after(APART);
            limit = flushed(limit);
            limit.take(now).await.ok().unwrap().used();
        }
        limit = flushed(limit);
        assert_eq!(limit.take(now.after(APART)).await.err(), Some(APART));
        limit.take(now.after(DAY)).await.ok().unwrap().used();
        // The clock was an hour ahead and has been set right.
        limit = flushed(limit);
        let right = now.after(DAY).before(Duration::from_secs(3_600));
        limit.take(right).await.ok().unwrap().used();
    }

    #[tokio::test]
    async fn what_was_not_used_is_taken_again() {
        let limit = limit(1);
        for _ in 0..3 {
            drop(limit.take(NOW).await.ok().unwrap());
        }
        limit.take(NOW).await.ok().unwrap().used();
        assert!(limit.take(NOW).await.is_err());
    }
}
