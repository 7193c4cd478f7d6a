//! Versions of what the cache holds: the keys of entries, and what has happened to each of late.

use std::hash::{BuildHasherDefault, Hash, Hasher};

use crate::store::{RecordVersion, StoredRecord};

/// What an entry is found by: forty bits of its id's hash. The id itself lies in the entry, and is
/// compared there. Where two ids share a key, of which there is not one pair among a million users
/// as a rule, each takes the other's place, and finds its own token in the store.
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

/// Keys are hashes already: this spreads their forty bits over the sixty-four of a map's.
#[derive(Clone, Copy, Default)]
pub(super) struct SpreadHasher(u64);

pub(super) type BuildSpreadHasher = BuildHasherDefault<SpreadHasher>;

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
pub(super) const TRACKED_WRITES: usize = 8;
const TRACKED_READS: usize = 64;

/// What has happened to the credentials that share a fence.
#[derive(Default)]
pub(super) struct ShardHistory {
    pub(super) writes: RecentEvents<WriteEvent, TRACKED_WRITES>,
    /// What this process remembered as it had read it.
    pub(super) reads: RecentEvents<(), TRACKED_READS>,
}

#[derive(Clone, Copy)]
pub(super) enum WriteEvent {
    /// This process forgot it, or wrote it.
    Local,
    /// The news of what somebody has written.
    Remote(Option<RecordVersion>),
}

/// Events, and to which credential (its key) the last of them happened.
pub(super) struct RecentEvents<E, const REMEMBERED: usize> {
    /// How many there were.
    pub(super) count: u64,
    /// The last, each at its number, round and round.
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

    /// What has happened to one credential since there were so many; nothing where that is not
    /// known any more.
    pub(super) fn since(&self, count: u64, key: EntryKey) -> Option<impl Iterator<Item = E>> {
        let known = self.count - count <= REMEMBERED as u64;
        let events = (count..self.count)
            .filter_map(|at| self.ring[(at % REMEMBERED as u64) as usize])
            .filter_map(move |(of, event)| (of == key).then_some(event));
        known.then_some(events)
    }

    /// Whether nothing has, for certain.
    pub(super) fn is_unchanged_since(&self, count: u64, key: EntryKey) -> bool {
        self.since(count, key)
            .is_some_and(|mut events| events.next().is_none())
    }
}

/// Proof that nothing else came between an exchange with the store and what is then remembered of
/// one credential.
pub(super) struct VersionStamp {
    pub(super) key: EntryKey,
    pub(super) writes: u64,
    pub(super) reads: u64,
    pub(super) epoch: u16,
}

/// What was read, and the proof that nothing came between that and what is then remembered.
pub(super) struct ReadSnapshot {
    pub(super) stored: StoredRecord,
    pub(super) stamp: VersionStamp,
}
