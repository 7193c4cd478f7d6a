//! The right of one flight to renew a credential, and how it is given back.
//!
//! A lease that is not given back keeps every process from renewing until it has run out. So
//! whatever ends a flight, and whichever reply is lost, the process gives its lease back by itself:
//!
//! - Idle: nothing was claimed, or the lease was given back, or another process has it.
//! - Claiming: a claim was sent, and no reply has come. The store may run it at any later moment.
//! - Held: the store has granted the lease.
//!
//! A flight that ends in one of the last two leaves a task behind that releases the lease.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::state::{CredentialProvider, ProviderState};
use super::sync;
use super::task::MIN_POLL_INTERVAL;
use crate::backoff::Backoff;
use crate::credential::Record;
use crate::error::Error;
use crate::store::{
    CommitResult, CredentialSlot, CredentialWriter, LeaseOwner, LeaseResult, LoginCodeKey,
    LoginCodeStore, StoredRecord,
};

const IDLE: u8 = 0;
const CLAIMING: u8 = 1;
const HELD: u8 = 2;

/// The longest pause between two tries to release a lease.
const MAX_RELEASE_INTERVAL: Duration = Duration::from_millis(500);

/// How long a store that does not answer is asked to release a lease. A frozen server still runs
/// what it was sent before when it goes on.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(10 * 60);

/// The lease of one flight, under a name that no other flight has.
pub(super) struct Lease {
    provider: Arc<ProviderState>,
    store: Arc<dyn CredentialWriter>,
    slot: CredentialSlot,
    owner: LeaseOwner,
    state: AtomicU8,
}

impl Lease {
    pub(super) fn new(
        inner: &Arc<ProviderState>,
        store: &Arc<dyn CredentialWriter>,
        slot: CredentialSlot,
        owner: LeaseOwner,
    ) -> Self {
        Self {
            provider: Arc::clone(inner),
            store: Arc::clone(store),
            slot,
            owner,
            state: AtomicU8::new(IDLE),
        }
    }

    fn set_state(&self, state: u8) {
        self.state.store(state, Ordering::Relaxed);
    }

    /// Claims the lease, if the slot still holds what was read.
    pub(super) async fn acquire(&self, stored: &StoredRecord) -> Result<LeaseResult, Error> {
        self.set_state(CLAIMING);
        let (store, ttl) = (&self.store, self.provider.config.lease_duration);
        let claim = store
            .acquire_lease(&self.slot, &stored.expected, &self.owner, ttl)
            .await?;
        self.set_state(match claim {
            LeaseResult::Acquired => HELD,
            LeaseResult::Busy | LeaseResult::Conflict(_) => IDLE,
        });
        Ok(claim)
    }

    /// Writes the tombstone of what was read, and keeps the lease.
    pub(super) async fn write_tombstone(
        &self,
        stored: &StoredRecord,
    ) -> Result<LeaseResult, Error> {
        self.set_state(CLAIMING);
        let (store, ttl) = (&self.store, self.provider.config.lease_duration);
        let claim = store
            .announce_deletion(&self.slot, &stored.expected, &self.owner, ttl)
            .await?;
        self.set_state(match claim {
            // Where the slot has changed, nothing was claimed and nothing given back.
            LeaseResult::Acquired | LeaseResult::Conflict(_) => HELD,
            LeaseResult::Busy => IDLE,
        });
        Ok(claim)
    }

    /// Replaces what was read, and gives the lease back.
    pub(super) async fn commit(
        &self,
        stored: &StoredRecord,
        record: &Record,
    ) -> Result<CommitResult, Error> {
        let commit = self
            .store
            .commit(&self.slot, &stored.expected, record, &self.owner)
            .await?;
        // Every answer means that the lease is another's or nobody's.
        self.set_state(IDLE);
        Ok(commit)
    }

    /// Deletes what was read, and gives the lease back.
    pub(super) async fn delete(&self, stored: &StoredRecord) -> Result<CommitResult, Error> {
        let commit = self
            .store
            .commit_deletion(&self.slot, &stored.expected, &self.owner)
            .await?;
        self.set_state(IDLE);
        Ok(commit)
    }

    /// Gives the lease back without writing.
    pub(super) async fn release(&self) {
        match self.store.release_lease(&self.slot, &self.owner).await {
            Ok(_) => self.set_state(IDLE),
            Err(error) => {
                tracing::debug!(target: "tower_wechat::renewal", app = %self.provider.app, %error, "a lease is released later");
            }
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let state = self.state.load(Ordering::Relaxed);
        if state == IDLE {
            return;
        }
        let left = AbandonedLease {
            target: LeaseTarget::Credential(Arc::clone(&self.store), self.slot.clone()),
            owner: self.owner.clone(),
            was_granted: state == HELD,
            duration: self.provider.config.lease_duration,
        };
        sync::spawn_cleanup(
            &self.provider.tasks,
            release_abandoned(Arc::clone(&self.provider), left),
        );
    }
}

/// What was claimed.
enum LeaseTarget {
    Credential(Arc<dyn CredentialWriter>, CredentialSlot),
    Code(Arc<dyn LoginCodeStore>, LoginCodeKey),
}

impl LeaseTarget {
    async fn release(&self, owner: &LeaseOwner) -> Result<bool, Error> {
        match self {
            Self::Credential(store, slot) => store.release_lease(slot, owner).await,
            Self::Code(store, code) => store.release_code(code, owner).await,
        }
    }
}

/// A lease that nobody uses any more and that may stand in the store.
struct AbandonedLease {
    target: LeaseTarget,
    owner: LeaseOwner,
    /// Whether the store has answered the claim. If not, it may run the claim after a release.
    was_granted: bool,
    /// How long the lease lasts.
    duration: Duration,
}

/// Releases a lease. Where the claim got no answer, one release that found nothing proves nothing:
/// the claim may arrive later, on a connection that was slow or before a server that was frozen.
/// So it is released again and again, for as long as a lease lasts after the store's first answer.
async fn release_abandoned(provider: Arc<ProviderState>, abandoned: AbandonedLease) {
    let mut give_up = Instant::now() + RELEASE_TIMEOUT;
    let mut backoff = Backoff::new(MIN_POLL_INTERVAL, MAX_RELEASE_INTERVAL);
    let mut has_answered = false;
    loop {
        match abandoned.target.release(&abandoned.owner).await {
            Ok(true) => return,
            Ok(false) if abandoned.was_granted => return,
            Ok(false) if !has_answered => {
                has_answered = true;
                give_up = Instant::now() + abandoned.duration;
            }
            Ok(false) | Err(_) => {}
        }
        // A shutdown waits for this task, and longer than for one try it need not.
        if Instant::now() >= give_up || provider.tasks.is_closed() {
            return;
        }
        backoff.wait().await;
    }
}

impl CredentialProvider {
    /// Gives back the right to exchange a code, whose claim got no answer, in a task.
    pub(crate) fn release_code_in_background(
        &self,
        store: Arc<dyn LoginCodeStore>,
        code: LoginCodeKey,
        owner: LeaseOwner,
        lease_duration: Duration,
    ) {
        let left = AbandonedLease {
            target: LeaseTarget::Code(store, code),
            owner,
            was_granted: false,
            duration: lease_duration,
        };
        sync::spawn_cleanup(&self.0.tasks, release_abandoned(Arc::clone(&self.0), left));
    }
}
