//! News: what a store tells the engines that share it of each other's writes.
//!
//! News carries no credential, only a [`Mark`] of it: whoever holds the very same has nothing to
//! do, anybody else asks the store. So news that comes late, twice or from somebody with bad
//! intentions costs a read, and can never bring back what is older.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use tokio::sync::broadcast;

use super::Name;
use crate::clock::Timestamp;
use crate::credential::{AccessToken, Lifetime, Record};

/// How often a store proves that nothing it has told was missed.
pub(crate) const PROVED_EVERY: Duration = Duration::from_secs(2);

/// How much news waits for an engine that is slow to listen. What is beyond that is lost, and the
/// engine knows.
const WAITING: usize = 4_096;

/// Tells two states of one credential apart, and nothing else of it: the start of a hash of the
/// token and its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark(u64);

impl Mark {
    /// The mark of a token with this life, of a user who has last logged out everywhere then. That
    /// counts: a login that has crossed the logout writes the same token again.
    pub fn of(secret: &AccessToken, lifetime: Lifetime, logout: Option<Timestamp>) -> Self {
        let mut hash = Sha256::new();
        hash.update(lifetime.renew_at().as_millis().to_be_bytes());
        hash.update(lifetime.expires_at().as_millis().to_be_bytes());
        if let Some(logout) = logout {
            hash.update(logout.as_millis().to_be_bytes());
        }
        hash.update(secret.expose().as_bytes());
        let mut mark = [0; 8];
        mark.copy_from_slice(&hash.finalize()[..8]);
        Self(u64::from_be_bytes(mark))
    }

    /// The mark of what a record hands out; none where it hands out nothing.
    pub fn of_record(record: &Record) -> Option<Self> {
        let token = record.token.as_ref()?;
        let logout = record.details.sessions_from;
        Some(Self::of(&token.secret, token.lifetime, logout))
    }
}

#[cfg(feature = "redis")]
impl std::fmt::Display for Mark {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

#[cfg(feature = "redis")]
impl std::str::FromStr for Mark {
    type Err = ();

    /// Exactly what `Display` writes.
    fn from_str(text: &str) -> Result<Self, ()> {
        let hexadecimal = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let mark = hexadecimal.then(|| u64::from_str_radix(text, 16).ok());
        mark.flatten().map(Self).ok_or(())
    }
}

/// One write: whose credential, and the mark of what the store holds since.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct News {
    /// Whose and what it is.
    pub name: Name,
    /// What is stored; none where nothing is.
    pub mark: Option<Mark>,
}

/// What an engine hears.
#[derive(Debug, Clone)]
pub enum Told {
    /// From here on every write is told. What was read before may be outdated.
    Listening,
    /// A write.
    Written(Arc<News>),
    /// All that was written before this moment has been told.
    Complete(Instant),
    /// Something was lost on the way.
    Missed,
    /// Nothing will be told any more.
    Ended,
}

/// Where a store tells its news; it never waits for those who listen.
#[derive(Debug, Clone)]
pub(super) struct Teller(broadcast::Sender<Told>);

impl Default for Teller {
    fn default() -> Self {
        Self(broadcast::Sender::new(WAITING))
    }
}

impl Teller {
    pub(super) fn tell(&self, told: Told) {
        // Nobody may be listening.
        let _ = self.0.send(told);
    }

    pub(super) fn listen(&self) -> broadcast::Receiver<Told> {
        self.0.subscribe()
    }
}

/// What one engine listens to.
#[derive(Debug)]
pub struct Feed {
    receiver: broadcast::Receiver<Told>,
    /// Whether every write is told already, since this feed began.
    pub listening: bool,
    /// For a store that tells within this process: when to prove next that all has been heard.
    prove_at: Option<tokio::time::Instant>,
}

impl Feed {
    /// A feed of news that come from outside, together with their proofs.
    #[cfg(feature = "redis")]
    pub(super) fn from_outside(receiver: broadcast::Receiver<Told>, listening: bool) -> Self {
        Self {
            receiver,
            listening,
            prove_at: None,
        }
    }

    /// A feed of what is written within this process: whatever is not waiting has been heard.
    pub(super) fn from_within(receiver: broadcast::Receiver<Told>) -> Self {
        Self {
            receiver,
            listening: true,
            prove_at: Some(tokio::time::Instant::now()),
        }
    }

    /// What is told next. It may be dropped and asked again.
    pub async fn next(&mut self) -> Told {
        if let Some(at) = self.prove_at
            && let Ok(told) = tokio::time::timeout_at(at, self.receiver.recv()).await
        {
            return heard(told);
        } else if self.prove_at.is_none() {
            return heard(self.receiver.recv().await);
        }
        // Taken before the look: whatever was written until now is told or waits to be.
        let now = Instant::now();
        match self.receiver.try_recv() {
            Ok(told) => told,
            Err(broadcast::error::TryRecvError::Lagged(_)) => Told::Missed,
            Err(broadcast::error::TryRecvError::Closed) => Told::Ended,
            Err(broadcast::error::TryRecvError::Empty) => {
                self.prove_at = Some(tokio::time::Instant::now() + PROVED_EVERY);
                Told::Complete(now)
            }
        }
    }

    /// Passes over what waits, after something was missed: all of it is older than what is read
    /// from now on.
    pub fn catch_up(&mut self) {
        self.receiver = self.receiver.resubscribe();
    }
}

fn heard(told: Result<Told, broadcast::error::RecvError>) -> Told {
    match told {
        Ok(told) => told,
        Err(broadcast::error::RecvError::Lagged(_)) => Told::Missed,
        Err(broadcast::error::RecvError::Closed) => Told::Ended,
    }
}
