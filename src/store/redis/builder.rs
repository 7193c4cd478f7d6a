//! Setting a Redis store up, and what can be wrong at start-up.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use zeroize::Zeroizing;

use super::circuit_breaker::CircuitBreaker;
use super::connection::{ConnectOptions, Connection};
use super::health::HealthCache;
use super::invalidation::Channels;
use super::publish::PublishState;
use super::scripts::{ScriptCall, Step};
use super::seal::Sealer;
use super::store::{Inner, RedisStore};
use super::{Layout, RedisNames, key_registry};
use crate::clock::Clock;
use crate::error::Error;
use crate::metrics;
use crate::store::redis::connection::certificates::Certificates;
use crate::store::redis::connection::errors::{ErrorClass, describe_error};
use crate::store::redis::connection::url::{RedisUrl, Topology};

/// How long a command may take.
const DEFAULT_COMMAND_TIMEOUT: Duration = Duration::from_secs(1);

/// A longer time for a command is no bound at all.
const MAX_COMMAND_TIMEOUT: Duration = Duration::from_secs(3_600);

/// How long the start-up waits for the first connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Settings of a [`RedisStore`], made by [`RedisStore::builder`].
///
/// ```no_run
/// use std::time::Duration;
/// use tower_wechat::{Clock, Layout, RedisNames, RedisStore};
///
/// # async fn run() -> Result<(), tower_wechat::Error> {
/// let url = "redis+sentinel://app:password@sentinel1:26379,sentinel2:26379/primary";
/// let store = RedisStore::builder(url)
///     .sentinel_credentials("watcher", "another password")
///     .layout(Layout::Keys)
///     .names(RedisNames::default())
///     .command_timeout(Duration::from_millis(500))
///     .clock(Clock::system())
///     .connect()
///     .await?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
#[must_use = "a builder does nothing until it connects"]
pub struct RedisStoreBuilder {
    url: Zeroizing<String>,
    layout: Layout,
    dual_write: Option<Layout>,
    names: RedisNames,
    sealer: Sealer,
    command_timeout: Duration,
    clock: Clock,
    exclusive_writer: bool,
    certificates: Certificates,
    sentinel_credentials: Option<(String, Zeroizing<String>)>,
}

impl fmt::Debug for RedisStoreBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStoreBuilder")
            .field("layout", &self.layout)
            .field("mirror", &self.dual_write)
            .field("names", &self.names)
            .field("timeout", &self.command_timeout)
            .finish_non_exhaustive()
    }
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
}

impl RedisStoreBuilder {
    pub(super) fn new(url: &str) -> Self {
        Self {
            url: url.to_owned().into(),
            layout: Layout::default(),
            dual_write: None,
            names: RedisNames::default(),
            sealer: Sealer::default(),
            command_timeout: DEFAULT_COMMAND_TIMEOUT,
            clock: Clock::system(),
            exclusive_writer: false,
            certificates: Certificates::default(),
            sentinel_credentials: None,
        }
    }

    /// How user tokens lie in Redis. Default: [`Layout::Hashes`].
    pub fn layout(mut self, layout: Layout) -> Self {
        self.layout = layout;
        self
    }

    /// The layout in which each record is written too, in the same atomic step, but from which
    /// nothing is read: for the time in which services move from one layout to the other, one
    /// after another, and no user may notice. Default: none.
    ///
    /// # Moving without losing a login
    ///
    /// From [`Layout::Hashes`] to [`Layout::Keys`], each step on all processes, one after another,
    /// before the next one begins:
    ///
    /// 1. `.layout(Hashes).dual_write(Keys)`: the hashes are read, both are written.
    /// 2. `tower-wechat migrate --to keys` (feature `cli`) copies what nobody has written since, and
    ///    removes copies of what processes of the plain old layout have deleted since. Run it until
    ///    it says that nothing was written. [`guide::redis`](crate::guide::redis) has a table of what
    ///    it does in each case.
    /// 3. `.layout(Keys).dual_write(Hashes)`: the keys are read, both are written.
    /// 4. `.layout(Keys)`. The hashes may go.
    ///
    /// The way back is the same with the names exchanged, and from each step one may return to the
    /// one before it. Processes of neighbouring steps may run side by side for as long as it takes:
    /// they hold the leases of both layouts, so a token is still renewed once, and both copies are
    /// written together, so neither grows old. Processes of step 1 and of the plain old layout
    /// agree because both read the old one; step 3 and the plain new layout, likewise.
    ///
    /// A Spring Boot service beside them keeps to the hashes; it cannot come along to the keys.
    /// On a Redis Cluster the two layouts lie in different slots, and a mirror cannot be had.
    ///
    /// ```no_run
    /// use tower_wechat::{Layout, RedisStore};
    ///
    /// # async fn run() -> Result<(), tower_wechat::Error> {
    /// let builder = RedisStore::builder("redis://127.0.0.1/");
    /// let store = builder.layout(Layout::Hashes).dual_write(Layout::Keys).connect().await?;
    /// # Ok(()) }
    /// ```
    pub fn dual_write(mut self, layout: Layout) -> Self {
        self.dual_write = Some(layout);
        self
    }

    /// The names under which credentials lie. Default: the published ones.
    pub fn names(mut self, names: RedisNames) -> Self {
        self.names = names;
        self
    }

    /// Seals what is stored, with the first of these keys. Default: values are plain.
    ///
    /// ```no_run
    /// use tower_wechat::{RedisStore, SealingKeys};
    ///
    /// # async fn run(sealing_key: &str) -> Result<(), tower_wechat::Error> {
    /// let keys = SealingKeys::from_base64(sealing_key)?;
    /// let store = RedisStore::builder("redis://127.0.0.1/").sealing(keys).connect().await?;
    /// # Ok(()) }
    /// ```
    #[cfg(feature = "sealing")]
    #[cfg_attr(docsrs, doc(cfg(feature = "sealing")))]
    pub fn sealing(mut self, keys: super::SealingKeys) -> Self {
        self.sealer = Sealer::with_keys(keys);
        self
    }

    /// How long a command may take before the store counts as away, an hour at most. Default: 1
    /// second.
    pub fn command_timeout(mut self, timeout: Duration) -> Self {
        self.command_timeout = timeout.min(MAX_COMMAND_TIMEOUT);
        self
    }

    /// The clock by which keys of the key layout expire. Default: the system's.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Declares that nothing but this crate writes or deletes these credentials: no Java service,
    /// no script of the operator's, no eviction by Redis. Default: `false`, in both layouts.
    ///
    /// This crate publishes what it writes on the channel `wechat:{APPID}:news` (after
    /// [`RedisNames::prefix`]), and other processes see it within milliseconds. But a message can
    /// get lost, and others publish nothing, so a process also reads again whatever it has not
    /// read for [`cache_ttl`](crate::UserTokensBuilder::cache_ttl), a minute by default.
    ///
    /// Where nobody else writes, a proof that no message was lost does as well: this process
    /// publishes one every two seconds and hears it come back behind all earlier messages. While
    /// it does, tokens are served from memory until they are due for renewal, and Redis is asked
    /// nothing but that. When it does not, as while Redis is away, they are believed for
    /// `cache_ttl` after the last proof, and all are read again once messages flow again. Lost
    /// messages thus make no process staler than `cache_ttl` in either case; **a token that
    /// somebody deletes or replaces by hand, though, is served until its renewal point.**
    ///
    /// This is for one server: [`connect`](Self::connect) refuses it behind Sentinels and on a
    /// Cluster, where a server that is cut off from the others would go on proving that nothing was
    /// lost.
    ///
    /// An ACL user needs `+subscribe +publish` and the channel, such as `&wechat:*`. Without them,
    /// one line in the log says so, and `cache_ttl` is all there is; processes that may listen must
    /// not declare this where others may not publish.
    ///
    /// ```no_run
    /// use tower_wechat::{Layout, RedisStore};
    ///
    /// # async fn run() -> Result<(), tower_wechat::Error> {
    /// let store = RedisStore::builder("redis://127.0.0.1/")
    ///     .layout(Layout::Keys)
    ///     .exclusive_writer(true)
    ///     .connect()
    ///     .await?;
    /// # Ok(()) }
    /// ```
    pub fn exclusive_writer(mut self, exclusive: bool) -> Self {
        self.exclusive_writer = exclusive;
        self
    }

    /// The authority that has signed the servers' certificates, one or several in PEM, instead of
    /// those that the system trusts. For URLs with TLS: `rediss://`, `rediss+sentinel://`,
    /// `rediss+cluster://`.
    ///
    /// ```no_run
    /// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
    /// let store = tower_wechat::RedisStore::builder("rediss://redis.example.com:6380/")
    ///     .certificate_authority(std::fs::read("authority.pem")?)
    ///     .client_certificate(std::fs::read("client.pem")?, std::fs::read("client.key")?)
    ///     .connect()
    ///     .await?;
    /// # Ok(()) }
    /// ```
    pub fn certificate_authority(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.certificates.authority = Some(pem.into());
        self
    }

    /// The certificate by which Redis knows this program, and its private key, in PEM.
    pub fn client_certificate(
        mut self,
        certificate: impl Into<Vec<u8>>,
        key: impl Into<Vec<u8>>,
    ) -> Self {
        self.certificates.client = Some((certificate.into(), Zeroizing::new(key.into())));
        self
    }

    /// The user (empty for the default one) and password at the Sentinels, which have users of
    /// their own: those of the URL are for the servers that they name. Default: none.
    pub fn sentinel_credentials(
        mut self,
        user: impl Into<String>,
        password: impl Into<String>,
    ) -> Self {
        self.sentinel_credentials = Some((user.into(), Zeroizing::new(password.into())));
        self
    }

    /// Connects, and asks Redis for a sign of life. A server that serves reads and refuses writes is
    /// taken: [`health`](crate::health()) says what it lacks.
    ///
    /// # Errors
    /// As [`RedisStore::connect`].
    pub async fn connect(self) -> Result<RedisStore, Error> {
        let url = RedisUrl::parse(&self.url)?;
        let address = url.display_servers();
        if url.tls && rustls::crypto::CryptoProvider::get_default().is_none() {
            // rustls needs a provider of cryptography; what the application installed stays.
            let _ = rustls::crypto::ring::default_provider().install_default();
        }
        if self.exclusive_writer && !matches!(url.topology, Topology::Single(_)) {
            return Err(Error::configuration(
                "sole_writer is for one Redis server (redis://): behind Sentinels and on a Cluster \
                 a server that is cut off from the others confirms that no message was lost; \
                 leave it out, and cache_ttl bounds how stale a token may be",
            ));
        }
        if matches!(url.topology, Topology::Cluster(_)) {
            self.names
                .check_cluster_slots(self.layout, self.dual_write)?;
        }
        let key = format!("{}ping", self.names.prefix);
        let target = ConnectOptions {
            url: &url,
            certificates: &self.certificates,
            sentinel_credentials: self.sentinel_credentials.as_ref(),
            command_timeout: self.command_timeout,
            probe_key: &key,
        };
        let mut connection = match tokio::time::timeout(CONNECT_TIMEOUT, target.connect()).await {
            Ok(connection) => connection?,
            Err(_) => {
                let check = if url.tls {
                    "that it speaks TLS: a URL without the s of rediss:// is for a plain port"
                } else {
                    "that rediss:// is used where Redis speaks TLS"
                };
                return Err(Error::store_unavailable(format!(
                    "Redis at {address} did not answer within {CONNECT_TIMEOUT:?}; \
                     check the address, and {check}"
                )));
            }
        };
        self.check_scripts_allowed(&mut connection, &address).await;
        let checking =
            key_registry::check_registry(&mut connection, &self.names, &self.sealer, &address);
        match tokio::time::timeout(self.command_timeout, checking).await {
            Ok(outcome) => outcome?,
            Err(_) => tracing::warn!(
                target: "tower_wechat::store",
                address,
                "the marks of sealing keys could not be read in time"
            ),
        }
        metrics::set_store_up(&address, true);
        Ok(RedisStore(Arc::new(Inner {
            layout: self.layout,
            dual_write: self.dual_write,
            names: self.names,
            sealer: self.sealer,
            command_timeout: self.command_timeout,
            circuit_breaker: CircuitBreaker::new(connection.circuit_count()),
            connection,
            clock: self.clock,
            exclusive_writer: self.exclusive_writer,
            channels: Channels::default(),
            publish_state: PublishState::default(),
            health_cache: HealthCache::default(),
            address,
        })))
    }

    /// Who may not run scripts can read tokens, which is enough to follow another system's, and
    /// renew none: that is told now, and not by the first user whose token expires.
    async fn check_scripts_allowed(&self, connection: &mut Connection, address: &str) {
        let mut probe = ScriptCall::for_step(Step::ReleaseLeases);
        probe.lease_key(format!("{}lease:probe", self.names.prefix));
        let probe = probe.arg("nobody").invoke::<i64>(connection);
        let Ok(Err(error)) = tokio::time::timeout(self.command_timeout, probe).await else {
            return;
        };
        let said = describe_error(&error);
        match ErrorClass::classify(&error) {
            // It will run them in a moment, or the next command tells what is wrong.
            None | Some(ErrorClass::WrongNode | ErrorClass::WrongType) => {}
            Some(refusal) if refusal.is_transient() => {}
            Some(ErrorClass::NotPermitted) => tracing::error!(
                target: "tower_wechat::store",
                address,
                "Redis does not let us run scripts ({said}), so no token can be renewed; \
                 let this user run +eval +evalsha, unless this process only follows another \
                 system's token"
            ),
            Some(_) => tracing::error!(
                target: "tower_wechat::store",
                address,
                "Redis does not run our scripts ({said}), so no token can be renewed; \
                 guide::redis says what a server or proxy with rules for scripts needs"
            ),
        }
    }
}
