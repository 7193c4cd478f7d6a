//! A connection to the server that the Sentinels name as the primary.
//!
//! One task queries the Sentinels: when the connection ends, when the server replies as a replica
//! does, when replies stay away, and every [`SENTINEL_POLL_INTERVAL`]. The regular queries are
//! needed because a primary that is cut off from the other servers still replies to its clients.
//!
//! # States
//!
//! - *Connected*, and not `lost`: commands use the connection. The task waits until a check is
//!   requested or the next regular query is due. `mark_lost` and the disconnect message of RESP3
//!   set `lost`.
//! - *Connected*, and `lost`: commands wait for the next state. The task queries the Sentinels
//!   every [`RETRY_DELAY`].
//! - *Disconnected*: the task has found no primary. Commands fail at once. The task queries the
//!   Sentinels every [`RETRY_DELAY`], and connects as soon as a primary can be reached.
//!
//! If a connected primary does not reply to `PING`, the task queries the Sentinels every
//! [`RETRY_DELAY`] until the primary replies or another server takes over. After
//! [`UNANSWERED_LIMIT`] the task replaces the connection to the same primary.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{
    Client, Cmd, ConnectionAddr, Pipeline, ProtocolVersion, PushInfo, PushKind, RedisError,
    RedisResult, ServerError, Value,
};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::error::Error;
use crate::store::redis::connection::connector::{Connector, UNANSWERED_LIMIT};
use crate::store::redis::connection::errors::{
    NOT_PRIMARY, describe_error, indicates_replica, may_precede_failover, server_error,
};
use crate::store::redis::connection::sentinel_discovery::{NamedPrimary, Sentinels};
use crate::store::redis::connection::url::format_address;

/// Maximum time between two queries of the Sentinels. The queries cannot wait for an error, because
/// a primary that is cut off from the other servers still replies.
const SENTINEL_POLL_INTERVAL: Duration = Duration::from_secs(5);

/// Minimum time between two queries of the Sentinels. The minimum limits the number of queries
/// while many commands fail.
const RETRY_DELAY: Duration = Duration::from_millis(100);

/// A connection to the current primary. Clones share the connection.
#[derive(Clone)]
pub(in crate::store::redis) struct SentinelConnection {
    shared: Arc<Shared>,
    /// The task that queries the Sentinels. The task is aborted when the last clone of the
    /// connection is dropped.
    _watch: Arc<AbortOnDropHandle<()>>,
}

struct Shared {
    sentinels: Sentinels,
    connector: Connector,
    state: watch::Sender<ConnectionState>,
    /// Wakes the task that queries the Sentinels. A notification during a query is kept, and starts
    /// another query.
    recheck_requested: Notify,
}

/// The state of the connection to the primary. The module documentation lists the transitions.
#[derive(Clone)]
enum ConnectionState {
    /// A connection to the primary. While the connection is marked as lost, commands wait for the
    /// next state.
    Connected(Active),
    /// No connection, for this reason. Commands fail at once.
    Disconnected(Arc<str>),
}

/// A connection to a server that the Sentinels named as the primary.
#[derive(Clone)]
struct Active {
    connection: MultiplexedConnection,
    /// The protocol of the connection: RESP3, or RESP2 if the server or the URL requires RESP2.
    protocol: ProtocolVersion,
    address: ConnectionAddr,
    /// `true` once the connection cannot be used any more. `Relaxed` is enough: the flag publishes
    /// no other memory, and commands that read it late fail and set it again.
    lost: Arc<AtomicBool>,
}

impl Active {
    fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }
}

impl SentinelConnection {
    /// Finds the primary, connects to it, and starts the task that queries the Sentinels.
    pub(in crate::store::redis) async fn connect(
        sentinels: Sentinels,
        connector: Connector,
    ) -> Result<Self, ConnectError> {
        let named = sentinels
            .find_primary()
            .await
            .map_err(ConnectError::Sentinels)?;
        let (state, _) = watch::channel(ConnectionState::Disconnected("not connected yet".into()));
        let shared = Arc::new(Shared {
            sentinels,
            connector,
            state,
            recheck_requested: Notify::new(),
        });
        let active = shared
            .connect_to(&named.address)
            .await
            .map_err(|error| ConnectError::Server(named, error))?;
        shared
            .state
            .send_replace(ConnectionState::Connected(active));
        let watch = tokio::spawn(Arc::clone(&shared).watch_primary());
        Ok(Self {
            shared,
            _watch: Arc::new(AbortOnDropHandle::new(watch)),
        })
    }

    /// Requests a check of the primary, because a command had no reply in time.
    pub(in crate::store::redis) fn report_timeout(&self) {
        self.shared.recheck_requested.notify_one();
    }

    /// Returns a client for separate connections to the current primary.
    pub(in crate::store::redis) async fn new_client(&self) -> RedisResult<Client> {
        let active = self.active().await?;
        let connector = self.shared.connector.clone().with_protocol(active.protocol);
        connector.client_for(&active.address)
    }

    /// Returns the connection to the primary. Waits while a lost connection is replaced, and fails
    /// while there is no connection.
    async fn active(&self) -> RedisResult<Active> {
        let mut state = self.shared.state.subscribe();
        loop {
            match &*state.borrow_and_update() {
                ConnectionState::Connected(active) if !active.is_lost() => {
                    return Ok(active.clone());
                }
                ConnectionState::Connected(_) => {}
                ConnectionState::Disconnected(reason) => return Err(not_connected(reason)),
            }
            if state.changed().await.is_err() {
                return Err(not_connected("the store is closed"));
            }
        }
    }

    /// Sends a command. If a replica has rejected the command, sends it once more to the new
    /// primary.
    pub(in crate::store::redis) async fn command(&self, command: &Cmd) -> RedisResult<Value> {
        let mut active = self.active().await?;
        let reply = active.connection.send_packed_command(command).await;
        let error_reply = match &reply {
            Ok(Value::ServerError(error)) => Some(error),
            _ => None,
        };
        if !self.check_demotion(&active, error_reply, reply.as_ref().err()) {
            return reply;
        }
        // A replica rejects the first write of a script or transaction, so nothing has been written
        // yet. The command therefore takes effect only once, at the new primary. After a broken
        // connection the command may have run, so the caller gets that error and decides.
        let mut active = self.active().await?;
        active.connection.send_packed_command(command).await
    }

    /// Sends a pipeline. A pipeline that a replica has rejected is not sent again, but the next
    /// command waits for the new primary.
    pub(in crate::store::redis) async fn commands(
        &self,
        commands: &Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisResult<Vec<Value>> {
        let mut active = self.active().await?;
        let replies = active
            .connection
            .send_packed_commands(commands, offset, count)
            .await;
        let error_reply = replies.iter().flatten().find_map(|reply| match reply {
            Value::ServerError(error) => Some(error),
            _ => None,
        });
        self.check_demotion(&active, error_reply, replies.as_ref().err());
        replies
    }

    /// Examines the reply or the error of a command. Marks the connection as lost if it is broken,
    /// or if the server has replied as a replica does. Requests a check of the primary after other
    /// errors that may come before a fail-over.
    ///
    /// Returns `true` if the server has replied as a replica does.
    fn check_demotion(
        &self,
        active: &Active,
        error_reply: Option<&ServerError>,
        error: Option<&RedisError>,
    ) -> bool {
        let error_reply = error_reply
            .cloned()
            .or_else(|| error.and_then(server_error));
        match error_reply {
            Some(reply) if indicates_replica(&reply) => {
                self.shared.mark_lost(active);
                true
            }
            Some(reply) => {
                if may_precede_failover(&reply) {
                    self.report_timeout();
                }
                false
            }
            None => {
                match error {
                    Some(error) if error.is_unrecoverable_error() => self.shared.mark_lost(active),
                    Some(_) => self.report_timeout(),
                    None => {}
                }
                false
            }
        }
    }
}

impl Shared {
    /// Marks a connection as lost, and wakes the task that connects to the new primary.
    fn mark_lost(&self, active: &Active) {
        if !active.lost.swap(true, Ordering::Relaxed) {
            self.recheck_requested.notify_one();
        }
    }

    /// Checks the primary whenever a check is requested and every [`SENTINEL_POLL_INTERVAL`], until
    /// the store is dropped. While the primary does not reply or there is no connection, checks
    /// every [`RETRY_DELAY`].
    async fn watch_primary(self: Arc<Self>) {
        let mut unanswered_since = None;
        loop {
            let current = match &*self.state.borrow() {
                ConnectionState::Connected(active) if !active.is_lost() => Some(active.clone()),
                ConnectionState::Connected(_) | ConnectionState::Disconnected(_) => None,
            };
            if current.is_some() && unanswered_since.is_none() {
                let _ =
                    tokio::time::timeout(SENTINEL_POLL_INTERVAL, self.recheck_requested.notified())
                        .await;
            }
            unanswered_since = self.check_primary(current, unanswered_since).await;
            // This delay limits the rate of the queries.
            tokio::time::sleep(RETRY_DELAY).await;
        }
    }

    /// Queries the Sentinels. Connects to the primary that they name if its address is new, if the
    /// connection is lost, or after [`UNANSWERED_LIMIT`] without a reply.
    ///
    /// Returns the time of the first of several checks in which the primary did not reply or could
    /// not be reached. Returns `None` after every other check.
    ///
    /// After a check that returned a time, `watch_primary` starts the next check without waiting
    /// until one is requested. A primary that was suspended may resume and reply before the
    /// Sentinels demote it. So commands must change to the new primary early.
    async fn check_primary(
        self: &Arc<Self>,
        current: Option<Active>,
        unanswered_since: Option<Instant>,
    ) -> Option<Instant> {
        let found = match self.sentinels.find_primary().await {
            Ok(named) => named,
            // If the Sentinels name no primary, commands keep using the current connection.
            Err(error) if current.is_some() => {
                tracing::debug!(target: "tower_wechat::store", %error, "the Sentinels did not reply; the current primary is still used");
                return None;
            }
            Err(error) => {
                self.set_disconnected(&error.to_string());
                return None;
            }
        };
        let mut still_unanswered_since = None;
        if let Some(active) = &current
            && active.address == found.address
            && !active.is_lost()
        {
            if self.is_responding(active).await {
                return None;
            }
            let unanswered_since = unanswered_since.unwrap_or_else(Instant::now);
            if unanswered_since.elapsed() < UNANSWERED_LIMIT {
                return Some(unanswered_since);
            }
            still_unanswered_since = Some(unanswered_since);
        }
        match self.connect_to(&found.address).await {
            Ok(active) => {
                tracing::info!(
                    target: "tower_wechat::store",
                    primary = format_address(&found.address),
                    "Redis: connected to the primary"
                );
                self.state.send_replace(ConnectionState::Connected(active));
                None
            }
            Err(error) if current.is_none() => {
                self.set_disconnected(&format!("the primary, {found}: {}", describe_error(&error)));
                None
            }
            Err(error) => {
                tracing::debug!(target: "tower_wechat::store", primary = %found, %error, "the connection to the primary failed and is retried");
                still_unanswered_since
                    .or_else(|| Some(unanswered_since.unwrap_or_else(Instant::now)))
            }
        }
    }

    /// Returns `true` if the server replies to `PING` on this connection, within a quarter of the
    /// command timeout.
    async fn is_responding(&self, active: &Active) -> bool {
        let mut connection = active.connection.clone();
        let ping = redis::cmd("PING");
        let ping = connection.send_packed_command(&ping);
        let reply = tokio::time::timeout(self.connector.timeout / 4, ping).await;
        matches!(reply, Ok(Ok(_)))
    }

    /// Sets the state to disconnected, unless a connection is in use.
    fn set_disconnected(&self, reason: &str) {
        self.state.send_if_modified(|state| match state {
            ConnectionState::Connected(active) if !active.is_lost() => false,
            ConnectionState::Connected(_) | ConnectionState::Disconnected(_) => {
                *state = ConnectionState::Disconnected(reason.into());
                true
            }
        });
    }

    /// Connects to a server. Fails if the server reports another role than that of a primary.
    async fn connect_to(self: &Arc<Self>, address: &ConnectionAddr) -> RedisResult<Active> {
        let lost = Arc::new(AtomicBool::new(false));
        let handshake = self.connector.connect_with(address, |protocol, config| {
            if protocol == ProtocolVersion::RESP2 {
                return config;
            }
            // In RESP3 the client library reports a disconnect at once. In RESP2 the next command
            // fails.
            let (shared, lost) = (Arc::downgrade(self), Arc::clone(&lost));
            config.set_push_sender(move |push: PushInfo| {
                if push.kind == PushKind::Disconnection {
                    lost.store(true, Ordering::Relaxed);
                    if let Some(shared) = shared.upgrade() {
                        shared.recheck_requested.notify_one();
                    }
                }
                Ok::<_, std::convert::Infallible>(())
            })
        });
        let (mut connection, connector) = handshake.await?;
        // Sentinels may name a server shortly before it takes over, or after it was demoted.
        let role: RedisResult<Vec<Value>> = redis::cmd("ROLE").query_async(&mut connection).await;
        match role {
            Ok(role) => {
                let role = role
                    .into_iter()
                    .next()
                    .map(redis::from_redis_value::<String>);
                if !matches!(&role, Some(Ok(role)) if role == "master") {
                    return Err(not_connected(NOT_PRIMARY));
                }
            }
            // The ACL user may lack the permission to run ROLE. Then the first write shows whether
            // the server is a replica.
            Err(error) if server_error(&error).is_some() => {
                redis::cmd("PING").exec_async(&mut connection).await?;
            }
            Err(error) => return Err(error),
        }
        Ok(Active {
            connection,
            protocol: connector.connection_info.protocol(),
            address: address.clone(),
            lost,
        })
    }
}

/// The reason why the first connection failed: the query of the Sentinels, or the connection to the
/// primary that they named.
pub(in crate::store::redis) enum ConnectError {
    Sentinels(Error),
    Server(NamedPrimary, RedisError),
}

fn not_connected(reason: &str) -> RedisError {
    // The kind `Other` distinguishes this error from a dropped connection.
    std::io::Error::other(reason.to_owned()).into()
}
