//! Resealing: seals plain values and values of older keys with the active key, or unseals them.

use zeroize::Zeroizing;

use super::super::codec::seal_binding;
use super::super::key_registry;
use super::super::locations::Location;
use super::super::{Layout, RedisStore};
use super::scan::Scan;
use super::task::{
    ApplyResult, KeyChange, MAX_ATTEMPTS, NewValue, ProgressFn, RecordOutcome, ScanOptions,
    Summary, account_kinds, layouts_of, retry_busy,
};
use crate::error::Error;
use crate::store::redis::format::sealed;
use crate::store::{CredentialKind, CredentialSlot, LeaseOwner};

impl RedisStore {
    /// Seals every value of the account with the first sealing key, in both layouts. With
    /// [`SealingMode::Open`](crate::redis::SealingMode::Open), unseals every value. Keeps the contents
    /// and the time to live of each value.
    ///
    /// If no value of another key is left, removes the other keys from the key registry, so that
    /// processes no longer need them. With `keep_registry`, leaves the registry as it is, for
    /// accounts that share their keys.
    ///
    /// # Errors
    /// [`ErrorKind::StoreUnavailable`](crate::ErrorKind::StoreUnavailable) if Redis does not reply;
    /// values that were sealed until then stay.
    #[doc(hidden)]
    pub async fn reseal(
        &self,
        options: &ScanOptions,
        keep_registry: bool,
        progress: ProgressFn<'_>,
    ) -> Result<Summary, Error> {
        let owner = LeaseOwner::unique();
        let mut summary = Summary::default();
        let mut busy: Vec<(CredentialSlot, Layout)> = Vec::new();
        for kind in account_kinds() {
            for layout in layouts_of(kind) {
                let slots = vec![options.slot(kind, "")];
                self.reseal_batch(options, slots, *layout, &owner, &mut summary, &mut busy)
                    .await?;
            }
        }
        let user_kinds = CredentialKind::ALL.into_iter();
        for kind in user_kinds.filter(|kind| !kind.belongs_to_account()) {
            for layout in layouts_of(kind) {
                let mut scan = Scan::new(self, &options.app, kind, *layout);
                while let Some(ids) = scan.next_batch().await? {
                    summary.count_not_utf8(scan.take_not_utf8());
                    let slots = ids.iter().map(|id| options.slot(kind, id)).collect();
                    self.reseal_batch(options, slots, *layout, &owner, &mut summary, &mut busy)
                        .await?;
                    progress(&summary);
                    tokio::time::sleep(options.pause).await;
                }
            }
        }
        retry_busy(busy, &mut summary, async |(slot, layout)| {
            self.reseal_record(options, slot, *layout, &owner).await
        })
        .await?;
        progress(&summary);
        if summary.still_busy == 0
            && summary.unreadable_users() == 0
            && !keep_registry
            && !options.dry_run
        {
            self.remove_other_key_ids().await?;
        }
        Ok(summary)
    }

    /// Reads many records in one round trip, and seals those that need it.
    async fn reseal_batch(
        &self,
        options: &ScanOptions,
        slots: Vec<CredentialSlot>,
        layout: Layout,
        owner: &LeaseOwner,
        summary: &mut Summary,
        busy: &mut Vec<(CredentialSlot, Layout)>,
    ) -> Result<(), Error> {
        let locations = slots
            .iter()
            .map(|slot| self.0.names.location(layout, &slot.key));
        let locations: Vec<Location<'_>> = locations.collect();
        let values = self
            .read_locations(&locations.iter().collect::<Vec<_>>())
            .await?;
        drop(locations);
        for (slot, values) in slots.into_iter().zip(values) {
            if values.iter().all(Option::is_none) {
                continue;
            }
            summary.scanned += 1;
            if !values
                .iter()
                .flatten()
                .any(|value| self.needs_reseal(value))
            {
                summary.unchanged += 1;
                continue;
            }
            let outcome = self.reseal_record(options, &slot, layout, owner).await?;
            if summary.count(&outcome) {
                busy.push((slot, layout));
            }
        }
        Ok(())
    }

    /// Returns `true` if a value is not sealed as a new value would be.
    fn needs_reseal(&self, value: &[u8]) -> bool {
        let sealed = sealed::split(value).map(|(id, _)| id);
        sealed != self.0.sealer.active_key_id()
    }

    /// Seals the values of one record.
    async fn reseal_record(
        &self,
        options: &ScanOptions,
        slot: &CredentialSlot,
        layout: Layout,
        owner: &LeaseOwner,
    ) -> Result<RecordOutcome, Error> {
        let location = self.0.names.location(layout, &slot.key);
        for _ in 0..MAX_ATTEMPTS {
            let values = self.read_locations(&[&location]).await?;
            let values = values.into_iter().next().unwrap_or_default();
            let mut texts = Vec::new();
            for (key, value) in location.keys.iter().zip(&values) {
                let Some(value) = value.as_ref().filter(|value| self.needs_reseal(value)) else {
                    texts.push(None);
                    continue;
                };
                let binding = seal_binding(slot, key);
                let opened = self.0.sealer.open_or_plain(value, &binding);
                let text = opened
                    .ok()
                    .and_then(|text| String::from_utf8(text.to_vec()).ok());
                let Some(text) = text else {
                    return Ok(RecordOutcome::Unreadable);
                };
                texts.push(Some(self.0.sealer.seal(Zeroizing::new(text), &binding)?));
            }
            if texts.iter().all(Option::is_none) {
                return Ok(RecordOutcome::Unchanged);
            }
            if options.dry_run {
                return Ok(RecordOutcome::Written);
            }
            let keys = location.keys.iter().zip(&values).zip(&texts);
            let changes = keys.map(|((key, expected), text)| KeyChange {
                key,
                expected,
                new: text
                    .as_ref()
                    .map_or(NewValue::Keep, |text| NewValue::SetKeepingTtl(text)),
            });
            let changes: Vec<KeyChange<'_>> = changes.collect();
            match self
                .apply_changes(
                    &[self.0.names.lease_key(&slot.key, &location)],
                    owner,
                    &changes,
                    None,
                )
                .await?
            {
                ApplyResult::Applied => return Ok(RecordOutcome::Written),
                ApplyResult::Busy => return Ok(RecordOutcome::Busy),
                ApplyResult::Conflict => {}
            }
        }
        Ok(RecordOutcome::Busy)
    }

    /// Removes all keys but the active one from the key registry.
    async fn remove_other_key_ids(&self) -> Result<(), Error> {
        let registry = key_registry::registry_key(&self.0.names);
        let mut hkeys = redis::cmd("HKEYS");
        let key_ids: Vec<String> = self.command(hkeys.arg(&registry)).await?;
        let active = self.0.sealer.active_key_id().map(|id| id.to_string());
        let others = key_ids.into_iter().filter(|id| Some(id) != active.as_ref());
        for id in others {
            let mut hdel = redis::cmd("HDEL");
            self.command::<i64>(hdel.arg(&registry).arg(id)).await?;
        }
        Ok(())
    }
}
