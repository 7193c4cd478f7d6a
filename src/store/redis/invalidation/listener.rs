//! The task that listens on the channels of all accounts.

use std::collections::HashSet;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{Stream, StreamExt};
use redis::aio::PubSubSink;
use redis::{Msg, RedisError};

use super::channel_table::ChannelTable;
use super::heartbeat::Heartbeats;
use super::listener_config::{ListenerConfig, REJECTED_RETRY_DELAY};
use super::message::Message;
use crate::backoff::Backoff;
use crate::store::redis::connection::errors::{describe_error, is_permanent, timed_out};

/// Minimum and maximum delay before the listener subscribes again: 50 milliseconds and two seconds.
/// Without a subscription, this process may serve stale tokens, so the maximum is short.
const MIN_RETRY_DELAY: Duration = Duration::from_millis(50);
const MAX_RETRY_DELAY: Duration = Duration::from_secs(2);

/// Maximum number of channels in one `SUBSCRIBE` or `UNSUBSCRIBE`: 128, so that no other command
/// waits long for it.
const CHANNELS_PER_COMMAND: usize = 128;

/// Maximum number of channels without subscribers on a connection: 1,024. There are such channels
/// only if the server rejects `UNSUBSCRIBE`. The listener then opens another connection.
const MAX_LEFTOVER_CHANNELS: usize = 1_024;

/// A task that listens on the channels of a [`ChannelTable`] over one connection. The task ends
/// when the table has no channel left, or is closed.
///
/// # States
///
/// - *Idle*: no channel is due, because the server has rejected all of them. No connection is open.
/// - *Disconnected*: a channel is due. After a back-off the listener opens a connection. An error
///   reply that repeats until an operator changes something is logged once and followed by
///   [`REJECTED_RETRY_DELAY`].
/// - *Connected*: the listener subscribes to channels and unsubscribes from them as accounts come
///   and go, forwards messages and sends heartbeats. The listener returns to *disconnected* when
///   the connection ends, when a heartbeat does not come back, or when commands go to another
///   server. It returns to *idle* when no channel is live or due.
pub(super) struct ChannelListener {
    table: Arc<ChannelTable>,
    /// The number that the table has given to this listener.
    number: u64,
    config: Arc<ListenerConfig>,
    heartbeats: Heartbeats,
}

impl Drop for ChannelListener {
    /// Closes the subscriptions, also when the Tokio runtime drops the task at its shutdown. The
    /// subscribers may then subscribe again, on a runtime that still runs.
    fn drop(&mut self) {
        self.table.close(self.number);
    }
}

impl ChannelListener {
    pub(super) fn new(table: Arc<ChannelTable>, number: u64, config: ListenerConfig) -> Self {
        let config = Arc::new(config);
        Self {
            heartbeats: Heartbeats::new(Arc::clone(&table), Arc::clone(&config)),
            table,
            number,
            config,
        }
    }

    /// Runs the listener until no channel needs it.
    pub(super) async fn run(self) {
        tokio::select! {
            () = self.keep_listening() => {}
            () = self.wait_until_unneeded() => {}
        }
    }

    /// Waits until the table has no channel left, and removes unused channels meanwhile.
    async fn wait_until_unneeded(&self) {
        let mut changes = self.table.changes();
        while self.table.needs_listener(self.number) {
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    async fn keep_listening(&self) {
        let mut backoff = Backoff::new(MIN_RETRY_DELAY, MAX_RETRY_DELAY);
        let address = &self.config.address;
        loop {
            let first_due = self.wait_for_due_channel().await;
            let started_at = Instant::now();
            match self.listen().await {
                Ok(()) => {
                    tracing::debug!(target: "tower_wechat::store", address, "the invalidation channel was lost; the subscription is retried");
                }
                Err(error) if is_permanent(&error) => {
                    self.config.log_rejection(&first_due, &error);
                    backoff.set_next(REJECTED_RETRY_DELAY);
                }
                Err(error) => {
                    let message = describe_error(&error);
                    tracing::debug!(target: "tower_wechat::store", address, "the subscription to the invalidation channel failed and is retried: {message}");
                }
            }
            self.table.mark_lost();
            if started_at.elapsed() > MAX_RETRY_DELAY * 4 {
                backoff.set_next(MIN_RETRY_DELAY);
            }
            backoff.wait_with_jitter().await;
        }
    }

    /// Waits until the listener has to subscribe to a channel, and returns the channel.
    async fn wait_for_due_channel(&self) -> Arc<str> {
        let mut changes = self.table.changes();
        loop {
            changes.mark_unchanged();
            if let Some(channel) = self.table.due_channels(Instant::now(), 1).pop() {
                return channel;
            }
            let (_, next_retry) = self.table.live_count_and_next_retry();
            wait_for_change(&mut changes, next_retry).await;
        }
    }

    /// Listens over a new connection, until the connection is lost or no longer needed.
    ///
    /// # Errors
    /// The error that prevented the connection, or a subscription over it.
    async fn listen(&self) -> Result<(), RedisError> {
        // The watcher is created before the connection, because a change of the server between
        // these two steps must end the connection.
        let mut server_changes = self.config.connection.server_changes();
        let subscriber = self.config.connection.open_subscriber().await?;
        let (sink, messages) = subscriber.split();
        tokio::select! {
            () = self.forward_messages(messages) => Ok(()),
            outcome = self.follow_table(sink) => outcome,
            () = self.heartbeats.send() => Ok(()),
            // Commands now go to another server. The former server delivers their messages only if
            // it is a replica of that server.
            () = server_changes.changed() => Ok(()),
        }
    }

    /// Forwards invalidations to the subscribers within this process, until the connection ends.
    async fn forward_messages(&self, messages: impl Stream<Item = Msg>) {
        let mut messages = pin!(messages);
        while let Some(message) = messages.next().await {
            let channel = message.get_channel_name();
            match Message::parse(message.get_payload_bytes()) {
                Some(Message::Invalidation { kind, version, id }) => {
                    self.table.forward(channel, kind, version, id);
                }
                #[cfg(feature = "platform")]
                Some(Message::PlatformChange { kind, id }) => {
                    self.table.forward_platform_change(channel, kind, id);
                }
                Some(Message::Heartbeat { instance, number }) => {
                    self.heartbeats.receive(channel, instance, number);
                }
                None => {
                    tracing::debug!(target: "tower_wechat::store", channel, "ignored a message of another program on the invalidation channel");
                }
            }
        }
    }

    /// Subscribes to the channels of the table, and unsubscribes from channels that leave it.
    /// Returns if the connection is no longer needed.
    async fn follow_table(&self, mut sink: PubSubSink) -> Result<(), RedisError> {
        let mut changes = self.table.changes();
        let mut subscribed = HashSet::new();
        let mut may_unsubscribe = true;
        loop {
            changes.mark_unchanged();
            if may_unsubscribe {
                may_unsubscribe = self.unsubscribe(&mut sink, &mut subscribed).await?;
            }
            let due = self
                .table
                .due_channels(Instant::now(), CHANNELS_PER_COMMAND);
            if !due.is_empty() {
                self.subscribe(&mut sink, &due, &mut subscribed).await?;
                continue;
            }
            let (live, next_retry) = self.table.live_count_and_next_retry();
            if live == 0 || subscribed.len() > live + MAX_LEFTOVER_CHANNELS {
                return Ok(());
            }
            wait_for_change(&mut changes, next_retry).await;
        }
    }

    /// Subscribes to these channels. If the server rejects all of them together, subscribes to one
    /// after the other, so that a channel without permission does not affect the others.
    async fn subscribe(
        &self,
        sink: &mut PubSubSink,
        channels: &[Arc<str>],
        subscribed: &mut HashSet<Arc<str>>,
    ) -> Result<(), RedisError> {
        let together = self.within_timeout(sink.subscribe(names(channels))).await;
        match together {
            Ok(()) => {
                subscribed.extend(channels.iter().cloned());
                self.table.mark_live(channels);
            }
            Err(error) if !is_permanent(&error) => return Err(error),
            Err(_) if channels.len() > 1 => {
                for channel in channels {
                    let one = std::slice::from_ref(channel);
                    Box::pin(self.subscribe(sink, one, subscribed)).await?;
                }
            }
            Err(error) => {
                for channel in channels {
                    self.config.log_rejection(channel, &error);
                    self.table.mark_rejected(channel);
                }
            }
        }
        Ok(())
    }

    /// Unsubscribes from the channels that the table no longer has. Returns `false` if the server
    /// rejects the command; messages on such channels are then ignored.
    async fn unsubscribe(
        &self,
        sink: &mut PubSubSink,
        subscribed: &mut HashSet<Arc<str>>,
    ) -> Result<bool, RedisError> {
        let unused = subscribed.iter().filter(|name| !self.table.contains(name));
        let unused: Vec<_> = unused.cloned().collect();
        for channels in unused.chunks(CHANNELS_PER_COMMAND) {
            let together = self.within_timeout(sink.unsubscribe(names(channels))).await;
            match together {
                Ok(()) => subscribed.retain(|name| !channels.contains(name)),
                Err(error) if is_permanent(&error) => {
                    let message = describe_error(&error);
                    tracing::debug!(target: "tower_wechat::store", address = self.config.address, "Redis rejected UNSUBSCRIBE: {message}");
                    return Ok(false);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    async fn within_timeout(
        &self,
        command: impl Future<Output = Result<(), RedisError>>,
    ) -> Result<(), RedisError> {
        let done = tokio::time::timeout(self.config.command_timeout, command).await;
        done.unwrap_or_else(|_| Err(timed_out()))
    }
}

fn names(channels: &[Arc<str>]) -> Vec<&str> {
    channels.iter().map(|name| &**name).collect()
}

/// Waits for the next change of the table, until `deadline` at most.
async fn wait_for_change(
    changes: &mut tokio::sync::watch::Receiver<u64>,
    deadline: Option<Instant>,
) {
    let change = changes.changed();
    // The table outlives its listener, so the wait fails only with the end of the listener.
    let _ = match deadline {
        Some(deadline) => tokio::time::timeout_at(deadline.into(), change).await,
        None => Ok(change.await),
    };
}
