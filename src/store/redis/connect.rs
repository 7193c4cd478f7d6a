//! Setting a Redis store up, and what can be wrong at start-up.

use std::sync::Arc;
use std::time::Duration;

use redis::io::tcp::{TcpSettings, socket2::TcpKeepalive};
use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo, ProtocolVersion, RedisError};

use super::connection::Connection;
use super::guard::{Guard, describe, server_error};
use super::news::Channels;
use super::seal::Seal;
use super::{Inner, Layout, RedisNames, RedisStore, marks, scripts};
use crate::clock::Clock;
use crate::error::{Error, ErrorKind};
use crate::observe;

/// How long a command may take.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(1);

/// How long the start-up waits for the first connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// A connection that Redis no longer acknowledges is given up after this long, so that a host
/// that vanished without a word does not hold the store for the kernel's quarter of an hour.
const DEAD_PEER_TIMEOUT: Duration = Duration::from_secs(3);

/// Settings of a [`RedisStore`], made by [`RedisStore::builder`].
///
/// ```no_run
/// use tower_wechat::{Layout, RedisStore};
///
/// # async fn run() -> Result<(), tower_wechat::Error> {
/// let store = RedisStore::builder("redis://127.0.0.1/").layout(Layout::Keys).connect().await?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until it connects"]
pub struct RedisStoreBuilder {
    url: zeroize::Zeroizing<String>,
    layout: Layout,
    mirror: Option<Layout>,
    names: RedisNames,
    seal: Seal,
    timeout: Duration,
    clock: Clock,
    sole_writer: bool,
}

impl RedisStoreBuilder {
    pub(super) fn new(url: &str) -> Self {
        Self {
            url: url.to_owned().into(),
            layout: Layout::default(),
            mirror: None,
            names: RedisNames::default(),
            seal: Seal::default(),
            timeout: COMMAND_TIMEOUT,
            clock: Clock::system(),
            sole_writer: false,
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
    /// 1. `.layout(Hashes).mirror(Keys)`: the hashes are read, both are written.
    /// 2. `tower-wechat migrate --to keys` (feature `cli`) copies what nobody has written since.
    ///    Run it until it says that nothing was written.
    /// 3. `.layout(Keys).mirror(Hashes)`: the keys are read, both are written.
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
    /// let store = builder.layout(Layout::Hashes).mirror(Layout::Keys).connect().await?;
    /// # Ok(()) }
    /// ```
    pub fn mirror(mut self, layout: Layout) -> Self {
        self.mirror = Some(layout);
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
    pub fn sealing(mut self, keys: crate::credential::SealingKeys) -> Self {
        self.seal = Seal::with(keys);
        self
    }

    /// How long a command may take before the store counts as away. Default: 1 second.
    pub fn command_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
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
    ///     .sole_writer(true)
    ///     .connect()
    ///     .await?;
    /// # Ok(()) }
    /// ```
    pub fn sole_writer(mut self, sole: bool) -> Self {
        self.sole_writer = sole;
        self
    }

    /// Connects, and asks Redis for a sign of life.
    ///
    /// # Errors
    /// As [`RedisStore::connect`].
    pub async fn connect(self) -> Result<RedisStore, Error> {
        let info = self.connection_info()?;
        let address = shown(info.addr());
        let connecting = async {
            match Connection::open(info.clone(), ProtocolVersion::RESP3, self.timeout).await {
                Err(error) if error.kind() == redis::ErrorKind::RESP3NotSupported => {
                    tracing::info!(target: "tower_wechat::store", address, "Redis is older than 6; RESP2 is spoken with it");
                    Connection::open(info, ProtocolVersion::RESP2, self.timeout).await
                }
                other => other,
            }
        };
        let mut connection = match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => return Err(start_up_error(&address, &error)),
            Err(_) => {
                let message = format!(
                    "Redis at {address} did not answer within {CONNECT_TIMEOUT:?}; \
                     check the address, and that rediss:// is used where Redis speaks TLS"
                );
                return Err(Error::new(ErrorKind::StoreUnavailable, message));
            }
        };
        self.try_a_script(&mut connection, &address).await;
        let checking = marks::check(&mut connection, &self.names, &self.seal, &address);
        match tokio::time::timeout(self.timeout, checking).await {
            Ok(outcome) => outcome?,
            Err(_) => tracing::warn!(
                target: "tower_wechat::store",
                address,
                "the marks of sealing keys could not be read in time"
            ),
        }
        observe::store_up(&address, true);
        Ok(RedisStore(Arc::new(Inner {
            connection,
            layout: self.layout,
            mirror: self.mirror,
            names: self.names,
            seal: self.seal,
            timeout: self.timeout,
            guard: Guard::new(),
            clock: self.clock,
            sole_writer: self.sole_writer,
            channels: Channels::default(),
            address,
        })))
    }

    /// Who may not run scripts can read tokens, which is enough to follow another system's, and
    /// renew none: that is told now, and not by the first user whose token expires.
    async fn try_a_script(&self, connection: &mut Connection, address: &str) {
        let mut probe = scripts::RELEASE.key(format!("{}lease:probe", self.names.prefix));
        let probe = probe.arg("nobody").invoke::<i64>(connection);
        if let Ok(Err(error)) = tokio::time::timeout(self.timeout, probe).await {
            let said = describe(&error);
            tracing::error!(
                target: "tower_wechat::store",
                address,
                "Redis does not let us run scripts ({said}), so no token can be renewed; \
                 let this user run +eval +evalsha"
            );
        }
    }

    fn connection_info(&self) -> Result<ConnectionInfo, Error> {
        let scheme = self.url.split("://").next().unwrap_or_default();
        if matches!(scheme, "redis+sentinel" | "redis+cluster") {
            return Err(misconfigured(format!(
                "this version does not support {scheme}:// yet; use redis:// or rediss://"
            )));
        }
        // The library's own message is not shown: it could quote the URL, password and all.
        let info = self.url.as_str().into_connection_info().map_err(|_| {
            misconfigured(
                "the Redis URL cannot be read; it looks like \
                 redis://user:password@host:6379/0 (rediss:// for TLS), special characters of \
                 the password percent-encoded"
                    .into(),
            )
        })?;
        if matches!(info.addr(), ConnectionAddr::TcpTls { .. }) {
            // rustls needs a provider of cryptography; what the application installed stays.
            if rustls::crypto::CryptoProvider::get_default().is_none() {
                let _ = rustls::crypto::ring::default_provider().install_default();
            }
        }
        let keepalive = TcpKeepalive::new()
            .with_time(Duration::from_secs(10))
            .with_interval(Duration::from_secs(2));
        let tcp = TcpSettings::default()
            .set_nodelay(true)
            .set_keepalive(keepalive);
        #[cfg(target_os = "linux")]
        let tcp = tcp.set_user_timeout(DEAD_PEER_TIMEOUT);
        Ok(info.set_tcp_settings(tcp))
    }
}

/// An address as it may be shown: no user, no password.
fn shown(address: &ConnectionAddr) -> String {
    address.to_string()
}

fn misconfigured(message: String) -> Error {
    Error::new(ErrorKind::Configuration, message)
}

fn start_up_error(address: &str, error: &RedisError) -> Error {
    let said = describe(error);
    let code = server_error(error).map_or(String::new(), |said| said.code().to_owned());
    if error.kind() == redis::ErrorKind::AuthenticationFailed
        || matches!(code.as_str(), "WRONGPASS" | "NOAUTH")
    {
        return misconfigured(format!(
            "Redis at {address} refuses the user or password of the URL \
             (redis://user:password@host/): {said}"
        ));
    }
    if error.is_io_error() || error.is_timeout() {
        let message = format!(
            "Redis at {address} cannot be reached ({said}); is it running, and is the URL right?"
        );
        return Error::new(ErrorKind::StoreUnavailable, message);
    }
    misconfigured(format!("Redis at {address} does not accept us: {said}"))
}
