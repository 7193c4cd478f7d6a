//! What one process remembers: tokens until their renewal point, and who has none.

use std::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quick_cache::{DefaultHashBuilder, UnitWeighter};

use super::Held;
use crate::clock::Timestamp;
use crate::credential::AccessToken;

/// How long a user without a token is remembered as such, so that strangers cannot hammer the
/// store.
const ABSENT_FOR: Duration = Duration::from_secs(1);

/// How many of them are remembered.
const ABSENT_CAPACITY: usize = 10_000;

/// How many generations guard the cache; credentials share them by hash.
const FENCES: usize = 256;

/// The part of its capacity that the cache is told to expect.
const EXPECTED_PART: usize = 12;

/// The hot path reads this and nothing else.
pub(super) struct Cache {
    entries: quick_cache::sync::Cache<Key, Held, UnitWeighter, Spread>,
    absent: quick_cache::sync::Cache<Box<str>, Timestamp>,
    fences: Box<[Mutex<u64>]>,
    /// Keyed with a secret of its own, since whoever asks may choose ids.
    hasher: DefaultHashBuilder,
}

/// What an entry is found by: forty bits of its id's hash. The id itself lies in the entry, and is
/// compared there. Where two ids share a key, of which there is not one pair among a million users
/// as a rule, each takes the other's place, and finds its own token in the store.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Key([u8; 5]);

impl Key {
    #[inline]
    fn number(self) -> u64 {
        let Self([a, b, c, d, e]) = self;
        u64::from_le_bytes([a, b, c, d, e, 0, 0, 0])
    }
}

impl Hash for Key {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.number());
    }
}

/// Keys are hashes already: this spreads their forty bits over the sixty-four of a map's.
#[derive(Clone, Copy, Default)]
pub(super) struct SpreadHasher(u64);

pub(super) type Spread = BuildHasherDefault<SpreadHasher>;

impl Hasher for SpreadHasher {
    #[inline]
    fn write_u64(&mut self, number: u64) {
        // An odd number near 2^64 divided by the golden ratio.
        self.0 = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(self.0 ^ u64::from(*byte));
        }
    }

    #[inline]
    fn finish(&self) -> u64 {
        self.0
    }
}

/// Proof that nothing else came between an exchange with the store and what is then remembered.
pub(super) struct Fence {
    at: usize,
    generation: u64,
}

impl Cache {
    pub(super) fn new(capacity: usize) -> Self {
        let capacity = capacity.max(1);
        // The library remembers who has left it, so that they are kept longer when they come back:
        // half as many as it expects entries. That memory counts against the users, so it is told
        // to expect few.
        let expected = (capacity / EXPECTED_PART).max(1);
        let entries = quick_cache::sync::Cache::with(
            expected,
            capacity as u64,
            UnitWeighter,
            Spread::default(),
            Default::default(),
        );
        Self {
            entries,
            absent: quick_cache::sync::Cache::new(ABSENT_CAPACITY),
            fences: (0..FENCES).map(|_| Mutex::new(0)).collect(),
            hasher: DefaultHashBuilder::default(),
        }
    }

    #[inline]
    pub(super) fn key(&self, id: &str) -> Key {
        let [a, b, c, d, e, ..] = self.hasher.hash_one(id).to_le_bytes();
        Key([a, b, c, d, e])
    }

    /// What is kept of exactly this credential, not of one that shares its key.
    fn remove(&self, id: &str) {
        self.entries.remove_if(&self.key(id), |held| held.is_of(id));
    }

    fn insert(&self, held: Held) {
        self.entries.insert(self.key(held.id()), held);
    }

    /// An entry that is believed and not due for renewal.
    #[inline]
    pub(super) fn fresh(&self, id: &str, now: Timestamp) -> Option<Held> {
        let held = self.entries.get(&self.key(id))?;
        (held.is_believed(now) && held.is_of(id)).then_some(held)
    }

    /// An entry that has outlived its time in the cache but not its own: better than nothing while
    /// the store is away (R4).
    pub(super) fn leftover(&self, id: &str, now: Timestamp) -> Option<Held> {
        let held = self.entries.peek(&self.key(id))?;
        (held.is_of(id) && held.is_alive(now)).then_some(held)
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

    /// Whether nothing has come since the fence was taken.
    pub(super) fn is_undisturbed(&self, fence: &Fence) -> bool {
        *self.generation(fence.at) == fence.generation
    }

    /// R2: remembers what was read from the store, unless something newer came meanwhile. An entry
    /// never gives way to an older one.
    pub(super) fn remember(&self, held: Held, fence: &Fence) {
        let generation = self.generation(fence.at);
        if *generation == fence.generation {
            self.insert(held);
        }
    }

    /// Remembers that the store has nothing, unless something came meanwhile.
    pub(super) fn remember_absent(&self, id: &str, now: Timestamp, fence: &Fence) {
        let generation = self.generation(fence.at);
        if *generation == fence.generation {
            self.remove(id);
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
        self.remove(id);
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
            Some(held) if alone => self.insert(held.clone()),
            None if alone => {
                self.remove(id);
                self.absent.insert(id.into(), now.after(ABSENT_FOR));
            }
            _ => {
                self.remove(id);
            }
        }
    }

    /// Drops an entry whose token was refused.
    pub(super) fn evict(&self, id: &str, refused: &AccessToken) {
        self.entries.remove_if(&self.key(id), |held| {
            held.is_of(id) && held.secret() == refused
        });
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    fn fence_of(&self, id: &str) -> usize {
        (self.key(id).number() % FENCES as u64) as usize
    }

    fn generation(&self, at: usize) -> MutexGuard<'_, u64> {
        self.fences[at]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credential::{Details, Lifetime};
    use crate::keeper::held::Origin;

    const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

    fn held(id: &str) -> Held {
        let details = Details {
            openid: Some(id.into()),
            scope: Some("snsapi_userinfo".into()),
            unionid: None,
            sessions_from: None,
        };
        let lifetime = Lifetime::granted(NOW, Some(7_200), Duration::from_secs(900));
        let token = AccessToken::new(format!("{id:a>110}"));
        let until = NOW.after(Duration::from_secs(60));
        Held::new(id, &token, lifetime, &details, NOW..until, Origin::Stored)
    }

    /// As long as openids are.
    fn id(at: usize) -> String {
        format!("o6_bmjrPTlm6_2sgVt7h{at:08}")
    }

    fn filled(users: usize, capacity: usize) -> Cache {
        let cache = Cache::new(capacity);
        for at in 0..users {
            let id = id(at);
            cache.remember(held(&id), &cache.fence(&id));
        }
        cache
    }

    #[test]
    fn a_cached_user_takes_240_bytes() {
        const USERS: usize = 100_000;
        let mut cache = None;
        let counted = allocation_counter::measure(|| cache = Some(filled(USERS, USERS)));
        let cache = cache.unwrap();
        // Shards are not all equally full when the first is.
        assert!(cache.len() > USERS * 98 / 100, "{}", cache.len());
        let each = counted.bytes_current as usize / cache.len();
        assert!(each <= 240, "{each} bytes for each user");
    }

    #[test]
    fn the_capacity_bounds_it_and_whoever_is_used_stays() {
        let cache = filled(1_000, 1_000);
        let often: Vec<String> = (0..100).map(id).collect();
        for _ in 0..3 {
            for id in &often {
                cache.fresh(id, NOW);
            }
        }
        let before = often.iter().filter(|id| cache.fresh(id, NOW).is_some());
        let before = before.count();
        assert!(before > 80, "{before}");
        for at in 1_000..11_000 {
            let id = id(at);
            cache.remember(held(&id), &cache.fence(&id));
        }
        assert!(cache.len() <= 1_000, "{}", cache.len());
        let after = often.iter().filter(|id| cache.fresh(id, NOW).is_some());
        let after = after.count();
        assert!(after > before * 8 / 10, "{after} of {before} have stayed");
    }

    #[test]
    fn who_shares_a_key_with_somebody_is_not_taken_for_them() {
        let cache = Cache::new(10);
        // Chance does not bring two such ids together, so the entry is put there by hand.
        cache.entries.insert(cache.key("a"), held("b"));
        assert!(cache.fresh("a", NOW).is_none());
        assert!(cache.leftover("a", NOW).is_none());
        cache.evict("a", held("b").secret());
        cache.forget("a");
        assert_eq!(cache.len(), 1, "what is another's stays");
    }
}
