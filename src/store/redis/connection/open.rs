//! Opens the connection of a store: by topology, then a first command, then a check of the mode.

use std::time::Duration;

use redis::RedisError;

use crate::error::{Error, ErrorKind};
use crate::store::redis::connection::certificates::Certificates;
#[cfg(feature = "cluster")]
use crate::store::redis::connection::cluster::ClusterNodes;
#[cfg(feature = "cluster")]
use crate::store::redis::connection::cluster_seeds::probe_cluster;
use crate::store::redis::connection::connector::Connector;
use crate::store::redis::connection::errors::ErrorClass;
use crate::store::redis::connection::sentinel::{ConnectError, SentinelConnection};
use crate::store::redis::connection::sentinel_discovery::Sentinels;
use crate::store::redis::connection::shared::{Backend, Connection};
use crate::store::redis::connection::single::SingleConnection;
use crate::store::redis::connection::start_up::{
    check_mode, connect_error, named_primary_error, with_unresolved,
};
use crate::store::redis::connection::url::{RedisUrl, Topology};

/// What a connection is made from.
pub(in crate::store::redis) struct ConnectOptions<'a> {
    pub(in crate::store::redis) url: &'a RedisUrl,
    pub(in crate::store::redis) certificates: &'a Certificates,
    /// User and password at the Sentinels.
    pub(in crate::store::redis) sentinel_credentials:
        Option<&'a (String, zeroize::Zeroizing<String>)>,
    /// How long an answer is waited for.
    pub(in crate::store::redis) command_timeout: Duration,
    /// A key of ours, to see whether reading is allowed.
    pub(in crate::store::redis) probe_key: &'a str,
}

impl ConnectOptions<'_> {
    fn connector(&self) -> Result<Connector, Error> {
        Ok(Connector {
            connection_info: self.url.connection_info.clone(),
            certificates: self.certificates.to_tls_certificates(self.url.tls)?,
            timeout: self.command_timeout,
        })
    }

    /// Connects, and asks for a sign of life.
    pub(in crate::store::redis) async fn connect(&self) -> Result<Connection, Error> {
        match self.open().await {
            Err(error) if error.kind() == ErrorKind::StoreUnavailable => {
                Err(with_unresolved(error, self.url.hosts()).await)
            }
            outcome => outcome,
        }
    }

    async fn open(&self) -> Result<Connection, Error> {
        let address = self.url;
        let dialer = self.connector()?;
        let shown = address.display_servers();
        let refused = |error: RedisError| connect_error(&shown, &error);
        let link = match &address.topology {
            Topology::Single(at) => {
                let single = SingleConnection::connect(at.clone(), dialer).await;
                Backend::Single(single.map_err(refused)?)
            }
            Topology::Sentinel { group, sentinels } => {
                let mut sentinel_connector = Connector {
                    connection_info: redis::RedisConnectionInfo::default(),
                    ..dialer.clone()
                }
                .with_protocol(dialer.connection_info.protocol());
                if let Some((user, password)) = self.sentinel_credentials {
                    let settings = sentinel_connector
                        .connection_info
                        .set_password(password.as_str());
                    sentinel_connector.connection_info = if user.is_empty() {
                        settings
                    } else {
                        settings.set_username(user)
                    };
                }
                let sentinels =
                    Sentinels::new(group.clone(), sentinels, &sentinel_connector, address.tls);
                let primary = SentinelConnection::connect(sentinels, dialer).await;
                Backend::Sentinel(primary.map_err(|error| match error {
                    ConnectError::Sentinels(error) => error,
                    ConnectError::Server(named, error) => named_primary_error(&named, &error),
                })?)
            }
            #[cfg(feature = "cluster")]
            Topology::Cluster(nodes) => {
                let dialer = probe_cluster(&dialer, nodes).await?;
                let nodes = ClusterNodes::connect(nodes.clone(), dialer, address.tls).await;
                Backend::Cluster(nodes.map_err(refused)?)
            }
            #[cfg(not(feature = "cluster"))]
            Topology::Cluster(_) => {
                return Err(Error::configuration(
                    "redis+cluster:// needs the feature `cluster` of tower-wechat, and this \
                     program was built without it",
                ));
            }
        };
        let mut connection = Connection {
            backend: link,
            timeout: self.command_timeout,
            database: address.connection_info.db(),
        };
        match connection.ping(self.probe_key).await {
            // It serves reads, and health says that nobody can log in.
            Err(error) if ErrorClass::classify(&error) == Some(ErrorClass::WritesRejected) => {}
            alive => alive.map_err(refused)?,
        }
        if matches!(&connection.backend, Backend::Single(single) if single.supports_hello()) {
            check_mode(&mut connection, &shown).await?;
        }
        Ok(connection)
    }
}
