//! Invalidations: messages that report each write of a credential to all engines that share a
//! store.
//!
//! An invalidation contains no credential, only a [`RecordVersion`]. An engine that has cached
//! another version reads the store at the next request; an engine that has cached the same version
//! does nothing. A late, repeated or forged invalidation therefore costs at most one read, and can
//! never restore an older token.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use tokio::sync::mpsc::error::{TryRecvError, TrySendError};
use tokio::sync::{mpsc, watch};

use super::CredentialKey;
#[cfg(feature = "platform")]
use super::PlatformChange;
use crate::clock::Timestamp;
use crate::credential::{AccessToken, Lifetime, Record};

/// Interval between two events [`Event::Synced`], which confirm that a subscriber has missed no
/// invalidation: two seconds. A listener on Redis sends heartbeats at this interval. If its
/// subscription no longer delivers messages, the listener notices this within about two intervals.
pub(crate) const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(2);

/// Number of events that wait for one slow subscriber: 4,096. A subscriber that is further behind
/// misses the next events and receives [`Event::Lagged`]. The number is large,
/// because an engine invalidates its whole cache after that event.
const EVENT_BUFFER: usize = 4_096;

/// A fingerprint of a stored token: the first 64 bits of a hash over the token, its lifetime and
/// the time of revocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordVersion(u64);

impl RecordVersion {
    /// Returns the version of a token, for a user whose time of revocation is `revoked_at`.
    ///
    /// The version depends on the time of revocation, because a login that runs concurrently with a
    /// logout writes the same token again with another time.
    pub fn of_token(
        secret: &AccessToken,
        lifetime: Lifetime,
        revoked_at: Option<Timestamp>,
    ) -> Self {
        let mut hash = Sha256::new();
        hash.update(lifetime.renew_at().as_millis().to_be_bytes());
        hash.update(lifetime.expires_at().as_millis().to_be_bytes());
        if let Some(logout) = revoked_at {
            hash.update(logout.as_millis().to_be_bytes());
        }
        hash.update(secret.expose().as_bytes());
        let mut version = [0; 8];
        version.copy_from_slice(&hash.finalize()[..8]);
        Self(u64::from_be_bytes(version))
    }

    /// Returns the version of a record's access token, or `None` if the record has no access token.
    pub fn of_record(record: &Record) -> Option<Self> {
        let token = record.token.as_ref()?;
        let revoked_at = record.details.sessions_valid_from;
        Some(Self::of_token(&token.secret, token.lifetime, revoked_at))
    }
}

#[cfg(feature = "redis")]
impl std::fmt::Display for RecordVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

#[cfg(feature = "redis")]
impl std::str::FromStr for RecordVersion {
    type Err = ();

    /// Parses 16 hexadecimal digits, as `Display` writes them. Rejects every other text.
    fn from_str(text: &str) -> Result<Self, ()> {
        let hexadecimal = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let version = hexadecimal.then(|| u64::from_str_radix(text, 16).ok());
        version.flatten().map(Self).ok_or(())
    }
}

/// The message about one write: the credential and its new version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalidation {
    /// The credential that was written or deleted.
    pub key: CredentialKey,
    /// The version of the stored access token after the write. `None` if the store then holds no
    /// access token, for example after a deletion.
    pub version: Option<RecordVersion>,
}

/// An event of a [`Subscription`].
#[derive(Debug, Clone)]
pub enum Event {
    /// The subscription has become active. Writes before this event may not have been reported, so
    /// older cache entries may be stale.
    Subscribed,
    /// A process has written or deleted a credential.
    Invalidated(Arc<Invalidation>),
    /// A process has written a durable secret or the entry of an account.
    #[cfg(feature = "platform")]
    PlatformChanged(Arc<PlatformChange>),
    /// The subscriber has received all invalidations of writes before this time.
    Synced(Instant),
    /// The subscriber was too slow and has missed events.
    Lagged,
    /// The publisher has ended. No more events follow.
    Closed,
}

/// Sends events to all subscriptions, without waiting for slow subscribers.
#[derive(Debug, Default)]
pub(super) struct Publisher(Vec<Subscriber>);

/// The sending side of one subscription. Its buffer grows with the events that wait, so that an
/// idle subscription takes little memory.
#[derive(Debug)]
struct Subscriber {
    sender: mpsc::Sender<Event>,
    /// `true` after the subscriber missed an event, until the subscriber has noticed.
    has_lagged: Arc<AtomicBool>,
}

impl Publisher {
    pub(super) fn publish(&mut self, event: &Event) {
        self.0.retain(
            |subscriber| match subscriber.sender.try_send(event.clone()) {
                Ok(()) => true,
                Err(TrySendError::Full(_)) => {
                    // Pairs with the swap in `to_event`. An event that is sent later is received
                    // after the swap has seen this flag.
                    subscriber.has_lagged.store(true, Ordering::Release);
                    true
                }
                Err(TrySendError::Closed(_)) => false,
            },
        );
    }

    pub(super) fn subscribe(&mut self) -> EventReceiver {
        self.0.retain(|subscriber| !subscriber.sender.is_closed());
        let (sender, receiver) = mpsc::channel(EVENT_BUFFER);
        let has_lagged = Arc::new(AtomicBool::new(false));
        self.0.push(Subscriber {
            sender,
            has_lagged: Arc::clone(&has_lagged),
        });
        EventReceiver {
            receiver,
            has_lagged,
        }
    }

    /// Returns `true` if a subscription exists.
    #[cfg(feature = "redis")]
    pub(super) fn has_subscribers(&self) -> bool {
        self.0
            .iter()
            .any(|subscriber| !subscriber.sender.is_closed())
    }
}

/// The receiving side of one subscription.
#[derive(Debug)]
pub(super) struct EventReceiver {
    receiver: mpsc::Receiver<Event>,
    has_lagged: Arc<AtomicBool>,
}

impl EventReceiver {
    /// Waits for the next event. Cancel safe: a dropped future loses no event.
    async fn next(&mut self) -> Event {
        let received = self.receiver.recv().await;
        self.to_event(received)
    }

    /// Returns an event that has already arrived, or `None` if no event has arrived.
    fn try_next(&mut self) -> Option<Event> {
        match self.receiver.try_recv() {
            Ok(event) => Some(self.to_event(Some(event))),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(Event::Closed),
        }
    }

    /// Replaces the received event by [`Event::Lagged`] if an earlier event was lost. The caller
    /// then knows of all losses before this event, because the flag is read after the event.
    fn to_event(&self, received: Option<Event>) -> Event {
        match self.has_lagged.swap(false, Ordering::Acquire) {
            true => Event::Lagged,
            false => received.unwrap_or(Event::Closed),
        }
    }

    /// Discards all events that have arrived.
    fn clear(&mut self) {
        // The flag is cleared first. An event that is lost from here on sets the flag again.
        self.has_lagged.store(false, Ordering::Release);
        while self.receiver.try_recv().is_ok() {}
    }
}

/// The receiver of the events for one engine.
#[derive(Debug)]
pub struct Subscription {
    receiver: EventReceiver,
    /// `true` if the subscription was active when it was created. Otherwise [`Event::Subscribed`]
    /// shows when it becomes active.
    pub is_live: bool,
    /// For a publisher in this process: the time from which `next_event` may return
    /// [`Event::Synced`]. `None` for a remote publisher, which sends that event itself.
    next_sync_at: Option<tokio::time::Instant>,
    /// Counts the changes of the subscriptions to a remote publisher. `None` for a publisher in
    /// this process.
    changes: Option<watch::Sender<u64>>,
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if let Some(changes) = &self.changes {
            // The receiver is closed first, so that the publisher counts the subscribers that are
            // left.
            self.receiver.receiver.close();
            changes.send_modify(|count| *count += 1);
        }
    }
}

impl Subscription {
    /// Creates a subscription to the writes of all processes. The publisher sends
    /// [`Event::Synced`]. The end of the subscription is a change that `changes` counts.
    #[cfg(feature = "redis")]
    pub(super) fn from_remote(
        receiver: EventReceiver,
        is_live: bool,
        changes: watch::Sender<u64>,
    ) -> Self {
        Self {
            receiver,
            is_live,
            next_sync_at: None,
            changes: Some(changes),
        }
    }

    /// Creates a subscription to the writes of this process. The subscription itself creates
    /// [`Event::Synced`], once in each [`HEARTBEAT_INTERVAL`] and only when no other event waits.
    pub(super) fn from_local(receiver: EventReceiver) -> Self {
        Self {
            receiver,
            is_live: true,
            next_sync_at: Some(tokio::time::Instant::now()),
            changes: None,
        }
    }

    /// Waits for the next event. Cancel safe: a dropped future loses no event.
    ///
    /// A subscription to this process alternates between two states:
    ///
    /// - Before `next_sync_at`: waits for an event, at most until that time.
    /// - From `next_sync_at` on: returns an event that has already arrived. If none has arrived,
    ///   returns [`Event::Synced`] and sets the next time.
    pub async fn next_event(&mut self) -> Event {
        let Some(at) = self.next_sync_at else {
            return self.receiver.next().await;
        };
        if let Ok(event) = tokio::time::timeout_at(at, self.receiver.next()).await {
            return event;
        }
        // The time is taken before `try_next`, so that events of earlier writes are already in the
        // channel.
        let now = Instant::now();
        self.receiver.try_next().unwrap_or_else(|| {
            self.next_sync_at = Some(tokio::time::Instant::now() + HEARTBEAT_INTERVAL);
            Event::Synced(now)
        })
    }

    /// Discards all events that have arrived and were not returned. The engine calls this function
    /// after [`Event::Lagged`] and then invalidates its whole cache, so it does not need these
    /// events.
    pub fn skip_backlog(&mut self) {
        self.receiver.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A subscriber that is too slow notices the loss before it receives a later confirmation.
    #[tokio::test]
    async fn a_slow_subscriber_notices_lost_events() {
        let mut publisher = Publisher::default();
        let mut subscription = Subscription::from_local(publisher.subscribe());
        subscription.next_sync_at = None;
        for _ in 0..EVENT_BUFFER {
            publisher.publish(&Event::Subscribed);
        }
        assert!(matches!(subscription.next_event().await, Event::Subscribed));
        publisher.publish(&Event::Subscribed);
        publisher.publish(&Event::Synced(Instant::now()));
        assert!(matches!(subscription.next_event().await, Event::Lagged));
        subscription.skip_backlog();
        publisher.publish(&Event::Subscribed);
        assert!(matches!(subscription.next_event().await, Event::Subscribed));
        drop(publisher);
        assert!(matches!(subscription.next_event().await, Event::Closed));
    }

    #[tokio::test]
    async fn a_publisher_forgets_dropped_subscriptions() {
        let mut publisher = Publisher::default();
        let _stays = publisher.subscribe();
        for _ in 0..1_000 {
            drop(publisher.subscribe());
        }
        assert!(publisher.0.len() <= 2, "{}", publisher.0.len());
        publisher.publish(&Event::Subscribed);
        assert_eq!(publisher.0.len(), 1);
    }
}
