//! A connection to one server address. The connection is replaced when replies stay away, when the
//! server rejects the handshake, and when another server has taken over the address.
//!
//! # States
//!
//! [`Current`] holds the state. `begin_request` and `record_reply` make the transitions.
//!
//! - *In use*: commands use the current connection. The client library's manager reconnects when
//!   the connection breaks. Each reply keeps this state.
//! - *Unanswered* (`unanswered_since`): a command waits for a reply. Any reply returns to *in use*.
//!   After [`UNANSWERED_LIMIT`] the next command replaces the connection.
//! - *Rejected* (`rejected_at`): the server has rejected the handshake. After
//!   [`HANDSHAKE_RETRY_DELAY`] the next command replaces the connection.
//! - *Demoted* (`is_demoted`): the server has replied as a replica does, or reports that role. The
//!   address may lead to the new primary by now, for example if it is a virtual IP. Connections to
//!   the old primary stay open nevertheless. Once the connection is [`MIN_SWITCH_INTERVAL`] old,
//!   the next command replaces it and notifies subscribers. The rejected command is sent once more
//!   on the new connection.
//!
//! A replacement increments `generation` and returns to *in use*. Replies of an older generation
//! change nothing but `unanswered_since`.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Client, Cmd, ConnectionAddr, Pipeline, ProtocolVersion, RedisResult, Value};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::store::redis::connection::connector::{Connector, UNANSWERED_LIMIT};
use crate::store::redis::connection::errors::indicates_replica;

/// Time after which a connection whose handshake was rejected is replaced.
///
/// Redis rejects a handshake if the password has changed or the user is disabled, for example. The
/// client library's manager reconnects only after a connection broke. After a rejected handshake,
/// the manager would return the same rejection until the process ends.
const HANDSHAKE_RETRY_DELAY: Duration = Duration::from_millis(250);

/// Minimum age of a connection that is replaced because its server is a replica. Until the address
/// leads to the new primary, new connections still reach the old primary. The minimum age limits
/// the number of new connections.
const MIN_SWITCH_INTERVAL: Duration = Duration::from_millis(500);

/// Time between two checks of the server's role. The checks are needed because a replica rejects
/// only writes. A process that only reads or listens would not notice that its server is no longer
/// the primary.
const ROLE_CHECK_INTERVAL: Duration = Duration::from_secs(2);

/// Maximum number of attempts to connect when a store is opened. After an I/O error, another
/// attempt may succeed, because the server may be restarting.
const CONNECT_ATTEMPTS: u32 = 3;

/// Delay before another attempt to connect when a store is opened.
const CONNECT_RETRY_DELAY: Duration = Duration::from_millis(100);

/// A connection to one address. Clones share the connection.
#[derive(Clone)]
pub(in crate::store::redis) struct SingleConnection {
    inner: Arc<Inner>,
    /// The task that checks the server's role. The task is aborted when the last clone of the
    /// connection is dropped.
    _watch: Arc<AbortOnDropHandle<()>>,
}

struct Inner {
    address: ConnectionAddr,
    command_timeout: Duration,
    current: Mutex<Current>,
    /// Number of connections that were replaced because their server had become a replica.
    server_changes: watch::Sender<u64>,
}

/// The current connection and the facts that decide about its replacement. The module documentation
/// lists the states.
struct Current {
    /// The settings of new connections. They use RESP2 if the server does not support RESP3.
    connector: Connector,
    manager: ConnectionManager,
    /// Number of replacements before this connection. A late reply on an older connection has a
    /// smaller number, and must not mark the current connection as bad.
    generation: u64,
    created_at: Instant,
    /// The time at which the first command since the last reply was sent. `None` if no command was
    /// sent since then.
    unanswered_since: Option<Instant>,
    /// The time at which the server rejected the handshake of this connection.
    rejected_at: Option<Instant>,
    /// `true` if the server has replied as a replica does, or has reported the role of a replica.
    is_demoted: bool,
}

impl Current {
    /// Returns `true` if the state of the connection requires a new connection for the next
    /// command.
    fn must_be_replaced(&self, now: Instant) -> bool {
        let has_lasted = |since: Option<Instant>, limit| {
            since.is_some_and(|since| now.duration_since(since) >= limit)
        };
        has_lasted(self.unanswered_since, UNANSWERED_LIMIT)
            || has_lasted(self.rejected_at, HANDSHAKE_RETRY_DELAY)
            || (self.is_demoted && self.may_switch(now))
    }

    /// Returns `true` if the connection is at least [`MIN_SWITCH_INTERVAL`] old, so that it may be
    /// replaced by a connection to a new primary.
    fn may_switch(&self, now: Instant) -> bool {
        now.duration_since(self.created_at) >= MIN_SWITCH_INTERVAL
    }

    /// Replaces the client library's connection manager, and resets the state to *in use*. The new
    /// manager connects when it gets its first command. The old manager ends after the commands
    /// that wait for its replies.
    fn replace_manager(
        &mut self,
        address: &ConnectionAddr,
        command_timeout: Duration,
    ) -> RedisResult<()> {
        let client = self.connector.client_for(address)?;
        self.manager =
            ConnectionManager::new_lazy_with_config(client, manager_config(command_timeout))?;
        self.generation += 1;
        self.created_at = Instant::now();
        self.unanswered_since = None;
        self.rejected_at = None;
        self.is_demoted = false;
        Ok(())
    }
}

fn manager_config(command_timeout: Duration) -> ConnectionManagerConfig {
    ConnectionManagerConfig::new()
        .set_connection_timeout(Some(command_timeout))
        // The manager has no timeout for replies, because a second timer for each command would
        // only cost time. All callers have their own timer: `RedisStore::run_command`, `check_role`
        // and the heartbeats of channels.
        .set_response_timeout(None)
        // The manager makes few attempts to reconnect, with short delays. After these attempts have
        // failed, the next command starts new ones. So the store finds Redis within seconds of its
        // return.
        .set_number_of_retries(2)
        .set_min_delay(Duration::from_millis(50))
        .set_max_delay(Duration::from_millis(300))
}

impl SingleConnection {
    /// Connects to the address, and starts the task that checks the server's role.
    pub(in crate::store::redis) async fn connect(
        address: ConnectionAddr,
        connector: Connector,
    ) -> RedisResult<Self> {
        // The first connection only finds out which protocol the server supports. The builder of
        // the store limits the time for all attempts.
        let mut attempts = 1;
        let connector = loop {
            match connector.connect(&address).await {
                Ok((_, connector)) => break connector,
                Err(error) if attempts < CONNECT_ATTEMPTS && error.is_io_error() => attempts += 1,
                Err(error) => return Err(error),
            }
            tokio::time::sleep(CONNECT_RETRY_DELAY).await;
        };
        let command_timeout = connector.timeout;
        let client = connector.client_for(&address)?;
        let manager =
            ConnectionManager::new_with_config(client, manager_config(command_timeout)).await?;
        let inner = Arc::new(Inner {
            address,
            command_timeout,
            current: Mutex::new(Current {
                connector,
                manager,
                generation: 0,
                created_at: Instant::now(),
                unanswered_since: None,
                rejected_at: None,
                is_demoted: false,
            }),
            server_changes: watch::Sender::new(0),
        });
        let watch = tokio::spawn(watch_role(Arc::downgrade(&inner)));
        Ok(Self {
            inner,
            _watch: Arc::new(AbortOnDropHandle::new(watch)),
        })
    }

    /// Returns a client for separate connections to the address of this connection.
    pub(in crate::store::redis) fn new_client(&self) -> RedisResult<Client> {
        let connector = self.inner.current().connector.clone();
        connector.client_for(&self.inner.address)
    }

    /// Returns `true` if the connection uses RESP3, so that the server supports `HELLO`.
    pub(in crate::store::redis) fn supports_hello(&self) -> bool {
        self.inner.supports_hello()
    }

    /// Returns a receiver that is notified when the connection is replaced because its server has
    /// become a replica.
    pub(in crate::store::redis) fn server_changes(&self) -> watch::Receiver<u64> {
        self.inner.server_changes.subscribe()
    }

    /// Sends a command. If a replica has rejected the command, sends it once more on a new
    /// connection, unless the current connection is too young to be replaced.
    pub(in crate::store::redis) async fn command(&self, command: &Cmd) -> RedisResult<Value> {
        self.inner.command(command).await
    }

    /// Sends a pipeline. A pipeline that a replica has rejected is not sent again, but the next
    /// command may use a new connection.
    pub(in crate::store::redis) async fn commands(
        &self,
        commands: &Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisResult<Vec<Value>> {
        let (mut manager, mut pending) = self.inner.begin_request()?;
        let outcome = manager.send_packed_commands(commands, offset, count).await;
        pending.record_reply(&outcome);
        let generation = pending.generation;
        // Commands before the rejected one may have run, so the pipeline is not sent again.
        let is_rejected = outcome.iter().flatten().any(is_replica_error);
        if is_rejected {
            self.inner.mark_demoted(generation);
        }
        outcome
    }
}

impl Inner {
    fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn supports_hello(&self) -> bool {
        self.current().connector.connection_info.protocol() != ProtocolVersion::RESP2
    }

    /// Returns the connection for a command. Replaces the connection first if its state requires a
    /// new one.
    ///
    /// The lock is held only while the connection is chosen, never while a command waits for its
    /// reply.
    fn begin_request(&self) -> RedisResult<(ConnectionManager, PendingReply<'_>)> {
        let now = Instant::now();
        let mut current = self.current();
        if current.must_be_replaced(now) {
            let was_demoted = current.is_demoted;
            current.replace_manager(&self.address, self.command_timeout)?;
            if was_demoted {
                self.server_changes.send_modify(|changes| *changes += 1);
            }
        }
        current.unanswered_since.get_or_insert(now);
        let pending = PendingReply {
            inner: self,
            generation: current.generation,
            sent_at: now,
            is_answered: false,
        };
        Ok((current.manager.clone(), pending))
    }

    async fn command(&self, command: &Cmd) -> RedisResult<Value> {
        let (reply, generation) = self.command_once(command).await;
        if !reply.as_ref().is_ok_and(is_replica_error) || !self.mark_demoted(generation) {
            return reply;
        }
        // A replica rejects the first write of a script or transaction, so nothing has been written
        // yet. The command therefore takes effect only once, at the new primary. The second attempt
        // is boxed to keep this future small, because second attempts are rare.
        Box::pin(self.command_once(command)).await.0
    }

    /// Sends a command once. Returns the reply and the generation of the connection.
    async fn command_once(&self, command: &Cmd) -> (RedisResult<Value>, u64) {
        let (mut manager, mut pending) = match self.begin_request() {
            Ok(request) => request,
            Err(error) => return (Err(error), 0),
        };
        let outcome = manager.send_packed_command(command).await;
        pending.record_reply(&outcome);
        (outcome, pending.generation)
    }

    /// Marks the server as a replica, unless the connection with this generation has already been
    /// replaced. Returns `true` if the next command uses another connection, and `false` while the
    /// current connection is too young to be replaced.
    fn mark_demoted(&self, generation: u64) -> bool {
        let mut current = self.current();
        if current.generation != generation {
            return true;
        }
        current.is_demoted = true;
        current.may_switch(Instant::now())
    }

    /// Checks with `HELLO` whether the server is still the primary, and replaces the connection if
    /// the server has become a replica.
    async fn check_role(&self, was_primary: &mut bool) {
        if !self.supports_hello() {
            return;
        }
        let hello = redis::cmd("HELLO");
        let outcome = tokio::time::timeout(self.command_timeout, self.command_once(&hello)).await;
        let (reply, generation) = match outcome {
            Ok((Ok(reply), generation)) => (reply, generation),
            Ok((Err(_), _)) => return self.retry_handshake().await,
            Err(_) => return,
        };
        match role_is_primary(reply) {
            Some(true) => *was_primary = true,
            // A store may be connected to a replica on purpose, to read an external token. Such a
            // connection is kept.
            Some(false) if *was_primary => {
                if self.mark_demoted(generation) {
                    let check = self.command_once(&hello);
                    let _ = tokio::time::timeout(self.command_timeout, check).await;
                }
            }
            Some(false) | None => {}
        }
    }

    /// Repeats the handshake on a test connection after `HELLO` has failed. If the server supports
    /// only RESP2, replaces the current connection by one in RESP2. A server with another version
    /// may have taken over the address.
    async fn retry_handshake(&self) {
        let connector = self.current().connector.clone();
        if let Ok((_, accepted)) = connector.connect(&self.address).await
            && accepted.connection_info.protocol() == ProtocolVersion::RESP2
        {
            let mut current = self.current();
            current.connector = accepted;
            let _ = current.replace_manager(&self.address, self.command_timeout);
        }
    }
}

/// Checks the role of the server every [`ROLE_CHECK_INTERVAL`], until the connection is dropped.
async fn watch_role(inner: Weak<Inner>) {
    let mut was_primary = false;
    loop {
        match inner.upgrade() {
            Some(inner) => inner.check_role(&mut was_primary).await,
            None => return,
        }
        tokio::time::sleep(ROLE_CHECK_INTERVAL).await;
    }
}

/// Returns `true` if the reply to `HELLO` names the role `master`, and `false` for another role.
/// Returns `None` if the reply names no role.
fn role_is_primary(reply: Value) -> Option<bool> {
    let hello: std::collections::HashMap<String, Value> = redis::from_redis_value(reply).ok()?;
    let role = hello.get("role")?.clone();
    redis::from_redis_value::<String>(role)
        .ok()
        .map(|role| role == "master")
}

/// Returns `true` if a reply is an error that indicates that the server has become a replica.
fn is_replica_error(reply: &Value) -> bool {
    matches!(reply, Value::ServerError(error) if indicates_replica(error))
}

/// Guard of a command that waits for its reply. Records whether the command was answered or dropped
/// early.
struct PendingReply<'a> {
    inner: &'a Inner,
    /// The generation of the connection that carries the command.
    generation: u64,
    sent_at: Instant,
    is_answered: bool,
}

impl PendingReply<'_> {
    /// Records the outcome of a command. Every outcome except a timeout counts as a reply. After a
    /// broken connection, the client library's manager reconnects by itself.
    fn record_reply<T>(&mut self, outcome: &RedisResult<T>) {
        let error = outcome.as_ref().err();
        let mut current = self.inner.current();
        if !error.is_some_and(redis::RedisError::is_timeout) {
            current.unanswered_since = None;
            self.is_answered = true;
        }
        // An error reply to a command arrives as a value. An `Err` that is no I/O error is
        // therefore the reply to the handshake, or does not come from a Redis server.
        if error.is_some_and(|error| !error.is_io_error()) && current.generation == self.generation
        {
            current.rejected_at.get_or_insert_with(Instant::now);
        }
    }
}

impl Drop for PendingReply<'_> {
    /// Resets `unanswered_since` if this command has set it and was dropped before three quarters
    /// of its timeout. A reply that is missing so early does not show that the connection is bad.
    fn drop(&mut self) {
        if self.is_answered {
            return;
        }
        let mut current = self.inner.current();
        if current.unanswered_since == Some(self.sent_at)
            && self.sent_at.elapsed() < self.inner.command_timeout * 3 / 4
        {
            current.unanswered_since = None;
        }
    }
}
