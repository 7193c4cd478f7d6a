//! Redis URLs of all topologies, and how the servers behind them are spoken with.

use std::fmt;
use std::time::Duration;

use redis::io::tcp::{TcpSettings, socket2::TcpKeepalive};
use redis::{
    Client, ClientTlsConfig, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, ProtocolVersion,
    RedisConnectionInfo, RedisResult, TlsCertificates,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroizing;

use super::start_up::misconfigured;
use crate::error::Error;

/// A connection that Redis no longer acknowledges is given up after this long, so that a host
/// that vanished without a word does not hold the store for the kernel's quarter of an hour.
const DEAD_PEER_TIMEOUT: Duration = Duration::from_secs(3);

/// Where Sentinels listen, unless a URL says otherwise.
const SENTINEL_PORT: u16 = 26_379;

/// What a URL names.
#[derive(Debug, Clone)]
pub(super) enum Topology {
    Single(ConnectionAddr),
    Sentinel {
        /// The name under which the Sentinels know the servers.
        group: String,
        sentinels: Vec<ConnectionAddr>,
    },
    Cluster(Vec<ConnectionAddr>),
}

/// A URL, read.
#[derive(Debug, Clone)]
pub(super) struct Address {
    pub(super) topology: Topology,
    /// User, password and database of the servers that hold data.
    pub(super) settings: RedisConnectionInfo,
    pub(super) tls: bool,
}

impl Address {
    pub(super) fn read(url: &str) -> Result<Self, Error> {
        let (scheme, rest) = url.split_once("://").unwrap_or_default();
        let (plain, tls) = match scheme.split_once('+') {
            Some(("redis", topology)) => (topology, false),
            Some(("rediss", topology)) => (topology, true),
            _ => return Self::single(url),
        };
        let (authority, path) = match rest.find(['/', '?', '#']) {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        let path = path.split(['?', '#']).next().unwrap_or_default();
        let mut parts = path.split('/').skip(1).filter(|part| !part.is_empty());
        let (first, second) = (parts.next(), parts.next());
        let (user, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
        match plain {
            "sentinel" => {
                let Some(group) = first else {
                    return Err(misconfigured(
                        "a redis+sentinel:// URL names the group of servers after the Sentinels: \
                         redis+sentinel://user:password@host:26379,host:26379/mymaster",
                    ));
                };
                let group = percent_encoding::percent_decode_str(group).decode_utf8_lossy();
                let (sentinels, settings) =
                    several(user, hosts, second.unwrap_or("0"), tls, SENTINEL_PORT)?;
                Ok(Self {
                    topology: Topology::Sentinel {
                        group: group.into_owned(),
                        sentinels,
                    },
                    settings,
                    tls,
                })
            }
            "cluster" => {
                if first.is_some_and(|database| database != "0") {
                    return Err(misconfigured(
                        "a Redis Cluster has no databases but 0; leave it out of the \
                         redis+cluster:// URL",
                    ));
                }
                let (nodes, settings) = several(user, hosts, "0", tls, 6_379)?;
                Ok(Self {
                    topology: Topology::Cluster(nodes),
                    settings,
                    tls,
                })
            }
            _ => Self::single(url),
        }
    }

    fn single(url: &str) -> Result<Self, Error> {
        let info = read_one(url)?;
        Ok(Self {
            topology: Topology::Single(info.addr().clone()),
            settings: info.redis_settings().clone(),
            tls: matches!(info.addr(), ConnectionAddr::TcpTls { .. }),
        })
    }

    /// The URL's servers as they may be shown: no user, no password.
    pub(super) fn shown(&self) -> String {
        match &self.topology {
            Topology::Single(address) => address.to_string(),
            Topology::Sentinel { group, sentinels } => {
                format!("{}, group {group}", list(sentinels))
            }
            Topology::Cluster(nodes) => list(nodes),
        }
    }
}

pub(super) fn list(addresses: &[ConnectionAddr]) -> String {
    let shown: Vec<_> = addresses.iter().map(ConnectionAddr::to_string).collect();
    shown.join(",")
}

/// The servers of a list, each read as if it stood in a URL alone.
fn several(
    user: &str,
    hosts: &str,
    database: &str,
    tls: bool,
    default_port: u16,
) -> Result<(Vec<ConnectionAddr>, RedisConnectionInfo), Error> {
    let scheme = if tls { "rediss" } else { "redis" };
    let (mut addresses, mut settings) = (Vec::new(), None);
    for host in hosts.split(',').map(str::trim) {
        let after_name = host.rsplit_once(']').map_or(host, |(_, rest)| rest);
        let port = match after_name.contains(':') {
            true => String::new(),
            false => format!(":{default_port}"),
        };
        let at = if user.is_empty() { "" } else { "@" };
        let url = Zeroizing::new(format!("{scheme}://{user}{at}{host}{port}/{database}"));
        let info = read_one(&url)?;
        addresses.push(info.addr().clone());
        settings = Some(info.redis_settings().clone());
    }
    match settings {
        Some(settings) => Ok((addresses, settings)),
        None => Err(unreadable()),
    }
}

fn read_one(url: &str) -> Result<ConnectionInfo, Error> {
    // The library's own message is not shown: it could quote the URL, password and all.
    url.into_connection_info().map_err(|_| unreadable())
}

fn unreadable() -> Error {
    misconfigured(
        "the Redis URL cannot be read; it looks like redis://user:password@host:6379/0 \
         (rediss:// for TLS), redis+sentinel://user:password@host:26379,host:26379/mymaster or \
         redis+cluster://user:password@host:6379,host:6379, special characters of the password \
         percent-encoded",
    )
}

/// The certificates of a connection with TLS, in PEM.
#[derive(Clone, Default)]
pub(super) struct Certificates {
    pub(super) authority: Option<Vec<u8>>,
    pub(super) client: Option<(Vec<u8>, Zeroizing<Vec<u8>>)>,
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates")
            .field("authority", &self.authority.is_some())
            .field("client", &self.client.is_some())
            .finish()
    }
}

impl Certificates {
    /// In the library's form; nothing where nothing is set.
    pub(super) fn read(&self, tls: bool) -> Result<Option<TlsCertificates>, Error> {
        if self.authority.is_none() && self.client.is_none() {
            return Ok(None);
        }
        if !tls {
            return Err(misconfigured(
                "certificates are set for Redis, but its URL is not one with TLS; use rediss://, \
                 rediss+sentinel:// or rediss+cluster://",
            ));
        }
        if let Some(authority) = &self.authority {
            holds_certificates(authority, "the certificate authority for Redis")?;
        }
        let client_tls = match &self.client {
            Some((certificate, key)) => {
                holds_certificates(certificate, "the client certificate for Redis")?;
                if PrivateKeyDer::from_pem_slice(key).is_err() {
                    return Err(misconfigured(
                        "the key of the client certificate for Redis is no private key in PEM form",
                    ));
                }
                Some(ClientTlsConfig {
                    client_cert: certificate.clone(),
                    client_key: key.to_vec(),
                })
            }
            None => None,
        };
        Ok(Some(TlsCertificates {
            client_tls,
            root_cert: self.authority.clone(),
        }))
    }
}

fn holds_certificates(pem: &[u8], what: &str) -> Result<(), Error> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match read {
        Ok(certificates) if !certificates.is_empty() => Ok(()),
        _ => Err(misconfigured(format!(
            "{what} is no certificate in PEM form"
        ))),
    }
}

/// How every server of one topology is spoken with.
#[derive(Clone)]
pub(super) struct Dialer {
    pub(super) settings: RedisConnectionInfo,
    pub(super) certificates: Option<TlsCertificates>,
    /// How long to wait for a connection, and for an answer.
    pub(super) timeout: Duration,
}

impl Dialer {
    pub(super) fn speaking(mut self, protocol: ProtocolVersion) -> Self {
        self.settings = self.settings.set_protocol(protocol);
        self
    }

    pub(super) fn client(&self, address: &ConnectionAddr) -> RedisResult<Client> {
        let info = address
            .clone()
            .into_connection_info()?
            .set_redis_settings(self.settings.clone())
            .set_tcp_settings(tcp());
        match &self.certificates {
            Some(certificates) => Client::build_with_tls(info, certificates.clone()),
            None => Client::open(info),
        }
    }
}

pub(super) fn tcp() -> TcpSettings {
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(10))
        .with_interval(Duration::from_secs(2));
    let tcp = TcpSettings::default()
        .set_nodelay(true)
        .set_keepalive(keepalive);
    #[cfg(target_os = "linux")]
    let tcp = tcp.set_user_timeout(DEAD_PEER_TIMEOUT);
    tcp
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_every_topology() {
        let shown = |url: &str| Address::read(url).unwrap().shown();
        assert_eq!(shown("redis://u:p@h:1/3"), "h:1");
        assert_eq!(
            shown("redis+sentinel://a,b:7/main"),
            "a:26379,b:7, group main"
        );
        assert_eq!(shown("rediss+cluster://u:p@[::1]:1,b"), "::1:1,b:6379");

        let read = Address::read("rediss+sentinel://u:p%40@a:1,b:2/my%20group/4").unwrap();
        assert!(read.tls);
        assert_eq!(read.settings.username(), Some("u"));
        assert_eq!(read.settings.password(), Some("p@"));
        assert_eq!(read.settings.db(), 4);
        let Topology::Sentinel { group, sentinels } = read.topology else {
            panic!("{read:?}");
        };
        assert_eq!((group.as_str(), sentinels.len()), ("my group", 2));
    }

    #[test]
    fn urls_that_cannot_be_right_are_told_without_the_password() {
        for (url, says) in [
            ("redis+sentinel://u:secret@a:1,b:2", "names the group"),
            ("redis+sentinel://u:secret@a:1,b:2/", "names the group"),
            ("redis+sentinel://u:secret@a:1,,b:2/m", "cannot be read"),
            (
                "redis+sentinel://u:secret@a:1,b:2/m/first",
                "cannot be read",
            ),
            ("redis+cluster://u:secret@a:port", "cannot be read"),
            ("redis+cluster://u:secret@", "cannot be read"),
            ("redis+cluster://u:secret@a/2", "no databases"),
            ("redis+raft://u:secret@a", "cannot be read"),
            ("redis://u:secret@a:1,b:2/", "cannot be read"),
        ] {
            let error = Address::read(url).expect_err(url).to_string();
            assert!(error.contains(says), "{url}: {error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
