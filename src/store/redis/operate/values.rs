//! What lies in the cells of many users, read together.

use futures_util::stream::{self, StreamExt, TryStreamExt};
use redis::{Cmd, FromRedisValue, RedisResult};

use super::super::codec::Value;
use super::super::names::{Cell, Place};
use super::super::refusal::Refusal;
use super::super::{RedisStore, key_of, reading};
use crate::error::Error;

/// How many reads of a crowd are under way at once on a Cluster.
const READS_AT_ONCE: usize = 64;

/// What stands for the value of a key of another type than ours. It is no text and no sealed value, so
/// that it counts as unreadable, and no key holds it.
pub(super) const OTHER_TYPE: &[u8] = b"\xff\xfe another type";

impl RedisStore {
    /// Several reads in one round trip. On a Cluster they go out side by side, each to its node and
    /// each within the store's time: how many there are says nothing of Redis.
    pub(super) async fn read_all<T: FromRedisValue + Send + Sync>(
        &self,
        reads: &[Cmd],
    ) -> Result<Vec<T>, Error> {
        if self.0.connection.is_cluster() {
            let reads = reads.iter().map(|read| self.command(read));
            let together = stream::iter(reads).buffered(READS_AT_ONCE);
            return together.try_collect().await;
        }
        let key = reads.first().map_or(&[][..], key_of);
        self.run(key, self.0.connection.read_all(reads)).await
    }

    /// Reads the cells of many places in one exchange.
    pub(super) async fn read_many(&self, places: &[&Place<'_>]) -> Result<Vec<Vec<Value>>, Error> {
        let cells: Vec<&Cell<'_>> = places.iter().flat_map(|place| &*place.cells).collect();
        if cells.is_empty() {
            return Ok(Vec::new());
        }
        let mut values = self.cell_values(&cells).await?.into_iter();
        let of = |place: &&Place<'_>| values.by_ref().take(place.cells.len()).collect();
        Ok(places.iter().map(of).collect())
    }

    /// What the cells hold. One key of another type does not keep all other users from being read:
    /// [`OTHER_TYPE`] stands for its value.
    async fn cell_values(&self, cells: &[&Cell<'_>]) -> Result<Vec<Value>, Error> {
        let reads: Vec<Cmd> = cells.iter().map(|cell| reading(cell)).collect();
        let connection = &self.0.connection;
        if connection.is_cluster() {
            let reads = reads.iter().map(|read| async {
                let value = self.unless_other_type(read, connection.value(read)).await?;
                Ok(value.unwrap_or_else(|| Some(OTHER_TYPE.to_vec())))
            });
            let together = stream::iter(reads).buffered(READS_AT_ONCE);
            return together.try_collect().await;
        }
        let Some(first) = reads.first() else {
            return Ok(Vec::new());
        };
        let all = connection.read_all(&reads);
        if let Some(values) = self.unless_other_type(first, all).await? {
            return Ok(values);
        }
        let mut types = redis::pipe();
        for cell in cells {
            types.cmd("TYPE").arg(&*cell.key);
        }
        let mut asking = connection.clone();
        let types = types.query_async::<Vec<String>>(&mut asking);
        let types = self.run(key_of(first), types).await?;
        let fits = |(cell, kind): (&&Cell<'_>, &String)| match kind.as_str() {
            "hash" => cell.field.is_some(),
            "string" => cell.field.is_none(),
            kind => kind == "none",
        };
        let fit: Vec<bool> = cells.iter().zip(&types).map(fits).collect();
        let reads = reads.into_iter().zip(&fit).filter(|(_, fits)| **fits);
        let reads: Vec<Cmd> = reads.map(|(read, _)| read).collect();
        let mut read = match reads.is_empty() {
            true => Vec::new(),
            false => self.read_all(&reads).await?,
        }
        .into_iter();
        let value = |fits: bool| match fits {
            true => read.next().flatten(),
            false => Some(OTHER_TYPE.to_vec()),
        };
        Ok(fit.into_iter().map(value).collect())
    }

    /// What is read, or nothing where a key holds a value of another type.
    async fn unless_other_type<T>(
        &self,
        first: &Cmd,
        reading: impl Future<Output = RedisResult<T>> + Send,
    ) -> Result<Option<T>, Error> {
        let reading = async {
            match reading.await {
                Err(error) if Refusal::of(&error) == Some(Refusal::WrongType) => Ok(None),
                answer => answer.map(Some),
            }
        };
        self.run(key_of(first), reading).await
    }
}
