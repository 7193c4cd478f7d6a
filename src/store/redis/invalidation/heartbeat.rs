//! Heartbeats: messages of this process to itself, which show that the subscription delivers
//! messages.
//!
//! Redis delivers messages to one connection in the order in which they were published, on all
//! channels together. One heartbeat on one channel therefore proves, for all channels of the
//! connection, that every earlier message has arrived. The channels take turns, so that the number
//! of heartbeats does not grow with the number of accounts.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::channel_table::ChannelTable;
use super::listener_config::ListenerConfig;
use super::message::heartbeat_message;
use crate::store::LeaseOwner;
use crate::store::invalidation::HEARTBEAT_INTERVAL;
use crate::store::redis::connection::errors::is_permanent;

/// Maximum number of new channels over which one heartbeat goes: 256, so that the heartbeats of
/// many new accounts do not delay the check of the subscription.
const MAX_NEW_CHANNELS: usize = 256;

/// The heartbeats of one listener.
pub(super) struct Heartbeats {
    table: Arc<ChannelTable>,
    config: Arc<ListenerConfig>,
    /// A unique name in each heartbeat, by which the listener recognizes its own heartbeats.
    instance: LeaseOwner,
    /// Number of heartbeats. A heartbeat that an earlier connection has sent late has another
    /// number than all heartbeats of the current connection.
    count: AtomicU64,
    pending: Mutex<Option<PendingHeartbeat>>,
}

/// The latest heartbeat.
struct PendingHeartbeat {
    number: u64,
    sent_at: Instant,
    has_returned: bool,
}

impl Heartbeats {
    pub(super) fn new(table: Arc<ChannelTable>, config: Arc<ListenerConfig>) -> Self {
        Self {
            table,
            config,
            instance: LeaseOwner::unique(),
            count: AtomicU64::new(0),
            pending: Mutex::default(),
        }
    }

    /// Sends a heartbeat in each [`HEARTBEAT_INTERVAL`], while a channel is live. Returns if a
    /// published heartbeat has not come back within that interval, because the connection then no
    /// longer delivers messages.
    pub(super) async fn send(&self) {
        let mut changes = self.table.changes();
        let mut last = None;
        loop {
            changes.mark_unchanged();
            let now = Instant::now();
            let channels = self
                .table
                .heartbeat_channels(last.as_ref(), now, MAX_NEW_CHANNELS);
            if channels.is_empty() {
                // A change makes another channel live. Without one, the time may come to try a
                // channel again on which the server has rejected `PUBLISH`.
                let change = changes.changed();
                let _ = tokio::time::timeout(HEARTBEAT_INTERVAL, change).await;
                continue;
            }
            let number = self.count.fetch_add(1, Ordering::Relaxed);
            *self.lock_pending() = Some(PendingHeartbeat {
                number,
                sent_at: now,
                has_returned: false,
            });
            let published = self.publish(&channels, number).await;
            tokio::time::sleep(HEARTBEAT_INTERVAL).await;
            // A heartbeat that was not published shows nothing about the connection, nor does one
            // on a channel that has left the table. The next heartbeat shows whether the connection
            // delivers messages.
            let mut published = published.iter();
            if published.any(|name| self.table.is_live_since(name, now)) && !self.has_returned() {
                return;
            }
            last = channels.last().cloned();
        }
    }

    /// Publishes one heartbeat on each of these channels, within the command timeout. Returns the
    /// channels on which the server has published the heartbeat.
    async fn publish<'a>(&self, channels: &'a [Arc<str>], number: u64) -> Vec<&'a Arc<str>> {
        let mut connection = self.config.connection.clone();
        let message = heartbeat_message(&self.instance, number);
        let mut published = Vec::with_capacity(channels.len());
        let publish_all = async {
            for channel in channels {
                let mut publish = redis::cmd("PUBLISH");
                publish.arg(&**channel).arg(&message);
                match publish.exec_async(&mut connection).await {
                    Ok(()) => published.push(channel),
                    Err(error) if is_permanent(&error) => {
                        // The listener still receives the messages of other processes.
                        self.config.log_rejection(channel, &error);
                        self.table.mark_publishing_rejected(channel);
                    }
                    Err(_) => return,
                }
            }
        };
        let _ = tokio::time::timeout(self.config.command_timeout, publish_all).await;
        published
    }

    /// Handles a heartbeat that has arrived on a channel. Ignores heartbeats of other processes and
    /// late heartbeats. If heartbeats are trusted, publishes
    /// [`Event::Synced`](crate::store::Event::Synced): for all channels when the first copy of a
    /// heartbeat arrives, and for the channel of each further copy.
    pub(super) fn receive(&self, channel: &str, instance: &str, number: u64) {
        if instance != self.instance.as_str() {
            return;
        }
        let mut pending = self.lock_pending();
        let Some(heartbeat) = pending.as_mut().filter(|sent| sent.number == number) else {
            return;
        };
        let is_first = !std::mem::replace(&mut heartbeat.has_returned, true);
        let sent_at = heartbeat.sent_at;
        drop(pending);
        self.table.mark_publishing_permitted(channel);
        if self.config.trusts_heartbeats {
            self.table
                .publish_synced((!is_first).then_some(channel), sent_at);
        }
    }

    fn has_returned(&self) -> bool {
        let pending = self.lock_pending();
        pending
            .as_ref()
            .is_some_and(|heartbeat| heartbeat.has_returned)
    }

    fn lock_pending(&self) -> MutexGuard<'_, Option<PendingHeartbeat>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
