//! Redis as the store that all processes share.

#[cfg(feature = "cli")]
pub mod admin;
mod builder;
mod circuit_breaker;
mod codec;
mod connection;
mod external;
pub(crate) mod format;
mod health;
mod invalidation;
mod key_registry;
mod layout;
mod log_limit;
mod publish;
mod revocation;
mod scripts;
mod seal;
mod serializer_check;
mod sweep;

use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, FromRedisValue, RedisResult};
use sha2::{Digest, Sha256};
use tokio::time::Instant;
use zeroize::{Zeroize, Zeroizing};

pub use self::builder::RedisStoreBuilder;
use self::circuit_breaker::{CircuitBreaker, Permit};
use self::codec::{RawValue, Write, decode, encode, view_record};
use self::connection::Connection;
pub use self::external::ExternalToken;
pub(crate) use self::external::ExternalTokenStore;
#[cfg(feature = "sealing")]
pub use self::format::keys::{SealingKeys, SealingMode};
use self::health::HealthCache;
use self::invalidation::{Channels, ListenerConfig};
pub use self::layout::{Layout, RedisNames};
use self::layout::{Location, Locations, RedisKey, RedisKeys};
use self::publish::{OutgoingInvalidation, PublishState};
use self::scripts::{ScriptCall, Step};
use self::seal::Sealer;
pub use self::sweep::SweepReport;
use super::{
    BoxFuture, CodeBindResult, CodeLeaseResult, CommitResult, CredentialKey, CredentialKind,
    CredentialReader, CredentialSlot, CredentialWriter, Expected, InvalidationSource, LeaseOwner,
    LeaseResult, LoginCodeKey, LoginCodeStore, MIN_TOMBSTONE_TTL, Quota, QuotaStore, ReadOutcome,
    RecordVersion, RevocationStore, Store, StoredRecord, Subscription, Visitor,
    replaced_refresh_token,
};
use crate::clock::{Clock, Timestamp, duration_millis};
use crate::credential::record_lifetime::MAX_KEY_TTL;
use crate::credential::{AppId, Record, RefreshToken};
use crate::error::Error;
use crate::metrics;

/// How often a value may be sealed anew between the start of a renewal and its commit.
const MAX_RESEAL_RETRIES: usize = 3;

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
pub struct RedisStore(Arc<Inner>);

struct Inner {
    connection: Connection,
    layout: Layout,
    /// The layout in which each record is written too.
    dual_write: Option<Layout>,
    names: RedisNames,
    sealer: Sealer,
    command_timeout: Duration,
    circuit_breaker: CircuitBreaker,
    clock: Clock,
    /// Whether nobody writes here without telling.
    exclusive_writer: bool,
    channels: Channels,
    publish_state: PublishState,
    health_cache: HealthCache,
    /// The server's address as it may be shown: no user, no password.
    address: String,
}

impl RedisStore {
    /// Connects to one of these, in the published layout under its usual names; `rediss` instead of
    /// `redis` is TLS, and special characters of user and password are percent-encoded:
    ///
    /// - `redis://[user[:password]@]host[:port][/db]`: one server.
    /// - `redis+sentinel://[user[:password]@]host[:port],host[:port]/group[/db]`: the primary of a
    ///   group, as the listed Sentinels name it. User, password and database are those of the
    ///   servers; the Sentinels' own are set with
    ///   [`sentinel_credentials`](RedisStoreBuilder::sentinel_credentials).
    /// - `redis+cluster://[user[:password]@]host[:port],host[:port]`: a Cluster, some of whose nodes
    ///   are listed; needs the feature `cluster`. [`Layout::Keys`] spreads users over it.
    ///   [`Layout::Hashes`] is taken only where both names share a hash tag, and then one node
    ///   carries all users.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`](crate::ErrorKind::Configuration) for a URL that cannot be right,
    /// a wrong password, certificate or topology;
    /// [`ErrorKind::StoreUnavailable`](crate::ErrorKind::StoreUnavailable) when nothing answers
    /// there within 3 seconds.
    pub async fn connect(url: &str) -> Result<Self, Error> {
        Self::builder(url).connect().await
    }

    /// Sets up a store that differs from the published layout's defaults.
    pub fn builder(url: &str) -> RedisStoreBuilder {
        RedisStoreBuilder::new(url)
    }

    fn locations<'a>(&'a self, slot: &'a CredentialSlot) -> Locations<'a> {
        let inner = &*self.0;
        inner
            .names
            .locations(inner.layout, inner.dual_write, &slot.key)
    }

    /// Runs one exchange with the server of a key within the store's time, unless that has just
    /// failed.
    async fn run_command<T>(
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
    async fn run_command_within<T>(
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

    async fn command<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, Error> {
        let mut connection = self.0.connection.clone();
        self.run_command(command_key(command), command.query_async(&mut connection))
            .await
    }

    async fn run_script<T: FromRedisValue + Send>(&self, call: &ScriptCall) -> Result<T, Error> {
        let mut connection = self.0.connection.clone();
        self.run_command(call.first_key(), call.invoke(&mut connection))
            .await
    }

    async fn load_record(&self, slot: &CredentialSlot) -> Result<StoredRecord, Error> {
        let place = self.0.names.location(self.0.layout, &slot.key);
        let values = self.read_values(&place, Duration::MAX).await?;
        let values = values.ok_or_else(|| self.0.circuit_breaker.overloaded(&self.0.address))?;
        let stored = decode(&place, slot, values.into(), &self.0.sealer);
        self.warn_of_java_names(&place, slot, &stored).await;
        self.with_revocation(slot, stored).await
    }

    /// A user of whom nothing is stored may lie under a name that another serializer has made.
    async fn warn_of_java_names(
        &self,
        location: &Location<'_>,
        slot: &CredentialSlot,
        stored: &StoredRecord,
    ) {
        if stored.expected.0.iter().all(Option::is_none) {
            Box::pin(self.search_java_names(location, slot)).await;
        }
    }

    async fn read_record_with(
        &self,
        slot: &CredentialSlot,
        timeout: Duration,
        visit: &mut Visitor<'_>,
    ) -> Result<ReadOutcome, Error> {
        let arrived_at = Instant::now();
        let place = self.0.names.location(self.0.layout, &slot.key);
        let Some(mut values) = self.read_values(&place, timeout).await? else {
            return Ok(ReadOutcome::TimedOut);
        };
        let seal = &self.0.sealer;
        let visited = view_record(&place, slot, values.as_slice(), seal, |record| {
            (!revocation::may_lack_revocation(slot, &record)).then(|| visit(&record))
        });
        let (is_accepted, revoked_at) = match visited {
            Some(enough) => (enough, None),
            None => {
                let left = timeout.saturating_sub(arrived_at.elapsed());
                let asked = Box::pin(self.read_revoked_at_within(&slot.key, left));
                let Some(revoked_at) = asked.await? else {
                    return Ok(ReadOutcome::TimedOut);
                };
                let enough = view_record(&place, slot, values.as_slice(), seal, |mut record| {
                    record.details.sessions_valid_from = revoked_at;
                    visit(&record)
                });
                (enough, revoked_at)
            }
        };
        if is_accepted {
            values.wipe();
            return Ok(ReadOutcome::Accepted);
        }
        let mut stored = decode(&place, slot, values.into(), seal);
        if revoked_at.is_some() {
            stored.record.details.sessions_valid_from = revoked_at;
        }
        self.warn_of_java_names(&place, slot, &stored).await;
        Ok(ReadOutcome::Rejected(stored))
    }

    /// What the cells of a place hold, unless `within` was too short.
    async fn read_values(
        &self,
        location: &Location<'_>,
        timeout: Duration,
    ) -> Result<Option<RawValues>, Error> {
        let connection = &self.0.connection;
        match &location.keys {
            RedisKeys::One(cell) => {
                let get = read_command(cell);
                // Pinned where it is: a future that is handed on is copied each time.
                let value = pin!(connection.read_value(&get));
                let got = self.run_command_within(cell.key.as_bytes(), timeout, value);
                Ok(got.await?.map(|value| RawValues::One([value])))
            }
            RedisKeys::Two(cells) => {
                let get = cells.each_ref().map(read_command);
                let key = cells[0].key.as_bytes();
                let values = pin!(connection.read_two_values(get));
                let got = self.run_command_within(key, timeout, values);
                Ok(got.await?.map(RawValues::Two))
            }
        }
    }

    async fn try_acquire_lease(
        &self,
        slot: &CredentialSlot,
        expected: &Expected,
        owner: &LeaseOwner,
        ttl: Duration,
        tombstone: &str,
    ) -> Result<LeaseResult, Error> {
        self.0.sealer.check_replaceable(slot, expected)?;
        let places = self.locations(slot);
        let place = &places.read;
        let mut call = begin_step(Step::AcquireLease, &places);
        call.arg(owner.as_str()).arg(duration_millis(ttl));
        call.arg(tombstone).arg(duration_millis(MIN_TOMBSTONE_TTL));
        for (cell, expected) in place.keys.iter().zip(&expected.0) {
            call.value_key(&*cell.key)
                .arg(cell.field.unwrap_or(""))
                .arg(encode_expected(expected).as_slice());
        }
        Ok(match self.run_script(&call).await? {
            ScriptReply(1, _) => LeaseResult::Acquired,
            ScriptReply(0, _) => LeaseResult::Busy,
            ScriptReply(_, values) => {
                let stored = decode(place, slot, values, &self.0.sealer);
                LeaseResult::Conflict(self.with_revocation(slot, stored).await?)
            }
        })
    }

    async fn write_if_unchanged(
        &self,
        slot: &CredentialSlot,
        expected: &Expected,
        record: &Record,
        owner: &LeaseOwner,
        tombstone: &str,
    ) -> Result<CommitResult, Error> {
        let write = async |expected: &Expected| {
            self.write_once(slot, expected, record, owner, tombstone)
                .await
        };
        let mut outcome = write(expected).await?;
        let started_from = &expected.0;
        for _ in 0..MAX_RESEAL_RETRIES {
            // The same record in another seal is no news: what WeChat has granted from it counts
            // (R3).
            let newer = match &outcome {
                CommitResult::Conflict(newer)
                    if self.differs_only_in_seal(slot, started_from, newer) =>
                {
                    newer
                }
                _ => break,
            };
            let witness = newer.expected.clone();
            outcome = write(&witness).await?;
        }
        Ok(outcome)
    }

    /// Whether what lies in a slot differs from what lay there in its seal alone.
    fn differs_only_in_seal(
        &self,
        slot: &CredentialSlot,
        expected: &[Option<Zeroizing<Vec<u8>>>],
        now: &StoredRecord,
    ) -> bool {
        let seal = &self.0.sealer;
        let place = self.locations(slot).read;
        let sealed = |value: &Option<Zeroizing<Vec<u8>>>| {
            value.as_ref().is_some_and(|value| Sealer::is_sealed(value))
        };
        let touched = expected.iter().chain(&now.expected.0).any(sealed);
        let values = || {
            expected
                .iter()
                .map(|value| value.as_ref().map(|bytes| bytes.to_vec()))
        };
        if !touched || now.record.is_empty() {
            return false;
        }
        let mut before = decode(&place, slot, values().collect(), seal).record;
        // What has been looked up besides is in neither of the values.
        let details = &mut before.details;
        details.sessions_valid_from = details
            .sessions_valid_from
            .or(now.record.details.sessions_valid_from);
        before == now.record
    }

    /// The refresh token in what was expected.
    fn expected_refresh_token(
        &self,
        slot: &CredentialSlot,
        expected: &Expected,
    ) -> Option<RefreshToken> {
        let place = self.0.names.location(self.0.layout, &slot.key);
        let values = expected.0.iter();
        let values = values.map(|value| value.as_ref().map(|bytes| bytes.to_vec()));
        let stored = decode(&place, slot, values.collect(), &self.0.sealer);
        stored.record.refresh.map(|refresh| refresh.secret)
    }

    /// What a tombstone for `expected` says; nothing where there is no refresh token.
    fn tombstone_value(&self, slot: &CredentialSlot, expected: &Expected) -> String {
        let token = self.expected_refresh_token(slot, expected);
        token.map_or_else(String::new, |token| {
            tombstone_fingerprint(token.expose().as_bytes())
        })
    }

    /// One try to write where the slot holds `expected`.
    async fn write_once(
        &self,
        slot: &CredentialSlot,
        expected: &Expected,
        record: &Record,
        owner: &LeaseOwner,
        tombstone: &str,
    ) -> Result<CommitResult, Error> {
        self.0.sealer.check_replaceable(slot, expected)?;
        let places = self.locations(slot);
        let now = self.0.clock.now();
        let mut call = begin_step(Step::Commit, &places);
        let before = self.expected_refresh_token(slot, expected);
        let before = before.as_ref().map(|token| token.expose().as_bytes());
        let before =
            replaced_refresh_token(before, record).map_or_else(String::new, tombstone_fingerprint);
        call.arg(owner.as_str()).arg(before);
        call.arg(tombstone).arg(duration_millis(TOMBSTONE_TTL));
        let compared = expected.0.iter().map(encode_expected);
        let read = places.read.keys.iter().zip(compared);
        let written = places.copy.iter().flat_map(|mirror| &*mirror.keys);
        let cells = read.chain(written.map(|cell| (cell, encode_any())));
        let mut news = Vec::new();
        for (place, written_for) in places.with_targets() {
            news.extend(encode(
                place,
                slot,
                record,
                written_for,
                now,
                &self.0.sealer,
            )?);
        }
        for ((cell, expected), new) in cells.zip(news) {
            let value = new.value.as_ref().map(|text| text.as_bytes());
            call.value_key(&*cell.key)
                .arg(cell.field.unwrap_or(""))
                .arg(expected.as_slice())
                .arg(encode_expected(&value).as_slice())
                .arg(duration_millis(new.ttl));
        }
        Ok(
            match self
                .run_write(call, self.outgoing_invalidation(slot, record))
                .await?
            {
                ScriptReply(1, _) => CommitResult::Committed,
                ScriptReply(0, _) => CommitResult::LeaseLost,
                ScriptReply(_, values) => {
                    let stored = decode(&places.read, slot, values, &self.0.sealer);
                    CommitResult::Conflict(self.with_revocation(slot, stored).await?)
                }
            },
        )
    }

    async fn write_unconditionally(
        &self,
        slot: &CredentialSlot,
        record: &Record,
    ) -> Result<(), Error> {
        let places = self.locations(slot);
        let now = self.0.clock.now();
        let mut call = ScriptCall::for_step(Step::Overwrite);
        for tombstone in &places.tombstone_keys {
            call.tombstone_key(tombstone);
        }
        for (place, written_for) in places.with_targets() {
            let news = encode(place, slot, record, written_for, now, &self.0.sealer)?;
            for (cell, Write { value, ttl }) in place.keys.iter().zip(&news) {
                let value = value.as_ref().map(|text| text.as_bytes());
                call.value_key(&*cell.key)
                    .arg(cell.field.unwrap_or(""))
                    .arg(encode_expected(&value).as_slice())
                    .arg(duration_millis(*ttl));
            }
        }
        let written = self
            .run_write(call, self.outgoing_invalidation(slot, record))
            .await;
        written.map(drop)
    }

    /// What a script that writes tells the others.
    fn outgoing_invalidation(
        &self,
        slot: &CredentialSlot,
        record: &Record,
    ) -> Option<OutgoingInvalidation> {
        Some(OutgoingInvalidation {
            channel: self.0.names.invalidation_channel(&slot.key.app),
            message: invalidation::invalidation_message(
                &slot.key,
                RecordVersion::of_record(record),
            ),
        })
    }
}

/// The command that reads a cell.
fn read_command(cell: &RedisKey<'_>) -> Cmd {
    // The room that it takes is known, and growing would cost more than the rest.
    let field = cell.field.map_or(0, str::len);
    let mut command = Cmd::with_capacity(3, 4 + cell.key.len() + field);
    match cell.field {
        Some(field) => command.arg("HGET").arg(&*cell.key).arg(field),
        None => command.arg("GET").arg(&*cell.key),
    };
    command
}

/// What the cells of a place hold.
enum RawValues {
    One([RawValue; 1]),
    Two([RawValue; 2]),
}

impl RawValues {
    fn as_slice(&self) -> &[RawValue] {
        match self {
            Self::One(values) => values,
            Self::Two(values) => values,
        }
    }

    /// They hold secrets.
    fn wipe(&mut self) {
        let values = match self {
            Self::One(values) => values.as_mut_slice(),
            Self::Two(values) => values,
        };
        for value in values.iter_mut().flatten() {
            value.as_mut_slice().zeroize();
        }
    }
}

impl From<RawValues> for Vec<RawValue> {
    fn from(values: RawValues) -> Self {
        match values {
            RawValues::One(values) => values.into(),
            RawValues::Two(values) => values.into(),
        }
    }
}

/// The key of a command that has one, which is its first argument.
fn command_key(command: &Cmd) -> &[u8] {
    match command.args_iter().nth(1) {
        Some(redis::Arg::Simple(key)) => key,
        _ => &[],
    }
}

/// Begins the call of a step that works under the leases of these places.
fn begin_step(step: Step, places: &Locations<'_>) -> ScriptCall {
    let mut call = ScriptCall::for_step(step);
    for key in &places.lease_keys {
        call.lease_key(key);
    }
    for key in &places.tombstone_keys {
        call.tombstone_key(key);
    }
    call
}

/// How long the tombstone of a deleted pair stays: as long as a copy of the pair in the other layout
/// may look alive, so that a move does not bring it back. Only users who came back with a dead
/// refresh token and did not log in again have one.
const TOMBSTONE_TTL: Duration = MAX_KEY_TTL;

/// Names a token without telling it: half of its hash, of which there are too many to find another
/// token for.
pub(super) fn tombstone_fingerprint(token: &[u8]) -> String {
    let digest = Sha256::digest(token);
    let half = digest.iter().take(16);
    half.map(|byte| format!("{byte:02x}")).collect()
}

/// A script's answer: a number, and the values of the cells where they were not as expected.
struct ScriptReply(i64, Vec<RawValue>);

impl FromRedisValue for ScriptReply {
    fn from_redis_value(value: redis::Value) -> Result<Self, redis::ParsingError> {
        let mut parts = Vec::<redis::Value>::from_redis_value(value)?.into_iter();
        let number = parts.next().map_or(Ok(-1), i64::from_redis_value)?;
        let values = parts.next().map_or(Ok(Vec::new()), Vec::from_redis_value)?;
        Ok(Self(number, values))
    }
}

/// How the scripts take a value that may be missing.
fn encode_expected(value: &Option<impl AsRef<[u8]>>) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(match value {
        Some(bytes) => [b"=", bytes.as_ref()].concat(),
        None => b"-".to_vec(),
    })
}

/// How the scripts take a cell that is written whatever lies there.
fn encode_any() -> Zeroizing<Vec<u8>> {
    Zeroizing::new(b"*".to_vec())
}

impl Store for RedisStore {}

impl CredentialReader for RedisStore {
    fn load<'a>(&'a self, slot: &'a CredentialSlot) -> BoxFuture<'a, Result<StoredRecord, Error>> {
        Box::pin(self.load_record(slot))
    }

    fn read_with<'a>(
        &'a self,
        slot: &'a CredentialSlot,
        timeout: Duration,
        visit: &'a mut Visitor<'_>,
    ) -> BoxFuture<'a, Result<ReadOutcome, Error>> {
        Box::pin(self.read_record_with(slot, timeout, visit))
    }

    fn check_health<'a>(
        &'a self,
        app: &'a AppId,
        kind: CredentialKind,
    ) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(self.check_writing(app, kind))
    }
}

impl CredentialWriter for RedisStore {
    fn acquire_lease<'a>(
        &'a self,
        slot: &'a CredentialSlot,
        expected: &'a Expected,
        owner: &'a LeaseOwner,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<LeaseResult, Error>> {
        Box::pin(self.try_acquire_lease(slot, expected, owner, ttl, ""))
    }

    fn announce_deletion<'a>(
        &'a self,
        slot: &'a CredentialSlot,
        expected: &'a Expected,
        owner: &'a LeaseOwner,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<LeaseResult, Error>> {
        Box::pin(async move {
            let tombstone = self.tombstone_value(slot, expected);
            self.try_acquire_lease(slot, expected, owner, ttl, &tombstone)
                .await
        })
    }

    fn commit<'a>(
        &'a self,
        slot: &'a CredentialSlot,
        expected: &'a Expected,
        record: &'a Record,
        owner: &'a LeaseOwner,
    ) -> BoxFuture<'a, Result<CommitResult, Error>> {
        Box::pin(self.write_if_unchanged(slot, expected, record, owner, ""))
    }

    fn commit_deletion<'a>(
        &'a self,
        slot: &'a CredentialSlot,
        expected: &'a Expected,
        owner: &'a LeaseOwner,
    ) -> BoxFuture<'a, Result<CommitResult, Error>> {
        Box::pin(async move {
            let (nothing, tombstone) = (Record::default(), self.tombstone_value(slot, expected));
            self.write_if_unchanged(slot, expected, &nothing, owner, &tombstone)
                .await
        })
    }

    fn release_lease<'a>(
        &'a self,
        slot: &'a CredentialSlot,
        owner: &'a LeaseOwner,
    ) -> BoxFuture<'a, Result<bool, Error>> {
        Box::pin(async move {
            let places = self.locations(slot);
            let mut call = ScriptCall::for_step(Step::ReleaseLeases);
            for lease in &places.lease_keys {
                call.lease_key(lease);
            }
            call.arg(owner.as_str());
            self.run_script::<i64>(&call).await.map(|gone| gone > 0)
        })
    }

    fn overwrite<'a>(
        &'a self,
        slot: &'a CredentialSlot,
        record: &'a Record,
    ) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(self.write_unconditionally(slot, record))
    }
}

impl LoginCodeStore for RedisStore {
    fn bind_code<'a>(
        &'a self,
        code: &'a LoginCodeKey,
        login: u64,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<CodeBindResult, Error>> {
        Box::pin(async move {
            let mut call = scripts::BIND_CODE.key(self.0.names.code_binding_key(code));
            call.arg(format!("{login:016x}")).arg(duration_millis(ttl));
            Ok(match self.run_script::<i64>(&call).await? {
                0 => CodeBindResult::BoundElsewhere,
                1 => CodeBindResult::Bound,
                _ => CodeBindResult::AlreadyBound,
            })
        })
    }

    fn acquire_code<'a>(
        &'a self,
        code: &'a LoginCodeKey,
        owner: &'a LeaseOwner,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<CodeLeaseResult, Error>> {
        Box::pin(async move {
            let mut call = scripts::ACQUIRE_CODE.key(self.0.names.code_key(code));
            call.arg(owner.as_str()).arg(duration_millis(ttl));
            let held: Option<Vec<u8>> = self.run_script(&call).await?;
            Ok(match held {
                None => CodeLeaseResult::Acquired,
                Some(value) => match value.strip_prefix(b"=") {
                    Some(outcome) => {
                        CodeLeaseResult::Finished(String::from_utf8_lossy(outcome).into_owned())
                    }
                    None => CodeLeaseResult::Busy,
                },
            })
        })
    }

    fn release_code<'a>(
        &'a self,
        code: &'a LoginCodeKey,
        owner: &'a LeaseOwner,
    ) -> BoxFuture<'a, Result<bool, Error>> {
        Box::pin(async move {
            let mut call = scripts::RELEASE_CODE.key(self.0.names.code_key(code));
            call.arg(owner.as_str());
            self.run_script::<i64>(&call).await.map(|gone| gone > 0)
        })
    }

    fn finish_code<'a>(
        &'a self,
        code: &'a LoginCodeKey,
        owner: Option<&'a LeaseOwner>,
        outcome: &'a str,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            let mut call = scripts::FINISH_CODE.key(self.0.names.code_key(code));
            call.arg(owner.map_or("", LeaseOwner::as_str))
                .arg(outcome)
                .arg(duration_millis(ttl));
            self.run_script(&call).await
        })
    }
}

impl QuotaStore for RedisStore {
    fn try_consume<'a>(&'a self, quota: &'a Quota) -> BoxFuture<'a, Result<bool, Error>> {
        Box::pin(async move {
            let (prefix, app) = (&self.0.names.prefix, &quota.app);
            let mut call =
                scripts::TRY_CONSUME.key(format!("{prefix}{app}:allowance:{}", quota.purpose));
            call.arg(quota.limit).arg(duration_millis(quota.window));
            Ok(self.run_script::<i64>(&call).await? == 1)
        })
    }
}

impl RevocationStore for RedisStore {
    fn set_revoked_at<'a>(
        &'a self,
        key: &'a CredentialKey,
        at: Timestamp,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            let mut call = scripts::SET_REVOKED_AT.key(self.0.names.revocation_key(key));
            call.arg(at.as_millis()).arg(duration_millis(ttl));
            self.run_script(&call).await
        })
    }

    fn revoked_at<'a>(
        &'a self,
        key: &'a CredentialKey,
    ) -> BoxFuture<'a, Result<Option<Timestamp>, Error>> {
        Box::pin(async move { self.read_revoked_at(key).await })
    }
}

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
