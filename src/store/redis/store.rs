//! [`RedisStore`], and how it runs commands and scripts.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, FromRedisValue, RedisResult};
use tokio::time::Instant;

use super::circuit_breaker::{CircuitBreaker, Permit};
use super::connection::Connection;
use super::health::HealthCache;
use super::invalidation::{Channels, ListenerConfig};
use super::layout::{Layout, RedisNames};
use super::locations::Locations;
use super::publish::PublishState;
use super::scripts::ScriptCall;
use super::seal::Sealer;
use crate::clock::Clock;
use crate::credential::AppId;
use crate::error::Error;
use crate::metrics;
use crate::store::{CredentialSlot, InvalidationSource, Store, Subscription};

/// Keeps credentials in Redis, where all processes, and a Spring Boot service of the published
/// layout, share them.
///
/// One multiplexed connection serves all tasks; it comes back by itself when Redis does. Clones
/// share it. Every command is answered or given up within a second (configurable).
///
/// # What a fail-over may lose
///
/// Redis copies writes to its replicas after it has acknowledged them. A replica that takes over
/// may therefore lack the last ones, under Sentinel and in a Cluster alike. What that means here:
///
/// - A lost renewal: the next request finds the old pair and renews once more. Where WeChat has
///   handed out a new refresh token with the lost pair, the old one is dead, and the user logs in.
/// - A lost login: the user is sent to log in again, at the latest when WeChat refuses the token
///   of before.
/// - A lost deletion: the old pair is back until WeChat refuses it.
/// - A lost lease, code or allowance: WeChat may be asked once more than R1 says.
///
/// Nobody gets another user's token, since each value lies under its user's name, and no order of
/// losses makes an endless loop: every round ends with a pair that WeChat has just issued, or at
/// the login. To make the window small, and to have a primary that was cut off refuse writes, set
/// `min-replicas-to-write 1` and `min-replicas-max-lag 10` on the servers.
///
/// A command is sent to a second server only if the first has said that it did not run it: a
/// replica refuses (`READONLY`), a slot lies elsewhere (`MOVED`, `ASK`, `TRYAGAIN`). In a Cluster the
/// library also repeats, within the command's time, what a node was asked when its connection
/// ended; the scripts bear that, since they compare before they write or name their owner.
///
/// ```no_run
/// use tower_wechat::{Layout, RedisStore};
///
/// # async fn run() -> Result<(), tower_wechat::Error> {
/// // The published layout, at the usual place:
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
    /// The layout in which each record is written too.
    pub(super) dual_write: Option<Layout>,
    pub(super) names: RedisNames,
    pub(super) sealer: Sealer,
    pub(super) command_timeout: Duration,
    pub(super) circuit_breaker: CircuitBreaker,
    pub(super) clock: Clock,
    /// Whether nobody writes here without telling.
    pub(super) exclusive_writer: bool,
    pub(super) channels: Channels,
    pub(super) publish_state: PublishState,
    pub(super) health_cache: HealthCache,
    /// The server's address as it may be shown: no user, no password.
    pub(super) address: String,
}

impl RedisStore {
    pub(super) fn locations<'a>(&'a self, slot: &'a CredentialSlot) -> Locations<'a> {
        let inner = &*self.0;
        inner
            .names
            .locations(inner.layout, inner.dual_write, &slot.key)
    }

    /// Runs one exchange with the server of a key within the store's time, unless that has just
    /// failed.
    pub(super) async fn run_command<T>(
        &self,
        key: &[u8],
        exchange: impl Future<Output = RedisResult<T>> + Send,
    ) -> Result<T, Error> {
        let done = self
            .run_command_within(key, Duration::MAX, exchange)
            .await?;
        done.ok_or_else(|| self.0.circuit_breaker.overloaded(&self.0.address))
    }

    /// The same for somebody who waits no longer than `patience`, and is told nothing where that
    /// was too short. One timer bounds all of the exchange: the connection has none of its own.
    pub(super) async fn run_command_within<T>(
        &self,
        key: &[u8],
        max_wait: Duration,
        exchange: impl Future<Output = RedisResult<T>> + Send,
    ) -> Result<Option<T>, Error> {
        let inner = &*self.0;
        let (guard, address) = (&inner.circuit_breaker, &inner.address);
        let circuit = inner.connection.circuit_index(key);
        let arrived_at = Instant::now();
        guard.check(circuit, address)?;
        let permit = guard.acquire(
            circuit,
            address,
            inner.command_timeout,
            arrived_at,
            max_wait,
        );
        let Some(Permit {
            started_at: began, ..
        }) = &permit.await?
        else {
            return Ok(None);
        };
        let remaining = max_wait.saturating_sub(began.duration_since(arrived_at));
        let outcome =
            tokio::time::timeout_at(*began + inner.command_timeout.min(remaining), exchange).await;
        let ended = Instant::now();
        let outcome = match outcome {
            Ok(Ok(value)) => {
                guard.record_success(circuit, address, ended);
                Ok(Some(value))
            }
            Ok(Err(error)) => {
                if error.is_timeout() {
                    inner.connection.report_timeout();
                }
                Err(guard.record_failure(circuit, address, *began, &error))
            }
            Err(_) if remaining < inner.command_timeout => return Ok(None),
            Err(_) => {
                inner.connection.report_timeout();
                Err(guard.record_timeout(circuit, address, *began, inner.command_timeout))
            }
        };
        if outcome.is_err() {
            inner.health_cache.clear();
        }
        metrics::record_store_call(ended.duration_since(*began), outcome.is_ok());
        outcome
    }

    pub(super) async fn command<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, Error> {
        let mut connection = self.0.connection.clone();
        self.run_command(command_key(command), command.query_async(&mut connection))
            .await
    }

    pub(super) async fn run_script<T: FromRedisValue + Send>(
        &self,
        call: &ScriptCall,
    ) -> Result<T, Error> {
        let mut connection = self.0.connection.clone();
        self.run_command(call.first_key(), call.invoke(&mut connection))
            .await
    }
}

/// The key of a command that has one, which is its first argument.
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
        inner.channels.open_subscription(app, || ListenerConfig {
            connection: inner.connection.clone(),
            command_timeout: inner.command_timeout,
            address: inner.address.clone(),
            channel: inner.names.invalidation_channel(app),
            trusts_heartbeats: inner.exclusive_writer,
        })
    }
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore")
            .field("address", &self.0.address)
            .field("layout", &self.0.layout)
            .field("mirror", &self.0.dual_write)
            .field("names", &self.0.names)
            .finish_non_exhaustive()
    }
}
