//! The time at which a user last logged out everywhere.
//!
//! A record of this crate contains this time, so that a read takes one round trip. A Java service
//! that writes the published layout drops the time, so the time is missing in its records and in
//! copies of them. This crate therefore also writes the time to a separate key. The store reads
//! that key if a record contains tokens, but no ids, no scope and no time of a logout.

use std::time::Duration;

use redis::Cmd;
use tokio::time::Instant;

use super::codec::RawValue;
use super::read_batches::{BatchedRead, ReadAdmission};
use super::scripts;
use super::store::{RedisStore, command_key};
use crate::clock::{Timestamp, duration_millis};
use crate::credential::{Record, RecordView};
use crate::error::Error;
use crate::store::redis::format::text::parse_revoked_at;
use crate::store::{
    BoxFuture, CredentialKey, CredentialKind, CredentialSlot, RevocationStore, StoredRecord,
};

/// Returns `true` if a record may lack its time of revocation. A record that this crate has written
/// contains at least the openid or the scope, if WeChat returned them.
pub(super) fn may_lack_revocation(slot: &CredentialSlot, record: &RecordView<'_>) -> bool {
    let details = &record.details;
    slot.key.kind == CredentialKind::User
        && (record.token.is_some() || record.refresh.is_some())
        && details.openid.is_none()
        && details.scope.is_none()
        && details.unionid.is_none()
        && details.sessions_valid_from.is_none()
}

impl RedisStore {
    /// Reads the time at which a user last logged out everywhere. Returns the outer `None` if Redis
    /// has not replied within `max_wait`.
    pub(super) async fn read_revoked_at_within(
        &self,
        key: &CredentialKey,
        max_wait: Duration,
    ) -> Result<Option<Option<Timestamp>>, Error> {
        let arrived_at = Instant::now();
        let name = self.0.names.revocation_key(key);
        let operation = || BatchedRead::Key(name.as_str().into());
        let (permit, left) = match self.read_in_batch(operation, arrived_at, max_wait).await {
            ReadAdmission::Answered(Err(error)) => return Err(error),
            ReadAdmission::Answered(Ok(None)) => return Ok(None),
            ReadAdmission::Answered(Ok(Some(values))) => {
                let value = values.take().into_iter().next().flatten();
                return self.revoked_at_of(value).map(Some);
            }
            ReadAdmission::Alone(permit, left) => (permit, left),
        };
        let get = Cmd::get(&name);
        let reading = self.0.connection.read_value(&get);
        let stored = self
            .run_command_within(command_key(&get), left, reading)
            .await?;
        drop(permit);
        stored.map(|value| self.revoked_at_of(value)).transpose()
    }

    /// Returns the time of a logout in a stored value.
    ///
    /// A value that is no number is an error of this user only. As an error of the command, it would
    /// open the circuit, and the commands of all users would fail.
    fn revoked_at_of(&self, value: RawValue) -> Result<Option<Timestamp>, Error> {
        let Some(value) = value else {
            return Ok(None);
        };
        let number = std::str::from_utf8(&value).ok();
        let number = number.and_then(|text| text.parse().ok());
        let number = number.ok_or_else(|| {
            let address = &self.0.address;
            let message = format!("a time of a logout in Redis at {address} is no number");
            Error::store_unavailable(message)
        })?;
        Ok(Some(parse_revoked_at(number)))
    }

    /// Reads the time at which a user last logged out everywhere, without a limit by the caller.
    pub(super) async fn read_revoked_at(
        &self,
        key: &CredentialKey,
    ) -> Result<Option<Timestamp>, Error> {
        let revoked_at = self.read_revoked_at_within(key, Duration::MAX).await?;
        revoked_at.ok_or_else(|| self.overloaded())
    }

    /// Reads the time of revocation and adds it to `stored`, if the record may lack that time.
    pub(super) async fn with_revocation(
        &self,
        slot: &CredentialSlot,
        mut stored: StoredRecord,
    ) -> Result<StoredRecord, Error> {
        if may_lack_revocation(slot, &stored.record.view()) {
            let at = Box::pin(self.read_revoked_at(&slot.key)).await?;
            let Record { details, .. } = &mut stored.record;
            details.sessions_valid_from = at;
        }
        Ok(stored)
    }
}

impl RevocationStore for RedisStore {
    fn set_revoked_at<'a>(
        &'a self,
        key: &'a CredentialKey,
        at: Timestamp,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            let mut call = scripts::SET_REVOKED_AT.key(self.0.names.revocation_key(key));
            call.arg(at.as_millis()).arg(duration_millis(ttl));
            self.run_script(&call).await
        })
    }

    fn revoked_at<'a>(
        &'a self,
        key: &'a CredentialKey,
    ) -> BoxFuture<'a, Result<Option<Timestamp>, Error>> {
        Box::pin(async move { self.read_revoked_at(key).await })
    }
}
