//! Invalidation messages over Redis: the script of each write [publishes](super::publish) a message,
//! and each store listens on a separate connection.
//!
//! Each account has one channel. The message of a write is `KIND VERSION ID`, with `-` as the
//! version of a deletion. Each listener also publishes heartbeats on the same channel, through the
//! connection for reads and writes. Redis delivers messages to one subscriber in order. So when a
//! heartbeat comes back, the listener has received every message that was published before it.

use std::collections::HashMap;
use std::fmt;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::{Stream, StreamExt};
use redis::{Msg, RedisError};
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use super::connection::Connection;
use crate::backoff::Backoff;
use crate::credential::AppId;
use crate::store::invalidation::{HEARTBEAT_INTERVAL, Invalidation, Publisher};
use crate::store::redis::connection::errors::{
    ErrorClass, describe_error, is_permanent, timed_out,
};
use crate::store::{CredentialKey, CredentialKind, Event, LeaseOwner, RecordVersion, Subscription};

/// Minimum and maximum delay before the listener subscribes again.
const MIN_RETRY_DELAY: Duration = Duration::from_millis(50);
const MAX_RETRY_DELAY: Duration = Duration::from_secs(2);

/// Delay after an error reply that only an operator can change.
pub(super) const REJECTED_RETRY_DELAY: Duration = Duration::from_secs(60);

/// Maximum length of a message in bytes. Longer ones are not from this crate and are ignored.
const MAX_MESSAGE_LEN: usize = 1_024;

/// The channels of a store and their listeners. Dropping it aborts the listeners.
#[derive(Default)]
pub(super) struct Channels(Mutex<HashMap<AppId, Channel>>);

/// One channel: its subscribers within this process, and its listener.
#[derive(Default)]
struct Channel {
    publisher: Publisher,
    /// `true` while the listener is subscribed.
    is_live: Arc<AtomicBool>,
    task: Option<AbortHandle>,
}

impl Drop for Channels {
    fn drop(&mut self) {
        let channels = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        for task in channels
            .values()
            .filter_map(|channel| channel.task.as_ref())
        {
            task.abort();
        }
    }
}

/// The settings from which a [`ChannelListener`] is made.
pub(super) struct ListenerConfig {
    pub(super) connection: Connection,
    pub(super) command_timeout: Duration,
    /// The server's address for log messages, without user and password.
    pub(super) address: String,
    /// The name of the account's channel.
    pub(super) channel: String,
    /// `true` if all writers publish, so that a heartbeat proves that no change was missed.
    pub(super) trusts_heartbeats: bool,
}

impl Channels {
    /// Subscribes to the channel of an account, and starts its listener where none runs. Returns
    /// `None` outside of a Tokio runtime.
    pub(super) fn open_subscription(
        &self,
        app: &AppId,
        config: impl FnOnce() -> ListenerConfig,
    ) -> Option<Subscription> {
        let runtime = Handle::try_current().ok()?;
        let mut channels = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let channel = channels.entry(app.clone()).or_default();
        // A listener ends with the runtime that ran it, although nothing has aborted it.
        if channel.task.as_ref().is_none_or(AbortHandle::is_finished) {
            channel.is_live.store(false, Ordering::Release);
            let listener = ChannelListener {
                app: app.clone(),
                config: config(),
                publisher: channel.publisher.clone(),
                is_live: Arc::clone(&channel.is_live),
                instance: LeaseOwner::unique(),
                rejection_logged: AtomicBool::new(false),
                pending_heartbeat: Mutex::default(),
            };
            channel.task = Some(runtime.spawn(listener.run()).abort_handle());
        }
        // The receiver comes first: if the listener subscribes between these two steps, the
        // receiver gets `Event::Subscribed`. The Acquire load pairs with the listener's Release
        // store.
        let receiver = channel.publisher.subscribe();
        Some(Subscription::from_remote(
            receiver,
            channel.is_live.load(Ordering::Acquire),
        ))
    }
}

/// A task that listens on one channel until it is aborted.
///
/// # States
///
/// - *Waiting*: not subscribed. After a back-off the listener subscribes. An error reply that only
///   an operator can change is logged once and followed by [`REJECTED_RETRY_DELAY`].
/// - *Live*: subscribed; `is_live` is set, and subscribers got [`Event::Subscribed`]. The listener
///   forwards messages and sends heartbeats. It returns to *waiting* when the connection ends, when
///   a heartbeat does not come back, or when commands go to another server.
struct ChannelListener {
    app: AppId,
    config: ListenerConfig,
    publisher: Publisher,
    is_live: Arc<AtomicBool>,
    /// The identity in this listener's heartbeats.
    instance: LeaseOwner,
    /// `true` once an error reply was logged that only an operator can change.
    rejection_logged: AtomicBool,
    /// The number and time of the heartbeat that was sent and has not come back.
    pending_heartbeat: Mutex<Option<(u64, Instant)>>,
}

impl ChannelListener {
    /// Runs the listener. It never returns.
    async fn run(self) {
        let mut backoff = Backoff::new(MIN_RETRY_DELAY, MAX_RETRY_DELAY);
        loop {
            let started_at = Instant::now();
            // The watcher comes before the subscription: a change of the server in between must end
            // that subscription.
            let mut server_changes = self.config.connection.server_changes();
            match self.subscribe().await {
                Ok(messages) => {
                    // Pairs with the Acquire load in `open_subscription`. The flag is set before the event:
                    // a subscription that reads `false` is registered already and receives the event.
                    self.is_live.store(true, Ordering::Release);
                    self.publisher.publish(Event::Subscribed);
                    tokio::select! {
                        () = self.forward_messages(messages) => {}
                        () = self.send_heartbeats() => {}
                        // The former server forwards messages only if it is a replica of the new one.
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

    /// Logs once an error reply that only an operator can change.
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

    /// Forwards messages to the subscribers within this process, until the connection ends.
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

    /// Sends heartbeats. Returns when one was published and did not come back in time: the
    /// subscription no longer delivers messages.
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
                // The listener still receives the messages of other processes.
                self.log_rejection(error);
                tokio::time::sleep(REJECTED_RETRY_DELAY).await;
                continue;
            }
            tokio::time::sleep(HEARTBEAT_INTERVAL).await;
            // A heartbeat that was not published shows nothing about the subscription. The next
            // heartbeat decides.
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

impl fmt::Debug for Channels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Channels")
    }
}

/// A message on a channel.
#[derive(Debug, PartialEq, Eq)]
enum Message<'a> {
    Invalidation {
        kind: CredentialKind,
        version: Option<RecordVersion>,
        id: &'a str,
    },
    Heartbeat {
        instance: &'a str,
        number: u64,
    },
}

/// The first word of heartbeats. Other processes parse it, so it must not change.
const HEARTBEAT_WORD: &str = "proof";

impl<'a> Message<'a> {
    /// Parses a message. Returns `None` for one that is not from this crate.
    fn parse(payload: &'a [u8]) -> Option<Self> {
        if payload.len() > MAX_MESSAGE_LEN {
            return None;
        }
        let (kind, rest) = std::str::from_utf8(payload).ok()?.split_once(' ')?;
        let (second, third) = rest.split_once(' ')?;
        if kind == HEARTBEAT_WORD {
            return Some(Self::Heartbeat {
                instance: second,
                number: third.parse().ok()?,
            });
        }
        Some(Self::Invalidation {
            kind: CredentialKind::ALL
                .into_iter()
                .find(|known| known.as_str() == kind)?,
            version: match second {
                "-" => None,
                version => Some(version.parse().ok()?),
            },
            id: third,
        })
    }
}

/// Returns the message of a heartbeat.
fn heartbeat_message(instance: &LeaseOwner, number: u64) -> String {
    format!("{HEARTBEAT_WORD} {} {number}", instance.as_str())
}

/// Returns the message that a script publishes for a write, without a version for a deletion.
pub(super) fn invalidation_message(key: &CredentialKey, version: Option<RecordVersion>) -> String {
    let version = version.map_or_else(|| "-".into(), |version| version.to_string());
    format!("{} {version} {}", key.kind.as_str(), key.id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_invalidation_message_parses_back(at in 0..CredentialKind::ALL.len(), version: Option<u64>, id in "\\PC{0,64}") {
            let kind = CredentialKind::ALL[at];
            let version = version.map(|version| format!("{version:016x}").parse::<RecordVersion>().unwrap());
            let name = CredentialKey { app: AppId::new("wx1").unwrap(), kind, id: id.as_str().into() };
            let text = invalidation_message(&name, version);
            prop_assert_eq!(Message::parse(text.as_bytes()), Some(Message::Invalidation { kind, version, id: &id }));
        }

        #[test]
        fn no_bytes_make_the_parser_panic(bytes: Vec<u8>) {
            let _ = Message::parse(&bytes);
        }

        #[test]
        fn no_message_like_text_makes_the_parser_panic(
            text in "(user|snapshot_user|access_token|proof|x)? ?(-|[0-9a-f+-]{0,20}|\\PC{0,8}) ?\\PC{0,16}",
        ) {
            let _ = Message::parse(text.as_bytes());
        }
    }

    #[test]
    fn malformed_messages_are_ignored() {
        fn read(text: &str) -> Option<Message<'_>> {
            Message::parse(text.as_bytes())
        }
        assert!(read("user 00000000000000ff oA").is_some());
        assert!(read("user - two words").is_some());
        for text in [
            "",
            "user",
            "user oA",
            "user ff oA",
            "user 00000000000000fg oA",
            "user +0000000000000ff oA",
            "users - oA",
            "proof x -1",
            "proof x",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
        assert_eq!(
            read(&format!("user - {}", "a".repeat(MAX_MESSAGE_LEN))),
            None
        );
        let owner = LeaseOwner::unique();
        let (instance, number) = (owner.as_str(), 7);
        assert_eq!(
            read(&heartbeat_message(&owner, 7)),
            Some(Message::Heartbeat { instance, number })
        );
    }
}
