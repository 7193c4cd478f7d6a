//! The cache alone, beside an oracle: what the store holds. Whatever it believes is no older than
//! what its process has written, was told of, or knows to have missed; in the end it is what the
//! store holds.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use shuttle::scheduler::DfsScheduler;
use shuttle::thread;

use super::{check, run};
use crate::clock::Timestamp;
use crate::credential::{AccessToken, Details, Lifetime};
use crate::keeper::cache::{Cache, Fence};
use crate::keeper::held::{Held, Origin};

const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);
const TTL: Duration = Duration::from_secs(60);
const ID: &str = "oUser";

/// Versions are numbers, in the order of their writes; 0 and every third one is a deletion.
struct Both {
    cache: Cache,
    stored: Mutex<usize>,
    /// What this process knows of.
    known: AtomicUsize,
}

fn is_deletion(version: usize) -> bool {
    version.is_multiple_of(3)
}

impl Both {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            cache: Cache::new(10, TTL),
            stored: Mutex::new(1),
            known: AtomicUsize::new(0),
        })
    }

    fn held(&self, version: usize) -> Option<Held> {
        let lifetime = Lifetime::granted(NOW, Some(7_200), Duration::from_secs(900));
        let secret = AccessToken::from(format!("{version}"));
        let (believed, details) = (NOW..lifetime.renew_at(), Details::default());
        let (origin, era) = (Origin::Stored, self.cache.era());
        let held = || Held::new(ID, &secret, lifetime, &details, believed, origin, era);
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

    fn looks(&self) {
        let known = self.known.load(Ordering::Relaxed);
        if let Some(held) = self.cache.fresh(ID, NOW) {
            let version: usize = held.secret().expose().parse().unwrap();
            assert!(version >= known, "{version} is believed, {known} was known");
        }
    }

    fn knows(&self, version: usize) {
        self.known.fetch_max(version, Ordering::Relaxed);
        self.looks();
    }

    /// As a login does it, or, without forgetting first, a commit.
    fn write(&self, forgets: bool) -> usize {
        let fence: Fence = match forgets {
            true => self.cache.forget(ID),
            false => self.cache.fence(ID),
        };
        let version = self.store();
        let held = self.held(version);
        self.cache.settle(ID, held.as_ref(), NOW, &fence);
        version
    }

    fn writes(&self, forgets: bool) {
        let version = self.write(forgets);
        self.knows(version);
    }

    /// As a flight does it, or who reads alone.
    fn read(&self) {
        let fence = self.cache.fence(ID);
        match self.held(self.load()) {
            Some(held) => self.cache.remember(held, &fence),
            None => self.cache.remember_absent(ID, NOW, &fence),
        }
    }

    fn reads(&self) {
        self.read();
        self.looks();
    }

    /// Another process writes, and that is told.
    fn hear(&self) -> usize {
        let version = self.store();
        let mark = self.held(version).map(|held| held.mark());
        self.cache.told(ID, mark);
        version
    }

    fn hears(&self) {
        let version = self.hear();
        self.knows(version);
    }

    /// Another process writes, and only that something was missed is known.
    fn misses(&self) {
        let version = self.store();
        self.cache.unprove();
        self.cache.outdate_all();
        self.cache.prove(NOW.after(Duration::from_secs(30)));
        self.knows(version);
        // What is believed for longer than its own time was read after the loss, and so proved.
        if let Some(held) = self.cache.fresh(ID, NOW.after(Duration::from_secs(80))) {
            assert!(held.secret().expose().parse::<usize>().unwrap() >= version);
        }
    }

    fn comes_to_rest(&self) {
        let (stored, believed) = (self.load(), self.cache.fresh(ID, NOW));
        if let Some(held) = believed {
            assert_eq!(held.secret().expose(), format!("{stored}"), "of the store");
        }
        // That somebody has none is believed for a second, whatever is missed.
        let absent = self.cache.is_absent(ID, NOW) && self.cache.era() == 0;
        assert!(!absent || is_deletion(stored), "{stored} is stored");
    }
}

fn side_by_side(tasks: Vec<fn(&Both)>) {
    let both = Both::new();
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
    both.comes_to_rest();
}

#[test]
fn writes_reads_and_news_cross_each_other() {
    check("cache", || {
        side_by_side(vec![
            |both| {
                both.writes(true);
                both.writes(false);
            },
            |both| {
                both.reads();
                both.reads();
            },
            |both| {
                both.reads();
                both.writes(false);
            },
            Both::hears,
        ]);
    });
}

#[test]
fn a_loss_crosses_reads() {
    check("a loss", || {
        side_by_side(vec![
            |both| {
                both.reads();
                both.reads();
            },
            |both| {
                both.writes(true);
                both.reads();
            },
            Both::misses,
        ]);
    });
}

/// Every order there is.
#[test]
fn a_write_and_a_read_in_every_order() {
    let every = || DfsScheduler::new(None, false);
    run("a login and a read, every order", every(), || {
        side_by_side(vec![
            |both| {
                both.write(true);
            },
            Both::read,
        ]);
    });
    run("a commit and a read, every order", every(), || {
        side_by_side(vec![
            |both| {
                both.write(false);
            },
            Both::read,
        ]);
    });
    run("news and a read, every order", every(), || {
        side_by_side(vec![
            |both| {
                both.hear();
            },
            Both::read,
        ]);
    });
    run("a loss and a read, every order", every(), || {
        side_by_side(vec![Both::misses, Both::read]);
    });
}
