//! Tests of the cache without the rest of the engine: its entries are compared with the content of
//! a simulated store.
//!
//! The cache must not serve an entry that is older than a write that its process made or received
//! as an invalidation. After the loss of an invalidation was detected, the cache must not serve an
//! entry that was read before the loss. When all tasks have ended, the cache must agree with the
//! store.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use shuttle::scheduler::DfsScheduler;
use shuttle::thread;

use super::explore::{explore, run_schedules};
use crate::clock::Timestamp;
use crate::credential::{AccessToken, Lifetime, UserDetails};
use crate::provider::cache::Cache;
use crate::provider::entry::{CacheEntry, EntryOrigin};
use crate::provider::versions::VersionStamp;

const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);
const TTL: Duration = Duration::from_secs(60);
const ID: &str = "oUser";

/// A cache and the version that the store holds. Versions are numbers in the order of the writes.
/// Version 0 and every third version are deletions.
struct CacheAndStore {
    cache: Cache,
    stored: Mutex<usize>,
    /// Newest version that this process has written, received as an invalidation, or missed.
    known_version: AtomicUsize,
}

fn is_deletion(version: usize) -> bool {
    version.is_multiple_of(3)
}

impl CacheAndStore {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            cache: Cache::new(10, TTL),
            stored: Mutex::new(1),
            known_version: AtomicUsize::new(0),
        })
    }

    fn entry(&self, version: usize) -> Option<CacheEntry> {
        let lifetime = Lifetime::from_response(NOW, Some(7_200), Duration::from_secs(900));
        let secret = AccessToken::from(format!("{version}"));
        let (validity, details) = (NOW..lifetime.renew_at(), UserDetails::default());
        let (origin, epoch) = (EntryOrigin::Stored, self.cache.epoch());
        let entry = || CacheEntry::new(ID, &secret, lifetime, &details, validity, origin, epoch);
        (!is_deletion(version)).then(entry)
    }

    fn load(&self) -> usize {
        *self.stored.lock().unwrap()
    }

    /// Writes the next version to the store, without a change of the cache. Returns the version.
    fn store(&self) -> usize {
        let mut stored = self.stored.lock().unwrap();
        *stored += 1;
        *stored
    }

    fn check_cached(&self) {
        let known = self.known_version.load(Ordering::Relaxed);
        if let Some(entry) = self.cache.fresh(ID, NOW) {
            let version: usize = entry.secret().expose().parse().unwrap();
            assert!(version >= known, "{version} is served, {known} was known");
        }
    }

    fn learn(&self, version: usize) {
        self.known_version.fetch_max(version, Ordering::Relaxed);
        self.check_cached();
    }

    /// Writes the next version and caches it. If `invalidates_first`, removes the cache entry
    /// before the write, as a login does; a commit does not.
    fn write(&self, invalidates_first: bool) -> usize {
        let stamp: VersionStamp = match invalidates_first {
            true => self.cache.invalidate(ID),
            false => self.cache.stamp(ID),
        };
        let version = self.store();
        let entry = self.entry(version);
        self.cache.complete_write(ID, entry.as_ref(), NOW, &stamp);
        version
    }

    fn write_and_check(&self, invalidates_first: bool) {
        let version = self.write(invalidates_first);
        self.learn(version);
    }

    /// Reads the store and caches the result, as calls and requests do.
    fn read(&self) {
        let stamp = self.cache.stamp(ID);
        match self.entry(self.load()) {
            Some(entry) => self.cache.insert_if_unchanged(entry, &stamp),
            None => self.cache.insert_absent_if_unchanged(ID, NOW, &stamp),
        }
    }

    fn read_and_check(&self) {
        self.read();
        self.check_cached();
    }

    /// Writes the next version as another process, whose invalidation arrives at this cache.
    /// Returns the version.
    fn write_remotely(&self) -> usize {
        let version = self.store();
        let version_mark = self.entry(version).map(|entry| entry.version());
        self.cache.on_invalidation(ID, version_mark);
        version
    }

    fn write_remotely_and_check(&self) {
        let version = self.write_remotely();
        self.learn(version);
    }

    /// Writes the next version as another process, whose invalidation is lost. This process detects
    /// the loss and begins a new epoch.
    fn miss_invalidation_and_check(&self) {
        let version = self.store();
        self.cache.mark_unsynced();
        self.cache.invalidate_all();
        self.cache
            .mark_synced(NOW.saturating_add(Duration::from_secs(30)));
        self.learn(version);
        // An entry that is valid 80 seconds after its read was confirmed by the heartbeat at 30
        // seconds. Such an entry belongs to the new epoch, so it was read after the loss.
        if let Some(entry) = self
            .cache
            .fresh(ID, NOW.saturating_add(Duration::from_secs(80)))
        {
            assert!(entry.secret().expose().parse::<usize>().unwrap() >= version);
        }
    }

    fn assert_quiescent(&self) {
        let (stored, cached) = (self.load(), self.cache.fresh(ID, NOW));
        if let Some(entry) = cached {
            assert_eq!(
                entry.secret().expose(),
                format!("{stored}"),
                "the store holds this"
            );
        }
        // The negative cache is checked only if no invalidation was missed, because its entries
        // last for a second even after a missed invalidation.
        let absent = self.cache.is_known_absent(ID, NOW) && self.cache.epoch() == 0;
        assert!(!absent || is_deletion(stored), "{stored} is stored");
    }
}

fn run_concurrently(tasks: Vec<fn(&CacheAndStore)>) {
    let both = CacheAndStore::new();
    let threads: Vec<_> = tasks
        .into_iter()
        .map(|task| {
            let both = Arc::clone(&both);
            thread::spawn(move || task(&both))
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    both.assert_quiescent();
}

#[test]
fn writes_reads_and_invalidations_race() {
    explore("cache", || {
        run_concurrently(vec![
            |both| {
                both.write_and_check(true);
                both.write_and_check(false);
            },
            |both| {
                both.read_and_check();
                both.read_and_check();
            },
            |both| {
                both.read_and_check();
                both.write_and_check(false);
            },
            CacheAndStore::write_remotely_and_check,
        ]);
    });
}

#[test]
fn a_missed_invalidation_races_reads() {
    explore("a missed invalidation", || {
        run_concurrently(vec![
            |both| {
                both.read_and_check();
                both.read_and_check();
            },
            |both| {
                both.write_and_check(true);
                both.read_and_check();
            },
            CacheAndStore::miss_invalidation_and_check,
        ]);
    });
}

/// Runs a write and a read under all possible schedules.
#[test]
fn a_write_and_a_read_in_every_order() {
    let all_orders = || DfsScheduler::new(None, false);
    run_schedules("a login and a read, all orders", all_orders(), || {
        run_concurrently(vec![
            |both| {
                both.write(true);
            },
            CacheAndStore::read,
        ]);
    });
    run_schedules("a commit and a read, all orders", all_orders(), || {
        run_concurrently(vec![
            |both| {
                both.write(false);
            },
            CacheAndStore::read,
        ]);
    });
    run_schedules(
        "an invalidation and a read, all orders",
        all_orders(),
        || {
            run_concurrently(vec![
                |both| {
                    both.write_remotely();
                },
                CacheAndStore::read,
            ]);
        },
    );
    run_schedules(
        "a missed invalidation and a read, all orders",
        all_orders(),
        || {
            run_concurrently(vec![
                CacheAndStore::miss_invalidation_and_check,
                CacheAndStore::read,
            ]);
        },
    );
}
