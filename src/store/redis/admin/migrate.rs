//! From one layout to the other.

use std::time::Duration;

use super::super::codec::encode;
use super::super::locations::WriteTarget;
use super::super::{Layout, RedisStore};
use super::migration::{Migration, RecordFacts, is_revoked};
use super::read::WRONG_TYPE_MARKER;
use super::scan::Scan;
use super::task::{
    ApplyResult, KeyChange, MAX_ATTEMPTS, NewValue, ProgressFn, RecordOutcome, ScanOptions,
    Summary, account_kinds, decode_complete, retry_busy,
};
use crate::clock::Timestamp;
use crate::credential::Record;
use crate::error::Error;
use crate::store::{CredentialKind, CredentialSlot, LeaseOwner};

/// A key that ends so much earlier than its record is written again. Processes' clocks differ by
/// less.
const TTL_TOLERANCE: Duration = Duration::from_secs(3_600);

/// What is to become of one record.
enum CopyDecision {
    Copy(Record),
    /// The user has logged out everywhere since; a copy goes.
    Revoked,
    /// Nothing is to be done.
    Skip(RecordOutcome),
}

impl RedisStore {
    /// Copies every record into the other layout, unless something newer lies there, and removes
    /// copies of what was deleted since. The layout that the store has is that of the source, which
    /// stays as it is.
    ///
    /// A record is read and written in one atomic step with a comparison of both sides, and not
    /// while its lease is held, so no copy is older than what it replaces. Running it again costs
    /// reading and writes what differs.
    ///
    /// # Errors
    /// The store does not answer; what was copied until then stays. On a Redis Cluster nothing can
    /// be copied.
    #[doc(hidden)]
    pub async fn migrate(
        &self,
        options: &ScanOptions,
        progress: ProgressFn<'_>,
    ) -> Result<Summary, Error> {
        if self.0.connection.is_cluster() {
            return Err(Error::configuration(
                "on a Redis Cluster the two layouts lie in different slots, and no step can compare \
                 and write both; migrate before the data move to the Cluster, or let users log in again",
            ));
        }
        let migration = Migration {
            store: self,
            options,
            target_layout: match self.0.layout {
                Layout::Hashes => Layout::Keys,
                Layout::Keys => Layout::Hashes,
            },
            owner: LeaseOwner::unique(),
        };
        let mut tally = Summary::default();
        migration.copy_all(&mut tally, progress).await?;
        migration.remove_orphans(&mut tally, progress).await?;
        progress(&tally);
        Ok(tally)
    }
}

impl Migration<'_> {
    async fn copy_all(&self, tally: &mut Summary, progress: ProgressFn<'_>) -> Result<(), Error> {
        let mut busy = Vec::new();
        for kind in account_kinds() {
            tally.scanned += 1;
            let slot = self.options.slot(kind, "");
            let outcome = self.copy_record(&slot).await?;
            if tally.count(&outcome) {
                busy.push(slot);
            }
        }
        let (store, layout) = (self.store, self.store.0.layout);
        let mut walk = Scan::new(store, &self.options.app, CredentialKind::User, layout);
        while let Some(ids) = walk.next_batch().await? {
            tally.count_not_utf8(walk.take_not_utf8());
            for slot in self.find_differing(&ids, tally).await? {
                let outcome = self.copy_record(&slot).await?;
                if tally.count(&outcome) {
                    busy.push(slot);
                }
            }
            progress(tally);
            tokio::time::sleep(self.options.pause).await;
        }
        retry_busy(busy, tally, async |slot| self.copy_record(slot).await).await
    }

    /// Those of these users for whom something is to be done, found in one exchange.
    async fn find_differing(
        &self,
        ids: &[String],
        tally: &mut Summary,
    ) -> Result<Vec<CredentialSlot>, Error> {
        let slots = self.user_slots(ids);
        let facts = self.read_facts(&slots).await?;
        let mut differing = Vec::new();
        for (slot, facts) in slots.into_iter().zip(&facts) {
            tally.scanned += 1;
            match self.decide(&slot, facts) {
                CopyDecision::Skip(outcome) => drop(tally.count(&outcome)),
                CopyDecision::Copy(_) | CopyDecision::Revoked => differing.push(slot),
            }
        }
        Ok(differing)
    }

    fn decide(&self, slot: &CredentialSlot, facts: &RecordFacts) -> CopyDecision {
        let (store, now) = (&self.store.0, self.store.0.clock.now());
        let [from, into] = self.locations(slot);
        let Some(record) = decode_complete(&from, slot, &facts.source, &store.sealer) else {
            return CopyDecision::Skip(RecordOutcome::Unreadable);
        };
        // Gone since it was listed, or never there.
        if record.is_empty() {
            return CopyDecision::Skip(RecordOutcome::Unchanged);
        }
        let there = decode_complete(&into, slot, &facts.target, &store.sealer);
        if is_revoked(&record, facts.revoked_at) {
            // The user may have logged in again since, at a service that writes the new layout only.
            return match &there {
                Some(there) if !there.is_empty() && !is_revoked(there, facts.revoked_at) => {
                    CopyDecision::Skip(RecordOutcome::Newer)
                }
                Some(_) | None => CopyDecision::Revoked,
            };
        }
        // Its copy would end at once, and be made again by each run. Or it did: WeChat has refused this
        // refresh token to a service that deleted the copy.
        if record.is_unusable(now) || facts.is_tombstoned(&record) {
            return CopyDecision::Skip(RecordOutcome::Dead);
        }
        // Garbage is replaced as a login would do it; what others can read is not.
        let mut theirs = facts.target.iter().flatten();
        let is_kept =
            |value: &Vec<u8>| value == WRONG_TYPE_MARKER || store.sealer.has_unknown_key(value);
        if there.is_none() && theirs.any(is_kept) {
            return CopyDecision::Skip(RecordOutcome::Unreadable);
        }
        let there = there.unwrap_or_default();
        if there == record {
            let life = record.key_ttl(now);
            let ends_early = |lives: Duration| lives.saturating_add(TTL_TOLERANCE) < life;
            return match into.expires && facts.target_ttl.is_some_and(ends_early) {
                true => CopyDecision::Copy(record),
                false => CopyDecision::Skip(RecordOutcome::Unchanged),
            };
        }
        if expiry_order(&there) > expiry_order(&record) {
            return CopyDecision::Skip(RecordOutcome::Newer);
        }
        CopyDecision::Copy(record)
    }

    async fn copy_record(&self, slot: &CredentialSlot) -> Result<RecordOutcome, Error> {
        let store = self.store;
        for _ in 0..MAX_ATTEMPTS {
            let facts = self.read_facts(std::slice::from_ref(slot)).await?;
            let Some(facts) = facts.into_iter().next() else {
                return Ok(RecordOutcome::Unreadable);
            };
            let record = match self.decide(slot, &facts) {
                CopyDecision::Skip(outcome) => return Ok(outcome),
                CopyDecision::Revoked if facts.target.iter().all(Option::is_none) => {
                    return Ok(RecordOutcome::Revoked);
                }
                CopyDecision::Revoked => match self.remove_target(slot, &facts).await? {
                    Some(outcome) => return Ok(outcome),
                    None => continue,
                },
                CopyDecision::Copy(record) => record,
            };
            let outcome = match has_implausible_time(&record) {
                true => RecordOutcome::WrittenWithImplausibleTime,
                false => RecordOutcome::Written,
            };
            if self.options.dry_run {
                return Ok(outcome);
            }
            let [from, into] = self.locations(slot);
            let now = store.0.clock.now();
            let news = encode(
                &into,
                slot,
                &record,
                WriteTarget::CopyLocation,
                now,
                &store.0.sealer,
            )?;
            let read = from.keys.iter().zip(&facts.source);
            let read = read.map(|(cell, expected)| KeyChange {
                key: cell,
                expected,
                new: NewValue::Keep,
            });
            let written = into.keys.iter().zip(&facts.target).zip(&news);
            let written = written.map(|((cell, expected), new)| KeyChange {
                key: cell,
                expected,
                new: NewValue::Set(new.value.as_ref().map(|text| text.as_str()), new.ttl),
            });
            let changes: Vec<KeyChange<'_>> = read.chain(written).collect();
            let leases = [&from, &into].map(|place| store.0.names.lease_key(&slot.key, place));
            match store
                .apply_changes(&leases, &self.owner, &changes, None)
                .await?
            {
                ApplyResult::Applied => return Ok(outcome),
                ApplyResult::Busy => return Ok(RecordOutcome::Busy),
                ApplyResult::Conflict => {}
            }
        }
        Ok(RecordOutcome::Busy)
    }
}

/// What was granted later dies later.
fn expiry_order(record: &Record) -> (Option<Timestamp>, Option<Timestamp>) {
    let token = record.token.as_ref();
    let refresh = record.refresh.as_ref();
    (
        token.map(|token| token.lifetime.expires_at()),
        refresh.map(|refresh| refresh.expected_expiry),
    )
}

/// Whether a time of the record was stored by mistake: nobody can have meant it.
fn has_implausible_time(record: &Record) -> bool {
    let zero = Timestamp::from_millis(0);
    let token = record.token.as_ref().map(|token| token.lifetime.renew_at());
    let refresh = record
        .refresh
        .as_ref()
        .map(|refresh| refresh.expected_expiry);
    token == Some(zero) || refresh.is_some_and(|due| !due.is_plausible() || due == zero)
}
