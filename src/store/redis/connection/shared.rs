//! The connection that all tasks of a store share, and connections for subscribers.

use std::time::Duration;

use redis::aio::{ConnectionLike, PubSub};
use redis::{Cmd, FromRedisValue, Pipeline, RedisFuture, RedisResult, Value};
use tokio::sync::watch;

#[cfg(feature = "cluster")]
use crate::store::redis::connection::cluster::{self, ClusterNodes};
use crate::store::redis::connection::errors::timed_out;
use crate::store::redis::connection::sentinel::SentinelConnection;
use crate::store::redis::connection::single::SingleConnection;

/// Number of circuits of the circuit breaker on a Cluster: 64. Each circuit covers a range of
/// adjacent slots, because a node usually serves adjacent slots.
const CLUSTER_CIRCUITS: usize = 64;

/// The connection of a store, which reconnects by itself. Clones share the connection.
#[derive(Clone)]
pub(in crate::store::redis) struct Connection {
    pub(super) backend: Backend,
    pub(super) timeout: Duration,
    pub(super) database: i64,
}

/// The connection of a store, one variant for each topology.
#[derive(Clone)]
pub(super) enum Backend {
    /// A connection to one server.
    Single(SingleConnection),
    /// A connection to the server that the Sentinels name as the primary.
    Sentinel(SentinelConnection),
    /// Connections to the nodes of a Cluster.
    #[cfg(feature = "cluster")]
    Cluster(ClusterNodes),
}

/// A watcher that reports when the connection of a store starts to send its commands to another
/// server.
pub(in crate::store::redis) struct ServerChanges(Option<watch::Receiver<u64>>);

impl ServerChanges {
    /// Waits until commands go to another server, because the previous server has become a replica.
    /// A subscriber of the previous server may miss the messages of the new server.
    ///
    /// Never returns with Sentinels and on a Cluster. There, the connection of a subscriber to a
    /// former primary ends, and so does its subscription.
    pub(in crate::store::redis) async fn changed(&mut self) {
        if let Some(changes) = &mut self.0
            && changes.changed().await.is_ok()
        {
            return;
        }
        std::future::pending::<()>().await;
    }
}

/// Returns the value in a reply as bytes, or `None` if the key or field does not exist.
pub(in crate::store::redis) fn optional_value(reply: Value) -> RedisResult<Option<Vec<u8>>> {
    match reply {
        Value::BulkString(bytes) => Ok(Some(bytes)),
        Value::Nil => Ok(None),
        other => Ok(redis::from_redis_value(other.extract_error()?)?),
    }
}

impl Connection {
    /// Opens a separate connection for subscriptions: to the server, to the current primary of a
    /// Sentinel group, or to a node of a Cluster. A Cluster forwards messages to all of its nodes.
    ///
    /// The stream of messages ends when the server closes the connection, as a former primary does.
    /// The caller then has to subscribe again, and may have missed messages.
    pub(in crate::store::redis) async fn open_subscriber(&self) -> RedisResult<PubSub> {
        let connecting = async {
            match &self.backend {
                Backend::Single(single) => single.new_client()?.get_async_pubsub().await,
                Backend::Sentinel(primary) => primary.new_client().await?.get_async_pubsub().await,
                #[cfg(feature = "cluster")]
                Backend::Cluster(nodes) => nodes.new_client().await?.get_async_pubsub().await,
            }
        };
        tokio::time::timeout(self.timeout, connecting)
            .await
            .unwrap_or_else(|_| Err(timed_out()))
    }

    /// Returns a watcher that reports each change of the server after this call.
    pub(in crate::store::redis) fn server_changes(&self) -> ServerChanges {
        ServerChanges(match &self.backend {
            Backend::Single(single) => Some(single.server_changes()),
            Backend::Sentinel(_) => None,
            #[cfg(feature = "cluster")]
            Backend::Cluster(_) => None,
        })
    }

    /// Reacts to a command that had no reply in time. With Sentinels, requests a check of the
    /// primary; on a Cluster, requests a new connection. Does nothing for one server.
    pub(in crate::store::redis) fn report_timeout(&self) {
        match &self.backend {
            Backend::Single(_) => {}
            Backend::Sentinel(primary) => primary.report_timeout(),
            #[cfg(feature = "cluster")]
            Backend::Cluster(nodes) => nodes.report_timeout(),
        }
    }

    /// Returns `true` for a Cluster, whose keys lie on several servers.
    pub(in crate::store::redis) fn is_cluster(&self) -> bool {
        match &self.backend {
            Backend::Single(_) | Backend::Sentinel(_) => false,
            #[cfg(feature = "cluster")]
            Backend::Cluster(_) => true,
        }
    }

    /// Returns the number of circuits of the circuit breaker: one, or [`CLUSTER_CIRCUITS`] on a
    /// Cluster.
    pub(in crate::store::redis) fn circuit_count(&self) -> usize {
        if self.is_cluster() {
            CLUSTER_CIRCUITS
        } else {
            1
        }
    }

    /// Returns the index of the circuit for a key: zero, or on a Cluster the index for the slot of
    /// the key.
    #[cfg_attr(not(feature = "cluster"), allow(unused_variables))]
    pub(in crate::store::redis) fn circuit_index(&self, key: &[u8]) -> usize {
        match &self.backend {
            Backend::Single(_) | Backend::Sentinel(_) => 0,
            #[cfg(feature = "cluster")]
            Backend::Cluster(_) => cluster::circuit_index(key, CLUSTER_CIRCUITS),
        }
    }

    /// Checks that Redis replies to `PING`. On a Cluster, reads `key` from its node instead.
    pub(in crate::store::redis) async fn ping(&mut self, key: &str) -> RedisResult<()> {
        if self.is_cluster() {
            // On a Cluster, the client library would send PING to all nodes, and fail if one of
            // them is down.
            return Cmd::get(key).exec_async(self).await;
        }
        let reply: Value = redis::cmd("PING").query_async(self).await?;
        match &reply {
            Value::SimpleString(pong) if pong == "PONG" => Ok(()),
            Value::BulkString(pong) if pong == b"PONG" => Ok(()),
            _ => Err((redis::ErrorKind::UnexpectedReturnType, "no reply to PING").into()),
        }
    }

    /// Sends a command to the only server, to the current primary, or to the node of its key.
    async fn command(&self, command: &Cmd) -> RedisResult<Value> {
        match &self.backend {
            // This future is not boxed, because every read of a credential takes this path.
            Backend::Single(single) => single.command(command).await,
            Backend::Sentinel(primary) => Box::pin(primary.command(command)).await,
            #[cfg(feature = "cluster")]
            Backend::Cluster(nodes) => Box::pin(nodes.command(command)).await,
        }
    }

    /// Sends a pipeline to the only server, to the current primary, or to a Cluster. Returns
    /// `count` of the replies, after the first `offset` ones.
    pub(in crate::store::redis) async fn commands(
        &self,
        commands: &Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisResult<Vec<Value>> {
        match &self.backend {
            Backend::Single(single) => single.commands(commands, offset, count).await,
            Backend::Sentinel(primary) => Box::pin(primary.commands(commands, offset, count)).await,
            #[cfg(feature = "cluster")]
            Backend::Cluster(nodes) => Box::pin(nodes.commands(commands, offset, count)).await,
        }
    }

    /// Runs a command that reads one value. Returns `None` if the value does not exist.
    pub(in crate::store::redis) async fn read_value(
        &self,
        command: &Cmd,
    ) -> RedisResult<Option<Vec<u8>>> {
        let reply = self.command(command).await?;
        optional_value(reply)
    }

    /// Runs a command without a key on the server, or on every primary of a Cluster. Returns one
    /// reply for each of them.
    #[cfg(feature = "platform")]
    pub(in crate::store::redis) async fn command_on_primaries(
        &self,
        command: &Cmd,
    ) -> RedisResult<Vec<Value>> {
        match &self.backend {
            Backend::Single(_) | Backend::Sentinel(_) => Ok(vec![self.command(command).await?]),
            #[cfg(feature = "cluster")]
            Backend::Cluster(nodes) => nodes.command_on_primaries(command).await,
        }
    }

    /// Runs two commands that each read one value: in one pipeline, or concurrently on a Cluster.
    pub(in crate::store::redis) async fn read_two_values(
        &self,
        [first, second]: [Cmd; 2],
    ) -> RedisResult<[Option<Vec<u8>>; 2]> {
        if self.is_cluster() {
            let both = Box::pin(async {
                tokio::try_join!(self.read_value(&first), self.read_value(&second))
            });
            return both.await.map(|(first, second)| [first, second]);
        }
        let mut pipeline = Pipeline::with_capacity(2);
        pipeline.add_command(first).add_command(second);
        let replies = self.commands(&pipeline, 0, 2).await?;
        let mut replies = replies.into_iter();
        let mut next = || optional_value(replies.next().unwrap_or(Value::Nil));
        Ok([next()?, next()?])
    }

    /// Runs several reads in one round trip. On a Cluster, runs the reads one after another, so
    /// that each read finds its node while slots move.
    pub(in crate::store::redis) async fn read_all<T: FromRedisValue + Send + Sync>(
        &self,
        reads: &[Cmd],
    ) -> RedisResult<Vec<T>> {
        let mut connection = self.clone();
        if self.is_cluster() {
            let mut all = Vec::with_capacity(reads.len());
            for read in reads {
                all.push(read.query_async(&mut connection).await?);
            }
            return Ok(all);
        }
        let mut pipeline = redis::pipe();
        for read in reads {
            pipeline.add_command(read.clone());
        }
        pipeline.query_async(&mut connection).await
    }
}

/// Access to single primaries, for scans of all keys.
#[cfg(any(feature = "cli", feature = "platform"))]
impl Connection {
    /// Returns the addresses of a Cluster's primaries, each with its id and slots. Returns an empty
    /// map for one server and for a Sentinel group.
    pub(in crate::store::redis) async fn primaries(
        &self,
    ) -> RedisResult<std::collections::BTreeMap<String, String>> {
        match &self.backend {
            Backend::Single(_) | Backend::Sentinel(_) => Ok(Default::default()),
            #[cfg(feature = "cluster")]
            Backend::Cluster(nodes) => nodes.primaries().await,
        }
    }

    /// Sends a command to the primary of a Cluster with this address. Without an address, or
    /// without a Cluster, sends it as every other command.
    pub(in crate::store::redis) async fn command_on(
        &self,
        primary: Option<&str>,
        command: &Cmd,
    ) -> RedisResult<Value> {
        match (&self.backend, primary) {
            #[cfg(feature = "cluster")]
            (Backend::Cluster(nodes), Some(primary)) => {
                nodes.command_on(primary, command.clone()).await
            }
            #[cfg(feature = "cluster")]
            (Backend::Cluster(_), None) => self.command(command).await,
            (Backend::Single(_) | Backend::Sentinel(_), _) => self.command(command).await,
        }
    }
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        Box::pin(self.command(command))
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        commands: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        Box::pin(self.commands(commands, offset, count))
    }

    fn get_db(&self) -> i64 {
        self.database
    }
}
