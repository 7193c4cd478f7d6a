//! Reads of the store inside a request, without a call.
//!
//! Most reads find a fresh token. They need no task and no channel, which cost several times as
//! much as the read. A call starts in two cases: another request already reads the credential, so
//! that they share one read; or a renewal or deletion is due, which must continue when the request
//! ends (nothing lost).

use super::call::Wanted;
use super::entry::CacheEntry;
use super::state::{CredentialProvider, SLOW_STORE_TIMEOUT};
use super::versions::{EntryKey, ReadSnapshot};
use crate::clock::Timestamp;
use crate::credential::RecordView;
use crate::error::Error;
use crate::store::{CredentialSlot, ReadOutcome};

/// Outcome of a read.
enum LookupOutcome {
    Ready(CacheEntry),
    /// The record must be renewed or deleted, which a call does.
    NeedsCall(ReadSnapshot),
    /// The store has not answered in time, and this cached token has not expired.
    StoreSlow(CacheEntry),
    Failed(Error),
}

impl CredentialProvider {
    /// Returns the credential from the store, and renews it if necessary.
    pub(super) async fn lookup(&self, id: Box<str>, now: Timestamp) -> Result<CacheEntry, Error> {
        let inner = &self.0;
        inner.start_background_tasks();
        let slot = inner.slot_of(id);
        let id = &*slot.key.id;
        let key = inner.cache.key(id);
        // Boxed, so that the future of a read without a call stays small.
        let Some(permit) = inner.calls.try_read_alone(key, id) else {
            return Box::pin(self.with_load_timeout(id, self.fetch(id, &Wanted::Any, None))).await;
        };
        let outcome = self.read_store(&slot, key, now).await;
        drop(permit);
        match outcome {
            LookupOutcome::Ready(held) => Ok(held),
            LookupOutcome::NeedsCall(glance) => {
                let flight = self.fetch(id, &Wanted::Any, Some(glance));
                Box::pin(self.with_load_timeout(id, flight)).await
            }
            LookupOutcome::StoreSlow(held) => {
                // This call waits for the store and caches its answer.
                drop(inner.calls.join_or_start(inner, id, &Wanted::Any, None));
                Ok(held)
            }
            LookupOutcome::Failed(error) => Err(error),
        }
    }

    async fn read_store(
        &self,
        slot: &CredentialSlot,
        key: EntryKey,
        now: Timestamp,
    ) -> LookupOutcome {
        let inner = &self.0;
        let id = &*slot.key.id;
        let unexpired = inner.cache.unexpired_at(key, id, now);
        let stamp = inner.cache.stamp_of(key);
        let timeout = unexpired
            .as_ref()
            .map_or(inner.config.load_timeout, |_| SLOW_STORE_TIMEOUT);
        let mut fresh = None;
        let mut visitor = |record: &RecordView<'_>| {
            fresh = inner.to_fresh_entry(id, record);
            fresh.is_some()
        };
        let seen = inner.store.read_with(slot, timeout, &mut visitor).await;
        let alive = || unexpired.filter(|held| held.is_unexpired(inner.clock.now()));
        match (seen, fresh) {
            (Ok(ReadOutcome::Rejected(stored)), _) => {
                LookupOutcome::NeedsCall(ReadSnapshot { stored, stamp })
            }
            (Ok(_), Some(held)) => {
                inner.cache.insert_if_unchanged(held.clone(), &stamp);
                inner.sample_metrics(&held);
                LookupOutcome::Ready(held)
            }
            (Ok(_), None) => alive().map_or_else(
                || LookupOutcome::Failed(inner.store_timeout_error()),
                LookupOutcome::StoreSlow,
            ),
            (Err(error), _) => match alive() {
                Some(held) => {
                    inner.log_store_unavailable(&error);
                    LookupOutcome::Ready(held)
                }
                None => LookupOutcome::Failed(error),
            },
        }
    }
}
