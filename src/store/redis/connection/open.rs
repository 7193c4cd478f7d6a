//! Connects a store to Redis: opens the connection for the topology, sends a first command, and
//! checks the mode of a single server.

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

/// The settings with which the connection of a store is opened.
pub(in crate::store::redis) struct ConnectOptions<'a> {
    pub(in crate::store::redis) url: &'a RedisUrl,
    pub(in crate::store::redis) certificates: &'a Certificates,
    /// The user and password for the Sentinels, or `None` if the Sentinels require no password.
    pub(in crate::store::redis) sentinel_credentials:
        Option<&'a (String, zeroize::Zeroizing<String>)>,
    /// Maximum time to connect to a server, and to wait for the reply to a command.
    pub(in crate::store::redis) command_timeout: Duration,
    /// A key of the store. On a Cluster, the first command reads this key to check that Redis
    /// replies.
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

    /// Opens the connection, and checks that Redis replies. If Redis is unreachable, the error
    /// names the host names that do not resolve.
    pub(in crate::store::redis) async fn connect(&self) -> Result<Connection, Error> {
        match self.open().await {
            Err(error) if error.kind() == ErrorKind::StoreUnavailable => {
                Err(with_unresolved(error, self.url.hosts()).await)
            }
            outcome => outcome,
        }
    }

    async fn open(&self) -> Result<Connection, Error> {
        let url = self.url;
        let connector = self.connector()?;
        let servers = url.display_servers();
        let to_error = |error: RedisError| connect_error(&servers, &error);
        let backend = match &url.topology {
            Topology::Single(at) => {
                let single = SingleConnection::connect(at.clone(), connector).await;
                Backend::Single(single.map_err(to_error)?)
            }
            Topology::Sentinel { group, sentinels } => {
                let mut sentinel_connector = Connector {
                    connection_info: redis::RedisConnectionInfo::default(),
                    ..connector.clone()
                }
                .with_protocol(connector.connection_info.protocol());
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
                    Sentinels::new(group.clone(), sentinels, &sentinel_connector, url.tls);
                let primary = SentinelConnection::connect(sentinels, connector).await;
                Backend::Sentinel(primary.map_err(|error| match error {
                    ConnectError::Sentinels(error) => error,
                    ConnectError::Server(named, error) => named_primary_error(&named, &error),
                })?)
            }
            #[cfg(feature = "cluster")]
            Topology::Cluster(nodes) => {
                let connector = probe_cluster(&connector, nodes).await?;
                let nodes = ClusterNodes::connect(nodes.clone(), connector, url.tls).await;
                Backend::Cluster(nodes.map_err(to_error)?)
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
            backend,
            timeout: self.command_timeout,
            database: url.connection_info.db(),
        };
        match connection.ping(self.probe_key).await {
            // A server that rejects writes still serves reads, so the store starts. Health checks
            // report that writes fail.
            Err(error) if ErrorClass::classify(&error) == Some(ErrorClass::WritesRejected) => {}
            outcome => outcome.map_err(to_error)?,
        }
        if matches!(&connection.backend, Backend::Single(single) if single.supports_hello()) {
            check_mode(&mut connection, &servers).await?;
        }
        Ok(connection)
    }
}
