//! The deletion of a pair whose refresh token WeChat rejected.
//!
//! # States of a deletion
//!
//! - Announced: another process may hold the successor of the pair. With a tombstone in the store,
//!   that process can commit the successor without the lease. The deletion waits up to a second for
//!   the commit. Leads to Kept or Deleting, or ends if the store holds a newer record. The deletion
//!   skips this state if no other process can hold a successor.
//! - Kept: if a report caused the renewal and the access token is still fresh, the pair stays
//!   stored and the deletion ends.
//! - Deleting: deletes the record if the store still holds the record whose refresh token WeChat
//!   rejected. If the store holds a newer record, the call decides about the newer record. If
//!   another process holds the lease, the deletion is deferred.

use std::time::Duration;

use tokio::time::Instant;

use super::lease::Lease;
use super::task::{CommitOutcome, RenewalTask};
use super::versions::VersionStamp;
use crate::credential::{Record, Token};
use crate::error::Error;
use crate::store::{CommitResult, LeaseResult, StoredRecord};

/// Time that a process waits before it deletes a pair: one second. Another process that holds the
/// successor of the pair can commit it in this time, because it waits at most 250 milliseconds
/// between two tries.
const SUCCESSOR_TIMEOUT: Duration = Duration::from_secs(1);

/// Interval between two reads of the store during [`SUCCESSOR_TIMEOUT`]: 50 milliseconds, so that a
/// commit of the successor soon ends the wait.
const SUCCESSOR_POLL_INTERVAL: Duration = Duration::from_millis(50);

impl RenewalTask<'_> {
    /// Deletes exactly the pair whose refresh token WeChat rejected (failures sorted). If the store
    /// holds another pair, deletes nothing and returns that pair as a conflict.
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

    /// Gives another process that may hold the successor of the rejected refresh token time to
    /// commit the successor (nothing lost). WeChat revokes a refresh token when it grants the
    /// successor. Returns `None` if the deletion may follow, otherwise the outcome of the renewal.
    async fn wait_for_successor_commit(
        &self,
        lease: &Lease,
        stored: &StoredRecord,
        error: &Error,
    ) -> Option<CommitOutcome> {
        // If the access token is revoked too, the user or WeChat revoked the pair. The refresh
        // token is then not invalid because of a successor.
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

    /// Logs a failed deletion and returns the store's error instead of WeChat's error. The store
    /// may hold a newer record, so it is unknown whether the user has to log in.
    fn deletion_failed(&self, store_error: Error) -> CommitOutcome {
        tracing::warn!(target: "tower_wechat::renewal", app = %self.provider.app, user = ?self.call.id, error = %store_error, "a pair with a rejected refresh token could not be deleted; the next request retries");
        CommitOutcome::Done(Err(store_error))
    }

    /// Returns `true` if WeChat may have granted another process the successor of this refresh
    /// token. Returns `false` if the record has no refresh token, or if the refresh token has
    /// reached its own expected expiry.
    fn may_have_successor(&self, record: &Record) -> bool {
        let Some(refresh) = &record.refresh else {
            return false;
        };
        // Some services store the access token's time as the expiry of the refresh token. Such a
        // time says nothing about the refresh token.
        let token = record.token.as_ref();
        let is_its_own =
            token.is_none_or(|token| refresh.expected_expiry > token.lifetime.expires_at());
        !is_its_own || self.now() < refresh.expected_expiry
    }

    /// Polls the store until it holds another record than `stored`, for [`SUCCESSOR_TIMEOUT`] at
    /// most. Returns the other record.
    async fn wait_for_successor(&self, stored: &StoredRecord) -> Option<StoredRecord> {
        // The timeout is shorter than the lease, which this process holds during the wait.
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
    /// token is still fresh. The pair then stays stored until the access token is due, and other
    /// callers keep using the token. Only the caller that reported the token has to log the user
    /// in. Returns `false` if WeChat has revoked the access token too.
    fn is_fresh_for_others(&self, stored: &StoredRecord, error: &Error) -> bool {
        let fresh = |token: &Token| self.now() < token.lifetime.renew_at();
        self.call.wanted.replaced_token().is_some()
            && stored.record.token.as_ref().is_some_and(fresh)
            && !self.provider.source.invalidates_access_token(error)
    }
}
