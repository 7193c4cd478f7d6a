//! The steps of a call: reads the store, decides, and renews a credential that is due, under a
//! lease.
//!
//! # States of a call
//!
//! - Loading: reads the store. If the store is slow or unavailable, the unexpired cached token is
//!   published (stale served). Leads to Deciding if the store answers. Otherwise the call ends with
//!   the cached token or with the store's error.
//! - Deciding: compares the stored record with the need of the call. The call ends if the record
//!   satisfies this need, if the record cannot be renewed, or if renewals are suppressed. Otherwise
//!   leads to Waiting.
//! - Waiting: waits for a permit of this process, then tries to acquire the lease. If the record
//!   has changed, leads to Deciding. If another process holds the lease, a call with a usable token
//!   ends, and a call without a usable token polls the lease (followers bounded).
//! - Renewing (`retry`): holds the lease and calls WeChat, with retries. Leads to Committing, to
//!   Deleting if the refresh token is revoked or expired, or ends with the error.
//! - Committing (`commit`) and Deleting (`deletion`): write the result if the store still holds the
//!   record that was renewed. If the store holds a newer record, they lead to Deciding.
//!
//! A call starts no renewal later than the sum of the lease duration, the renewal timeout and one
//! second after its start. This time is enough for the lease of a crashed process to expire and for
//! one renewal.

use std::sync::Arc;

use tokio::sync::SemaphorePermit;
use tokio::time::Instant;
use tracing::Instrument;

use super::call::{CallTask, Wanted};
use super::entry::CacheEntry;
use super::entry::EntryOrigin;
use super::freshness::STALE_RECHECK_INTERVAL;
use super::lease::Lease;
use super::single_flight::Call;
use super::state::{ProviderState, SLOW_STORE_TIMEOUT};
use super::task::{CommitOutcome, MAX_POLL_INTERVAL, MIN_POLL_INTERVAL, RenewalTask};
use super::versions::{ReadSnapshot, VersionStamp};
use crate::backoff::Backoff;
use crate::clock::deadline_in;
use crate::credential::Record;
use crate::error::Error;
use crate::store::{CredentialWriter, LeaseOwner, LeaseResult, StoredRecord};

/// Joins the running call for a credential, or starts a call. A call that starts uses `snapshot`,
/// if there is one, instead of its first read of the store.
pub(super) fn join_or_start(
    provider: &Arc<ProviderState>,
    id: &str,
    wanted: &Wanted,
    snapshot: Option<ReadSnapshot>,
) -> Call {
    provider
        .calls
        .join_or_start(&provider.tasks, id, wanted, |call| {
            // A snapshot from before a login must not be served to callers that join after the
            // login. The single flight holds the lock of its table during this comparison. A login
            // that changes the cache after the comparison finds the call in the table and detaches
            // the call.
            let snapshot = snapshot.filter(|snapshot| provider.cache.is_unchanged(&snapshot.stamp));
            // Each call has its own owner name, so that a detached call cannot release the lease of
            // the next call.
            let owner = provider.lease_owner.with_number(call.number);
            let provider = Arc::clone(provider);
            async move { run(&provider, &call, owner, snapshot).await }
        })
}

/// Runs a call until it has a result: reads the store unless there is a snapshot, then decides and
/// renews.
async fn run(
    provider: &Arc<ProviderState>,
    call: &CallTask,
    owner: LeaseOwner,
    snapshot: Option<ReadSnapshot>,
) -> Result<CacheEntry, Error> {
    let (stored, stamp) = match snapshot {
        Some(ReadSnapshot { stored, stamp }) => (Some(stored), stamp),
        None => (None, provider.cache.stamp(&call.id)),
    };
    let task = RenewalTask {
        provider,
        call,
        slot: provider.slot(&call.id),
        owner,
    };
    let loaded = match stored {
        Some(stored) => LoadOutcome::FromStore(stored),
        None => task.load().await?,
    };
    match loaded {
        LoadOutcome::FromStore(stored) => task.resolve(stored, stamp).await,
        LoadOutcome::StoreUnavailable(entry) => Ok(entry),
    }
}

enum LoadOutcome {
    FromStore(StoredRecord),
    /// The store failed. The call ends with this cached token, which has not expired.
    StoreUnavailable(CacheEntry),
}

/// The permits of a renewal. The second permit is for the renewal of an unexpired token, for which
/// no request waits.
type RenewalPermit<'a> = (SemaphorePermit<'a>, Option<SemaphorePermit<'a>>);

/// What a call does about the stored record: it ends, or it renews the record.
enum Decision<'a> {
    Return(Result<CacheEntry, Error>),
    /// The call renews the record and writes the result to this store. If there is an entry,
    /// callers use its token during the renewal.
    Renew(Option<CacheEntry>, &'a Arc<dyn CredentialWriter>),
}

impl<'a> RenewalTask<'a> {
    /// Reads the store. If the store is slow or fails, callers receive the cached token if it has
    /// not expired (stale served). A slow read continues meanwhile.
    async fn load(&self) -> Result<LoadOutcome, Error> {
        let unexpired = self.provider.cache.unexpired(&self.call.id, self.now());
        let mut load = self.provider.store.load(&self.slot);
        let loaded = match &unexpired {
            None => load.await,
            Some(entry) => match tokio::time::timeout(SLOW_STORE_TIMEOUT, &mut load).await {
                Ok(loaded) => loaded,
                Err(_) => {
                    self.call.publish_provisional(entry);
                    load.await
                }
            },
        };
        let error = match loaded {
            Ok(stored) => return Ok(LoadOutcome::FromStore(stored)),
            Err(error) => error,
        };
        // Callers that did not report the cached token receive it. A caller that reported the
        // cached token receives the store's error.
        let unexpired = self.if_unexpired(unexpired);
        self.call.set_provisional(unexpired.clone());
        match unexpired.filter(|entry| self.call.wanted.is_satisfied_by(entry.secret())) {
            Some(entry) => {
                self.provider.log_store_unavailable(&error);
                Ok(LoadOutcome::StoreUnavailable(entry))
            }
            None => Err(error),
        }
    }

    /// Decides about the stored record, renews it and commits the result, in a loop until the call
    /// ends. Returns a token that satisfies the need of the call, or an error.
    async fn resolve(
        &self,
        mut stored: StoredRecord,
        mut stamp: VersionStamp,
    ) -> Result<CacheEntry, Error> {
        let config = &self.provider.config;
        let give_up =
            deadline_in(config.lease_duration + config.renewal_timeout + STALE_RECHECK_INTERVAL);
        let mut backoff = Backoff::new(MIN_POLL_INTERVAL, MAX_POLL_INTERVAL);
        // The error with which WeChat rejected the refresh token. It is set while the deletion
        // waits for the lease of another process.
        let mut grant_error = None;
        // `true` while another process renews. Such a call counts as waiting for WeChat, although
        // it polls the lease in the store.
        let mut is_follower = false;
        // `lease` is declared before the permits, so that it is dropped after the permits. If the
        // call still holds the lease, the drop spawns a task that releases it.
        let mut lease = None;
        loop {
            let (usable, writer) = match self.decide(&stored.record, &stamp) {
                Decision::Return(outcome) => return outcome,
                Decision::Renew(usable, writer) => (usable, writer),
            };
            self.call.set_awaits_wechat(true);
            let Some(permit) = self.acquire_permit(usable.as_ref(), give_up).await else {
                return usable.ok_or_else(|| self.provider.load_timeout_error());
            };
            self.call.set_awaits_wechat(is_follower);
            // While this call waited for a permit, another call may have failed and suppressed
            // further calls.
            if let Some(error) = self.suppressing_error() {
                return usable.ok_or(error);
            }
            // The stamp is taken before the call to WeChat, because an invalidation that arrives
            // after the stamp may be newer than the response.
            let mut before = self.provider.cache.stamp(&self.call.id);
            let lease = lease.get_or_insert_with(|| {
                Lease::new(self.provider, writer, self.slot.clone(), self.owner.clone())
            });
            match lease.acquire(&stored).await {
                Ok(LeaseResult::Acquired) => {
                    let after = match grant_error.take() {
                        None => {
                            let renewal = self.renew(lease, &stored, usable, &mut before);
                            renewal.instrument(self.renewal_span()).await
                        }
                        Some(error) => self.delete(lease, &stored, error, &before).await,
                    };
                    match after {
                        CommitOutcome::Done(outcome) => return outcome,
                        CommitOutcome::Conflict(newer) => (stored, stamp) = (newer, before),
                        CommitOutcome::DeletionDeferred(error) => grant_error = Some(error),
                    }
                }
                Ok(LeaseResult::Conflict(newer)) => {
                    (stored, stamp, grant_error) = (newer, before, None);
                }
                // Another process renews the credential. A call that has a usable token returns the
                // token without waiting for the other process.
                Ok(LeaseResult::Busy) => match usable {
                    Some(entry) => return Ok(entry),
                    None => {
                        drop(permit);
                        is_follower = true;
                        self.call.set_awaits_wechat(true);
                        backoff.wait_with_jitter().await;
                    }
                },
                Err(error) => return usable.ok_or(error),
            }
            if Instant::now() >= give_up {
                return Err(self.provider.load_timeout_error());
            }
        }
    }

    /// Decides whether the call ends with the stored token, ends with an error, or renews the
    /// record. Caches and publishes the stored token if it has not expired.
    fn decide(&self, record: &Record, stamp: &VersionStamp) -> Decision<'a> {
        let now = self.now();
        let can_renew = self.provider.source.can_renew(record);
        let writer = self.provider.writer.as_ref().filter(|_| can_renew);
        // If this process may write a credential of the account, an empty store means that the
        // store lost the credential. The cached credential is then served while the next one is
        // fetched. If another system keeps the credential, an empty store means that the other
        // system deleted it.
        let is_lost =
            record.is_empty() && self.provider.kind.belongs_to_account() && writer.is_some();
        let unexpired = match is_lost {
            true => self.provider.cache.unexpired(&self.call.id, now),
            false => self
                .provider
                .to_entry(&self.call.id, record, EntryOrigin::Stored),
        };
        let unexpired = unexpired.filter(|entry| entry.is_unexpired(now));
        if let Some(entry) = unexpired.as_ref().filter(|_| !is_lost) {
            self.provider
                .cache
                .insert_if_unchanged(entry.clone(), stamp);
            self.provider.record_metrics(entry);
        }
        // The token is published after it was cached, so that the cache never holds an older token
        // than a caller has received. It is published before each return, because callers that did
        // not report the token must receive it even if the call ends with an error.
        self.call.set_provisional(unexpired.clone());
        let usable = unexpired
            .clone()
            .filter(|entry| self.call.wanted.is_satisfied_by(entry.secret()));
        if let Some(entry) = usable.as_ref().filter(|_| !is_lost)
            && !self.provider.is_due(entry, now)
        {
            return Decision::Return(Ok(entry.clone()));
        }
        let Some(writer) = writer else {
            return Decision::Return(usable.ok_or_else(|| {
                if unexpired.is_none() {
                    self.provider
                        .cache
                        .insert_absent_if_unchanged(&self.call.id, now, stamp);
                }
                // The error depends on the report only if the store holds an unexpired token.
                // Otherwise the error says that the store holds no usable token.
                let invalid_token = self
                    .call
                    .wanted
                    .replaced_token()
                    .filter(|_| unexpired.is_some());
                self.provider.source.no_token_error(invalid_token)
            }));
        };
        if let Some(error) = self.suppressing_error() {
            return Decision::Return(usable.ok_or(error));
        }
        Decision::Renew(usable, writer)
    }

    /// Waits until `give_up` for a permit to renew. The renewal of an unexpired token first waits
    /// for an early permit, of which there are fewer, because no request waits for such a renewal.
    /// Once the token has expired, no early permit is needed.
    async fn acquire_permit(
        &self,
        usable: Option<&CacheEntry>,
        give_up: Instant,
    ) -> Option<RenewalPermit<'_>> {
        let provider = self.provider;
        let mut early_permit = None;
        if let Some(entry) = usable {
            let expiry = deadline_in(self.now().duration_until(entry.lifetime().expires_at()));
            let permit = tokio::time::timeout_at(
                give_up.min(expiry),
                provider.early_renewal_permits.acquire(),
            );
            early_permit = permit.await.ok().and_then(Result::ok);
        }
        let permit = tokio::time::timeout_at(give_up, provider.renewal_permits.acquire()).await;
        let permit = permit.ok().and_then(Result::ok)?;
        Some((permit, early_permit))
    }
}
