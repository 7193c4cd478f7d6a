//! The network between the engine and the simulated store: either each operation has an exchange of
//! its own, or a [`BatchQueue`] sends reads and steps together, as the Redis store does.
//!
//! All operations of a batch are executed at one instant. Between the start of the exchange and this
//! instant, and between this instant and the replies, other tasks may run. Drivers may be aborted.
//! An operation that its batch has lost or not applied is then sent alone.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::explore::random_number;
use super::store::RecordingStore;
use super::tasks::Abortable;
use crate::batch_queue::{Admission, AlonePermit, BatchQueue, BatchRunner, Limits};
use crate::credential::{AppId, Record};
use crate::error::Error;
use crate::store::{
    BoxFuture, CommitResult, CredentialKind, CredentialReader, CredentialSlot, CredentialWriter,
    Expected, LeaseOwner, LeaseResult, ReplaceResult, StoredRecord,
};

/// How the operations of a process reach the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Network {
    /// Each operation has a separate exchange.
    Direct,
    /// Reads, requests for leases and commits are sent in batches.
    Batched,
}

/// Time for which the engine waits for a reply: one hour. No schedule takes as long.
const MAX_WAIT: Duration = Duration::from_secs(3_600);

/// Runs a driver as a task of the checker. One driver in four is aborted after a few polls.
pub(super) fn spawn_driver(driver: BoxFuture<'static, ()>) {
    let steps = (random_number(0..4) == 0).then(|| random_number(0..8));
    drop(shuttle::future::spawn(Abortable::new(driver, steps)));
}

/// Returns random limits that are so small that few operations reach them.
pub(super) fn random_limits() -> Limits {
    let number = |range| random_number(range) as usize;
    Limits {
        alone: number(0..2),
        batch: number(1..4),
        crowd: number(1..4),
        large: number(1..6),
        drivers: number(1..4),
        waiting: 100,
    }
}

/// The store of one process, which sends operations in batches.
pub(super) struct BatchedStore {
    store: Arc<RecordingStore>,
    reads: Arc<BatchQueue<ReadRunner>>,
    steps: Arc<BatchQueue<StepRunner>>,
}

impl BatchedStore {
    pub(super) fn new(store: &Arc<RecordingStore>) -> Self {
        Self {
            store: Arc::clone(store),
            reads: Arc::new(BatchQueue::new(random_limits())),
            steps: Arc::new(BatchQueue::new(random_limits())),
        }
    }

    /// Returns `true` if no operation waits and no driver runs.
    pub(super) fn is_idle(&self) -> bool {
        self.reads.is_idle() && self.steps.is_idle()
    }

    /// Runs a step in a batch. Returns a permit if the caller has to send the step alone, or `None`
    /// if the batch has applied the step.
    async fn run_step(&self, step: impl FnOnce() -> Step) -> Result<Option<StepPermit<'_>>, Error> {
        let runner = || StepRunner(Arc::clone(&self.store));
        match in_batch(&self.steps, step, runner).await? {
            Ok(Ok(true)) => Ok(None),
            Ok(Ok(false)) => Ok(Some(None)),
            Ok(Err(error)) => Err(error),
            Err(permit) => Ok(Some(permit)),
        }
    }
}

type StepPermit<'a> = Option<AlonePermit<'a, StepRunner>>;

/// Submits an operation to a queue. Returns its reply, or a permit if the caller has to send the
/// operation alone. The permit is `None` if the operation was lost.
async fn in_batch<'a, R: BatchRunner>(
    queue: &'a Arc<BatchQueue<R>>,
    operation: impl FnOnce() -> R::Operation,
    runner: impl FnOnce() -> R,
) -> Result<Result<R::Reply, Option<AlonePermit<'a, R>>>, Error> {
    let now = Instant::now();
    match queue.admit(now, now + MAX_WAIT, operation, runner) {
        Admission::Alone(permit) => Ok(Err(Some(permit))),
        Admission::Queued(reply) => Ok(reply.receive().await.ok_or(None)),
        Admission::Full => Err(Error::store_unavailable("too many operations wait")),
    }
}

/// Sends an error to all operations of a batch.
fn to_each<T>(outcome: Result<Vec<T>, Error>, count: usize) -> Vec<Result<T, Error>> {
    match outcome {
        Ok(replies) => replies.into_iter().map(Ok).collect(),
        Err(error) => (0..count).map(|_| Err(error.clone())).collect(),
    }
}

#[derive(Clone)]
struct ReadRunner(Arc<RecordingStore>);

impl ReadRunner {
    async fn load_all(&self, slots: &[CredentialSlot]) -> Result<Vec<StoredRecord>, Error> {
        self.0.simulate_network().await?;
        let mut records = Vec::new();
        for slot in slots {
            // The store in memory answers without a wait, so all reads happen at one instant.
            records.push(self.0.memory.load(slot).await?);
        }
        self.0.simulate_network().await?;
        Ok(records)
    }
}

impl BatchRunner for ReadRunner {
    type Operation = CredentialSlot;
    type Reply = Result<StoredRecord, Error>;

    fn may_share_batch(_: &CredentialSlot, _: &CredentialSlot) -> bool {
        true
    }

    fn run_batch(&self, slots: Vec<CredentialSlot>) -> BoxFuture<'_, Vec<Self::Reply>> {
        Box::pin(async move { to_each(self.load_all(&slots).await, slots.len()) })
    }

    fn spawn(&self, driver: BoxFuture<'static, ()>) {
        spawn_driver(driver);
    }
}

/// A step that a batch may contain.
enum Step {
    AcquireLease(StepTarget, Duration),
    Commit(StepTarget, Box<Record>),
}

/// The credential of a step, the values that it expects and its owner.
struct StepTarget {
    slot: CredentialSlot,
    expected: Expected,
    owner: LeaseOwner,
}

impl StepTarget {
    fn new(slot: &CredentialSlot, expected: &Expected, owner: &LeaseOwner) -> Self {
        Self {
            slot: slot.clone(),
            expected: expected.clone(),
            owner: owner.clone(),
        }
    }
}

#[derive(Clone)]
struct StepRunner(Arc<RecordingStore>);

impl StepRunner {
    async fn run_all(&self, steps: &[Step]) -> Result<Vec<bool>, Error> {
        if let Err(error) = self.0.simulate_network().await {
            for step in steps {
                if let Step::AcquireLease(target, ttl) = step {
                    let StepTarget {
                        slot,
                        expected,
                        owner,
                    } = target;
                    self.0.claim_late(slot, expected, owner, *ttl);
                }
            }
            return Err(error);
        }
        let mut applied = Vec::new();
        for step in steps {
            applied.push(self.apply(step).await?);
        }
        self.0.simulate_network().await?;
        Ok(applied)
    }

    /// Applies a step in its usual case and returns `true`. In each other case, changes nothing.
    async fn apply(&self, step: &Step) -> Result<bool, Error> {
        match step {
            Step::AcquireLease(
                StepTarget {
                    slot,
                    expected,
                    owner,
                },
                ttl,
            ) => {
                let claim = self.0.memory.acquire_lease(slot, expected, owner, *ttl);
                Ok(matches!(claim.await?, LeaseResult::Acquired))
            }
            Step::Commit(
                StepTarget {
                    slot,
                    expected,
                    owner,
                },
                record,
            ) => {
                // A commit that conflicts would release the lease.
                if self.0.memory.load(slot).await?.expected != *expected {
                    return Ok(false);
                }
                let commit = self.0.commit_now(slot, expected, record, owner);
                Ok(matches!(commit.await?, CommitResult::Committed))
            }
        }
    }
}

impl BatchRunner for StepRunner {
    type Operation = Step;
    type Reply = Result<bool, Error>;

    fn may_share_batch(first: &Step, other: &Step) -> bool {
        std::mem::discriminant(first) == std::mem::discriminant(other)
    }

    fn run_batch(&self, steps: Vec<Step>) -> BoxFuture<'_, Vec<Self::Reply>> {
        Box::pin(async move { to_each(self.run_all(&steps).await, steps.len()) })
    }

    fn spawn(&self, driver: BoxFuture<'static, ()>) {
        spawn_driver(driver);
    }
}

impl fmt::Debug for BatchedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.store.fmt(f)
    }
}

impl CredentialReader for BatchedStore {
    fn load<'a>(&'a self, slot: &'a CredentialSlot) -> BoxFuture<'a, Result<StoredRecord, Error>> {
        Box::pin(async move {
            let runner = || ReadRunner(Arc::clone(&self.store));
            let _permit = match in_batch(&self.reads, || slot.clone(), runner).await? {
                Ok(reply) => return reply,
                Err(permit) => permit,
            };
            self.store.load(slot).await
        })
    }

    fn check_health<'a>(
        &'a self,
        app: &'a AppId,
        kind: CredentialKind,
    ) -> BoxFuture<'a, Result<(), Error>> {
        self.store.check_health(app, kind)
    }
}

impl CredentialWriter for BatchedStore {
    fn acquire_lease<'a>(
        &'a self,
        slot: &'a CredentialSlot,
        expected: &'a Expected,
        owner: &'a LeaseOwner,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<LeaseResult, Error>> {
        Box::pin(async move {
            let step = || Step::AcquireLease(StepTarget::new(slot, expected, owner), ttl);
            match self.run_step(step).await? {
                None => Ok(LeaseResult::Acquired),
                Some(_permit) => self.store.acquire_lease(slot, expected, owner, ttl).await,
            }
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
            let target = || StepTarget::new(slot, expected, owner);
            let step = || Step::Commit(target(), Box::new(record.clone()));
            match self.run_step(step).await? {
                None => Ok(CommitResult::Committed),
                Some(_permit) => self.store.commit(slot, expected, record, owner).await,
            }
        })
    }

    fn announce_deletion<'a>(
        &'a self,
        slot: &'a CredentialSlot,
        expected: &'a Expected,
        owner: &'a LeaseOwner,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<LeaseResult, Error>> {
        self.store.announce_deletion(slot, expected, owner, ttl)
    }

    fn commit_deletion<'a>(
        &'a self,
        slot: &'a CredentialSlot,
        expected: &'a Expected,
        owner: &'a LeaseOwner,
    ) -> BoxFuture<'a, Result<CommitResult, Error>> {
        self.store.commit_deletion(slot, expected, owner)
    }

    fn release_lease<'a>(
        &'a self,
        slot: &'a CredentialSlot,
        owner: &'a LeaseOwner,
    ) -> BoxFuture<'a, Result<bool, Error>> {
        self.store.release_lease(slot, owner)
    }

    fn overwrite<'a>(
        &'a self,
        slot: &'a CredentialSlot,
        record: &'a Record,
    ) -> BoxFuture<'a, Result<(), Error>> {
        self.store.overwrite(slot, record)
    }

    fn replace<'a>(
        &'a self,
        slot: &'a CredentialSlot,
        expected: &'a Expected,
        record: &'a Record,
    ) -> BoxFuture<'a, Result<ReplaceResult, Error>> {
        self.store.replace(slot, expected, record)
    }
}
