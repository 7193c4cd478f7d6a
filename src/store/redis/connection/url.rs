//! Redis URLs of all topologies: one server, Sentinels, Cluster.

use redis::{
    ConnectionAddr, ConnectionInfo, IntoConnectionInfo, ProtocolVersion, RedisConnectionInfo,
};
use zeroize::Zeroizing;

use crate::error::Error;
use crate::store::redis::connection::connector::with_protocol;

/// The port of Sentinels, unless the URL names another one.
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

/// A parsed URL.
#[derive(Debug, Clone)]
pub(in crate::store::redis) struct RedisUrl {
    pub(in crate::store::redis) topology: Topology,
    /// User, password and database of the servers that hold data.
    pub(in crate::store::redis) connection_info: RedisConnectionInfo,
    pub(in crate::store::redis) tls: bool,
}

/// The query parameters of a URL.
#[derive(Debug, Default)]
struct UrlParameters {
    database: Option<String>,
    uses_resp2: bool,
}

impl RedisUrl {
    /// Parses a URL, and rejects parts that would have no effect.
    pub(in crate::store::redis) fn parse(url: &str) -> Result<Self, Error> {
        if url.contains('#') {
            return Err(Error::configuration(
                "the Redis URL has a fragment (#), which would have no effect; write the database as /2 or \
                 ?db=2, and a # of the password as %23",
            ));
        }
        let (scheme, rest) = url.split_once("://").unwrap_or_default();
        let (topology, tls) = match scheme.split_once('+') {
            Some(("redis", topology)) => (topology, false),
            Some(("rediss", topology)) => (topology, true),
            _ => ("", false),
        };
        if !matches!(topology, "sentinel" | "cluster") {
            return Self::parse_single(url);
        }
        let (authority, path) = match rest.find(['/', '?']) {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        let (path, parameters) = UrlParameters::split_off(path, &[])?;
        let mut parts = path.split('/').skip(1).filter(|part| !part.is_empty());
        let (first, second, third) = (parts.next(), parts.next(), parts.next());
        if third.is_some() || (topology == "cluster" && second.is_some()) {
            return Err(Error::configuration(
                "the path of the Redis URL has further parts after its database; leave them out",
            ));
        }
        let (user, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
        let mut parsed = match topology {
            "sentinel" => {
                let Some(group) = first else {
                    return Err(Error::configuration(
                        "a redis+sentinel:// URL names the group of servers after the Sentinels: \
                         redis+sentinel://user:password@host:26379,host:26379/mymaster",
                    ));
                };
                let group = percent_encoding::percent_decode_str(group).decode_utf8_lossy();
                let database = parameters.resolve_database(second)?;
                let (sentinels, settings) =
                    parse_hosts(user, hosts, &database, tls, DEFAULT_SENTINEL_PORT)?;
                Self {
                    topology: Topology::Sentinel {
                        group: group.into_owned(),
                        sentinels,
                    },
                    connection_info: settings,
                    tls,
                }
            }
            _ => {
                if parameters.resolve_database(first)? != "0" {
                    return Err(Error::configuration(
                        "a Redis Cluster has no databases but 0; leave it out of the \
                         redis+cluster:// URL",
                    ));
                }
                let (nodes, settings) = parse_hosts(user, hosts, "0", tls, 6_379)?;
                Self {
                    topology: Topology::Cluster(nodes),
                    connection_info: settings,
                    tls,
                }
            }
        };
        parsed.set_protocol(parameters.uses_resp2);
        Ok(parsed)
    }

    fn parse_single(url: &str) -> Result<Self, Error> {
        // The path of a Unix socket cannot name a database, so the library reads these parameters.
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

    /// Sets RESP3, or RESP2 if the URL asks for it. RESP3 reports a disconnect at once. With RESP2 the
    /// next command fails.
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

impl UrlParameters {
    /// Splits the query parameters off a URL. Rejects parameters that would have no effect and
    /// parameters that contradict each other. Accepts the names in `more`, which the library reads.
    fn split_off(url: &str, more: &[&str]) -> Result<(String, Self), Error> {
        let (before, query) = url.split_once('?').unwrap_or((url, ""));
        let mut parameters = Self::default();
        let mut protocol = None;
        for one in query.split('&').filter(|one| !one.is_empty()) {
            match one.split_once('=').unwrap_or((one, "")) {
                ("db", database) => {
                    let known = parameters.database.replace(database.to_owned());
                    if known.is_some_and(|known| known != database) {
                        return Err(Error::configuration(
                            "the Redis URL names two databases as db=; leave one out",
                        ));
                    }
                }
                ("protocol", name @ ("resp2" | "2" | "resp3" | "3")) => {
                    parameters.uses_resp2 = name.ends_with('2');
                    if protocol.replace(parameters.uses_resp2) == Some(!parameters.uses_resp2) {
                        return Err(Error::configuration(
                            "the Redis URL names two protocols; leave one out",
                        ));
                    }
                }
                ("protocol", _) => {
                    return Err(Error::configuration(
                        "the protocol of a Redis URL is resp2 or resp3 (?protocol=resp2)",
                    ));
                }
                (name, _) if more.contains(&name) => {}
                (name, _) => {
                    // The name may be a part of a secret that contains `&`, so only short names of
                    // plain letters are shown.
                    let known = name.len() <= 32
                        && name.chars().all(|c| c.is_ascii_lowercase() || c == '_');
                    let name = if known {
                        format!(", {name}")
                    } else {
                        String::new()
                    };
                    return Err(Error::configuration(format!(
                        "the Redis URL has a parameter that would have no effect{name}; use only db and \
                         protocol (?db=2&protocol=resp2)"
                    )));
                }
            }
        }
        Ok((before.to_owned(), parameters))
    }

    /// Returns the database, which the path or the parameter `db` may name.
    fn resolve_database(&self, path: Option<&str>) -> Result<String, Error> {
        match (self.database.as_deref(), path) {
            (Some(one), Some(other)) if one != other => Err(Error::configuration(
                "the Redis URL names two databases, one in its path and one as db=; leave one out",
            )),
            (Some(database), _) | (None, Some(database)) => Ok(database.to_owned()),
            (None, None) => Ok("0".to_owned()),
        }
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

/// Formats an address, with brackets around an IPv6 address to set it apart from the port.
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

/// Parses a list of servers. Each server is parsed as a separate URL.
fn parse_hosts(
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
        let info = parse_connection_info(&url)?;
        addresses.push(info.addr().clone());
        settings = Some(info.redis_settings().clone());
    }
    match settings {
        Some(settings) => Ok((addresses, settings)),
        None => Err(invalid_url()),
    }
}

fn parse_connection_info(url: &str) -> Result<ConnectionInfo, Error> {
    // The library's message may quote the URL with its password, so it is not shown.
    url.into_connection_info().map_err(|_| invalid_url())
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
