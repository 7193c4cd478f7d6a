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
        let provider = &self.0;
        provider.start_background_tasks();
        let slot = provider.slot_of(id);
        let id = &*slot.key.id;
        let key = provider.cache.key(id);
        // Boxed, so that the future of a read without a call stays small.
        let Some(permit) = provider.calls.try_read_alone(key, id) else {
            return Box::pin(self.with_load_timeout(id, self.fetch(id, &Wanted::Any, None))).await;
        };
        let outcome = self.read_store(&slot, key, now).await;
        drop(permit);
        match outcome {
            LookupOutcome::Ready(entry) => Ok(entry),
            LookupOutcome::NeedsCall(snapshot) => {
                let call = self.fetch(id, &Wanted::Any, Some(snapshot));
                Box::pin(self.with_load_timeout(id, call)).await
            }
            LookupOutcome::StoreSlow(entry) => {
                // This call waits for the store and caches its answer.
                drop(
                    provider
                        .calls
                        .join_or_start(provider, id, &Wanted::Any, None),
                );
                Ok(entry)
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
        let provider = &self.0;
        let id = &*slot.key.id;
        let unexpired = provider.cache.unexpired_at(key, id, now);
        let stamp = provider.cache.stamp_of(key);
        let timeout = unexpired
            .as_ref()
            .map_or(provider.config.load_timeout, |_| SLOW_STORE_TIMEOUT);
        let mut fresh = None;
        let mut visitor = |record: &RecordView<'_>| {
            fresh = provider.to_fresh_entry(id, record);
            fresh.is_some()
        };
        let seen = provider.store.read_with(slot, timeout, &mut visitor).await;
        let alive = || unexpired.filter(|entry| entry.is_unexpired(provider.clock.now()));
        match (seen, fresh) {
            (Ok(ReadOutcome::Rejected(stored)), _) => {
                LookupOutcome::NeedsCall(ReadSnapshot { stored, stamp })
            }
            (Ok(_), Some(entry)) => {
                provider.cache.insert_if_unchanged(entry.clone(), &stamp);
                provider.sample_metrics(&entry);
                LookupOutcome::Ready(entry)
            }
            (Ok(_), None) => alive().map_or_else(
                || LookupOutcome::Failed(provider.store_timeout_error()),
                LookupOutcome::StoreSlow,
            ),
            (Err(error), _) => match alive() {
                Some(entry) => {
                    provider.log_store_unavailable(&error);
                    LookupOutcome::Ready(entry)
                }
                None => LookupOutcome::Failed(error),
            },
        }
    }
}
