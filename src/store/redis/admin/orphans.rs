//! Removal of copies whose source was deleted during a migration.
//!
//! A process that uses only the source layout deletes a record only in that layout. The copy in the
//! target layout stays, and services that read the target layout would serve the copy again. A
//! record of the target layout without a record in the source layout is such an orphan in two
//! cases:
//!
//! - The user has logged out everywhere since WeChat issued the tokens. A key that is the same in
//!   both layouts stores the time of the logout.
//! - The record is marked as a copy, and no service uses the target layout yet: the source layout
//!   has users, and no service that reads the target layout has written a record.
//!
//! Every other record may be a login at a service that uses the target layout, and stays.
//!
//! The second case needs two scans of the target layout. The first scan counts copies and finds out
//! whether a service uses the target layout. If no service uses it, the second scan removes the
//! copies.

use super::super::codec::seal_binding;
use super::super::{Layout, RedisStore};
use super::migration::{Migration, RecordFacts, is_revoked};
use super::scan::Scan;
use super::task::{
    MAX_ATTEMPTS, ProgressFn, RecordOutcome, ScanOptions, Summary, decode_complete, retry_busy,
};
use crate::error::Error;
use crate::store::redis::format::record;
use crate::store::{CredentialKind, CredentialSlot};

/// The kind of a record in the target layout whose user has no record in the source layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OrphanKind {
    /// The user has logged out everywhere since WeChat issued the tokens.
    Revoked,
    /// A copy that no service of the target layout has written since the copy was made.
    Copy,
    /// A record that may come from a login at a service of the target layout. It is kept.
    MaybeLogin,
}

/// The result of a scan of the target layout.
#[derive(Default)]
struct OrphanScan {
    copies: u64,
    /// `true` if a service of the target layout has written a record that is not in the source
    /// layout.
    target_in_use: bool,
}

impl Migration<'_> {
    /// Removes orphans after all records were copied. Keeps and counts the copies if a service may
    /// use the target layout.
    pub(super) async fn remove_orphans(
        &self,
        summary: &mut Summary,
        progress: ProgressFn<'_>,
    ) -> Result<(), Error> {
        let found = self.scan_target(summary, false, progress).await?;
        if found.copies == 0 {
            return Ok(());
        }
        let in_use = found.target_in_use || summary.newer > 0;
        if in_use || !has_hash_users(self.store, self.options).await? {
            summary.kept_copies = found.copies;
            return Ok(());
        }
        self.scan_target(summary, true, progress).await.map(drop)
    }

    /// Scans the target layout. Removes orphans of users who have logged out everywhere. Counts all
    /// other orphaned copies, or removes them if `remove_copies` is set.
    async fn scan_target(
        &self,
        summary: &mut Summary,
        remove_copies: bool,
        progress: ProgressFn<'_>,
    ) -> Result<OrphanScan, Error> {
        let (mut found, mut busy) = (OrphanScan::default(), Vec::new());
        let mut scan = Scan::new(
            self.store,
            &self.options.app,
            CredentialKind::User,
            self.target_layout,
        );
        while let Some(ids) = scan.next_batch().await? {
            let slots = self.user_slots(&ids);
            let facts = self.read_facts(&slots).await?;
            for (slot, facts) in slots.into_iter().zip(&facts) {
                match self.classify_orphan(&slot, facts) {
                    None => {}
                    Some(OrphanKind::MaybeLogin) => found.target_in_use = true,
                    Some(OrphanKind::Copy) if !remove_copies => found.copies += 1,
                    Some(kind) => {
                        let outcome = self.remove_orphan(&slot, kind).await?;
                        if summary.count(&outcome) {
                            busy.push((slot, kind));
                        }
                    }
                }
            }
            progress(summary);
            tokio::time::sleep(self.options.pause).await;
        }
        retry_busy(busy, summary, async |(slot, kind)| {
            self.remove_orphan(slot, *kind).await
        })
        .await?;
        Ok(found)
    }

    /// Returns the kind of an orphan. Returns `None` if the source layout has a record, or if the
    /// target layout has no record that can be read.
    fn classify_orphan(&self, slot: &CredentialSlot, facts: &RecordFacts) -> Option<OrphanKind> {
        if facts.source.iter().any(Option::is_some) {
            return None;
        }
        let [_, target] = self.locations(slot);
        let record = decode_complete(&target, slot, &facts.target, &self.store.0.sealer)?;
        if record.is_empty() {
            return None;
        }
        if is_revoked(&record, facts.revoked_at) {
            return Some(OrphanKind::Revoked);
        }
        let keys = target.keys.iter().zip(&facts.target);
        let mut values = keys.filter_map(|(key, value)| Some((key, value.as_ref()?)));
        let is_copy = values.any(|(key, value)| {
            let opened = self.store.0.sealer.open(value, &seal_binding(slot, key));
            opened.is_ok_and(|text| record::is_copy(&text))
        });
        Some(match self.target_layout == Layout::Keys && is_copy {
            true => OrphanKind::Copy,
            false => OrphanKind::MaybeLogin,
        })
    }

    /// Removes an orphan if the record still is an orphan of the kind `expected`.
    async fn remove_orphan(
        &self,
        slot: &CredentialSlot,
        expected: OrphanKind,
    ) -> Result<RecordOutcome, Error> {
        for _ in 0..MAX_ATTEMPTS {
            let facts = self.read_facts(std::slice::from_ref(slot)).await?;
            let Some(facts) = facts.first() else {
                return Ok(RecordOutcome::Unreadable);
            };
            if self.classify_orphan(slot, facts) != Some(expected) {
                // A login or logout has changed the record since the scan, so the record stays.
                return Ok(RecordOutcome::Unchanged);
            }
            if let Some(outcome) = self.remove_target(slot, facts).await? {
                return Ok(outcome);
            }
        }
        Ok(RecordOutcome::Busy)
    }
}

/// Returns `true` if a user has tokens in the hash layout. After a migration, operators delete the
/// hashes.
async fn has_hash_users(store: &RedisStore, options: &ScanOptions) -> Result<bool, Error> {
    let sizes = store.hash_sizes(options).await?;
    Ok(sizes.into_iter().any(|size| size > 0))
}
