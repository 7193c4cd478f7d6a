//! Keys of cache entries, and the history of recent reads and writes that decides whether a result
//! may be cached.

use std::hash::{BuildHasherDefault, Hash, Hasher};

use crate::store::{RecordVersion, StoredRecord};

/// Key of a cache entry: 40 bits of the hash of its id. The entry contains the id, and lookups
/// compare the id. Two ids with one key replace each other's entry, and the replaced credential is
/// read from the store again. Among a million users usually no two ids share a key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct EntryKey(pub(super) [u8; 5]);

impl EntryKey {
    #[inline]
    pub(super) fn as_u64(self) -> u64 {
        let Self([a, b, c, d, e]) = self;
        u64::from_le_bytes([a, b, c, d, e, 0, 0, 0])
    }
}

impl Hash for EntryKey {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.as_u64());
    }
}

/// Hasher of keys that are hashes already. It distributes the 40 bits of a key over 64 bits.
#[derive(Clone, Copy, Default)]
pub(super) struct SpreadHasher(u64);

pub(super) type BuildSpreadHasher = BuildHasherDefault<SpreadHasher>;

impl Hasher for SpreadHasher {
    #[inline]
    fn write_u64(&mut self, number: u64) {
        // The factor is 2^64 divided by the golden ratio, as an odd number.
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

/// Number of the most recent writes (8) and reads (64) that a shard records with their keys. A
/// recorded read or write affects only its own credential. An older read or write affects all
/// credentials of the shard. 10,000 concurrent reads are about 40 for each shard.
pub(super) const TRACKED_WRITES: usize = 8;
const TRACKED_READS: usize = 64;

/// Recent reads and writes of the credentials of one shard of the cache.
#[derive(Default)]
pub(super) struct ShardHistory {
    pub(super) writes: RecentEvents<WriteEvent, TRACKED_WRITES>,
    /// Reads whose results this process has cached, and the keys of their credentials.
    pub(super) reads: RecentEvents<(), TRACKED_READS>,
}

#[derive(Clone, Copy)]
pub(super) enum WriteEvent {
    /// This process wrote or deleted the credential, or began to do so.
    Local,
    /// An invalidation with this version arrived. `None` means that the credential was deleted.
    Remote(Option<RecordVersion>),
}

/// History of events: the number of all events, and the most recent events with their keys.
pub(super) struct RecentEvents<E, const REMEMBERED: usize> {
    /// Number of all events of the shard since the cache was created.
    pub(super) count: u64,
    /// The most recent events. The first event allocates the buffer, because most shards of an
    /// account that few users use have no event.
    ring: Option<Box<Ring<E, REMEMBERED>>>,
}

/// Ring buffer of events with their keys, indexed by the number of the event.
type Ring<E, const REMEMBERED: usize> = [Option<(EntryKey, E)>; REMEMBERED];

impl<E: Copy, const REMEMBERED: usize> Default for RecentEvents<E, REMEMBERED> {
    fn default() -> Self {
        Self {
            count: 0,
            ring: None,
        }
    }
}

impl<E: Copy, const REMEMBERED: usize> RecentEvents<E, REMEMBERED> {
    pub(super) fn push(&mut self, key: EntryKey, event: E) {
        let ring = self
            .ring
            .get_or_insert_with(|| Box::new([None; REMEMBERED]));
        ring[(self.count % REMEMBERED as u64) as usize] = Some((key, event));
        self.count += 1;
    }

    /// Returns the events of the credential `key` since the history had `count` events. Returns
    /// `None` if some events since then are no longer recorded.
    pub(super) fn since(&self, count: u64, key: EntryKey) -> Option<impl Iterator<Item = E>> {
        let known = self.count - count <= REMEMBERED as u64;
        let recorded = |at: u64| self.ring.as_ref()?[(at % REMEMBERED as u64) as usize];
        let events = (count..self.count)
            .filter_map(recorded)
            .filter_map(move |(of, event)| (of == key).then_some(event));
        known.then_some(events)
    }

    /// Returns `true` if the credential `key` certainly had no event since the history had `count`
    /// events.
    pub(super) fn is_unchanged_since(&self, count: u64, key: EntryKey) -> bool {
        self.since(count, key)
            .is_some_and(|mut events| events.next().is_none())
    }
}

/// State of the history before an exchange with the store. The result of the exchange is cached
/// only if no event since the stamp may have made it outdated (newest wins).
pub(super) struct VersionStamp {
    pub(super) key: EntryKey,
    pub(super) writes: u64,
    pub(super) reads: u64,
    pub(super) epoch: u16,
}

/// A stored record, with the stamp that was taken before the record was read.
pub(super) struct ReadSnapshot {
    pub(super) stored: StoredRecord,
    pub(super) stamp: VersionStamp,
}
