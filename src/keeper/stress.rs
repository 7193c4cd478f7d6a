//! The real cache under threads that cross each other at random, beside an oracle: what the store
//! holds. Whatever the cache serves in the end is that, and nobody who has written sees anything
//! older than what they wrote.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::cache::Cache;
use super::held::{Held, Origin};
use crate::clock::Timestamp;
use crate::credential::{AccessToken, Details, Lifetime};

const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);
const ID: &str = "oUser";

fn held(version: u64) -> Held {
    let lifetime = Lifetime::granted(NOW, Some(7_200), Duration::from_secs(900));
    let secret = AccessToken::from(format!("{version:020}"));
    let believed = NOW..NOW.after(Duration::from_secs(60));
    Held::new(
        ID,
        &secret,
        lifetime,
        &Details::default(),
        believed,
        Origin::Stored,
        0,
    )
}

fn version(held: &Held) -> u64 {
    held.secret().expose().parse().unwrap()
}

/// Gives way now and then, where another thread may come between.
fn perhaps_yield(random: &mut fastrand::Rng) {
    if random.u8(..3) == 0 {
        std::thread::yield_now();
    }
}

/// A write as a login and a commit do it; every fourth one deletes (version 0 in the store).
fn write(cache: &Cache, store: &Mutex<u64>, versions: &AtomicU64, random: &mut fastrand::Rng) {
    let fence = if random.bool() {
        cache.forget(ID)
    } else {
        cache.fence(ID)
    };
    perhaps_yield(random);
    let (mine, written) = {
        let mut store = store.lock().unwrap();
        let mine = versions.fetch_add(1, Ordering::Relaxed) + 1;
        *store = if random.u8(..4) == 0 { 0 } else { mine };
        (mine, *store)
    };
    perhaps_yield(random);
    let written = (written != 0).then(|| held(written));
    cache.settle(ID, written.as_ref(), NOW, &fence);
    if let Some(seen) = cache.fresh(ID, NOW) {
        assert!(
            version(&seen) >= mine,
            "an older token came back after a write"
        );
    }
}

/// A read as a flight does it.
fn read(cache: &Cache, store: &Mutex<u64>, random: &mut fastrand::Rng) {
    let fence = cache.fence(ID);
    perhaps_yield(random);
    let stored = *store.lock().unwrap();
    perhaps_yield(random);
    match stored {
        0 => cache.remember_absent(ID, NOW, &fence),
        stored => cache.remember(held(stored), &fence),
    }
}

#[test]
fn what_the_cache_serves_is_what_the_store_holds() {
    let seed = fastrand::u64(..);
    for round in 0..150 {
        let (cache, store, versions) = (
            Cache::new(100, Duration::from_secs(60)),
            Mutex::new(0),
            AtomicU64::new(0),
        );
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (cache, store, versions) = (&cache, &store, &versions);
                scope.spawn(move || {
                    let mut random = fastrand::Rng::with_seed(seed ^ (round * 4 + thread));
                    for _ in 0..60 {
                        match random.u8(..3) {
                            0 => write(cache, store, versions, &mut random),
                            _ => read(cache, store, &mut random),
                        }
                    }
                });
            }
        });
        let stored = *store.lock().unwrap();
        let served = cache.fresh(ID, NOW);
        assert!(
            served.as_ref().is_none_or(|held| version(held) == stored),
            "seed {seed}, round {round}: {served:?} is served, {stored} is stored"
        );
        assert!(
            stored == 0 || !cache.is_absent(ID, NOW),
            "seed {seed}, round {round}"
        );
    }
}
