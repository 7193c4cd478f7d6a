//! What a flight does: reads the store, and renews under a lease what must be renewed.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::{SemaphorePermit, watch};
use tokio::time::Instant;
use tracing::{Instrument, Span, field};

use super::call::{CallState, Wanted};
use super::entry::CacheEntry;
use super::entry::EntryOrigin;
use super::failures::back_off;
use super::freshness::STALE_RECHECK_INTERVAL;
use super::lease::Lease;
use super::source::RenewalFailure;
use super::state::{ProviderState, SLOW_STORE_TIMEOUT};
use super::task::{CommitOutcome, MAX_POLL_INTERVAL, MIN_POLL_INTERVAL, RenewalTask};
use super::versions::{ReadSnapshot, VersionStamp};
use crate::backoff::Backoff;
use crate::clock::{Timestamp, deadline_in};
use crate::credential::{Record, Token};
use crate::error::{Error, ErrorKind};
use crate::metrics;
use crate::store::{CredentialWriter, LeaseOwner, LeaseResult, StoredRecord};

/// The whole course of a flight.
pub(super) async fn run(
    provider: &Arc<ProviderState>,
    (id, number): (&str, u64),
    wanted: &Wanted,
    owner: LeaseOwner,
    call_state: &watch::Sender<CallState>,
    snapshot: Option<ReadSnapshot>,
) -> Result<CacheEntry, Error> {
    let (stored, fence) = match snapshot {
        Some(ReadSnapshot {
            stored,
            stamp: fence,
        }) => (Some(stored), fence),
        None => (None, provider.cache.stamp(id)),
    };
    let task = RenewalTask {
        provider,
        id,
        number,
        slot: provider.slot(id),
        owner,
        wanted,
        call_state,
    };
    let loaded = match stored {
        Some(stored) => LoadOutcome::FromStore(stored),
        None => task.load().await?,
    };
    match loaded {
        LoadOutcome::FromStore(stored) => task.resolve(stored, fence).await,
        LoadOutcome::StoreUnavailable(held) => Ok(held),
    }
}

enum LoadOutcome {
    FromStore(StoredRecord),
    /// The store does not answer, but this is still alive.
    StoreUnavailable(CacheEntry),
}

/// The right to renew, and where nobody waits for the renewal, one of a smaller number.
type RenewalPermit<'a> = (SemaphorePermit<'a>, Option<SemaphorePermit<'a>>);

/// What the store's state asks for.
enum Decision<'a> {
    Return(Result<CacheEntry, Error>),
    /// Renew and write to this store; meanwhile this entry can be used.
    Renew(Option<CacheEntry>, &'a Arc<dyn CredentialWriter>),
}

impl<'a> RenewalTask<'a> {
    /// Reads the store. While it is slow or away, a token that has outlived its time in the cache
    /// but not its own is served (R4).
    async fn load(&self) -> Result<LoadOutcome, Error> {
        let unexpired = self.provider.cache.unexpired(self.id, self.now());
        let mut load = self.provider.store.load(&self.slot);
        let loaded = match &unexpired {
            None => load.await,
            Some(held) => match tokio::time::timeout(SLOW_STORE_TIMEOUT, &mut load).await {
                Ok(loaded) => loaded,
                Err(_) => {
                    self.publish_provisional(held);
                    load.await
                }
            },
        };
        let error = match loaded {
            Ok(stored) => return Ok(LoadOutcome::FromStore(stored)),
            Err(error) => error,
        };
        // For callers who have not reported it. Whoever has gets the store's error.
        let leftover = self.if_unexpired(unexpired);
        self.set_provisional(leftover.clone());
        match leftover.filter(|held| self.wanted.is_satisfied_by(held.secret())) {
            Some(held) => {
                self.provider.log_store_unavailable(&error);
                Ok(LoadOutcome::StoreUnavailable(held))
            }
            None => Err(error),
        }
    }

    /// From what is stored to a usable token.
    async fn resolve(
        &self,
        mut stored: StoredRecord,
        mut stamp: VersionStamp,
    ) -> Result<CacheEntry, Error> {
        let settings = &self.provider.config;
        let give_up = deadline_in(
            settings.lease_duration + settings.renewal_timeout + STALE_RECHECK_INTERVAL,
        );
        let mut backoff = Backoff::new(MIN_POLL_INTERVAL, MAX_POLL_INTERVAL);
        // What WeChat has said of what is stored, where another process renews it all the same.
        let mut grant_error = None;
        // Whether another process renews. The short looks at its lease are then no wait for the store,
        // which says by itself when it does not answer.
        let mut is_follower = false;
        // Outlives every permit below: a call gives its lease back when it ends.
        let mut lease = None;
        loop {
            let (usable, writer) = match self.decide(&stored.record, &stamp) {
                Decision::Return(outcome) => return outcome,
                Decision::Renew(usable, writer) => (usable, writer),
            };
            self.set_awaits_wechat(true);
            let Some(turn) = self.acquire_permit(usable.as_ref(), give_up).await else {
                return usable.ok_or_else(|| self.provider.load_timeout_error());
            };
            self.set_awaits_wechat(is_follower);
            // While this one waited for its turn, others may have learnt that asking is in vain.
            if let Some(trouble) = self.suppressing_error() {
                return usable.ok_or(trouble);
            }
            // Before WeChat is asked: what is told from now on may be newer than its answer.
            let mut before = self.provider.cache.stamp(self.id);
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
                // Somebody else renews it. Who has something to serve need not watch.
                Ok(LeaseResult::Busy) => match usable {
                    Some(held) => return Ok(held),
                    None => {
                        drop(turn);
                        is_follower = true;
                        self.set_awaits_wechat(true);
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

    /// Sorts what is stored: usable as it is, to be renewed, or beyond renewal.
    fn decide(&self, record: &Record, stamp: &VersionStamp) -> Decision<'a> {
        let now = self.now();
        let can_renew = self.provider.source.can_renew(record);
        let writer = self.provider.writer.as_ref().filter(|_| can_renew);
        // A store that has lost an account's own credential has not killed what this process still
        // holds of it: that is served while the next one is fetched. Nobody deletes those, but for
        // another system that keeps them, whose word counts.
        let lost = record.is_empty() && self.provider.kind.belongs_to_account() && writer.is_some();
        let alive = match lost {
            true => self.provider.cache.unexpired(self.id, now),
            false => self.provider.to_entry(self.id, record, EntryOrigin::Stored),
        };
        let alive = alive.filter(|held| held.is_unexpired(now));
        if let Some(held) = alive.as_ref().filter(|_| !lost) {
            self.provider.cache.insert_if_unchanged(held.clone(), stamp);
            self.provider.record_metrics(held);
        }
        // Behind the cache, which must not hold anything older than what a caller has got. Before
        // any return: a report keeps this token only from the caller that reported it. The report
        // may be mistaken, so its failure is not the failure of the others.
        self.set_provisional(alive.clone());
        let usable = alive
            .clone()
            .filter(|held| self.wanted.is_satisfied_by(held.secret()));
        if let Some(held) = usable.as_ref().filter(|_| !lost)
            && !self.provider.is_due(held, now)
        {
            return Decision::Return(Ok(held.clone()));
        }
        let Some(writer) = writer else {
            return Decision::Return(usable.ok_or_else(|| {
                if alive.is_none() {
                    self.provider
                        .cache
                        .insert_absent_if_unchanged(self.id, now, stamp);
                }
                // With nothing alive in the store, it does not matter what was reported.
                let refused = self.wanted.replaced_token().filter(|_| alive.is_some());
                self.provider.source.no_token_error(refused)
            }));
        };
        if let Some(trouble) = self.suppressing_error() {
            return Decision::Return(usable.ok_or(trouble));
        }
        Decision::Renew(usable, writer)
    }

    /// Waits for the right to renew. Renewals of tokens that are still alive share a part of these
    /// rights: nobody waits for them, as long as they are.
    async fn acquire_permit(
        &self,
        usable: Option<&CacheEntry>,
        give_up: Instant,
    ) -> Option<RenewalPermit<'_>> {
        let inner = self.provider;
        let mut early_permit = None;
        if let Some(held) = usable {
            let expiry = deadline_in(self.now().duration_until(held.lifetime().expires_at()));
            let turn =
                tokio::time::timeout_at(give_up.min(expiry), inner.early_renewal_permits.acquire());
            early_permit = turn.await.ok().and_then(Result::ok);
        }
        let turn = tokio::time::timeout_at(give_up, inner.renewal_permits.acquire()).await;
        let turn = turn.ok().and_then(Result::ok)?;
        Some((turn, early_permit))
    }

    /// The span around a renewal.
    fn renewal_span(&self) -> Span {
        tracing::info_span!(
            target: "tower_wechat::renewal",
            "wechat.renew",
            app = %self.provider.app,
            kind = self.provider.kind.as_str(),
            user = ?self.id,
            result = field::Empty,
        )
    }

    /// Asks for a new credential, under the lease, and commits what comes.
    async fn renew(
        &self,
        lease: &Lease,
        stored: &StoredRecord,
        usable: Option<CacheEntry>,
        stamp: &mut VersionStamp,
    ) -> CommitOutcome {
        let started = Instant::now();
        self.set_awaits_wechat(true);
        let asked = self.renew_with_retry(stored).await;
        self.set_awaits_wechat(false);
        let outcome = match asked {
            ControlFlow::Continue(outcome) => outcome,
            ControlFlow::Break(newer) => {
                lease.release().await;
                return CommitOutcome::Conflict(newer);
            }
        };
        let (app, kind) = (&self.provider.app, self.provider.kind.as_str());
        let duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        match outcome {
            Ok(record) => {
                metrics::record_renewal(kind, "renewed");
                tracing::debug!(target: "tower_wechat::renewal", %app, kind, user = ?self.id, duration_ms, "renewed");
                self.close_circuit();
                self.commit(lease, stored, &record, stamp).await
            }
            Err(RenewalFailure::InvalidGrant(error)) => {
                metrics::record_renewal(kind, "dead");
                tracing::info!(target: "tower_wechat::renewal", %app, kind, user = ?self.id, duration_ms, %error, "the refresh token is dead");
                self.delete(lease, stored, error, stamp).await
            }
            Err(RenewalFailure::Transient(error)) => {
                metrics::record_renewal(kind, "transient");
                // What only the operator can mend is told by whoever met it first.
                if error.kind() == ErrorKind::WechatConfig {
                    tracing::debug!(target: "tower_wechat::renewal", %app, kind, user = ?self.id, duration_ms, %error, "not renewed");
                } else {
                    tracing::warn!(target: "tower_wechat::renewal", %app, kind, user = ?self.id, duration_ms, %error, "the renewal failed for now");
                }
                lease.release().await;
                CommitOutcome::Done(self.if_unexpired(usable).ok_or(error))
            }
            Err(RenewalFailure::Operator(error)) => {
                metrics::record_renewal(kind, "operator");
                let (told, until) = self.provider.failures.open_circuit(&error, self.now());
                metrics::set_resting_until(app, kind, until);
                if !told {
                    tracing::error!(target: "tower_wechat::renewal", %app, kind, %error, "WeChat refuses this account; the operator must act");
                }
                lease.release().await;
                let rests = error.clone_with_retry_after(self.now().duration_until(until));
                CommitOutcome::Done(self.if_unexpired(usable).ok_or(rests))
            }
        }
    }

    /// Tries until WeChat answers, within the time of a renewal. After each failure the store is
    /// looked at: while WeChat fails us, the user may log in elsewhere, which ends the trying.
    async fn renew_with_retry(
        &self,
        stored: &StoredRecord,
    ) -> ControlFlow<StoredRecord, Result<Record, RenewalFailure>> {
        let give_up = deadline_in(self.provider.config.renewal_timeout);
        let mut failures = self.provider.failures.failure_count(self.id);
        loop {
            let ask = self
                .provider
                .source
                .renew(&stored.record, self.wanted.replaced_token());
            let error = match tokio::time::timeout_at(give_up, ask).await {
                Ok(Err(RenewalFailure::Transient(error))) => error,
                Ok(outcome) => return ControlFlow::Continue(outcome),
                Err(_) => self.provider.load_timeout_error(),
            };
            failures = failures.saturating_add(1);
            let wait = back_off(failures).max(error.retry_after().unwrap_or_default());
            if deadline_in(wait) >= give_up {
                self.provider
                    .failures
                    .record_failure(self.id, failures, &error, self.now());
                return match self.superseding(stored).await {
                    Some(newer) => ControlFlow::Break(newer),
                    None => ControlFlow::Continue(Err(RenewalFailure::Transient(error))),
                };
            }
            tracing::debug!(target: "tower_wechat::renewal", app = %self.provider.app, user = ?self.id, %error, ?wait, "trying once more");
            tokio::time::sleep(wait).await;
            if let Some(newer) = self.superseding(stored).await {
                return ControlFlow::Break(newer);
            }
            // The account may rest by now, because of somebody else's try.
            if let Some(trouble) = self.suppressing_error() {
                return ControlFlow::Continue(Err(RenewalFailure::Transient(trouble)));
            }
        }
    }

    /// Returns `true` if the refresh token was tried only because of a report, and the stored
    /// access token may still be accepted. Then the pair stays until the access token is due: the
    /// caller that reported it has to log the user in, and the report of one caller does not take
    /// the token from the others.
    pub(super) fn is_fresh_for_others(&self, stored: &StoredRecord, error: &Error) -> bool {
        let fresh = |token: &Token| self.now() < token.lifetime.renew_at();
        self.wanted.replaced_token().is_some()
            && stored.record.token.as_ref().is_some_and(fresh)
            && !self.provider.source.invalidates_access_token(error)
    }

    fn close_circuit(&self) {
        if self.provider.failures.close_circuit() {
            let (app, kind) = (&self.provider.app, self.provider.kind.as_str());
            metrics::set_resting_until(app, kind, Timestamp::from_millis(0));
            tracing::info!(target: "tower_wechat::renewal", app = %self.provider.app, "WeChat accepts this account again");
        }
    }
}

impl ProviderState {
    pub(super) fn log_store_unavailable(&self, error: &Error) {
        tracing::debug!(target: "tower_wechat::renewal", app = %self.app, %error, "served a token although the store is away");
    }

    /// As [`observe`](Self::observe), where that would be much of the work: after a start-up, and
    /// for one in sixty-four reads from then on.
    pub(super) fn sample_metrics(&self, held: &CacheEntry) {
        let reads = self.direct_reads.fetch_add(1, Ordering::Relaxed);
        if reads < 1_024 || reads.is_multiple_of(64) || self.kind.belongs_to_account() {
            self.record_metrics(held);
        }
    }

    /// Tells the operator what this process holds.
    pub(super) fn record_metrics(&self, held: &CacheEntry) {
        let kind = self.kind.as_str();
        self.update_cached_gauge();
        if self.kind.belongs_to_account() {
            metrics::set_expiry(&self.app, kind, held.lifetime().expires_at());
        }
    }
}
