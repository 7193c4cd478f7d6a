//! What happens around each command when Redis is away: quick refusals instead of queues, one
//! loud line when it goes and one when it is back, errors that say what to do.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use redis::{RedisError, ServerError};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

use super::refusal::{Refusal, sentence};
use crate::error::{Error, ErrorKind};
use crate::observe;

/// After a failed command the next ones fail at once for this long. A frozen Redis would
/// otherwise add its whole timeout to every request.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(250);

/// How many commands are under way at once. A crowd waits here, where waiting is not taken for
/// Redis' silence, and not behind itself on the connection.
///
/// One connection is kept busy by far fewer; each further one only adds to the time that every
/// command takes, of which a second is too much.
const AT_ONCE: usize = 128;

/// How many times the time of one command a crowd waits for its turn.
const TURN_PATIENCE: u32 = 4;

/// How often a refusal that goes on is told again.
const BETWEEN_REFUSAL_LINES: Duration = Duration::from_secs(10);

/// What a client is told to wait before it tries again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Guard {
    started: Instant,
    /// What fails by itself: all of Redis, or a range of a Cluster's slots.
    parts: Box<[Part]>,
    /// How many of them are down.
    down: AtomicUsize,
    wrong_type_told: AtomicBool,
    refusal_told_until: AtomicU64,
}

#[derive(Debug)]
struct Part {
    /// Milliseconds after the guard's start until which commands are refused; 0 when Redis answers.
    paused_until: AtomicU64,
    /// Milliseconds after the guard's start at which Redis last answered.
    answered_at: AtomicU64,
    turns: Semaphore,
    down: AtomicBool,
}

/// The right to run a command, until this is dropped.
pub(super) struct Turn<'a> {
    /// Since when.
    pub(super) began: Instant,
    _permit: SemaphorePermit<'a>,
}

impl Default for Part {
    fn default() -> Self {
        Self {
            paused_until: AtomicU64::new(0),
            answered_at: AtomicU64::new(0),
            turns: Semaphore::new(AT_ONCE),
            down: AtomicBool::new(false),
        }
    }
}

impl Guard {
    pub(super) fn new(parts: usize) -> Self {
        Self {
            started: Instant::now(),
            parts: (0..parts.max(1)).map(|_| Part::default()).collect(),
            down: AtomicUsize::new(0),
            wrong_type_told: AtomicBool::new(false),
            refusal_told_until: AtomicU64::new(0),
        }
    }

    fn elapsed(&self) -> u64 {
        millis(self.started.elapsed())
    }

    fn part(&self, part: usize) -> &Part {
        &self.parts[part % self.parts.len()]
    }

    pub(super) fn admit(&self, part: usize, address: &str) -> Result<(), Error> {
        match self.part(part).paused_until.load(Ordering::Relaxed) {
            0 => Ok(()),
            until if until <= self.elapsed() => Ok(()),
            _ => Err(unavailable(format!(
                "Redis at {address} failed a moment ago and is not asked again yet"
            ))),
        }
    }

    /// The right to run a command, for somebody who came at `came`; none within their `patience`.
    /// Whoever waited while Redis went away is refused.
    pub(super) async fn turn(
        &self,
        part: usize,
        address: &str,
        timeout: Duration,
        came: Instant,
        patience: Duration,
    ) -> Result<Option<Turn<'_>>, Error> {
        let turns = &self.part(part).turns;
        if let Ok(permit) = turns.try_acquire() {
            return Ok(Some(Turn {
                began: came,
                _permit: permit,
            }));
        }
        let wait = timeout * TURN_PATIENCE;
        // In a box, since there nearly always is a turn.
        match Box::pin(tokio::time::timeout(wait.min(patience), turns.acquire())).await {
            Ok(Ok(permit)) => self.admit(part, address).map(|()| {
                Some(Turn {
                    began: Instant::now(),
                    _permit: permit,
                })
            }),
            Err(_) if patience < wait => Ok(None),
            _ => Err(self.asked_too_much(address)),
        }
    }

    pub(super) fn asked_too_much(&self, address: &str) -> Error {
        unavailable(format!("Redis at {address} is asked more than it answers"))
    }

    pub(super) fn succeeded(&self, part: usize, address: &str, at: Instant) {
        let part = self.part(part);
        let at = millis(at.saturating_duration_since(self.started));
        part.answered_at.store(at, Ordering::Relaxed);
        // A plain load on the way that every command takes; the store is for recoveries.
        if part.down.load(Ordering::Relaxed) && part.down.swap(false, Ordering::Relaxed) {
            part.paused_until.store(0, Ordering::Relaxed);
            if self.down.fetch_sub(1, Ordering::Relaxed) == 1 {
                observe::store_up(address, true);
                tracing::info!(target: "tower_wechat::store", address, "Redis answers again");
            }
        }
    }

    pub(super) fn timed_out(
        &self,
        part: usize,
        address: &str,
        began: Instant,
        after: Duration,
    ) -> Error {
        // One slow command among others that were answered since says nothing of Redis.
        let began = millis(began.saturating_duration_since(self.started));
        if self.part(part).answered_at.load(Ordering::Relaxed) <= began {
            self.pause(part, address, &format!("no answer within {after:?}"));
        }
        unavailable(format!(
            "Redis at {address} did not answer within {after:?}"
        ))
    }

    pub(super) fn failed(
        &self,
        part: usize,
        address: &str,
        began: Instant,
        raw: &RedisError,
    ) -> Error {
        let error = raw;
        // The connection has the same limit as we, and it is a matter of load which is met first.
        if error.is_timeout() {
            return self.timed_out(part, address, began, began.elapsed());
        }
        let said = describe(error);
        let Some(refusal) = Refusal::of(error) else {
            self.pause(part, address, &said);
            return unavailable(format!("Redis at {address} cannot be reached: {said}"));
        };
        let error = match refusal {
            Refusal::WrongType => self.wrong_type(address),
            Refusal::Busy => {
                self.pause(part, address, &said);
                unavailable(format!("Redis at {address} is not ready: {said}"))
            }
            Refusal::Retry => unavailable(format!("Redis at {address} was not ready: {said}")),
            Refusal::Elsewhere => {
                let sentence = format!(
                    "Redis at {address} is a node of a Cluster ({said}); use redis+cluster://"
                );
                self.tell_refusal(address, &said);
                unavailable(sentence)
            }
            // Redis is there and says no. Other commands may do, so nothing is paused for it.
            Refusal::Replica | Refusal::WritesRefused | Refusal::Rights | Refusal::Command => {
                self.tell_refusal(address, &said);
                unavailable(format!("Redis at {address} refused a command: {said}"))
            }
        };
        match sentence(raw) {
            Some(sentence) => error.with_reason(sentence),
            None => error,
        }
    }

    /// One line for a refusal that comes with every request, every few seconds.
    fn tell_refusal(&self, address: &str, said: &str) {
        let (now, due) = (
            self.elapsed(),
            self.refusal_told_until.load(Ordering::Relaxed),
        );
        let next = now.saturating_add(millis(BETWEEN_REFUSAL_LINES)).max(1);
        let told = |due| {
            self.refusal_told_until.compare_exchange(
                due,
                next,
                Ordering::Relaxed,
                Ordering::Relaxed,
            )
        };
        if due <= now && told(due).is_ok() {
            tracing::error!(target: "tower_wechat::store", address, "Redis refused a command: {said}");
        }
    }

    fn wrong_type(&self, address: &str) -> Error {
        let sentence = format!(
            "a configured name in Redis at {address} holds a value of another type; \
             choose other names for the hashes or remove that key"
        );
        if !self.wrong_type_told.swap(true, Ordering::Relaxed) {
            tracing::error!(target: "tower_wechat::store", address, "{sentence}");
        }
        unavailable(sentence)
    }

    fn pause(&self, part: usize, address: &str, why: &str) {
        let until = self
            .elapsed()
            .saturating_add(millis(PAUSE_AFTER_FAILURE))
            .max(1);
        let part = self.part(part);
        part.paused_until.store(until, Ordering::Relaxed);
        if !part.down.swap(true, Ordering::Relaxed)
            && self.down.fetch_add(1, Ordering::Relaxed) == 0
        {
            observe::store_up(address, false);
            tracing::error!(
                target: "tower_wechat::store",
                address,
                "Redis is away: {why}; cached users are served meanwhile"
            );
        }
    }
}

fn unavailable(message: String) -> Error {
    Error::new(ErrorKind::StoreUnavailable, message).with_retry_after(RETRY_AFTER)
}

pub(super) fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// What Redis or the connection to it says, without what could hold a secret: Redis quotes the
/// arguments of a command that it does not know.
pub(super) fn describe(error: &RedisError) -> String {
    let text = match server_error(error) {
        Some(said) => format!("{} {}", said.code(), said.details().unwrap_or_default()),
        None => error.to_string(),
    };
    let text = text.split(", with args").next().unwrap_or_default();
    text.chars()
        .filter(|c| !c.is_control())
        .take(160)
        .collect::<String>()
        .trim_end()
        .to_owned()
}

/// What the server itself said, of one command or of the first that failed in a pipeline.
pub(super) fn server_error(error: &RedisError) -> Option<ServerError> {
    error
        .clone()
        .into_server_errors()?
        .first()
        .map(|(_, said)| said.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: &str = "redis.example.com:6379";

    /// What the connection says when it has waited for an answer as long as it may.
    fn silence() -> RedisError {
        std::io::Error::from(std::io::ErrorKind::TimedOut).into()
    }

    #[test]
    fn a_slow_command_among_others_that_are_answered_pauses_nothing() {
        let guard = Guard::new(1);
        let began = guard.started;
        std::thread::sleep(Duration::from_millis(2));
        guard.succeeded(0, ADDRESS, Instant::now());
        let error = guard.failed(0, ADDRESS, began, &silence());
        assert_eq!(error.kind(), ErrorKind::StoreUnavailable);
        guard.admit(0, ADDRESS).unwrap();
    }

    #[test]
    fn a_redis_that_answers_nothing_is_away() {
        let guard = Guard::new(1);
        guard.succeeded(0, ADDRESS, Instant::now());
        std::thread::sleep(Duration::from_millis(2));
        guard.failed(0, ADDRESS, Instant::now(), &silence());
        let error = guard.admit(0, ADDRESS).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::StoreUnavailable);
        guard.succeeded(0, ADDRESS, Instant::now());
        guard.admit(0, ADDRESS).unwrap();
    }
}
