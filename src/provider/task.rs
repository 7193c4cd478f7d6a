//! Types and functions that the steps of one call share: the renewal task, its outcome, the
//! intervals between tries, and the suppression of renewals.

use std::sync::Arc;
use std::time::Duration;

use super::call::CallTask;
use super::entry::CacheEntry;
use super::state::ProviderState;
use crate::clock::Timestamp;
use crate::error::Error;
use crate::store::{CredentialSlot, LeaseOwner, StoredRecord};

/// First and largest interval between two tries of a follower to acquire the lease: 20 and 250
/// milliseconds (followers bounded). A failed commit is retried at these intervals too, and the
/// release of an abandoned lease begins with the first one.
pub(super) const MIN_POLL_INTERVAL: Duration = Duration::from_millis(20);
pub(super) const MAX_POLL_INTERVAL: Duration = Duration::from_millis(250);

/// Time for which calls to WeChat for a credential are suppressed when another call would have the
/// same result: 15 seconds. The suppression begins after WeChat returned a token that is due at
/// once, or the reported token. It also begins after WeChat rejected the refresh token of a pair
/// that stays stored.
const UNCHANGED_TOKEN_SUPPRESSION: Duration = Duration::from_secs(15);

/// A call that may renew its credential, with the engine, the slot and the owner name that its
/// steps need.
pub(super) struct RenewalTask<'a> {
    pub(super) provider: &'a Arc<ProviderState>,
    pub(super) call: &'a CallTask,
    pub(super) slot: CredentialSlot,
    /// The owner name under which this call acquires the lease. No other call uses this name.
    pub(super) owner: LeaseOwner,
}

/// Outcome of a renewal after its commit, its deletion or its failure.
pub(super) enum CommitOutcome {
    Done(Result<CacheEntry, Error>),
    /// The store holds this newer record. The call decides again from the newer record.
    Conflict(StoredRecord),
    /// WeChat rejected the refresh token, but another process holds the lease and may have received
    /// the successor of the refresh token. The call tries the deletion again when it can acquire
    /// the lease.
    DeletionDeferred(Error),
}

impl RenewalTask<'_> {
    pub(super) fn now(&self) -> Timestamp {
        self.provider.clock.now()
    }

    /// Returns the entry if there is one and its token has not expired by now.
    pub(super) fn if_unexpired(&self, usable: Option<CacheEntry>) -> Option<CacheEntry> {
        usable.filter(|entry| entry.is_unexpired(self.now()))
    }

    /// Returns the error of the current back-off or of the open circuit (failures sorted). Returns
    /// `None` if the call may call WeChat.
    pub(super) fn suppressing_error(&self) -> Option<Error> {
        self.provider
            .failures
            .active_error(&self.call.id, self.now())
    }

    /// Suppresses further renewals of this credential for [`UNCHANGED_TOKEN_SUPPRESSION`]. A
    /// suppressed renewal fails with `error`, without a call to WeChat.
    pub(super) fn suppress_renewals(&self, error: Error) {
        let now = self.now();
        self.provider
            .failures
            .suppress(&self.call.id, UNCHANGED_TOKEN_SUPPRESSION, error, now);
    }

    /// Reads the store and returns its record if the record differs from `stored`. Returns `None`
    /// if the record is unchanged or the read fails.
    pub(super) async fn superseding(&self, stored: &StoredRecord) -> Option<StoredRecord> {
        let newer = self.provider.store.load(&self.slot).await.ok()?;
        (newer.expected != stored.expected).then_some(newer)
    }
}
