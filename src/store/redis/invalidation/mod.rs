//! Invalidation messages over Redis: the script of each write [publishes](super::publish) a
//! message, and each store listens on a separate connection.
//!
//! Each account has one channel, and one connection listens on the channels of all accounts that
//! have subscribers in this process. The message of a write is `KIND VERSION ID`, with `-` as the
//! version of a deletion. Each listener also publishes heartbeats on these channels, through the
//! connection for reads and writes. Redis delivers messages to one subscriber in order. So when a
//! heartbeat comes back, the listener has received every message that was published before that
//! heartbeat.

mod channel_table;
mod channels;
mod heartbeat;
mod listener;
mod listener_config;
mod message;

pub(super) use self::channels::Channels;
pub(super) use self::listener_config::{ListenerConfig, REJECTED_RETRY_DELAY};
pub(super) use self::message::invalidation_message;
#[cfg(feature = "platform")]
pub(super) use self::message::platform_change_message;
