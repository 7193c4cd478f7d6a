//! Commits and deletions: the end of a renewal, compared with the record that it started from.
//!
//! # States of a commit
//!
//! - Writing: offers the new record to the store. Ends if the store accepts it; leads to Deciding
//!   if the store holds a newer record; ends with an error that no retry can fix.
//! - Lease lost: another process holds the lease now. The new token is published but not cached.
//!   Leads to Writing after a wait: the other process commits, which makes the next write a
//!   conflict, or writes a tombstone, which admits this commit.
//! - Store unavailable: the new token is published and cached. Leads to Writing after a wait, for
//!   `COMMIT_TIMEOUT` at most.
//!
//! # States of a deletion
//!
//! - Announced: a tombstone admits the commit of a process that may hold the successor of the pair.
//!   The deletion waits for it for a moment.
//! - Kept: after a report, a pair whose access token is still fresh stays stored.
//! - Deleted, or replaced by a newer record, which the call decides about.

use std::time::Duration;

use tokio::time::Instant;

use super::entry::{CacheEntry, EntryOrigin};
use super::lease::Lease;
use super::task::{CommitOutcome, MAX_POLL_INTERVAL, MIN_POLL_INTERVAL, RenewalTask};
use super::versions::VersionStamp;
use crate::backoff::Backoff;
use crate::credential::Record;
use crate::error::{Error, ErrorKind};
use crate::store::{CommitResult, LeaseResult, MIN_TOMBSTONE_TTL, StoredRecord};

/// Maximum time for which a granted pair is offered to a store that does not answer (nothing lost).
const COMMIT_TIMEOUT: Duration = Duration::from_secs(60);

// A process that may still commit must find the tombstone.
const _: () = assert!(COMMIT_TIMEOUT.as_secs() < MIN_TOMBSTONE_TTL.as_secs());

/// Time that a process waits before it deletes a pair. Another process that holds the successor
/// commits it in this time, because its retries are closer together.
const SUCCESSOR_TIMEOUT: Duration = Duration::from_secs(1);

/// Interval between two reads of the store during that wait.
const SUCCESSOR_POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Time without calls to WeChat after it granted a token that is due at once, or returned the
/// reported token.
const UNCHANGED_TOKEN_SUPPRESSION: Duration = Duration::from_secs(15);

impl RenewalTask<'_> {
    /// Writes the new credential if the store still holds the record it was made from (newest
    /// wins). Retries until the store has accepted it or holds a newer record (nothing lost).
    ///
    /// `stamp` was taken before the call to WeChat. If anything was recorded since, the new token
    /// is not cached, because what was recorded may be newer.
    pub(super) async fn commit(
        &self,
        lease: &Lease,
        stored: &StoredRecord,
        record: &Record,
        stamp: &mut VersionStamp,
    ) -> CommitOutcome {
        let provider = self.provider;
        let Some(entry) = provider.to_entry(&self.call.id, record, EntryOrigin::Renewed) else {
            let message = "WeChat's answer held no token";
            lease.release().await;
            return CommitOutcome::Done(Err(Error::new(ErrorKind::WechatUnavailable, message)));
        };
        let give_up = Instant::now() + COMMIT_TIMEOUT;
        let mut backoff = Backoff::new(MIN_POLL_INTERVAL, MAX_POLL_INTERVAL);
        let mut is_logged = false;
        loop {
            provider
                .calls
                .set_pending_version(&self.call.id, self.call.number, entry.version());
            match lease.commit(stored, record).await {
                Ok(CommitResult::Committed) => {
                    provider
                        .cache
                        .complete_write(&self.call.id, Some(&entry), self.now(), stamp);
                    provider.record_metrics(&entry);
                    self.suppress_if_unchanged(&entry);
                    return CommitOutcome::Done(Ok(entry));
                }
                Ok(CommitResult::Conflict(newer)) => {
                    tracing::debug!(target: "tower_wechat::renewal", app = %provider.app, user = ?self.call.id, "something newer is stored; it stays");
                    provider.cache.invalidate(&self.call.id);
                    return CommitOutcome::Conflict(newer);
                }
                // The process that holds the lease now commits a newer record or fails. If WeChat
                // rejects its refresh token, its tombstone admits this commit.
                Ok(CommitResult::LeaseLost) => self.call.publish_provisional(&entry),
                // No retry helps: the store cannot store this record.
                Err(error) if error.kind() != ErrorKind::StoreUnavailable => {
                    lease.release().await;
                    return CommitOutcome::Done(Err(error));
                }
                Err(error) => {
                    if !std::mem::replace(&mut is_logged, true) {
                        tracing::warn!(target: "tower_wechat::renewal", app = %provider.app, user = ?self.call.id, %error, "the new token is not stored yet");
                    }
                    provider.cache.insert_uncommitted(&entry, stamp);
                    self.call.publish_provisional(&entry);
                }
            }
            if Instant::now() >= give_up {
                tracing::error!(
                    target: "tower_wechat::renewal",
                    app = %provider.app, user = ?self.call.id,
                    "a renewed token could not be stored within {COMMIT_TIMEOUT:?}; \
                     the user may have to log in again"
                );
                return CommitOutcome::Done(Ok(entry));
            }
            backoff.wait().await;
        }
    }

    /// Suppresses further renewals for a while if the new token is due at once or is the reported
    /// one.
    fn suppress_if_unchanged(&self, entry: &CacheEntry) {
        let now = self.now();
        self.provider.failures.clear(&self.call.id);
        if self.provider.is_due(entry, now) || !self.call.wanted.is_satisfied_by(entry.secret()) {
            let message = "WeChat hands out the same token again, or one that is due at once";
            self.suppress_reports(Error::new(ErrorKind::WechatUnavailable, message));
        }
    }

    /// Answers further renewals of this credential with `error` for a while, without a call to
    /// WeChat.
    pub(super) fn suppress_reports(&self, error: Error) {
        let now = self.now();
        self.provider
            .failures
            .suppress(&self.call.id, UNCHANGED_TOKEN_SUPPRESSION, error, now);
    }

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
            self.suppress_reports(error.clone());
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
        // The user or WeChat revoked both tokens, so no grant did.
        let void = self.provider.source.invalidates_access_token(error);
        if void || !self.may_have_successor(&stored.record) {
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
        tracing::warn!(target: "tower_wechat::renewal", app = %self.provider.app, user = ?self.call.id, error = %store_error, "a dead pair could not be deleted");
        CommitOutcome::Done(Err(store_error))
    }

    /// Returns `true` if another process may have been granted the successor of this refresh token.
    /// `false` if the refresh token had reached its own expiry.
    fn may_have_successor(&self, record: &Record) -> bool {
        let Some(refresh) = &record.refresh else {
            return false;
        };
        // Some writers store the access token's expiry in both halves; it says nothing about this
        // refresh token.
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
}
