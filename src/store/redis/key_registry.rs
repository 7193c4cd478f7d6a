//! The registry of sealing keys in use: a hash of their ids.
//!
//! Every process reads the registry when it connects. A process that lacks one of the keys would not
//! find the tokens of some users, so its start fails.

use redis::aio::ConnectionLike;
use redis::{AsyncCommands, RedisError};

use super::connection::errors::describe_error;
use super::layout::RedisNames;
use super::seal::Sealer;
use crate::clock::Clock;
use crate::error::Error;
use crate::store::redis::format::sealed::SealingKeyId;

/// Returns the key of the registry. Each field is the id of a sealing key, and its value is the time of
/// the first use.
pub(super) fn registry_key(names: &RedisNames) -> String {
    format!("{}sealing", names.prefix)
}

/// Fails if this process lacks a registered key. Otherwise registers the key that seals new values.
pub(super) async fn check_registry(
    connection: &mut (impl ConnectionLike + Send + Sync),
    names: &RedisNames,
    seal: &Sealer,
    address: &str,
) -> Result<(), Error> {
    let name = registry_key(names);
    let key_ids: Vec<String> = match connection.hkeys(&name).await {
        Ok(ids) => ids,
        Err(error) => {
            log_unreadable(&error, seal, address, &name);
            return Ok(());
        }
    };
    let known = |id: &String| SealingKeyId::parse(id.as_bytes()).is_none_or(|id| seal.has_key(id));
    let missing: Vec<String> = key_ids.into_iter().filter(|id| !known(id)).collect();
    if !missing.is_empty() {
        return Err(missing_key_error(&missing.join(", "), seal, address, &name));
    }
    let Some(id) = seal.active_key_id() else {
        return Ok(());
    };
    let now = Clock::system().now().as_millis();
    let registered: Result<i64, _> = connection.hset_nx(&name, id.to_string(), now).await;
    if let Err(error) = registered {
        log_unreadable(&error, seal, address, &name);
    }
    Ok(())
}

fn missing_key_error(missing: &str, seal: &Sealer, address: &str, name: &str) -> Error {
    let ours = match seal.key_ids() {
        none if none.is_empty() => "this process has no sealing keys".to_owned(),
        ids => format!("this process has only {}", ids.join(", ")),
    };
    let message = format!(
        "Redis at {address} holds values that are sealed with key {missing}, and {ours}: add the \
         missing key; if nothing is sealed with it any more, `tower-wechat reseal` says so to the \
         others; if it is lost, remove it from the hash {name}, and its users log in again"
    );
    Error::configuration(message)
}

/// Logs that the registry cannot be used. The start goes on, because the ACL user may still have access
/// to the tokens. Without sealing keys, there is nothing to log.
fn log_unreadable(error: &RedisError, seal: &Sealer, address: &str, name: &str) {
    if !seal.key_ids().is_empty() {
        let said = describe_error(error);
        tracing::error!(
            target: "tower_wechat::store",
            address,
            "the marks of the sealing keys in {name} cannot be kept ({said}), so a wrong key is \
             not noticed at the start"
        );
    }
}
