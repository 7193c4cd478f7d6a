//! A connection to a Redis Cluster, made anew when it is stuck.
//!
//! The library follows moved slots and drops nodes that went away. What it does not notice is a
//! node that keeps its connections and answers nothing: it goes on asking that one, though a
//! replica has long taken over. So a connection whose answers stay away is replaced by a new one,
//! which learns from the others who is there.

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

/// How often a command is sent anew within its time: to the node that a slot has moved to, or
/// after a rest where its node is not ready. Lost answers are among the reasons, so a command may
/// run twice: a claim, a commit or a settlement finds what it has done itself; an allowance loses
/// a use; and of two logins of one user within that second the older may be kept, which the next
/// refusal by WeChat mends.
const MAX_RETRIES: u32 = 12;

/// The shortest and the longest rest before that, in milliseconds.
const RETRY_DELAY_MS: (u64, u64) = (10, 200);

/// The rest between two attempts to connect anew.
const RECONNECT_DELAY: Duration = Duration::from_millis(500);

/// How long such an attempt may take.
const RECONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The nodes of a Cluster. Clones share them.
#[derive(Clone)]
pub(in crate::store::redis) struct ClusterNodes {
    shared: Arc<Shared>,
    /// Ends with the last clone.
    _watch: Arc<AbortOnDropHandle<()>>,
}

struct Shared {
    client: ClusterClient,
    connector: Connector,
    seeds: Vec<ConnectionAddr>,
    connection: watch::Sender<ClusterConnection>,
    reconnect_requested: Notify,
}

/// The slots of a Cluster.
const SLOT_COUNT: u16 = 16_384;

/// The range of slots that a key lies in, of so many.
pub(in crate::store::redis) fn circuit_index(key: &[u8], circuit_count: usize) -> usize {
    usize::from(key_slot(key)) * circuit_count / usize::from(SLOT_COUNT)
}

/// The slot of a key: CRC-16/XMODEM of its hash tag or of the whole, by the specification.
fn key_slot(key: &[u8]) -> u16 {
    let open = key.iter().position(|byte| *byte == b'{');
    let tagged = open.and_then(|open| {
        let rest = key.get(open + 1..)?;
        let close = rest.iter().position(|byte| *byte == b'}')?;
        rest.get(..close).filter(|tag| !tag.is_empty())
    });
    let mut crc = 0u16;
    for byte in tagged.unwrap_or(key) {
        crc ^= u16::from(*byte) << 8;
        for _ in 0..8 {
            crc = (crc << 1) ^ if crc & 0x8000 == 0 { 0 } else { 0x1021 };
        }
    }
    crc % SLOT_COUNT
}

impl ClusterNodes {
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
        // One node that is frozen must leave time to ask another.
        let one = connector.timeout / 2;
        let mut builder = ClusterClientBuilder::new(infos)
            .connection_timeout(one)
            .response_timeout(one)
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

    /// Answers have stayed away.
    pub(in crate::store::redis) fn report_timeout(&self) {
        self.shared.reconnect_requested.notify_one();
    }

    /// A client of a node that answers, for connections of their own.
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

    /// A command by itself: what is read and written together goes through one script, and the
    /// fields of a record are read one by one, so that each follows its slot while that moves.
    pub(in crate::store::redis) async fn command(&self, command: &Cmd) -> RedisResult<Value> {
        let answer = self.connection().req_packed_command(command).await;
        self.note_error(answer.as_ref().err());
        answer
    }

    pub(in crate::store::redis) async fn commands(
        &self,
        commands: &Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisResult<Vec<Value>> {
        let mut connection = self.connection();
        let answers = connection
            .req_packed_commands(commands, offset, count)
            .await;
        self.note_error(answers.as_ref().err());
        answers
    }

    fn note_error(&self, error: Option<&RedisError>) {
        if error.is_some_and(|error| server_error(error).is_none()) {
            self.report_timeout();
        }
    }
}

/// For going through all keys.
#[cfg(feature = "cli")]
impl ClusterNodes {
    /// The primaries by their addresses, with what each says of itself: its id, the slots that it
    /// serves, and those that it is moving.
    pub(in crate::store::redis) async fn primaries(
        &self,
    ) -> RedisResult<std::collections::BTreeMap<String, String>> {
        use redis::cluster_routing::{MultipleNodeRoutingInfo, RoutingInfo};
        let mut ask = redis::cmd("CLUSTER");
        ask.arg("NODES");
        let all = RoutingInfo::MultiNode((MultipleNodeRoutingInfo::AllMasters, None));
        let answer = self.connection().route_command(ask, all).await;
        self.note_error(answer.as_ref().err());
        let told: std::collections::BTreeMap<String, String> = redis::from_redis_value(answer?)?;
        let of_itself = |nodes: String| {
            let mut words = nodes
                .lines()
                .find(|line| line.contains("myself"))
                .unwrap_or_default()
                .split(' ');
            // Id, address, flags, primary, two times, epoch, link; then the slots.
            let id = words.next().unwrap_or_default().to_owned();
            words.skip(7).fold(id, |told, slots| told + " " + slots)
        };
        let told = told.into_iter();
        Ok(told.map(|(at, nodes)| (at, of_itself(nodes))).collect())
    }

    /// A command for one of the primaries.
    pub(in crate::store::redis) async fn command_on(
        &self,
        address: &str,
        command: Cmd,
    ) -> RedisResult<Value> {
        use redis::cluster_routing::{RoutingInfo, SingleNodeRoutingInfo};
        let (host, port) = address.rsplit_once(':').unwrap_or((address, ""));
        let at = RoutingInfo::SingleNode(SingleNodeRoutingInfo::ByAddress {
            host: host.to_owned(),
            port: port.parse().unwrap_or_default(),
        });
        let answer = self.connection().route_command(command, at).await;
        self.note_error(answer.as_ref().err());
        answer
    }
}

impl Shared {
    async fn reconnect_on_request(self: Arc<Self>) {
        loop {
            self.reconnect_requested.notified().await;
            let connecting = self.client.get_async_connection();
            match tokio::time::timeout(RECONNECT_TIMEOUT, connecting).await {
                Ok(Ok(connection)) => {
                    self.connection.send_replace(connection);
                }
                Ok(Err(error)) => {
                    tracing::debug!(target: "tower_wechat::store", %error, "no new connection to the Cluster");
                }
                Err(_) => {
                    tracing::debug!(target: "tower_wechat::store", "no new connection to the Cluster in time");
                }
            }
            tokio::time::sleep(RECONNECT_DELAY).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::key_slot;

    /// From the specification, and from `CLUSTER KEYSLOT`.
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
