//! When a credential is fresh: the start of its renewal, and how long the cache may serve it.

use std::time::Duration;

use super::entry::{CacheEntry, EntryOrigin};
use super::state::{ProviderState, RenewalTiming};
use crate::clock::Timestamp;
use crate::credential::{Lifetime, Record, RecordView, jitter_seed};

/// How long a token that is due for renewal is served from the cache before the store is asked
/// again whether somebody has renewed it.
pub(super) const STALE_RECHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The part of the margin that "just behind the renewal point" is: ten seconds of five minutes.
const AFTER_RENEWAL_TIME_DIVISOR: u32 = 30;

impl ProviderState {
    /// R4: whether the renewal of a credential may start.
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

    /// Makes of a record what requests are served with.
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

    /// The same of a record that is being read, if its token is not due for renewal.
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

    /// Until when a record's token is believed at most that is not due for renewal; `None` if it
    /// is.
    fn fresh_until(&self, record: &RecordView<'_>, now: Timestamp) -> Option<Timestamp> {
        let token = record.token.as_ref()?;
        // Only near its end does it matter when exactly a token is due.
        let earliest = token.lifetime.earliest_renewal_at();
        let near = now.saturating_add(self.config.cache_ttl) >= earliest;
        if self.config.timing == RenewalTiming::Jittered && !near {
            return Some(earliest);
        }
        let due = self.renewal_starts_at(token.secret, token.lifetime);
        (now < due).then_some(due)
    }
}
