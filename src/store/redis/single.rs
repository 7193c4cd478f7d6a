//! The connection to one server, and its replacement when it has fallen silent.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Client, Cmd, Pipeline, RedisResult, Value};
use tokio::time::Instant;

/// A connection on which nothing was answered for so long is given up, and another one made.
///
/// The manager makes one when the old one breaks. One that stands and brings no answer it keeps:
/// behind a balancer or a proxy whose own way to Redis is gone, TCP sees nothing amiss, for ever.
const SILENCE: Duration = Duration::from_secs(3);

/// A connection that Redis turned away is asked for again after this long.
///
/// Redis may answer a greeting with a refusal: a password that is set before we know of it, a user
/// who is switched off for a while, another program on the port. The manager tries again only where
/// a connection broke, and would hand out that refusal until the process ends.
const TURNED_AWAY: Duration = Duration::from_millis(250);

/// Clones share the connection.
#[derive(Clone)]
pub(super) struct Single(Arc<Inner>);

struct Inner {
    client: Client,
    config: ConnectionManagerConfig,
    patience: Duration,
    current: Mutex<Current>,
}

struct Current {
    manager: ConnectionManager,
    /// Since when no question has been answered, where there is one.
    silent_since: Option<Instant>,
    /// When Redis refused to speak with us on this connection, where it did.
    turned_away: Option<Instant>,
}

impl Current {
    fn is_given_up(&self, now: Instant) -> bool {
        let lasts = |since: Option<Instant>, patience| {
            since.is_some_and(|since| now.duration_since(since) >= patience)
        };
        lasts(self.silent_since, SILENCE) || lasts(self.turned_away, TURNED_AWAY)
    }
}

impl Single {
    /// Connects. Answers are to be waited for at most `patience`.
    pub(super) async fn open(client: Client, patience: Duration) -> RedisResult<Self> {
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(patience))
            // Whoever asks bounds the whole of their question, and asks through the guard; a second
            // timer for each would bound nothing more.
            .set_response_timeout(None)
            // Few and short tries: after them the next command starts over, so that Redis is
            // found again within seconds of its return.
            .set_number_of_retries(2)
            .set_min_delay(Duration::from_millis(50))
            .set_max_delay(Duration::from_millis(300));
        let manager = ConnectionManager::new_with_config(client.clone(), config.clone()).await?;
        let current = Mutex::new(Current {
            manager,
            silent_since: None,
            turned_away: None,
        });
        Ok(Self(Arc::new(Inner {
            client,
            config,
            patience,
            current,
        })))
    }

    /// The connection for a question that is asked now.
    fn ask(&self) -> RedisResult<(ConnectionManager, Question<'_>)> {
        let asked = Instant::now();
        let mut current = self.0.current();
        if current.is_given_up(asked) {
            let (client, config) = (self.0.client.clone(), self.0.config.clone());
            // It connects with the first question. The old one ends with the last that waits.
            current.manager = ConnectionManager::new_lazy_with_config(client, config)?;
            current.silent_since = None;
            current.turned_away = None;
        }
        current.silent_since.get_or_insert(asked);
        let question = Question {
            inner: &self.0,
            asked,
            answered: false,
        };
        Ok((current.manager.clone(), question))
    }

    pub(super) async fn command(&self, command: &Cmd) -> RedisResult<Value> {
        let (mut manager, mut question) = self.ask()?;
        let outcome = manager.send_packed_command(command).await;
        question.answered(&outcome);
        outcome
    }

    pub(super) async fn commands(
        &self,
        commands: &Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisResult<Vec<Value>> {
        let (mut manager, mut question) = self.ask()?;
        let outcome = manager.send_packed_commands(commands, offset, count).await;
        question.answered(&outcome);
        outcome
    }
}

impl Inner {
    fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A question that is not answered yet.
struct Question<'a> {
    inner: &'a Inner,
    asked: Instant,
    answered: bool,
}

impl Question<'_> {
    /// Notes whether there was an answer; a broken connection is one, and the manager's to mend.
    fn answered<T>(&mut self, outcome: &RedisResult<T>) {
        let error = outcome.as_ref().err();
        let mut current = self.inner.current();
        if !error.is_some_and(redis::RedisError::is_timeout) {
            current.silent_since = None;
            self.answered = true;
        }
        // What Redis says to a command comes as a value here. Another error was its answer to our
        // greeting, or no answer of a Redis.
        if error.is_some_and(|error| !error.is_io_error()) {
            current.turned_away.get_or_insert_with(Instant::now);
        }
    }
}

impl Drop for Question<'_> {
    /// Who asked may have gone away before an answer was due: that says nothing of Redis.
    fn drop(&mut self) {
        if self.answered {
            return;
        }
        let mut current = self.inner.current();
        if current.silent_since == Some(self.asked)
            && self.asked.elapsed() < self.inner.patience * 3 / 4
        {
            current.silent_since = None;
        }
    }
}
