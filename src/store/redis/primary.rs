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

use super::address::{Dialer, shown};
use super::guard::{describe, server_error};
use super::refusal::{leads_elsewhere, may_fail_over};
use super::sentinel::{Named, Sentinels};
use crate::error::Error;

/// How often the Sentinels are asked while all is well.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// The rest between two questions while it is not.
const BETWEEN_TRIES: Duration = Duration::from_millis(100);

/// A connection that has brought no answer for so long is given up, and another one to the same
/// server is tried. Behind a proxy whose own way to Redis is gone, TCP sees nothing amiss.
const SILENCE: Duration = Duration::from_secs(3);

/// The present primary. Clones share it.
#[derive(Clone)]
pub(super) struct Primary {
    shared: Arc<Shared>,
    /// Ends with the last clone.
    _watch: Arc<AbortOnDropHandle<()>>,
}

struct Shared {
    sentinels: Sentinels,
    dialer: Dialer,
    state: watch::Sender<State>,
    /// Wakes the task that watches.
    doubt: Notify,
}

#[derive(Clone)]
enum State {
    /// Connected; or lost, and the next one is looked for, which commands wait for.
    Up(Link),
    /// None was found; commands fail at once until one is.
    Down(Arc<str>),
}

/// A connection to one server.
#[derive(Clone)]
struct Link {
    connection: MultiplexedConnection,
    /// RESP2 where the server knows nothing else.
    protocol: ProtocolVersion,
    address: ConnectionAddr,
    lost: Arc<AtomicBool>,
}

impl Link {
    fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }
}

impl Primary {
    /// Finds the primary and connects to it.
    pub(super) async fn open(sentinels: Sentinels, dialer: Dialer) -> Result<Self, OpenError> {
        let named = sentinels.primary().await.map_err(OpenError::Sentinels)?;
        let (state, _) = watch::channel(State::Down("not connected yet".into()));
        let shared = Arc::new(Shared {
            sentinels,
            dialer,
            state,
            doubt: Notify::new(),
        });
        let link = shared
            .dial(&named.address)
            .await
            .map_err(|error| OpenError::Server(named, error))?;
        shared.state.send_replace(State::Up(link));
        let watch = tokio::spawn(Arc::clone(&shared).watch());
        Ok(Self {
            shared,
            _watch: Arc::new(AbortOnDropHandle::new(watch)),
        })
    }

    /// Answers have stayed away: the primary may be another one by now.
    pub(super) fn suspect(&self) {
        self.shared.doubt.notify_one();
    }

    /// A client of the present primary, for connections of their own.
    pub(super) async fn client(&self) -> RedisResult<Client> {
        let link = self.link().await?;
        let dialer = self.shared.dialer.clone().speaking(link.protocol);
        dialer.client(&link.address)
    }

    async fn link(&self) -> RedisResult<Link> {
        let mut state = self.shared.state.subscribe();
        loop {
            match &*state.borrow_and_update() {
                State::Up(link) if !link.is_lost() => return Ok(link.clone()),
                State::Up(_) => {}
                State::Down(why) => return Err(not_connected(why)),
            }
            if state.changed().await.is_err() {
                return Err(not_connected("the store is closed"));
            }
        }
    }

    pub(super) async fn command(&self, command: &Cmd) -> RedisResult<Value> {
        let mut link = self.link().await?;
        let answer = link.connection.send_packed_command(command).await;
        let refusal = match &answer {
            Ok(Value::ServerError(said)) => Some(said),
            _ => None,
        };
        if !self.is_demoted(&link, refusal, answer.as_ref().err()) {
            return answer;
        }
        // A replica refuses the first write of a script, of a transaction or by itself, so nothing
        // has happened yet: asking the new primary cannot do it twice. (A connection that ends is
        // another matter: the answer is lost, the command may have run. Those errors go up to
        // where the command is understood.)
        let mut link = self.link().await?;
        link.connection.send_packed_command(command).await
    }

    pub(super) async fn commands(
        &self,
        commands: &Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisResult<Vec<Value>> {
        let mut link = self.link().await?;
        let answers = link
            .connection
            .send_packed_commands(commands, offset, count)
            .await;
        self.is_demoted(&link, None, answers.as_ref().err());
        answers
    }

    /// Whether the server has refused as a replica does. Whatever went wrong with the connection
    /// is noted on the way.
    fn is_demoted(
        &self,
        link: &Link,
        refusal: Option<&ServerError>,
        error: Option<&RedisError>,
    ) -> bool {
        let said = refusal.cloned().or_else(|| error.and_then(server_error));
        match said {
            Some(said) if leads_elsewhere(&said) => {
                self.shared.lose(link);
                true
            }
            Some(said) => {
                if may_fail_over(&said) {
                    self.suspect();
                }
                false
            }
            None => {
                match error {
                    Some(error) if error.is_unrecoverable_error() => self.shared.lose(link),
                    Some(_) => self.suspect(),
                    None => {}
                }
                false
            }
        }
    }
}

impl Shared {
    /// The link is of no use any more: the next one is looked for.
    fn lose(&self, link: &Link) {
        if !link.lost.swap(true, Ordering::Relaxed) {
            self.doubt.notify_one();
        }
    }

    async fn watch(self: Arc<Self>) {
        let mut silent = None;
        loop {
            let current = match &*self.state.borrow() {
                State::Up(link) if !link.is_lost() => Some(link.clone()),
                _ => None,
            };
            if current.is_some() && silent.is_none() {
                let _ = tokio::time::timeout(LOOK_AGAIN, self.doubt.notified()).await;
            }
            silent = self.look(current, silent).await;
            // However many commands fail, the Sentinels are not asked without a rest.
            tokio::time::sleep(BETWEEN_TRIES).await;
        }
    }

    /// Asks who the primary is, and goes there if that is news. Answers since when the present one
    /// has been silent, where it is: until it speaks, or another one takes over, there is nothing
    /// to wait for between two questions. Whoever is late to leave a frozen primary would be served
    /// by it when it thaws, which is before it hears that it is none any more.
    async fn look(
        self: &Arc<Self>,
        current: Option<Link>,
        silent: Option<Instant>,
    ) -> Option<Instant> {
        let found = match self.sentinels.primary().await {
            Ok(named) => named,
            // Without Sentinels a primary that answers goes on being used.
            Err(error) if current.is_some() => {
                tracing::debug!(target: "tower_wechat::store", %error, "the Sentinels do not answer");
                return None;
            }
            Err(error) => {
                self.failed(&error.to_string());
                return None;
            }
        };
        let mut since = None;
        if let Some(link) = &current
            && link.address == found.address
            && !link.is_lost()
        {
            if self.answers(link).await {
                return None;
            }
            let began = silent.unwrap_or_else(Instant::now);
            if began.elapsed() < SILENCE {
                return Some(began);
            }
            since = Some(began);
        }
        match self.dial(&found.address).await {
            Ok(link) => {
                tracing::info!(
                    target: "tower_wechat::store",
                    primary = shown(&found.address),
                    "Redis: connected to the primary"
                );
                self.state.send_replace(State::Up(link));
                None
            }
            Err(error) if current.is_none() => {
                self.failed(&format!("the primary, {found}: {}", describe(&error)));
                None
            }
            Err(error) => {
                tracing::debug!(target: "tower_wechat::store", primary = %found, %error, "the primary does not take us yet");
                since.or_else(|| Some(silent.unwrap_or_else(Instant::now)))
            }
        }
    }

    /// Whether the connection brings answers.
    async fn answers(&self, link: &Link) -> bool {
        let mut connection = link.connection.clone();
        let ping = redis::cmd("PING");
        let ping = connection.send_packed_command(&ping);
        let answer = tokio::time::timeout(self.dialer.timeout / 4, ping).await;
        matches!(answer, Ok(Ok(_)))
    }

    fn failed(&self, why: &str) {
        self.state.send_if_modified(|state| match state {
            State::Up(link) if !link.is_lost() => false,
            _ => {
                *state = State::Down(why.into());
                true
            }
        });
    }

    /// Connects to a server that says that it is the primary.
    async fn dial(self: &Arc<Self>, address: &ConnectionAddr) -> RedisResult<Link> {
        let lost = Arc::new(AtomicBool::new(false));
        let greeting = self.dialer.greet_with(address, |protocol, config| {
            if protocol == ProtocolVersion::RESP2 {
                return config;
            }
            // RESP3 tells of a disconnect at once: under RESP2 the next command fails.
            let (shared, lost) = (Arc::downgrade(self), Arc::clone(&lost));
            config.set_push_sender(move |push: PushInfo| {
                if push.kind == PushKind::Disconnection {
                    lost.store(true, Ordering::Relaxed);
                    if let Some(shared) = shared.upgrade() {
                        shared.doubt.notify_one();
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
        Ok(Link {
            connection,
            protocol: dialer.settings.protocol(),
            address: address.clone(),
            lost,
        })
    }
}

/// What is said of a server that Sentinels name, and that is a replica.
pub(super) const NOT_PRIMARY: &str = "the server is not the primary yet";

/// Why there is no first connection.
pub(super) enum OpenError {
    Sentinels(Error),
    Server(Named, RedisError),
}

fn not_connected(why: &str) -> RedisError {
    // Not as a connection that was dropped: nobody has hung up.
    std::io::Error::other(why.to_owned()).into()
}
