//! One migration between layouts: what it knows of each record, and how it removes one.

use std::time::Duration;

use redis::{Cmd, Value as Answer, from_redis_value};

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

/// How much the clocks of the processes that logged a user in and out may differ.
const CLOCK_SKEW: Duration = Duration::from_secs(120);

/// Moves the records of one account from the layout of a store to the other one.
pub(super) struct Migration<'a> {
    pub(super) store: &'a RedisStore,
    pub(super) options: &'a ScanOptions,
    pub(super) target_layout: Layout,
    pub(super) owner: LeaseOwner,
}

/// What is known of one record before anything is done.
pub(super) struct RecordFacts {
    /// What lies in the layout that is copied from.
    pub(super) source: Vec<RawValue>,
    /// What lies in the layout that is copied to.
    pub(super) target: Vec<RawValue>,
    /// When the user logged out everywhere, if that is remembered.
    pub(super) revoked_at: Option<Timestamp>,
    /// The fingerprint of the refresh token that died in the layout that is copied to.
    tombstone: Option<String>,
    /// How long the key of the copy lives, where it has an end.
    pub(super) target_ttl: Option<Duration>,
}

impl RecordFacts {
    /// Returns `true` if a service of the other layout has deleted this pair because its refresh
    /// token was dead.
    pub(super) fn is_tombstoned(&self, record: &Record) -> bool {
        let refresh = record.refresh.as_ref();
        let token =
            refresh.map(|refresh| tombstone_fingerprint(refresh.secret.expose().as_bytes()));
        token.is_some() && token == self.tombstone
    }
}

impl Migration<'_> {
    pub(super) fn user_slots(&self, ids: &[String]) -> Vec<CredentialSlot> {
        let slots = ids
            .iter()
            .map(|id| self.options.slot(CredentialKind::User, id));
        slots.collect()
    }

    /// Both sides of a slot.
    pub(super) fn locations<'a>(&'a self, slot: &'a CredentialSlot) -> [Location<'a>; 2] {
        let names = &self.store.0.names;
        [self.store.0.layout, self.target_layout].map(|layout| names.location(layout, &slot.key))
    }

    /// What is known of each of these, in two exchanges.
    pub(super) async fn read_facts(
        &self,
        slots: &[CredentialSlot],
    ) -> Result<Vec<RecordFacts>, Error> {
        let sides: Vec<[Location<'_>; 2]> = slots.iter().map(|slot| self.locations(slot)).collect();
        let places: Vec<&Location<'_>> = sides.iter().flatten().collect();
        let mut values = self.store.read_locations(&places).await?.into_iter();
        let beside = slots.iter().zip(&sides).flat_map(|(slot, [_, into])| {
            let key = into.keys.first().map_or("", |cell| &cell.key);
            let names = &self.store.0.names;
            let tombstone = names.tombstone_key(&slot.key, into);
            [
                Cmd::get(names.revocation_key(&slot.key)),
                Cmd::get(tombstone),
                Cmd::pttl(key),
            ]
        });
        let beside: Vec<Cmd> = beside.collect();
        let beside: Vec<Answer> = match beside.is_empty() {
            true => Vec::new(),
            false => self.store.read_all(&beside).await?,
        };
        let mut beside = beside.into_iter();
        let mut facts = Vec::with_capacity(slots.len());
        for _ in slots {
            // What is remembered of a logout in another form than ours is not ours.
            let revoked: Option<i64> = beside
                .next()
                .and_then(|answer| from_redis_value(answer).ok())
                .flatten();
            let buried: Option<String> = beside
                .next()
                .and_then(|answer| from_redis_value(answer).ok())
                .flatten();
            let lives: Option<i64> = beside
                .next()
                .and_then(|answer| from_redis_value(answer).ok());
            facts.push(RecordFacts {
                source: values.next().unwrap_or_default(),
                target: values.next().unwrap_or_default(),
                revoked_at: revoked.map(parse_revoked_at),
                tombstone: buried,
                target_ttl: lives
                    .and_then(|lives| u64::try_from(lives).ok())
                    .map(Duration::from_millis),
            });
        }
        Ok(facts)
    }

    /// Removes what lies in the new layout, if both sides hold what they did; none where they do not.
    pub(super) async fn remove_target(
        &self,
        slot: &CredentialSlot,
        facts: &RecordFacts,
    ) -> Result<Option<RecordOutcome>, Error> {
        if self.options.dry_run {
            return Ok(Some(RecordOutcome::Removed));
        }
        let [from, into] = self.locations(slot);
        let kept = from
            .keys
            .iter()
            .zip(&facts.source)
            .map(|pair| (pair, false));
        let gone = into.keys.iter().zip(&facts.target).map(|pair| (pair, true));
        let changes = kept.chain(gone).map(|((cell, expected), goes)| KeyChange {
            key: cell,
            expected,
            new: match goes {
                true => NewValue::Set(None, Duration::ZERO),
                false => NewValue::Keep,
            },
        });
        let changes: Vec<KeyChange<'_>> = changes.collect();
        let names = &self.store.0.names;
        let leases = [&from, &into].map(|place| names.lease_key(&slot.key, place));
        let told = invalidation_message(&slot.key, None);
        let rewritten =
            self.store
                .apply_changes(&leases, &self.owner, &changes, Some((&slot.key.app, told)));
        Ok(match rewritten.await? {
            ApplyResult::Applied => Some(RecordOutcome::Removed),
            ApplyResult::Busy => Some(RecordOutcome::Busy),
            ApplyResult::Conflict => None,
        })
    }
}

/// Whether the user has logged out everywhere since the pair was granted. A login by this crate
/// notes the last logout in its record. Where a service of the published layout has written since,
/// the life of the access token says when it was granted.
pub(super) fn is_revoked(record: &Record, revoked_at: Option<Timestamp>) -> bool {
    let Some(revoked) = revoked_at else {
        return false;
    };
    if record
        .details
        .sessions_valid_from
        .is_some_and(|from| from >= revoked)
    {
        return false;
    }
    let token = record.token.as_ref();
    let granted = token.map(|token| {
        token
            .lifetime
            .expires_at()
            .saturating_sub(STANDARD_LIFETIME)
    });
    granted.is_none_or(|granted| granted < revoked.saturating_add(CLOCK_SKEW))
}
