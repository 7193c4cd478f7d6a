//! Circuit breaker for Redis commands: fails fast while Redis is unreachable, limits the commands
//! in flight, and adds a remedy to errors of Redis.
//!
//! # States of a circuit
//!
//! - *Closed*: commands run. A connection error or a reply of the class [`ErrorClass::Busy`] opens
//!   the circuit. A timeout opens the circuit unless another command has succeeded since the start
//!   of the command that timed out.
//! - *Open*: [`CircuitBreaker::check`] rejects new commands for [`OPEN_DURATION`]. The success of a
//!   command in flight closes the circuit.
//! - *Probing*: [`OPEN_DURATION`] has passed. All commands run again. The first success closes the
//!   circuit; the next failure opens it again.
//!
//! A server has one circuit. A Cluster has one circuit for each range of slots, so that a node that
//! is down does not stop commands for the other nodes. The log and the metric show a change when
//! the first circuit opens and when the last one closes.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use redis::RedisError;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

use crate::clock::duration_millis;
use crate::error::Error;
use crate::log_limiter::LogLimiter;
use crate::metrics;
use crate::store::redis::connection::errors::{ErrorClass, describe_error, operator_message};

/// Time for which an open circuit rejects commands: 250 milliseconds. Without this time, a Redis
/// that does not reply would delay every request by the whole command timeout.
const OPEN_DURATION: Duration = Duration::from_millis(250);

/// Maximum number of commands in flight for each circuit: 128.
///
/// Fewer commands already keep one connection busy, and more commands would only add to the time
/// that each command takes. Further commands therefore wait for a permit. The timeout of a command
/// starts when the command has its permit, so that a burst of requests does not look like a slow
/// Redis.
const MAX_IN_FLIGHT: usize = 128;

/// Maximum time to wait for a permit, in timeouts of one command: four. The wait may be longer than
/// one timeout, because several commands may use the same permit before the waiting command.
const QUEUE_FACTOR: u32 = 4;

/// Minimum time between two log lines for error replies: ten seconds, because every request may get
/// such a reply.
const ERROR_REPLY_LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Time after which the errors of this module recommend a retry: one second. A circuit probes Redis
/// several times within that time.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The circuits of one store. See the module for their states.
#[derive(Debug)]
pub(super) struct CircuitBreaker {
    created_at: Instant,
    /// One circuit for a single server or a Sentinel group. For a Cluster, one circuit for each
    /// range of slots.
    circuits: Box<[Circuit]>,
    /// Number of circuits that are open or probing.
    open_count: AtomicUsize,
    wrong_type_logged: AtomicBool,
    log_limiter: LogLimiter,
}

/// One circuit. All orderings on its fields are `Relaxed`: each field is read by itself, and no
/// other memory is published through it. If a task reads an old value, only a few more commands run
/// or fail.
#[derive(Debug)]
struct Circuit {
    /// Milliseconds since the creation of the breaker until which commands are rejected; 0 if the
    /// circuit is closed.
    open_until: AtomicU64,
    /// Milliseconds since the creation of the breaker at which a command last succeeded.
    last_success_at: AtomicU64,
    permits: Semaphore,
    /// `true` while the circuit is open or probing.
    is_open: AtomicBool,
}

/// A permit of a circuit to run one command. Dropping the value returns the permit to the circuit.
pub(super) struct Permit<'a> {
    /// The time from which the timeout of the command counts.
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
    /// Creates a breaker with this number of circuits, at least one. All circuits are closed.
    pub(super) fn new(circuit_count: usize) -> Self {
        Self {
            created_at: Instant::now(),
            circuits: (0..circuit_count.max(1))
                .map(|_| Circuit::default())
                .collect(),
            open_count: AtomicUsize::new(0),
            wrong_type_logged: AtomicBool::new(false),
            log_limiter: LogLimiter::default(),
        }
    }

    /// Returns the milliseconds since the creation of the breaker.
    fn elapsed(&self) -> u64 {
        duration_millis(self.created_at.elapsed())
    }

    fn circuit(&self, index: usize) -> &Circuit {
        &self.circuits[index % self.circuits.len()]
    }

    /// Returns an error if the circuit with this index is open.
    pub(super) fn check(&self, circuit: usize, address: &str) -> Result<(), Error> {
        match self.circuit(circuit).open_until.load(Ordering::Relaxed) {
            0 => Ok(()),
            until if until <= self.elapsed() => Ok(()),
            _ => Err(unavailable(format!(
                "Redis at {address} failed a moment ago, so the command was not sent"
            ))),
        }
    }

    /// Acquires a permit to run a command. Returns `None` if no permit becomes free within
    /// `max_wait`.
    ///
    /// # Errors
    /// [`StoreUnavailable`](crate::ErrorKind::StoreUnavailable) if the circuit has opened while the
    /// caller waited, or if no permit is free within [`QUEUE_FACTOR`] times `command_timeout`.
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
        // The timeout is boxed to keep the future of a command small. A permit is nearly always
        // free, so this allocation is rare.
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

    /// Returns the maximum time of an operation: the wait for a permit, and the command itself.
    pub(super) fn longest_wait(&self, command_timeout: Duration) -> Duration {
        command_timeout * (QUEUE_FACTOR + 1)
    }

    /// Returns the error of a command that got no permit in time.
    pub(super) fn overloaded(&self, address: &str) -> Error {
        unavailable(format!(
            "Redis at {address} was overloaded: too many commands were in flight or waiting"
        ))
    }

    /// Records that a command succeeded at `at`, and closes the circuit if the circuit was open.
    pub(super) fn record_success(&self, circuit: usize, address: &str, at: Instant) {
        let circuit = self.circuit(circuit);
        let at = duration_millis(at.saturating_duration_since(self.created_at));
        circuit.last_success_at.store(at, Ordering::Relaxed);
        // The load comes first because every command runs it, and a load keeps the cache line
        // shared between cores. The swap lets only one of several commands count the change.
        if circuit.is_open.load(Ordering::Relaxed) && circuit.is_open.swap(false, Ordering::Relaxed)
        {
            circuit.open_until.store(0, Ordering::Relaxed);
            if self.open_count.fetch_sub(1, Ordering::Relaxed) == 1 {
                metrics::set_store_up(address, true);
                tracing::info!(target: "tower_wechat::store", address, "Redis became available again");
            }
        }
    }

    /// Records a command that had no reply in time, and returns its error. Opens the circuit unless
    /// another command has succeeded since `started_at`.
    pub(super) fn record_timeout(
        &self,
        circuit: usize,
        address: &str,
        started_at: Instant,
        after: Duration,
    ) -> Error {
        // If another command has succeeded since then, only the command that timed out was slow.
        let started = duration_millis(started_at.saturating_duration_since(self.created_at));
        if self
            .circuit(circuit)
            .last_success_at
            .load(Ordering::Relaxed)
            <= started
        {
            self.open(circuit, address, &format!("no reply within {after:?}"));
        }
        unavailable(format!("Redis at {address} did not reply within {after:?}"))
    }

    /// Records a failed command, and returns its error with a remedy. Opens the circuit if other
    /// commands would fail too.
    pub(super) fn record_failure(
        &self,
        circuit: usize,
        address: &str,
        started_at: Instant,
        error: &RedisError,
    ) -> Error {
        // The connection and the caller have the same timeout, and either may fire first.
        if error.is_timeout() {
            return self.record_timeout(circuit, address, started_at, started_at.elapsed());
        }
        let message = describe_error(error);
        let Some(class) = ErrorClass::classify(error) else {
            self.open(circuit, address, &message);
            return unavailable(format!("Redis at {address} cannot be reached: {message}"));
        };
        let described = match class {
            ErrorClass::WrongType => self.wrong_type_error(address),
            ErrorClass::Busy => {
                self.open(circuit, address, &message);
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
            // Redis replied, and other commands may succeed, so the circuit stays closed.
            ErrorClass::Replica
            | ErrorClass::WritesRejected
            | ErrorClass::NotPermitted
            | ErrorClass::Other => {
                self.log_error_reply(address, &message);
                unavailable(format!("Redis at {address} rejected a command: {message}"))
            }
        };
        match operator_message(error) {
            Some(sentence) => described.with_reason(sentence),
            None => described,
        }
    }

    /// Logs an error reply, at most once in each [`ERROR_REPLY_LOG_INTERVAL`].
    fn log_error_reply(&self, address: &str, reply: &str) {
        let limiter = &self.log_limiter;
        if limiter
            .allow_line_every("error_reply", ERROR_REPLY_LOG_INTERVAL)
            .is_some()
        {
            tracing::error!(target: "tower_wechat::store", address, "Redis rejected a command: {reply}");
        }
    }

    /// Returns the error of a key with a value of another type, and logs it the first time.
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

    /// Opens a circuit. Logs an error and changes the metric if no circuit was open before.
    fn open(&self, circuit: usize, address: &str, reason: &str) {
        let until = self
            .elapsed()
            .saturating_add(duration_millis(OPEN_DURATION))
            .max(1);
        let circuit = self.circuit(circuit);
        // `open_until` is stored before `is_open`, because `record_success` resets `open_until`
        // only after it has seen `is_open`. In the reverse order, a success between the two stores
        // would reset `open_until` too early. The circuit would then count as closed, but reject
        // commands.
        circuit.open_until.store(until, Ordering::Relaxed);
        if !circuit.is_open.swap(true, Ordering::Relaxed)
            && self.open_count.fetch_add(1, Ordering::Relaxed) == 0
        {
            metrics::set_store_up(address, false);
            tracing::error!(
                target: "tower_wechat::store",
                address,
                "Redis became unavailable: {reason}; cached users are still served"
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

    /// Returns the error of a connection whose timeout has fired.
    fn timeout_error() -> RedisError {
        std::io::Error::from(std::io::ErrorKind::TimedOut).into()
    }

    #[test]
    fn one_timeout_among_successes_keeps_the_circuit_closed() {
        let breaker = CircuitBreaker::new(1);
        let started_at = breaker.created_at;
        std::thread::sleep(Duration::from_millis(2));
        breaker.record_success(0, ADDRESS, Instant::now());
        let error = breaker.record_failure(0, ADDRESS, started_at, &timeout_error());
        assert_eq!(error.kind(), ErrorKind::StoreUnavailable);
        breaker.check(0, ADDRESS).unwrap();
    }

    #[test]
    fn a_timeout_without_successes_opens_the_circuit() {
        let breaker = CircuitBreaker::new(1);
        breaker.record_success(0, ADDRESS, Instant::now());
        std::thread::sleep(Duration::from_millis(2));
        breaker.record_failure(0, ADDRESS, Instant::now(), &timeout_error());
        let error = breaker.check(0, ADDRESS).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::StoreUnavailable);
        breaker.record_success(0, ADDRESS, Instant::now());
        breaker.check(0, ADDRESS).unwrap();
    }
}
