//! Writes of credentials in Redis: leases, commits and logins.

use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::codec::{Write, decode, encode};
use super::invalidation::invalidation_message;
use super::locations::{Location, Locations};
use super::publish::OutgoingInvalidation;
use super::scripts::{ScriptCall, ScriptReply, Step};
use super::seal::Sealer;
use super::store::RedisStore;
use crate::bytes::encode_hex;
use crate::clock::duration_millis;
use crate::credential::record_lifetime::MAX_KEY_TTL;
use crate::credential::{Record, RefreshToken};
use crate::error::Error;
use crate::store::{
    BoxFuture, CommitResult, CredentialSlot, CredentialWriter, Expected, LeaseOwner, LeaseResult,
    MIN_TOMBSTONE_TTL, RecordVersion, ReplaceResult, StoredRecord, replaced_refresh_token,
};

/// Maximum number of times that a commit is repeated because `reseal` has sealed the stored value
/// again: three. One run of `reseal` seals a value once, so the limit is reached only if several
/// runs overlap.
pub(super) const MAX_RESEAL_RETRIES: usize = 3;

/// TTL of the tombstone of a deleted pair: 32 days. No copy of the pair in the other layout has a
/// longer TTL, so a migration cannot restore the pair from a copy. Only users whose refresh token
/// was revoked or expired, and who have not logged in again, have a tombstone.
const TOMBSTONE_TTL: Duration = MAX_KEY_TTL;

impl RedisStore {
    /// Acquires the lease of a slot. In the same atomic step, writes `tombstone` as the value of
    /// the slot's tombstone, unless the text is empty.
    async fn try_acquire_lease(
        &self,
        slot: &CredentialSlot,
        expected: &Expected,
        owner: &LeaseOwner,
        ttl: Duration,
        tombstone: &str,
    ) -> Result<LeaseResult, Error> {
        self.0
            .sealer
            .check_replaceable(slot.key.kind.as_str(), expected)?;
        let locations = self.locations(slot);
        let location = &locations.read;
        let mut call = begin_step(Step::AcquireLease, &locations);
        call.arg(owner.as_str()).arg(duration_millis(ttl));
        call.arg(tombstone).arg(duration_millis(MIN_TOMBSTONE_TTL));
        for (key, expected) in location.keys.iter().zip(&expected.0) {
            call.value_key(&*key.key)
                .arg(key.field.unwrap_or(""))
                .arg(encode_expected(expected).as_slice());
        }
        let call = Arc::new(call);
        let mut connection = self.0.connection.clone();
        let alone = call.invoke(&mut connection);
        Ok(match self.run_step(&call, alone).await? {
            ScriptReply::Applied | ScriptReply::AppliedUnpublished => LeaseResult::Acquired,
            ScriptReply::Busy => LeaseResult::Busy,
            ScriptReply::Conflict(values) => {
                LeaseResult::Conflict(self.current_record(slot, location, values).await?)
            }
        })
    }

    /// Commits a record, and writes `tombstone` as the value of the slot's tombstone. An empty text
    /// deletes the tombstone instead.
    ///
    /// An operator may seal the stored value with another key between the read and the commit. The
    /// slot then holds the same record in other bytes, which is not a conflict. The commit compares
    /// with the new bytes and tries again, so that the new tokens are not lost.
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
            let CommitResult::Conflict(newer) = &outcome else {
                break;
            };
            if !self.differs_only_in_seal(slot, started_from, newer) {
                break;
            }
            let resealed = newer.expected.clone();
            outcome = write(&resealed).await?;
        }
        Ok(outcome)
    }

    /// Returns `true` if `now` contains the same record as `expected`, and the stored values differ
    /// only in their seal.
    fn differs_only_in_seal(
        &self,
        slot: &CredentialSlot,
        expected: &[Option<Zeroizing<Vec<u8>>>],
        now: &StoredRecord,
    ) -> bool {
        let seal = &self.0.sealer;
        let location = self.locations(slot).read;
        let sealed = |value: &Option<Zeroizing<Vec<u8>>>| {
            value.as_ref().is_some_and(|value| Sealer::is_sealed(value))
        };
        let is_any_sealed = expected.iter().chain(&now.expected.0).any(sealed);
        let values = || {
            expected
                .iter()
                .map(|value| value.as_ref().map(|bytes| bytes.to_vec()))
        };
        if !is_any_sealed || now.record.is_empty() {
            return false;
        }
        let mut before = decode(&location, slot, values().collect(), seal).record;
        // The time of revocation in `now` may come from a separate key. The expected values do not
        // contain the time then.
        let details = &mut before.details;
        details.sessions_valid_from = details
            .sessions_valid_from
            .or(now.record.details.sessions_valid_from);
        before == now.record
    }

    /// Returns the refresh token in the expected values, if there is one.
    fn expected_refresh_token(
        &self,
        slot: &CredentialSlot,
        expected: &Expected,
    ) -> Option<RefreshToken> {
        let location = self.0.names.location(self.0.layout, &slot.key);
        let values = expected.0.iter();
        let values = values.map(|value| value.as_ref().map(|bytes| bytes.to_vec()));
        let stored = decode(&location, slot, values.collect(), &self.0.sealer);
        stored.record.refresh.map(|refresh| refresh.secret)
    }

    /// Returns the value of a tombstone for `expected`. Returns an empty text if `expected`
    /// contains no refresh token.
    fn tombstone_value(&self, slot: &CredentialSlot, expected: &Expected) -> String {
        let token = self.expected_refresh_token(slot, expected);
        token.map_or_else(String::new, |token| {
            tombstone_fingerprint(token.expose().as_bytes())
        })
    }

    /// Runs the commit script once, without a repetition after a `reseal`.
    async fn write_once(
        &self,
        slot: &CredentialSlot,
        expected: &Expected,
        record: &Record,
        owner: &LeaseOwner,
        tombstone: &str,
    ) -> Result<CommitResult, Error> {
        self.0
            .sealer
            .check_replaceable(slot.key.kind.as_str(), expected)?;
        let locations = self.locations(slot);
        let now = self.0.clock.now();
        let mut call = begin_step(Step::Commit, &locations);
        let previous = self.expected_refresh_token(slot, expected);
        let previous = previous.as_ref().map(|token| token.expose().as_bytes());
        let replaced = replaced_refresh_token(previous, record)
            .map_or_else(String::new, tombstone_fingerprint);
        call.arg(owner.as_str()).arg(replaced);
        call.arg(tombstone).arg(duration_millis(TOMBSTONE_TTL));
        let compared = expected.0.iter().map(encode_expected);
        let read = locations.read.keys.iter().zip(compared);
        let written = locations.copy.iter().flat_map(|copy| &*copy.keys);
        // The script compares only the values in the layout that the engine reads.
        let keys = read.chain(written.map(|key| (key, encode_any())));
        let mut writes = Vec::new();
        for (location, target) in locations.with_targets() {
            writes.extend(encode(location, slot, record, target, now, &self.0.sealer)?);
        }
        for ((key, expected), new) in keys.zip(writes) {
            let value = new.value.as_ref().map(|text| text.as_bytes());
            call.value_key(&*key.key)
                .arg(key.field.unwrap_or(""))
                .arg(expected.as_slice())
                .arg(encode_expected(&value).as_slice())
                .arg(duration_millis(new.ttl));
        }
        Ok(
            match self
                .run_write(call, self.outgoing_invalidation(slot, record))
                .await?
            {
                ScriptReply::Applied | ScriptReply::AppliedUnpublished => CommitResult::Committed,
                ScriptReply::Busy => CommitResult::LeaseLost,
                ScriptReply::Conflict(values) => {
                    let current = self.current_record(slot, &locations.read, values);
                    CommitResult::Conflict(current.await?)
                }
            },
        )
    }

    /// Writes a record to all locations of a slot without a lease, and deletes the tombstones. With
    /// `expected`, writes only if the location that the engine reads still holds these values.
    async fn write_without_lease(
        &self,
        slot: &CredentialSlot,
        expected: Option<&Expected>,
        record: &Record,
    ) -> Result<ReplaceResult, Error> {
        let locations = self.locations(slot);
        let now = self.0.clock.now();
        let compared = expected.into_iter().flat_map(|expected| &expected.0);
        let mut compared = compared.map(encode_expected);
        let mut call = ScriptCall::for_step(Step::Overwrite);
        for tombstone in &locations.tombstone_keys {
            call.tombstone_key(tombstone);
        }
        for (location, target) in locations.with_targets() {
            let writes = encode(location, slot, record, target, now, &self.0.sealer)?;
            for (key, Write { value, ttl }) in location.keys.iter().zip(&writes) {
                let value = value.as_ref().map(|text| text.as_bytes());
                // The first location is the one that the engine reads. The script does not compare
                // the values of a second one.
                let expected = compared.next().unwrap_or_else(encode_any);
                call.value_key(&*key.key)
                    .arg(key.field.unwrap_or(""))
                    .arg(expected.as_slice())
                    .arg(encode_expected(&value).as_slice())
                    .arg(duration_millis(*ttl));
            }
        }
        Ok(
            match self
                .run_write(call, self.outgoing_invalidation(slot, record))
                .await?
            {
                ScriptReply::Conflict(values) => {
                    let current = self.current_record(slot, &locations.read, values);
                    ReplaceResult::Conflict(current.await?)
                }
                ScriptReply::Applied | ScriptReply::AppliedUnpublished => ReplaceResult::Replaced,
                ScriptReply::Busy => {
                    let message = "Redis replied to a write without a lease that a lease is held";
                    return Err(Error::store_unavailable(message));
                }
            },
        )
    }

    /// Returns the record in the values that a script has found instead of the expected ones.
    async fn current_record(
        &self,
        slot: &CredentialSlot,
        location: &Location<'_>,
        values: Vec<Option<Vec<u8>>>,
    ) -> Result<StoredRecord, Error> {
        let stored = decode(location, slot, values, &self.0.sealer);
        self.with_revocation(slot, stored).await
    }

    /// Returns the message about this write for other processes.
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

/// Creates a call of a script with the keys of the leases and tombstones of these locations.
fn begin_step(step: Step, locations: &Locations<'_>) -> ScriptCall {
    let mut call = ScriptCall::for_step(step);
    for key in &locations.lease_keys {
        call.lease_key(key);
    }
    for key in &locations.tombstone_keys {
        call.tombstone_key(key);
    }
    call
}

/// Returns the first 128 bits of the SHA-256 hash of a token, in hexadecimal. The hash identifies
/// the token without revealing it.
pub(super) fn tombstone_fingerprint(token: &[u8]) -> String {
    encode_hex(Sha256::digest(token).iter().take(16))
}

/// Encodes a value as an argument of a script: `=` and the bytes, or `-` for a missing value.
pub(super) fn encode_expected(value: &Option<impl AsRef<[u8]>>) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(match value {
        Some(bytes) => [b"=", bytes.as_ref()].concat(),
        None => b"-".to_vec(),
    })
}

/// Returns the argument `*` of a script: as the expected value it matches every value, and as the
/// new value it keeps the stored one.
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
            let locations = self.locations(slot);
            let mut call = ScriptCall::for_step(Step::ReleaseLeases);
            for lease in &locations.lease_keys {
                call.lease_key(lease);
            }
            call.arg(owner.as_str());
            self.run_script::<i64>(&call).await.map(|count| count > 0)
        })
    }

    fn overwrite<'a>(
        &'a self,
        slot: &'a CredentialSlot,
        record: &'a Record,
    ) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            let written = self.write_without_lease(slot, None, record).await;
            written.map(drop)
        })
    }

    fn replace<'a>(
        &'a self,
        slot: &'a CredentialSlot,
        expected: &'a Expected,
        record: &'a Record,
    ) -> BoxFuture<'a, Result<ReplaceResult, Error>> {
        Box::pin(self.write_without_lease(slot, Some(expected), record))
    }
}
