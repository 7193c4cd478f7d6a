//! Errors at start-up, each as one sentence with the cause and the remedy.

use std::collections::HashMap;
use std::fmt;

use redis::aio::ConnectionLike;
use redis::{RedisError, RedisResult, Value};

use crate::error::Error;
use crate::store::redis::connection::errors::{
    ErrorClass, NOT_PRIMARY, describe_error, rejects_credentials,
};

/// Returns the error for a failed connection to a server of the URL.
pub(in crate::store::redis) fn connect_error(address: &str, error: &RedisError) -> Error {
    server_rejection_error(&format!("Redis at {address}"), error)
        .unwrap_or_else(|| unreachable_error(&format!("Redis at {address}"), error))
}

/// Returns the error for a failed connection to a primary that a Sentinel has named.
pub(in crate::store::redis) fn named_primary_error(
    named: &impl fmt::Display,
    error: &RedisError,
) -> Error {
    let who = format!("Redis at {named}");
    if let Some(error) = server_rejection_error(&who, error) {
        return error;
    }
    let message = describe_error(error);
    if message.contains(NOT_PRIMARY) {
        return Error::store_unavailable(format!(
            "{who} is a replica; a fail-over may be under way, so try again in a moment"
        ));
    }
    closed_connection_error(&who, error).unwrap_or_else(|| {
        Error::store_unavailable(format!(
            "{who} cannot be reached from here ({message}); if it is running, the Sentinels have an \
             address that is valid only in another network: set replica-announce-ip on the servers, \
             and `sentinel monitor`, to an address that can be reached from here"
        ))
    })
}

/// Returns the error for a server that replied and rejected the connection. Returns `None` for I/O
/// errors, for timeouts, and if no node of a Cluster was reached. `who` names the server at the
/// start of the message.
fn server_rejection_error(who: &str, error: &RedisError) -> Option<Error> {
    let message = describe_error(error);
    if rejects_credentials(error) {
        return Some(Error::configuration(format!(
            "{who} rejected the user or password of the URL (redis://user:password@host/): {message}"
        )));
    }
    if message.contains("cluster support disabled") {
        return Some(Error::configuration(format!(
            "{who} is a single server and no Cluster; use redis:// (rediss:// with TLS) for it"
        )));
    }
    if ErrorClass::classify(error).is_some_and(ErrorClass::is_transient) {
        return Some(Error::store_unavailable(format!(
            "{who} is not ready ({message}); try again in a moment"
        )));
    }
    let not_found = error.kind() == redis::ErrorKind::ClusterConnectionNotFound;
    if error.is_io_error() || error.is_timeout() || not_found {
        return None;
    }
    if is_no_redis(error) {
        return Some(no_redis(who));
    }
    Some(Error::configuration(format!(
        "{who} rejected the connection: {message}"
    )))
}

/// Returns `true` if the error comes from a reply that does not follow the protocol of Redis.
fn is_no_redis(error: &RedisError) -> bool {
    use redis::ErrorKind::{Parse, UnexpectedReturnType};
    matches!(error.kind(), Parse | UnexpectedReturnType)
}

/// Returns the error for a server that is not Redis. `who` names the server at the start of the
/// message.
fn no_redis(who: &str) -> Error {
    Error::configuration(format!(
        "{who} does not speak the protocol of Redis, so something else listens there, such as a web \
         server; check the host and the port of the URL"
    ))
}

/// Returns the error for an unreachable server. `who` names the server at the start of the message.
pub(in crate::store::redis) fn unreachable_error(who: &str, error: &RedisError) -> Error {
    let message = describe_error(error);
    if is_no_redis(error) {
        return no_redis(who);
    }
    closed_connection_error(who, error).unwrap_or_else(|| {
        Error::store_unavailable(format!(
            "{who} cannot be reached ({message}); is it running, and is the URL right?"
        ))
    })
}

/// Returns the error for a connection that failed in TLS or that the server closed. Returns `None`
/// for other failures. `who` names the server at the start of the message.
fn closed_connection_error(who: &str, error: &RedisError) -> Option<Error> {
    let message = describe_error(error);
    if message.contains("Expired") || message.contains("certificate expired") {
        return Some(Error::configuration(format!(
            "{who} presented a certificate that has expired, or the clock of this machine is wrong \
             ({message}); renew the certificate"
        )));
    }
    if message.contains("invalid peer certificate") {
        return Some(Error::configuration(format!(
            "{who} presented a certificate that was not accepted ({message}); set the authority that \
             signed it with certificate_authority, and use a host name of the certificate"
        )));
    }
    if message.contains("CertificateRequired") || message.contains("HandshakeFailure") {
        return Some(Error::configuration(format!(
            "{who} requires a client certificate ({message}); set it with client_certificate"
        )));
    }
    if message.contains("received fatal alert") {
        return Some(Error::configuration(format!(
            "{who} rejected the client certificate or the TLS version ({message}); check client_certificate"
        )));
    }
    if message.contains("InvalidContentType") || message.contains("corrupt message") {
        return Some(Error::configuration(format!(
            "{who} does not use TLS on that port; use its TLS port, or a URL without the s of \
             rediss://"
        )));
    }
    if error.is_connection_dropped() && !error.is_connection_refusal() {
        return Some(Error::store_unavailable(format!(
            "{who} closed the connection at once ({message}); check that a Redis listens on the port, \
             and if it uses TLS there, use rediss:// (rediss+sentinel://, rediss+cluster://)"
        )));
    }
    None
}

/// Returns an error if a URL for a single server, such as `redis://`, leads to a node of a Cluster
/// or to a Sentinel.
pub(in crate::store::redis) async fn check_mode(
    connection: &mut impl ConnectionLike,
    address: &str,
) -> Result<(), Error> {
    let hello: RedisResult<HashMap<String, Value>> =
        redis::cmd("HELLO").query_async(connection).await;
    // Redis before version 6 does not support HELLO, and the ACL user may lack permission for
    // HELLO. The mode is then not checked.
    let mode = hello.ok().and_then(|mut hello| hello.remove("mode"));
    let mode = mode.and_then(|mode| redis::from_redis_value::<String>(mode).ok());
    match mode.as_deref() {
        Some("cluster") => Err(Error::configuration(format!(
            "Redis at {address} is a node of a Cluster; use redis+cluster://{address} \
             (rediss+cluster:// with TLS)"
        ))),
        Some("sentinel") => Err(Error::configuration(format!(
            "a Sentinel replied at {address}, which stores no tokens; use \
             redis+sentinel://{address}/NAME with the name of its group of servers"
        ))),
        _ => Ok(()),
    }
}

/// Adds the host names that do not resolve to the message of an error. Returns the error unchanged
/// if all hosts resolve.
///
/// The error of a failed connection contains a text of the operating system, which differs between
/// systems. This function therefore resolves the names again instead of reading that text.
pub(in crate::store::redis) async fn with_unresolved(
    error: Error,
    hosts: Vec<(&str, u16)>,
) -> Error {
    let mut unknown = Vec::new();
    for (host, port) in &hosts {
        if tokio::net::lookup_host((*host, *port)).await.is_err() {
            unknown.push(*host);
        }
    }
    if unknown.is_empty() {
        return error;
    }
    let names = unknown.join(", ");
    let remedy = "check the name, and the DNS of this machine";
    Error::store_unavailable(match unknown.len() == hosts.len() {
        true => format!("the Redis URL names {names}, which does not resolve here; {remedy}"),
        false => format!("{error}; and {names} does not resolve here: {remedy}"),
    })
}
