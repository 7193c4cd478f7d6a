//! The deletion of a pair whose refresh token WeChat rejected.
//!
//! # States of a deletion
//!
//! - Announced: another process may hold the successor of the pair. With a tombstone in the store,
//!   that process can commit the successor without the lease. The deletion waits up to a second for
//!   the commit. Leads to Kept or Deleting, or ends if the store holds a newer record.
//! - Kept: after a report, a pair whose access token is still fresh stays stored. Ends.
//! - Deleting: deletes the record, compared with the one that was renewed. If the store holds a
//!   newer record, the call decides about that one. If another process holds the lease, the
//!   deletion is deferred.

use std::time::Duration;

use tokio::time::Instant;

use super::lease::Lease;
use super::task::{CommitOutcome, RenewalTask};
use super::versions::VersionStamp;
use crate::credential::{Record, Token};
use crate::error::Error;
use crate::store::{CommitResult, LeaseResult, StoredRecord};

/// Time that a process waits before it deletes a pair: one second. Another process that holds the
/// successor commits it in this time, because the wait between two of its tries is shorter.
const SUCCESSOR_TIMEOUT: Duration = Duration::from_secs(1);

/// Interval between two reads of the store during [`SUCCESSOR_TIMEOUT`]: 50 milliseconds, so that a
/// commit of the successor soon ends the wait.
const SUCCESSOR_POLL_INTERVAL: Duration = Duration::from_millis(50);

impl RenewalTask<'_> {
    /// Deletes exactly the pair that WeChat rejected (failures sorted). If the store holds another
    /// pair, the call decides about that one.
    pub(super) async fn delete(
        &self,
        lease: &Lease,
        stored: &StoredRecord,
        error: Error,
        stamp: &VersionStamp,
    ) -> CommitOutcome {
        if let Some(newer) = self.wait_for_successor_commit(lease, stored, &error).await {
            return newer;
        }
        if self.is_fresh_for_others(stored, &error) {
            lease.release().await;
            self.suppress_renewals(error.clone());
            return CommitOutcome::Done(Err(error));
        }
        match lease.delete(stored).await {
            Ok(CommitResult::Committed) => {
                self.provider
                    .cache
                    .complete_write(&self.call.id, None, self.now(), stamp);
                self.call.set_provisional(None);
                self.provider.update_cached_gauge();
                CommitOutcome::Done(Err(error))
            }
            Ok(CommitResult::Conflict(newer)) => CommitOutcome::Conflict(newer),
            Ok(CommitResult::LeaseLost) => CommitOutcome::DeletionDeferred(error),
            Err(store) => self.deletion_failed(store),
        }
    }

    /// Waits for another process that may hold the successor of the rejected refresh token, so that
    /// it can commit first (nothing lost). WeChat revokes a refresh token when it grants its
    /// successor. Returns the outcome of this step if the deletion must not follow.
    async fn wait_for_successor_commit(
        &self,
        lease: &Lease,
        stored: &StoredRecord,
        error: &Error,
    ) -> Option<CommitOutcome> {
        // The user or WeChat revoked both tokens. The refresh token is therefore not invalid
        // because of a successor.
        let is_revoked = self.provider.source.invalidates_access_token(error);
        if is_revoked || !self.may_have_successor(&stored.record) {
            return None;
        }
        let newer = match lease.write_tombstone(stored).await {
            Ok(LeaseResult::Acquired) => self.wait_for_successor(stored).await?,
            Ok(LeaseResult::Conflict(newer)) => newer,
            Ok(LeaseResult::Busy) => return Some(CommitOutcome::DeletionDeferred(error.clone())),
            Err(store) => return Some(self.deletion_failed(store)),
        };
        lease.release().await;
        Some(CommitOutcome::Conflict(newer))
    }

    /// Returns the store's error instead of WeChat's: the store may hold a newer record, so it is
    /// unknown whether the user has to log in.
    fn deletion_failed(&self, store_error: Error) -> CommitOutcome {
        tracing::warn!(target: "tower_wechat::renewal", app = %self.provider.app, user = ?self.call.id, error = %store_error, "a pair with a rejected refresh token could not be deleted; the next request retries");
        CommitOutcome::Done(Err(store_error))
    }

    /// Returns `true` if another process may have been granted the successor of this refresh token.
    /// `false` if the refresh token had reached its own expiry.
    fn may_have_successor(&self, record: &Record) -> bool {
        let Some(refresh) = &record.refresh else {
            return false;
        };
        // Some services store the access token's expiry beside the refresh token too. Such a time
        // says nothing about the refresh token.
        let token = record.token.as_ref();
        let is_its_own =
            token.is_none_or(|token| refresh.expected_expiry > token.lifetime.expires_at());
        !is_its_own || self.now() < refresh.expected_expiry
    }

    /// Polls the store until it holds another record, for a moment at most.
    async fn wait_for_successor(&self, stored: &StoredRecord) -> Option<StoredRecord> {
        // Shorter than the lease, which this process holds during the wait.
        let timeout = SUCCESSOR_TIMEOUT.min(self.provider.config.renewal_timeout);
        let give_up = Instant::now() + timeout;
        while Instant::now() < give_up {
            tokio::time::sleep(SUCCESSOR_POLL_INTERVAL).await;
            if let Some(newer) = self.superseding(stored).await {
                return Some(newer);
            }
        }
        None
    }

    /// Returns `true` if the refresh token was used only because of a report and the stored access
    /// token is still fresh. The pair then stays stored until the access token is due. The caller
    /// that reported the token has to log the user in; other callers keep using the token. `false`
    /// if WeChat has revoked the access token too.
    fn is_fresh_for_others(&self, stored: &StoredRecord, error: &Error) -> bool {
        let fresh = |token: &Token| self.now() < token.lifetime.renew_at();
        self.call.wanted.replaced_token().is_some()
            && stored.record.token.as_ref().is_some_and(fresh)
            && !self.provider.source.invalidates_access_token(error)
    }
}
