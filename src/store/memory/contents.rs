//! The contents of a [`MemoryStore`](super::MemoryStore), and the steps that change them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use zeroize::Zeroizing;

use super::expiring_map::{ExpiringMap, MIN_SWEEP_LEN};
#[cfg(feature = "platform")]
use super::platform_contents::PlatformContents;
use crate::clock::Timestamp;
use crate::credential::{AppId, Record};
use crate::shrink::shrink_map;
use crate::store::invalidation::Publisher;
use crate::store::{
    CodeBindResult, CodeLeaseResult, CommitResult, CredentialKey, CredentialSlot, Event, Expected,
    Invalidation, LeaseOwner, LeaseResult, LoginCodeKey, MIN_TOMBSTONE_TTL, PendingResponse, Quota,
    RecordVersion, ReplaceResult, StoredRecord, Suspension, replaced_refresh_token,
};

/// Everything that a [`MemoryStore`](super::MemoryStore) holds. One lock guards it, so each method
/// is one atomic step.
#[derive(Default)]
pub(super) struct Contents {
    records: HashMap<CredentialKey, RecordEntry>,
    /// Number of records from which a write removes the unusable records, but at least
    /// [`MIN_SWEEP_LEN`].
    sweep_records_at: usize,
    leases: ExpiringMap<CredentialKey, LeaseOwner>,
    /// The tombstones: the refresh token of each pair whose deletion was announced or committed.
    tombstones: ExpiringMap<CredentialKey, Zeroizing<Vec<u8>>>,
    /// The number of uses of each quota, by account and purpose.
    quotas: ExpiringMap<(AppId, Box<str>), u32>,
    codes: ExpiringMap<LoginCodeKey, CodeState>,
    /// WeChat's response for each code whose exchange is suspended.
    pending_responses: ExpiringMap<LoginCodeKey, PendingResponse>,
    /// The login to which each code is bound.
    code_bindings: ExpiringMap<LoginCodeKey, u64>,
    /// The time at which each user last logged out everywhere.
    revocations: ExpiringMap<CredentialKey, Timestamp>,
    /// The durable secrets and the accounts of third-party platforms.
    #[cfg(feature = "platform")]
    pub(super) platform: PlatformContents,
    /// The number of writes so far. Each record keeps the number of its write, so that
    /// [`Expected`] never matches an equal record of a later write (no ABA).
    write_count: u64,
    /// The publisher of writes. `None` until the first subscription.
    publisher: Option<Publisher>,
}

/// The state of the exchange of a login code.
enum CodeState {
    /// This owner holds the lease and exchanges the code.
    Leased(LeaseOwner),
    /// The exchange has finished with this outcome.
    Finished(String),
}

struct RecordEntry {
    record: Record,
    write_number: u64,
}

impl Contents {
    pub(super) fn record_count(&self) -> usize {
        self.records.len()
    }

    /// Removes all leases, to simulate a fail-over of Redis that loses them.
    #[cfg(test)]
    pub(super) fn drop_leases(&mut self) {
        self.leases.clear();
    }

    pub(super) fn publisher(&mut self) -> &mut Publisher {
        self.publisher.get_or_insert_default()
    }

    pub(super) fn stored_record(&self, slot: &CredentialSlot) -> StoredRecord {
        let entry = self.records.get(&slot.key);
        StoredRecord {
            record: entry.map_or_else(Record::default, |entry| entry.record.clone()),
            expected: expected_of(entry),
        }
    }

    fn matches(&self, slot: &CredentialSlot, expected: &Expected) -> bool {
        expected_of(self.records.get(&slot.key)) == *expected
    }

    fn is_leased_to_other(
        &self,
        slot: &CredentialSlot,
        owner: &LeaseOwner,
        now: Timestamp,
    ) -> bool {
        let holder = self.leases.get(&slot.key, now);
        holder.is_some_and(|holder| holder != owner)
    }

    pub(super) fn acquire_lease(
        &mut self,
        slot: &CredentialSlot,
        expected: &Expected,
        owner: &LeaseOwner,
        ttl: Duration,
        now: Timestamp,
    ) -> LeaseResult {
        if !self.matches(slot, expected) {
            return LeaseResult::Conflict(self.stored_record(slot));
        }
        if self.is_leased_to_other(slot, owner, now) {
            return LeaseResult::Busy;
        }
        let expires_at = now.saturating_add(ttl);
        self.leases
            .insert(slot.key.clone(), owner.clone(), expires_at, now);
        LeaseResult::Acquired
    }

    /// Removes the lease, if `owner` holds the lease. Returns `true` if so.
    pub(super) fn release_lease(
        &mut self,
        slot: &CredentialSlot,
        owner: &LeaseOwner,
        now: Timestamp,
    ) -> bool {
        let is_held = self.leases.get(&slot.key, now) == Some(owner);
        if is_held {
            self.leases.remove(&slot.key);
        }
        is_held
    }

    pub(super) fn announce_deletion(
        &mut self,
        slot: &CredentialSlot,
        expected: &Expected,
        owner: &LeaseOwner,
        ttl: Duration,
        now: Timestamp,
    ) -> LeaseResult {
        let result = self.acquire_lease(slot, expected, owner, ttl, now);
        if matches!(result, LeaseResult::Acquired) {
            self.write_tombstone(slot, expected, now);
        }
        result
    }

    pub(super) fn commit(
        &mut self,
        slot: &CredentialSlot,
        expected: &Expected,
        record: &Record,
        owner: &LeaseOwner,
        now: Timestamp,
    ) -> CommitResult {
        // The tombstone is read first, because `write_record` below removes it.
        let replaces_tombstoned = self.has_tombstone_of_previous(slot, expected, record, now);
        let may_fill_empty = replaces_tombstoned && !self.records.contains_key(&slot.key);
        if !self.matches(slot, expected) && !may_fill_empty {
            self.release_lease(slot, owner, now);
            return CommitResult::Conflict(self.stored_record(slot));
        }
        if self.is_leased_to_other(slot, owner, now) && !replaces_tombstoned {
            return CommitResult::LeaseLost;
        }
        self.write_record(slot, record, now);
        self.release_lease(slot, owner, now);
        CommitResult::Committed
    }

    pub(super) fn commit_deletion(
        &mut self,
        slot: &CredentialSlot,
        expected: &Expected,
        owner: &LeaseOwner,
        now: Timestamp,
    ) -> CommitResult {
        let result = self.commit(slot, expected, &Record::default(), owner, now);
        // The tombstone is written after the commit, because the commit removes tombstones.
        if matches!(result, CommitResult::Committed) {
            self.write_tombstone(slot, expected, now);
        }
        result
    }

    /// Returns `true` if a tombstone names the refresh token that `record` replaces.
    fn has_tombstone_of_previous(
        &self,
        slot: &CredentialSlot,
        expected: &Expected,
        record: &Record,
        now: Timestamp,
    ) -> bool {
        let previous = replaced_refresh_token(expected_refresh_token(expected), record);
        let tombstone = self.tombstones.get(&slot.key, now);
        previous.is_some() && tombstone.map(|token| token.as_slice()) == previous
    }

    fn write_tombstone(&mut self, slot: &CredentialSlot, expected: &Expected, now: Timestamp) {
        let Some(token) = expected_refresh_token(expected) else {
            return;
        };
        let token = Zeroizing::new(token.to_vec());
        let expires_at = now.saturating_add(MIN_TOMBSTONE_TTL);
        self.tombstones
            .insert(slot.key.clone(), token, expires_at, now);
    }

    pub(super) fn replace(
        &mut self,
        slot: &CredentialSlot,
        expected: &Expected,
        record: &Record,
        now: Timestamp,
    ) -> ReplaceResult {
        if !self.matches(slot, expected) {
            return ReplaceResult::Conflict(self.stored_record(slot));
        }
        self.write_record(slot, record, now);
        ReplaceResult::Replaced
    }

    /// Writes a record, removes the tombstone, and publishes the change. An empty record deletes
    /// the stored record.
    pub(super) fn write_record(&mut self, slot: &CredentialSlot, record: &Record, now: Timestamp) {
        self.write_count += 1;
        self.tombstones.remove(&slot.key);
        // A subscriber that has received this message cannot read the old record. A read needs the
        // lock, which the caller holds until the record is written.
        if let Some(publisher) = &mut self.publisher {
            publisher.publish(&Event::Invalidated(Arc::new(Invalidation {
                key: slot.key.clone(),
                version: RecordVersion::of_record(record),
            })));
        }
        if record.is_empty() {
            self.records.remove(&slot.key);
            shrink_map(&mut self.records);
            return;
        }
        let entry = RecordEntry {
            record: record.clone(),
            write_number: self.write_count,
        };
        self.records.insert(slot.key.clone(), entry);
        if self.records.len() >= self.sweep_records_at.max(MIN_SWEEP_LEN) {
            self.records
                .retain(|_, entry| !entry.record.is_unusable(now));
            shrink_map(&mut self.records);
            self.sweep_records_at = self.records.len() * 2;
        }
    }

    pub(super) fn try_consume(&mut self, quota: &Quota, now: Timestamp) -> bool {
        let key = (quota.app.clone(), quota.purpose.clone());
        match self.quotas.get_mut(&key, now) {
            Some(used) => {
                let is_available = *used < quota.limit;
                *used += u32::from(is_available);
                is_available
            }
            None => {
                let is_available = quota.limit > 0;
                let expires_at = now.saturating_add(quota.window);
                self.quotas
                    .insert(key, u32::from(is_available), expires_at, now);
                is_available
            }
        }
    }

    pub(super) fn bind_code(
        &mut self,
        code: &LoginCodeKey,
        login: u64,
        ttl: Duration,
        now: Timestamp,
    ) -> CodeBindResult {
        let result = match self.code_bindings.get(code, now) {
            Some(other) if *other != login => return CodeBindResult::BoundElsewhere,
            Some(_) => CodeBindResult::AlreadyBound,
            None => CodeBindResult::Bound,
        };
        let expires_at = now.saturating_add(ttl);
        self.code_bindings
            .insert(code.clone(), login, expires_at, now);
        result
    }

    pub(super) fn acquire_code(
        &mut self,
        code: &LoginCodeKey,
        owner: &LeaseOwner,
        ttl: Duration,
        now: Timestamp,
    ) -> CodeLeaseResult {
        match self.codes.get(code, now) {
            Some(CodeState::Finished(outcome)) => {
                return CodeLeaseResult::Finished(outcome.clone());
            }
            Some(CodeState::Leased(holder)) if holder != owner => return CodeLeaseResult::Busy,
            Some(CodeState::Leased(_)) | None => {}
        }
        let state = CodeState::Leased(owner.clone());
        let expires_at = now.saturating_add(ttl);
        self.codes.insert(code.clone(), state, expires_at, now);
        match self.pending_responses.get(code, now) {
            Some(response) => CodeLeaseResult::Resumed(response.clone()),
            None => CodeLeaseResult::Acquired,
        }
    }

    pub(super) fn release_code(
        &mut self,
        code: &LoginCodeKey,
        owner: &LeaseOwner,
        now: Timestamp,
    ) -> bool {
        let is_held = self.is_code_leased_to(code, owner, now);
        if is_held {
            self.codes.remove(code);
        }
        is_held
    }

    pub(super) fn finish_code(
        &mut self,
        code: &LoginCodeKey,
        owner: Option<&LeaseOwner>,
        outcome: &str,
        ttl: Duration,
        now: Timestamp,
    ) {
        if owner.is_none_or(|owner| self.is_code_leased_to(code, owner, now)) {
            let state = CodeState::Finished(outcome.to_owned());
            let expires_at = now.saturating_add(ttl);
            self.codes.insert(code.clone(), state, expires_at, now);
            self.pending_responses.remove(code);
        }
    }

    pub(super) fn suspend_code(
        &mut self,
        code: &LoginCodeKey,
        owner: &LeaseOwner,
        suspension: &Suspension<'_>,
        now: Timestamp,
    ) -> bool {
        match self.codes.get(code, now) {
            Some(CodeState::Leased(holder)) if holder != owner => return false,
            Some(CodeState::Finished(_)) => return false,
            Some(CodeState::Leased(_)) | None => {}
        }
        let state = CodeState::Finished(suspension.outcome.to_owned());
        let expires_at = now.saturating_add(suspension.outcome_ttl);
        self.codes.insert(code.clone(), state, expires_at, now);
        let (response, key) = (suspension.response.clone(), code.clone());
        let expires_at = now.saturating_add(suspension.response_ttl);
        self.pending_responses
            .insert(key, response, expires_at, now);
        true
    }

    fn is_code_leased_to(&self, code: &LoginCodeKey, owner: &LeaseOwner, now: Timestamp) -> bool {
        match self.codes.get(code, now) {
            Some(CodeState::Leased(holder)) => holder == owner,
            Some(CodeState::Finished(_)) | None => false,
        }
    }

    pub(super) fn set_revoked_at(
        &mut self,
        key: &CredentialKey,
        at: Timestamp,
        ttl: Duration,
        now: Timestamp,
    ) {
        let next = |last: &Timestamp| last.saturating_add(Duration::from_millis(1));
        let earliest = self.revocations.get(key, now).map(next);
        let at = earliest.map_or(at, |earliest| at.max(earliest));
        let expires_at = now.saturating_add(ttl);
        self.revocations.insert(key.clone(), at, expires_at, now);
    }

    pub(super) fn revoked_at(&self, key: &CredentialKey, now: Timestamp) -> Option<Timestamp> {
        self.revocations.get(key, now).copied()
    }
}

/// Returns the values with which a later commit compares: the number of the write that stored the
/// record, and the refresh token of the record.
fn expected_of(entry: Option<&RecordEntry>) -> Expected {
    let write = entry.map(|entry| entry.write_number.to_be_bytes().to_vec());
    let refresh = entry.and_then(|entry| entry.record.refresh.as_ref());
    let refresh = refresh.map(|refresh| refresh.secret.expose().as_bytes().to_vec());
    Expected([write, refresh].map(|part| part.map(Zeroizing::new)).into())
}

fn expected_refresh_token(expected: &Expected) -> Option<&[u8]> {
    expected.0.get(1)?.as_ref().map(|token| token.as_slice())
}
