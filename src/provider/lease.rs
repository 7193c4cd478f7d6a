//! The lease of a call: the right to renew a credential, and its release.
//!
//! A lease that is not released blocks all processes until it expires. The process therefore
//! releases the lease however the call ends, even if a reply of the store is lost.
//!
//! # States of a lease
//!
//! - Idle: the call does not hold the lease. No request was sent, the lease was released, or
//!   another process holds the lease.
//! - Claiming: a request for the lease was sent and no reply has arrived. The store may execute the
//!   request at any later time. The reply leads to Held or Idle; without a reply the state stays.
//! - Held: the store granted the lease. A commit, a deletion or a release leads to Idle. The write
//!   of a tombstone leads to Claiming, because it also extends the lease.
//!
//! A call that ends in Claiming or Held spawns a task that releases the lease. `Relaxed` is enough
//! for the state: only the task of the call writes it, and the drop happens after the last write.

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

/// Maximum interval between two attempts to release a lease: half a second, so that the release
/// soon follows the recovery of the store.
const MAX_RELEASE_INTERVAL: Duration = Duration::from_millis(500);

/// Maximum time for which the release is retried while the store does not answer: ten minutes. A
/// server that was paused may execute the request for the lease when it resumes, and the lease must
/// then be released.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(10 * 60);

/// Lease of one call on one credential. No other call uses the same owner name. If the store may
/// still hold the lease when this value is dropped, a task releases the lease.
pub(super) struct Lease {
    provider: Arc<ProviderState>,
    store: Arc<dyn CredentialWriter>,
    slot: CredentialSlot,
    owner: LeaseOwner,
    state: AtomicU8,
}

impl Lease {
    pub(super) fn new(
        provider: &Arc<ProviderState>,
        store: &Arc<dyn CredentialWriter>,
        slot: CredentialSlot,
        owner: LeaseOwner,
    ) -> Self {
        Self {
            provider: Arc::clone(provider),
            store: Arc::clone(store),
            slot,
            owner,
            state: AtomicU8::new(IDLE),
        }
    }

    fn set_state(&self, state: u8) {
        self.state.store(state, Ordering::Relaxed);
    }

    /// Acquires the lease if the store still holds the record `stored` and no other owner holds the
    /// lease.
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

    /// Writes a tombstone for the refresh token of the record `stored`, and extends the lease.
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
            // On a conflict, the store changed nothing, so this call still holds the lease.
            LeaseResult::Acquired | LeaseResult::Conflict(_) => HELD,
            LeaseResult::Busy => IDLE,
        });
        Ok(claim)
    }

    /// Replaces the record `stored` with `record`, and releases the lease.
    pub(super) async fn commit(
        &self,
        stored: &StoredRecord,
        record: &Record,
    ) -> Result<CommitResult, Error> {
        let commit = self
            .store
            .commit(&self.slot, &stored.expected, record, &self.owner)
            .await?;
        // `Committed` and `Conflict` release the lease; after `LeaseLost` another owner holds the
        // lease.
        self.set_state(IDLE);
        Ok(commit)
    }

    /// Deletes the record `stored`, and releases the lease.
    pub(super) async fn delete(&self, stored: &StoredRecord) -> Result<CommitResult, Error> {
        let commit = self
            .store
            .commit_deletion(&self.slot, &stored.expected, &self.owner)
            .await?;
        self.set_state(IDLE);
        Ok(commit)
    }

    /// Releases the lease without a write to the record. If the release fails, the drop of the
    /// lease retries it.
    pub(super) async fn release(&self) {
        match self.store.release_lease(&self.slot, &self.owner).await {
            Ok(_) => self.set_state(IDLE),
            Err(error) => {
                tracing::debug!(target: "tower_wechat::renewal", app = %self.provider.app, %error, "a lease could not be released; the release is retried");
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
        let abandoned = AbandonedLease {
            target: LeaseTarget::Credential(Arc::clone(&self.store), self.slot.clone()),
            owner: self.owner.clone(),
            was_granted: state == HELD,
            duration: self.provider.config.lease_duration,
        };
        sync::spawn_cleanup(
            &self.provider.tasks,
            release_abandoned(Arc::clone(&self.provider), abandoned),
        );
    }
}

/// What a lease protects: the renewal of a credential, or the exchange of a login code.
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

/// Lease that no call uses any more and that the store may still hold.
struct AbandonedLease {
    target: LeaseTarget,
    owner: LeaseOwner,
    /// `true` if the store replied that it granted the lease. `false` if the request for the lease
    /// got no reply, so that the store may still execute the request.
    was_granted: bool,
    duration: Duration,
}

/// Releases a lease, with retries for [`RELEASE_TIMEOUT`] at most. If the request for the lease got
/// no reply, the request may reach the store after a release that found no lease. From the first
/// such release on, the release is repeated for the duration of a lease.
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
        // During a shutdown this task makes one more attempt at most, because the shutdown waits
        // for this task.
        if Instant::now() >= give_up || provider.tasks.is_closed() {
            return;
        }
        backoff.wait().await;
    }
}

impl CredentialProvider {
    /// Starts a task that releases the lease of a login code, after the request for this lease got
    /// no reply.
    pub(crate) fn release_code_in_background(
        &self,
        store: Arc<dyn LoginCodeStore>,
        code: LoginCodeKey,
        owner: LeaseOwner,
        lease_duration: Duration,
    ) {
        let abandoned = AbandonedLease {
            target: LeaseTarget::Code(store, code),
            owner,
            was_granted: false,
            duration: lease_duration,
        };
        sync::spawn_cleanup(
            &self.0.tasks,
            release_abandoned(Arc::clone(&self.0), abandoned),
        );
    }
}
