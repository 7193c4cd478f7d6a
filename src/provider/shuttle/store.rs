//! A store for tests under the checker: a store in memory behind a simulated network that delays
//! and loses requests and replies.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::explore::random_number;
use crate::clock::Clock;
use crate::credential::{AppId, Record};
use crate::error::Error;
use crate::store::{
    BoxFuture, CommitResult, CredentialKind, CredentialReader, CredentialSlot, CredentialWriter,
    Expected, LeaseOwner, LeaseResult, MemoryStore, ReplaceResult, StoredRecord,
};

/// Store that both simulated processes share. It records all writes in their order. Other tasks may
/// run between a request and its execution, and between the execution and the reply.
pub(super) struct RecordingStore {
    pub(super) memory: MemoryStore,
    /// Access tokens of all writes, in their order. `None` stands for a deletion.
    written: Mutex<Vec<Option<String>>>,
    /// `true` while all requests to the store wait.
    pub(super) is_blocked: AtomicBool,
    /// Number of further requests and replies that the network may lose. Each request and each
    /// reply decrements this number, and may be lost at random.
    pub(super) losses_left: AtomicUsize,
    /// Number of lease requests that the store will execute although their callers have failed.
    pub(super) late_claims: Arc<AtomicUsize>,
}

impl RecordingStore {
    pub(super) fn new(clock: Clock) -> Self {
        Self {
            memory: MemoryStore::with_clock(clock),
            written: Mutex::default(),
            is_blocked: AtomicBool::new(false),
            losses_left: AtomicUsize::new(0),
            late_claims: Arc::default(),
        }
    }

    fn record_write(&self, record: &Record) {
        let token = record.token.as_ref();
        let token = token.map(|token| token.secret.expose().to_owned());
        self.written.lock().unwrap().push(token);
    }

    /// Returns the access tokens of all writes, in their order. `None` stands for a deletion.
    pub(super) fn written(&self) -> Vec<Option<String>> {
        self.written.lock().unwrap().clone()
    }

    /// Simulates the way of a request or a reply: lets other tasks run, and waits while the store
    /// is blocked. May return an error while [`losses_left`](Self::losses_left) is not zero.
    pub(super) async fn simulate_network(&self) -> Result<(), Error> {
        shuttle::future::yield_now().await;
        while self.is_blocked.load(Ordering::Relaxed) {
            shuttle::future::yield_now().await;
        }
        let lose = |left: usize| left.checked_sub(1);
        let order = Ordering::Relaxed;
        match self.losses_left.fetch_update(order, order, lose) {
            Ok(_) if shuttle::rand::Rng::gen_bool(&mut shuttle::rand::thread_rng(), 0.3) => {
                Err(Error::store_unavailable("a reply was lost"))
            }
            _ => Ok(()),
        }
    }
}

impl RecordingStore {
    /// Executes a request for the lease after a random delay, as if the network had delayed the
    /// request past its timeout. The caller of the request has already received an error.
    pub(super) fn claim_late(
        &self,
        slot: &CredentialSlot,
        expected: &Expected,
        owner: &LeaseOwner,
        ttl: Duration,
    ) {
        let (memory, slot) = (self.memory.clone(), slot.clone());
        let (expected, owner) = (expected.clone(), owner.clone());
        let late = Arc::clone(&self.late_claims);
        late.fetch_add(1, Ordering::Relaxed);
        drop(shuttle::future::spawn(async move {
            for _ in 0..random_number(0..40) {
                shuttle::future::yield_now().await;
            }
            drop(memory.acquire_lease(&slot, &expected, &owner, ttl).await);
            late.fetch_sub(1, Ordering::Relaxed);
        }));
    }

    /// Executes and records a commit, without the network.
    pub(super) async fn commit_now(
        &self,
        slot: &CredentialSlot,
        expected: &Expected,
        record: &Record,
        owner: &LeaseOwner,
    ) -> Result<CommitResult, Error> {
        let commit = self.memory.commit(slot, expected, record, owner).await?;
        if matches!(commit, CommitResult::Committed) {
            self.record_write(record);
        }
        Ok(commit)
    }
}

impl fmt::Debug for RecordingStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordingStore")
            .field("written", &self.written())
            .finish_non_exhaustive()
    }
}

impl CredentialReader for RecordingStore {
    fn load<'a>(&'a self, slot: &'a CredentialSlot) -> BoxFuture<'a, Result<StoredRecord, Error>> {
        Box::pin(async move {
            self.simulate_network().await?;
            let stored = self.memory.load(slot).await?;
            self.simulate_network().await?;
            Ok(stored)
        })
    }

    fn check_health<'a>(
        &'a self,
        app: &'a AppId,
        kind: CredentialKind,
    ) -> BoxFuture<'a, Result<(), Error>> {
        self.memory.check_health(app, kind)
    }
}

impl CredentialWriter for RecordingStore {
    fn acquire_lease<'a>(
        &'a self,
        slot: &'a CredentialSlot,
        expected: &'a Expected,
        owner: &'a LeaseOwner,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<LeaseResult, Error>> {
        Box::pin(async move {
            if let Err(error) = self.simulate_network().await {
                self.claim_late(slot, expected, owner, ttl);
                return Err(error);
            }
            let claim = self
                .memory
                .acquire_lease(slot, expected, owner, ttl)
                .await?;
            self.simulate_network().await?;
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
            self.simulate_network().await?;
            let commit = self.commit_now(slot, expected, record, owner).await?;
            self.simulate_network().await?;
            Ok(commit)
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
            self.simulate_network().await?;
            let announced = self.memory.announce_deletion(slot, expected, owner, ttl);
            let claim = announced.await?;
            self.simulate_network().await?;
            Ok(claim)
        })
    }

    fn commit_deletion<'a>(
        &'a self,
        slot: &'a CredentialSlot,
        expected: &'a Expected,
        owner: &'a LeaseOwner,
    ) -> BoxFuture<'a, Result<CommitResult, Error>> {
        Box::pin(async move {
            self.simulate_network().await?;
            let commit = self.memory.commit_deletion(slot, expected, owner).await?;
            if matches!(commit, CommitResult::Committed) {
                self.record_write(&Record::default());
            }
            self.simulate_network().await?;
            Ok(commit)
        })
    }

    fn release_lease<'a>(
        &'a self,
        slot: &'a CredentialSlot,
        owner: &'a LeaseOwner,
    ) -> BoxFuture<'a, Result<bool, Error>> {
        Box::pin(async move {
            self.simulate_network().await?;
            self.memory.release_lease(slot, owner).await
        })
    }

    fn overwrite<'a>(
        &'a self,
        slot: &'a CredentialSlot,
        record: &'a Record,
    ) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            self.simulate_network().await?;
            self.memory.overwrite(slot, record).await?;
            self.record_write(record);
            self.simulate_network().await
        })
    }

    fn replace<'a>(
        &'a self,
        slot: &'a CredentialSlot,
        expected: &'a Expected,
        record: &'a Record,
    ) -> BoxFuture<'a, Result<ReplaceResult, Error>> {
        Box::pin(async move {
            self.simulate_network().await?;
            let outcome = self.memory.replace(slot, expected, record).await?;
            if matches!(outcome, ReplaceResult::Replaced) {
                self.record_write(record);
            }
            self.simulate_network().await?;
            Ok(outcome)
        })
    }
}
