//! The builder of a [`RedisStore`].

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use zeroize::Zeroizing;

use super::circuit_breaker::CircuitBreaker;
use super::connection::{ConnectOptions, Connection};
use super::health_cache::HealthCache;
use super::invalidation::Channels;
use super::publish_state::PublishState;
use super::read_batches::ReadBatches;
use super::scripts::{ScriptCall, Step};
use super::seal::Sealer;
use super::step_batches::StepBatches;
use super::store::{Inner, RedisStore};
use super::{Layout, RedisNames, key_registry};
use crate::clock::Clock;
use crate::error::Error;
use crate::metrics;
use crate::store::redis::connection::certificates::Certificates;
use crate::store::redis::connection::errors::{ErrorClass, describe_error};
use crate::store::redis::connection::url::{RedisUrl, Topology};

/// Default timeout of a command: one second.
const DEFAULT_COMMAND_TIMEOUT: Duration = Duration::from_secs(1);

/// Maximum timeout of a command: one hour. Multiples of a longer timeout could overflow.
const MAX_COMMAND_TIMEOUT: Duration = Duration::from_secs(3_600);

/// Timeout for all attempts to connect at start-up together: three seconds, so that a wrong address
/// is reported soon.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// A builder of a [`RedisStore`], created by [`RedisStore::builder`].
///
/// ```no_run
/// use std::time::Duration;
/// use tower_wechat::clock::Clock;
/// use tower_wechat::redis::{Layout, RedisNames};
/// use tower_wechat::RedisStore;
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
            .field("dual_write", &self.dual_write)
            .field("names", &self.names)
            .field("command_timeout", &self.command_timeout)
            .finish_non_exhaustive()
    }
}

impl RedisStore {
    /// Connects to Redis with the published layout and its default names.
    ///
    /// `rediss` instead of `redis` selects TLS. Special characters in user and password must be
    /// percent-encoded. The URL has one of these forms:
    ///
    /// - `redis://[user[:password]@]host[:port][/db]`: one server.
    /// - `redis+sentinel://[user[:password]@]host[:port],host[:port]/group[/db]`: the current
    ///   primary of a group. The hosts are Sentinels. User, password and database are for the
    ///   servers; [`sentinel_credentials`](RedisStoreBuilder::sentinel_credentials) sets those for
    ///   the Sentinels.
    /// - `redis+cluster://[user[:password]@]host[:port],host[:port]`: a Cluster. The hosts are some
    ///   of its nodes. Requires the feature `cluster`. [`Layout::Keys`] spreads users over all
    ///   nodes. [`Layout::Hashes`] requires a hash tag that both names share, and stores all users
    ///   on one node.
    ///
    /// # Errors
    /// - [`ErrorKind::Configuration`](crate::ErrorKind::Configuration) for an invalid URL, and for
    ///   a wrong password, certificate or topology.
    /// - [`ErrorKind::StoreUnavailable`](crate::ErrorKind::StoreUnavailable) if no server replies
    ///   within 3 seconds.
    pub async fn connect(url: &str) -> Result<Self, Error> {
        Self::builder(url).connect().await
    }

    /// Creates a builder with the published layout and its default names.
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

    /// Sets the layout of credentials in Redis. Default: [`Layout::Hashes`].
    pub fn layout(mut self, layout: Layout) -> Self {
        self.layout = layout;
        self
    }

    /// Sets a second layout, in which the store also writes each record, in the same atomic step.
    /// The store does not read from the second layout. A dual write allows a migration between
    /// layouts without downtime. Default: none.
    ///
    /// # Migration without lost logins
    ///
    /// This example migrates from [`Layout::Hashes`] to [`Layout::Keys`]. Complete each step on all
    /// processes before the next step:
    ///
    /// 1. `.layout(Hashes).dual_write(Keys)`: the hashes are read, both are written.
    /// 2. `tower-wechat migrate --to keys` (feature `cli`) copies the records that no process has
    ///    written since step 1. It also removes copies of records that processes of the old layout
    ///    have deleted. Repeat it until it reports no writes. [`guide::redis`](crate::guide::redis)
    ///    lists all cases.
    /// 3. `.layout(Keys).dual_write(Hashes)`: the keys are read, both are written.
    /// 4. `.layout(Keys)`: the hashes can be deleted.
    ///
    /// A migration in the other direction exchanges the names. Each step can be reverted to the
    /// previous one. Processes of two consecutive steps can run together for any time. A process
    /// with a dual write holds the leases of both layouts, so each token is renewed once. Such a
    /// process writes both copies in one atomic step, so neither copy is older than the other. Step
    /// 1 and the old layout read the same copy, and so do step 3 and the new layout.
    ///
    /// A Spring Boot service can only use the hashes. A dual write is not possible on a Redis
    /// Cluster, because the two layouts are in different slots.
    ///
    /// ```no_run
    /// use tower_wechat::redis::Layout;
    /// use tower_wechat::RedisStore;
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

    /// Sets the names of keys and hashes. Default: the names of the published service.
    pub fn names(mut self, names: RedisNames) -> Self {
        self.names = names;
        self
    }

    /// Encrypts stored values with the first of these keys. Default: values are plain text.
    ///
    /// ```no_run
    /// use tower_wechat::redis::SealingKeys;
    /// use tower_wechat::RedisStore;
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

    /// Sets the time after which a command without a reply fails, at most one hour. Default: 1
    /// second.
    pub fn command_timeout(mut self, timeout: Duration) -> Self {
        self.command_timeout = timeout.min(MAX_COMMAND_TIMEOUT);
        self
    }

    /// Sets the clock from which the store computes the TTLs of keys. Default: the system clock.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Declares that only this crate writes or deletes the credentials: no Java service, no script
    /// of an operator, no eviction by Redis. Default: `false`.
    ///
    /// Each process publishes its writes on the channel `wechat:{APPID}:news`, whose prefix is
    /// [`RedisNames::prefix`]. Other processes receive them within milliseconds. A message can be
    /// lost, and other programs publish nothing. A process therefore reads each cached token again
    /// after [`cache_ttl`](crate::user::UserTokensBuilder::cache_ttl), by default one minute.
    ///
    /// With `true`, a heartbeat replaces these reads. The process publishes a heartbeat every two
    /// seconds. A heartbeat that comes back shows that all earlier messages have arrived. Cached
    /// tokens are then served until they are due for renewal, without reads. If no heartbeat comes
    /// back, tokens are served for `cache_ttl` after the last one. All tokens are read again when
    /// messages arrive again. A lost message therefore makes no token staler than `cache_ttl`. **A
    /// token that an operator deletes or replaces by hand is served until it is due for renewal.**
    ///
    /// Only a single server supports `true`; [`connect`](Self::connect) rejects `true` with
    /// Sentinel and Cluster. There, a server that is cut off from the others would still return
    /// heartbeats.
    ///
    /// An ACL user needs `+subscribe +unsubscribe +publish` and a pattern for the channels, such as
    /// `&wechat:*`. Without these permissions, the store logs one line, and `cache_ttl` applies. Do
    /// not use `true` if any process lacks the permission to publish.
    ///
    /// ```no_run
    /// use tower_wechat::redis::Layout;
    /// use tower_wechat::RedisStore;
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

    /// Sets the certificate authorities that the store trusts, in PEM, for URLs with TLS
    /// (`rediss://`, `rediss+sentinel://`, `rediss+cluster://`). Default: the authorities that the
    /// system trusts.
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

    /// Sets the client certificate and its private key, in PEM. Default: none.
    pub fn client_certificate(
        mut self,
        certificate: impl Into<Vec<u8>>,
        key: impl Into<Vec<u8>>,
    ) -> Self {
        self.certificates.client = Some((certificate.into(), Zeroizing::new(key.into())));
        self
    }

    /// Sets the user and password for the Sentinels. An empty user selects the default user. The
    /// user and password in the URL are for the servers. Default: none.
    pub fn sentinel_credentials(
        mut self,
        user: impl Into<String>,
        password: impl Into<String>,
    ) -> Self {
        self.sentinel_credentials = Some((user.into(), Zeroizing::new(password.into())));
        self
    }

    /// Connects, and checks that the server replies. Also accepts a server that rejects writes;
    /// [`health`](crate::health()) reports the reason.
    ///
    /// # Errors
    /// Returns the errors of [`RedisStore::connect`].
    pub async fn connect(self) -> Result<RedisStore, Error> {
        let url = RedisUrl::parse(&self.url)?;
        let address = url.display_servers();
        if url.tls && rustls::crypto::CryptoProvider::get_default().is_none() {
            // rustls needs a provider of cryptography. This crate installs a provider only if the
            // application has not installed one.
            let _ = rustls::crypto::ring::default_provider().install_default();
        }
        if self.exclusive_writer && !matches!(url.topology, Topology::Single(_)) {
            return Err(Error::configuration(
                "exclusive_writer is for one Redis server (redis://): with Sentinel and Cluster, a \
                 server that is cut off from the others still confirms that no message was lost; \
                 remove exclusive_writer, and cache_ttl bounds how stale a token may be",
            ));
        }
        if matches!(url.topology, Topology::Cluster(_)) {
            self.names
                .check_cluster_slots(self.layout, self.dual_write)?;
        }
        let key = self.names.health_key();
        let options = ConnectOptions {
            url: &url,
            certificates: &self.certificates,
            sentinel_credentials: self.sentinel_credentials.as_ref(),
            command_timeout: self.command_timeout,
            probe_key: &key,
        };
        let mut connection = match tokio::time::timeout(CONNECT_TIMEOUT, options.connect()).await {
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
                "the registry of sealing keys was not read in time; sealing keys were not compared"
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
            read_batches: ReadBatches::default(),
            step_batches: StepBatches::default(),
            address,
        })))
    }

    /// Logs an error at start-up if the server rejects scripts, because renewals need scripts. The
    /// start-up continues, because reads are enough for the token of another system.
    async fn check_scripts_allowed(&self, connection: &mut Connection, address: &str) {
        let mut probe = ScriptCall::for_step(Step::ReleaseLeases);
        probe.lease_key(self.names.script_test_key());
        let probe = probe.arg("nobody").invoke::<i64>(connection);
        let Ok(Err(error)) = tokio::time::timeout(self.command_timeout, probe).await else {
            return;
        };
        let reason = describe_error(&error);
        match ErrorClass::classify(&error) {
            // These errors end without an operator, or the next command reports them.
            None | Some(ErrorClass::WrongNode | ErrorClass::WrongType) => {}
            Some(class) if class.is_transient() => {}
            Some(ErrorClass::NotPermitted) => tracing::error!(
                target: "tower_wechat::store",
                address,
                "Redis did not permit a script ({reason}), so no token can be renewed; give this \
                 user +eval +evalsha, unless this process only uses the token of another system"
            ),
            Some(_) => tracing::error!(
                target: "tower_wechat::store",
                address,
                "Redis did not run a script ({reason}), so no token can be renewed; guide::redis \
                 lists what a server or proxy with rules for scripts needs"
            ),
        }
    }
}
