//! The connection to one server, and its replacement when it has fallen silent.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::aio::{ConnectionLike, ConnectionManager, ConnectionManagerConfig};
use redis::{Client, Cmd, Pipeline, RedisFuture, RedisResult, Value};
use tokio::time::Instant;

/// A connection on which nothing was answered for so long is given up, and another one made.
///
/// The manager makes one when the old one breaks. One that stands and brings no answer it keeps:
/// behind a balancer or a proxy whose own way to Redis is gone, TCP sees nothing amiss, for ever.
const SILENCE: Duration = Duration::from_secs(3);

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
}

impl Single {
    /// Connects. Every answer is waited for at most `patience`.
    pub(super) async fn open(client: Client, patience: Duration) -> RedisResult<Self> {
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(patience))
            .set_response_timeout(Some(patience))
            // Few and short tries: after them the next command starts over, so that Redis is
            // found again within seconds of its return.
            .set_number_of_retries(2)
            .set_min_delay(Duration::from_millis(50))
            .set_max_delay(Duration::from_millis(300));
        let manager = ConnectionManager::new_with_config(client.clone(), config.clone()).await?;
        let current = Mutex::new(Current {
            manager,
            silent_since: None,
        });
        Ok(Self(Arc::new(Inner {
            client,
            config,
            patience,
            current,
        })))
    }

    /// The connection for a question that is asked now.
    fn ask(&self) -> RedisResult<(ConnectionManager, Question)> {
        let asked = Instant::now();
        let mut current = self.0.current();
        if let Some(since) = current.silent_since
            && asked.duration_since(since) >= SILENCE
        {
            let (client, config) = (self.0.client.clone(), self.0.config.clone());
            // It connects with the first question. The old one ends with the last that waits.
            current.manager = ConnectionManager::new_lazy_with_config(client, config)?;
            current.silent_since = None;
        }
        current.silent_since.get_or_insert(asked);
        let question = Question {
            inner: Arc::clone(&self.0),
            asked,
        };
        Ok((current.manager.clone(), question))
    }
}

impl Inner {
    fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A question that is not answered yet.
struct Question {
    inner: Arc<Inner>,
    asked: Instant,
}

impl Question {
    /// Notes whether there was an answer; a broken connection is one, and the manager's to mend.
    fn answered<T>(&self, outcome: &RedisResult<T>) {
        if !outcome.as_ref().is_err_and(redis::RedisError::is_timeout) {
            self.inner.current().silent_since = None;
        }
    }
}

impl Drop for Question {
    /// Who asked may have gone away before an answer was due: that says nothing of Redis.
    fn drop(&mut self) {
        let mut current = self.inner.current();
        if current.silent_since == Some(self.asked)
            && self.asked.elapsed() < self.inner.patience * 3 / 4
        {
            current.silent_since = None;
        }
    }
}

impl ConnectionLike for Single {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        Box::pin(async move {
            let (mut manager, question) = self.ask()?;
            let outcome = manager.req_packed_command(command).await;
            question.answered(&outcome);
            outcome
        })
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        commands: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        Box::pin(async move {
            let (mut manager, question) = self.ask()?;
            let outcome = manager.req_packed_commands(commands, offset, count).await;
            question.answered(&outcome);
            outcome
        })
    }

    fn get_db(&self) -> i64 {
        self.0.client.get_connection_info().redis_settings().db()
    }
}
