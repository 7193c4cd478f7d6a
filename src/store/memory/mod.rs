//! A store in the memory of one process.

mod contents;
mod expiring_map;
#[cfg(feature = "platform")]
mod platform;
#[cfg(feature = "platform")]
mod platform_contents;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use self::contents::Contents;
use super::{
    AccountSeparation, BoxFuture, CodeBindResult, CodeLeaseResult, CommitResult, CredentialKey,
    CredentialKind, CredentialReader, CredentialSlot, CredentialWriter, Expected,
    InvalidationSource, LeaseOwner, LeaseResult, LoginCodeKey, LoginCodeStore, Quota, QuotaStore,
    ReplaceResult, RevocationStore, Store, StoredRecord, Subscription, Suspension,
};
use crate::clock::{Clock, Timestamp};
use crate::credential::{AppId, Record};
use crate::error::Error;

/// A store in the memory of this process, for development, tests and single-process services.
///
/// After a restart of the process the store is empty, so users have to log in again, and a
/// third-party platform has lost the refresh tokens of its accounts. Within the process, the store
/// gives the same guarantees as [`RedisStore`](crate::RedisStore). Clones share the same memory.
///
/// ```
/// use std::time::Duration;
/// use tower_wechat::clock::{Clock, Timestamp};
/// use tower_wechat::{MemoryStore, UserTokens, WechatClient};
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

impl MemoryStore {
    /// Creates an empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// Creates an empty store whose entries expire by `clock`.
    #[must_use]
    pub fn with_clock(clock: Clock) -> Self {
        Self {
            contents: Arc::default(),
            clock,
        }
    }

    /// Removes all leases, to simulate a fail-over of Redis that loses them.
    #[cfg(test)]
    pub(crate) fn drop_leases(&self) {
        self.lock().drop_leases();
    }

    fn lock(&self) -> MutexGuard<'_, Contents> {
        // The contents stay usable after a panic of a step: every step replaces whole values, so no
        // record is half written.
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns a future that runs `step` on the contents under the lock. `step` receives the time
    /// at which the future runs.
    fn step<'a, T: Send>(
        &'a self,
        step: impl FnOnce(&mut Contents, Timestamp) -> T + Send + 'a,
    ) -> BoxFuture<'a, Result<T, Error>> {
        Box::pin(async move {
            let now = self.clock.now();
            Ok(step(&mut self.lock(), now))
        })
    }
}

impl Store for MemoryStore {}

impl CredentialReader for MemoryStore {
    fn load<'a>(&'a self, slot: &'a CredentialSlot) -> BoxFuture<'a, Result<StoredRecord, Error>> {
        self.step(|contents, _| contents.stored_record(slot))
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
        self.step(move |contents, now| contents.acquire_lease(slot, expected, owner, ttl, now))
    }

    fn announce_deletion<'a>(
        &'a self,
        slot: &'a CredentialSlot,
        expected: &'a Expected,
        owner: &'a LeaseOwner,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<LeaseResult, Error>> {
        self.step(move |contents, now| contents.announce_deletion(slot, expected, owner, ttl, now))
    }

    fn commit<'a>(
        &'a self,
        slot: &'a CredentialSlot,
        expected: &'a Expected,
        record: &'a Record,
        owner: &'a LeaseOwner,
    ) -> BoxFuture<'a, Result<CommitResult, Error>> {
        self.step(move |contents, now| contents.commit(slot, expected, record, owner, now))
    }

    fn commit_deletion<'a>(
        &'a self,
        slot: &'a CredentialSlot,
        expected: &'a Expected,
        owner: &'a LeaseOwner,
    ) -> BoxFuture<'a, Result<CommitResult, Error>> {
        self.step(move |contents, now| contents.commit_deletion(slot, expected, owner, now))
    }

    fn release_lease<'a>(
        &'a self,
        slot: &'a CredentialSlot,
        owner: &'a LeaseOwner,
    ) -> BoxFuture<'a, Result<bool, Error>> {
        self.step(move |contents, now| contents.release_lease(slot, owner, now))
    }

    fn overwrite<'a>(
        &'a self,
        slot: &'a CredentialSlot,
        record: &'a Record,
    ) -> BoxFuture<'a, Result<(), Error>> {
        self.step(move |contents, now| contents.write_record(slot, record, now))
    }

    fn replace<'a>(
        &'a self,
        slot: &'a CredentialSlot,
        expected: &'a Expected,
        record: &'a Record,
    ) -> BoxFuture<'a, Result<ReplaceResult, Error>> {
        self.step(move |contents, now| contents.replace(slot, expected, record, now))
    }
}

impl LoginCodeStore for MemoryStore {
    fn bind_code<'a>(
        &'a self,
        code: &'a LoginCodeKey,
        login: u64,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<CodeBindResult, Error>> {
        self.step(move |contents, now| contents.bind_code(code, login, ttl, now))
    }

    fn acquire_code<'a>(
        &'a self,
        code: &'a LoginCodeKey,
        owner: &'a LeaseOwner,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<CodeLeaseResult, Error>> {
        self.step(move |contents, now| contents.acquire_code(code, owner, ttl, now))
    }

    fn release_code<'a>(
        &'a self,
        code: &'a LoginCodeKey,
        owner: &'a LeaseOwner,
    ) -> BoxFuture<'a, Result<bool, Error>> {
        self.step(move |contents, now| contents.release_code(code, owner, now))
    }

    fn finish_code<'a>(
        &'a self,
        code: &'a LoginCodeKey,
        owner: Option<&'a LeaseOwner>,
        outcome: &'a str,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<(), Error>> {
        self.step(move |contents, now| contents.finish_code(code, owner, outcome, ttl, now))
    }

    fn suspend_code<'a>(
        &'a self,
        code: &'a LoginCodeKey,
        owner: &'a LeaseOwner,
        suspension: &'a Suspension<'a>,
    ) -> BoxFuture<'a, Result<bool, Error>> {
        self.step(move |contents, now| contents.suspend_code(code, owner, suspension, now))
    }
}

impl QuotaStore for MemoryStore {
    fn try_consume<'a>(&'a self, quota: &'a Quota) -> BoxFuture<'a, Result<bool, Error>> {
        self.step(move |contents, now| contents.try_consume(quota, now))
    }
}

impl RevocationStore for MemoryStore {
    fn set_revoked_at<'a>(
        &'a self,
        key: &'a CredentialKey,
        at: Timestamp,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<(), Error>> {
        self.step(move |contents, now| contents.set_revoked_at(key, at, ttl, now))
    }

    fn revoked_at<'a>(
        &'a self,
        key: &'a CredentialKey,
    ) -> BoxFuture<'a, Result<Option<Timestamp>, Error>> {
        self.step(move |contents, now| contents.revoked_at(key, now))
    }
}

impl AccountSeparation for MemoryStore {
    fn check_several_accounts(&self) -> Result<(), Error> {
        // Every key of this store contains the AppID.
        Ok(())
    }
}

impl InvalidationSource for MemoryStore {
    fn subscribe(&self, _app: &AppId) -> Option<Subscription> {
        let receiver = self.lock().publisher().subscribe();
        Some(Subscription::from_local(receiver))
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let records = self.lock().record_count();
        f.debug_struct("MemoryStore")
            .field("records", &records)
            .finish_non_exhaustive()
    }
}
