//! A connection to a Redis Cluster, which is replaced when replies stay away.
//!
//! The client library follows moved slots and drops nodes that close their connections. The library
//! does not notice a node that keeps its connections open and does not reply. It continues to send
//! commands to that node after a replica has taken over. So a timeout requests a new connection,
//! which reads the list of nodes again.
//!
//! # States
//!
//! - *In use*: commands use the current connection. A timeout, or an error that is not a server's
//!   reply, requests a replacement.
//! - *Replacing*: commands still use the current connection. The task opens a new connection within
//!   [`RECONNECT_TIMEOUT`], and the next commands use the new connection. If the attempt fails, the
//!   current connection stays in use. A request during this state starts another replacement after
//!   [`RECONNECT_DELAY`].

use std::sync::Arc;
use std::time::Duration;

use redis::aio::ConnectionLike;
use redis::cluster::{ClusterClient, ClusterClientBuilder};
use redis::cluster_async::ClusterConnection;
use redis::{
    Client, Cmd, ConnectionAddr, IntoConnectionInfo, Pipeline, RedisError, RedisResult, TlsMode,
    Value,
};
use tokio::sync::{Notify, watch};
use tokio_util::task::AbortOnDropHandle;

use crate::store::redis::connection::connector::{Connector, tcp_settings};
use crate::store::redis::connection::errors::{server_error, timed_out};
use crate::store::redis::hash_tag::hash_tag_range;

/// Maximum number of retries of a command within its timeout: at the node that a slot has moved to,
/// or later if a node is not ready.
///
/// The library also retries after a lost reply, so a command may run twice. A repeated lease or
/// commit finds its own result. A repeated use of a quota counts twice. If a user logs in twice
/// within the timeout, the older login may be kept until WeChat rejects its token.
const MAX_RETRIES: u32 = 12;

/// Minimum and maximum delay before a retry, in milliseconds. The delays are short, so that a
/// command can be retried several times within its timeout.
const RETRY_DELAY_MS: (u64, u64) = (10, 200);

/// Minimum time between two attempts to replace the connection, however many commands fail.
const RECONNECT_DELAY: Duration = Duration::from_millis(500);

/// Maximum time for an attempt to replace the connection. After it, the next error can start
/// another attempt.
const RECONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection to the nodes of a Cluster. Clones share the connection.
#[derive(Clone)]
pub(in crate::store::redis) struct ClusterNodes {
    shared: Arc<Shared>,
    /// The task that replaces the connection. The task is aborted when the last clone of the
    /// connection is dropped.
    _watch: Arc<AbortOnDropHandle<()>>,
}

struct Shared {
    client: ClusterClient,
    connector: Connector,
    seeds: Vec<ConnectionAddr>,
    connection: watch::Sender<ClusterConnection>,
    /// Wakes the task that replaces the connection. `Notify` keeps one notification, so any number
    /// of requests during an attempt causes one more attempt afterwards.
    reconnect_requested: Notify,
}

/// Number of slots in every Redis Cluster, by its specification.
const SLOT_COUNT: u16 = 16_384;

/// Returns the index of the circuit for a key. Each circuit covers an equal range of slots.
pub(in crate::store::redis) fn circuit_index(key: &[u8], circuit_count: usize) -> usize {
    usize::from(key_slot(key)) * circuit_count / usize::from(SLOT_COUNT)
}

/// Returns the slot of a key, from the CRC-16/XMODEM of its hash tag. A key without a hash tag
/// counts as a whole.
fn key_slot(key: &[u8]) -> u16 {
    let tag = hash_tag_range(key).and_then(|range| key.get(range));
    let mut crc = 0u16;
    for byte in tag.unwrap_or(key) {
        crc ^= u16::from(*byte) << 8;
        for _ in 0..8 {
            crc = (crc << 1) ^ if crc & 0x8000 == 0 { 0 } else { 0x1021 };
        }
    }
    crc % SLOT_COUNT
}

impl ClusterNodes {
    /// Connects to the Cluster, and starts the task that replaces the connection.
    pub(in crate::store::redis) async fn connect(
        seeds: Vec<ConnectionAddr>,
        connector: Connector,
        tls: bool,
    ) -> RedisResult<Self> {
        let mut infos = Vec::with_capacity(seeds.len());
        for seed in &seeds {
            let info = seed.clone().into_connection_info()?;
            infos.push(info.set_redis_settings(connector.connection_info.clone()));
        }
        // One node may use half of the timeout, so that time is left for another node.
        let node_timeout = connector.timeout / 2;
        let mut builder = ClusterClientBuilder::new(infos)
            .connection_timeout(node_timeout)
            .response_timeout(node_timeout)
            .overall_response_timeout(Some(connector.timeout))
            .retries(MAX_RETRIES)
            .min_retry_wait(RETRY_DELAY_MS.0)
            .max_retry_wait(RETRY_DELAY_MS.1)
            .tcp_settings(tcp_settings());
        if tls {
            builder = builder.tls(TlsMode::Secure);
        }
        if let Some(certificates) = &connector.certificates {
            builder = builder.certs(certificates.clone());
        }
        let client = builder.build()?;
        let (connection, _) = watch::channel(client.get_async_connection().await?);
        let shared = Arc::new(Shared {
            client,
            connector,
            seeds,
            connection,
            reconnect_requested: Notify::new(),
        });
        let watch = tokio::spawn(Arc::clone(&shared).reconnect_on_request());
        Ok(Self {
            shared,
            _watch: Arc::new(AbortOnDropHandle::new(watch)),
        })
    }

    /// Requests a new connection, because a command had no reply in time.
    pub(in crate::store::redis) fn report_timeout(&self) {
        self.shared.reconnect_requested.notify_one();
    }

    /// Returns a client for separate connections to a node that replies. Tries the nodes of the
    /// URL, and starts with a random one.
    pub(in crate::store::redis) async fn new_client(&self) -> RedisResult<Client> {
        let mut failed = None;
        let seeds = &self.shared.seeds;
        let first = fastrand::usize(..seeds.len().max(1));
        for seed in seeds.iter().cycle().skip(first).take(seeds.len()) {
            let client = self.shared.connector.client_for(seed)?;
            let connecting = client.get_multiplexed_async_connection();
            match tokio::time::timeout(self.shared.connector.timeout / 2, connecting).await {
                Ok(Ok(_)) => return Ok(client),
                Ok(Err(error)) => failed = Some(error),
                Err(_) => {}
            }
        }
        Err(failed.unwrap_or_else(timed_out))
    }

    fn connection(&self) -> ClusterConnection {
        self.shared.connection.borrow().clone()
    }

    /// Sends one command to the node of its key. Callers read a record with several keys by several
    /// commands, so that each command follows its slot while slots move.
    pub(in crate::store::redis) async fn command(&self, command: &Cmd) -> RedisResult<Value> {
        let reply = self.connection().req_packed_command(command).await;
        self.note_error(reply.as_ref().err());
        reply
    }

    /// Sends a pipeline to the Cluster. Returns `count` of the replies, after the first `offset`
    /// ones.
    pub(in crate::store::redis) async fn commands(
        &self,
        commands: &Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisResult<Vec<Value>> {
        let mut connection = self.connection();
        let replies = connection
            .req_packed_commands(commands, offset, count)
            .await;
        self.note_error(replies.as_ref().err());
        replies
    }

    /// Sends a command without a key to every primary. Returns their replies.
    #[cfg(feature = "platform")]
    pub(in crate::store::redis) async fn command_on_primaries(
        &self,
        command: &Cmd,
    ) -> RedisResult<Vec<Value>> {
        use redis::cluster_routing::{MultipleNodeRoutingInfo, RoutingInfo};
        let all = RoutingInfo::MultiNode((MultipleNodeRoutingInfo::AllMasters, None));
        let reply = self.connection().route_command(command.clone(), all).await;
        self.note_error(reply.as_ref().err());
        let replies: std::collections::BTreeMap<String, Value> = redis::from_redis_value(reply?)?;
        Ok(replies.into_values().collect())
    }

    /// Requests a new connection after an error that is not a server's reply.
    fn note_error(&self, error: Option<&RedisError>) {
        if error.is_some_and(|error| server_error(error).is_none()) {
            self.report_timeout();
        }
    }
}

/// Access to single primaries, for scans of all keys.
#[cfg(any(feature = "cli", feature = "platform"))]
impl ClusterNodes {
    /// Returns a map from the address of each primary to a text. The text contains the id of the
    /// primary, the slots that it serves, and the slots that are moving.
    pub(in crate::store::redis) async fn primaries(
        &self,
    ) -> RedisResult<std::collections::BTreeMap<String, String>> {
        use redis::cluster_routing::{MultipleNodeRoutingInfo, RoutingInfo};
        let mut query = redis::cmd("CLUSTER");
        query.arg("NODES");
        let all = RoutingInfo::MultiNode((MultipleNodeRoutingInfo::AllMasters, None));
        let reply = self.connection().route_command(query, all).await;
        self.note_error(reply.as_ref().err());
        let nodes: std::collections::BTreeMap<String, String> = redis::from_redis_value(reply?)?;
        let describe = |nodes: String| {
            let mut words = nodes
                .lines()
                .find(|line| line.contains("myself"))
                .unwrap_or_default()
                .split(' ');
            // A line of the reply contains the id, address, flags, primary, two times, epoch and
            // link state, and then the slots.
            let id = words.next().unwrap_or_default().to_owned();
            words
                .skip(7)
                .fold(id, |description, slots| description + " " + slots)
        };
        let nodes = nodes.into_iter();
        let described = nodes.map(|(address, nodes)| (address, describe(nodes)));
        Ok(described.collect())
    }

    /// Sends a command to the primary with this address (`HOST:PORT`).
    pub(in crate::store::redis) async fn command_on(
        &self,
        address: &str,
        command: Cmd,
    ) -> RedisResult<Value> {
        use redis::cluster_routing::{RoutingInfo, SingleNodeRoutingInfo};
        let (host, port) = address.rsplit_once(':').unwrap_or((address, ""));
        let node = RoutingInfo::SingleNode(SingleNodeRoutingInfo::ByAddress {
            host: host.to_owned(),
            port: port.parse().unwrap_or_default(),
        });
        let reply = self.connection().route_command(command, node).await;
        self.note_error(reply.as_ref().err());
        reply
    }
}

impl Shared {
    /// Replaces the connection whenever [`report_timeout`](ClusterNodes::report_timeout) requests
    /// it, until the store is dropped.
    async fn reconnect_on_request(self: Arc<Self>) {
        loop {
            self.reconnect_requested.notified().await;
            let connecting = self.client.get_async_connection();
            match tokio::time::timeout(RECONNECT_TIMEOUT, connecting).await {
                Ok(Ok(connection)) => {
                    self.connection.send_replace(connection);
                }
                Ok(Err(error)) => {
                    tracing::debug!(target: "tower_wechat::store", %error, "the connection to the Cluster was not replaced; the next error retries");
                }
                Err(_) => {
                    tracing::debug!(target: "tower_wechat::store", "the connection to the Cluster was not replaced in time; the next error retries");
                }
            }
            tokio::time::sleep(RECONNECT_DELAY).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::key_slot;

    /// The slot of `123456789` is from the Cluster specification.
    #[test]
    fn key_slots_match_redis() {
        assert_eq!(key_slot(b"123456789"), 0x31C3);
        assert_eq!(
            key_slot(b"user.wxUserAccessToken"),
            key_slot(b"x{user.wxUserAccessToken}y")
        );
        assert_ne!(key_slot(b"{}a"), key_slot(b"{}b"));
    }
}
