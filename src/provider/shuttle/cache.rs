//! The cache alone, beside an oracle: what the store holds. Whatever it believes is no older than
//! what its process has written, was told of, or knows to have missed; in the end it is what the
//! store holds.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use shuttle::scheduler::DfsScheduler;
use shuttle::thread;

use super::{explore, run_schedules};
use crate::clock::Timestamp;
use crate::credential::{AccessToken, Lifetime, UserDetails};
use crate::provider::cache::Cache;
use crate::provider::entry::{CacheEntry, EntryOrigin};
use crate::provider::versions::VersionStamp;

const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);
const TTL: Duration = Duration::from_secs(60);
const ID: &str = "oUser";

/// Versions are numbers, in the order of their writes; 0 and every third one is a deletion.
struct CacheAndStore {
    cache: Cache,
    stored: Mutex<usize>,
    /// What this process knows of.
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
        let (believed, details) = (NOW..lifetime.renew_at(), UserDetails::default());
        let (origin, era) = (EntryOrigin::Stored, self.cache.epoch());
        let held = || CacheEntry::new(ID, &secret, lifetime, &details, believed, origin, era);
        (!is_deletion(version)).then(held)
    }

    fn load(&self) -> usize {
        *self.stored.lock().unwrap()
    }

    /// Somebody writes: this process, or another.
    fn store(&self) -> usize {
        let mut stored = self.stored.lock().unwrap();
        *stored += 1;
        *stored
    }

    fn check_cached(&self) {
        let known = self.known_version.load(Ordering::Relaxed);
        if let Some(held) = self.cache.fresh(ID, NOW) {
            let version: usize = held.secret().expose().parse().unwrap();
            assert!(version >= known, "{version} is believed, {known} was known");
        }
    }

    fn learn(&self, version: usize) {
        self.known_version.fetch_max(version, Ordering::Relaxed);
        self.check_cached();
    }

    /// As a login does it, or, without forgetting first, a commit.
    fn write(&self, invalidates_first: bool) -> usize {
        let fence: VersionStamp = match invalidates_first {
            true => self.cache.invalidate(ID),
            false => self.cache.stamp(ID),
        };
        let version = self.store();
        let held = self.entry(version);
        self.cache.complete_write(ID, held.as_ref(), NOW, &fence);
        version
    }

    fn write_and_check(&self, invalidates_first: bool) {
        let version = self.write(invalidates_first);
        self.learn(version);
    }

    /// As a flight does it, or who reads alone.
    fn read(&self) {
        let fence = self.cache.stamp(ID);
        match self.entry(self.load()) {
            Some(held) => self.cache.insert_if_unchanged(held, &fence),
            None => self.cache.insert_absent_if_unchanged(ID, NOW, &fence),
        }
    }

    fn read_and_check(&self) {
        self.read();
        self.check_cached();
    }

    /// Another process writes, and that is told.
    fn write_remotely(&self) -> usize {
        let version = self.store();
        let mark = self.entry(version).map(|held| held.version());
        self.cache.on_invalidation(ID, mark);
        version
    }

    fn write_remotely_and_check(&self) {
        let version = self.write_remotely();
        self.learn(version);
    }

    /// Another process writes, and only that something was missed is known.
    fn miss_invalidation_and_check(&self) {
        let version = self.store();
        self.cache.mark_unsynced();
        self.cache.invalidate_all();
        self.cache
            .mark_synced(NOW.saturating_add(Duration::from_secs(30)));
        self.learn(version);
        // What is believed for longer than its own time was read after the loss, and so proved.
        if let Some(held) = self
            .cache
            .fresh(ID, NOW.saturating_add(Duration::from_secs(80)))
        {
            assert!(held.secret().expose().parse::<usize>().unwrap() >= version);
        }
    }

    fn assert_quiescent(&self) {
        let (stored, believed) = (self.load(), self.cache.fresh(ID, NOW));
        if let Some(held) = believed {
            assert_eq!(held.secret().expose(), format!("{stored}"), "of the store");
        }
        // That somebody has none is believed for a second, whatever is missed.
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
    explore("a loss", || {
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

/// Every order there is.
#[test]
fn a_write_and_a_read_in_every_order() {
    let every = || DfsScheduler::new(None, false);
    run_schedules("a login and a read, every order", every(), || {
        run_concurrently(vec![
            |both| {
                both.write(true);
            },
            CacheAndStore::read,
        ]);
    });
    run_schedules("a commit and a read, every order", every(), || {
        run_concurrently(vec![
            |both| {
                both.write(false);
            },
            CacheAndStore::read,
        ]);
    });
    run_schedules("news and a read, every order", every(), || {
        run_concurrently(vec![
            |both| {
                both.write_remotely();
            },
            CacheAndStore::read,
        ]);
    });
    run_schedules("a loss and a read, every order", every(), || {
        run_concurrently(vec![
            CacheAndStore::miss_invalidation_and_check,
            CacheAndStore::read,
        ]);
    });
}
