//! Times of a credential: the time at which its renewal starts, and the time until which the cache
//! may serve the credential.

use std::time::Duration;

use super::config::RenewalTiming;
use super::entry::{CacheEntry, EntryOrigin};
use super::state::ProviderState;
use crate::clock::Timestamp;
use crate::credential::{Lifetime, Record, RecordView, jitter_seed};

/// Time for which a stale token is served from the cache before the store is read again: one
/// second. Another process may have renewed the token in the meantime.
pub(super) const STALE_RECHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Divisor of the renewal margin. The quotient is the wait from the renewal point to the renewal
/// under [`RenewalTiming::AfterRenewalTime`]: ten seconds for a margin of five minutes.
const AFTER_RENEWAL_TIME_DIVISOR: u32 = 30;

impl ProviderState {
    /// Returns `true` if the credential is due for renewal at `now`, under the timing of this
    /// engine.
    pub(super) fn is_due(&self, entry: &CacheEntry, now: Timestamp) -> bool {
        now >= self.renewal_starts_at(entry.secret().expose(), entry.lifetime())
    }

    fn renewal_starts_at(&self, secret: &str, lifetime: Lifetime) -> Timestamp {
        let point = lifetime.renew_at();
        match self.config.timing {
            RenewalTiming::Jittered => lifetime.renewal_starts_at(jitter_seed(secret)),
            RenewalTiming::AtRenewalTime => point,
            RenewalTiming::AfterRenewalTime => point.saturating_add(
                point.duration_until(lifetime.expires_at()) / AFTER_RENEWAL_TIME_DIVISOR,
            ),
        }
    }

    /// Creates a cache entry from a record whose token may be fresh, stale or expired. Returns
    /// `None` if the record has no token.
    pub(super) fn to_entry(
        &self,
        id: &str,
        record: &Record,
        origin: EntryOrigin,
    ) -> Option<CacheEntry> {
        let record = record.view();
        let lifetime = record.token.as_ref()?.lifetime;
        let now = self.clock.now();
        let until = self.fresh_until(&record, now).unwrap_or_else(|| {
            now.saturating_add(STALE_RECHECK_INTERVAL.min(self.config.cache_ttl))
                .min(lifetime.expires_at())
        });
        CacheEntry::from_record(id, &record, now..until, origin, self.cache.epoch())
    }

    /// Creates a cache entry from a record that is borrowed from the store's reply. Returns `None`
    /// if the record has no token or if its token is due for renewal.
    pub(super) fn to_fresh_entry(&self, id: &str, record: &RecordView<'_>) -> Option<CacheEntry> {
        let now = self.clock.now();
        let until = self.fresh_until(record, now)?;
        CacheEntry::from_record(
            id,
            record,
            now..until,
            EntryOrigin::Stored,
            self.cache.epoch(),
        )
    }

    /// Returns the time until which the token of the record may be served from the cache. Returns
    /// `None` if the record has no token or if its token is due for renewal.
    fn fresh_until(&self, record: &RecordView<'_>, now: Timestamp) -> Option<Timestamp> {
        let token = record.token.as_ref()?;
        // If the earliest possible start of the renewal is more than `cache_ttl` away, the exact
        // start does not matter yet. The jitter of this token is then not computed.
        let earliest = token.lifetime.earliest_renewal_at();
        let near = now.saturating_add(self.config.cache_ttl) >= earliest;
        if self.config.timing == RenewalTiming::Jittered && !near {
            return Some(earliest);
        }
        let due = self.renewal_starts_at(token.secret, token.lifetime);
        (now < due).then_some(due)
    }
}
