//! A store in the memory of one process.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use zeroize::Zeroizing;

use super::invalidation::{Invalidation, Publisher, RecordVersion};
use super::{
    BoxFuture, CodeBindResult, CodeLeaseResult, CommitResult, CredentialKey, CredentialKind,
    CredentialReader, CredentialSlot, CredentialWriter, Event, Expected, InvalidationSource,
    LeaseOwner, LeaseResult, LoginCodeKey, LoginCodeStore, MIN_TOMBSTONE_TTL, Quota, QuotaStore,
    RevocationStore, Store, StoredRecord, Subscription, replaced_refresh_token,
};
use crate::clock::{Clock, Timestamp};
use crate::credential::{AppId, Record};
use crate::error::Error;
use crate::shrink::shrink_map;

/// Records whose refresh token should be dead are dropped when the map has doubled since the last
/// look, so that looking costs nothing per insertion.
const MIN_SWEEP_LEN: usize = 1_024;

/// Keeps credentials in the memory of this process: for development, tests, and services that run
/// as one process and may ask their users to log in again after a restart.
///
/// Clones share the same memory. It keeps every promise that [`RedisStore`](crate::RedisStore)
/// keeps, within one process.
///
/// ```
/// use std::time::Duration;
/// use tower_wechat::{Clock, MemoryStore, Timestamp, UserTokens, WechatClient};
///
/// # fn main() -> Result<(), tower_wechat::Error> {
/// # let wechat = WechatClient::new("wx0123456789abcdef", "secret")?;
/// let users = UserTokens::new(wechat.clone(), MemoryStore::new());
///
/// // In a test that moves the time:
/// let clock = Clock::manual(Timestamp::from_millis(1_700_000_000_000));
/// let store = MemoryStore::with_clock(clock.clone());
/// let users = UserTokens::builder(wechat, store).clock(clock.clone()).build();
/// clock.advance(Duration::from_secs(7_200));
/// # Ok(()) }
/// ```
#[derive(Clone, Default)]
pub struct MemoryStore {
    contents: Arc<Mutex<Contents>>,
    clock: Clock,
}

#[derive(Default)]
struct Contents {
    records: HashMap<CredentialKey, RecordEntry>,
    leases: HashMap<CredentialKey, LeaseEntry>,
    tombstones: HashMap<CredentialKey, TombstoneEntry>,
    quotas: HashMap<(AppId, Box<str>), QuotaUsage>,
    codes: HashMap<LoginCodeKey, CodeEntry>,
    /// The login of each code, and until when it is remembered.
    code_bindings: HashMap<LoginCodeKey, (u64, Timestamp)>,
    revocations: HashMap<CredentialKey, Revocation>,
    /// Numbers every write, so that a witness never matches a later value (no ABA).
    write_count: u64,
    /// Made when the first engine listens.
    publisher: Option<Publisher>,
    sweep_records_at: usize,
    sweep_tombstones_at: usize,
    sweep_codes_at: usize,
    sweep_bindings_at: usize,
    sweep_revocations_at: usize,
}

struct Revocation {
    at: Timestamp,
    expires_at: Timestamp,
}

struct CodeEntry {
    state: CodeState,
    until: Timestamp,
}

enum CodeState {
    Leased(LeaseOwner),
    Finished(String),
}

struct RecordEntry {
    record: Record,
    write_number: u64,
}

/// How much of an allowance is spent.
struct QuotaUsage {
    used: u32,
    expires_at: Timestamp,
}

struct LeaseEntry {
    owner: LeaseOwner,
    expires_at: Timestamp,
}

/// Names the refresh token of a deleted pair.
struct TombstoneEntry {
    refresh_token: Zeroizing<Vec<u8>>,
    resets_at: Timestamp,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty store whose leases run out by `clock`.
    #[must_use]
    pub fn with_clock(clock: Clock) -> Self {
        Self {
            contents: Arc::default(),
            clock,
        }
    }

    /// Forgets all leases, as a fail-over may.
    #[cfg(test)]
    pub(crate) fn drop_leases(&self) {
        self.lock().leases.clear();
    }

    fn lock(&self) -> MutexGuard<'_, Contents> {
        // A panic while the lock was held cannot leave a half-written record: every step below
        // replaces whole values.
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Contents {
    fn stored_record(&self, slot: &CredentialSlot) -> StoredRecord {
        match self.records.get(&slot.key) {
            Some(cell) => StoredRecord {
                record: cell.record.clone(),
                expected: expected_of(Some(cell)),
            },
            None => StoredRecord {
                record: Record::default(),
                expected: expected_of(None),
            },
        }
    }

    fn matches(&self, slot: &CredentialSlot, expected: &Expected) -> bool {
        expected_of(self.records.get(&slot.key)) == *expected
    }

    /// Whether another owner has the lease.
    fn is_leased_to_other(
        &self,
        slot: &CredentialSlot,
        owner: &LeaseOwner,
        now: Timestamp,
    ) -> bool {
        let lease = self.leases.get(&slot.key);
        lease.is_some_and(|lease| lease.expires_at > now && lease.owner != *owner)
    }

    fn acquire_lease(
        &mut self,
        slot: &CredentialSlot,
        expected: &Expected,
        owner: &LeaseOwner,
        expires_at: Timestamp,
        now: Timestamp,
    ) -> LeaseResult {
        if !self.matches(slot, expected) {
            return LeaseResult::Conflict(self.stored_record(slot));
        }
        if self.is_leased_to_other(slot, owner, now) {
            return LeaseResult::Busy;
        }
        let owner = owner.clone();
        self.leases
            .insert(slot.key.clone(), LeaseEntry { owner, expires_at });
        LeaseResult::Acquired
    }

    fn commit(
        &mut self,
        slot: &CredentialSlot,
        expected: &Expected,
        record: &Record,
        owner: &LeaseOwner,
        now: Timestamp,
    ) -> CommitResult {
        let replaces_tombstoned = self.has_tombstone_of_previous(slot, expected, record, now);
        let may_fill_empty = replaces_tombstoned && !self.records.contains_key(&slot.key);
        if !self.matches(slot, expected) && !may_fill_empty {
            self.release_lease(slot, owner, now);
            return CommitResult::Conflict(self.stored_record(slot));
        }
        if self.is_leased_to_other(slot, owner, now) && !replaces_tombstoned {
            return CommitResult::LeaseLost;
        }
        self.write_record(slot, record, now);
        self.release_lease(slot, owner, now);
        CommitResult::Committed
    }

    /// Whether a tombstone names the refresh token that `record` succeeds.
    fn has_tombstone_of_previous(
        &self,
        slot: &CredentialSlot,
        expected: &Expected,
        record: &Record,
        now: Timestamp,
    ) -> bool {
        let Some(previous) = replaced_refresh_token(expected_refresh_token(expected), record)
        else {
            return false;
        };
        let tombstone = self.tombstones.get(&slot.key);
        tombstone.is_some_and(|stone| {
            stone.resets_at > now && stone.refresh_token.as_slice() == previous
        })
    }

    fn write_tombstone(&mut self, slot: &CredentialSlot, expected: &Expected, now: Timestamp) {
        let Some(token) = expected_refresh_token(expected) else {
            return;
        };
        let tombstone = TombstoneEntry {
            refresh_token: Zeroizing::new(token.to_vec()),
            resets_at: now.saturating_add(MIN_TOMBSTONE_TTL),
        };
        self.tombstones.insert(slot.key.clone(), tombstone);
        if self.tombstones.len() >= self.sweep_tombstones_at.max(MIN_SWEEP_LEN) {
            self.tombstones.retain(|_, stone| stone.resets_at > now);
            shrink_map(&mut self.tombstones);
            self.sweep_tombstones_at = self.tombstones.len() * 2;
        }
    }

    fn write_record(&mut self, slot: &CredentialSlot, record: &Record, now: Timestamp) {
        self.write_count += 1;
        self.tombstones.remove(&slot.key);
        if let Some(teller) = &self.publisher {
            let (name, mark) = (slot.key.clone(), RecordVersion::of_record(record));
            teller.publish(Event::Invalidated(Arc::new(Invalidation {
                key: name,
                version: mark,
            })));
        }
        if record.is_empty() {
            self.records.remove(&slot.key);
            shrink_map(&mut self.records);
            return;
        }
        let cell = RecordEntry {
            record: record.clone(),
            write_number: self.write_count,
        };
        self.records.insert(slot.key.clone(), cell);
        if self.records.len() >= self.sweep_records_at.max(MIN_SWEEP_LEN) {
            self.records.retain(|_, cell| !cell.record.is_unusable(now));
            shrink_map(&mut self.records);
            self.leases.retain(|_, lease| lease.expires_at > now);
            shrink_map(&mut self.leases);
            self.sweep_records_at = self.records.len() * 2;
        }
    }

    fn set_code_state(
        &mut self,
        code: &LoginCodeKey,
        state: CodeState,
        now: Timestamp,
        ttl: Duration,
    ) {
        let until = now.saturating_add(ttl);
        self.codes.insert(code.clone(), CodeEntry { state, until });
        if self.codes.len() >= self.sweep_codes_at.max(MIN_SWEEP_LEN) {
            self.codes.retain(|_, code| code.until > now);
            shrink_map(&mut self.codes);
            self.sweep_codes_at = self.codes.len() * 2;
        }
    }

    fn record_revocation(
        &mut self,
        key: &CredentialKey,
        at: Timestamp,
        now: Timestamp,
        ttl: Duration,
    ) {
        let until = now.saturating_add(ttl);
        let last = self.revocations.get(key).map(|last| last.at);
        let at = last.map_or(at, |last| {
            at.max(last.saturating_add(Duration::from_millis(1)))
        });
        self.revocations.insert(
            key.clone(),
            Revocation {
                at,
                expires_at: until,
            },
        );
        if self.revocations.len() >= self.sweep_revocations_at.max(MIN_SWEEP_LEN) {
            self.revocations
                .retain(|_, revoked| revoked.expires_at > now);
            shrink_map(&mut self.revocations);
            self.sweep_revocations_at = self.revocations.len() * 2;
        }
    }

    /// Removes the owner's lease. Returns `false` if the owner has none, or if it has expired.
    fn release_lease(&mut self, slot: &CredentialSlot, owner: &LeaseOwner, now: Timestamp) -> bool {
        match self.leases.entry(slot.key.clone()) {
            Entry::Occupied(lease) if lease.get().owner == *owner => {
                let was_held = lease.remove().expires_at > now;
                shrink_map(&mut self.leases);
                was_held
            }
            _ => false,
        }
    }

    /// Returns `true` if the owner has the right to exchange a code, and it has not expired.
    fn is_claimed_by(&self, code: &LoginCodeKey, owner: &LeaseOwner, now: Timestamp) -> bool {
        let known = self.codes.get(code).filter(|code| code.until > now);
        matches!(known.map(|code| &code.state), Some(CodeState::Leased(holder)) if holder == owner)
    }
}

/// The number of the write, and the refresh token.
fn expected_of(entry: Option<&RecordEntry>) -> Expected {
    let write = entry.map(|cell| cell.write_number.to_be_bytes().to_vec());
    let refresh = entry.and_then(|cell| cell.record.refresh.as_ref());
    let refresh = refresh.map(|refresh| refresh.secret.expose().as_bytes().to_vec());
    Expected([write, refresh].map(|part| part.map(Zeroizing::new)).into())
}

fn expected_refresh_token(expected: &Expected) -> Option<&[u8]> {
    expected.0.get(1)?.as_ref().map(|token| token.as_slice())
}

impl Store for MemoryStore {}

impl CredentialReader for MemoryStore {
    fn load<'a>(&'a self, slot: &'a CredentialSlot) -> BoxFuture<'a, Result<StoredRecord, Error>> {
        Box::pin(async move { Ok(self.lock().stored_record(slot)) })
    }

    fn check_health<'a>(
        &'a self,
        _app: &'a AppId,
        _kind: CredentialKind,
    ) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async { Ok(()) })
    }
}

impl CredentialWriter for MemoryStore {
    fn acquire_lease<'a>(
        &'a self,
        slot: &'a CredentialSlot,
        expected: &'a Expected,
        owner: &'a LeaseOwner,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<LeaseResult, Error>> {
        Box::pin(async move {
            let now = self.clock.now();
            let until = now.saturating_add(ttl);
            Ok(self.lock().acquire_lease(slot, expected, owner, until, now))
        })
    }

    fn announce_deletion<'a>(
        &'a self,
        slot: &'a CredentialSlot,
        expected: &'a Expected,
        owner: &'a LeaseOwner,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<LeaseResult, Error>> {
        Box::pin(async move {
            let now = self.clock.now();
            let mut shelves = self.lock();
            let claim = shelves.acquire_lease(slot, expected, owner, now.saturating_add(ttl), now);
            if matches!(claim, LeaseResult::Acquired) {
                shelves.write_tombstone(slot, expected, now);
            }
            Ok(claim)
        })
    }

    fn commit<'a>(
        &'a self,
        slot: &'a CredentialSlot,
        expected: &'a Expected,
        record: &'a Record,
        owner: &'a LeaseOwner,
    ) -> BoxFuture<'a, Result<CommitResult, Error>> {
        Box::pin(async move {
            let now = self.clock.now();
            Ok(self.lock().commit(slot, expected, record, owner, now))
        })
    }

    fn commit_deletion<'a>(
        &'a self,
        slot: &'a CredentialSlot,
        expected: &'a Expected,
        owner: &'a LeaseOwner,
    ) -> BoxFuture<'a, Result<CommitResult, Error>> {
        Box::pin(async move {
            let (now, nothing) = (self.clock.now(), Record::default());
            let mut shelves = self.lock();
            let commit = shelves.commit(slot, expected, &nothing, owner, now);
            if matches!(commit, CommitResult::Committed) {
                shelves.write_tombstone(slot, expected, now);
            }
            Ok(commit)
        })
    }

    fn release_lease<'a>(
        &'a self,
        slot: &'a CredentialSlot,
        owner: &'a LeaseOwner,
    ) -> BoxFuture<'a, Result<bool, Error>> {
        Box::pin(async move {
            let now = self.clock.now();
            Ok(self.lock().release_lease(slot, owner, now))
        })
    }

    fn overwrite<'a>(
        &'a self,
        slot: &'a CredentialSlot,
        record: &'a Record,
    ) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            let now = self.clock.now();
            self.lock().write_record(slot, record, now);
            Ok(())
        })
    }
}

impl LoginCodeStore for MemoryStore {
    fn bind_code<'a>(
        &'a self,
        code: &'a LoginCodeKey,
        login: u64,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<CodeBindResult, Error>> {
        Box::pin(async move {
            let now = self.clock.now();
            let mut shelves = self.lock();
            let known = shelves
                .code_bindings
                .get(code)
                .filter(|(_, until)| *until > now);
            let binding = match known {
                Some((other, _)) if *other != login => return Ok(CodeBindResult::BoundElsewhere),
                Some(_) => CodeBindResult::AlreadyBound,
                None => CodeBindResult::Bound,
            };
            shelves
                .code_bindings
                .insert(code.clone(), (login, now.saturating_add(ttl)));
            if shelves.code_bindings.len() >= shelves.sweep_bindings_at.max(MIN_SWEEP_LEN) {
                shelves.code_bindings.retain(|_, (_, until)| *until > now);
                shrink_map(&mut shelves.code_bindings);
                shelves.sweep_bindings_at = shelves.code_bindings.len() * 2;
            }
            Ok(binding)
        })
    }

    fn acquire_code<'a>(
        &'a self,
        code: &'a LoginCodeKey,
        owner: &'a LeaseOwner,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<CodeLeaseResult, Error>> {
        Box::pin(async move {
            let now = self.clock.now();
            let mut shelves = self.lock();
            let known = shelves.codes.get(code).filter(|code| code.until > now);
            Ok(match known.map(|code| &code.state) {
                Some(CodeState::Finished(outcome)) => CodeLeaseResult::Finished(outcome.clone()),
                Some(CodeState::Leased(holder)) if holder != owner => CodeLeaseResult::Busy,
                _ => {
                    let claimed = CodeState::Leased(owner.clone());
                    shelves.set_code_state(code, claimed, now, ttl);
                    CodeLeaseResult::Acquired
                }
            })
        })
    }

    fn release_code<'a>(
        &'a self,
        code: &'a LoginCodeKey,
        owner: &'a LeaseOwner,
    ) -> BoxFuture<'a, Result<bool, Error>> {
        Box::pin(async move {
            let now = self.clock.now();
            let mut shelves = self.lock();
            let ours = shelves.is_claimed_by(code, owner, now);
            if ours {
                shelves.codes.remove(code);
            }
            Ok(ours)
        })
    }

    fn finish_code<'a>(
        &'a self,
        code: &'a LoginCodeKey,
        owner: Option<&'a LeaseOwner>,
        outcome: &'a str,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            let now = self.clock.now();
            let mut shelves = self.lock();
            let ours = owner.is_none_or(|owner| shelves.is_claimed_by(code, owner, now));
            if ours {
                let settled = CodeState::Finished(outcome.to_owned());
                shelves.set_code_state(code, settled, now, ttl);
            }
            Ok(())
        })
    }
}

impl QuotaStore for MemoryStore {
    fn try_consume<'a>(&'a self, quota: &'a Quota) -> BoxFuture<'a, Result<bool, Error>> {
        Box::pin(async move {
            let now = self.clock.now();
            let mut shelves = self.lock();
            shelves.quotas.retain(|_, spent| now < spent.expires_at);
            shrink_map(&mut shelves.quotas);
            let of = (quota.app.clone(), quota.purpose.clone());
            let spent = shelves.quotas.entry(of).or_insert_with(|| QuotaUsage {
                used: 0,
                expires_at: now.saturating_add(quota.window),
            });
            let is_available = spent.used < quota.limit;
            spent.used += u32::from(is_available);
            Ok(is_available)
        })
    }
}

impl RevocationStore for MemoryStore {
    fn set_revoked_at<'a>(
        &'a self,
        key: &'a CredentialKey,
        at: Timestamp,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            self.lock()
                .record_revocation(key, at, self.clock.now(), ttl);
            Ok(())
        })
    }

    fn revoked_at<'a>(
        &'a self,
        key: &'a CredentialKey,
    ) -> BoxFuture<'a, Result<Option<Timestamp>, Error>> {
        Box::pin(async move {
            let now = self.clock.now();
            let shelves = self.lock();
            let revoked = shelves.revocations.get(key);
            Ok(revoked
                .filter(|revoked| revoked.expires_at > now)
                .map(|revoked| revoked.at))
        })
    }
}

impl InvalidationSource for MemoryStore {
    fn subscribe(&self, _app: &AppId) -> Option<Subscription> {
        let mut shelves = self.lock();
        let teller = shelves.publisher.get_or_insert_default();
        Some(Subscription::from_local(teller.subscribe()))
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let records = self.lock().records.len();
        f.debug_struct("MemoryStore")
            .field("records", &records)
            .finish_non_exhaustive()
    }
}
