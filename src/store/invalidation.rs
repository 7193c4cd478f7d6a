//! Invalidations: messages about writes, for all engines that share a store.
//!
//! An invalidation contains no credential, only a [`RecordVersion`]. An engine whose cache holds
//! the same version does nothing; any other engine reads the store. An invalidation that is late,
//! repeated or forged therefore costs one read, and can never restore an older token.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use tokio::sync::broadcast;

use super::CredentialKey;
use crate::clock::Timestamp;
use crate::credential::{AccessToken, Lifetime, Record};

/// Interval of [`Event::Synced`], which confirms that a subscriber has missed no invalidation. A
/// subscription that no longer delivers messages is noticed within two intervals.
pub(crate) const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(2);

/// Number of events that wait for one slow subscriber. If more arrive, the oldest are lost and the
/// subscriber receives [`Event::Lagged`]. The number is large, because a subscriber then reads all
/// its records again.
const EVENT_BUFFER: usize = 4_096;

/// A fingerprint of a stored token: the first 64 bits of a hash over the token, its lifetime and
/// the time of revocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordVersion(u64);

impl RecordVersion {
    /// Returns the version of a token.
    ///
    /// The version contains the time of revocation, because a login that runs concurrently with a
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

    /// Returns the version of the access token of a record. Returns `None` without an access token.
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

    /// Parses the output of `Display`, and nothing else.
    fn from_str(text: &str) -> Result<Self, ()> {
        let hexadecimal = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let version = hexadecimal.then(|| u64::from_str_radix(text, 16).ok());
        version.flatten().map(Self).ok_or(())
    }
}

/// The message about one write: the credential and its new version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalidation {
    /// The credential.
    pub key: CredentialKey,
    /// The version that the store holds. `None` if the credential was deleted.
    pub version: Option<RecordVersion>,
}

/// An event of a [`Subscription`].
#[derive(Debug, Clone)]
pub enum Event {
    /// The subscription is active. Cache entries from before this event may be stale.
    Subscribed,
    /// A process wrote a credential.
    Invalidated(Arc<Invalidation>),
    /// The subscriber has received all invalidations of writes before this time.
    Synced(Instant),
    /// Events were lost.
    Lagged,
    /// The publisher has ended. No more events follow.
    Closed,
}

/// The sending side of subscriptions. It never waits for a subscriber.
#[derive(Debug, Clone)]
pub(super) struct Publisher(broadcast::Sender<Event>);

impl Default for Publisher {
    fn default() -> Self {
        Self(broadcast::Sender::new(EVENT_BUFFER))
    }
}

impl Publisher {
    pub(super) fn publish(&self, event: Event) {
        // Fails only if there is no subscriber.
        let _ = self.0.send(event);
    }

    pub(super) fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.0.subscribe()
    }
}

/// The receiving side: the events for one engine.
#[derive(Debug)]
pub struct Subscription {
    receiver: broadcast::Receiver<Event>,
    /// `true` if the subscription has been active since its creation, so that it needs no
    /// [`Event::Subscribed`].
    pub is_live: bool,
    /// The time of the next [`Event::Synced`], for a publisher in this process.
    next_sync_at: Option<tokio::time::Instant>,
}

impl Subscription {
    /// Creates a subscription whose publisher also sends [`Event::Synced`].
    #[cfg(feature = "redis")]
    pub(super) fn from_remote(receiver: broadcast::Receiver<Event>, is_live: bool) -> Self {
        Self {
            receiver,
            is_live,
            next_sync_at: None,
        }
    }

    /// Creates a subscription to the writes of this process. The subscription itself creates
    /// [`Event::Synced`], once in each [`HEARTBEAT_INTERVAL`] and only when no other event waits.
    pub(super) fn from_local(receiver: broadcast::Receiver<Event>) -> Self {
        Self {
            receiver,
            is_live: true,
            next_sync_at: Some(tokio::time::Instant::now()),
        }
    }

    /// Waits for the next event. Cancel safe: a dropped future loses no event.
    ///
    /// A subscription to this process alternates between two states:
    ///
    /// - Before `next_sync_at`: waits for an event, at most until that time.
    /// - After it: returns a waiting event. Without one, returns [`Event::Synced`] and sets the
    ///   next time.
    pub async fn next_event(&mut self) -> Event {
        if let Some(at) = self.next_sync_at
            && let Ok(received) = tokio::time::timeout_at(at, self.receiver.recv()).await
        {
            return to_event(received);
        } else if self.next_sync_at.is_none() {
            return to_event(self.receiver.recv().await);
        }
        // The time is taken before `try_recv`, so that events of earlier writes are already in the
        // channel.
        let now = Instant::now();
        match self.receiver.try_recv() {
            Ok(event) => event,
            Err(broadcast::error::TryRecvError::Lagged(_)) => Event::Lagged,
            Err(broadcast::error::TryRecvError::Closed) => Event::Closed,
            Err(broadcast::error::TryRecvError::Empty) => {
                self.next_sync_at = Some(tokio::time::Instant::now() + HEARTBEAT_INTERVAL);
                Event::Synced(now)
            }
        }
    }

    /// Drops all waiting events. After a loss, the engine reads everything again, so waiting events
    /// are older than its reads.
    pub fn skip_backlog(&mut self) {
        self.receiver = self.receiver.resubscribe();
    }
}

fn to_event(received: Result<Event, broadcast::error::RecvError>) -> Event {
    match received {
        Ok(event) => event,
        Err(broadcast::error::RecvError::Lagged(_)) => Event::Lagged,
        Err(broadcast::error::RecvError::Closed) => Event::Closed,
    }
}
