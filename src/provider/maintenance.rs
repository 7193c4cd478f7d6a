//! The maintenance of the cache: removes expired entries and updates the gauge of entries.
//!
//! Requests check the expiry themselves. Without maintenance, the entries of users who do not
//! return would stay until the cache is full, and the gauge would count them.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use super::state::ProviderState;
use super::sync;

/// Interval of the maintenance.
const MAINTENANCE_INTERVAL: Duration = Duration::from_secs(1);

/// Number of entries that are checked per second. Larger caches are checked less often, so that
/// this takes a thousandth of a processor.
const ENTRIES_PER_SECOND: usize = 20_000;

/// Number of entries that are checked before other tasks may run.
const ENTRIES_PER_YIELD: usize = 256;

/// Maintenance task. Dropping this aborts the task.
#[derive(Debug, Default)]
pub(super) struct CacheMaintenance(Mutex<Option<AbortHandle>>);

impl CacheMaintenance {
    /// Starts the task, unless it runs or no runtime exists.
    pub(super) fn start(&self, provider: &Arc<ProviderState>) {
        let mut task = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // The runtime that ran the task may have been shut down.
        if task.as_ref().is_some_and(|task| !task.is_finished()) || sync::is_under_shuttle() {
            return;
        }
        if let Ok(runtime) = Handle::try_current() {
            let counting = runtime.spawn(maintain(Arc::downgrade(provider)));
            *task = Some(counting.abort_handle());
        }
    }
}

impl Drop for CacheMaintenance {
    fn drop(&mut self) {
        let task = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(task) = task {
            task.abort();
        }
    }
}

async fn maintain(engine: Weak<ProviderState>) {
    let mut seconds_until_scan = 0;
    loop {
        tokio::time::sleep(MAINTENANCE_INTERVAL).await;
        let Some(provider) = engine.upgrade() else {
            return;
        };
        if seconds_until_scan == 0 {
            remove_expired_entries(&provider).await;
            seconds_until_scan = provider.cache.len() / ENTRIES_PER_SECOND;
        } else {
            seconds_until_scan -= 1;
        }
        provider.update_cached_gauge();
    }
}

async fn remove_expired_entries(provider: &ProviderState) {
    let mut entries = provider.cache.expired_keys(&provider.clock);
    loop {
        let mut scanned = 0;
        for expired in entries.by_ref() {
            if let Some(key) = expired {
                provider.cache.remove_expired(key, provider.clock.now());
            }
            scanned += 1;
            if scanned == ENTRIES_PER_YIELD {
                break;
            }
        }
        if scanned < ENTRIES_PER_YIELD {
            return;
        }
        tokio::task::yield_now().await;
    }
}

impl ProviderState {
    /// Updates the gauge of cached credentials.
    pub(super) fn update_cached_gauge(&self) {
        self.cached_gauge.set(self.cache.len());
    }
}
