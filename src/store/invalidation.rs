//! News: what a store tells the engines that share it of each other's writes.
//!
//! News carries no credential, only a [`Mark`] of it: whoever holds the very same has nothing to
//! do, anybody else asks the store. So news that comes late, twice or from somebody with bad
//! intentions costs a read, and can never bring back what is older.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use tokio::sync::broadcast;

use super::CredentialKey;
use crate::clock::Timestamp;
use crate::credential::{AccessToken, Lifetime, Record};

/// How often a store proves that nothing it has told was missed.
pub(crate) const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(2);

/// How much news waits for an engine that is slow to listen. What is beyond that is lost, and the
/// engine knows.
const EVENT_BUFFER: usize = 4_096;

/// Tells two states of one credential apart, and nothing else of it: the start of a hash of the
/// token and its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordVersion(u64);

impl RecordVersion {
    /// The mark of a token with this life, of a user who has last logged out everywhere then. That
    /// counts: a login that has crossed the logout writes the same token again.
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

    /// The mark of what a record hands out; none where it hands out nothing.
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

    /// Exactly what `Display` writes.
    fn from_str(text: &str) -> Result<Self, ()> {
        let hexadecimal = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let version = hexadecimal.then(|| u64::from_str_radix(text, 16).ok());
        version.flatten().map(Self).ok_or(())
    }
}

/// One write: whose credential, and the mark of what the store holds since.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalidation {
    /// Whose and what it is.
    pub key: CredentialKey,
    /// What is stored; none where nothing is.
    pub version: Option<RecordVersion>,
}

/// What an engine hears.
#[derive(Debug, Clone)]
pub enum Event {
    /// From here on every write is told. What was read before may be outdated.
    Subscribed,
    /// A write.
    Invalidated(Arc<Invalidation>),
    /// All that was written before this moment has been told.
    Synced(Instant),
    /// Something was lost on the way.
    Lagged,
    /// Nothing will be told any more.
    Closed,
}

/// Where a store tells its news; it never waits for those who listen.
#[derive(Debug, Clone)]
pub(super) struct Publisher(broadcast::Sender<Event>);

impl Default for Publisher {
    fn default() -> Self {
        Self(broadcast::Sender::new(EVENT_BUFFER))
    }
}

impl Publisher {
    pub(super) fn publish(&self, event: Event) {
        // Nobody may be listening.
        let _ = self.0.send(event);
    }

    pub(super) fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.0.subscribe()
    }
}

/// What one engine listens to.
#[derive(Debug)]
pub struct Subscription {
    receiver: broadcast::Receiver<Event>,
    /// Whether every write is told already, since this feed began.
    pub is_live: bool,
    /// For a store that tells within this process: when to prove next that all has been heard.
    next_sync_at: Option<tokio::time::Instant>,
}

impl Subscription {
    /// A feed of news that come from outside, together with their proofs.
    #[cfg(feature = "redis")]
    pub(super) fn from_remote(receiver: broadcast::Receiver<Event>, is_live: bool) -> Self {
        Self {
            receiver,
            is_live,
            next_sync_at: None,
        }
    }

    /// A feed of what is written within this process: whatever is not waiting has been heard.
    pub(super) fn from_local(receiver: broadcast::Receiver<Event>) -> Self {
        Self {
            receiver,
            is_live: true,
            next_sync_at: Some(tokio::time::Instant::now()),
        }
    }

    /// What is told next. It may be dropped and asked again.
    pub async fn next_event(&mut self) -> Event {
        if let Some(at) = self.next_sync_at
            && let Ok(told) = tokio::time::timeout_at(at, self.receiver.recv()).await
        {
            return to_event(told);
        } else if self.next_sync_at.is_none() {
            return to_event(self.receiver.recv().await);
        }
        // Taken before the look: whatever was written until now is told or waits to be.
        let now = Instant::now();
        match self.receiver.try_recv() {
            Ok(told) => told,
            Err(broadcast::error::TryRecvError::Lagged(_)) => Event::Lagged,
            Err(broadcast::error::TryRecvError::Closed) => Event::Closed,
            Err(broadcast::error::TryRecvError::Empty) => {
                self.next_sync_at = Some(tokio::time::Instant::now() + HEARTBEAT_INTERVAL);
                Event::Synced(now)
            }
        }
    }

    /// Passes over what waits, after something was missed: all of it is older than what is read
    /// from now on.
    pub fn skip_backlog(&mut self) {
        self.receiver = self.receiver.resubscribe();
    }
}

fn to_event(received: Result<Event, broadcast::error::RecvError>) -> Event {
    match received {
        Ok(told) => told,
        Err(broadcast::error::RecvError::Lagged(_)) => Event::Lagged,
        Err(broadcast::error::RecvError::Closed) => Event::Closed,
    }
}
