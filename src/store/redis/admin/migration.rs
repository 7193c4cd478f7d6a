//! State of a migration: the values of each record in both layouts, and the removal of copies.
//!
//! The *source layout* is the layout of the store. The *target layout* is the layout to which the
//! migration copies.

use std::time::Duration;

use redis::{Cmd, Value, from_redis_value};

use super::super::codec::RawValue;
use super::super::invalidation::invalidation_message;
use super::super::locations::Location;
use super::super::write::tombstone_fingerprint;
use super::super::{Layout, RedisStore};
use super::task::{ApplyResult, KeyChange, NewValue, RecordOutcome, ScanOptions};
use crate::clock::Timestamp;
use crate::credential::{Record, STANDARD_LIFETIME};
use crate::error::Error;
use crate::store::redis::format::text::parse_revoked_at;
use crate::store::{CredentialKind, CredentialSlot, LeaseOwner};

/// Tolerated difference between the clocks of the processes that logged a user in and out: two
/// minutes. Clocks that are synchronized differ by less.
const CLOCK_SKEW: Duration = Duration::from_secs(120);

/// A migration of one account's records from the layout of a store to the other layout.
pub(super) struct Migration<'a> {
    pub(super) store: &'a RedisStore,
    pub(super) options: &'a ScanOptions,
    pub(super) target_layout: Layout,
    pub(super) owner: LeaseOwner,
}

/// The values of one record in both layouts, and the other keys on which its migration depends.
pub(super) struct RecordFacts {
    /// The values in the layout of the store.
    pub(super) source: Vec<RawValue>,
    /// The values in the target layout.
    pub(super) target: Vec<RawValue>,
    /// The time at which the user logged out everywhere, if it is stored.
    pub(super) revoked_at: Option<Timestamp>,
    /// The tombstone in the target layout, if there is one: the fingerprint of a refresh token that
    /// WeChat has rejected.
    tombstone: Option<String>,
    /// The time to live of the copy, if its key expires.
    pub(super) target_ttl: Option<Duration>,
}

impl RecordFacts {
    /// Returns `true` if a service of the target layout has deleted this record because WeChat had
    /// rejected the refresh token of the record.
    pub(super) fn is_tombstoned(&self, record: &Record) -> bool {
        let refresh = record.refresh.as_ref();
        let token =
            refresh.map(|refresh| tombstone_fingerprint(refresh.secret.expose().as_bytes()));
        token.is_some() && token == self.tombstone
    }
}

impl Migration<'_> {
    /// Returns the slot of the tokens of each of these users.
    pub(super) fn user_slots(&self, ids: &[String]) -> Vec<CredentialSlot> {
        let slots = ids
            .iter()
            .map(|id| self.options.slot(CredentialKind::User, id));
        slots.collect()
    }

    /// Returns the locations of a slot: in the layout of the store, and in the target layout.
    pub(super) fn locations<'a>(&'a self, slot: &'a CredentialSlot) -> [Location<'a>; 2] {
        let names = &self.store.0.names;
        [self.store.0.layout, self.target_layout].map(|layout| names.location(layout, &slot.key))
    }

    /// Reads the facts of each slot in two round trips: the values in both layouts, then the
    /// logout, the tombstone and the time to live.
    pub(super) async fn read_facts(
        &self,
        slots: &[CredentialSlot],
    ) -> Result<Vec<RecordFacts>, Error> {
        let sides: Vec<[Location<'_>; 2]> = slots.iter().map(|slot| self.locations(slot)).collect();
        let locations: Vec<&Location<'_>> = sides.iter().flatten().collect();
        let mut values = self.store.read_locations(&locations).await?.into_iter();
        let side_reads = slots.iter().zip(&sides).flat_map(|(slot, [_, target])| {
            let key = target.keys.first().map_or("", |key| &key.key);
            let names = &self.store.0.names;
            let tombstone = names.tombstone_key(&slot.key, target);
            [
                Cmd::get(names.revocation_key(&slot.key)),
                Cmd::get(tombstone),
                Cmd::pttl(key),
            ]
        });
        let side_reads: Vec<Cmd> = side_reads.collect();
        let replies: Vec<Value> = match side_reads.is_empty() {
            true => Vec::new(),
            false => self.store.read_all(&side_reads).await?,
        };
        let mut replies = replies.into_iter();
        let mut facts = Vec::with_capacity(slots.len());
        for _ in slots {
            // A value of another type or form was not written by this crate, and is ignored.
            let revoked: Option<i64> = replies
                .next()
                .and_then(|reply| from_redis_value(reply).ok())
                .flatten();
            let tombstone_text: Option<String> = replies
                .next()
                .and_then(|reply| from_redis_value(reply).ok())
                .flatten();
            let ttl_millis: Option<i64> = replies
                .next()
                .and_then(|reply| from_redis_value(reply).ok());
            facts.push(RecordFacts {
                source: values.next().unwrap_or_default(),
                target: values.next().unwrap_or_default(),
                revoked_at: revoked.map(parse_revoked_at),
                tombstone: tombstone_text,
                target_ttl: ttl_millis
                    .and_then(|millis| u64::try_from(millis).ok())
                    .map(Duration::from_millis),
            });
        }
        Ok(facts)
    }

    /// Removes the record of the target layout if neither layout has changed since `facts` was
    /// read. Returns `None` if a value has changed.
    pub(super) async fn remove_target(
        &self,
        slot: &CredentialSlot,
        facts: &RecordFacts,
    ) -> Result<Option<RecordOutcome>, Error> {
        if self.options.dry_run {
            return Ok(Some(RecordOutcome::Removed));
        }
        let nothing = std::iter::repeat_with(|| NewValue::Set(None, Duration::ZERO));
        let message = invalidation_message(&slot.key, None);
        Ok(
            match self
                .write_target(slot, facts, nothing, Some(message))
                .await?
            {
                ApplyResult::Applied => Some(RecordOutcome::Removed),
                ApplyResult::Busy => Some(RecordOutcome::Busy),
                ApplyResult::Conflict => None,
            },
        )
    }

    /// Writes the keys of the target layout in one step. Writes nothing if a layout no longer holds
    /// the values of `facts`, or if a process holds a lease of the record. After the write,
    /// publishes `message` to the services of the account.
    pub(super) async fn write_target<'v>(
        &self,
        slot: &CredentialSlot,
        facts: &RecordFacts,
        new_values: impl IntoIterator<Item = NewValue<'v>>,
        message: Option<String>,
    ) -> Result<ApplyResult, Error> {
        let [source, target] = self.locations(slot);
        let kept = std::iter::repeat_with(|| NewValue::Keep);
        let read = source.keys.iter().zip(&facts.source).zip(kept);
        let written = target.keys.iter().zip(&facts.target).zip(new_values);
        let changes: Vec<KeyChange<'_>> = read
            .chain(written)
            .map(|((key, expected), new)| KeyChange { key, expected, new })
            .collect();
        let names = &self.store.0.names;
        let leases = [&source, &target].map(|location| names.lease_key(&slot.key, location));
        let invalidation = message.map(|message| (&slot.key.app, message));
        self.store
            .apply_changes(&leases, &self.owner, &changes, invalidation)
            .await
    }
}

/// Returns `true` if the user has logged out everywhere since WeChat issued the tokens.
///
/// A login by this crate stores the time of the last logout in the record. A service of the
/// published layout does not store this time. For a record of such a service, the expiry of the
/// access token shows when WeChat issued the token. A token that was issued within [`CLOCK_SKEW`]
/// after the logout counts as revoked.
pub(super) fn is_revoked(record: &Record, revoked_at: Option<Timestamp>) -> bool {
    let Some(revoked_at) = revoked_at else {
        return false;
    };
    if record
        .details
        .sessions_valid_from
        .is_some_and(|from| from >= revoked_at)
    {
        return false;
    }
    let token = record.token.as_ref();
    let issued_at = token.map(|token| {
        token
            .lifetime
            .expires_at()
            .saturating_sub(STANDARD_LIFETIME)
    });
    issued_at.is_none_or(|issued_at| issued_at < revoked_at.saturating_add(CLOCK_SKEW))
}
