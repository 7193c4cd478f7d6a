//! What the steps of one call share: the task, how it publishes its state, and how a step ends.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::call::{CallState, Wanted};
use super::entry::CacheEntry;
use super::state::ProviderState;
use crate::clock::Timestamp;
use crate::error::Error;
use crate::store::{CredentialSlot, LeaseOwner, StoredRecord};

/// R7: how long a follower rests between two requests for the lease, at first and at most.
pub(super) const MIN_POLL_INTERVAL: Duration = Duration::from_millis(20);
pub(super) const MAX_POLL_INTERVAL: Duration = Duration::from_millis(250);

pub(super) struct RenewalTask<'a> {
    pub(super) provider: &'a Arc<ProviderState>,
    pub(super) id: &'a str,
    /// Tells flights of one credential apart.
    pub(super) number: u64,
    pub(super) slot: CredentialSlot,
    /// The name under which this call takes the lease.
    pub(super) owner: LeaseOwner,
    pub(super) wanted: &'a Wanted,
    pub(super) call_state: &'a watch::Sender<CallState>,
}

/// How a renewal ended.
pub(super) enum CommitOutcome {
    Done(Result<CacheEntry, Error>),
    /// The store holds something else by now; it has to be judged anew.
    Conflict(StoredRecord),
    /// WeChat says that the refresh token is dead, and another process renews it nevertheless: it
    /// may have been granted what killed it.
    DeletionDeferred(Error),
}

impl RenewalTask<'_> {
    pub(super) fn now(&self) -> Timestamp {
        self.provider.clock.now()
    }

    /// What could be used before the wait, if it still can.
    pub(super) fn if_unexpired(&self, usable: Option<CacheEntry>) -> Option<CacheEntry> {
        usable.filter(|held| held.is_unexpired(self.now()))
    }

    /// R5: why WeChat is not asked for this credential now, if it is not.
    pub(super) fn suppressing_error(&self) -> Option<Error> {
        self.provider.failures.active_error(self.id, self.now())
    }

    pub(super) fn publish_provisional(&self, held: &CacheEntry) {
        self.set_provisional(Some(held.clone()));
    }

    /// Publishes the live token to all callers of this flight; `None` withdraws it.
    pub(super) fn set_provisional(&self, provisional: Option<CacheEntry>) {
        self.call_state
            .send_modify(|stage| stage.provisional = provisional);
    }

    /// Notes what callers are waiting for, without waking them.
    pub(super) fn set_awaits_wechat(&self, awaits_wechat: bool) {
        self.call_state.send_if_modified(|stage| {
            stage.awaits_wechat = awaits_wechat;
            false
        });
    }

    /// What somebody else has stored since, if anybody has.
    pub(super) async fn superseding(&self, stored: &StoredRecord) -> Option<StoredRecord> {
        let newer = self.provider.store.load(&self.slot).await.ok()?;
        (newer.expected != stored.expected).then_some(newer)
    }
}
