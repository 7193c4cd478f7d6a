//! Reads of credentials in Redis.

use std::pin::pin;
use std::time::Duration;

use redis::Cmd;
use tokio::time::Instant;

use super::codec::{decode, view_record};
use super::locations::{Location, RedisKey, RedisKeys};
use super::raw_values::RawValues;
use super::read_batches::{BatchedRead, ReadAdmission};
use super::revocation::may_lack_revocation;
use super::store::RedisStore;
use crate::credential::AppId;
use crate::error::Error;
use crate::store::credential::Visitor;
use crate::store::{
    BoxFuture, CredentialKind, CredentialReader, CredentialSlot, ReadOutcome, StoredRecord,
};

impl RedisStore {
    /// Reads a record. If the record may lack its time of revocation, also reads that time.
    async fn load_record(&self, slot: &CredentialSlot) -> Result<StoredRecord, Error> {
        let location = self.0.names.location(self.0.layout, &slot.key);
        let arrived_at = Instant::now();
        let values = self
            .read_values(slot, &location, arrived_at, Duration::MAX)
            .await?;
        let values = values.ok_or_else(|| self.overloaded())?;
        let stored = decode(&location, slot, values.take(), &self.0.sealer);
        self.warn_of_java_names(&location, slot, &stored).await;
        self.with_revocation(slot, stored).await
    }

    /// If nothing is stored for a user, searches for names that Java's own serialization has
    /// written. Logs an error for the first such name.
    async fn warn_of_java_names(
        &self,
        location: &Location<'_>,
        slot: &CredentialSlot,
        stored: &StoredRecord,
    ) {
        if stored.expected.0.iter().all(Option::is_none) {
            Box::pin(self.search_java_names(location, slot)).await;
        }
    }

    /// Reads a record and passes it to `visit`.
    ///
    /// Usually takes one round trip. If the record may lack its time of revocation, a second round
    /// trip reads that time before `visit` is called.
    async fn read_record_with(
        &self,
        slot: &CredentialSlot,
        timeout: Duration,
        visit: &mut Visitor<'_>,
    ) -> Result<ReadOutcome, Error> {
        let arrived_at = Instant::now();
        let location = self.0.names.location(self.0.layout, &slot.key);
        let values = self.read_values(slot, &location, arrived_at, timeout);
        let Some(values) = values.await? else {
            return Ok(ReadOutcome::TimedOut);
        };
        let seal = &self.0.sealer;
        let visited = view_record(&location, slot, values.as_slice(), seal, |record| {
            (!may_lack_revocation(slot, &record)).then(|| visit(&record))
        });
        let (is_accepted, revoked_at) = match visited {
            Some(is_accepted) => (is_accepted, None),
            None => {
                let remaining = timeout.saturating_sub(arrived_at.elapsed());
                let reading = Box::pin(self.read_revoked_at_within(&slot.key, remaining));
                let Some(revoked_at) = reading.await? else {
                    return Ok(ReadOutcome::TimedOut);
                };
                let is_accepted =
                    view_record(&location, slot, values.as_slice(), seal, |mut record| {
                        record.details.sessions_valid_from = revoked_at;
                        visit(&record)
                    });
                (is_accepted, revoked_at)
            }
        };
        if is_accepted {
            return Ok(ReadOutcome::Accepted);
        }
        let mut stored = decode(&location, slot, values.take(), seal);
        if revoked_at.is_some() {
            stored.record.details.sessions_valid_from = revoked_at;
        }
        self.warn_of_java_names(&location, slot, &stored).await;
        Ok(ReadOutcome::Rejected(stored))
    }

    /// Reads the values of a location, alone or in a batch with other reads. Returns `None` if Redis
    /// has not replied within `max_wait` after `arrived_at`.
    async fn read_values(
        &self,
        slot: &CredentialSlot,
        location: &Location<'_>,
        arrived_at: Instant,
        max_wait: Duration,
    ) -> Result<Option<RawValues>, Error> {
        let connection = &self.0.connection;
        let operation = || match &location.keys {
            RedisKeys::One(key) => BatchedRead::Key((*key.key).into()),
            RedisKeys::Two(_) => BatchedRead::User {
                app: slot.key.app.clone(),
                id: slot.key.id.clone(),
            },
        };
        let batched = self.read_in_batch(operation, arrived_at, max_wait);
        let (_permit, timeout) = match batched.await {
            ReadAdmission::Answered(outcome) => return outcome,
            ReadAdmission::Alone(permit, left) => (permit, left),
        };
        match &location.keys {
            RedisKeys::One(key) => {
                let get = read_command(key);
                // The future is pinned here, because passing it by value would copy it in each
                // call.
                let value = pin!(connection.read_value(&get));
                let reply = self.run_command_within(key.key.as_bytes(), timeout, value);
                Ok(reply.await?.map(|value| RawValues::One([value])))
            }
            RedisKeys::Two(keys) => {
                let get = keys.each_ref().map(read_command);
                let key = keys[0].key.as_bytes();
                let values = pin!(connection.read_two_values(get));
                let reply = self.run_command_within(key, timeout, values);
                Ok(reply.await?.map(RawValues::Two))
            }
        }
    }
}

/// Creates the command that reads a key or a field.
pub(super) fn read_command(key: &RedisKey<'_>) -> Cmd {
    // The capacity covers the whole command, because reallocations would cost more than the rest of
    // this function.
    let field = key.field.map_or(0, str::len);
    let mut command = Cmd::with_capacity(3, 4 + key.key.len() + field);
    match key.field {
        Some(field) => command.arg("HGET").arg(&*key.key).arg(field),
        None => command.arg("GET").arg(&*key.key),
    };
    command
}

impl CredentialReader for RedisStore {
    fn load<'a>(&'a self, slot: &'a CredentialSlot) -> BoxFuture<'a, Result<StoredRecord, Error>> {
        Box::pin(self.load_record(slot))
    }

    fn read_with<'a>(
        &'a self,
        slot: &'a CredentialSlot,
        timeout: Duration,
        visit: &'a mut Visitor<'_>,
    ) -> BoxFuture<'a, Result<ReadOutcome, Error>> {
        Box::pin(self.read_record_with(slot, timeout, visit))
    }

    fn check_health<'a>(
        &'a self,
        app: &'a AppId,
        kind: CredentialKind,
    ) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(self.check_writing(app, kind))
    }
}
