//! Resealing of stored values: seals plain values and values of older keys with the active key, or
//! unseals all values.

use std::collections::HashSet;

use zeroize::Zeroizing;

use super::super::codec::seal_binding;
use super::super::locations::Location;
use super::super::{Layout, RedisStore};
use super::scan::Scan;
use super::secrets::{AppSecrets, SecretsTask};
use super::task::{
    ApplyResult, KeyChange, MAX_ATTEMPTS, NewValue, ProgressFn, RecordOutcome, ScanOptions,
    Summary, account_kinds, layouts_of, retry_busy,
};
use crate::credential::AppId;
use crate::error::Error;
use crate::store::redis::format::sealed;
use crate::store::{CredentialKind, CredentialSlot, LeaseOwner};

/// Seals every value of an account with the first sealing key, in both layouts. With
/// [`SealingMode::Open`](crate::redis::SealingMode::Open), unseals every value. Keeps the contents
/// and the time to live of each value. For a platform, also seals the ticket, and the refresh
/// token, the access token and the `jsapi_ticket` of each of its accounts. The accounts' users need
/// a run for each account.
///
/// If every record could be resealed, removes all other keys from the key registry, so that
/// processes no longer need these keys. With `keep_registry`, leaves the registry as it is, for
/// accounts that share their keys.
///
/// # Errors
/// [`ErrorKind::StoreUnavailable`](crate::ErrorKind::StoreUnavailable) if Redis does not reply.
/// Values that were already written stay as they are, and another run continues.
/// [`ErrorKind::Configuration`](crate::ErrorKind::Configuration) if the names of the store lack
/// `{appid}` and the services use names with it.
pub async fn reseal(
    store: &RedisStore,
    options: &ScanOptions,
    keep_registry: bool,
    progress: ProgressFn<'_>,
) -> Result<Summary, Error> {
    let mut resealing = Resealing {
        store,
        options,
        owner: LeaseOwner::unique(),
        summary: Summary::default(),
        busy: Vec::new(),
    };
    resealing.reseal_all(progress).await?;
    let summary = resealing.summary;
    progress(&summary);
    if summary.still_busy == 0
        && summary.unreadable_users() == 0
        && !keep_registry
        && !options.dry_run
    {
        remove_other_key_ids(store).await?;
    }
    Ok(summary)
}

/// A run of [`reseal`] for one account.
struct Resealing<'a> {
    store: &'a RedisStore,
    options: &'a ScanOptions,
    owner: LeaseOwner,
    summary: Summary,
    /// Records that were in use, with their layouts. They are retried at the end.
    busy: Vec<(CredentialSlot, Layout)>,
}

impl Resealing<'_> {
    /// Returns the slots of the records that the account itself owns, in every layout. For a
    /// platform, also returns those of its accounts. A name without `{appid}` is the same for all
    /// accounts, and belongs to the first one.
    fn account_slots(&self, secrets: &AppSecrets) -> Vec<(CredentialSlot, Layout)> {
        let (app, names) = (&self.options.app, &self.store.0.names);
        let is_of = |kind: CredentialKind, of: &AppId| {
            let is_platform_kind = kind == CredentialKind::ComponentToken;
            !secrets.is_platform || is_platform_kind == (of == app)
        };
        let (mut slots, mut known) = (Vec::new(), HashSet::new());
        for of in std::iter::once(app).chain(&secrets.accounts) {
            for kind in account_kinds().filter(|kind| is_of(*kind, of)) {
                for layout in layouts_of(kind) {
                    let mut slot = self.options.slot(kind, "");
                    slot.key.app = of.clone();
                    let location = names.location(*layout, &slot.key);
                    let key = location.keys.first().map(|key| key.key.to_string());
                    drop(location);
                    if known.insert(key) {
                        slots.push((slot, *layout));
                    }
                }
            }
        }
        slots
    }

    /// Seals or unseals the records of the account and of all users, in every layout. For a
    /// platform, also those that its accounts own, without their users.
    async fn reseal_all(&mut self, progress: ProgressFn<'_>) -> Result<(), Error> {
        let (store, app) = (self.store, &self.options.app);
        let secrets = &AppSecrets::find(store, app).await?;
        secrets.check_names(store, app).await?;
        let task = SecretsTask {
            store: self.store,
            options: self.options,
            owner: &self.owner,
            secrets,
        };
        task.reseal(&mut self.summary).await?;
        for (slot, layout) in self.account_slots(secrets) {
            self.reseal_batch(vec![slot], layout).await?;
            progress(&self.summary);
        }
        let user_kinds = CredentialKind::ALL.into_iter();
        for kind in user_kinds.filter(|kind| !kind.belongs_to_account()) {
            for layout in layouts_of(kind) {
                let mut scan = Scan::new(self.store, &self.options.app, kind, *layout);
                while let Some(ids) = scan.next_batch().await? {
                    self.summary.count_not_utf8(scan.take_not_utf8());
                    let slots = ids.iter().map(|id| self.options.slot(kind, id)).collect();
                    self.reseal_batch(slots, *layout).await?;
                    progress(&self.summary);
                    tokio::time::sleep(self.options.pause).await;
                }
            }
        }
        let busy = std::mem::take(&mut self.busy);
        let mut summary = self.summary;
        retry_busy(busy, &mut summary, async |(slot, layout)| {
            self.reseal_record(slot, *layout).await
        })
        .await?;
        self.summary = summary;
        Ok(())
    }

    /// Reads many records together. Seals or unseals those that
    /// [`needs_reseal`](Self::needs_reseal) selects.
    async fn reseal_batch(
        &mut self,
        slots: Vec<CredentialSlot>,
        layout: Layout,
    ) -> Result<(), Error> {
        let names = &self.store.0.names;
        let locations = slots.iter().map(|slot| names.location(layout, &slot.key));
        let locations: Vec<Location<'_>> = locations.collect();
        let values = self
            .store
            .read_locations(&locations.iter().collect::<Vec<_>>())
            .await?;
        drop(locations);
        for (slot, values) in slots.into_iter().zip(values) {
            if values.iter().all(Option::is_none) {
                continue;
            }
            self.summary.scanned += 1;
            if !values
                .iter()
                .flatten()
                .any(|value| self.needs_reseal(value))
            {
                self.summary.unchanged += 1;
                continue;
            }
            let outcome = self.reseal_record(&slot, layout).await?;
            if self.summary.count(&outcome) {
                self.busy.push((slot, layout));
            }
        }
        Ok(())
    }

    /// Returns `true` if a stored value is not sealed as a new value would be.
    fn needs_reseal(&self, value: &[u8]) -> bool {
        let sealed = sealed::split(value).map(|(id, _)| id);
        sealed != self.store.0.sealer.active_key_id()
    }

    /// Seals or unseals the values of one record, in one atomic step.
    async fn reseal_record(
        &self,
        slot: &CredentialSlot,
        layout: Layout,
    ) -> Result<RecordOutcome, Error> {
        let store = self.store;
        let location = store.0.names.location(layout, &slot.key);
        for _ in 0..MAX_ATTEMPTS {
            let values = store.read_locations(&[&location]).await?;
            let values = values.into_iter().next().unwrap_or_default();
            let mut texts = Vec::new();
            for (key, value) in location.keys.iter().zip(&values) {
                let Some(value) = value.as_ref().filter(|value| self.needs_reseal(value)) else {
                    texts.push(None);
                    continue;
                };
                let binding = seal_binding(slot, key);
                let opened = store.0.sealer.open_or_plain(value, &binding);
                let text = opened
                    .ok()
                    .and_then(|text| String::from_utf8(text.to_vec()).ok());
                let Some(text) = text else {
                    return Ok(RecordOutcome::Unreadable);
                };
                texts.push(Some(store.0.sealer.seal(Zeroizing::new(text), &binding)?));
            }
            if texts.iter().all(Option::is_none) {
                return Ok(RecordOutcome::Unchanged);
            }
            if self.options.dry_run {
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
            match store
                .apply_changes(
                    &[store.0.names.lease_key(&slot.key, &location)],
                    &self.owner,
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
}

/// Removes the ids of all keys except the active key from the key registry. Removes all ids if new
/// values are plain text.
async fn remove_other_key_ids(store: &RedisStore) -> Result<(), Error> {
    let registry = store.0.names.sealing_registry_key();
    let mut hkeys = redis::cmd("HKEYS");
    let key_ids: Vec<String> = store.command(hkeys.arg(&registry)).await?;
    let active = store.0.sealer.active_key_id().map(|id| id.to_string());
    let others = key_ids.into_iter().filter(|id| Some(id) != active.as_ref());
    for id in others {
        let mut hdel = redis::cmd("HDEL");
        store.command::<i64>(hdel.arg(&registry).arg(id)).await?;
    }
    Ok(())
}
