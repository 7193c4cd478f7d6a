//! What becomes of WeChat's answer: it reaches the store, or what is stored by now counts.

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

/// R3: how long a pair that WeChat has granted is offered to a store that does not answer.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(60);

// Whoever may still commit must find the tombstone.
const _: () = assert!(COMMIT_TIMEOUT.as_secs() < MIN_TOMBSTONE_TTL.as_secs());

/// How long a process waits before it deletes a pair, for another one that may hold what WeChat has
/// granted for it: until that one's next try to commit, after a store that was away.
const SUCCESSOR_TIMEOUT: Duration = Duration::from_secs(1);

/// The pause between two looks for that.
const SUCCESSOR_POLL_INTERVAL: Duration = Duration::from_millis(50);

/// When WeChat grants what is due at once, or hands back what it refused, it is not asked again
/// for this long.
const UNCHANGED_TOKEN_SUPPRESSION: Duration = Duration::from_secs(15);

impl RenewalTask<'_> {
    /// R2 and R3: writes the new credential against what it was made from, and does not let go of
    /// it until the store has it or has something newer.
    ///
    /// `fence` was taken before WeChat was asked: what was told since may be newer than its answer,
    /// which then stays out of the cache, however often the store fails.
    pub(super) async fn commit(
        &self,
        lease: &Lease,
        stored: &StoredRecord,
        record: &Record,
        stamp: &mut VersionStamp,
    ) -> CommitOutcome {
        let inner = self.provider;
        let Some(held) = inner.to_entry(self.id, record, EntryOrigin::Renewed) else {
            let message = "WeChat's answer held no token";
            lease.release().await;
            return CommitOutcome::Done(Err(Error::new(ErrorKind::WechatUnavailable, message)));
        };
        let give_up = Instant::now() + COMMIT_TIMEOUT;
        let mut backoff = Backoff::new(MIN_POLL_INTERVAL, MAX_POLL_INTERVAL);
        let mut is_logged = false;
        loop {
            inner
                .calls
                .set_pending_version(self.id, self.number, held.version());
            match lease.commit(stored, record).await {
                Ok(CommitResult::Committed) => {
                    inner
                        .cache
                        .complete_write(self.id, Some(&held), self.now(), stamp);
                    inner.record_metrics(&held);
                    self.suppress_if_unchanged(&held);
                    return CommitOutcome::Done(Ok(held));
                }
                Ok(CommitResult::Conflict(newer)) => {
                    tracing::debug!(target: "tower_wechat::renewal", app = %inner.app, user = ?self.id, "something newer is stored; it stays");
                    inner.cache.invalidate(self.id);
                    return CommitOutcome::Conflict(newer);
                }
                // The process that holds the lease by now commits something newer, or gives up. If
                // WeChat tells it that the refresh token is dead, its announcement lets this
                // commit through.
                Ok(CommitResult::LeaseLost) => self.publish_provisional(&held),
                // No store can keep it as it is, now or later.
                Err(error) if error.kind() != ErrorKind::StoreUnavailable => {
                    lease.release().await;
                    return CommitOutcome::Done(Err(error));
                }
                Err(error) => {
                    if !std::mem::replace(&mut is_logged, true) {
                        tracing::warn!(target: "tower_wechat::renewal", app = %inner.app, user = ?self.id, %error, "the new token is not stored yet");
                    }
                    inner.cache.insert_uncommitted(&held, stamp);
                    self.publish_provisional(&held);
                }
            }
            if Instant::now() >= give_up {
                tracing::error!(
                    target: "tower_wechat::renewal",
                    app = %inner.app, user = ?self.id,
                    "a renewed token could not be stored within {COMMIT_TIMEOUT:?}; \
                     the user may have to log in again"
                );
                return CommitOutcome::Done(Ok(held));
            }
            backoff.wait().await;
        }
    }

    /// When what came is due at once, or is what was refused, asking again soon is in vain.
    fn suppress_if_unchanged(&self, entry: &CacheEntry) {
        let now = self.now();
        self.provider.failures.clear(self.id);
        if self.provider.is_due(entry, now) || !self.wanted.is_satisfied_by(entry.secret()) {
            let message = "WeChat hands out the same token again, or one that is due at once";
            self.suppress_reports(Error::new(ErrorKind::WechatUnavailable, message));
        }
    }

    /// Answers further reports with `why` for a while, without a call to WeChat.
    pub(super) fn suppress_reports(&self, error: Error) {
        let now = self.now();
        self.provider
            .failures
            .suppress(self.id, UNCHANGED_TOKEN_SUPPRESSION, error, now);
    }

    /// R5: deletes exactly the pair that is dead. If another is stored by now, that one counts.
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
                    .complete_write(self.id, None, self.now(), stamp);
                self.set_provisional(None);
                self.provider.update_cached_gauge();
                CommitOutcome::Done(Err(error))
            }
            Ok(CommitResult::Conflict(newer)) => CommitOutcome::Conflict(newer),
            Ok(CommitResult::LeaseLost) => CommitOutcome::DeletionDeferred(error),
            Err(store) => self.deletion_failed(store),
        }
    }

    /// WeChat may have killed the refresh token by granting its successor to another process, which
    /// the store has kept waiting. That process gets its chance to commit it first (R3). Returns
    /// what became of this flight if it did.
    async fn wait_for_successor_commit(
        &self,
        lease: &Lease,
        stored: &StoredRecord,
        error: &Error,
    ) -> Option<CommitOutcome> {
        // Where both tokens are void, no grant has killed the refresh token.
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

    /// Returns the store's error instead of WeChat's: whether the user has to log in is for the
    /// store to say, which may hold something newer.
    fn deletion_failed(&self, store_error: Error) -> CommitOutcome {
        tracing::warn!(target: "tower_wechat::renewal", app = %self.provider.app, user = ?self.id, error = %store_error, "a dead pair could not be deleted");
        CommitOutcome::Done(Err(store_error))
    }

    /// Whether another process may have been granted what killed this refresh token. One that has
    /// reached its own end died of that.
    fn may_have_successor(&self, record: &Record) -> bool {
        let Some(refresh) = &record.refresh else {
            return false;
        };
        // A service that writes the access token's time into both halves says nothing of this one.
        let token = record.token.as_ref();
        let is_its_own =
            token.is_none_or(|token| refresh.expected_expiry > token.lifetime.expires_at());
        !is_its_own || self.now() < refresh.expected_expiry
    }

    /// Waits for a moment until something else is stored.
    async fn wait_for_successor(&self, stored: &StoredRecord) -> Option<StoredRecord> {
        // The lease must outlast this.
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
