//! What one process remembers: tokens until their renewal point, and who has none.

use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::Timestamp;
use crate::credential::{AccessToken, Details, Freshness, Lifetime};

/// How long a user without a token is remembered as such, so that strangers cannot hammer the
/// store.
const ABSENT_FOR: Duration = Duration::from_secs(1);

/// How many of them are remembered.
const ABSENT_CAPACITY: usize = 10_000;

/// How many generations guard the cache; credentials share them by hash.
const FENCES: usize = 256;

/// A credential that this process holds. One `Arc` clone hands it to a request.
pub(crate) type Held = Arc<Credential>;

/// A credential in memory. The refresh token is not kept: only renewals need it, and they read it
/// under their lease.
#[derive(Debug)]
pub(crate) struct Credential {
    id: Box<str>,
    secret: AccessToken,
    lifetime: Lifetime,
    details: Details,
    /// From when until when this process believes the entry. The start guards against a wall
    /// clock that is set back.
    since: Timestamp,
    until: Timestamp,
    /// WeChat has granted it to this process, as opposed to what was read from the store.
    renewed: bool,
}

impl Credential {
    pub(super) fn new(
        id: &str,
        secret: AccessToken,
        lifetime: Lifetime,
        details: Details,
        believed: std::ops::Range<Timestamp>,
    ) -> Self {
        let (since, until) = (believed.start, believed.end);
        Self {
            id: id.into(),
            secret,
            lifetime,
            details,
            since,
            until,
            renewed: false,
        }
    }

    /// The same, granted by WeChat a moment ago.
    pub(super) fn renewed(mut self) -> Self {
        self.renewed = true;
        self
    }

    /// Whether whoever waited for it waited for WeChat.
    pub(crate) fn was_renewed(&self) -> bool {
        self.renewed
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    pub(crate) fn secret(&self) -> &AccessToken {
        &self.secret
    }

    pub(crate) fn lifetime(&self) -> Lifetime {
        self.lifetime
    }

    pub(crate) fn details(&self) -> &Details {
        &self.details
    }

    pub(crate) fn is_alive(&self, now: Timestamp) -> bool {
        self.lifetime.freshness(now) != Freshness::Expired
    }

    /// Until when this process believes the entry without asking the store.
    pub(super) fn believed_until(&self) -> Timestamp {
        self.until
    }

    #[inline]
    fn is_believed(&self, now: Timestamp) -> bool {
        self.since <= now && now < self.until
    }
}

/// The hot path reads this and nothing else.
pub(super) struct Cache {
    entries: quick_cache::sync::Cache<Box<str>, Held>,
    absent: quick_cache::sync::Cache<Box<str>, Timestamp>,
    fences: Box<[Mutex<u64>]>,
    hasher: RandomState,
}

/// Proof that nothing else came between an exchange with the store and what is then remembered.
pub(super) struct Fence {
    at: usize,
    generation: u64,
}

impl Cache {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            entries: quick_cache::sync::Cache::new(capacity.max(1)),
            absent: quick_cache::sync::Cache::new(ABSENT_CAPACITY),
            fences: (0..FENCES).map(|_| Mutex::new(0)).collect(),
            hasher: RandomState::new(),
        }
    }

    /// An entry that is believed and not due for renewal.
    #[inline]
    pub(super) fn fresh(&self, id: &str, now: Timestamp) -> Option<Held> {
        self.entries.get(id).filter(|held| held.is_believed(now))
    }

    /// An entry that has outlived its time in the cache but not its own: better than nothing while
    /// the store is away (R4).
    pub(super) fn leftover(&self, id: &str, now: Timestamp) -> Option<Held> {
        self.entries.peek(id).filter(|held| held.is_alive(now))
    }

    pub(super) fn is_absent(&self, id: &str, now: Timestamp) -> bool {
        // The lower bound is for wall clocks that are set back.
        self.absent
            .get(id)
            .is_some_and(|until| now < until && until <= now.after(ABSENT_FOR))
    }

    /// Taken before the store is read; what is read is then inserted under it.
    pub(super) fn fence(&self, id: &str) -> Fence {
        let at = self.fence_of(id);
        Fence {
            at,
            generation: *self.generation(at),
        }
    }

    /// R2: remembers what was read from the store, unless something newer came meanwhile. An entry
    /// never gives way to an older one.
    pub(super) fn remember(&self, held: Held, fence: &Fence) {
        let generation = self.generation(fence.at);
        if *generation == fence.generation {
            self.entries.insert(held.id.clone(), held);
        }
    }

    /// Remembers that the store has nothing, unless something came meanwhile.
    pub(super) fn remember_absent(&self, id: &str, now: Timestamp, fence: &Fence) {
        let generation = self.generation(fence.at);
        if *generation == fence.generation {
            self.entries.remove(id);
            self.absent.insert(id.into(), now.after(ABSENT_FOR));
        }
    }

    /// Drops what is known of a credential, and outdates every exchange with the store that began
    /// before.
    pub(super) fn forget(&self, id: &str) -> Fence {
        let at = self.fence_of(id);
        let mut generation = self.generation(at);
        *generation += 1;
        self.absent.remove(id);
        self.entries.remove(id);
        Fence {
            at,
            generation: *generation,
        }
    }

    /// R2: remembers what has just been written to the store (`None`: that it was deleted), and
    /// outdates every read that began before.
    ///
    /// Answers of the store may reach two writers in another order than their writes reached the
    /// store. So where anything else came since `fence` was taken, nothing is remembered at all,
    /// and the next request asks the store which of them was the last.
    pub(super) fn settle(&self, id: &str, held: Option<&Held>, now: Timestamp, fence: &Fence) {
        let mut generation = self.generation(fence.at);
        let alone = *generation == fence.generation;
        *generation += 1;
        self.absent.remove(id);
        match held {
            Some(held) if alone => self.entries.insert(id.into(), Arc::clone(held)),
            None if alone => {
                self.entries.remove(id);
                self.absent.insert(id.into(), now.after(ABSENT_FOR));
            }
            _ => {
                self.entries.remove(id);
            }
        }
    }

    /// Drops an entry whose token was refused.
    pub(super) fn evict(&self, id: &str, refused: &AccessToken) {
        self.entries.remove_if(id, |held| held.secret == *refused);
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    fn fence_of(&self, id: &str) -> usize {
        (self.hasher.hash_one(id) % FENCES as u64) as usize
    }

    fn generation(&self, at: usize) -> MutexGuard<'_, u64> {
        self.fences[at]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
