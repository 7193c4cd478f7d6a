//! Copying of records from one layout to the other.

use std::time::Duration;

use super::super::codec::encode;
use super::super::locations::WriteTarget;
use super::super::{Layout, RedisStore};
use super::migration::{Migration, RecordFacts, is_revoked};
use super::read::WRONG_TYPE_MARKER;
use super::scan::Scan;
use super::secrets::{AppSecrets, SecretsTask};
use super::task::{
    ApplyResult, MAX_ATTEMPTS, NewValue, ProgressFn, RecordOutcome, ScanOptions, Summary,
    account_kinds, decode_complete, layouts_of, retry_busy,
};
use crate::clock::Timestamp;
use crate::credential::Record;
use crate::error::Error;
use crate::store::{CredentialKind, CredentialSlot, LeaseOwner};

/// Time by which the key of a copy may expire earlier than the record requires: one hour. The
/// clocks of processes differ by less. A copy whose key expires even earlier is written again.
const TTL_TOLERANCE: Duration = Duration::from_secs(3_600);

/// The decision of a migration about one record.
enum CopyDecision {
    /// This record is written to the other layout.
    Copy(Record),
    /// The user has logged out everywhere since WeChat issued the tokens. An existing copy is
    /// removed.
    Revoked,
    /// Nothing is written, and the record is counted with this outcome.
    Skip(RecordOutcome),
}

/// Copies every record of the store's layout into the other layout, unless the other layout holds a
/// newer record. Also removes copies whose record was deleted later, unless services may already
/// use the copies. Leaves the store's layout as it is. Copies the refresh token of the account too,
/// or those of all accounts of a platform, and never removes one.
///
/// Each write is one atomic step that compares the values in both layouts, and runs only while no
/// process holds the lease of the record. So no copy replaces a newer record. Another run writes
/// only what differs. A copy publishes no invalidation message. Readers of the target layout see
/// the copy when they read the record again.
///
/// # Errors
/// [`ErrorKind::StoreUnavailable`](crate::ErrorKind::StoreUnavailable) if Redis does not reply;
/// copies made until then stay. [`ErrorKind::Configuration`](crate::ErrorKind::Configuration)
/// on a Redis Cluster, where one step cannot write both layouts, and if the names of the store lack
/// `{appid}` and the services use names with it.
pub async fn migrate(
    store: &RedisStore,
    options: &ScanOptions,
    progress: ProgressFn<'_>,
) -> Result<Summary, Error> {
    if store.0.connection.is_cluster() {
        return Err(Error::configuration(
            "on a Redis Cluster the two layouts lie in different slots, and no step can compare \
             and write both; migrate before the data move to the Cluster, or let users log in again",
        ));
    }
    let migration = Migration {
        store,
        options,
        target_layout: match store.0.layout {
            Layout::Hashes => Layout::Keys,
            Layout::Keys => Layout::Hashes,
        },
        owner: LeaseOwner::unique(),
    };
    let mut summary = Summary::default();
    migration.copy_secrets(&mut summary).await?;
    migration.copy_all(&mut summary, progress).await?;
    migration.remove_orphans(&mut summary, progress).await?;
    progress(&summary);
    Ok(summary)
}

impl Migration<'_> {
    /// Copies the refresh token of the account, or of all accounts of a platform.
    async fn copy_secrets(&self, summary: &mut Summary) -> Result<(), Error> {
        let (store, options, owner) = (self.store, self.options, &self.owner);
        let secrets = &AppSecrets::find(store, &options.app).await?;
        secrets.check_names(store, &options.app).await?;
        let task = SecretsTask {
            store,
            options,
            owner,
            secrets,
        };
        task.migrate(self.target_layout, summary).await
    }

    /// Copies the records of the account and of all users, and retries busy records at the end.
    async fn copy_all(&self, summary: &mut Summary, progress: ProgressFn<'_>) -> Result<(), Error> {
        let mut busy = Vec::new();
        // A kind with one location for both layouts needs no copy.
        for kind in account_kinds().filter(|kind| layouts_of(*kind).len() > 1) {
            summary.scanned += 1;
            let slot = self.options.slot(kind, "");
            let outcome = self.copy_record(&slot).await?;
            if summary.count(&outcome) {
                busy.push(slot);
            }
        }
        let (store, layout) = (self.store, self.store.0.layout);
        let mut scan = Scan::new(store, &self.options.app, CredentialKind::User, layout);
        while let Some(ids) = scan.next_batch().await? {
            summary.count_not_utf8(scan.take_not_utf8());
            for slot in self.find_differing(&ids, summary).await? {
                let outcome = self.copy_record(&slot).await?;
                if summary.count(&outcome) {
                    busy.push(slot);
                }
            }
            progress(summary);
            tokio::time::sleep(self.options.pause).await;
        }
        retry_busy(busy, summary, async |slot| self.copy_record(slot).await).await
    }

    /// Returns the slots of those users whose records have to be copied or removed. Counts the
    /// records of all other users.
    async fn find_differing(
        &self,
        ids: &[String],
        summary: &mut Summary,
    ) -> Result<Vec<CredentialSlot>, Error> {
        let slots = self.user_slots(ids);
        let facts = self.read_facts(&slots).await?;
        let mut differing = Vec::new();
        for (slot, facts) in slots.into_iter().zip(&facts) {
            summary.scanned += 1;
            match self.decide(&slot, facts) {
                CopyDecision::Skip(outcome) => drop(summary.count(&outcome)),
                CopyDecision::Copy(_) | CopyDecision::Revoked => differing.push(slot),
            }
        }
        Ok(differing)
    }

    /// Decides what a migration does with a record. The first case that applies counts:
    ///
    /// 1. The source cannot be read: unreadable.
    /// 2. The source is empty: unchanged.
    /// 3. The user has logged out everywhere since the source was issued: newer if the target comes
    ///    from a login after the logout, otherwise revoked.
    /// 4. The source has expired, or its refresh token has a tombstone in the target layout: dead.
    /// 5. The target has another type or is sealed with an unknown key: unreadable.
    /// 6. The target equals the source: unchanged, or a copy if the target's key expires too early.
    /// 7. The target expires later than the source: newer.
    /// 8. Everything else: a copy, which also replaces a target that is no valid record.
    fn decide(&self, slot: &CredentialSlot, facts: &RecordFacts) -> CopyDecision {
        let (store, now) = (&self.store.0, self.store.0.clock.now());
        let [source, target] = self.locations(slot);
        let Some(record) = decode_complete(&source, slot, &facts.source, &store.sealer) else {
            return CopyDecision::Skip(RecordOutcome::Unreadable);
        };
        // The record was deleted after the scan had found it, or never existed.
        if record.is_empty() {
            return CopyDecision::Skip(RecordOutcome::Unchanged);
        }
        let copied = decode_complete(&target, slot, &facts.target, &store.sealer);
        if is_revoked(&record, facts.revoked_at) {
            // The user may have logged in again at a service that writes only the target layout.
            // That login stays.
            return match &copied {
                Some(copied) if !copied.is_empty() && !is_revoked(copied, facts.revoked_at) => {
                    CopyDecision::Skip(RecordOutcome::Newer)
                }
                Some(_) | None => CopyDecision::Revoked,
            };
        }
        // The key of an expired copy would expire at once, and each run would write it again. With
        // a tombstone, WeChat has rejected this refresh token and a service has deleted the copy.
        if record.is_unusable(now) || facts.is_tombstoned(&record) {
            return CopyDecision::Skip(RecordOutcome::Dead);
        }
        // A login would replace an invalid value of the target, so a copy replaces it too. A value
        // that another program may be able to read is kept.
        let mut target_values = facts.target.iter().flatten();
        let is_kept =
            |value: &Vec<u8>| value == WRONG_TYPE_MARKER || store.sealer.has_unknown_key(value);
        if copied.is_none() && target_values.any(is_kept) {
            return CopyDecision::Skip(RecordOutcome::Unreadable);
        }
        let copied = copied.unwrap_or_default();
        if copied == record {
            let ttl = record.key_ttl(now);
            let ends_early = |target_ttl: Duration| target_ttl.saturating_add(TTL_TOLERANCE) < ttl;
            return match target.expires && facts.target_ttl.is_some_and(ends_early) {
                true => CopyDecision::Copy(record),
                false => CopyDecision::Skip(RecordOutcome::Unchanged),
            };
        }
        if expiry_order(&copied) > expiry_order(&record) {
            return CopyDecision::Skip(RecordOutcome::Newer);
        }
        CopyDecision::Copy(record)
    }

    /// Copies or skips one record, or removes its copy, as [`decide`](Self::decide) decides.
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
            let [_, target] = self.locations(slot);
            let now = store.0.clock.now();
            let values = encode(
                &target,
                slot,
                &record,
                WriteTarget::CopyLocation,
                now,
                &store.0.sealer,
            )?;
            let new_values = values
                .iter()
                .map(|new| NewValue::Set(new.value.as_ref().map(|text| text.as_str()), new.ttl));
            match self.write_target(slot, &facts, new_values, None).await? {
                ApplyResult::Applied => return Ok(outcome),
                ApplyResult::Busy => return Ok(RecordOutcome::Busy),
                ApplyResult::Conflict => {}
            }
        }
        Ok(RecordOutcome::Busy)
    }
}

/// Returns the expiry of the access token and the expected expiry of the refresh token. The times
/// order two records, because tokens that were issued later expire later.
fn expiry_order(record: &Record) -> (Option<Timestamp>, Option<Timestamp>) {
    let token = record.token.as_ref();
    let refresh = record.refresh.as_ref();
    (
        token.map(|token| token.lifetime.expires_at()),
        refresh.map(|refresh| refresh.expected_expiry),
    )
}

/// Returns `true` if a stored time of the record is not plausible. Zero counts as implausible,
/// because it is what the parser returns for an implausible time of an access token.
fn has_implausible_time(record: &Record) -> bool {
    let zero = Timestamp::from_millis(0);
    let token = record.token.as_ref().map(|token| token.lifetime.renew_at());
    let refresh = record
        .refresh
        .as_ref()
        .map(|refresh| refresh.expected_expiry);
    token == Some(zero) || refresh.is_some_and(|due| !due.is_plausible() || due == zero)
}
