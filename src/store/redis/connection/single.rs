//! The connection to one address, and its replacement: when it has fallen silent, when the server
//! does not let us in, and when another server has taken over behind the address.
//!
//! # States
//!
//! - *In use*: commands go out on the connection that stands. Its manager makes another one when it
//!   breaks.
//! - *Silent*: no command has been answered for three seconds. The next command goes out on a new
//!   connection.
//! - *Turned away*: the server has refused the greeting. The next command after a rest goes out on
//!   a new connection.
//! - *Left*: the server has refused a command as a replica does, or says that it has become one. A
//!   name, a virtual IP or the endpoint of a managed Redis may lead to the new primary by now, while
//!   connections to the old one stay open. The command is asked again on a new connection, and
//!   subscribers are told to follow.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Client, Cmd, ConnectionAddr, Pipeline, ProtocolVersion, RedisResult, Value};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::store::redis::connection::connector::{Connector, UNANSWERED_LIMIT};
use crate::store::redis::connection::errors::indicates_replica;

/// A connection that Redis turned away is asked for again after this long.
///
/// Redis may answer a greeting with a refusal: a password that is set before we know of it, a user
/// who is switched off for a while, another program on the port. The manager tries again only where
/// a connection broke, and would hand out that refusal until the process ends.
const HANDSHAKE_RETRY_DELAY: Duration = Duration::from_millis(250);

/// The shortest life of a connection that is left because its server is a replica. Until the address
/// leads to the new primary, each new connection ends at the old one, however many writes are asked.
const MIN_SWITCH_INTERVAL: Duration = Duration::from_millis(500);

/// How often the server is asked whether it is still the primary. Reads, messages and a process
/// without requests would never find out otherwise.
const ROLE_CHECK_INTERVAL: Duration = Duration::from_secs(2);

/// How often a server that cannot be reached is tried when the store is opened, and the rest
/// between two tries.
const CONNECT_ATTEMPTS: u32 = 3;
const CONNECT_RETRY_DELAY: Duration = Duration::from_millis(100);

/// Clones share the connection.
#[derive(Clone)]
pub(in crate::store::redis) struct SingleConnection {
    inner: Arc<Inner>,
    /// Ends with the last clone.
    _watch: Arc<AbortOnDropHandle<()>>,
}

struct Inner {
    address: ConnectionAddr,
    command_timeout: Duration,
    current: Mutex<Current>,
    /// How often the server was left for another one.
    server_changes: watch::Sender<u64>,
}

struct Current {
    /// What connections are made with: in RESP2 where the server knows nothing else.
    connector: Connector,
    manager: ConnectionManager,
    /// Counts the managers, so that a late answer on an old connection condemns no new one.
    generation: u64,
    created_at: Instant,
    /// Since when no question has been answered, where there is one.
    unanswered_since: Option<Instant>,
    /// When Redis refused to speak with us on this connection, where it did.
    rejected_at: Option<Instant>,
    /// Whether the server has refused as a replica does.
    is_demoted: bool,
}

impl Current {
    fn must_be_replaced(&self, now: Instant) -> bool {
        let has_lasted = |since: Option<Instant>, patience| {
            since.is_some_and(|since| now.duration_since(since) >= patience)
        };
        has_lasted(self.unanswered_since, UNANSWERED_LIMIT)
            || has_lasted(self.rejected_at, HANDSHAKE_RETRY_DELAY)
            || (self.is_demoted && self.may_switch(now))
    }

    fn may_switch(&self, now: Instant) -> bool {
        now.duration_since(self.created_at) >= MIN_SWITCH_INTERVAL
    }

    /// Makes another manager, which connects with the first question. The old one ends with the
    /// last command that waits on it.
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
        // Whoever asks bounds the whole of their question, and asks through the guard; a second
        // timer for each would bound nothing more.
        .set_response_timeout(None)
        // Few and short tries: after them the next command starts over, so that Redis is
        // found again within seconds of its return.
        .set_number_of_retries(2)
        .set_min_delay(Duration::from_millis(50))
        .set_max_delay(Duration::from_millis(300))
}

impl SingleConnection {
    /// Connects. Answers are to be waited for at most as long as the dialer says.
    pub(in crate::store::redis) async fn connect(
        address: ConnectionAddr,
        connector: Connector,
    ) -> RedisResult<Self> {
        // The first connection finds out which protocol the server speaks, and ends. Whoever opens
        // the store bounds the whole of it.
        let mut tries = 1;
        let dialer = loop {
            match connector.connect(&address).await {
                Ok((_, dialer)) => break dialer,
                Err(error) if tries < CONNECT_ATTEMPTS && error.is_io_error() => tries += 1,
                Err(error) => return Err(error),
            }
            tokio::time::sleep(CONNECT_RETRY_DELAY).await;
        };
        let command_timeout = dialer.timeout;
        let client = dialer.client_for(&address)?;
        let manager =
            ConnectionManager::new_with_config(client, manager_config(command_timeout)).await?;
        let inner = Arc::new(Inner {
            address,
            command_timeout,
            current: Mutex::new(Current {
                connector: dialer,
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

    /// A client for connections of their own, which lead wherever the address leads by then.
    pub(in crate::store::redis) fn new_client(&self) -> RedisResult<Client> {
        let dialer = self.inner.current().connector.clone();
        dialer.client_for(&self.inner.address)
    }

    /// Whether the server is spoken with in RESP3, and so knows HELLO.
    pub(in crate::store::redis) fn supports_hello(&self) -> bool {
        self.inner.supports_hello()
    }

    /// Counts how often the server was left for another one.
    pub(in crate::store::redis) fn server_changes(&self) -> watch::Receiver<u64> {
        self.inner.server_changes.subscribe()
    }

    pub(in crate::store::redis) async fn command(&self, command: &Cmd) -> RedisResult<Value> {
        self.inner.command(command).await
    }

    pub(in crate::store::redis) async fn commands(
        &self,
        commands: &Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisResult<Vec<Value>> {
        let (mut manager, mut question) = self.inner.begin_request()?;
        let outcome = manager.send_packed_commands(commands, offset, count).await;
        question.record_reply(&outcome);
        let number = question.generation;
        // What a pipeline has done so far is not known, so it is not asked again.
        let refused = outcome.iter().flatten().any(is_replica_error);
        if refused {
            self.inner.mark_demoted(number);
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

    /// The connection for a question that is asked now.
    fn begin_request(&self) -> RedisResult<(ConnectionManager, PendingReply<'_>)> {
        let asked = Instant::now();
        let mut current = self.current();
        if current.must_be_replaced(asked) {
            let moves = current.is_demoted;
            current.replace_manager(&self.address, self.command_timeout)?;
            if moves {
                self.server_changes.send_modify(|moves| *moves += 1);
            }
        }
        current.unanswered_since.get_or_insert(asked);
        let question = PendingReply {
            inner: self,
            generation: current.generation,
            sent_at: asked,
            is_answered: false,
        };
        Ok((current.manager.clone(), question))
    }

    async fn command(&self, command: &Cmd) -> RedisResult<Value> {
        let (answer, number) = self.command_once(command).await;
        if !answer.as_ref().is_ok_and(is_replica_error) || !self.mark_demoted(number) {
            return answer;
        }
        // A replica refuses the first write of a script, of a transaction or by itself, so nothing
        // has happened yet: asking the new primary cannot do it twice. In a box, since it is rare.
        Box::pin(self.command_once(command)).await.0
    }

    /// The answer, and the number of the connection that brought it.
    async fn command_once(&self, command: &Cmd) -> (RedisResult<Value>, u64) {
        let (mut manager, mut question) = match self.begin_request() {
            Ok(asked) => asked,
            Err(error) => return (Err(error), 0),
        };
        let outcome = manager.send_packed_command(command).await;
        question.record_reply(&outcome);
        (outcome, question.generation)
    }

    /// Leaves the server of this connection. Answers whether another connection is there to ask;
    /// none is where the last one is too young.
    fn mark_demoted(&self, generation: u64) -> bool {
        let mut current = self.current();
        if current.generation != generation {
            return true;
        }
        current.is_demoted = true;
        current.may_switch(Instant::now())
    }

    /// Asks the server whether it is still the primary, and leaves one that is no more.
    async fn check_role(&self, was_primary: &mut bool) {
        if !self.supports_hello() {
            return;
        }
        let hello = redis::cmd("HELLO");
        let asked = tokio::time::timeout(self.command_timeout, self.command_once(&hello)).await;
        let (answer, number) = match asked {
            Ok((Ok(answer), number)) => (answer, number),
            Ok((Err(_), _)) => return self.retry_handshake().await,
            Err(_) => return,
        };
        match role_is_primary(answer) {
            Some(true) => *was_primary = true,
            // Who set this up with a replica, to follow another system's token, keeps it.
            Some(false) if *was_primary => {
                if self.mark_demoted(number) {
                    let asked = self.command_once(&hello);
                    let _ = tokio::time::timeout(self.command_timeout, asked).await;
                }
            }
            Some(false) | None => {}
        }
    }

    /// The server has refused our greeting, or hangs up. Behind the address there may be one by now
    /// that speaks RESP2 only.
    async fn retry_handshake(&self) {
        let dialer = self.current().connector.clone();
        if let Ok((_, spoken)) = dialer.connect(&self.address).await
            && spoken.connection_info.protocol() == ProtocolVersion::RESP2
        {
            let mut current = self.current();
            current.connector = spoken;
            let _ = current.replace_manager(&self.address, self.command_timeout);
        }
    }
}

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

/// The `role` in the answer to HELLO.
fn role_is_primary(answer: Value) -> Option<bool> {
    let said: std::collections::HashMap<String, Value> = redis::from_redis_value(answer).ok()?;
    let role = said.get("role")?.clone();
    redis::from_redis_value::<String>(role)
        .ok()
        .map(|role| role == "master")
}

/// Whether a server has answered as a replica does that is asked to write.
fn is_replica_error(answer: &Value) -> bool {
    matches!(answer, Value::ServerError(said) if indicates_replica(said))
}

/// A question that is not answered yet.
struct PendingReply<'a> {
    inner: &'a Inner,
    /// The number of the connection that it goes out on.
    generation: u64,
    sent_at: Instant,
    is_answered: bool,
}

impl PendingReply<'_> {
    /// Notes whether there was an answer; a broken connection is one, and the manager's to mend.
    fn record_reply<T>(&mut self, outcome: &RedisResult<T>) {
        let error = outcome.as_ref().err();
        let mut current = self.inner.current();
        if !error.is_some_and(redis::RedisError::is_timeout) {
            current.unanswered_since = None;
            self.is_answered = true;
        }
        // What Redis says to a command comes as a value here. Another error was its answer to our
        // greeting, or no answer of a Redis.
        if error.is_some_and(|error| !error.is_io_error()) && current.generation == self.generation
        {
            current.rejected_at.get_or_insert_with(Instant::now);
        }
    }
}

impl Drop for PendingReply<'_> {
    /// Who asked may have gone away before an answer was due: that says nothing of Redis.
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
