//! The commit of a renewal: writes the new record if the store still holds the record that was
//! renewed.
//!
//! # States of a commit
//!
//! - Writing: sends the new record to the store. The commit ends if the store accepts the record,
//!   or rejects it with an error that no retry can fix. If the store holds a newer record, the call
//!   decides again (Deciding in `renewal`).
//! - Lease lost: another process holds the lease, because this call's lease expired or was lost.
//!   The new token is published to the callers but not cached. Leads to Writing after a wait. If
//!   the other process has committed by then, the next write is a conflict. If it has written a
//!   tombstone, the store accepts the next write.
//! - Store unavailable: the new token is published to the callers and cached. Leads to Writing
//!   after a wait.
//!
//! After `COMMIT_TIMEOUT` the commit ends, and the call returns the new token without storing it.

use std::time::Duration;

use tokio::time::Instant;

use super::entry::{CacheEntry, EntryOrigin};
use super::lease::Lease;
use super::task::{CommitOutcome, MAX_POLL_INTERVAL, MIN_POLL_INTERVAL, RenewalTask};
use super::versions::VersionStamp;
use crate::backoff::Backoff;
use crate::credential::Record;
use crate::error::{Error, ErrorKind};
use crate::store::{CommitResult, MIN_TOMBSTONE_TTL, StoredRecord};

/// Maximum time for which the commit of a granted record is retried (nothing lost): one minute.
/// Retries follow while the store is unavailable or another process holds the lease. A tombstone
/// must exist for longer than this time.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(60);

// A process that retries a commit must still find the tombstone of the pair that the commit
// replaces.
const _: () = assert!(COMMIT_TIMEOUT.as_secs() < MIN_TOMBSTONE_TTL.as_secs());

impl RenewalTask<'_> {
    /// Writes the new credential if the store still holds `stored`, from which the renewal started
    /// (newest wins). Retries for up to [`COMMIT_TIMEOUT`] until the store accepts `record` or
    /// holds a newer one (nothing lost).
    ///
    /// `stamp` was taken before the call to WeChat. If the cache has recorded another write since
    /// the stamp, the new token is not cached, because the other write may be newer.
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
                    tracing::debug!(target: "tower_wechat::renewal", app = %provider.app, user = ?self.call.id, "a renewed token was discarded; the store holds a newer one");
                    provider.cache.invalidate(&self.call.id);
                    return CommitOutcome::Conflict(newer);
                }
                // Another process holds the lease, because this call's lease expired or was lost.
                // If the other process commits a newer record, the next try conflicts. If WeChat
                // rejects the refresh token for the other process, that process writes a tombstone,
                // and the store accepts the next try.
                Ok(CommitResult::LeaseLost) => self.call.publish_provisional(&entry),
                // A retry does not help, because the store cannot store this record.
                Err(error) if error.kind() != ErrorKind::StoreUnavailable => {
                    lease.release().await;
                    return CommitOutcome::Done(Err(error));
                }
                Err(error) => {
                    if !std::mem::replace(&mut is_logged, true) {
                        tracing::warn!(target: "tower_wechat::renewal", app = %provider.app, user = ?self.call.id, %error, "the write of a renewed token failed; it is retried");
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

    /// Clears the failures of the credential after a commit. Suppresses further renewals for 15
    /// seconds if the new token is due for renewal at once or is the token that a caller reported.
    fn suppress_if_unchanged(&self, entry: &CacheEntry) {
        let now = self.now();
        self.provider.failures.clear(&self.call.id);
        if self.provider.is_due(entry, now) || !self.call.wanted.is_satisfied_by(entry.secret()) {
            let message = "WeChat hands out the same token again, or one that is due at once";
            self.suppress_renewals(Error::new(ErrorKind::WechatUnavailable, message));
        }
    }
}
