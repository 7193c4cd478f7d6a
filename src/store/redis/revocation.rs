//! The time at which a user last logged out everywhere.
//!
//! A record of this crate contains this time, so that a read takes one round trip. A Java service
//! that writes the published layout drops the time, so the time is missing in its records and in
//! copies of them. This crate therefore also writes the time to a separate key. The store reads
//! that key if a record contains tokens, but no ids, no scope and no time of a logout.

use std::time::Duration;

use redis::{Cmd, Value};
use tokio::time::Instant;

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
                let value = value.map_or(Value::Nil, Value::BulkString);
                if let Ok(at) = redis::from_redis_value::<Option<i64>>(value) {
                    return Ok(Some(at.map(parse_revoked_at)));
                }
                // The read alone reports the value that is no number.
                (None, max_wait.saturating_sub(arrived_at.elapsed()))
            }
            ReadAdmission::Alone(permit, left) => (permit, left),
        };
        let get = Cmd::get(&name);
        let mut connection = self.0.connection.clone();
        let reading = self.run_command_within::<Option<i64>>(
            command_key(&get),
            left,
            get.query_async(&mut connection),
        );
        let stored = reading.await?;
        drop(permit);
        Ok(stored.map(|stored| stored.map(parse_revoked_at)))
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
