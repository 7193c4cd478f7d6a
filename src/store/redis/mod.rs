//! Redis as the store that all processes share.

mod address;
#[cfg(feature = "cluster")]
mod cluster;
mod codec;
mod connect;
mod connection;
mod followed;
mod greeting;
mod guard;
mod java_names;
mod log_limit;
mod marks;
mod names;
mod news;
#[cfg(feature = "cli")]
pub mod operate;
mod primary;
mod publish;
mod ready;
mod refusal;
mod revoked;
mod scripts;
mod seal;
#[cfg(feature = "cluster")]
mod seeds;
mod sentinel;
mod single;
mod start_up;
mod sweep;

use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, FromRedisValue, RedisResult};
use sha2::{Digest, Sha256};
use tokio::time::Instant;
use zeroize::{Zeroize, Zeroizing};

use self::codec::{New, Value, decode, encode, view};
pub use self::connect::RedisStoreBuilder;
use self::connection::Connection;
pub(crate) use self::followed::FollowedStore;
pub use self::followed::FollowedToken;
use self::guard::{Guard, Turn, millis};
use self::names::{Cell, Cells, Place, Places};
pub use self::names::{Layout, RedisNames};
use self::news::Channels;
use self::publish::{Publishing, Tidings};
use self::ready::Ready;
use self::scripts::{Call, Step};
use self::seal::Seal;
pub use self::sweep::Swept;
use super::{
    Allowance, BoxFuture, Claim, CodeBinding, CodeClaim, CodeName, Commit, Feed, Glimpse, Kind,
    LeaseOwner, Look, Mark, Name, Slot, Store, Stored, TOMBSTONE_LIFE, Witness, predecessor,
};
use crate::clock::{Clock, Timestamp};
use crate::credential::refresh_life::LONGEST_LIFE;
use crate::credential::{AppId, Record, RefreshToken};
use crate::error::Error;
use crate::observe;

/// How often a value may be sealed anew between the start of a renewal and its commit.
const RESEALINGS: usize = 3;

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
    mirror: Option<Layout>,
    names: RedisNames,
    seal: Seal,
    timeout: Duration,
    guard: Guard,
    clock: Clock,
    /// Whether nobody writes here without telling.
    sole_writer: bool,
    channels: Channels,
    publishing: Publishing,
    ready: Ready,
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

    fn places<'a>(&'a self, slot: &'a Slot) -> Places<'a> {
        let inner = &*self.0;
        inner.names.places(inner.layout, inner.mirror, &slot.name)
    }

    /// Runs one exchange with the server of a key within the store's time, unless that has just
    /// failed.
    async fn run<T>(
        &self,
        key: &[u8],
        exchange: impl Future<Output = RedisResult<T>> + Send,
    ) -> Result<T, Error> {
        let done = self.run_within(key, Duration::MAX, exchange).await?;
        done.ok_or_else(|| self.0.guard.asked_too_much(&self.0.address))
    }

    /// The same for somebody who waits no longer than `patience`, and is told nothing where that
    /// was too short. One timer bounds all of the exchange: the connection has none of its own.
    async fn run_within<T>(
        &self,
        key: &[u8],
        patience: Duration,
        exchange: impl Future<Output = RedisResult<T>> + Send,
    ) -> Result<Option<T>, Error> {
        let inner = &*self.0;
        let (guard, address) = (&inner.guard, &inner.address);
        let part = inner.connection.part(key);
        let came = Instant::now();
        guard.admit(part, address)?;
        let turn = guard.turn(part, address, inner.timeout, came, patience);
        let Some(Turn { began, .. }) = &turn.await? else {
            return Ok(None);
        };
        let left = patience.saturating_sub(began.duration_since(came));
        let outcome = tokio::time::timeout_at(*began + inner.timeout.min(left), exchange).await;
        let ended = Instant::now();
        let outcome = match outcome {
            Ok(Ok(value)) => {
                guard.succeeded(part, address, ended);
                Ok(Some(value))
            }
            Ok(Err(error)) => {
                if error.is_timeout() {
                    inner.connection.suspect();
                }
                Err(guard.failed(part, address, *began, &error))
            }
            Err(_) if left < inner.timeout => return Ok(None),
            Err(_) => {
                inner.connection.suspect();
                Err(guard.timed_out(part, address, *began, inner.timeout))
            }
        };
        if outcome.is_err() {
            inner.ready.forget();
        }
        observe::store_call(ended.duration_since(*began), outcome.is_ok());
        outcome
    }

    async fn command<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, Error> {
        let mut connection = self.0.connection.clone();
        self.run(key_of(command), command.query_async(&mut connection))
            .await
    }

    async fn script<T: FromRedisValue + Send>(&self, call: &Call) -> Result<T, Error> {
        let mut connection = self.0.connection.clone();
        self.run(call.first_key(), call.invoke(&mut connection))
            .await
    }

    async fn read(&self, slot: &Slot) -> Result<Stored, Error> {
        let place = self.0.names.place(self.0.layout, &slot.name);
        let values = self.values(&place, Duration::MAX).await?;
        let values = values.ok_or_else(|| self.0.guard.asked_too_much(&self.0.address))?;
        let stored = decode(&place, slot, values.into(), &self.0.seal);
        self.look_for_others(&place, slot, &stored).await;
        self.completed(slot, stored).await
    }

    /// A user of whom nothing is stored may lie under a name that another serializer has made.
    async fn look_for_others(&self, place: &Place<'_>, slot: &Slot, stored: &Stored) {
        if stored.witness.0.iter().all(Option::is_none) {
            Box::pin(self.look_for_java_names(place, slot)).await;
        }
    }

    async fn look_at(
        &self,
        slot: &Slot,
        within: Duration,
        look: &mut Look<'_>,
    ) -> Result<Glimpse, Error> {
        let came = Instant::now();
        let place = self.0.names.place(self.0.layout, &slot.name);
        let Some(mut values) = self.values(&place, within).await? else {
            return Ok(Glimpse::Late);
        };
        let seal = &self.0.seal;
        let seen = view(&place, slot, values.as_slice(), seal, |record| {
            (!revoked::may_lack(slot, &record)).then(|| look(&record))
        });
        let (enough, revoked_at) = match seen {
            Some(enough) => (enough, None),
            None => {
                let left = within.saturating_sub(came.elapsed());
                let asked = Box::pin(self.revoked_within(&slot.name, left));
                let Some(revoked_at) = asked.await? else {
                    return Ok(Glimpse::Late);
                };
                let enough = view(&place, slot, values.as_slice(), seal, |mut record| {
                    record.details.sessions_from = revoked_at;
                    look(&record)
                });
                (enough, revoked_at)
            }
        };
        if enough {
            values.wipe();
            return Ok(Glimpse::Enough);
        }
        let mut stored = decode(&place, slot, values.into(), seal);
        if revoked_at.is_some() {
            stored.record.details.sessions_from = revoked_at;
        }
        self.look_for_others(&place, slot, &stored).await;
        Ok(Glimpse::Left(stored))
    }

    /// What the cells of a place hold, unless `within` was too short.
    async fn values(&self, place: &Place<'_>, within: Duration) -> Result<Option<Values>, Error> {
        let connection = &self.0.connection;
        match &place.cells {
            Cells::One(cell) => {
                let get = reading(cell);
                // Pinned where it is: a future that is handed on is copied each time.
                let value = pin!(connection.value(&get));
                let got = self.run_within(cell.key.as_bytes(), within, value);
                Ok(got.await?.map(|value| Values::One([value])))
            }
            Cells::Two(cells) => {
                let get = cells.each_ref().map(reading);
                let key = cells[0].key.as_bytes();
                let values = pin!(connection.two_values(get));
                let got = self.run_within(key, within, values);
                Ok(got.await?.map(Values::Two))
            }
        }
    }

    async fn take_lease(
        &self,
        slot: &Slot,
        expected: &Witness,
        owner: &LeaseOwner,
        ttl: Duration,
        tombstone: &str,
    ) -> Result<Claim, Error> {
        self.0.seal.may_replace(slot, expected)?;
        let places = self.places(slot);
        let place = &places.read;
        let mut call = start(Step::Claim, &places);
        call.arg(owner.as_str()).arg(millis(ttl));
        call.arg(tombstone).arg(millis(TOMBSTONE_LIFE));
        for (cell, expected) in place.cells.iter().zip(&expected.0) {
            call.cell(&*cell.key)
                .arg(cell.field.unwrap_or(""))
                .arg(flagged(expected).as_slice());
        }
        Ok(match self.script(&call).await? {
            Answer(1, _) => Claim::Granted,
            Answer(0, _) => Claim::Held,
            Answer(_, values) => {
                let stored = decode(place, slot, values, &self.0.seal);
                Claim::Changed(self.completed(slot, stored).await?)
            }
        })
    }

    async fn write_if_unchanged(
        &self,
        slot: &Slot,
        expected: &Witness,
        record: &Record,
        owner: &LeaseOwner,
        tombstone: &str,
    ) -> Result<Commit, Error> {
        let write = async |expected: &Witness| {
            self.try_to_write(slot, expected, record, owner, tombstone)
                .await
        };
        let mut outcome = write(expected).await?;
        let started_from = &expected.0;
        for _ in 0..RESEALINGS {
            // The same record in another seal is no news: what WeChat has granted from it counts
            // (R3).
            let newer = match &outcome {
                Commit::Changed(newer) if self.is_resealed(slot, started_from, newer) => newer,
                _ => break,
            };
            let witness = newer.witness.clone();
            outcome = write(&witness).await?;
        }
        Ok(outcome)
    }

    /// Whether what lies in a slot differs from what lay there in its seal alone.
    fn is_resealed(
        &self,
        slot: &Slot,
        before: &[Option<Zeroizing<Vec<u8>>>],
        now: &Stored,
    ) -> bool {
        let seal = &self.0.seal;
        let place = self.places(slot).read;
        let sealed = |value: &Option<Zeroizing<Vec<u8>>>| {
            value.as_ref().is_some_and(|value| Seal::is_sealed(value))
        };
        let touched = before.iter().chain(&now.witness.0).any(sealed);
        let values = || {
            before
                .iter()
                .map(|value| value.as_ref().map(|bytes| bytes.to_vec()))
        };
        if !touched || now.record.is_empty() {
            return false;
        }
        let mut before = decode(&place, slot, values().collect(), seal).record;
        // What has been looked up besides is in neither of the values.
        let details = &mut before.details;
        details.sessions_from = details.sessions_from.or(now.record.details.sessions_from);
        before == now.record
    }

    /// The refresh token in what was expected.
    fn refresh_token(&self, slot: &Slot, expected: &Witness) -> Option<RefreshToken> {
        let place = self.0.names.place(self.0.layout, &slot.name);
        let values = expected.0.iter();
        let values = values.map(|value| value.as_ref().map(|bytes| bytes.to_vec()));
        let stored = decode(&place, slot, values.collect(), &self.0.seal);
        stored.record.refresh.map(|refresh| refresh.secret)
    }

    /// What a tombstone for `expected` says; nothing where there is no refresh token.
    fn tombstone(&self, slot: &Slot, expected: &Witness) -> String {
        let token = self.refresh_token(slot, expected);
        token.map_or_else(String::new, |token| fingerprint(token.expose().as_bytes()))
    }

    /// One try to write where the slot holds `expected`.
    async fn try_to_write(
        &self,
        slot: &Slot,
        expected: &Witness,
        record: &Record,
        owner: &LeaseOwner,
        tombstone: &str,
    ) -> Result<Commit, Error> {
        self.0.seal.may_replace(slot, expected)?;
        let places = self.places(slot);
        let now = self.0.clock.now();
        let mut call = start(Step::Commit, &places);
        let before = self.refresh_token(slot, expected);
        let before = before.as_ref().map(|token| token.expose().as_bytes());
        let before = predecessor(before, record).map_or_else(String::new, fingerprint);
        call.arg(owner.as_str()).arg(before);
        call.arg(tombstone).arg(millis(BURIED_FOR));
        let compared = expected.0.iter().map(flagged);
        let read = places.read.cells.iter().zip(compared);
        let written = places.mirror.iter().flat_map(|mirror| &*mirror.cells);
        let cells = read.chain(written.map(|cell| (cell, anything())));
        let mut news = Vec::new();
        for (place, written_for) in places.all() {
            news.extend(encode(place, slot, record, written_for, now, &self.0.seal)?);
        }
        for ((cell, expected), new) in cells.zip(news) {
            let value = new.value.as_ref().map(|text| text.as_bytes());
            call.cell(&*cell.key)
                .arg(cell.field.unwrap_or(""))
                .arg(expected.as_slice())
                .arg(flagged(&value).as_slice())
                .arg(millis(new.ttl));
        }
        Ok(match self.write(call, self.tidings(slot, record)).await? {
            Answer(1, _) => Commit::Done,
            Answer(0, _) => Commit::LeaseLost,
            Answer(_, values) => {
                let stored = decode(&places.read, slot, values, &self.0.seal);
                Commit::Changed(self.completed(slot, stored).await?)
            }
        })
    }

    async fn overwrite(&self, slot: &Slot, record: &Record) -> Result<(), Error> {
        let places = self.places(slot);
        let now = self.0.clock.now();
        let mut call = Call::of(Step::Put);
        for tombstone in &places.tombstones {
            call.tombstone(tombstone);
        }
        for (place, written_for) in places.all() {
            let news = encode(place, slot, record, written_for, now, &self.0.seal)?;
            for (cell, New { value, ttl }) in place.cells.iter().zip(&news) {
                let value = value.as_ref().map(|text| text.as_bytes());
                call.cell(&*cell.key)
                    .arg(cell.field.unwrap_or(""))
                    .arg(flagged(&value).as_slice())
                    .arg(millis(*ttl));
            }
        }
        let written = self.write(call, self.tidings(slot, record)).await;
        written.map(drop)
    }

    /// What a script that writes tells the others.
    fn tidings(&self, slot: &Slot, record: &Record) -> Option<Tidings> {
        Some(Tidings {
            channel: self.0.names.news(&slot.name.app),
            news: news::written(&slot.name, Mark::of_record(record)),
        })
    }
}

/// The command that reads a cell.
fn reading(cell: &Cell<'_>) -> Cmd {
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
enum Values {
    One([Value; 1]),
    Two([Value; 2]),
}

impl Values {
    fn as_slice(&self) -> &[Value] {
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

impl From<Values> for Vec<Value> {
    fn from(values: Values) -> Self {
        match values {
            Values::One(values) => values.into(),
            Values::Two(values) => values.into(),
        }
    }
}

/// The key of a command that has one, which is its first argument.
fn key_of(command: &Cmd) -> &[u8] {
    match command.args_iter().nth(1) {
        Some(redis::Arg::Simple(key)) => key,
        _ => &[],
    }
}

/// Begins the call of a step that works under the leases of these places.
fn start(step: Step, places: &Places<'_>) -> Call {
    let mut call = Call::of(step);
    for key in &places.leases {
        call.lease(key);
    }
    for key in &places.tombstones {
        call.tombstone(key);
    }
    call
}

/// How long the tombstone of a deleted pair stays: as long as a copy of the pair in the other layout
/// may look alive, so that a move does not bring it back. Only users who came back with a dead
/// refresh token and did not log in again have one.
const BURIED_FOR: Duration = LONGEST_LIFE;

/// Names a token without telling it: half of its hash, of which there are too many to find another
/// token for.
pub(super) fn fingerprint(token: &[u8]) -> String {
    let digest = Sha256::digest(token);
    let half = digest.iter().take(16);
    half.map(|byte| format!("{byte:02x}")).collect()
}

/// A script's answer: a number, and the values of the cells where they were not as expected.
struct Answer(i64, Vec<Value>);

impl FromRedisValue for Answer {
    fn from_redis_value(value: redis::Value) -> Result<Self, redis::ParsingError> {
        let mut parts = Vec::<redis::Value>::from_redis_value(value)?.into_iter();
        let number = parts.next().map_or(Ok(-1), i64::from_redis_value)?;
        let values = parts.next().map_or(Ok(Vec::new()), Vec::from_redis_value)?;
        Ok(Self(number, values))
    }
}

/// How the scripts take a value that may be missing.
fn flagged(value: &Option<impl AsRef<[u8]>>) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(match value {
        Some(bytes) => [b"=", bytes.as_ref()].concat(),
        None => b"-".to_vec(),
    })
}

/// How the scripts take a cell that is written whatever lies there.
fn anything() -> Zeroizing<Vec<u8>> {
    Zeroizing::new(b"*".to_vec())
}

impl Store for RedisStore {
    fn load<'a>(&'a self, slot: &'a Slot) -> BoxFuture<'a, Result<Stored, Error>> {
        Box::pin(self.read(slot))
    }

    fn glance<'a>(
        &'a self,
        slot: &'a Slot,
        within: Duration,
        look: &'a mut Look<'_>,
    ) -> BoxFuture<'a, Result<Glimpse, Error>> {
        Box::pin(self.look_at(slot, within, look))
    }

    fn claim<'a>(
        &'a self,
        slot: &'a Slot,
        expected: &'a Witness,
        owner: &'a LeaseOwner,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<Claim, Error>> {
        Box::pin(self.take_lease(slot, expected, owner, ttl, ""))
    }

    fn commit<'a>(
        &'a self,
        slot: &'a Slot,
        expected: &'a Witness,
        record: &'a Record,
        owner: &'a LeaseOwner,
    ) -> BoxFuture<'a, Result<Commit, Error>> {
        Box::pin(self.write_if_unchanged(slot, expected, record, owner, ""))
    }

    fn announce_deletion<'a>(
        &'a self,
        slot: &'a Slot,
        expected: &'a Witness,
        owner: &'a LeaseOwner,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<Claim, Error>> {
        Box::pin(async move {
            let tombstone = self.tombstone(slot, expected);
            self.take_lease(slot, expected, owner, ttl, &tombstone)
                .await
        })
    }

    fn delete<'a>(
        &'a self,
        slot: &'a Slot,
        expected: &'a Witness,
        owner: &'a LeaseOwner,
    ) -> BoxFuture<'a, Result<Commit, Error>> {
        Box::pin(async move {
            let (nothing, tombstone) = (Record::default(), self.tombstone(slot, expected));
            self.write_if_unchanged(slot, expected, &nothing, owner, &tombstone)
                .await
        })
    }

    fn release<'a>(
        &'a self,
        slot: &'a Slot,
        owner: &'a LeaseOwner,
    ) -> BoxFuture<'a, Result<bool, Error>> {
        Box::pin(async move {
            let places = self.places(slot);
            let mut call = Call::of(Step::Release);
            for lease in &places.leases {
                call.lease(lease);
            }
            call.arg(owner.as_str());
            self.script::<i64>(&call).await.map(|gone| gone > 0)
        })
    }

    fn put<'a>(&'a self, slot: &'a Slot, record: &'a Record) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(self.overwrite(slot, record))
    }

    fn spend<'a>(&'a self, allowance: &'a Allowance) -> BoxFuture<'a, Result<bool, Error>> {
        Box::pin(async move {
            let (prefix, app) = (&self.0.names.prefix, &allowance.app);
            let mut call =
                scripts::SPEND.key(format!("{prefix}{app}:allowance:{}", allowance.name));
            call.arg(allowance.uses).arg(millis(allowance.span));
            Ok(self.script::<i64>(&call).await? == 1)
        })
    }

    fn bind_code<'a>(
        &'a self,
        code: &'a CodeName,
        login: u64,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<CodeBinding, Error>> {
        Box::pin(async move {
            let mut call = scripts::BIND_CODE.key(self.0.names.bound(code));
            call.arg(format!("{login:016x}")).arg(millis(ttl));
            Ok(match self.script::<i64>(&call).await? {
                0 => CodeBinding::Others,
                1 => CodeBinding::First,
                _ => CodeBinding::Ours,
            })
        })
    }

    fn claim_code<'a>(
        &'a self,
        code: &'a CodeName,
        owner: &'a LeaseOwner,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<CodeClaim, Error>> {
        Box::pin(async move {
            let mut call = scripts::CLAIM_CODE.key(self.0.names.code(code));
            call.arg(owner.as_str()).arg(millis(ttl));
            let said: Option<Vec<u8>> = self.script(&call).await?;
            Ok(match said {
                None => CodeClaim::Granted,
                Some(value) => match value.strip_prefix(b"=") {
                    Some(outcome) => {
                        CodeClaim::Settled(String::from_utf8_lossy(outcome).into_owned())
                    }
                    None => CodeClaim::Held,
                },
            })
        })
    }

    fn release_code<'a>(
        &'a self,
        code: &'a CodeName,
        owner: &'a LeaseOwner,
    ) -> BoxFuture<'a, Result<bool, Error>> {
        Box::pin(async move {
            let mut call = scripts::RELEASE_CODE.key(self.0.names.code(code));
            call.arg(owner.as_str());
            self.script::<i64>(&call).await.map(|gone| gone > 0)
        })
    }

    fn settle_code<'a>(
        &'a self,
        code: &'a CodeName,
        owner: Option<&'a LeaseOwner>,
        outcome: &'a str,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            let mut call = scripts::SETTLE_CODE.key(self.0.names.code(code));
            call.arg(owner.map_or("", LeaseOwner::as_str))
                .arg(outcome)
                .arg(millis(ttl));
            self.script(&call).await
        })
    }

    fn revoke<'a>(
        &'a self,
        name: &'a Name,
        at: Timestamp,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            let mut call = scripts::REVOKE.key(self.0.names.revoked(name));
            call.arg(at.as_millis()).arg(millis(ttl));
            self.script(&call).await
        })
    }

    fn revoked<'a>(&'a self, name: &'a Name) -> BoxFuture<'a, Result<Option<Timestamp>, Error>> {
        Box::pin(async move { self.revoked_at(name).await })
    }

    fn news(&self, app: &AppId) -> Option<Feed> {
        self.hear(app)
    }

    fn ping<'a>(&'a self, app: &'a AppId, kind: Kind) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(self.check_writing(app, kind))
    }
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore")
            .field("address", &self.0.address)
            .field("layout", &self.0.layout)
            .field("mirror", &self.0.mirror)
            .field("names", &self.0.names)
            .finish_non_exhaustive()
    }
}
