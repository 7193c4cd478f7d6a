//! What one process remembers: tokens until their renewal point, and who has none.

use std::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

use quick_cache::{DefaultHashBuilder, UnitWeighter};

use super::Held;
use super::sync::{AtomicI64, AtomicU16, Mutex, MutexGuard};
use crate::clock::{Clock, Timestamp};
use crate::credential::AccessToken;
use crate::store::Mark;

/// How long a user without a token is remembered as such, so that strangers cannot hammer the
/// store.
const ABSENT_FOR: Duration = Duration::from_secs(1);

/// How many of them are remembered.
const ABSENT_CAPACITY: usize = 10_000;

/// How many generations guard the cache; credentials share them by hash.
const FENCES: usize = 256;

/// More entries than any process has memory for. The library makes room for a part of its capacity
/// at once.
const MOST_ENTRIES: usize = 100_000_000;

/// The part of its capacity that the cache is told to expect.
const EXPECTED_PART: usize = 12;

/// The hot path reads this and nothing else.
pub(super) struct Cache {
    entries: quick_cache::sync::Cache<Key, Held, UnitWeighter, Spread>,
    absent: quick_cache::sync::Cache<Box<str>, Timestamp>,
    fences: Box<[Mutex<Generation>]>,
    /// Keyed with a secret of its own, since whoever asks may choose ids.
    hasher: DefaultHashBuilder,
    /// How long an entry is believed after it was read, and after the store's last proof that no
    /// news was missed.
    ttl: Duration,
    proved_at: AtomicI64,
    /// An era ends where news may have been missed: its entries are read again.
    era: AtomicU16,
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

/// How many of the writes and of the reads behind a fence are remembered one by one, so that
/// neighbours do not disturb each other. A crowd of 10,000 reads at once is forty behind each.
const WRITES: usize = 8;
const READS: usize = 64;

/// What has happened to the credentials that share a fence.
#[derive(Default)]
struct Generation {
    writes: Recent<Write, WRITES>,
    /// What this process remembered as it had read it.
    reads: Recent<(), READS>,
}

#[derive(Clone, Copy)]
enum Write {
    /// This process forgot it, or wrote it.
    Ours,
    /// The news of what somebody has written.
    Told(Option<Mark>),
}

/// Events, and to which credential (its key) the last of them happened.
struct Recent<E, const REMEMBERED: usize> {
    /// How many there were.
    number: u64,
    /// The last, each at its number, round and round.
    last: [Option<(Key, E)>; REMEMBERED],
}

impl<E: Copy, const REMEMBERED: usize> Default for Recent<E, REMEMBERED> {
    fn default() -> Self {
        Self {
            number: 0,
            last: [None; REMEMBERED],
        }
    }
}

impl<E: Copy, const REMEMBERED: usize> Recent<E, REMEMBERED> {
    fn note(&mut self, key: Key, event: E) {
        self.last[(self.number % REMEMBERED as u64) as usize] = Some((key, event));
        self.number += 1;
    }

    /// What has happened to one credential since there were so many; nothing where that is not
    /// known any more.
    fn since(&self, number: u64, key: Key) -> Option<impl Iterator<Item = E>> {
        let known = self.number - number <= REMEMBERED as u64;
        let events = (number..self.number)
            .filter_map(|at| self.last[(at % REMEMBERED as u64) as usize])
            .filter_map(move |(of, event)| (of == key).then_some(event));
        known.then_some(events)
    }

    /// Whether nothing has, for certain.
    fn is_still(&self, number: u64, key: Key) -> bool {
        self.since(number, key)
            .is_some_and(|mut events| events.next().is_none())
    }
}

/// Proof that nothing else came between an exchange with the store and what is then remembered of
/// one credential.
pub(super) struct Fence {
    key: Key,
    writes: u64,
    reads: u64,
    era: u16,
}

/// No proof yet.
const NEVER: i64 = i64::MIN;

impl Cache {
    pub(super) fn new(capacity: usize, ttl: Duration) -> Self {
        let capacity = capacity.clamp(1, MOST_ENTRIES);
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
            ttl,
            proved_at: AtomicI64::new(NEVER),
            era: AtomicU16::default(),
            fences: (0..FENCES).map(|_| Mutex::default()).collect(),
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

    fn insert(&self, key: Key, held: Held) {
        self.entries.insert(key, held);
    }

    fn entry(&self, key: Key, id: &str) -> Option<Held> {
        self.entries.peek(&key).filter(|held| held.is_of(id))
    }

    /// An entry that is believed and not due for renewal.
    #[inline]
    pub(super) fn fresh(&self, id: &str, now: Timestamp) -> Option<Held> {
        let held = self.entries.get(&self.key(id))?;
        (self.believes(&held, now) && held.is_of(id)).then_some(held)
    }

    #[inline]
    fn believes(&self, held: &Held, now: Timestamp) -> bool {
        held.is_believed(now)
            && held.era() == self.era()
            && (now < held.since().after(self.ttl) || self.is_proved(now))
    }

    /// Whether the store has proved lately that all news has been heard.
    fn is_proved(&self, now: Timestamp) -> bool {
        let at = Timestamp::from_millis(self.proved_at.load(Ordering::Acquire));
        // The lower bound is for wall clocks that are set back.
        at <= now && now < at.after(self.ttl)
    }

    /// Until when an entry will be believed if nothing more is heard; never, where it is not.
    pub(super) fn believed_until(&self, id: &str, now: Timestamp) -> Option<Timestamp> {
        let held = self.fresh(id, now)?;
        let proved = Timestamp::from_millis(self.proved_at.load(Ordering::Acquire));
        Some(
            held.since()
                .max(proved)
                .after(self.ttl)
                .min(held.believed_until()),
        )
    }

    /// What is read from now on belongs to this era.
    #[inline]
    pub(super) fn era(&self) -> u16 {
        self.era.load(Ordering::Acquire)
    }

    /// Something else was written: what is held of it is no longer believed, unless it is just
    /// that, and what is being read is not remembered, unless it turns out to be just that. A
    /// deleted credential is dropped; one that was replaced still serves while the store is away
    /// (R4).
    pub(super) fn told(&self, id: &str, mark: Option<Mark>) {
        let key = self.key(id);
        let mut generation = self.generation(key);
        generation.writes.note(key, Write::Told(mark));
        if mark.is_some() {
            self.absent.remove(id);
        }
        match (self.entry(key, id), mark) {
            (Some(held), Some(mark)) if held.mark() != mark => self.insert(key, held.outdated()),
            (Some(_), None) => self.remove(id),
            _ => {}
        }
    }

    /// Nothing that was written before `at` has been missed in this era.
    pub(super) fn prove(&self, at: Timestamp) {
        self.proved_at.store(at.as_millis(), Ordering::Release);
    }

    /// News was missed: entries are believed for their bounded time and no longer.
    pub(super) fn unprove(&self) {
        self.proved_at.store(NEVER, Ordering::Release);
    }

    /// Begins an era. What was read before, or is being read, is read again; until then it serves
    /// only while the store is away.
    pub(super) fn outdate_all(&self) {
        self.unprove();
        self.era.fetch_add(1, Ordering::AcqRel);
    }

    /// Whether nothing came since `fence` was taken, or news that ended with exactly this: the
    /// order of news is that of the writes, so whatever came before has been overtaken.
    fn is_alone(
        mark: impl FnOnce() -> Option<Mark>,
        fence: &Fence,
        generation: &Generation,
    ) -> bool {
        let Some(writes) = generation.writes.since(fence.writes, fence.key) else {
            return false;
        };
        let mut last = None;
        for write in writes {
            match write {
                Write::Ours => return false,
                Write::Told(mark) => last = Some(mark),
            }
        }
        last.is_none_or(|told| told == mark())
    }

    /// Under the lock of the fence. What was read in an era that has ended is kept for a store
    /// that is away, and not believed.
    fn keep(&self, held: Held, fence: &Fence) {
        let held = match fence.era == self.era() {
            true => held,
            false => held.outdated(),
        };
        self.insert(fence.key, held);
    }

    /// An entry that has outlived its time in the cache but not its own: better than nothing while
    /// the store is away (R4).
    pub(super) fn leftover(&self, id: &str, now: Timestamp) -> Option<Held> {
        self.leftover_at(self.key(id), id, now)
    }

    pub(super) fn leftover_at(&self, key: Key, id: &str, now: Timestamp) -> Option<Held> {
        let held = self.entry(key, id)?;
        held.is_alive(now).then_some(held)
    }

    pub(super) fn is_absent(&self, id: &str, now: Timestamp) -> bool {
        // The lower bound is for wall clocks that are set back.
        self.absent
            .get(id)
            .is_some_and(|until| now < until && until <= now.after(ABSENT_FOR))
    }

    /// Taken before the store is read; what is read is then inserted under it.
    pub(super) fn fence(&self, id: &str) -> Fence {
        self.fence_of(self.key(id))
    }

    pub(super) fn fence_of(&self, key: Key) -> Fence {
        self.fence_at(key, &self.generation(key))
    }

    fn fence_at(&self, key: Key, generation: &Generation) -> Fence {
        Fence {
            key,
            writes: generation.writes.number,
            reads: generation.reads.number,
            era: self.era(),
        }
    }

    /// Whether nothing has come since the fence was taken.
    pub(super) fn is_undisturbed(&self, fence: &Fence) -> bool {
        let generation = self.generation(fence.key);
        generation.writes.is_still(fence.writes, fence.key)
            && generation.reads.is_still(fence.reads, fence.key)
            && self.era() == fence.era
    }

    /// R2: remembers what was read from the store, unless something newer came meanwhile. An entry
    /// never gives way to an older one: of two reads that crossed each other and found different
    /// things, nobody can tell which is older, so neither is believed.
    pub(super) fn remember(&self, held: Held, fence: &Fence) {
        let mut generation = self.generation(fence.key);
        if Self::is_alone(|| Some(held.mark()), fence, &generation) {
            let crossed = !generation.reads.is_still(fence.reads, fence.key)
                && !self.holds_the_same(fence.key, &held);
            generation.reads.note(fence.key, ());
            self.keep(if crossed { held.outdated() } else { held }, fence);
        }
    }

    fn holds_the_same(&self, key: Key, other: &Held) -> bool {
        let held = self.entry(key, other.id());
        held.is_some_and(|held| held.mark() == other.mark())
    }

    /// Remembers that the store has nothing, unless something came meanwhile.
    pub(super) fn remember_absent(&self, id: &str, now: Timestamp, fence: &Fence) {
        let mut generation = self.generation(fence.key);
        let crossed = !generation.reads.is_still(fence.reads, fence.key);
        if !crossed && Self::is_alone(|| None, fence, &generation) {
            generation.reads.note(fence.key, ());
            self.remove(id);
            self.absent.insert(id.into(), now.after(ABSENT_FOR));
        }
    }

    /// Drops what is known of a credential, and outdates every exchange with the store that began
    /// before.
    pub(super) fn forget(&self, id: &str) -> Fence {
        let key = self.key(id);
        let mut generation = self.generation(key);
        generation.writes.note(key, Write::Ours);
        self.absent.remove(id);
        self.remove(id);
        self.fence_at(key, &generation)
    }

    /// R2: remembers what has just been written to the store (`None`: that it was deleted), and
    /// outdates every read that began before.
    ///
    /// Answers of the store may reach two writers in another order than their writes reached the
    /// store. So where anything else came since `fence` was taken, nothing is remembered at all,
    /// and the next request asks the store which of them was the last.
    pub(super) fn settle(&self, id: &str, held: Option<&Held>, now: Timestamp, fence: &Fence) {
        let mut generation = self.generation(fence.key);
        let alone = Self::is_alone(|| held.map(Held::mark), fence, &generation);
        generation.writes.note(fence.key, Write::Ours);
        self.absent.remove(id);
        match held {
            Some(held) if alone => self.keep(held.clone(), fence),
            None if alone => {
                self.remove(id);
                self.absent.insert(id.into(), now.after(ABSENT_FOR));
            }
            _ => {
                self.remove(id);
            }
        }
    }

    /// R2: remembers what WeChat has granted and the store has not taken yet, unless anything else
    /// came since `fence` was taken: that may be newer. The fence then stands behind this write, so
    /// that the next try to store it is not disturbed by it.
    pub(super) fn hold_unstored(&self, held: &Held, fence: &mut Fence) {
        let mut generation = self.generation(fence.key);
        if Self::is_alone(|| Some(held.mark()), fence, &generation) {
            generation.writes.note(fence.key, Write::Ours);
            fence.writes = generation.writes.number;
            self.absent.remove(held.id());
            self.keep(held.clone(), fence);
        }
    }

    /// Makes the next caller ask the store, if the entry holds the token that was reported. The
    /// entry stays for a store that is away: the report may be mistaken.
    pub(super) fn outdate(&self, id: &str, refused: &AccessToken) {
        let key = self.key(id);
        // Under the lock of the fence, so that no newer entry is overwritten.
        let _generation = self.generation(key);
        if let Some(held) = self.entry(key, id).filter(|held| held.secret() == refused) {
            self.insert(key, held.outdated());
        }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Goes through the entries: the key of each that has expired, `None` for the others. No lock
    /// is held between two of them.
    pub(super) fn keys_of_expired<'a>(
        &'a self,
        clock: &'a Clock,
    ) -> impl Iterator<Item = Option<Key>> + 'a {
        let entries = self.entries.iter();
        entries.map(|(key, held)| (!held.is_alive(clock.now())).then_some(key))
    }

    /// Drops an entry that has expired, unless a newer one has taken its place. There is nothing to
    /// fence: what has expired is served to nobody.
    pub(super) fn remove_expired(&self, key: Key, now: Timestamp) {
        self.entries.remove_if(&key, |held| !held.is_alive(now));
    }

    fn generation(&self, key: Key) -> MutexGuard<'_, Generation> {
        self.fences[(key.number() % FENCES as u64) as usize]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
