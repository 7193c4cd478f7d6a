//! The cache of one engine: entries of credentials, and a negative cache of users without a
//! credential.
//!
//! # States of a cached credential
//!
//! - Absent: nothing is cached. The next request reads the store.
//! - Valid: requests are served without a read of the store. The entry belongs to the current
//!   epoch, its own period has not ended, and the store confirmed the entry within `ttl`. The
//!   period of a fresh token ends when its renewal starts, and the period of a stale token lasts
//!   one second at most.
//! - Invalidated: the entry is served only while the store is unavailable (stale served). A remote
//!   write of another version, a report of the token or a new epoch leads here. So does the end of
//!   the entry's own period, and a time of `ttl` without confirmation by the store. A new read
//!   leads back to Valid.
//! - Removed: a deletion, a local write, a read that finds no credential, the expiry of the token,
//!   or a full cache removes the entry. The credential is then Absent.
//!
//! # Races
//!
//! Each exchange with the store takes a [`VersionStamp`] before it begins. The result of the
//! exchange is cached only if nothing that may be newer was recorded since the stamp. The
//! comparison and the insertion happen under the lock of the shard, so that no other thread runs
//! between them.
//!
//! Loads and stores of the epoch and of the time of the last heartbeat have acquire and release
//! ordering. A thread that sees a new epoch or heartbeat therefore also sees the invalidations that
//! preceded it.

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

/// Time for which a user without a token is cached as absent: one second. During this time, further
/// requests with the id of this user do not read the store.
const NEGATIVE_TTL: Duration = Duration::from_secs(1);

/// Maximum number of ids in the negative cache: 10,000. The maximum bounds the memory that requests
/// with invented ids can take.
const NEGATIVE_CAPACITY: usize = 10_000;

/// Minimum and maximum number of shards: 16 and 256. The hash of an id selects the shard of the id,
/// and each shard has a lock and a history. With 256 shards, requests seldom wait for a lock, and
/// 10,000 concurrent reads fit into the histories (`TRACKED_READS`). A cache of fewer entries, such
/// as that of an account's own token, has as many shards as entries and takes less memory.
const MIN_SHARDS: usize = 16;
const MAX_SHARDS: usize = 256;

/// Upper bound of the configured capacity: 100 million entries, more than any process needs. The
/// library allocates memory for a part of the capacity when the cache is created.
const MAX_CAPACITY: usize = 100_000_000;

/// Divisor of the capacity: 12. A twelfth of the capacity is passed to the library as the expected
/// number of entries. The library also keeps removed keys in proportion to this number, so a small
/// number saves memory.
const EXPECTED_ITEMS_DIVISOR: usize = 12;

/// Cache of one engine. Most requests read the cache and nothing else.
pub(super) struct Cache {
    entries: quick_cache::sync::Cache<EntryKey, CacheEntry, UnitWeighter, BuildSpreadHasher>,
    negative: quick_cache::sync::Cache<Box<str>, Timestamp>,
    shards: Box<[Mutex<ShardHistory>]>,
    /// Hasher of ids. It has a random key, because clients choose the ids and could otherwise cause
    /// collisions.
    hasher: DefaultHashBuilder,
    /// Time for which an entry is valid after its read or after the last heartbeat, whichever is
    /// later.
    ttl: Duration,
    /// Time of the last heartbeat, in milliseconds, or [`NEVER_SYNCED`].
    synced_at: AtomicI64,
    /// Number of the current epoch. A new epoch begins when invalidations may have been missed.
    /// Credentials whose entries belong to earlier epochs are then read from the store again.
    epoch: AtomicU16,
}

/// Value of `synced_at` while no heartbeat has been recorded in this epoch.
const NEVER_SYNCED: i64 = i64::MIN;

impl Cache {
    pub(super) fn new(capacity: usize, ttl: Duration) -> Self {
        let capacity = capacity.clamp(1, MAX_CAPACITY);
        // The library keeps ghost entries of removed keys, half as many as the entries it expects.
        // A small expected number leaves that memory to real entries.
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
            shards: (0..capacity.clamp(MIN_SHARDS, MAX_SHARDS))
                .map(|_| Mutex::default())
                .collect(),
            hasher: DefaultHashBuilder::default(),
        }
    }

    #[inline]
    pub(super) fn key(&self, id: &str) -> EntryKey {
        let [a, b, c, d, e, ..] = self.hasher.hash_one(id).to_le_bytes();
        EntryKey([a, b, c, d, e])
    }

    /// Removes the cache entry of `id`. An entry of another id that has the same key stays.
    fn remove(&self, id: &str) {
        self.entries
            .remove_if(&self.key(id), |entry| entry.has_id(id));
    }

    fn insert(&self, key: EntryKey, entry: CacheEntry) {
        self.entries.insert(key, entry);
    }

    fn peek(&self, key: EntryKey, id: &str) -> Option<CacheEntry> {
        self.entries.peek(&key).filter(|entry| entry.has_id(id))
    }

    /// Returns the cache entry of `id` if the entry is valid at `now`.
    #[inline]
    pub(super) fn fresh(&self, id: &str, now: Timestamp) -> Option<CacheEntry> {
        let entry = self.entries.get(&self.key(id))?;
        (self.is_entry_valid(&entry, now) && entry.has_id(id)).then_some(entry)
    }

    #[inline]
    fn is_entry_valid(&self, entry: &CacheEntry, now: Timestamp) -> bool {
        entry.is_valid(now)
            && entry.epoch() == self.epoch()
            && (now < entry.valid_from().saturating_add(self.ttl) || self.is_synced(now))
    }

    /// Returns `true` if a heartbeat within `ttl` confirmed that no invalidation was missed.
    fn is_synced(&self, now: Timestamp) -> bool {
        let at = Timestamp::from_millis(self.synced_at.load(Ordering::Acquire));
        // A heartbeat later than `now` does not count: the wall clock was then set back.
        at <= now && now < at.saturating_add(self.ttl)
    }

    /// Returns the time until which the entry of `id` stays valid without another heartbeat.
    /// Returns `None` if the entry is not valid at `now`.
    pub(super) fn valid_until(&self, id: &str, now: Timestamp) -> Option<Timestamp> {
        let entry = self.fresh(id, now)?;
        let synced = Timestamp::from_millis(self.synced_at.load(Ordering::Acquire));
        Some(
            entry
                .valid_from()
                .max(synced)
                .saturating_add(self.ttl)
                .min(entry.valid_until()),
        )
    }

    /// Returns the number of the current epoch, which new entries carry.
    #[inline]
    pub(super) fn epoch(&self) -> u16 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Applies a write that the store announced, with the written version or `None` for a deletion.
    /// A write invalidates an entry of another version, which stays for outages (stale served). A
    /// deletion removes the entry. The write is also recorded, so that a running read of another
    /// version is not cached.
    pub(super) fn on_invalidation(&self, id: &str, version: Option<RecordVersion>) {
        let key = self.key(id);
        // The lock is held until the write is recorded and the entry is changed. No other thread
        // can therefore see the recorded write together with the old entry.
        let mut history = self.lock_shard(key);
        history.writes.push(key, WriteEvent::Remote(version));
        if version.is_some() {
            self.negative.remove(id);
        }
        match (self.peek(key, id), version) {
            (Some(entry), Some(version)) if entry.version() != version => {
                self.insert(key, entry.to_invalidated());
            }
            (Some(_), None) => self.remove(id),
            // There is nothing to change: either the entry has the written version, or no entry is
            // cached.
            (Some(_), Some(_)) | (None, _) => {}
        }
    }

    /// Records a heartbeat. It confirms that this process has received all invalidations of the
    /// current epoch that were published before `at`.
    pub(super) fn mark_synced(&self, at: Timestamp) {
        self.synced_at.store(at.as_millis(), Ordering::Release);
    }

    /// Discards the last heartbeat, because an invalidation was missed. Until the next heartbeat,
    /// an entry is valid for `ttl` after its read.
    pub(super) fn mark_unsynced(&self) {
        self.synced_at.store(NEVER_SYNCED, Ordering::Release);
    }

    /// Begins a new epoch. Entries of earlier epochs, and results of reads that began in them, are
    /// served only while the store is unavailable.
    pub(super) fn invalidate_all(&self) {
        // The heartbeat is discarded before the new epoch begins. The heartbeat belongs to the old
        // epoch. A thread that sees the new epoch must not apply this heartbeat to entries of the
        // new epoch.
        self.mark_unsynced();
        self.epoch.fetch_add(1, Ordering::AcqRel);
    }

    /// Returns `true` if `version`, the result of an exchange with the store, is certainly the
    /// latest version of the credential. The writes since `stamp` decide:
    ///
    /// - No write of the credential was recorded: `true`.
    /// - Only remote writes were recorded: `true` if the last of them wrote `version`.
    ///   Invalidations arrive in the order of the writes, so the last one is the newest.
    /// - A local write was recorded: `false`, because the order of local and remote writes is
    ///   unknown.
    /// - The history no longer reaches back to the stamp: `false`.
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
                WriteEvent::Remote(version) => last = Some(version),
            }
        }
        last.is_none_or(|last| last == version())
    }

    /// Inserts an entry, and invalidates it first if the stamp is of an earlier epoch. The caller
    /// holds the lock of the shard.
    fn insert_for_epoch(&self, entry: CacheEntry, stamp: &VersionStamp) {
        let entry = match stamp.epoch == self.epoch() {
            true => entry,
            false => entry.to_invalidated(),
        };
        self.insert(stamp.key, entry);
    }

    /// Returns the cache entry of `id` if its token has not expired, even if the entry is no longer
    /// valid. Such a token is served while the store is unavailable (stale served).
    pub(super) fn unexpired(&self, id: &str, now: Timestamp) -> Option<CacheEntry> {
        self.unexpired_at(self.key(id), id, now)
    }

    pub(super) fn unexpired_at(
        &self,
        key: EntryKey,
        id: &str,
        now: Timestamp,
    ) -> Option<CacheEntry> {
        let entry = self.peek(key, id)?;
        entry.is_unexpired(now).then_some(entry)
    }

    pub(super) fn is_known_absent(&self, id: &str, now: Timestamp) -> bool {
        // An end more than `NEGATIVE_TTL` after `now` does not count: the wall clock was then set
        // back.
        self.negative
            .get(id)
            .is_some_and(|until| now < until && until <= now.saturating_add(NEGATIVE_TTL))
    }

    /// Returns a stamp of the reads and writes that were recorded so far. The caller takes the
    /// stamp before it begins an exchange with the store.
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

    /// Returns `true` if no write and no read of the credential was recorded since the stamp, and
    /// no new epoch has begun.
    pub(super) fn is_unchanged(&self, stamp: &VersionStamp) -> bool {
        let history = self.lock_shard(stamp.key);
        history.writes.is_unchanged_since(stamp.writes, stamp.key)
            && history.reads.is_unchanged_since(stamp.reads, stamp.key)
            && self.epoch() == stamp.epoch
    }

    /// Caches the result of a read, unless a newer version may have been recorded since the stamp
    /// (newest wins). If two concurrent reads found different versions, it is unknown which version
    /// is newer. The later of the two results is then cached as invalidated, and the next request
    /// reads the store.
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
        let entry = self.peek(key, other.id());
        entry.is_some_and(|entry| entry.version() == other.version())
    }

    /// Caches the absence of a credential for [`NEGATIVE_TTL`]. Does nothing if a read, a local
    /// write or a remote write was recorded since the stamp; a remote deletion is no obstacle.
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

    /// Removes the entry and the cached absence of a credential. Results of exchanges with the
    /// store that began before this call are not cached. Returns the stamp for the write that
    /// follows.
    pub(super) fn invalidate(&self, id: &str) -> VersionStamp {
        let key = self.key(id);
        let mut history = self.lock_shard(key);
        history.writes.push(key, WriteEvent::Local);
        self.negative.remove(id);
        self.remove(id);
        self.stamp_at(key, &history)
    }

    /// Caches the result of a write of this process (`None` for a deletion). Results of reads that
    /// began before this call are not cached (newest wins).
    ///
    /// The store may execute two writes in one order, and the replies may arrive in the opposite
    /// order. If a local write, or a remote write of another version, was recorded since the stamp,
    /// nothing is cached. The next request then reads the store.
    pub(super) fn complete_write(
        &self,
        id: &str,
        entry: Option<&CacheEntry>,
        now: Timestamp,
        stamp: &VersionStamp,
    ) {
        let mut history = self.lock_shard(stamp.key);
        let is_latest = Self::is_latest(|| entry.map(CacheEntry::version), stamp, &history);
        history.writes.push(stamp.key, WriteEvent::Local);
        self.negative.remove(id);
        match entry {
            Some(entry) if is_latest => self.insert_for_epoch(entry.clone(), stamp),
            None if is_latest => {
                self.remove(id);
                self.negative
                    .insert(id.into(), now.saturating_add(NEGATIVE_TTL));
            }
            // Another write was recorded since the stamp. The store may have executed that write
            // after the write of this call.
            Some(_) | None => self.remove(id),
        }
    }

    /// Caches a token that WeChat granted and that the store has not accepted yet. Does nothing if
    /// another write was recorded since the stamp (newest wins). Otherwise advances the stamp past
    /// this write, so that a later commit of this token does not count this write as another write.
    pub(super) fn insert_uncommitted(&self, entry: &CacheEntry, stamp: &mut VersionStamp) {
        let mut history = self.lock_shard(stamp.key);
        if Self::is_latest(|| Some(entry.version()), stamp, &history) {
            history.writes.push(stamp.key, WriteEvent::Local);
            stamp.writes = history.writes.count;
            self.negative.remove(entry.id());
            self.insert_for_epoch(entry.clone(), stamp);
        }
    }

    /// Invalidates the entry of `id` if the entry holds the reported token, so that the next caller
    /// reads the store. The invalidated entry stays for outages, because the report may be wrong.
    pub(super) fn invalidate_if_token(&self, id: &str, invalid_token: &AccessToken) {
        let key = self.key(id);
        // The lock is held from the comparison to the insertion. Without the lock, another thread
        // could insert a newer entry in between, which this insertion would then overwrite.
        let _history = self.lock_shard(key);
        if let Some(entry) = self
            .peek(key, id)
            .filter(|entry| entry.secret() == invalid_token)
        {
            self.insert(key, entry.to_invalidated());
        }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Iterates over all entries. Yields the key of each entry whose token has expired, and `None`
    /// for each other entry. The iterator holds no lock between two items.
    pub(super) fn expired_keys<'a>(
        &'a self,
        clock: &'a Clock,
    ) -> impl Iterator<Item = Option<EntryKey>> + 'a {
        let entries = self.entries.iter();
        entries.map(|(key, entry)| (!entry.is_unexpired(clock.now())).then_some(key))
    }

    /// Removes the entry of `key` if its token has expired at `now`. The removal needs no stamp,
    /// because an expired token is never served.
    pub(super) fn remove_expired(&self, key: EntryKey, now: Timestamp) {
        self.entries
            .remove_if(&key, |entry| !entry.is_unexpired(now));
    }

    fn lock_shard(&self, key: EntryKey) -> MutexGuard<'_, ShardHistory> {
        self.shards[(key.as_u64() % self.shards.len() as u64) as usize]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
