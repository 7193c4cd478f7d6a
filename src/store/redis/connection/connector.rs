//! Settings from which every connection to a server is made.

use std::time::Duration;

use redis::io::tcp::{TcpSettings, socket2::TcpKeepalive};
use redis::{
    Client, ConnectionAddr, IntoConnectionInfo, ProtocolVersion, RedisConnectionInfo, RedisResult,
    TlsCertificates,
};

/// Maximum time for which sent bytes may stay unacknowledged before the kernel closes the
/// connection.
///
/// Without this limit, Linux keeps a connection for about a quarter of an hour after the host of
/// the server has lost its power.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(3);

/// Time without any reply after which a connection is replaced.
///
/// Behind a balancer or proxy that has lost its own connection to Redis, the TCP connection stays
/// open although no replies arrive. The client library replaces only connections that break.
pub(in crate::store::redis) const UNANSWERED_LIMIT: Duration = Duration::from_secs(3);

/// The settings that all connections to the servers of one topology share.
#[derive(Clone)]
pub(in crate::store::redis) struct Connector {
    /// The user, the password, the database, and the version of the Redis protocol.
    pub(in crate::store::redis) connection_info: RedisConnectionInfo,
    pub(in crate::store::redis) certificates: Option<TlsCertificates>,
    /// Maximum time to connect to a server, and to wait for the reply to a command.
    pub(in crate::store::redis) timeout: Duration,
}

impl Connector {
    /// Sets the version of the Redis protocol.
    pub(in crate::store::redis) fn with_protocol(mut self, protocol: ProtocolVersion) -> Self {
        self.connection_info = with_protocol(self.connection_info, protocol);
        self
    }

    /// Returns a client for one address. The client connects later, when a caller opens a
    /// connection.
    pub(in crate::store::redis) fn client_for(
        &self,
        address: &ConnectionAddr,
    ) -> RedisResult<Client> {
        let info = address
            .clone()
            .into_connection_info()?
            .set_redis_settings(self.connection_info.clone())
            .set_tcp_settings(tcp_settings());
        match &self.certificates {
            Some(certificates) => Client::build_with_tls(info, certificates.clone()),
            None => Client::open(info),
        }
    }
}

/// Returns the TCP settings: no delay of small packets, keep-alive probes after 10 idle seconds,
/// and [`TCP_USER_TIMEOUT`] on Linux.
pub(in crate::store::redis) fn tcp_settings() -> TcpSettings {
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(10))
        .with_interval(Duration::from_secs(2));
    let tcp = TcpSettings::default()
        .set_nodelay(true)
        .set_keepalive(keepalive);
    #[cfg(target_os = "linux")]
    let tcp = tcp.set_user_timeout(TCP_USER_TIMEOUT);
    tcp
}

/// Sets the version of the Redis protocol in these settings. With RESP2, also leaves out `CLIENT
/// SETINFO`.
pub(in crate::store::redis) fn with_protocol(
    settings: RedisConnectionInfo,
    protocol: ProtocolVersion,
) -> RedisConnectionInfo {
    match protocol {
        // Servers and proxies that support only RESP2 may close the connection at CLIENT SETINFO.
        ProtocolVersion::RESP2 => settings.set_protocol(protocol).set_skip_set_lib_name(),
        _ => settings.set_protocol(protocol),
    }
}
