//! The first words with a Cluster: a listed node tells which nodes there are.
//!
//! The library would ask the same, and say no more than that it found no connection: neither a wrong
//! password nor an address that holds elsewhere only can be told from its error. It also logs each
//! node that it does not reach, so it comes last.

use redis::{ConnectionAddr, RedisError, Value};
use tokio::task::JoinSet;

use crate::error::Error;
use crate::store::redis::connection::connector::Connector;
use crate::store::redis::connection::errors::{ErrorClass, describe_error};
use crate::store::redis::connection::start_up::connect_error;
use crate::store::redis::connection::url::format_address;

/// So many addresses are named in a sentence.
const NAMED: usize = 6;

/// Asks the nodes of a Cluster which nodes there are, one by one until one answers, and looks whether
/// any of those can be reached. Returns the dialer that speaks as that node does.
pub(in crate::store::redis) async fn probe_cluster(
    connector: &Connector,
    seeds: &[ConnectionAddr],
) -> Result<Connector, Error> {
    let quick = Connector {
        timeout: connector.timeout / 2,
        ..connector.clone()
    };
    let mut refusal = None;
    for seed in seeds {
        let shown = format_address(seed);
        let asked = async {
            let (mut connection, spoken) = quick.connect(seed).await?;
            let mut ask = redis::cmd("CLUSTER");
            let slots: Vec<Value> = ask.arg("SLOTS").query_async(&mut connection).await?;
            Ok((slots, spoken))
        };
        match asked.await {
            Ok((slots, spoken)) => {
                check_slots(&slots, &shown)?;
                check_nodes(&spoken, seed, &slots).await?;
                return Ok(connector
                    .clone()
                    .with_protocol(spoken.connection_info.protocol()));
            }
            Err(error) => {
                // What a server says is better to know than that another one is down.
                if refusal.is_none() || ErrorClass::classify(&error).is_some() {
                    refusal = Some(connect_error(&shown, &error));
                }
            }
        }
    }
    refusal.map_or_else(|| Ok(connector.clone()), Err)
}

/// Refuses slots that no client could find its way by.
fn check_slots(slots: &[Value], address: &str) -> Result<(), Error> {
    if slots.is_empty() {
        return Err(Error::configuration(format!(
            "the Redis Cluster of {address} serves no slots yet; create it first \
             (redis-cli --cluster create)"
        )));
    }
    if slots.iter().flat_map(nodes_of).any(lacks_address) {
        return Err(Error::configuration(format!(
            "the Redis Cluster of {address} does not tell the addresses of its nodes, so that their \
             slots cannot be found; set cluster-preferred-endpoint-type to ip, or to hostname with \
             a cluster-announce-hostname on every node"
        )));
    }
    Ok(())
}

/// The nodes behind the two ends of a range of slots.
fn nodes_of(range: &Value) -> &[Value] {
    match range {
        Value::Array(parts) => parts.get(2..).unwrap_or_default(),
        _ => &[],
    }
}

/// An empty name stands for the address that was asked; these two stand for nothing.
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

/// Where a node says that it is, in the way that `seed` was reached.
fn address_of(node: &Value, seed: &ConnectionAddr) -> Option<ConnectionAddr> {
    let Value::Array(parts) = node else {
        return None;
    };
    let (Some(Value::BulkString(name)), Some(Value::Int(port))) = (parts.first(), parts.get(1))
    else {
        return None;
    };
    let name = String::from_utf8(name.clone()).ok()?;
    let at = u16::try_from(*port).ok()?;
    let mut address = seed.clone();
    match &mut address {
        ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
            if !name.is_empty() {
                *host = name;
            }
            *port = at;
        }
        _ => return None,
    }
    Some(address)
}

/// Refuses a Cluster of whose nodes none can be reached by the address that it names. The one that
/// has just answered needs no other try.
async fn check_nodes(
    dialer: &Connector,
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
        let dialer = dialer.clone();
        tries.spawn(async move { dialer.connect(&node).await.map(drop) });
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
    let named: Vec<_> = nodes.iter().take(NAMED).map(format_address).collect();
    let more = if nodes.len() > NAMED { " …" } else { "" };
    let (seed, named, said) = (
        format_address(seed),
        named.join(", "),
        describe_error(&error),
    );
    Err(Error::store_unavailable(format!(
        "the Redis Cluster of {seed} names its nodes {named}{more}, and none of them can be reached \
         from here ({said}); set cluster-announce-ip or cluster-announce-hostname, and \
         cluster-announce-port, on the nodes to what holds here too"
    )))
}
