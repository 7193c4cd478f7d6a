//! Sealing anew: what is plain, or sealed with an old key. Without a key that seals, the reverse.

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
    /// Seals every value of the account with the first key of the ring, in both layouts; with
    /// [`SealingMode::Open`](crate::redis::SealingMode::Open) it makes them plain. The texts themselves
    /// and their lives stay.
    ///
    /// When nothing is left that another key has sealed, the marks of all other keys are removed,
    /// and processes may do without them; `keep_marks` where several accounts share the ring.
    ///
    /// # Errors
    /// The store does not answer; what was sealed until then stays.
    #[doc(hidden)]
    pub async fn reseal(
        &self,
        options: &ScanOptions,
        keep_registry: bool,
        progress: ProgressFn<'_>,
    ) -> Result<Summary, Error> {
        let owner = LeaseOwner::unique();
        let mut tally = Summary::default();
        let mut busy: Vec<(CredentialSlot, Layout)> = Vec::new();
        for kind in account_kinds() {
            for layout in layouts_of(kind) {
                let slots = vec![options.slot(kind, "")];
                self.reseal_batch(options, slots, *layout, &owner, &mut tally, &mut busy)
                    .await?;
            }
        }
        let user_kinds = CredentialKind::ALL.into_iter();
        for kind in user_kinds.filter(|kind| !kind.belongs_to_account()) {
            for layout in layouts_of(kind) {
                let mut scan = Scan::new(self, &options.app, kind, *layout);
                while let Some(ids) = scan.next_batch().await? {
                    tally.count_not_utf8(scan.take_not_utf8());
                    let slots = ids.iter().map(|id| options.slot(kind, id)).collect();
                    self.reseal_batch(options, slots, *layout, &owner, &mut tally, &mut busy)
                        .await?;
                    progress(&tally);
                    tokio::time::sleep(options.pause).await;
                }
            }
        }
        retry_busy(busy, &mut tally, async |(slot, layout)| {
            self.reseal_record(options, slot, *layout, &owner).await
        })
        .await?;
        progress(&tally);
        if tally.still_busy == 0
            && tally.unreadable_users() == 0
            && !keep_registry
            && !options.dry_run
        {
            self.remove_other_key_ids().await?;
        }
        Ok(tally)
    }

    /// Looks at many in one exchange, and seals those that need it.
    async fn reseal_batch(
        &self,
        options: &ScanOptions,
        slots: Vec<CredentialSlot>,
        layout: Layout,
        owner: &LeaseOwner,
        tally: &mut Summary,
        busy: &mut Vec<(CredentialSlot, Layout)>,
    ) -> Result<(), Error> {
        let names = slots.iter().map(|slot| &slot.key);
        let places = names.map(|name| self.0.names.locations(layout, None, name).read);
        let places: Vec<Location<'_>> = places.collect();
        let values = self
            .read_locations(&places.iter().collect::<Vec<_>>())
            .await?;
        drop(places);
        for (slot, values) in slots.into_iter().zip(values) {
            if values.iter().all(Option::is_none) {
                continue;
            }
            tally.scanned += 1;
            if !values
                .iter()
                .flatten()
                .any(|value| self.needs_reseal(value))
            {
                tally.unchanged += 1;
                continue;
            }
            let outcome = self.reseal_record(options, &slot, layout, owner).await?;
            if tally.count(&outcome) {
                busy.push((slot, layout));
            }
        }
        Ok(())
    }

    /// Whether a value is not in the form in which it would be written now.
    fn needs_reseal(&self, value: &[u8]) -> bool {
        let sealed = sealed::split(value).map(|(id, _)| id);
        sealed != self.0.sealer.active_key_id()
    }

    async fn reseal_record(
        &self,
        options: &ScanOptions,
        slot: &CredentialSlot,
        layout: Layout,
        owner: &LeaseOwner,
    ) -> Result<RecordOutcome, Error> {
        let place = self.0.names.locations(layout, None, &slot.key).read;
        for _ in 0..MAX_ATTEMPTS {
            let values = self.read_locations(&[&place]).await?;
            let values = values.into_iter().next().unwrap_or_default();
            let mut texts = Vec::new();
            for (cell, value) in place.keys.iter().zip(&values) {
                let Some(value) = value.as_ref().filter(|value| self.needs_reseal(value)) else {
                    texts.push(None);
                    continue;
                };
                let at = seal_binding(slot, cell);
                let opened = self.0.sealer.open_or_plain(value, &at);
                let text = opened
                    .ok()
                    .and_then(|text| String::from_utf8(text.to_vec()).ok());
                let Some(text) = text else {
                    return Ok(RecordOutcome::Unreadable);
                };
                texts.push(Some(self.0.sealer.seal(Zeroizing::new(text), &at)?));
            }
            if texts.iter().all(Option::is_none) {
                return Ok(RecordOutcome::Unchanged);
            }
            if options.dry_run {
                return Ok(RecordOutcome::Written);
            }
            let cells = place.keys.iter().zip(&values).zip(&texts);
            let changes = cells.map(|((cell, expected), text)| KeyChange {
                key: cell,
                expected,
                new: text
                    .as_ref()
                    .map_or(NewValue::Keep, |text| NewValue::SetKeepingTtl(text)),
            });
            let changes: Vec<KeyChange<'_>> = changes.collect();
            match self
                .apply_changes(
                    &[self.0.names.lease_key(&slot.key, &place)],
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

    async fn remove_other_key_ids(&self) -> Result<(), Error> {
        let name = key_registry::registry_key(&self.0.names);
        let mut ask = redis::cmd("HKEYS");
        let marks: Vec<String> = self.command(ask.arg(&name)).await?;
        let ours = self.0.sealer.active_key_id().map(|id| id.to_string());
        let others = marks.into_iter().filter(|mark| Some(mark) != ours.as_ref());
        for mark in others {
            let mut remove = redis::cmd("HDEL");
            self.command::<i64>(remove.arg(&name).arg(mark)).await?;
        }
        Ok(())
    }
}
