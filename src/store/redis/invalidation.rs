//! News over Redis: each write is [published](super::publish) by the very script that makes it, and
//! heard on a connection that does nothing else.
//!
//! One channel for each account carries `KIND MARK ID` for each write (`-` instead of the mark for
//! a deletion). Every store that listens also publishes a proof of its own there now and then, on
//! the connection that it reads and writes through. Redis keeps the order of what it sends to one
//! listener, so a proof that is heard proves that everything published before it was heard too.

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

/// The rest before the channel is subscribed again, at first and at most.
const MIN_RETRY_DELAY: Duration = Duration::from_millis(50);
const MAX_RETRY_DELAY: Duration = Duration::from_secs(2);

/// The rest after Redis has said no: only its operator can change that.
pub(super) const REJECTED_RETRY_DELAY: Duration = Duration::from_secs(60);

/// A message that is longer than any of ours is not read.
const MAX_MESSAGE_LEN: usize = 1_024;

/// The channels that are heard, and the tasks that hear them: dropping this ends those.
#[derive(Default)]
pub(super) struct Channels(Mutex<HashMap<AppId, Channel>>);

#[derive(Default)]
struct Channel {
    publisher: Publisher,
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
        // store, so a subscription that starts as live has missed no earlier event.
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
    async fn run(self) {
        let mut backoff = Backoff::new(MIN_RETRY_DELAY, MAX_RETRY_DELAY);
        loop {
            let began = Instant::now();
            // Before the subscription: a move that is on its way ends it.
            let mut server_changes = self.config.connection.server_changes();
            match self.subscribe().await {
                Ok(messages) => {
                    self.is_live.store(true, Ordering::Release);
                    self.publisher.publish(Event::Subscribed);
                    tokio::select! {
                        () = self.forward_messages(messages) => {}
                        () = self.send_heartbeats() => {}
                        // The old server passes on what the new one publishes, if it follows it.
                        () = server_changes.changed() => {}
                    }
                    self.is_live.store(false, Ordering::Release);
                    tracing::debug!(target: "tower_wechat::store", app = %self.app, address = self.config.address, "the news channel is lost");
                }
                Err(error) if is_permanent(&error) => {
                    self.log_rejection(&error);
                    backoff.set_next(REJECTED_RETRY_DELAY);
                }
                Err(error) => {
                    let said = describe_error(&error);
                    tracing::debug!(target: "tower_wechat::store", app = %self.app, address = self.config.address, "no news channel: {said}");
                }
            }
            if began.elapsed() > MAX_RETRY_DELAY * 4 {
                backoff.set_next(MIN_RETRY_DELAY);
            }
            backoff.wait_with_jitter().await;
        }
    }

    async fn subscribe(&self) -> Result<impl Stream<Item = Msg> + use<>, RedisError> {
        let mut subscriber = self.config.connection.open_subscriber().await?;
        let subscribed = subscriber.subscribe(&self.config.channel);
        let subscribed = tokio::time::timeout(self.config.command_timeout, subscribed).await;
        subscribed.unwrap_or_else(|_| Err(timed_out()))?;
        Ok(subscriber.into_on_message())
    }

    /// One line for what only the operator can change.
    fn log_rejection(&self, error: &RedisError) {
        if self.rejection_logged.swap(true, Ordering::Relaxed) {
            return;
        }
        let (address, channel, said) = (
            &self.config.address,
            &self.config.channel,
            describe_error(error),
        );
        let remedy = match ErrorClass::classify(error) {
            Some(ErrorClass::NotPermitted) => {
                format!("let this user run +subscribe +publish on &{channel}")
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
            | None => "a server or proxy without channels cannot do better".to_owned(),
        };
        tracing::warn!(
            target: "tower_wechat::store", address,
            "Redis does not let us use the channel {channel} ({said}): what one process \
             changes, others see only when they read it again, at the latest after cache_ttl; {remedy}"
        );
    }

    /// Passes on what is published, until the connection ends.
    async fn forward_messages(&self, messages: impl Stream<Item = Msg>) {
        let mut messages = pin!(messages);
        while let Some(message) = messages.next().await {
            match Message::parse(message.get_payload_bytes()) {
                Some(Message::Invalidation {
                    kind,
                    version: mark,
                    id,
                }) => {
                    let (app, id) = (self.app.clone(), id.into());
                    let name = CredentialKey { app, kind, id };
                    self.publisher
                        .publish(Event::Invalidated(Arc::new(Invalidation {
                            key: name,
                            version: mark,
                        })));
                }
                Some(Message::Heartbeat { instance, number })
                    if instance == self.instance.as_str() =>
                {
                    let mut awaited = self.lock_pending_heartbeat();
                    if let Some((_, sent)) = awaited.take_if(|(sent, _)| *sent == number)
                        && self.config.trusts_heartbeats
                    {
                        self.publisher.publish(Event::Synced(sent));
                    }
                }
                Some(Message::Heartbeat { .. }) => {}
                None => {
                    tracing::debug!(target: "tower_wechat::store", app = %self.app, "a message on the news channel is none of ours");
                }
            }
        }
    }

    /// Sends proofs, until one does not come back: the subscription is then as good as dead.
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
                // What others publish can be heard all the same.
                self.log_rejection(error);
                tokio::time::sleep(REJECTED_RETRY_DELAY).await;
                continue;
            }
            tokio::time::sleep(HEARTBEAT_INTERVAL).await;
            // Where it could not be sent, Redis is away, or busy: the next one will tell.
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

/// What goes over a channel.
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

const HEARTBEAT_WORD: &str = "proof";

impl<'a> Message<'a> {
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
                mark => Some(mark.parse().ok()?),
            },
            id: third,
        })
    }
}

fn heartbeat_message(instance: &LeaseOwner, number: u64) -> String {
    format!("{HEARTBEAT_WORD} {} {number}", instance.as_str())
}

/// What the scripts publish of a write.
pub(super) fn invalidation_message(key: &CredentialKey, version: Option<RecordVersion>) -> String {
    let mark = version.map_or_else(|| "-".into(), |mark| mark.to_string());
    format!("{} {mark} {}", key.kind.as_str(), key.id)
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
