//! Reads of many records in one round trip.

use futures_util::stream::{self, StreamExt, TryStreamExt};
use redis::{Cmd, FromRedisValue, RedisResult};

use super::super::codec::RawValue;
use super::super::locations::{Location, RedisKey};
use super::super::read::read_command;
use super::super::store::command_key;
use super::super::{Layout, RedisStore};
use super::task::ScanOptions;
use crate::error::Error;
use crate::store::CredentialKind;
use crate::store::redis::connection::errors::ErrorClass;

/// Maximum number of concurrent reads on a Cluster. More reads would only wait in the nodes, and
/// delay the commands of services.
const MAX_CONCURRENT_READS: usize = 64;

/// The value that stands for a key of another Redis type. The bytes are neither text nor a sealed
/// value, so that the key counts as unreadable.
pub(super) const WRONG_TYPE_MARKER: &[u8] = b"\xff\xfe another type";

impl RedisStore {
    /// Runs several reads in one round trip. On a Cluster, runs them concurrently, each at its node
    /// and each with the timeout of a command.
    pub(super) async fn read_all<T: FromRedisValue + Send + Sync>(
        &self,
        reads: &[Cmd],
    ) -> Result<Vec<T>, Error> {
        if self.0.connection.is_cluster() {
            let reads = reads.iter().map(|read| self.command(read));
            let values = stream::iter(reads).buffered(MAX_CONCURRENT_READS);
            return values.try_collect().await;
        }
        let key = reads.first().map_or(&[][..], command_key);
        self.run_command(key, self.0.connection.read_all(reads))
            .await
    }

    /// Returns the number of fields in each hash of users' tokens.
    pub(super) async fn hash_sizes(&self, options: &ScanOptions) -> Result<Vec<u64>, Error> {
        let slot = options.slot(CredentialKind::User, "");
        let location = self.0.names.location(Layout::Hashes, &slot.key);
        let sizes = location.keys.iter().map(|key| Cmd::hlen(&key.key));
        self.read_all(&sizes.collect::<Vec<_>>()).await
    }

    /// Reads the values of many locations together. Returns one list of values for each location.
    pub(super) async fn read_locations(
        &self,
        locations: &[&Location<'_>],
    ) -> Result<Vec<Vec<RawValue>>, Error> {
        let keys: Vec<&RedisKey<'_>> = locations
            .iter()
            .flat_map(|location| &*location.keys)
            .collect();
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let mut values = self.read_keys(&keys).await?.into_iter();
        let take_values =
            |location: &&Location<'_>| values.by_ref().take(location.keys.len()).collect();
        Ok(locations.iter().map(take_values).collect())
    }

    /// Reads the values of these keys. For a key of another Redis type, returns
    /// [`WRONG_TYPE_MARKER`] instead of an error, so that all other users can be read.
    pub(super) async fn read_keys(&self, keys: &[&RedisKey<'_>]) -> Result<Vec<RawValue>, Error> {
        let reads: Vec<Cmd> = keys.iter().map(|key| read_command(key)).collect();
        let connection = &self.0.connection;
        if connection.is_cluster() {
            let reads = reads.iter().map(|read| async {
                let value = self
                    .unless_wrong_type(read, connection.read_value(read))
                    .await?;
                Ok(value.unwrap_or_else(|| Some(WRONG_TYPE_MARKER.to_vec())))
            });
            let values = stream::iter(reads).buffered(MAX_CONCURRENT_READS);
            return values.try_collect().await;
        }
        let Some(first) = reads.first() else {
            return Ok(Vec::new());
        };
        let all = connection.read_all(&reads);
        if let Some(values) = self.unless_wrong_type(first, all).await? {
            return Ok(values);
        }
        let mut types = redis::pipe();
        for key in keys {
            types.cmd("TYPE").arg(&*key.key);
        }
        let mut connection = connection.clone();
        let types = types.query_async::<Vec<String>>(&mut connection);
        let types = self.run_command(command_key(first), types).await?;
        let fits = |(key, kind): (&&RedisKey<'_>, &String)| match kind.as_str() {
            "hash" => key.field.is_some(),
            "string" => key.field.is_none(),
            kind => kind == "none",
        };
        let fit: Vec<bool> = keys.iter().zip(&types).map(fits).collect();
        let reads = reads.into_iter().zip(&fit).filter(|(_, fits)| **fits);
        let reads: Vec<Cmd> = reads.map(|(read, _)| read).collect();
        let mut read = match reads.is_empty() {
            true => Vec::new(),
            false => self.read_all(&reads).await?,
        }
        .into_iter();
        let value = |fits: bool| match fits {
            true => read.next().flatten(),
            false => Some(WRONG_TYPE_MARKER.to_vec()),
        };
        Ok(fit.into_iter().map(value).collect())
    }

    /// Runs a read that starts with the command `first`. Returns `None` if a key holds a value of
    /// another Redis type.
    async fn unless_wrong_type<T>(
        &self,
        first: &Cmd,
        reading: impl Future<Output = RedisResult<T>> + Send,
    ) -> Result<Option<T>, Error> {
        let reading = async {
            match reading.await {
                Err(error) if ErrorClass::classify(&error) == Some(ErrorClass::WrongType) => {
                    Ok(None)
                }
                answer => answer.map(Some),
            }
        };
        self.run_command(command_key(first), reading).await
    }
}
