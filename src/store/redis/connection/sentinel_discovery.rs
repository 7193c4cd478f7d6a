//! Queries to the Sentinels, which name the server that is the primary of a group.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{ConnectionAddr, RedisError, RedisResult};
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::error::Error;
use crate::store::redis::connection::connector::Connector;
use crate::store::redis::connection::errors::{
    ErrorClass, describe_error, rejects_credentials, server_error,
};
use crate::store::redis::connection::start_up::unreachable_error;
use crate::store::redis::connection::url::{format_address, format_addresses};

/// Time for which a query waits for further Sentinels after the first reply, because they may
/// report a newer configuration. The time is short, so that an unreachable Sentinel hardly delays a
/// fail-over.
const STRAGGLER_WAIT: Duration = Duration::from_millis(200);

/// The Sentinels of a URL, and the name of the group of servers.
pub(in crate::store::redis) struct Sentinels {
    group: String,
    display: String,
    members: Vec<Arc<Sentinel>>,
    timeout: Duration,
    tls: bool,
}

struct Sentinel {
    address: ConnectionAddr,
    connector: Connector,
    /// The connection of the last query, which the next query reuses.
    connection: Mutex<Option<MultiplexedConnection>>,
}

/// The server that a Sentinel names as the primary.
pub(in crate::store::redis) struct NamedPrimary {
    pub(in crate::store::redis) address: ConnectionAddr,
    /// The address of the Sentinel that named the primary.
    sentinel: String,
    group: String,
}

impl fmt::Display for NamedPrimary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (address, sentinel, group) =
            (format_address(&self.address), &self.sentinel, &self.group);
        write!(
            f,
            "{address} (named by the Sentinel at {sentinel} for the group {group})"
        )
    }
}

/// A Sentinel's description of the primary of a group: the names and values of its properties.
type MasterInfo = HashMap<String, String>;

impl Sentinels {
    /// Creates the Sentinels of a URL. The first query connects to them.
    pub(in crate::store::redis) fn new(
        group: String,
        addresses: &[ConnectionAddr],
        connector: &Connector,
        tls: bool,
    ) -> Self {
        let new_sentinel = |address: &ConnectionAddr| {
            Arc::new(Sentinel {
                address: address.clone(),
                connector: connector.clone(),
                connection: Mutex::default(),
            })
        };
        Self {
            group,
            display: format_addresses(addresses),
            members: addresses.iter().map(new_sentinel).collect(),
            timeout: connector.timeout,
            tls,
        }
    }

    /// Returns the primary of the newest configuration that any Sentinel reports.
    ///
    /// All Sentinels are queried at once, so that an unreachable Sentinel adds no delay. The
    /// configuration epochs of the replies are compared, so that the reply of an outdated Sentinel
    /// does not count.
    pub(in crate::store::redis) async fn find_primary(&self) -> Result<NamedPrimary, Error> {
        let mut queries = JoinSet::new();
        for sentinel in &self.members {
            let (sentinel, group) = (Arc::clone(sentinel), self.group.clone());
            queries.spawn(async move {
                let info = sentinel.master_info(&group).await;
                info.map(|info| (format_address(&sentinel.address), info))
            });
        }
        let mut deadline = Instant::now() + self.timeout;
        let mut newest: Option<(u64, String, MasterInfo)> = None;
        let mut failed: Option<RedisError> = None;
        while let Ok(Some(queried)) = tokio::time::timeout_at(deadline, queries.join_next()).await {
            match queried {
                Ok(Ok((sentinel, info))) => {
                    deadline = deadline.min(Instant::now() + STRAGGLER_WAIT);
                    let epoch = info.get("config-epoch").and_then(|text| text.parse().ok());
                    let epoch = epoch.unwrap_or(0);
                    if newest.as_ref().is_none_or(|(known, ..)| *known < epoch) {
                        newest = Some((epoch, sentinel, info));
                    }
                }
                // The last error reply is kept, because it explains more than an unreachable
                // Sentinel.
                Ok(Err(error)) => {
                    if server_error(&error).is_some() || failed.is_none() {
                        failed = Some(error);
                    }
                }
                Err(_) => {}
            }
        }
        let Some((_, sentinel, info)) = newest else {
            return Err(self.lookup_error(failed.as_ref()).await);
        };
        let port = info.get("port").and_then(|port| port.parse().ok());
        let (Some(host), Some(port)) = (info.get("ip"), port) else {
            return Err(Error::store_unavailable(format!(
                "the Sentinels at {} returned no address of the primary; check `sentinel monitor`",
                self.display
            )));
        };
        let host = host.clone();
        let address = if self.tls {
            ConnectionAddr::TcpTls {
                host,
                port,
                insecure: false,
                tls_params: None,
            }
        } else {
            ConnectionAddr::Tcp(host, port)
        };
        Ok(NamedPrimary {
            address,
            sentinel,
            group: self.group.clone(),
        })
    }

    /// Returns the error for operators if no Sentinel has returned a primary: the cause and the
    /// remedy. `error` is `None` if no Sentinel has replied in time.
    async fn lookup_error(&self, error: Option<&RedisError>) -> Error {
        let (shown, group) = (&self.display, &self.group);
        let Some(error) = error else {
            return Error::store_unavailable(format!(
                "no Sentinel of {shown} replied within {:?}; are they running, and is the URL right?",
                self.timeout
            ));
        };
        let message = describe_error(error);
        if message.contains("No such master") {
            let groups = self.describe_groups().await;
            return Error::configuration(format!(
                "the Sentinels at {shown} watch no group named {group:?}; {groups} \
                 (redis+sentinel://host:26379/NAME)"
            ));
        }
        if message.contains("unknown command") {
            return Error::configuration(format!(
                "a Redis server instead of a Sentinel replied at {shown}; a redis+sentinel:// URL lists \
                 the Sentinels, whose port is usually 26379"
            ));
        }
        if rejects_credentials(error) {
            return Error::configuration(format!(
                "the Sentinels at {shown} rejected the user or password ({message}); set those of the \
                 Sentinels with sentinel_credentials, because the URL's are for the servers"
            ));
        }
        if ErrorClass::classify(error).is_some_and(ErrorClass::is_transient) {
            return Error::store_unavailable(format!(
                "the Sentinels at {shown} were not ready ({message}); try again in a moment"
            ));
        }
        if server_error(error).is_some() {
            return Error::configuration(format!(
                "the Sentinels at {shown} rejected the query: {message}"
            ));
        }
        if error.is_connection_refusal() || error.is_timeout() {
            return Error::store_unavailable(format!(
                "no Sentinel of {shown} can be reached ({message}); are they running, and is the URL \
                 right?"
            ));
        }
        unreachable_error(&format!("a Sentinel of {shown}"), error)
    }

    /// Describes the groups that the first Sentinel to reply watches, for an operator who has
    /// mistyped a name.
    async fn describe_groups(&self) -> String {
        for sentinel in &self.members {
            let mut query = redis::cmd("SENTINEL");
            let groups: RedisResult<Vec<MasterInfo>> = sentinel.query(query.arg("MASTERS")).await;
            if let Ok(groups) = groups {
                let names = groups.iter().filter_map(|info| info.get("name"));
                let names: Vec<&str> = names.map(String::as_str).take(10).collect();
                return match names.as_slice() {
                    [] => "they watch no group yet".to_owned(),
                    names => format!("they watch {}", names.join(", ")),
                };
            }
        }
        "check the name".to_owned()
    }
}

impl Sentinel {
    /// Queries the Sentinel for its description of the primary of a group.
    async fn master_info(&self, group: &str) -> RedisResult<MasterInfo> {
        let mut query = redis::cmd("SENTINEL");
        self.query(query.arg("MASTER").arg(group)).await
    }

    /// Sends a command on the connection of the last query. Opens a new connection if there is
    /// none, or if the command gets no reply on it.
    ///
    /// The lock is held until the reply, so that two queries do not open two connections.
    async fn query<T: redis::FromRedisValue>(&self, command: &redis::Cmd) -> RedisResult<T> {
        let mut kept = self.connection.lock().await;
        if let Some(connection) = kept.as_mut() {
            match command.query_async(connection).await {
                Err(error) if server_error(&error).is_none() => *kept = None,
                reply => return reply,
            }
        }
        let (connection, _) = self.connector.connect(&self.address).await?;
        command.query_async(kept.insert(connection)).await
    }
}
