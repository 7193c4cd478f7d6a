//! Writes of credentials: leases, commits and logins.

use std::time::Duration;

use redis::FromRedisValue;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::codec::{RawValue, Write, decode, encode};
use super::invalidation::invalidation_message;
use super::locations::Locations;
use super::publish::OutgoingInvalidation;
use super::scripts::{ScriptCall, Step};
use super::seal::Sealer;
use super::store::RedisStore;
use crate::clock::duration_millis;
use crate::credential::record_lifetime::MAX_KEY_TTL;
use crate::credential::{Record, RefreshToken};
use crate::error::Error;
use crate::store::{
    BoxFuture, CommitResult, CredentialSlot, CredentialWriter, Expected, LeaseOwner, LeaseResult,
    MIN_TOMBSTONE_TTL, RecordVersion, StoredRecord, replaced_refresh_token,
};

/// How often a value may be sealed anew between the start of a renewal and its commit.
const MAX_RESEAL_RETRIES: usize = 3;

/// How long the tombstone of a deleted pair stays: as long as a copy of the pair in the other layout
/// may look alive, so that a move does not bring it back. Only users who came back with a dead
/// refresh token and did not log in again have one.
const TOMBSTONE_TTL: Duration = MAX_KEY_TTL;

impl RedisStore {
    async fn try_acquire_lease(
        &self,
        slot: &CredentialSlot,
        expected: &Expected,
        owner: &LeaseOwner,
        ttl: Duration,
        tombstone: &str,
    ) -> Result<LeaseResult, Error> {
        self.0.sealer.check_replaceable(slot, expected)?;
        let places = self.locations(slot);
        let place = &places.read;
        let mut call = begin_step(Step::AcquireLease, &places);
        call.arg(owner.as_str()).arg(duration_millis(ttl));
        call.arg(tombstone).arg(duration_millis(MIN_TOMBSTONE_TTL));
        for (cell, expected) in place.keys.iter().zip(&expected.0) {
            call.value_key(&*cell.key)
                .arg(cell.field.unwrap_or(""))
                .arg(encode_expected(expected).as_slice());
        }
        Ok(match self.run_script(&call).await? {
            ScriptReply(1, _) => LeaseResult::Acquired,
            ScriptReply(0, _) => LeaseResult::Busy,
            ScriptReply(_, values) => {
                let stored = decode(place, slot, values, &self.0.sealer);
                LeaseResult::Conflict(self.with_revocation(slot, stored).await?)
            }
        })
    }

    async fn write_if_unchanged(
        &self,
        slot: &CredentialSlot,
        expected: &Expected,
        record: &Record,
        owner: &LeaseOwner,
        tombstone: &str,
    ) -> Result<CommitResult, Error> {
        let write = async |expected: &Expected| {
            self.write_once(slot, expected, record, owner, tombstone)
                .await
        };
        let mut outcome = write(expected).await?;
        let started_from = &expected.0;
        for _ in 0..MAX_RESEAL_RETRIES {
            // The same record in another seal is no news: what WeChat has granted from it counts
            // (R3).
            let newer = match &outcome {
                CommitResult::Conflict(newer)
                    if self.differs_only_in_seal(slot, started_from, newer) =>
                {
                    newer
                }
                _ => break,
            };
            let witness = newer.expected.clone();
            outcome = write(&witness).await?;
        }
        Ok(outcome)
    }

    /// Whether what lies in a slot differs from what lay there in its seal alone.
    fn differs_only_in_seal(
        &self,
        slot: &CredentialSlot,
        expected: &[Option<Zeroizing<Vec<u8>>>],
        now: &StoredRecord,
    ) -> bool {
        let seal = &self.0.sealer;
        let place = self.locations(slot).read;
        let sealed = |value: &Option<Zeroizing<Vec<u8>>>| {
            value.as_ref().is_some_and(|value| Sealer::is_sealed(value))
        };
        let touched = expected.iter().chain(&now.expected.0).any(sealed);
        let values = || {
            expected
                .iter()
                .map(|value| value.as_ref().map(|bytes| bytes.to_vec()))
        };
        if !touched || now.record.is_empty() {
            return false;
        }
        let mut before = decode(&place, slot, values().collect(), seal).record;
        // What has been looked up besides is in neither of the values.
        let details = &mut before.details;
        details.sessions_valid_from = details
            .sessions_valid_from
            .or(now.record.details.sessions_valid_from);
        before == now.record
    }

    /// The refresh token in what was expected.
    fn expected_refresh_token(
        &self,
        slot: &CredentialSlot,
        expected: &Expected,
    ) -> Option<RefreshToken> {
        let place = self.0.names.location(self.0.layout, &slot.key);
        let values = expected.0.iter();
        let values = values.map(|value| value.as_ref().map(|bytes| bytes.to_vec()));
        let stored = decode(&place, slot, values.collect(), &self.0.sealer);
        stored.record.refresh.map(|refresh| refresh.secret)
    }

    /// What a tombstone for `expected` says; nothing where there is no refresh token.
    fn tombstone_value(&self, slot: &CredentialSlot, expected: &Expected) -> String {
        let token = self.expected_refresh_token(slot, expected);
        token.map_or_else(String::new, |token| {
            tombstone_fingerprint(token.expose().as_bytes())
        })
    }

    /// One try to write where the slot holds `expected`.
    async fn write_once(
        &self,
        slot: &CredentialSlot,
        expected: &Expected,
        record: &Record,
        owner: &LeaseOwner,
        tombstone: &str,
    ) -> Result<CommitResult, Error> {
        self.0.sealer.check_replaceable(slot, expected)?;
        let places = self.locations(slot);
        let now = self.0.clock.now();
        let mut call = begin_step(Step::Commit, &places);
        let before = self.expected_refresh_token(slot, expected);
        let before = before.as_ref().map(|token| token.expose().as_bytes());
        let before =
            replaced_refresh_token(before, record).map_or_else(String::new, tombstone_fingerprint);
        call.arg(owner.as_str()).arg(before);
        call.arg(tombstone).arg(duration_millis(TOMBSTONE_TTL));
        let compared = expected.0.iter().map(encode_expected);
        let read = places.read.keys.iter().zip(compared);
        let written = places.copy.iter().flat_map(|mirror| &*mirror.keys);
        let cells = read.chain(written.map(|cell| (cell, encode_any())));
        let mut news = Vec::new();
        for (place, written_for) in places.with_targets() {
            news.extend(encode(
                place,
                slot,
                record,
                written_for,
                now,
                &self.0.sealer,
            )?);
        }
        for ((cell, expected), new) in cells.zip(news) {
            let value = new.value.as_ref().map(|text| text.as_bytes());
            call.value_key(&*cell.key)
                .arg(cell.field.unwrap_or(""))
                .arg(expected.as_slice())
                .arg(encode_expected(&value).as_slice())
                .arg(duration_millis(new.ttl));
        }
        Ok(
            match self
                .run_write(call, self.outgoing_invalidation(slot, record))
                .await?
            {
                ScriptReply(1, _) => CommitResult::Committed,
                ScriptReply(0, _) => CommitResult::LeaseLost,
                ScriptReply(_, values) => {
                    let stored = decode(&places.read, slot, values, &self.0.sealer);
                    CommitResult::Conflict(self.with_revocation(slot, stored).await?)
                }
            },
        )
    }

    async fn write_unconditionally(
        &self,
        slot: &CredentialSlot,
        record: &Record,
    ) -> Result<(), Error> {
        let places = self.locations(slot);
        let now = self.0.clock.now();
        let mut call = ScriptCall::for_step(Step::Overwrite);
        for tombstone in &places.tombstone_keys {
            call.tombstone_key(tombstone);
        }
        for (place, written_for) in places.with_targets() {
            let news = encode(place, slot, record, written_for, now, &self.0.sealer)?;
            for (cell, Write { value, ttl }) in place.keys.iter().zip(&news) {
                let value = value.as_ref().map(|text| text.as_bytes());
                call.value_key(&*cell.key)
                    .arg(cell.field.unwrap_or(""))
                    .arg(encode_expected(&value).as_slice())
                    .arg(duration_millis(*ttl));
            }
        }
        let written = self
            .run_write(call, self.outgoing_invalidation(slot, record))
            .await;
        written.map(drop)
    }

    /// What a script that writes tells the others.
    fn outgoing_invalidation(
        &self,
        slot: &CredentialSlot,
        record: &Record,
    ) -> Option<OutgoingInvalidation> {
        Some(OutgoingInvalidation {
            channel: self.0.names.invalidation_channel(&slot.key.app),
            message: invalidation_message(&slot.key, RecordVersion::of_record(record)),
        })
    }
}

/// Begins the call of a step that works under the leases of these places.
fn begin_step(step: Step, places: &Locations<'_>) -> ScriptCall {
    let mut call = ScriptCall::for_step(step);
    for key in &places.lease_keys {
        call.lease_key(key);
    }
    for key in &places.tombstone_keys {
        call.tombstone_key(key);
    }
    call
}

/// Names a token without telling it: half of its hash, of which there are too many to find another
/// token for.
pub(super) fn tombstone_fingerprint(token: &[u8]) -> String {
    let digest = Sha256::digest(token);
    let half = digest.iter().take(16);
    half.map(|byte| format!("{byte:02x}")).collect()
}

/// A script's answer: a number, and the values of the cells where they were not as expected.
pub(super) struct ScriptReply(pub(super) i64, pub(super) Vec<RawValue>);

impl FromRedisValue for ScriptReply {
    fn from_redis_value(value: redis::Value) -> Result<Self, redis::ParsingError> {
        let mut parts = Vec::<redis::Value>::from_redis_value(value)?.into_iter();
        let number = parts.next().map_or(Ok(-1), i64::from_redis_value)?;
        let values = parts.next().map_or(Ok(Vec::new()), Vec::from_redis_value)?;
        Ok(Self(number, values))
    }
}

/// How the scripts take a value that may be missing.
pub(super) fn encode_expected(value: &Option<impl AsRef<[u8]>>) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(match value {
        Some(bytes) => [b"=", bytes.as_ref()].concat(),
        None => b"-".to_vec(),
    })
}

/// How the scripts take a cell that is written whatever lies there.
pub(super) fn encode_any() -> Zeroizing<Vec<u8>> {
    Zeroizing::new(b"*".to_vec())
}

impl CredentialWriter for RedisStore {
    fn acquire_lease<'a>(
        &'a self,
        slot: &'a CredentialSlot,
        expected: &'a Expected,
        owner: &'a LeaseOwner,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<LeaseResult, Error>> {
        Box::pin(self.try_acquire_lease(slot, expected, owner, ttl, ""))
    }

    fn announce_deletion<'a>(
        &'a self,
        slot: &'a CredentialSlot,
        expected: &'a Expected,
        owner: &'a LeaseOwner,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<LeaseResult, Error>> {
        Box::pin(async move {
            let tombstone = self.tombstone_value(slot, expected);
            self.try_acquire_lease(slot, expected, owner, ttl, &tombstone)
                .await
        })
    }

    fn commit<'a>(
        &'a self,
        slot: &'a CredentialSlot,
        expected: &'a Expected,
        record: &'a Record,
        owner: &'a LeaseOwner,
    ) -> BoxFuture<'a, Result<CommitResult, Error>> {
        Box::pin(self.write_if_unchanged(slot, expected, record, owner, ""))
    }

    fn commit_deletion<'a>(
        &'a self,
        slot: &'a CredentialSlot,
        expected: &'a Expected,
        owner: &'a LeaseOwner,
    ) -> BoxFuture<'a, Result<CommitResult, Error>> {
        Box::pin(async move {
            let (nothing, tombstone) = (Record::default(), self.tombstone_value(slot, expected));
            self.write_if_unchanged(slot, expected, &nothing, owner, &tombstone)
                .await
        })
    }

    fn release_lease<'a>(
        &'a self,
        slot: &'a CredentialSlot,
        owner: &'a LeaseOwner,
    ) -> BoxFuture<'a, Result<bool, Error>> {
        Box::pin(async move {
            let places = self.locations(slot);
            let mut call = ScriptCall::for_step(Step::ReleaseLeases);
            for lease in &places.lease_keys {
                call.lease_key(lease);
            }
            call.arg(owner.as_str());
            self.run_script::<i64>(&call).await.map(|gone| gone > 0)
        })
    }

    fn overwrite<'a>(
        &'a self,
        slot: &'a CredentialSlot,
        record: &'a Record,
    ) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(self.write_unconditionally(slot, record))
    }
}
