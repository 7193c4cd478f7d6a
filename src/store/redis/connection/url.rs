//! Redis URLs of all topologies: one server, Sentinels, Cluster.

use redis::{
    ConnectionAddr, ConnectionInfo, IntoConnectionInfo, ProtocolVersion, RedisConnectionInfo,
};
use zeroize::Zeroizing;

use crate::error::Error;
use crate::store::redis::connection::connector::with_protocol;
use crate::store::redis::connection::url_parameters::UrlParameters;

/// The port of Cluster nodes for which the URL names no port.
const DEFAULT_PORT: u16 = 6_379;

/// The port of Sentinels for which the URL names no port.
const DEFAULT_SENTINEL_PORT: u16 = 26_379;

/// The servers that a URL names.
#[derive(Debug, Clone)]
pub(in crate::store::redis) enum Topology {
    Single(ConnectionAddr),
    Sentinel {
        /// The Sentinels' name for the group of servers.
        group: String,
        sentinels: Vec<ConnectionAddr>,
    },
    Cluster(Vec<ConnectionAddr>),
}

/// A parsed Redis URL: the servers, how to log in to them, and whether to use TLS.
#[derive(Debug, Clone)]
pub(in crate::store::redis) struct RedisUrl {
    pub(in crate::store::redis) topology: Topology,
    /// User, password, database and protocol for the servers that hold data.
    pub(in crate::store::redis) connection_info: RedisConnectionInfo,
    pub(in crate::store::redis) tls: bool,
}

/// The parts of a URL that lists several servers.
struct ServerList<'a> {
    /// The user and password, percent-encoded. Empty if the URL contains neither.
    user: &'a str,
    hosts: &'a str,
    path: String,
    parameters: UrlParameters,
    tls: bool,
}

impl RedisUrl {
    /// Parses a URL, and rejects parts that would have no effect.
    pub(in crate::store::redis) fn parse(url: &str) -> Result<Self, Error> {
        if url.contains('#') {
            return Err(Error::configuration(
                "the Redis URL has a fragment (#), which would have no effect; write the \
                 database as /2 or ?db=2, and a # of the password as %23",
            ));
        }
        let (scheme, rest) = url.split_once("://").unwrap_or_default();
        let (topology, tls) = match scheme.split_once('+') {
            Some(("redis", topology)) => (topology, false),
            Some(("rediss", topology)) => (topology, true),
            _ => ("", false),
        };
        match topology {
            "sentinel" => Self::parse_sentinel(&ServerList::split(rest, tls)?),
            "cluster" => Self::parse_cluster(&ServerList::split(rest, tls)?),
            _ => Self::parse_single(url),
        }
    }

    fn parse_sentinel(list: &ServerList<'_>) -> Result<Self, Error> {
        let (group, database) = match list.path_parts()[..] {
            [] => {
                return Err(Error::configuration(
                    "a redis+sentinel:// URL names the group of servers after the Sentinels: \
                     redis+sentinel://user:password@host:26379,host:26379/mymaster",
                ));
            }
            [group] => (group, None),
            [group, database] => (group, Some(database)),
            [_, _, _, ..] => return Err(surplus_path()),
        };
        let group = percent_encoding::percent_decode_str(group).decode_utf8_lossy();
        let database = list.parameters.resolve_database(database)?;
        let (sentinels, connection_info) = list.parse_hosts(&database, DEFAULT_SENTINEL_PORT)?;
        let topology = Topology::Sentinel {
            group: group.into_owned(),
            sentinels,
        };
        Ok(list.to_url(topology, connection_info))
    }

    fn parse_cluster(list: &ServerList<'_>) -> Result<Self, Error> {
        let database = match list.path_parts()[..] {
            [] => None,
            [database] => Some(database),
            [_, _, ..] => return Err(surplus_path()),
        };
        if list.parameters.resolve_database(database)? != "0" {
            return Err(Error::configuration(
                "a Redis Cluster has no databases but 0; leave it out of the redis+cluster:// URL",
            ));
        }
        let (nodes, connection_info) = list.parse_hosts("0", DEFAULT_PORT)?;
        Ok(list.to_url(Topology::Cluster(nodes), connection_info))
    }

    fn parse_single(url: &str) -> Result<Self, Error> {
        // The URL of a Unix socket names the database, the user and the password in parameters. The
        // client library reads these parameters from the URL.
        let socket = url
            .split("://")
            .next()
            .is_some_and(|scheme| scheme.contains("unix"));
        let library_parameters: &[&str] = if socket { &["user", "pass"] } else { &[] };
        let (before, mut parameters) = UrlParameters::split_off(url, library_parameters)?;
        if socket {
            parameters.database = None;
        }
        let info = parse_connection_info(url)?;
        let mut parsed = Self {
            topology: Topology::Single(info.addr().clone()),
            connection_info: info.redis_settings().clone(),
            tls: matches!(info.addr(), ConnectionAddr::TcpTls { .. }),
        };
        if parameters.database.is_some() {
            let path = before.split_once("://").unwrap_or_default().1;
            let path = path.split_once('/').map(|(_, path)| path.trim_matches('/'));
            let database = parameters.resolve_database(path.filter(|path| !path.is_empty()))?;
            let database = database.parse().map_err(|_| invalid_url())?;
            parsed.connection_info = parsed.connection_info.set_db(database);
        }
        parsed.set_protocol(parameters.uses_resp2);
        Ok(parsed)
    }

    /// Sets the protocol: RESP2 if `uses_resp2` is set, otherwise RESP3. RESP3 reports a disconnect
    /// at once. With RESP2 the next command fails.
    fn set_protocol(&mut self, uses_resp2: bool) {
        let protocol = match uses_resp2 {
            true => ProtocolVersion::RESP2,
            false => ProtocolVersion::RESP3,
        };
        self.connection_info = with_protocol(self.connection_info.clone(), protocol);
    }

    /// Returns the hosts and ports that the URL names.
    pub(in crate::store::redis) fn hosts(&self) -> Vec<(&str, u16)> {
        let all = match &self.topology {
            Topology::Single(address) => std::slice::from_ref(address),
            Topology::Sentinel { sentinels, .. } => sentinels,
            Topology::Cluster(nodes) => nodes,
        };
        all.iter().filter_map(host_and_port).collect()
    }

    /// Returns the servers of the URL for logs and messages, without user and password.
    pub(in crate::store::redis) fn display_servers(&self) -> String {
        match &self.topology {
            Topology::Single(address) => format_address(address),
            Topology::Sentinel { group, sentinels } => {
                format!("{}, group {group}", format_addresses(sentinels))
            }
            Topology::Cluster(nodes) => format_addresses(nodes),
        }
    }
}

impl<'a> ServerList<'a> {
    /// Splits the part of a URL after `://` into user, hosts, path and parameters.
    fn split(rest: &'a str, tls: bool) -> Result<Self, Error> {
        let (authority, path) = match rest.find(['/', '?']) {
            Some(index) => rest.split_at(index),
            None => (rest, ""),
        };
        let (path, parameters) = UrlParameters::split_off(path, &[])?;
        let (user, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
        Ok(Self {
            user,
            hosts,
            path,
            parameters,
            tls,
        })
    }

    /// Returns the parts of the path that are not empty.
    fn path_parts(&self) -> Vec<&str> {
        let parts = self.path.split('/').skip(1);
        parts.filter(|part| !part.is_empty()).collect()
    }

    /// Parses the servers of the list, each as a separate URL. Returns their addresses, and the
    /// user, password and database.
    fn parse_hosts(
        &self,
        database: &str,
        default_port: u16,
    ) -> Result<(Vec<ConnectionAddr>, RedisConnectionInfo), Error> {
        let user = self.user;
        let scheme = if self.tls { "rediss" } else { "redis" };
        let separator = if user.is_empty() { "" } else { "@" };
        let (mut addresses, mut connection_info) = (Vec::new(), None);
        for host in self.hosts.split(',').map(str::trim) {
            let after_name = host.rsplit_once(']').map_or(host, |(_, rest)| rest);
            let port = match after_name.contains(':') {
                true => String::new(),
                false => format!(":{default_port}"),
            };
            let url = format!("{scheme}://{user}{separator}{host}{port}/{database}");
            let info = parse_connection_info(&Zeroizing::new(url))?;
            addresses.push(info.addr().clone());
            connection_info = Some(info.redis_settings().clone());
        }
        match connection_info {
            Some(connection_info) => Ok((addresses, connection_info)),
            None => Err(invalid_url()),
        }
    }

    fn to_url(&self, topology: Topology, connection_info: RedisConnectionInfo) -> RedisUrl {
        let mut url = RedisUrl {
            topology,
            connection_info,
            tls: self.tls,
        };
        url.set_protocol(self.parameters.uses_resp2);
        url
    }
}

/// Returns the host and port of an address, or `None` for a Unix socket.
fn host_and_port(address: &ConnectionAddr) -> Option<(&str, u16)> {
    match address {
        ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
            Some((host, *port))
        }
        _ => None,
    }
}

/// Formats an address. Brackets separate an IPv6 address from its port.
pub(in crate::store::redis) fn format_address(address: &ConnectionAddr) -> String {
    match address {
        ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. }
            if host.contains(':') =>
        {
            format!("[{host}]:{port}")
        }
        other => other.to_string(),
    }
}

/// Formats several addresses, separated by commas.
pub(in crate::store::redis) fn format_addresses(addresses: &[ConnectionAddr]) -> String {
    let shown: Vec<_> = addresses.iter().map(format_address).collect();
    shown.join(",")
}

fn parse_connection_info(url: &str) -> Result<ConnectionInfo, Error> {
    // The client library's message may quote the URL with its password, so the message is not
    // shown.
    url.into_connection_info().map_err(|_| invalid_url())
}

fn surplus_path() -> Error {
    Error::configuration(
        "the path of the Redis URL has further parts after its database; leave them out",
    )
}

fn invalid_url() -> Error {
    Error::configuration(
        "the Redis URL cannot be read; it looks like redis://user:password@host:6379/0 \
         (rediss:// for TLS), redis+sentinel://user:password@host:26379,host:26379/mymaster or \
         redis+cluster://user:password@host:6379,host:6379, special characters of the password \
         percent-encoded",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_urls_of_every_topology() {
        let shown = |url: &str| RedisUrl::parse(url).unwrap().display_servers();
        assert_eq!(shown("redis://u:p@h:1/3"), "h:1");
        assert_eq!(
            shown("redis+sentinel://a,b:7/main"),
            "a:26379,b:7, group main"
        );
        assert_eq!(shown("rediss+cluster://u:p@[::1]:1,b"), "[::1]:1,b:6379");

        let read = RedisUrl::parse("rediss+sentinel://u:p%40@a:1,b:2/my%20group/4").unwrap();
        assert!(read.tls);
        assert_eq!(read.connection_info.username(), Some("u"));
        assert_eq!(read.connection_info.password(), Some("p@"));
        assert_eq!(read.connection_info.db(), 4);
        let Topology::Sentinel { group, sentinels } = read.topology else {
            panic!("{read:?}");
        };
        assert_eq!((group.as_str(), sentinels.len()), ("my group", 2));
    }

    #[test]
    fn url_parameters_apply_or_are_rejected() {
        let database = |url: &str| RedisUrl::parse(url).expect(url).connection_info.db();
        for (url, is) in [
            ("redis://h", 0),
            ("redis://h:1?db=2", 2),
            ("redis://h:1/?db=2", 2),
            ("redis://h:1/2?db=2", 2),
            ("redis://u:p@h:1/3?protocol=resp3", 3),
            ("rediss://h:1?protocol=resp2&db=4", 4),
            ("redis+sentinel://h/main?db=5", 5),
            ("redis+sentinel://h/main/5?db=5", 5),
            ("redis+cluster://h?db=0", 0),
        ] {
            assert_eq!(database(url), is, "{url}");
        }
        let protocol = |url: &str| RedisUrl::parse(url).expect(url).connection_info.protocol();
        for url in [
            "redis://h?protocol=resp2",
            "redis://h/2?protocol=2",
            "redis+sentinel://h/main?protocol=resp2",
            "redis+cluster://h/?protocol=resp2",
            "redis+unix:///run/redis.sock?protocol=resp2",
        ] {
            assert_eq!(protocol(url), ProtocolVersion::RESP2, "{url}");
        }
        assert_eq!(protocol("redis://h"), ProtocolVersion::RESP3);
        for (url, says) in [
            ("redis://h:1/1?db=2", "two databases"),
            ("redis+sentinel://h/main/1?db=2", "two databases"),
            ("redis+cluster://h?db=2", "no databases"),
            ("redis://h?db=two", "cannot be read"),
            ("redis://h?protocol=resp4", "resp2 or resp3"),
            ("redis://h?timeout=5", "no effect, timeout"),
            ("redis+sentinel://h/main?master=x", "no effect, master"),
            ("redis+cluster://h?readFrom=replica", "no effect"),
        ] {
            let error = RedisUrl::parse(url).expect_err(url).to_string();
            assert!(error.contains(says), "{url}: {error}");
        }
    }

    #[test]
    fn ipv6_addresses_are_displayed_in_brackets() {
        let shown = |url: &str| RedisUrl::parse(url).expect(url).display_servers();
        assert_eq!(shown("redis://[::1]:6379/1"), "[::1]:6379");
        assert_eq!(shown("rediss://[2001:db8::7]/"), "[2001:db8::7]:6379");
        assert_eq!(
            shown("redis+sentinel://[::1],[::2]:7/main"),
            "[::1]:26379,[::2]:7, group main"
        );
        assert_eq!(shown("redis+cluster://u:p@[::1]"), "[::1]:6379");
    }

    #[test]
    fn url_errors_do_not_contain_the_password() {
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
            let error = RedisUrl::parse(url).expect_err(url).to_string();
            assert!(error.contains(says), "{url}: {error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
