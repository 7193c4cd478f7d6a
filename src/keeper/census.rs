//! Counts the credentials in memory, and drops those that have expired.
//!
//! Requests find out by themselves that an entry has expired. Users who do not come back would leave
//! theirs behind until others need the room, and the gauge would count them as served users.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use super::{Inner, sync};

/// How often the entries are counted.
const COUNT_EVERY: Duration = Duration::from_secs(1);

/// How many entries are looked at in a second: a large cache is looked through less often, so that
/// this takes a thousandth of a processor.
const LOOKED_AT_IN_A_SECOND: usize = 20_000;

/// How many are looked at before other tasks get their turn.
const AT_ONCE: usize = 256;

/// The task that counts. Dropping this ends it.
#[derive(Debug, Default)]
pub(super) struct Census(Mutex<Option<AbortHandle>>);

impl Census {
    /// Starts the task, unless it runs, or there is no runtime to run it.
    pub(super) fn start(&self, inner: &Arc<Inner>) {
        let mut task = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // The runtime that ran it may be gone.
        if task.as_ref().is_some_and(|task| !task.is_finished()) || sync::in_schedule() {
            return;
        }
        if let Ok(runtime) = Handle::try_current() {
            let counting = runtime.spawn(count(Arc::downgrade(inner)));
            *task = Some(counting.abort_handle());
        }
    }
}

impl Drop for Census {
    fn drop(&mut self) {
        let task = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(task) = task {
            task.abort();
        }
    }
}

async fn count(engine: Weak<Inner>) {
    let mut seconds_until_look = 0;
    loop {
        tokio::time::sleep(COUNT_EVERY).await;
        let Some(inner) = engine.upgrade() else {
            return;
        };
        if seconds_until_look == 0 {
            drop_expired(&inner).await;
            seconds_until_look = inner.cache.len() / LOOKED_AT_IN_A_SECOND;
        } else {
            seconds_until_look -= 1;
        }
        inner.observe_count();
    }
}

async fn drop_expired(inner: &Inner) {
    let mut entries = inner.cache.keys_of_expired(&inner.clock);
    loop {
        let mut looked_at = 0;
        for expired in entries.by_ref() {
            if let Some(key) = expired {
                inner.cache.remove_expired(key, inner.clock.now());
            }
            looked_at += 1;
            if looked_at == AT_ONCE {
                break;
            }
        }
        if looked_at < AT_ONCE {
            return;
        }
        tokio::task::yield_now().await;
    }
}

impl Inner {
    /// Tells the operator how many credentials this process holds.
    pub(super) fn observe_count(&self) {
        self.cached.set(self.cache.len());
    }
}
