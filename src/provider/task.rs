//! Types and functions that the steps of one call share: the task, and the outcome of a step.

use std::sync::Arc;
use std::time::Duration;

use super::call::CallTask;
use super::entry::CacheEntry;
use super::state::ProviderState;
use crate::clock::Timestamp;
use crate::error::Error;
use crate::store::{CredentialSlot, LeaseOwner, StoredRecord};

/// First and largest interval between two tries of a follower to acquire the lease: 20 and 250
/// milliseconds (followers bounded). Commits that failed are retried at the same intervals.
pub(super) const MIN_POLL_INTERVAL: Duration = Duration::from_millis(20);
pub(super) const MAX_POLL_INTERVAL: Duration = Duration::from_millis(250);

/// Time for which calls to WeChat are suppressed after it returned a token that is due at once, or
/// the reported token: 15 seconds. Another call would return the same token.
const UNCHANGED_TOKEN_SUPPRESSION: Duration = Duration::from_secs(15);

/// Call that may renew its credential, with what its steps need.
pub(super) struct RenewalTask<'a> {
    pub(super) provider: &'a Arc<ProviderState>,
    pub(super) call: &'a CallTask,
    pub(super) slot: CredentialSlot,
    /// The name under which this call takes the lease.
    pub(super) owner: LeaseOwner,
}

/// Outcome of a renewal.
pub(super) enum CommitOutcome {
    Done(Result<CacheEntry, Error>),
    /// The store holds a newer record. The call decides again from that record.
    Conflict(StoredRecord),
    /// WeChat rejected the refresh token, but another process holds the lease and may have received
    /// the successor of the refresh token. The deletion is retried.
    DeletionDeferred(Error),
}

impl RenewalTask<'_> {
    pub(super) fn now(&self) -> Timestamp {
        self.provider.clock.now()
    }

    /// Returns the usable token if it has not expired while the call waited.
    pub(super) fn if_unexpired(&self, usable: Option<CacheEntry>) -> Option<CacheEntry> {
        usable.filter(|entry| entry.is_unexpired(self.now()))
    }

    /// Returns the error of a current back-off or open circuit. `None` if WeChat may be called
    /// (failures sorted).
    pub(super) fn suppressing_error(&self) -> Option<Error> {
        self.provider
            .failures
            .active_error(&self.call.id, self.now())
    }

    /// Suppresses further renewals of this credential for [`UNCHANGED_TOKEN_SUPPRESSION`]. They
    /// fail with `error`, without a call to WeChat.
    pub(super) fn suppress_renewals(&self, error: Error) {
        let now = self.now();
        self.provider
            .failures
            .suppress(&self.call.id, UNCHANGED_TOKEN_SUPPRESSION, error, now);
    }

    /// Reads the store and returns its record if it differs from `stored`.
    pub(super) async fn superseding(&self, stored: &StoredRecord) -> Option<StoredRecord> {
        let newer = self.provider.store.load(&self.slot).await.ok()?;
        (newer.expected != stored.expected).then_some(newer)
    }
}
