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

use super::renewal::FIRST_REST;
use super::{Inner, Keeper, sync};
use crate::credential::Record;
use crate::error::Error;
use crate::store::{Claim, CodeName, Commit, LeaseOwner, Slot, Store, Stored};

const IDLE: u8 = 0;
const CLAIMING: u8 = 1;
const HELD: u8 = 2;

/// The longest pause between two tries to release a lease.
const LONGEST_REST: Duration = Duration::from_millis(500);

/// How long a store that does not answer is asked to release a lease. A frozen server still runs
/// what it was sent before when it goes on.
const AWAY: Duration = Duration::from_secs(10 * 60);

/// The lease of one flight, under a name that no other flight has.
pub(super) struct Lease {
    inner: Arc<Inner>,
    slot: Slot,
    owner: LeaseOwner,
    state: AtomicU8,
}

impl Lease {
    pub(super) fn new(inner: &Arc<Inner>, slot: Slot, owner: LeaseOwner) -> Self {
        Self {
            inner: Arc::clone(inner),
            slot,
            owner,
            state: AtomicU8::new(IDLE),
        }
    }

    pub(super) fn slot(&self) -> &Slot {
        &self.slot
    }

    fn is(&self, state: u8) {
        self.state.store(state, Ordering::Relaxed);
    }

    /// Claims the lease, if the slot still holds what was read.
    pub(super) async fn claim(&self, stored: &Stored) -> Result<Claim, Error> {
        self.is(CLAIMING);
        let (store, ttl) = (&self.inner.store, self.inner.settings.lease);
        let claim = store
            .claim(&self.slot, &stored.witness, &self.owner, ttl)
            .await?;
        self.is(match claim {
            Claim::Granted => HELD,
            Claim::Held | Claim::Changed(_) => IDLE,
        });
        Ok(claim)
    }

    /// Writes the tombstone of what was read, and keeps the lease.
    pub(super) async fn announce_deletion(&self, stored: &Stored) -> Result<Claim, Error> {
        self.is(CLAIMING);
        let (store, ttl) = (&self.inner.store, self.inner.settings.lease);
        let claim = store
            .announce_deletion(&self.slot, &stored.witness, &self.owner, ttl)
            .await?;
        self.is(match claim {
            // Where the slot has changed, nothing was claimed and nothing given back.
            Claim::Granted | Claim::Changed(_) => HELD,
            Claim::Held => IDLE,
        });
        Ok(claim)
    }

    /// Replaces what was read, and gives the lease back.
    pub(super) async fn commit(&self, stored: &Stored, record: &Record) -> Result<Commit, Error> {
        let store = &self.inner.store;
        let commit = store
            .commit(&self.slot, &stored.witness, record, &self.owner)
            .await?;
        // Every answer means that the lease is another's or nobody's.
        self.is(IDLE);
        Ok(commit)
    }

    /// Deletes what was read, and gives the lease back.
    pub(super) async fn delete(&self, stored: &Stored) -> Result<Commit, Error> {
        let store = &self.inner.store;
        let commit = store
            .delete(&self.slot, &stored.witness, &self.owner)
            .await?;
        self.is(IDLE);
        Ok(commit)
    }

    /// Gives the lease back without writing.
    pub(super) async fn release(&self) {
        match self.inner.store.release(&self.slot, &self.owner).await {
            Ok(_) => self.is(IDLE),
            Err(error) => {
                tracing::debug!(target: "tower_wechat::renewal", app = %self.inner.app, %error, "a lease is released later");
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
        let left = Left {
            what: Claimed::Credential(self.slot.clone()),
            owner: self.owner.clone(),
            was_granted: state == HELD,
            lease: self.inner.settings.lease,
        };
        sync::launch_last(&self.inner.tasks, give_back(Arc::clone(&self.inner), left));
    }
}

/// What was claimed.
enum Claimed {
    Credential(Slot),
    Code(CodeName),
}

impl Claimed {
    async fn release(&self, store: &dyn Store, owner: &LeaseOwner) -> Result<bool, Error> {
        match self {
            Self::Credential(slot) => store.release(slot, owner).await,
            Self::Code(code) => store.release_code(code, owner).await,
        }
    }
}

/// A lease that nobody uses any more and that may stand in the store.
struct Left {
    what: Claimed,
    owner: LeaseOwner,
    /// Whether the store has answered the claim. If not, it may run the claim after a release.
    was_granted: bool,
    /// How long the lease lasts.
    lease: Duration,
}

/// Releases a lease. Where the claim got no answer, one release that found nothing proves nothing:
/// the claim may arrive later, on a connection that was slow or before a server that was frozen.
/// So it is released again and again, for as long as a lease lasts after the store's first answer.
async fn give_back(inner: Arc<Inner>, left: Left) {
    let mut give_up = Instant::now() + AWAY;
    let (mut rest, mut answered) = (FIRST_REST, false);
    loop {
        match left.what.release(&*inner.store, &left.owner).await {
            Ok(true) => return,
            Ok(false) if left.was_granted => return,
            Ok(false) if !answered => {
                answered = true;
                give_up = Instant::now() + left.lease;
            }
            Ok(false) | Err(_) => {}
        }
        // A shutdown waits for this task, and longer than for one try it need not.
        if Instant::now() >= give_up || inner.tasks.is_closed() {
            return;
        }
        tokio::time::sleep(rest).await;
        rest = (rest * 2).min(LONGEST_REST);
    }
}

impl Keeper {
    /// Gives back the right to exchange a code, whose claim got no answer, in a task.
    pub(crate) fn give_back_code(&self, code: CodeName, owner: LeaseOwner, lease: Duration) {
        let left = Left {
            what: Claimed::Code(code),
            owner,
            was_granted: false,
            lease,
        };
        sync::launch_last(&self.0.tasks, give_back(Arc::clone(&self.0), left));
    }
}
