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

/// A node of a Cluster usually has neighbouring slots; so many ranges of them are told apart.
const CLUSTER_CIRCUITS: usize = 64;

/// How every task speaks with Redis. It comes back by itself when Redis does; clones share it.
#[derive(Clone)]
pub(in crate::store::redis) struct Connection {
    pub(super) backend: Backend,
    pub(super) timeout: Duration,
    pub(super) database: i64,
}

/// By topology.
#[derive(Clone)]
pub(super) enum Backend {
    /// One server.
    Single(SingleConnection),
    /// The primary among several, as Sentinels name it.
    Sentinel(SentinelConnection),
    #[cfg(feature = "cluster")]
    Cluster(ClusterNodes),
}

/// Changes of the server that a connection sends its commands to.
pub(in crate::store::redis) struct ServerChanges(Option<watch::Receiver<u64>>);

impl ServerChanges {
    /// Waits until commands go to another server, whose messages a subscriber of the previous
    /// server may miss. Never returns behind Sentinels and on a Cluster, where such a subscription
    /// ends with its connection.
    pub(in crate::store::redis) async fn changed(&mut self) {
        if let Some(changes) = &mut self.0
            && changes.changed().await.is_ok()
        {
            return;
        }
        std::future::pending::<()>().await;
    }
}

/// A value that may be missing.
fn optional_value(answer: Value) -> RedisResult<Option<Vec<u8>>> {
    match answer {
        Value::BulkString(bytes) => Ok(Some(bytes)),
        Value::Nil => Ok(None),
        other => Ok(redis::from_redis_value(other.extract_error()?)?),
    }
}

impl Connection {
    /// A connection of its own that subscribes: to the server, to the present primary of a
    /// Sentinel group, or to a node of a Cluster, which hears what is published on any other.
    ///
    /// It ends when that server goes away or stops being the primary, and its stream of messages
    /// with it; whoever listens asks for another one then, and takes what it knew for outdated.
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

    /// Returns a watcher of changes of the server, which counts from this moment.
    pub(in crate::store::redis) fn server_changes(&self) -> ServerChanges {
        ServerChanges(match &self.backend {
            Backend::Single(single) => Some(single.server_changes()),
            Backend::Sentinel(_) => None,
            #[cfg(feature = "cluster")]
            Backend::Cluster(_) => None,
        })
    }

    /// An answer did not come in time: another server may have taken over.
    pub(in crate::store::redis) fn report_timeout(&self) {
        match &self.backend {
            Backend::Single(_) => {}
            Backend::Sentinel(primary) => primary.report_timeout(),
            #[cfg(feature = "cluster")]
            Backend::Cluster(nodes) => nodes.report_timeout(),
        }
    }

    /// Whether keys lie on several servers.
    pub(in crate::store::redis) fn is_cluster(&self) -> bool {
        match &self.backend {
            Backend::Single(_) | Backend::Sentinel(_) => false,
            #[cfg(feature = "cluster")]
            Backend::Cluster(_) => true,
        }
    }

    /// In how many parts the keys may fail one without the others.
    pub(in crate::store::redis) fn circuit_count(&self) -> usize {
        if self.is_cluster() {
            CLUSTER_CIRCUITS
        } else {
            1
        }
    }

    /// The part that a key belongs to.
    #[cfg_attr(not(feature = "cluster"), allow(unused_variables))]
    pub(in crate::store::redis) fn circuit_index(&self, key: &[u8]) -> usize {
        match &self.backend {
            Backend::Single(_) | Backend::Sentinel(_) => 0,
            #[cfg(feature = "cluster")]
            Backend::Cluster(_) => cluster::circuit_index(key, CLUSTER_CIRCUITS),
        }
    }

    /// Asks for a sign of life.
    pub(in crate::store::redis) async fn ping(&mut self, key: &str) -> RedisResult<()> {
        if self.is_cluster() {
            // To ping all nodes would take one that is down for all.
            return Cmd::get(key).exec_async(self).await;
        }
        let answer: Value = redis::cmd("PING").query_async(self).await?;
        match &answer {
            Value::SimpleString(pong) if pong == "PONG" => Ok(()),
            Value::BulkString(pong) if pong == b"PONG" => Ok(()),
            _ => Err((redis::ErrorKind::UnexpectedReturnType, "no answer to PING").into()),
        }
    }

    async fn command(&self, command: &Cmd) -> RedisResult<Value> {
        match &self.backend {
            // Not boxed: every read of a credential takes this path.
            Backend::Single(single) => single.command(command).await,
            Backend::Sentinel(primary) => Box::pin(primary.command(command)).await,
            #[cfg(feature = "cluster")]
            Backend::Cluster(nodes) => Box::pin(nodes.command(command)).await,
        }
    }

    async fn commands(
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

    /// What a command reads that finds one value or none.
    pub(in crate::store::redis) async fn read_value(
        &self,
        command: &Cmd,
    ) -> RedisResult<Option<Vec<u8>>> {
        let answer = self.command(command).await;
        optional_value(answer?)
    }

    /// The same of two commands, in one round trip where that is possible.
    pub(in crate::store::redis) async fn read_two_values(
        &self,
        [one, two]: [Cmd; 2],
    ) -> RedisResult<[Option<Vec<u8>>; 2]> {
        if self.is_cluster() {
            let both =
                Box::pin(async { tokio::try_join!(self.read_value(&one), self.read_value(&two)) });
            return both.await.map(|(one, two)| [one, two]);
        }
        let mut together = Pipeline::with_capacity(2);
        together.add_command(one).add_command(two);
        let answers = self.commands(&together, 0, 2).await;
        let mut answers = answers?.into_iter();
        let mut next = || optional_value(answers.next().unwrap_or(Value::Nil));
        Ok([next()?, next()?])
    }

    /// Reads several things in one round trip; on a Cluster one after another, so that each finds its
    /// node while slots move.
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
        let mut together = redis::pipe();
        for read in reads {
            together.add_command(read.clone());
        }
        together.query_async(&mut connection).await
    }
}

/// For going through all keys.
#[cfg(feature = "cli")]
impl Connection {
    /// The primaries over which the keys are spread; none where one server has them all.
    pub(in crate::store::redis) async fn primaries(
        &self,
    ) -> RedisResult<std::collections::BTreeMap<String, String>> {
        match &self.backend {
            Backend::Single(_) | Backend::Sentinel(_) => Ok(Default::default()),
            Backend::Cluster(nodes) => nodes.primaries().await,
        }
    }

    /// A command for one of these, or for the one server that there is.
    pub(in crate::store::redis) async fn command_on(
        &self,
        primary: Option<&str>,
        command: &Cmd,
    ) -> RedisResult<Value> {
        match (&self.backend, primary) {
            (Backend::Cluster(nodes), Some(primary)) => {
                nodes.command_on(primary, command.clone()).await
            }
            (Backend::Single(_) | Backend::Sentinel(_), _) | (Backend::Cluster(_), None) => {
                self.command(command).await
            }
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
