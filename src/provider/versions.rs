//! Versions of cached credentials: the keys of entries, and the recent reads and writes of each.

use std::hash::{BuildHasherDefault, Hash, Hasher};

use crate::store::{RecordVersion, StoredRecord};

/// Key of a cache entry: 40 bits of the hash of its id. The entry contains the id, and lookups
/// compare it. Two ids that share a key replace each other's entry, and are then read from the
/// store. Among a million users usually no two ids share a key.
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

/// Hasher of keys that are hashes already: distributes their 40 bits over 64.
#[derive(Clone, Copy, Default)]
pub(super) struct SpreadHasher(u64);

pub(super) type BuildSpreadHasher = BuildHasherDefault<SpreadHasher>;

impl Hasher for SpreadHasher {
    #[inline]
    fn write_u64(&mut self, number: u64) {
        // 2^64 divided by the golden ratio, made odd.
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

/// Numbers of the most recent writes and reads that a shard records with their keys. While a read
/// or write is among them, it affects only its own credential. 10,000 concurrent reads are 40 for
/// each shard.
pub(super) const TRACKED_WRITES: usize = 8;
const TRACKED_READS: usize = 64;

/// Recent events of the credentials of one shard.
#[derive(Default)]
pub(super) struct ShardHistory {
    pub(super) writes: RecentEvents<WriteEvent, TRACKED_WRITES>,
    /// Results of reads that this process cached.
    pub(super) reads: RecentEvents<(), TRACKED_READS>,
}

#[derive(Clone, Copy)]
pub(super) enum WriteEvent {
    /// This process wrote or removed the credential.
    Local,
    /// An invalidation arrived. `None` means that the credential was deleted.
    Remote(Option<RecordVersion>),
}

/// Number of events, and the key and kind of the most recent ones.
pub(super) struct RecentEvents<E, const REMEMBERED: usize> {
    /// Number of all events so far.
    pub(super) count: u64,
    /// Ring of the most recent events, indexed by their number.
    ring: [Option<(EntryKey, E)>; REMEMBERED],
}

impl<E: Copy, const REMEMBERED: usize> Default for RecentEvents<E, REMEMBERED> {
    fn default() -> Self {
        Self {
            count: 0,
            ring: [None; REMEMBERED],
        }
    }
}

impl<E: Copy, const REMEMBERED: usize> RecentEvents<E, REMEMBERED> {
    pub(super) fn push(&mut self, key: EntryKey, event: E) {
        self.ring[(self.count % REMEMBERED as u64) as usize] = Some((key, event));
        self.count += 1;
    }

    /// Returns the events of one credential since the given count. `None` if some of them are no
    /// longer recorded.
    pub(super) fn since(&self, count: u64, key: EntryKey) -> Option<impl Iterator<Item = E>> {
        let known = self.count - count <= REMEMBERED as u64;
        let events = (count..self.count)
            .filter_map(|at| self.ring[(at % REMEMBERED as u64) as usize])
            .filter_map(move |(of, event)| (of == key).then_some(event));
        known.then_some(events)
    }

    /// Returns `true` if it is certain that the credential had no event since the given count.
    pub(super) fn is_unchanged_since(&self, count: u64, key: EntryKey) -> bool {
        self.since(count, key)
            .is_some_and(|mut events| events.next().is_none())
    }
}

/// Versions of one credential before an exchange with the store. A result is compared with the
/// stamp before it is cached, so that it does not replace a newer one.
pub(super) struct VersionStamp {
    pub(super) key: EntryKey,
    pub(super) writes: u64,
    pub(super) reads: u64,
    pub(super) epoch: u16,
}

/// A stored record, with the stamp that was taken before it was read.
pub(super) struct ReadSnapshot {
    pub(super) stored: StoredRecord,
    pub(super) stamp: VersionStamp,
}
