//! The maintenance of the cache: a task that removes expired entries and updates the gauge of
//! entries.
//!
//! Requests do not depend on the maintenance, because they check the expiry of an entry themselves.
//! Without the maintenance, the entries of users who do not return would stay until the cache is
//! full, and the gauge would count them.

use std::sync::{Arc, Weak};
use std::time::Duration;

use super::state::ProviderState;
use super::sync;

/// Interval at which the maintenance updates the gauge: one second. A small cache is also scanned
/// for expired entries at this interval.
const MAINTENANCE_INTERVAL: Duration = Duration::from_secs(1);

/// Average number of entries that are checked per second: 20,000. A larger cache is scanned less
/// often than once a second, so that the scans take about a thousandth of one processor core.
const ENTRIES_PER_SECOND: usize = 20_000;

/// Number of entries that are checked before the maintenance lets other tasks run: 256. The check
/// of 256 entries takes microseconds.
const ENTRIES_PER_YIELD: usize = 256;

/// Starts the maintenance task of an engine, unless the task already runs or there is no tokio
/// runtime.
pub(super) fn start(provider: &Arc<ProviderState>) {
    // The maintenance is not started in tests under shuttle, because the scheduler of shuttle runs
    // only tasks that were spawned through shuttle.
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
