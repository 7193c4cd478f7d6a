//! The renewal of a credential under a lease: calls WeChat with retries, and treats each class of
//! failure.
//!
//! # States of a renewal
//!
//! - Calling: one call to WeChat is in progress. Ends with a new record, or with a failure that no
//!   retry fixes. A transient failure leads to Backing off.
//! - Backing off: waits, then reads the store. Leads to Calling. The renewal ends if the store
//!   holds a newer record or if calls to WeChat are suppressed. If the wait would exceed the
//!   renewal timeout, the renewal does not wait. It reads the store once more and ends with a newer
//!   record or with the failure.
//!
//! After the renewal, a new record is committed. If the refresh token is revoked or expired, the
//! stored pair is deleted. In all other cases the lease is released.

use std::ops::ControlFlow;

use tokio::time::Instant;
use tracing::{Span, field};

use super::entry::CacheEntry;
use super::failures::back_off;
use super::lease::Lease;
use super::source::RenewalFailure;
use super::task::{CommitOutcome, RenewalTask};
use super::versions::VersionStamp;
use crate::clock::{Timestamp, deadline_in};
use crate::credential::Record;
use crate::error::ErrorKind;
use crate::metrics;
use crate::store::StoredRecord;

impl RenewalTask<'_> {
    /// Returns the tracing span of a renewal, with the app, the kind and the id of the credential.
    pub(super) fn renewal_span(&self) -> Span {
        tracing::info_span!(
            target: "tower_wechat::renewal",
            "wechat.renew",
            app = %self.provider.app,
            kind = self.provider.kind.as_str(),
            user = ?self.call.id,
            result = field::Empty,
        )
    }

    /// Requests a new credential while the call holds the lease. Then commits the new record,
    /// deletes a pair whose refresh token WeChat rejected, or records the failure.
    pub(super) async fn renew(
        &self,
        lease: &Lease,
        stored: &StoredRecord,
        usable: Option<CacheEntry>,
        stamp: &mut VersionStamp,
    ) -> CommitOutcome {
        let started = Instant::now();
        self.call.set_awaits_wechat(true);
        let result = self.renew_with_retry(stored).await;
        self.call.set_awaits_wechat(false);
        let outcome = match result {
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
                tracing::debug!(target: "tower_wechat::renewal", %app, kind, user = ?self.call.id, duration_ms, "renewed");
                self.close_circuit();
                self.commit(lease, stored, &record, stamp).await
            }
            Err(RenewalFailure::InvalidGrant(error)) => {
                metrics::record_renewal(kind, "dead");
                tracing::info!(target: "tower_wechat::renewal", %app, kind, user = ?self.call.id, duration_ms, %error, "WeChat rejected the refresh token; the user has to log in");
                self.delete(lease, stored, error, stamp).await
            }
            Err(RenewalFailure::Transient(error)) => {
                metrics::record_renewal(kind, "transient");
                // The call that opened the circuit has already logged this error for the operator.
                if error.kind() == ErrorKind::WechatConfig {
                    tracing::debug!(target: "tower_wechat::renewal", %app, kind, user = ?self.call.id, duration_ms, %error, "a renewal was suppressed");
                } else {
                    tracing::warn!(target: "tower_wechat::renewal", %app, kind, user = ?self.call.id, duration_ms, %error, "a renewal failed; a request retries it after the back-off");
                }
                lease.release().await;
                CommitOutcome::Done(self.if_unexpired(usable).ok_or(error))
            }
            Err(RenewalFailure::Dependency(error)) => {
                metrics::record_renewal(kind, "dependency");
                tracing::debug!(target: "tower_wechat::renewal", %app, kind, user = ?self.call.id, duration_ms, %error, "a renewal waits for another credential");
                lease.release().await;
                CommitOutcome::Done(self.if_unexpired(usable).ok_or(error))
            }
            Err(RenewalFailure::Operator(error)) => {
                metrics::record_renewal(kind, "operator");
                let (was_logged, until) = self.provider.failures.open_circuit(&error, self.now());
                self.provider.account_gauges.set_resting_until(until);
                if !was_logged {
                    tracing::error!(target: "tower_wechat::renewal", %app, kind, %error, "WeChat rejected this account; the operator must act");
                }
                lease.release().await;
                let error = error.clone_with_retry_after(self.now().duration_until(until));
                CommitOutcome::Done(self.if_unexpired(usable).ok_or(error))
            }
        }
    }

    /// Calls WeChat, and repeats the call after transient errors within the renewal timeout. Reads
    /// the store after each transient error. Breaks with the stored record if the store holds a
    /// newer record, for example because the user logged in through another process.
    async fn renew_with_retry(
        &self,
        stored: &StoredRecord,
    ) -> ControlFlow<StoredRecord, Result<Record, RenewalFailure>> {
        let give_up = deadline_in(self.provider.config.renewal_timeout);
        let mut failures = self.provider.failures.failure_count(&self.call.id);
        loop {
            let renewal = self
                .provider
                .source
                .renew(&stored.record, self.call.wanted.replaced_token());
            let error = match tokio::time::timeout_at(give_up, renewal).await {
                Ok(Err(RenewalFailure::Transient(error))) => error,
                Ok(outcome) => return ControlFlow::Continue(outcome),
                Err(_) => self.provider.load_timeout_error(),
            };
            failures = failures.saturating_add(1);
            let wait = back_off(failures).max(error.retry_after().unwrap_or_default());
            if deadline_in(wait) >= give_up {
                self.provider
                    .failures
                    .record_failure(&self.call.id, failures, &error, self.now());
                return match self.superseding(stored).await {
                    Some(newer) => ControlFlow::Break(newer),
                    None => ControlFlow::Continue(Err(RenewalFailure::Transient(error))),
                };
            }
            tracing::debug!(target: "tower_wechat::renewal", app = %self.provider.app, user = ?self.call.id, %error, ?wait, "a call of a renewal failed; it is retried");
            tokio::time::sleep(wait).await;
            if let Some(newer) = self.superseding(stored).await {
                return ControlFlow::Break(newer);
            }
            // During the wait, another call may have opened the circuit of the account.
            if let Some(error) = self.suppressing_error() {
                return ControlFlow::Continue(Err(RenewalFailure::Transient(error)));
            }
        }
    }

    fn close_circuit(&self) {
        if self.provider.failures.close_circuit() {
            let unix_epoch = Timestamp::from_millis(0);
            self.provider.account_gauges.set_resting_until(unix_epoch);
            tracing::info!(target: "tower_wechat::renewal", app = %self.provider.app, "WeChat accepted this account again");
        }
    }
}
