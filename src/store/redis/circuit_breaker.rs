//! What happens around each command when Redis is away: quick refusals instead of queues, one
//! loud line when it goes and one when it is back, errors that say what to do.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use redis::RedisError;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

use crate::clock::duration_millis;
use crate::error::Error;
use crate::metrics;
use crate::store::redis::connection::errors::{ErrorClass, describe_error, operator_message};
use crate::store::redis::log_limit::LogRateLimit;

/// After a failed command the next ones fail at once for this long. A frozen Redis would
/// otherwise add its whole timeout to every request.
const OPEN_DURATION: Duration = Duration::from_millis(250);

/// How many commands are under way at once. A crowd waits here, where waiting is not taken for
/// Redis' silence, and not behind itself on the connection.
///
/// One connection is kept busy by far fewer; each further one only adds to the time that every
/// command takes, of which a second is too much.
const MAX_IN_FLIGHT: usize = 128;

/// How many times the time of one command a crowd waits for its turn.
const QUEUE_FACTOR: u32 = 4;

/// How often a refusal that goes on is told again.
const ERROR_REPLY_LOG_INTERVAL: Duration = Duration::from_secs(10);

/// What a client is told to wait before it tries again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct CircuitBreaker {
    created_at: Instant,
    /// What fails by itself: all of Redis, or a range of a Cluster's slots.
    circuits: Box<[Circuit]>,
    /// How many of them are down.
    open_count: AtomicUsize,
    wrong_type_logged: AtomicBool,
    error_reply_log: LogRateLimit,
}

#[derive(Debug)]
struct Circuit {
    /// Milliseconds after the guard's start until which commands are refused; 0 when Redis answers.
    open_until: AtomicU64,
    /// Milliseconds after the guard's start at which Redis last answered.
    last_success_at: AtomicU64,
    permits: Semaphore,
    is_open: AtomicBool,
}

/// The right to run a command, until this is dropped.
pub(super) struct Permit<'a> {
    /// Since when.
    pub(super) started_at: Instant,
    _permit: SemaphorePermit<'a>,
}

impl Default for Circuit {
    fn default() -> Self {
        Self {
            open_until: AtomicU64::new(0),
            last_success_at: AtomicU64::new(0),
            permits: Semaphore::new(MAX_IN_FLIGHT),
            is_open: AtomicBool::new(false),
        }
    }
}

impl CircuitBreaker {
    pub(super) fn new(circuit_count: usize) -> Self {
        Self {
            created_at: Instant::now(),
            circuits: (0..circuit_count.max(1))
                .map(|_| Circuit::default())
                .collect(),
            open_count: AtomicUsize::new(0),
            wrong_type_logged: AtomicBool::new(false),
            error_reply_log: LogRateLimit::default(),
        }
    }

    fn elapsed(&self) -> u64 {
        duration_millis(self.created_at.elapsed())
    }

    fn circuit(&self, part: usize) -> &Circuit {
        &self.circuits[part % self.circuits.len()]
    }

    pub(super) fn check(&self, circuit: usize, address: &str) -> Result<(), Error> {
        match self.circuit(circuit).open_until.load(Ordering::Relaxed) {
            0 => Ok(()),
            until if until <= self.elapsed() => Ok(()),
            _ => Err(unavailable(format!(
                "Redis at {address} failed a moment ago and is not asked again yet"
            ))),
        }
    }

    /// The right to run a command, for somebody who came at `came`; none within their `patience`.
    /// Whoever waited while Redis went away is refused.
    pub(super) async fn acquire(
        &self,
        circuit: usize,
        address: &str,
        command_timeout: Duration,
        arrived_at: Instant,
        max_wait: Duration,
    ) -> Result<Option<Permit<'_>>, Error> {
        let permits = &self.circuit(circuit).permits;
        if let Ok(permit) = permits.try_acquire() {
            return Ok(Some(Permit {
                started_at: arrived_at,
                _permit: permit,
            }));
        }
        let wait = command_timeout * QUEUE_FACTOR;
        // In a box, since there nearly always is a turn.
        match Box::pin(tokio::time::timeout(wait.min(max_wait), permits.acquire())).await {
            Ok(Ok(permit)) => self.check(circuit, address).map(|()| {
                Some(Permit {
                    started_at: Instant::now(),
                    _permit: permit,
                })
            }),
            Err(_) if max_wait < wait => Ok(None),
            _ => Err(self.overloaded(address)),
        }
    }

    pub(super) fn overloaded(&self, address: &str) -> Error {
        unavailable(format!("Redis at {address} is asked more than it answers"))
    }

    pub(super) fn record_success(&self, part: usize, address: &str, at: Instant) {
        let part = self.circuit(part);
        let at = duration_millis(at.saturating_duration_since(self.created_at));
        part.last_success_at.store(at, Ordering::Relaxed);
        // A plain load on the way that every command takes; the store is for recoveries.
        if part.is_open.load(Ordering::Relaxed) && part.is_open.swap(false, Ordering::Relaxed) {
            part.open_until.store(0, Ordering::Relaxed);
            if self.open_count.fetch_sub(1, Ordering::Relaxed) == 1 {
                metrics::set_store_up(address, true);
                tracing::info!(target: "tower_wechat::store", address, "Redis answers again");
            }
        }
    }

    pub(super) fn record_timeout(
        &self,
        part: usize,
        address: &str,
        started_at: Instant,
        after: Duration,
    ) -> Error {
        // One slow command among others that were answered since says nothing of Redis.
        let began = duration_millis(started_at.saturating_duration_since(self.created_at));
        if self.circuit(part).last_success_at.load(Ordering::Relaxed) <= began {
            self.open(part, address, &format!("no answer within {after:?}"));
        }
        unavailable(format!(
            "Redis at {address} did not answer within {after:?}"
        ))
    }

    pub(super) fn record_failure(
        &self,
        part: usize,
        address: &str,
        started_at: Instant,
        raw: &RedisError,
    ) -> Error {
        let error = raw;
        // The connection has the same limit as we, and it is a matter of load which is met first.
        if error.is_timeout() {
            return self.record_timeout(part, address, started_at, started_at.elapsed());
        }
        let message = describe_error(error);
        let Some(refusal) = ErrorClass::classify(error) else {
            self.open(part, address, &message);
            return unavailable(format!("Redis at {address} cannot be reached: {message}"));
        };
        let error = match refusal {
            ErrorClass::WrongType => self.wrong_type_error(address),
            ErrorClass::Busy => {
                self.open(part, address, &message);
                unavailable(format!("Redis at {address} is not ready: {message}"))
            }
            ErrorClass::Retry => {
                unavailable(format!("Redis at {address} was not ready: {message}"))
            }
            ErrorClass::WrongNode => {
                let sentence = format!(
                    "Redis at {address} is a node of a Cluster ({message}); use redis+cluster://"
                );
                self.log_error_reply(address, &message);
                unavailable(sentence)
            }
            // Redis is there and says no. Other commands may do, so nothing is paused for it.
            ErrorClass::Replica
            | ErrorClass::WritesRejected
            | ErrorClass::NotPermitted
            | ErrorClass::Other => {
                self.log_error_reply(address, &message);
                unavailable(format!("Redis at {address} refused a command: {message}"))
            }
        };
        match operator_message(raw) {
            Some(sentence) => error.with_reason(sentence),
            None => error,
        }
    }

    /// Logs an error reply, at most once in each [`ERROR_REPLY_LOG_INTERVAL`].
    fn log_error_reply(&self, address: &str, reply: &str) {
        if self.error_reply_log.allow_one_per(ERROR_REPLY_LOG_INTERVAL) {
            tracing::error!(target: "tower_wechat::store", address, "Redis refused a command: {reply}");
        }
    }

    fn wrong_type_error(&self, address: &str) -> Error {
        let sentence = format!(
            "a configured name in Redis at {address} holds a value of another type; \
             choose other names for the hashes or remove that key"
        );
        if !self.wrong_type_logged.swap(true, Ordering::Relaxed) {
            tracing::error!(target: "tower_wechat::store", address, "{sentence}");
        }
        unavailable(sentence)
    }

    fn open(&self, part: usize, address: &str, reason: &str) {
        let until = self
            .elapsed()
            .saturating_add(duration_millis(OPEN_DURATION))
            .max(1);
        let part = self.circuit(part);
        part.open_until.store(until, Ordering::Relaxed);
        if !part.is_open.swap(true, Ordering::Relaxed)
            && self.open_count.fetch_add(1, Ordering::Relaxed) == 0
        {
            metrics::set_store_up(address, false);
            tracing::error!(
                target: "tower_wechat::store",
                address,
                "Redis is away: {reason}; cached users are served meanwhile"
            );
        }
    }
}

fn unavailable(message: String) -> Error {
    Error::store_unavailable(message).with_retry_after(RETRY_AFTER)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    const ADDRESS: &str = "redis.example.com:6379";

    /// What the connection says when it has waited for an answer as long as it may.
    fn timeout_error() -> RedisError {
        std::io::Error::from(std::io::ErrorKind::TimedOut).into()
    }

    #[test]
    fn one_timeout_among_successes_opens_nothing() {
        let guard = CircuitBreaker::new(1);
        let began = guard.created_at;
        std::thread::sleep(Duration::from_millis(2));
        guard.record_success(0, ADDRESS, Instant::now());
        let error = guard.record_failure(0, ADDRESS, began, &timeout_error());
        assert_eq!(error.kind(), ErrorKind::StoreUnavailable);
        guard.check(0, ADDRESS).unwrap();
    }

    #[test]
    fn a_timeout_without_successes_opens_the_circuit() {
        let guard = CircuitBreaker::new(1);
        guard.record_success(0, ADDRESS, Instant::now());
        std::thread::sleep(Duration::from_millis(2));
        guard.record_failure(0, ADDRESS, Instant::now(), &timeout_error());
        let error = guard.check(0, ADDRESS).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::StoreUnavailable);
        guard.record_success(0, ADDRESS, Instant::now());
        guard.check(0, ADDRESS).unwrap();
    }
}
