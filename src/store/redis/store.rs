//! [`RedisStore`], and how it runs commands and scripts.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, FromRedisValue, RedisResult};
use tokio::time::Instant;

use super::circuit_breaker::{CircuitBreaker, Permit};
use super::connection::Connection;
use super::health_cache::HealthCache;
use super::invalidation::{Channels, ListenerConfig};
use super::layout::{Layout, RedisNames};
use super::locations::Locations;
use super::publish_state::PublishState;
use super::read_batches::ReadBatches;
use super::scripts::ScriptCall;
use super::seal::Sealer;
use super::step_batches::StepBatches;
use crate::clock::Clock;
use crate::credential::AppId;
use crate::error::Error;
use crate::metrics;
use crate::store::{AccountSeparation, CredentialSlot, InvalidationSource, Store, Subscription};

/// A store in Redis that all processes share. A Spring Boot service that uses the published layout
/// can share the same data.
///
/// All tasks and all clones share one multiplexed connection, which reconnects by itself. Each
/// command has a [timeout](crate::redis::RedisStoreBuilder::command_timeout). An operation may
/// consist of several commands. If too many commands are in flight, a command first waits for its
/// turn.
///
/// # What a fail-over may lose
///
/// Redis acknowledges a write before it copies the write to its replicas. A replica that takes over
/// may therefore lack the last writes, with Sentinel and in a Cluster. The consequences are:
///
/// - A lost renewal: the next request finds the old tokens and renews again. If WeChat has issued a
///   new refresh token with the lost renewal, the old one is revoked, and the user has to log in.
/// - A lost login: the user has to log in again, at the latest when WeChat rejects the old token.
/// - A lost deletion: the old tokens are used again until WeChat rejects them.
/// - A lost lease, code or quota: WeChat may receive one request more than usual.
///
/// No user receives the token of another user, because each key contains the user id. No order of
/// losses causes an endless loop, because every round ends with a token that WeChat has just
/// issued, or with a login. Set `min-replicas-to-write 1` and `min-replicas-max-lag 10` on the
/// servers to shorten the time in which writes can be lost. A primary that is cut off from its
/// replicas then rejects writes.
///
/// The store sends a command to a second server only if the first server replied that it did not
/// run the command. Such a reply is `READONLY` from a replica, or `MOVED`, `ASK` or `TRYAGAIN` for
/// a slot on another node. In a Cluster, the Redis library also repeats a command whose connection
/// ended, within the timeout. A repeated lease or commit finds its own result. A repeated use of a
/// quota counts twice. A repeated login may replace a newer login of the same user, until WeChat
/// rejects its token.
///
/// ```no_run
/// use tower_wechat::redis::Layout;
/// use tower_wechat::RedisStore;
///
/// # async fn run() -> Result<(), tower_wechat::Error> {
/// // The published layout with its default names:
/// let store = RedisStore::connect("redis://127.0.0.1/").await?;
/// // Or with TLS, an ACL user, database 2, and one key for each user:
/// let store = RedisStore::builder("rediss://app:password@redis.example.com:6380/2")
///     .layout(Layout::Keys)
///     .connect()
///     .await?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct RedisStore(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub(super) connection: Connection,
    pub(super) layout: Layout,
    /// The second layout of a dual write, in which each record is written as well.
    pub(super) dual_write: Option<Layout>,
    pub(super) names: RedisNames,
    pub(super) sealer: Sealer,
    pub(super) command_timeout: Duration,
    pub(super) circuit_breaker: CircuitBreaker,
    pub(super) clock: Clock,
    /// `true` if every process that writes also publishes its writes.
    pub(super) exclusive_writer: bool,
    pub(super) channels: Channels,
    pub(super) publish_state: PublishState,
    pub(super) health_cache: HealthCache,
    pub(super) read_batches: ReadBatches,
    pub(super) step_batches: StepBatches,
    /// The address of the server without user and password, for logs and errors.
    pub(super) address: String,
}

/// The name and the value of a field of a hash.
pub(super) type HashField = (Vec<u8>, Vec<u8>);

impl RedisStore {
    /// Returns the locations of a slot in Redis: the keys in the layout that is read, and those in
    /// the layout of a dual write.
    pub(super) fn locations<'a>(&'a self, slot: &'a CredentialSlot) -> Locations<'a> {
        let inner = &*self.0;
        inner
            .names
            .locations(inner.layout, inner.dual_write, &slot.key)
    }

    /// Runs `exchange` with the server of `key` under the circuit breaker and the command timeout.
    /// Fails immediately while the circuit is open.
    pub(super) async fn run_command<T>(
        &self,
        key: &[u8],
        exchange: impl Future<Output = RedisResult<T>> + Send,
    ) -> Result<T, Error> {
        let done = self
            .run_command_within(key, Duration::MAX, exchange)
            .await?;
        done.ok_or_else(|| self.overloaded())
    }

    /// Returns the error of an operation that was not sent in time.
    pub(super) fn overloaded(&self) -> Error {
        self.0.circuit_breaker.overloaded(&self.0.address)
    }

    /// Runs `exchange` as [`run_command`](Self::run_command), for at most `max_wait`. Returns
    /// `None` if `max_wait` was too short.
    ///
    /// Three limits bound the time of a call:
    ///
    /// - The wait for a permit of the circuit breaker, which has its own maximum.
    /// - The command timeout, which starts with the permit. A command that reaches this limit
    ///   counts as a failure of the server.
    /// - `max_wait`, which starts with the call and includes the wait for the permit. A call that
    ///   reaches this limit says nothing about the server, so the circuit breaker does not count
    ///   the call.
    pub(super) async fn run_command_within<T>(
        &self,
        key: &[u8],
        max_wait: Duration,
        exchange: impl Future<Output = RedisResult<T>> + Send,
    ) -> Result<Option<T>, Error> {
        let inner = &*self.0;
        let (breaker, address) = (&inner.circuit_breaker, &inner.address);
        let circuit = inner.connection.circuit_index(key);
        let arrived_at = Instant::now();
        breaker.check(circuit, address)?;
        let permit = breaker.acquire(
            circuit,
            address,
            inner.command_timeout,
            arrived_at,
            max_wait,
        );
        // The permit stays in scope until the exchange has ended.
        let Some(Permit { started_at, .. }) = &permit.await? else {
            return Ok(None);
        };
        let remaining = max_wait.saturating_sub(started_at.duration_since(arrived_at));
        let outcome =
            tokio::time::timeout_at(*started_at + inner.command_timeout.min(remaining), exchange)
                .await;
        let ended = Instant::now();
        let outcome = match outcome {
            Ok(Ok(value)) => {
                breaker.record_success(circuit, address, ended);
                Ok(Some(value))
            }
            Ok(Err(error)) => {
                if error.is_timeout() {
                    inner.connection.report_timeout();
                }
                Err(breaker.record_failure(circuit, address, *started_at, &error))
            }
            Err(_) if remaining < inner.command_timeout => return Ok(None),
            Err(_) => {
                inner.connection.report_timeout();
                Err(breaker.record_timeout(circuit, address, *started_at, inner.command_timeout))
            }
        };
        // The cached result of a health check may be from before this failure.
        if outcome.is_err() {
            inner.health_cache.clear();
        }
        metrics::record_store_call(ended.duration_since(*started_at), outcome.is_ok());
        outcome
    }

    /// Runs a command on the server of its key.
    pub(super) async fn command<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, Error> {
        let mut connection = self.0.connection.clone();
        self.run_command(command_key(command), command.query_async(&mut connection))
            .await
    }

    /// Reads about `count` fields of a hash with `HSCAN`. Returns the next cursor, which is zero at
    /// the end, and the fields with their values.
    pub(super) async fn scan_hash(
        &self,
        hash: &[u8],
        cursor: u64,
        count: usize,
    ) -> Result<(u64, Vec<HashField>), Error> {
        let mut scan = redis::cmd("HSCAN");
        scan.arg(hash).arg(cursor).arg("COUNT").arg(count);
        self.command(&scan).await
    }

    /// Runs a script on the server of its first key.
    pub(super) async fn run_script<T: FromRedisValue + Send>(
        &self,
        call: &ScriptCall,
    ) -> Result<T, Error> {
        let mut connection = self.0.connection.clone();
        self.run_command(call.first_key(), call.invoke(&mut connection))
            .await
    }
}

/// Returns the key of a command: its first argument. Returns an empty key for a command without
/// arguments.
pub(super) fn command_key(command: &Cmd) -> &[u8] {
    match command.args_iter().nth(1) {
        Some(redis::Arg::Simple(key)) => key,
        _ => &[],
    }
}

impl Store for RedisStore {}

impl InvalidationSource for RedisStore {
    fn subscribe(&self, app: &AppId) -> Option<Subscription> {
        let inner = &*self.0;
        let channel = inner.names.invalidation_channel(app);
        inner
            .channels
            .open_subscription(app, channel, || ListenerConfig {
                connection: inner.connection.clone(),
                command_timeout: inner.command_timeout,
                address: inner.address.clone(),
                trusts_heartbeats: inner.exclusive_writer,
                rejection_logged: false.into(),
            })
    }
}

impl AccountSeparation for RedisStore {
    fn check_several_accounts(&self) -> Result<(), Error> {
        let inner = &*self.0;
        inner
            .names
            .check_several_accounts(inner.layout, inner.dual_write)
    }
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore")
            .field("address", &self.0.address)
            .field("layout", &self.0.layout)
            .field("dual_write", &self.0.dual_write)
            .field("names", &self.0.names)
            .finish_non_exhaustive()
    }
}
