//! What one process remembers: tokens until their renewal point, and who has none.

use std::hash::BuildHasher;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

use quick_cache::{DefaultHashBuilder, UnitWeighter};

use super::entry::CacheEntry;
use super::sync::{AtomicI64, AtomicU16, Mutex, MutexGuard};
use super::versions::{BuildSpreadHasher, EntryKey, ShardHistory, VersionStamp, WriteEvent};
use crate::clock::{Clock, Timestamp};
use crate::credential::AccessToken;
use crate::store::RecordVersion;

/// How long a user without a token is remembered as such, so that strangers cannot hammer the
/// store.
const NEGATIVE_TTL: Duration = Duration::from_secs(1);

/// How many of them are remembered.
const NEGATIVE_CAPACITY: usize = 10_000;

/// How many generations guard the cache; credentials share them by hash.
const SHARDS: usize = 256;

/// More entries than any process has memory for. The library makes room for a part of its capacity
/// at once.
const MAX_CAPACITY: usize = 100_000_000;

/// The part of its capacity that the cache is told to expect.
const EXPECTED_ITEMS_DIVISOR: usize = 12;

/// The hot path reads this and nothing else.
pub(super) struct Cache {
    entries: quick_cache::sync::Cache<EntryKey, CacheEntry, UnitWeighter, BuildSpreadHasher>,
    negative: quick_cache::sync::Cache<Box<str>, Timestamp>,
    shards: Box<[Mutex<ShardHistory>]>,
    /// Keyed with a secret of its own, since whoever asks may choose ids.
    hasher: DefaultHashBuilder,
    /// How long an entry is believed after it was read, and after the store's last proof that no
    /// news was missed.
    ttl: Duration,
    synced_at: AtomicI64,
    /// An era ends where news may have been missed: its entries are read again.
    epoch: AtomicU16,
}

/// No proof yet.
const NEVER_SYNCED: i64 = i64::MIN;

impl Cache {
    pub(super) fn new(capacity: usize, ttl: Duration) -> Self {
        let capacity = capacity.clamp(1, MAX_CAPACITY);
        // The library remembers who has left it, so that they are kept longer when they come back:
        // half as many as it expects entries. That memory counts against the users, so it is told
        // to expect few.
        let expected = (capacity / EXPECTED_ITEMS_DIVISOR).max(1);
        let entries = quick_cache::sync::Cache::with(
            expected,
            capacity as u64,
            UnitWeighter,
            BuildSpreadHasher::default(),
            Default::default(),
        );
        Self {
            entries,
            negative: quick_cache::sync::Cache::new(NEGATIVE_CAPACITY),
            ttl,
            synced_at: AtomicI64::new(NEVER_SYNCED),
            epoch: AtomicU16::default(),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: DefaultHashBuilder::default(),
        }
    }

    #[inline]
    pub(super) fn key(&self, id: &str) -> EntryKey {
        let [a, b, c, d, e, ..] = self.hasher.hash_one(id).to_le_bytes();
        EntryKey([a, b, c, d, e])
    }

    /// What is kept of exactly this credential, not of one that shares its key.
    fn remove(&self, id: &str) {
        self.entries
            .remove_if(&self.key(id), |held| held.has_id(id));
    }

    fn insert(&self, key: EntryKey, entry: CacheEntry) {
        self.entries.insert(key, entry);
    }

    fn peek(&self, key: EntryKey, id: &str) -> Option<CacheEntry> {
        self.entries.peek(&key).filter(|held| held.has_id(id))
    }

    /// An entry that is believed and not due for renewal.
    #[inline]
    pub(super) fn fresh(&self, id: &str, now: Timestamp) -> Option<CacheEntry> {
        let held = self.entries.get(&self.key(id))?;
        (self.is_entry_valid(&held, now) && held.has_id(id)).then_some(held)
    }

    #[inline]
    fn is_entry_valid(&self, entry: &CacheEntry, now: Timestamp) -> bool {
        entry.is_valid(now)
            && entry.epoch() == self.epoch()
            && (now < entry.valid_from().saturating_add(self.ttl) || self.is_synced(now))
    }

    /// Whether the store has proved lately that all news has been heard.
    fn is_synced(&self, now: Timestamp) -> bool {
        let at = Timestamp::from_millis(self.synced_at.load(Ordering::Acquire));
        // The lower bound is for wall clocks that are set back.
        at <= now && now < at.saturating_add(self.ttl)
    }

    /// Until when an entry will be believed if nothing more is heard; never, where it is not.
    pub(super) fn valid_until(&self, id: &str, now: Timestamp) -> Option<Timestamp> {
        let held = self.fresh(id, now)?;
        let synced = Timestamp::from_millis(self.synced_at.load(Ordering::Acquire));
        Some(
            held.valid_from()
                .max(synced)
                .saturating_add(self.ttl)
                .min(held.valid_until()),
        )
    }

    /// What is read from now on belongs to this era.
    #[inline]
    pub(super) fn epoch(&self) -> u16 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Something else was written: what is held of it is no longer believed, unless it is just
    /// that, and what is being read is not remembered, unless it turns out to be just that. A
    /// deleted credential is dropped; one that was replaced still serves while the store is away
    /// (R4).
    pub(super) fn on_invalidation(&self, id: &str, version: Option<RecordVersion>) {
        let key = self.key(id);
        let mut history = self.lock_shard(key);
        history.writes.push(key, WriteEvent::Remote(version));
        if version.is_some() {
            self.negative.remove(id);
        }
        match (self.peek(key, id), version) {
            (Some(held), Some(mark)) if held.version() != mark => {
                self.insert(key, held.to_invalidated());
            }
            (Some(_), None) => self.remove(id),
            _ => {}
        }
    }

    /// Nothing that was written before `at` has been missed in this era.
    pub(super) fn mark_synced(&self, at: Timestamp) {
        self.synced_at.store(at.as_millis(), Ordering::Release);
    }

    /// News was missed: entries are believed for their bounded time and no longer.
    pub(super) fn mark_unsynced(&self) {
        self.synced_at.store(NEVER_SYNCED, Ordering::Release);
    }

    /// Begins an era. What was read before, or is being read, is read again; until then it serves
    /// only while the store is away.
    pub(super) fn invalidate_all(&self) {
        self.mark_unsynced();
        self.epoch.fetch_add(1, Ordering::AcqRel);
    }

    /// Whether nothing came since `fence` was taken, or news that ended with exactly this: the
    /// order of news is that of the writes, so whatever came before has been overtaken.
    fn is_latest(
        version: impl FnOnce() -> Option<RecordVersion>,
        stamp: &VersionStamp,
        history: &ShardHistory,
    ) -> bool {
        let Some(writes) = history.writes.since(stamp.writes, stamp.key) else {
            return false;
        };
        let mut last = None;
        for write in writes {
            match write {
                WriteEvent::Local => return false,
                WriteEvent::Remote(mark) => last = Some(mark),
            }
        }
        last.is_none_or(|told| told == version())
    }

    /// Under the lock of the fence. What was read in an era that has ended is kept for a store
    /// that is away, and not believed.
    fn insert_for_epoch(&self, entry: CacheEntry, stamp: &VersionStamp) {
        let held = match stamp.epoch == self.epoch() {
            true => entry,
            false => entry.to_invalidated(),
        };
        self.insert(stamp.key, held);
    }

    /// An entry that has outlived its time in the cache but not its own: better than nothing while
    /// the store is away (R4).
    pub(super) fn unexpired(&self, id: &str, now: Timestamp) -> Option<CacheEntry> {
        self.unexpired_at(self.key(id), id, now)
    }

    pub(super) fn unexpired_at(
        &self,
        key: EntryKey,
        id: &str,
        now: Timestamp,
    ) -> Option<CacheEntry> {
        let held = self.peek(key, id)?;
        held.is_unexpired(now).then_some(held)
    }

    pub(super) fn is_known_absent(&self, id: &str, now: Timestamp) -> bool {
        // The lower bound is for wall clocks that are set back.
        self.negative
            .get(id)
            .is_some_and(|until| now < until && until <= now.saturating_add(NEGATIVE_TTL))
    }

    /// Taken before the store is read; what is read is then inserted under it.
    pub(super) fn stamp(&self, id: &str) -> VersionStamp {
        self.stamp_of(self.key(id))
    }

    pub(super) fn stamp_of(&self, key: EntryKey) -> VersionStamp {
        self.stamp_at(key, &self.lock_shard(key))
    }

    fn stamp_at(&self, key: EntryKey, history: &ShardHistory) -> VersionStamp {
        VersionStamp {
            key,
            writes: history.writes.count,
            reads: history.reads.count,
            epoch: self.epoch(),
        }
    }

    /// Whether nothing has come since the fence was taken.
    pub(super) fn is_unchanged(&self, stamp: &VersionStamp) -> bool {
        let history = self.lock_shard(stamp.key);
        history.writes.is_unchanged_since(stamp.writes, stamp.key)
            && history.reads.is_unchanged_since(stamp.reads, stamp.key)
            && self.epoch() == stamp.epoch
    }

    /// R2: remembers what was read from the store, unless something newer came meanwhile. An entry
    /// never gives way to an older one: of two reads that crossed each other and found different
    /// things, nobody can tell which is older, so neither is believed.
    pub(super) fn insert_if_unchanged(&self, entry: CacheEntry, stamp: &VersionStamp) {
        let mut history = self.lock_shard(stamp.key);
        if Self::is_latest(|| Some(entry.version()), stamp, &history) {
            let crossed = !history.reads.is_unchanged_since(stamp.reads, stamp.key)
                && !self.contains_same_version(stamp.key, &entry);
            history.reads.push(stamp.key, ());
            let entry = if crossed {
                entry.to_invalidated()
            } else {
                entry
            };
            self.insert_for_epoch(entry, stamp);
        }
    }

    fn contains_same_version(&self, key: EntryKey, other: &CacheEntry) -> bool {
        let held = self.peek(key, other.id());
        held.is_some_and(|held| held.version() == other.version())
    }

    /// Remembers that the store has nothing, unless something came meanwhile.
    pub(super) fn insert_absent_if_unchanged(
        &self,
        id: &str,
        now: Timestamp,
        stamp: &VersionStamp,
    ) {
        let mut history = self.lock_shard(stamp.key);
        let crossed = !history.reads.is_unchanged_since(stamp.reads, stamp.key);
        if !crossed && Self::is_latest(|| None, stamp, &history) {
            history.reads.push(stamp.key, ());
            self.remove(id);
            self.negative
                .insert(id.into(), now.saturating_add(NEGATIVE_TTL));
        }
    }

    /// Drops what is known of a credential, and outdates every exchange with the store that began
    /// before.
    pub(super) fn invalidate(&self, id: &str) -> VersionStamp {
        let key = self.key(id);
        let mut history = self.lock_shard(key);
        history.writes.push(key, WriteEvent::Local);
        self.negative.remove(id);
        self.remove(id);
        self.stamp_at(key, &history)
    }

    /// R2: remembers what has just been written to the store (`None`: that it was deleted), and
    /// outdates every read that began before.
    ///
    /// Answers of the store may reach two writers in another order than their writes reached the
    /// store. So where anything else came since `fence` was taken, nothing is remembered at all,
    /// and the next request asks the store which of them was the last.
    pub(super) fn complete_write(
        &self,
        id: &str,
        entry: Option<&CacheEntry>,
        now: Timestamp,
        stamp: &VersionStamp,
    ) {
        let mut history = self.lock_shard(stamp.key);
        let alone = Self::is_latest(|| entry.map(CacheEntry::version), stamp, &history);
        history.writes.push(stamp.key, WriteEvent::Local);
        self.negative.remove(id);
        match entry {
            Some(held) if alone => self.insert_for_epoch(held.clone(), stamp),
            None if alone => {
                self.remove(id);
                self.negative
                    .insert(id.into(), now.saturating_add(NEGATIVE_TTL));
            }
            _ => {
                self.remove(id);
            }
        }
    }

    /// R2: remembers what WeChat has granted and the store has not taken yet, unless anything else
    /// came since `fence` was taken: that may be newer. The fence then stands behind this write, so
    /// that the next try to store it is not disturbed by it.
    pub(super) fn insert_uncommitted(&self, entry: &CacheEntry, stamp: &mut VersionStamp) {
        let mut history = self.lock_shard(stamp.key);
        if Self::is_latest(|| Some(entry.version()), stamp, &history) {
            history.writes.push(stamp.key, WriteEvent::Local);
            stamp.writes = history.writes.count;
            self.negative.remove(entry.id());
            self.insert_for_epoch(entry.clone(), stamp);
        }
    }

    /// Makes the next caller ask the store, if the entry holds the token that was reported. The
    /// entry stays for a store that is away: the report may be mistaken.
    pub(super) fn invalidate_if_token(&self, id: &str, invalid_token: &AccessToken) {
        let key = self.key(id);
        // Under the lock of the fence, so that no newer entry is overwritten.
        let _generation = self.lock_shard(key);
        if let Some(held) = self
            .peek(key, id)
            .filter(|held| held.secret() == invalid_token)
        {
            self.insert(key, held.to_invalidated());
        }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Goes through the entries: the key of each that has expired, `None` for the others. No lock
    /// is held between two of them.
    pub(super) fn expired_keys<'a>(
        &'a self,
        clock: &'a Clock,
    ) -> impl Iterator<Item = Option<EntryKey>> + 'a {
        let entries = self.entries.iter();
        entries.map(|(key, held)| (!held.is_unexpired(clock.now())).then_some(key))
    }

    /// Drops an entry that has expired, unless a newer one has taken its place. There is nothing to
    /// fence: what has expired is served to nobody.
    pub(super) fn remove_expired(&self, key: EntryKey, now: Timestamp) {
        self.entries.remove_if(&key, |held| !held.is_unexpired(now));
    }

    fn lock_shard(&self, key: EntryKey) -> MutexGuard<'_, ShardHistory> {
        self.shards[(key.as_u64() % SHARDS as u64) as usize]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
