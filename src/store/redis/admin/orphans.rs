//! Copies of what was deleted while services moved from one layout to the other.
//!
//! A process that knows the old layout only deletes there only: where a copy was made before, the
//! copy stays, and services that read the new layout would serve it again. Two things prove that a
//! record of the new layout without one in the old is such a leftover:
//!
//! - Its user has logged out everywhere since it was granted. That is remembered in either layout.
//! - It is marked as a copy, and services of the old layout are still those that decide: the old
//!   layout has users, and no record was written by a service that reads the new one.
//!
//! Everything else may be a login of a service that has arrived in the new layout, and stays.

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

/// What a record of the new layout is, of whose user the old one has nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OrphanKind {
    /// The user has logged out everywhere since.
    Revoked,
    /// Only services of the old layout have written it.
    Copy,
    /// It may be somebody's login.
    MaybeLogin,
}

/// What a walk through the new layout has found.
#[derive(Default)]
struct OrphanScan {
    copies: u64,
    /// A service that reads the new layout has written something that the old one lacks.
    target_in_use: bool,
}

impl Migration<'_> {
    /// Removes the leftovers, after everything was copied.
    pub(super) async fn remove_orphans(
        &self,
        tally: &mut Summary,
        progress: ProgressFn<'_>,
    ) -> Result<(), Error> {
        let found = self.scan_target(tally, false, progress).await?;
        if found.copies == 0 {
            return Ok(());
        }
        let in_use = found.target_in_use || tally.newer > 0;
        if in_use || !self.store.has_hash_users(self.options).await? {
            tally.kept_copies = found.copies;
            return Ok(());
        }
        self.scan_target(tally, true, progress).await.map(drop)
    }

    /// Goes through the new layout. Those who have logged out are removed; copies with nothing
    /// behind them are counted, or removed too.
    async fn scan_target(
        &self,
        tally: &mut Summary,
        remove_copies: bool,
        progress: ProgressFn<'_>,
    ) -> Result<OrphanScan, Error> {
        let (mut found, mut busy) = (OrphanScan::default(), Vec::new());
        let mut walk = Scan::new(
            self.store,
            &self.options.app,
            CredentialKind::User,
            self.target_layout,
        );
        while let Some(ids) = walk.next_batch().await? {
            let slots = self.user_slots(&ids);
            let facts = self.read_facts(&slots).await?;
            for (slot, facts) in slots.into_iter().zip(&facts) {
                match self.classify_orphan(&slot, facts) {
                    None => {}
                    Some(OrphanKind::MaybeLogin) => found.target_in_use = true,
                    Some(OrphanKind::Copy) if !remove_copies => found.copies += 1,
                    Some(alone) => {
                        let outcome = self.remove_orphan(&slot, alone).await?;
                        if tally.count(&outcome) {
                            busy.push((slot, alone));
                        }
                    }
                }
            }
            progress(tally);
            tokio::time::sleep(self.options.pause).await;
        }
        retry_busy(busy, tally, async |(slot, kind)| {
            self.remove_orphan(slot, *kind).await
        })
        .await?;
        Ok(found)
    }

    /// What a record is whose user has nothing in the old layout; none where that has something, or
    /// where there is no record that can be read.
    fn classify_orphan(&self, slot: &CredentialSlot, facts: &RecordFacts) -> Option<OrphanKind> {
        if facts.source.iter().any(Option::is_some) {
            return None;
        }
        let [_, into] = self.locations(slot);
        let record = decode_complete(&into, slot, &facts.target, &self.store.0.sealer)?;
        if record.is_empty() {
            return None;
        }
        if is_revoked(&record, facts.revoked_at) {
            return Some(OrphanKind::Revoked);
        }
        let cells = into.keys.iter().zip(&facts.target);
        let mut values = cells.filter_map(|(cell, value)| Some((cell, value.as_ref()?)));
        let is_copy = values.any(|(cell, value)| {
            let opened = self.store.0.sealer.open(value, &seal_binding(slot, cell));
            opened.is_ok_and(|text| record::is_copy(&text))
        });
        Some(match self.target_layout == Layout::Keys && is_copy {
            true => OrphanKind::Copy,
            false => OrphanKind::MaybeLogin,
        })
    }

    /// Removes a record, if it is still what it was found to be.
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
                // It has changed by somebody's login or logout, which counts.
                return Ok(RecordOutcome::Unchanged);
            }
            if let Some(outcome) = self.remove_target(slot, facts).await? {
                return Ok(outcome);
            }
        }
        Ok(RecordOutcome::Busy)
    }
}

impl RedisStore {
    /// Whether the hashes have any field. Where they are gone, the move is over.
    async fn has_hash_users(&self, options: &ScanOptions) -> Result<bool, Error> {
        let sizes = self.hash_sizes(options).await?;
        Ok(sizes.into_iter().any(|size| size > 0))
    }
}
