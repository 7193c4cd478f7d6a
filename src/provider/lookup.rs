//! Reads of the store inside a request, without a call (see `single_flight`).
//!
//! Most reads find a fresh token. Such a read needs no task and no channel, which would cost
//! several times as much as the read. A call starts in three cases:
//!
//! - Another request already reads the credential. The further requests then share the read of one
//!   call.
//! - The store has no fresh token. The call decides about a renewal, which must continue when the
//!   request ends (nothing lost).
//! - The store is slow, and the request is served from the cache. The call then caches the answer
//!   of the store.

use std::sync::Arc;

use super::call::Wanted;
use super::entry::CacheEntry;
use super::state::{CredentialProvider, ProviderState, SLOW_STORE_TIMEOUT};
use super::versions::{EntryKey, ReadSnapshot};
use super::{invalidation, maintenance, renewal};
use crate::clock::Timestamp;
use crate::credential::RecordView;
use crate::error::Error;
use crate::store::{CredentialSlot, ReadOutcome};

/// Outcome of a read of the store by a request.
enum LookupOutcome {
    Ready(CacheEntry),
    /// The store holds no fresh token. A call must decide about the record that was read.
    NeedsCall(ReadSnapshot),
    /// The store has not answered in time. The request receives this cached token, which has not
    /// expired.
    StoreSlow(CacheEntry),
    Failed(Error),
}

/// Maximum number of calls that one request joins or starts: three. A call that was started for
/// another need may return a token that the request has reported, or an error of the other need.
/// The request then joins or starts another call.
const MAX_CALLS_PER_REQUEST: usize = 3;

/// Starts the background tasks of an engine unless they already run. Each request that reads the
/// store calls this function, because the engine may have been created without a tokio runtime.
pub(super) fn start_background_tasks(provider: &Arc<ProviderState>) {
    invalidation::start(provider);
    maintenance::start(provider);
}

impl CredentialProvider {
    /// Returns the credential from the store, and renews it if necessary. Falls back to an
    /// unexpired token of the cache if the store is slow or unavailable (stale served).
    pub(super) async fn lookup(&self, id: Box<str>, now: Timestamp) -> Result<CacheEntry, Error> {
        let provider = &self.0;
        start_background_tasks(provider);
        let slot = provider.slot_of(id);
        let id = &*slot.key.id;
        let key = provider.cache.key(id);
        // The future of a call is boxed, so that the future of a read without a call stays small.
        let Some(permit) = provider.calls.try_read_alone(key, id) else {
            return Box::pin(self.with_load_timeout(id, self.fetch(id, &Wanted::Any, None))).await;
        };
        let outcome = self.read_store(&slot, key, now).await;
        // The permit covers only the read. If this request starts a call, other requests can join
        // the call without the permit.
        drop(permit);
        match outcome {
            LookupOutcome::Ready(entry) => Ok(entry),
            LookupOutcome::NeedsCall(snapshot) => {
                let call = self.fetch(id, &Wanted::Any, Some(snapshot));
                Box::pin(self.with_load_timeout(id, call)).await
            }
            LookupOutcome::StoreSlow(entry) => {
                // The call that is joined or started here waits for the store and caches the
                // answer.
                drop(renewal::join_or_start(provider, id, &Wanted::Any, None));
                Ok(entry)
            }
            LookupOutcome::Failed(error) => Err(error),
        }
    }

    /// Reads the store once. Waits for [`SLOW_STORE_TIMEOUT`] at most if the cache has an unexpired
    /// token, otherwise for the load timeout of the engine.
    async fn read_store(
        &self,
        slot: &CredentialSlot,
        key: EntryKey,
        now: Timestamp,
    ) -> LookupOutcome {
        let provider = &self.0;
        let id = &*slot.key.id;
        let unexpired = provider.cache.unexpired_at(key, id, now);
        // The stamp is taken before the read, because a write that is recorded after the stamp may
        // be newer than the result of the read.
        let stamp = provider.cache.stamp_of(key);
        let timeout = unexpired
            .as_ref()
            .map_or(provider.config.load_timeout, |_| SLOW_STORE_TIMEOUT);
        let mut fresh = None;
        let mut visitor = |record: &RecordView<'_>| {
            fresh = provider.to_fresh_entry(id, record);
            fresh.is_some()
        };
        let read = provider.store.read_with(slot, timeout, &mut visitor).await;
        let still_unexpired = || unexpired.filter(|entry| entry.is_unexpired(provider.clock.now()));
        match (read, fresh) {
            (Ok(ReadOutcome::Rejected(stored)), _) => {
                LookupOutcome::NeedsCall(ReadSnapshot { stored, stamp })
            }
            (Ok(_), Some(entry)) => {
                provider.cache.insert_if_unchanged(entry.clone(), &stamp);
                provider.sample_metrics(&entry);
                LookupOutcome::Ready(entry)
            }
            (Ok(_), None) => still_unexpired().map_or_else(
                || LookupOutcome::Failed(provider.store_timeout_error()),
                LookupOutcome::StoreSlow,
            ),
            (Err(error), _) => match still_unexpired() {
                Some(entry) => {
                    provider.log_store_unavailable(&error);
                    LookupOutcome::Ready(entry)
                }
                None => LookupOutcome::Failed(error),
            },
        }
    }

    /// Joins or starts calls until a call returns a token that satisfies `wanted`, three calls at
    /// most. If the first of them is started here, it uses `snapshot` instead of a read.
    pub(super) async fn fetch(
        &self,
        id: &str,
        wanted: &Wanted,
        mut snapshot: Option<ReadSnapshot>,
    ) -> Result<CacheEntry, Error> {
        start_background_tasks(&self.0);
        let mut outcome = Err(self.0.load_timeout_error());
        for _ in 0..MAX_CALLS_PER_REQUEST {
            let call = renewal::join_or_start(&self.0, id, wanted, snapshot.take());
            outcome = call.wait(wanted, &self.0.clock).await;
            match &outcome {
                // The token was usable when the call published it, but expired before this caller
                // ran.
                Ok(entry) if !entry.is_unexpired(self.0.clock.now()) => {
                    outcome = Err(self.0.load_timeout_error());
                }
                Ok(entry) if wanted.is_satisfied_by(entry.secret()) => break,
                // The call was started by a caller with another need. The token of the call may be
                // the token that this caller reported, or the error of the call may concern only
                // the other need. The loop joins or starts another call.
                _ if !call.was_started_for(wanted) => {}
                _ => break,
            }
        }
        outcome
    }

    /// Returns the result of `work`, or an error after the load timeout of this engine. The error
    /// says whether the call of this credential waits for the store or for WeChat. A call
    /// waits for the store only if the store has not responded for [`SLOW_STORE_TIMEOUT`]. Otherwise
    /// a short commit at the end of the timeout would be reported as a store that does not respond.
    pub(super) async fn with_load_timeout<T>(
        &self,
        id: &str,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let wait = self.0.config.load_timeout;
        let done = tokio::time::timeout(wait, work).await;
        done.unwrap_or_else(
            |_| match self.0.calls.has_waited_for_store(id, SLOW_STORE_TIMEOUT) {
                true => Err(self.0.store_timeout_error()),
                false => Err(self.0.load_timeout_error()),
            },
        )
    }
}
