//! The registry of sealing keys in use: a hash whose fields are the ids of sealing keys. The value
//! of a field is the time at which a process first registered the key.
//!
//! Every process reads the registry when it connects. A process that lacks one of the keys would
//! not find the tokens of some users, so its start-up fails.

use redis::aio::ConnectionLike;
use redis::{AsyncCommands, RedisError};

use super::connection::errors::describe_error;
use super::layout::RedisNames;
use super::seal::Sealer;
use crate::clock::Clock;
use crate::error::Error;
use crate::store::redis::format::sealed::SealingKeyId;

/// Fails if this process lacks a registered sealing key. Otherwise registers the key that seals new
/// values. Only logs an error if Redis rejects a command on the registry.
pub(super) async fn check_registry(
    connection: &mut (impl ConnectionLike + Send + Sync),
    names: &RedisNames,
    seal: &Sealer,
    address: &str,
) -> Result<(), Error> {
    let registry = names.sealing_registry_key();
    let key_ids: Vec<String> = match connection.hkeys(&registry).await {
        Ok(ids) => ids,
        Err(error) => {
            log_unusable(&error, seal, address, &registry);
            return Ok(());
        }
    };
    let known = |id: &String| SealingKeyId::parse(id.as_bytes()).is_none_or(|id| seal.has_key(id));
    let missing: Vec<String> = key_ids.into_iter().filter(|id| !known(id)).collect();
    if !missing.is_empty() {
        return Err(missing_key_error(
            &missing.join(", "),
            seal,
            address,
            &registry,
        ));
    }
    let Some(id) = seal.active_key_id() else {
        return Ok(());
    };
    let now = Clock::system().now().as_millis();
    let registered: Result<i64, _> = connection.hset_nx(&registry, id.to_string(), now).await;
    if let Err(error) = registered {
        log_unusable(&error, seal, address, &registry);
    }
    Ok(())
}

fn missing_key_error(missing: &str, seal: &Sealer, address: &str, registry: &str) -> Error {
    let present = match seal.key_ids() {
        none if none.is_empty() => "this process has no sealing keys".to_owned(),
        ids => format!("this process has only {}", ids.join(", ")),
    };
    let message = format!(
        "Redis at {address} holds values that are sealed with key {missing}, and {present}: add the \
         missing key; if no value is sealed with it any more, `tower-wechat reseal` removes it from \
         the hash {registry}; if it is lost, remove it there yourself, and its users log in again"
    );
    Error::configuration(message)
}

/// Logs that the registry cannot be used. The start-up continues, because the ACL user may still
/// have access to the tokens. Logs nothing if this process has no sealing keys.
fn log_unusable(error: &RedisError, seal: &Sealer, address: &str, registry: &str) {
    if !seal.key_ids().is_empty() {
        let reason = describe_error(error);
        tracing::error!(
            target: "tower_wechat::store",
            address,
            "the registry of sealing keys in {registry} was not used ({reason}), so a missing key \
             is not noticed at the start; give this user access to that hash"
        );
    }
}
