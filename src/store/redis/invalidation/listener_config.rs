//! The settings of the listener, and its log line about a missing permission.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redis::RedisError;

use crate::store::redis::connection::Connection;
use crate::store::redis::connection::errors::{ErrorClass, describe_error};

/// Delay after an error reply that repeats until an operator changes something: one minute. The
/// listener still retries, because an operator may do so at any time.
pub(in crate::store::redis) const REJECTED_RETRY_DELAY: Duration = Duration::from_secs(60);

/// The settings of a listener.
pub(in crate::store::redis) struct ListenerConfig {
    pub(in crate::store::redis) connection: Connection,
    pub(in crate::store::redis) command_timeout: Duration,
    /// The server's address for log messages, without user and password.
    pub(in crate::store::redis) address: String,
    /// `true` if all processes that write also publish. A heartbeat then proves that the listener
    /// has missed no write.
    pub(in crate::store::redis) trusts_heartbeats: bool,
    /// `true` after the listener has logged an error reply that repeats until an operator changes
    /// something.
    pub(in crate::store::redis) rejection_logged: AtomicBool,
}

impl ListenerConfig {
    /// Logs an error reply that repeats until an operator changes something. Later calls log only
    /// for developers, also for other channels, because a missing permission usually concerns all
    /// channels.
    pub(super) fn log_rejection(&self, channel: &str, error: &RedisError) {
        let (address, message) = (&self.address, describe_error(error));
        if self.rejection_logged.swap(true, Ordering::Relaxed) {
            tracing::debug!(target: "tower_wechat::store", address, channel, "Redis rejected an invalidation channel again: {message}");
            return;
        }
        let remedy = match ErrorClass::classify(error) {
            Some(ErrorClass::NotPermitted) => {
                format!("grant this Redis user +subscribe and +publish on &{channel}")
            }
            Some(
                ErrorClass::Busy
                | ErrorClass::Retry
                | ErrorClass::Replica
                | ErrorClass::WritesRejected
                | ErrorClass::WrongType
                | ErrorClass::WrongNode
                | ErrorClass::Other,
            )
            | None => {
                "nothing can be done if this server or proxy does not support channels".to_owned()
            }
        };
        tracing::warn!(
            target: "tower_wechat::store", address,
            "Redis rejected the invalidation channel {channel} ({message}): other processes see a change \
             only when they read the record again, at the latest after cache_ttl; {remedy}"
        );
    }
}
