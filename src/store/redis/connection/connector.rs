//! Settings from which every connection to a server is made.

use std::time::Duration;

use redis::io::tcp::{TcpSettings, socket2::TcpKeepalive};
use redis::{
    Client, ConnectionAddr, IntoConnectionInfo, ProtocolVersion, RedisConnectionInfo, RedisResult,
    TlsCertificates,
};

/// A connection that Redis no longer acknowledges is given up after this long, so that a host
/// that vanished without a word does not hold the store for the kernel's quarter of an hour.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(3);

/// Time without any reply after which a connection is replaced.
///
/// Behind a balancer or proxy that has lost its own connection to Redis, the TCP connection stays
/// open although no replies arrive. The client library replaces only connections that break.
pub(in crate::store::redis) const UNANSWERED_LIMIT: Duration = Duration::from_secs(3);

/// How every server of one topology is spoken with.
#[derive(Clone)]
pub(in crate::store::redis) struct Connector {
    pub(in crate::store::redis) connection_info: RedisConnectionInfo,
    pub(in crate::store::redis) certificates: Option<TlsCertificates>,
    /// How long to wait for a connection, and for an answer.
    pub(in crate::store::redis) timeout: Duration,
}

impl Connector {
    pub(in crate::store::redis) fn with_protocol(mut self, protocol: ProtocolVersion) -> Self {
        self.connection_info = with_protocol(self.connection_info, protocol);
        self
    }

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

pub(in crate::store::redis) fn with_protocol(
    settings: RedisConnectionInfo,
    protocol: ProtocolVersion,
) -> RedisConnectionInfo {
    match protocol {
        // Servers and proxies that know nothing newer may hang up at CLIENT SETINFO.
        ProtocolVersion::RESP2 => settings.set_protocol(protocol).set_skip_set_lib_name(),
        _ => settings.set_protocol(protocol),
    }
}
