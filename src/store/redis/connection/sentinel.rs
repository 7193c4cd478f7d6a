//! A connection to whichever server the Sentinels call the primary.
//!
//! One task watches. It asks the Sentinels again when the connection ends, when the server says
//! that it is a replica by now, when answers stay away, and every few seconds besides: a primary
//! that was cut off from the others goes on answering, and only the Sentinels know better.

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

/// How often the Sentinels are asked while all is well.
const SENTINEL_POLL_INTERVAL: Duration = Duration::from_secs(5);

/// The rest between two questions while it is not.
const RETRY_DELAY: Duration = Duration::from_millis(100);

/// The present primary. Clones share it.
#[derive(Clone)]
pub(in crate::store::redis) struct SentinelConnection {
    shared: Arc<Shared>,
    /// Ends with the last clone.
    _watch: Arc<AbortOnDropHandle<()>>,
}

struct Shared {
    sentinels: Sentinels,
    connector: Connector,
    state: watch::Sender<ConnectionState>,
    /// Wakes the task that watches.
    recheck_requested: Notify,
}

#[derive(Clone)]
enum ConnectionState {
    /// Connected; or lost, and the next one is looked for, which commands wait for.
    Connected(Active),
    /// None was found; commands fail at once until one is.
    Disconnected(Arc<str>),
}

/// A connection to one server.
#[derive(Clone)]
struct Active {
    connection: MultiplexedConnection,
    /// RESP2 where the server knows nothing else.
    protocol: ProtocolVersion,
    address: ConnectionAddr,
    lost: Arc<AtomicBool>,
}

impl Active {
    fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }
}

impl SentinelConnection {
    /// Finds the primary and connects to it.
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
        let link = shared
            .connect_to(&named.address)
            .await
            .map_err(|error| ConnectError::Server(named, error))?;
        shared.state.send_replace(ConnectionState::Connected(link));
        let watch = tokio::spawn(Arc::clone(&shared).watch_primary());
        Ok(Self {
            shared,
            _watch: Arc::new(AbortOnDropHandle::new(watch)),
        })
    }

    /// Answers have stayed away: the primary may be another one by now.
    pub(in crate::store::redis) fn report_timeout(&self) {
        self.shared.recheck_requested.notify_one();
    }

    /// A client of the present primary, for connections of their own.
    pub(in crate::store::redis) async fn new_client(&self) -> RedisResult<Client> {
        let link = self.active().await?;
        let dialer = self.shared.connector.clone().with_protocol(link.protocol);
        dialer.client_for(&link.address)
    }

    async fn active(&self) -> RedisResult<Active> {
        let mut state = self.shared.state.subscribe();
        loop {
            match &*state.borrow_and_update() {
                ConnectionState::Connected(link) if !link.is_lost() => return Ok(link.clone()),
                ConnectionState::Connected(_) => {}
                ConnectionState::Disconnected(why) => return Err(not_connected(why)),
            }
            if state.changed().await.is_err() {
                return Err(not_connected("the store is closed"));
            }
        }
    }

    pub(in crate::store::redis) async fn command(&self, command: &Cmd) -> RedisResult<Value> {
        let mut link = self.active().await?;
        let answer = link.connection.send_packed_command(command).await;
        let refusal = match &answer {
            Ok(Value::ServerError(said)) => Some(said),
            _ => None,
        };
        if !self.check_demotion(&link, refusal, answer.as_ref().err()) {
            return answer;
        }
        // A replica refuses the first write of a script, of a transaction or by itself, so nothing
        // has happened yet: asking the new primary cannot do it twice. (A connection that ends is
        // another matter: the answer is lost, the command may have run. Those errors go up to
        // where the command is understood.)
        let mut link = self.active().await?;
        link.connection.send_packed_command(command).await
    }

    pub(in crate::store::redis) async fn commands(
        &self,
        commands: &Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisResult<Vec<Value>> {
        let mut link = self.active().await?;
        let answers = link
            .connection
            .send_packed_commands(commands, offset, count)
            .await;
        self.check_demotion(&link, None, answers.as_ref().err());
        answers
    }

    /// Whether the server has refused as a replica does. Whatever went wrong with the connection
    /// is noted on the way.
    fn check_demotion(
        &self,
        active: &Active,
        error_reply: Option<&ServerError>,
        error: Option<&RedisError>,
    ) -> bool {
        let said = error_reply
            .cloned()
            .or_else(|| error.and_then(server_error));
        match said {
            Some(said) if indicates_replica(&said) => {
                self.shared.mark_lost(active);
                true
            }
            Some(said) => {
                if may_precede_failover(&said) {
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
    /// The link is of no use any more: the next one is looked for.
    fn mark_lost(&self, active: &Active) {
        if !active.lost.swap(true, Ordering::Relaxed) {
            self.recheck_requested.notify_one();
        }
    }

    async fn watch_primary(self: Arc<Self>) {
        let mut unanswered_since = None;
        loop {
            let current = match &*self.state.borrow() {
                ConnectionState::Connected(link) if !link.is_lost() => Some(link.clone()),
                _ => None,
            };
            if current.is_some() && unanswered_since.is_none() {
                let _ =
                    tokio::time::timeout(SENTINEL_POLL_INTERVAL, self.recheck_requested.notified())
                        .await;
            }
            unanswered_since = self.check_primary(current, unanswered_since).await;
            // However many commands fail, the Sentinels are not asked without a rest.
            tokio::time::sleep(RETRY_DELAY).await;
        }
    }

    /// Asks who the primary is, and goes there if that is news. Answers since when the present one
    /// has been silent, where it is: until it speaks, or another one takes over, there is nothing
    /// to wait for between two questions. Whoever is late to leave a frozen primary would be served
    /// by it when it thaws, which is before it hears that it is none any more.
    async fn check_primary(
        self: &Arc<Self>,
        current: Option<Active>,
        unanswered_since: Option<Instant>,
    ) -> Option<Instant> {
        let found = match self.sentinels.find_primary().await {
            Ok(named) => named,
            // Without Sentinels a primary that answers goes on being used.
            Err(error) if current.is_some() => {
                tracing::debug!(target: "tower_wechat::store", %error, "the Sentinels do not answer");
                return None;
            }
            Err(error) => {
                self.set_disconnected(&error.to_string());
                return None;
            }
        };
        let mut since = None;
        if let Some(link) = &current
            && link.address == found.address
            && !link.is_lost()
        {
            if self.is_responding(link).await {
                return None;
            }
            let began = unanswered_since.unwrap_or_else(Instant::now);
            if began.elapsed() < UNANSWERED_LIMIT {
                return Some(began);
            }
            since = Some(began);
        }
        match self.connect_to(&found.address).await {
            Ok(link) => {
                tracing::info!(
                    target: "tower_wechat::store",
                    primary = format_address(&found.address),
                    "Redis: connected to the primary"
                );
                self.state.send_replace(ConnectionState::Connected(link));
                None
            }
            Err(error) if current.is_none() => {
                self.set_disconnected(&format!("the primary, {found}: {}", describe_error(&error)));
                None
            }
            Err(error) => {
                tracing::debug!(target: "tower_wechat::store", primary = %found, %error, "the primary does not take us yet");
                since.or_else(|| Some(unanswered_since.unwrap_or_else(Instant::now)))
            }
        }
    }

    /// Whether the connection brings answers.
    async fn is_responding(&self, active: &Active) -> bool {
        let mut connection = active.connection.clone();
        let ping = redis::cmd("PING");
        let ping = connection.send_packed_command(&ping);
        let answer = tokio::time::timeout(self.connector.timeout / 4, ping).await;
        matches!(answer, Ok(Ok(_)))
    }

    fn set_disconnected(&self, reason: &str) {
        self.state.send_if_modified(|state| match state {
            ConnectionState::Connected(link) if !link.is_lost() => false,
            _ => {
                *state = ConnectionState::Disconnected(reason.into());
                true
            }
        });
    }

    /// Connects to a server that says that it is the primary.
    async fn connect_to(self: &Arc<Self>, address: &ConnectionAddr) -> RedisResult<Active> {
        let lost = Arc::new(AtomicBool::new(false));
        let greeting = self.connector.connect_with(address, |protocol, config| {
            if protocol == ProtocolVersion::RESP2 {
                return config;
            }
            // RESP3 tells of a disconnect at once: under RESP2 the next command fails.
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
        let (mut connection, dialer) = greeting.await?;
        // Sentinels may name a server a moment before it takes over, or after it was demoted.
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
            // A user may not be allowed to ask; then the first write tells.
            Err(error) if server_error(&error).is_some() => {
                redis::cmd("PING").exec_async(&mut connection).await?;
            }
            Err(error) => return Err(error),
        }
        Ok(Active {
            connection,
            protocol: dialer.connection_info.protocol(),
            address: address.clone(),
            lost,
        })
    }
}

/// Why there is no first connection.
pub(in crate::store::redis) enum ConnectError {
    Sentinels(Error),
    Server(NamedPrimary, RedisError),
}

fn not_connected(reason: &str) -> RedisError {
    // Not as a connection that was dropped: nobody has hung up.
    std::io::Error::other(reason.to_owned()).into()
}
