//! Checks of a Cluster before the client library connects: the nodes, their slots and addresses.
//!
//! The library's own error says only that the library has found no connection. The error reveals
//! neither a wrong password nor that the nodes announce addresses which this process cannot reach.
//! These checks return an error with the cause and the remedy.

use redis::{ConnectionAddr, RedisError, Value};
use tokio::task::JoinSet;

use crate::error::Error;
use crate::store::redis::connection::connector::Connector;
use crate::store::redis::connection::errors::{ErrorClass, describe_error};
use crate::store::redis::connection::start_up::connect_error;
use crate::store::redis::connection::url::format_address;

/// Maximum number of addresses in one error message: six, because a Cluster may have hundreds of
/// nodes.
const MAX_NAMED_NODES: usize = 6;

/// Queries the nodes of the URL for the slots of the Cluster, one by one until one replies. Checks
/// that an announced node can be reached. Returns a connector with the protocol of the node that
/// replied.
pub(in crate::store::redis) async fn probe_cluster(
    connector: &Connector,
    seeds: &[ConnectionAddr],
) -> Result<Connector, Error> {
    let quick = Connector {
        timeout: connector.timeout / 2,
        ..connector.clone()
    };
    let mut failure = None;
    for seed in seeds {
        let shown = format_address(seed);
        let querying = async {
            let (mut connection, accepted) = quick.connect(seed).await?;
            let mut query = redis::cmd("CLUSTER");
            let slots: Vec<Value> = query.arg("SLOTS").query_async(&mut connection).await?;
            Ok((slots, accepted))
        };
        match querying.await {
            Ok((slots, accepted)) => {
                check_slots(&slots, &shown)?;
                check_nodes(&accepted, seed, &slots).await?;
                return Ok(connector
                    .clone()
                    .with_protocol(accepted.connection_info.protocol()));
            }
            Err(error) => {
                // The last error reply is kept, because it explains more than an unreachable node.
                if failure.is_none() || ErrorClass::classify(&error).is_some() {
                    failure = Some(connect_error(&shown, &error));
                }
            }
        }
    }
    failure.map_or_else(|| Ok(connector.clone()), Err)
}

/// Returns an error if the Cluster serves no slots, or if a node announces no address.
fn check_slots(slots: &[Value], address: &str) -> Result<(), Error> {
    if slots.is_empty() {
        return Err(Error::configuration(format!(
            "the Redis Cluster of {address} serves no slots yet; create it first \
             (redis-cli --cluster create)"
        )));
    }
    if slots.iter().flat_map(nodes_of).any(lacks_address) {
        return Err(Error::configuration(format!(
            "the Redis Cluster of {address} announces no addresses of its nodes, so that their \
             slots cannot be found; set cluster-preferred-endpoint-type to ip, or to hostname with \
             a cluster-announce-hostname on every node"
        )));
    }
    Ok(())
}

/// Returns the nodes in one entry of `CLUSTER SLOTS`. They follow the first and the last slot of
/// the entry.
fn nodes_of(range: &Value) -> &[Value] {
    match range {
        Value::Array(parts) => parts.get(2..).unwrap_or_default(),
        _ => &[],
    }
}

/// Returns `true` if a node announces no address. An empty name counts as an address: it stands for
/// the address of the node that replied.
fn lacks_address(node: &Value) -> bool {
    match node {
        Value::Array(parts) => match parts.first() {
            Some(Value::Nil) | None => true,
            Some(Value::BulkString(host)) => host == b"?",
            Some(_) => false,
        },
        _ => false,
    }
}

/// Returns the address that a node announces, with the TLS settings of `seed`.
fn address_of(node: &Value, seed: &ConnectionAddr) -> Option<ConnectionAddr> {
    let Value::Array(parts) = node else {
        return None;
    };
    let (Some(Value::BulkString(name)), Some(Value::Int(number))) = (parts.first(), parts.get(1))
    else {
        return None;
    };
    let name = String::from_utf8(name.clone()).ok()?;
    let number = u16::try_from(*number).ok()?;
    let mut address = seed.clone();
    match &mut address {
        ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
            if !name.is_empty() {
                *host = name;
            }
            *port = number;
        }
        _ => return None,
    }
    Some(address)
}

/// Returns an error if no node can be reached at its announced address. Makes no attempt if one of
/// the announced addresses is `seed`, which has just replied.
async fn check_nodes(
    connector: &Connector,
    seed: &ConnectionAddr,
    slots: &[Value],
) -> Result<(), Error> {
    let mut nodes: Vec<ConnectionAddr> = Vec::new();
    for node in slots.iter().flat_map(nodes_of) {
        match address_of(node, seed) {
            Some(address) if address == *seed => return Ok(()),
            Some(address) if !nodes.contains(&address) => nodes.push(address),
            _ => {}
        }
    }
    let mut tries = JoinSet::new();
    for node in nodes.clone() {
        let connector = connector.clone();
        tries.spawn(async move { connector.connect(&node).await.map(drop) });
    }
    let mut last: Option<RedisError> = None;
    while let Some(tried) = tries.join_next().await {
        match tried {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => last = Some(error),
            Err(_) => {}
        }
    }
    let Some(error) = last else {
        return Ok(());
    };
    let named: Vec<_> = nodes
        .iter()
        .take(MAX_NAMED_NODES)
        .map(format_address)
        .collect();
    let more = if nodes.len() > MAX_NAMED_NODES {
        " …"
    } else {
        ""
    };
    let (seed, named, message) = (
        format_address(seed),
        named.join(", "),
        describe_error(&error),
    );
    Err(Error::store_unavailable(format!(
        "the Redis Cluster of {seed} announces the nodes {named}{more}, and none of them can be reached \
         from here ({message}); set cluster-announce-ip or cluster-announce-hostname, and \
         cluster-announce-port, on the nodes to values that can be reached from here"
    )))
}
