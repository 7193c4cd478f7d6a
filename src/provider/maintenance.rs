//! The maintenance of the cache: removes expired entries and updates the gauge of entries.
//!
//! Requests check the expiry themselves. Without maintenance, the entries of users who do not
//! return would stay until the cache is full, and the gauge would count them.

use std::sync::{Arc, Weak};
use std::time::Duration;

use super::state::ProviderState;
use super::sync;

/// Interval between two runs of the maintenance: one second.
const MAINTENANCE_INTERVAL: Duration = Duration::from_secs(1);

/// Number of entries that are checked per second. Larger caches are checked less often, so that the
/// check takes about a thousandth of one processor core.
const ENTRIES_PER_SECOND: usize = 20_000;

/// Number of entries that are checked before other tasks may run: 256, which takes microseconds.
const ENTRIES_PER_YIELD: usize = 256;

/// Starts the maintenance task of an engine, unless it runs or no runtime exists.
pub(super) fn start(provider: &Arc<ProviderState>) {
    // In tests under shuttle, the scheduler of shuttle runs only tasks that it has spawned itself.
    if !sync::is_under_shuttle() {
        provider
            .maintenance
            .start(|| Some(maintain(Arc::downgrade(provider))));
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
