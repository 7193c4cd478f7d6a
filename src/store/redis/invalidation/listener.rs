//! The task that listens on the channel of one account.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::{Stream, StreamExt};
use redis::{Msg, RedisError};

use super::message::{Message, heartbeat_message};
use crate::backoff::Backoff;
use crate::credential::AppId;
use crate::store::invalidation::{HEARTBEAT_INTERVAL, Invalidation, Publisher};
use crate::store::redis::connection::Connection;
use crate::store::redis::connection::errors::{
    ErrorClass, describe_error, is_permanent, timed_out,
};
use crate::store::{CredentialKey, Event, LeaseOwner};

/// Minimum and maximum delay before the listener subscribes again: 50 milliseconds and two seconds.
/// Without a subscription, this process may serve stale tokens, so the maximum is short.
const MIN_RETRY_DELAY: Duration = Duration::from_millis(50);
const MAX_RETRY_DELAY: Duration = Duration::from_secs(2);

/// Delay after an error reply that repeats until an operator changes something: one minute. The
/// listener still retries, because an operator may do so at any time.
pub(in crate::store::redis) const REJECTED_RETRY_DELAY: Duration = Duration::from_secs(60);

/// The settings from which a [`ChannelListener`] is made.
pub(in crate::store::redis) struct ListenerConfig {
    pub(in crate::store::redis) connection: Connection,
    pub(in crate::store::redis) command_timeout: Duration,
    /// The server's address for log messages, without user and password.
    pub(in crate::store::redis) address: String,
    /// The name of the account's channel.
    pub(in crate::store::redis) channel: String,
    /// `true` if all processes that write also publish. A heartbeat then proves that the listener
    /// has missed no write.
    pub(in crate::store::redis) trusts_heartbeats: bool,
}

/// A task that listens on one channel until it is aborted.
///
/// # States
///
/// - *Waiting*: not subscribed. After a back-off the listener subscribes. An error reply that
///   repeats until an operator changes something is logged once and followed by
///   [`REJECTED_RETRY_DELAY`].
/// - *Live*: subscribed; `is_live` is set, and subscribers got [`Event::Subscribed`]. The listener
///   forwards messages and sends heartbeats. The listener returns to *waiting* when the connection
///   ends, when a heartbeat does not come back, or when commands go to another server.
pub(super) struct ChannelListener {
    app: AppId,
    config: ListenerConfig,
    publisher: Publisher,
    is_live: Arc<AtomicBool>,
    /// A unique name in each heartbeat, by which this listener recognizes its own heartbeats.
    instance: LeaseOwner,
    /// `true` after the listener has logged an error reply that repeats until an operator changes
    /// something.
    rejection_logged: AtomicBool,
    /// The number and the sending time of the pending heartbeat, which was sent and has not come
    /// back.
    pending_heartbeat: Mutex<Option<(u64, Instant)>>,
}

impl ChannelListener {
    pub(super) fn new(
        app: AppId,
        config: ListenerConfig,
        publisher: Publisher,
        is_live: Arc<AtomicBool>,
    ) -> Self {
        Self {
            app,
            config,
            publisher,
            is_live,
            instance: LeaseOwner::unique(),
            rejection_logged: AtomicBool::new(false),
            pending_heartbeat: Mutex::default(),
        }
    }

    /// Runs the listener until its task is aborted.
    pub(super) async fn run(self) {
        let mut backoff = Backoff::new(MIN_RETRY_DELAY, MAX_RETRY_DELAY);
        loop {
            let started_at = Instant::now();
            // The watcher is created before the subscription, because a change of the server
            // between these two steps must end that subscription.
            let mut server_changes = self.config.connection.server_changes();
            match self.subscribe().await {
                Ok(messages) => {
                    // Pairs with the Acquire load in `open_subscription`. The flag is set before
                    // the event: a subscription that reads `false` is registered already and
                    // receives the event.
                    self.is_live.store(true, Ordering::Release);
                    self.publisher.publish(Event::Subscribed);
                    tokio::select! {
                        () = self.forward_messages(messages) => {}
                        () = self.send_heartbeats() => {}
                        // Commands now go to another server. The former server delivers their
                        // messages only if it is a replica of that server.
                        () = server_changes.changed() => {}
                    }
                    self.is_live.store(false, Ordering::Release);
                    tracing::debug!(target: "tower_wechat::store", app = %self.app, address = self.config.address, "the invalidation channel was lost; the subscription is retried");
                }
                Err(error) if is_permanent(&error) => {
                    self.log_rejection(&error);
                    backoff.set_next(REJECTED_RETRY_DELAY);
                }
                Err(error) => {
                    let message = describe_error(&error);
                    tracing::debug!(target: "tower_wechat::store", app = %self.app, address = self.config.address, "the subscription to the invalidation channel failed and is retried: {message}");
                }
            }
            if started_at.elapsed() > MAX_RETRY_DELAY * 4 {
                backoff.set_next(MIN_RETRY_DELAY);
            }
            backoff.wait_with_jitter().await;
        }
    }

    /// Subscribes to the channel on a new connection.
    async fn subscribe(&self) -> Result<impl Stream<Item = Msg> + use<>, RedisError> {
        let mut subscriber = self.config.connection.open_subscriber().await?;
        let subscribed = subscriber.subscribe(&self.config.channel);
        let subscribed = tokio::time::timeout(self.config.command_timeout, subscribed).await;
        subscribed.unwrap_or_else(|_| Err(timed_out()))?;
        Ok(subscriber.into_on_message())
    }

    /// Logs an error reply that repeats until an operator changes something. Later calls log
    /// nothing.
    fn log_rejection(&self, error: &RedisError) {
        if self.rejection_logged.swap(true, Ordering::Relaxed) {
            return;
        }
        let (address, channel, message) = (
            &self.config.address,
            &self.config.channel,
            describe_error(error),
        );
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

    /// Forwards invalidations to the subscribers within this process, until the connection ends.
    /// Publishes [`Event::Synced`] when the pending heartbeat comes back, if heartbeats are
    /// trusted.
    async fn forward_messages(&self, messages: impl Stream<Item = Msg>) {
        let mut messages = pin!(messages);
        while let Some(message) = messages.next().await {
            match Message::parse(message.get_payload_bytes()) {
                Some(Message::Invalidation { kind, version, id }) => {
                    let (app, id) = (self.app.clone(), id.into());
                    let key = CredentialKey { app, kind, id };
                    self.publisher
                        .publish(Event::Invalidated(Arc::new(Invalidation { key, version })));
                }
                Some(Message::Heartbeat { instance, number })
                    if instance == self.instance.as_str() =>
                {
                    let mut pending = self.lock_pending_heartbeat();
                    if let Some((_, sent_at)) = pending.take_if(|(sent, _)| *sent == number)
                        && self.config.trusts_heartbeats
                    {
                        self.publisher.publish(Event::Synced(sent_at));
                    }
                }
                Some(Message::Heartbeat { .. }) => {}
                None => {
                    tracing::debug!(target: "tower_wechat::store", app = %self.app, "ignored a message of another program on the invalidation channel");
                }
            }
        }
    }

    /// Publishes a heartbeat in each [`HEARTBEAT_INTERVAL`]. Returns if a published heartbeat has
    /// not come back within that interval, because the subscription then no longer delivers
    /// messages.
    async fn send_heartbeats(&self) {
        let mut connection = self.config.connection.clone();
        for number in 0_u64.. {
            *self.lock_pending_heartbeat() = Some((number, Instant::now()));
            let mut publish = redis::cmd("PUBLISH");
            publish
                .arg(&self.config.channel)
                .arg(heartbeat_message(&self.instance, number));
            let published = publish.exec_async(&mut connection);
            let published = tokio::time::timeout(self.config.command_timeout, published).await;
            if let Ok(Err(error)) = &published
                && is_permanent(error)
            {
                // The server rejects `PUBLISH`, but the listener still receives the messages of
                // other processes.
                self.log_rejection(error);
                tokio::time::sleep(REJECTED_RETRY_DELAY).await;
                continue;
            }
            tokio::time::sleep(HEARTBEAT_INTERVAL).await;
            // A heartbeat that was not published shows nothing about the subscription. The next
            // heartbeat shows whether it delivers messages.
            if matches!(published, Ok(Ok(()))) && self.lock_pending_heartbeat().is_some() {
                return;
            }
        }
    }

    fn lock_pending_heartbeat(&self) -> MutexGuard<'_, Option<(u64, Instant)>> {
        self.pending_heartbeat
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
