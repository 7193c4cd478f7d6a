//! How invalidations are published: by the script of the write, by a separate command, or not at
//! all.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

use super::invalidation::REJECTED_RETRY_DELAY;
use super::scripts::PublishMode;

/// The current way in which invalidations are published, shared by all tasks of a store.
///
/// - In the script: the state at start. The write and its invalidation are one atomic step.
/// - Separately: entered for good when the server rejects the text of a script that contains
///   `PUBLISH`, as some managed Clusters do. A separate command then publishes the invalidation
///   after the write. If the process ends between the two, other processes see the write after
///   `cache_ttl`. A server may also reject only the command inside the script. The reply of the
///   script reports this each time, and a separate command publishes that invalidation too.
/// - Paused: for [`REJECTED_RETRY_DELAY`] after the server has rejected the separate command too,
///   for example because the ACL user lacks permission for the channel. No separate command is sent
///   during the pause, so writes are not published.
///
/// The flags are independent of other memory, so `Relaxed` is enough. A task that reads an old
/// value makes one more attempt, which the server rejects again.
#[derive(Default)]
pub(super) struct PublishState {
    /// `true` after the server rejected the text of a script that publishes.
    must_publish_separately: AtomicBool,
    /// `true` after a log line has reported separate publication.
    separate_publishing_logged: AtomicBool,
    /// The end of the pause after the server rejected a separate `PUBLISH`.
    paused_until: Mutex<Option<Instant>>,
}

impl PublishState {
    /// Returns how the invalidation of the next write is published.
    pub(super) fn mode(&self) -> PublishMode {
        match self.must_publish_separately.load(Ordering::Relaxed) {
            true => PublishMode::Separately,
            false => PublishMode::InScript,
        }
    }

    /// Makes all later writes publish by a separate command. Called after the server has rejected
    /// the text of a script that publishes.
    pub(super) fn publish_separately(&self) {
        self.must_publish_separately.store(true, Ordering::Relaxed);
    }

    /// Returns `true` at the first call, so that separate publication is logged once.
    pub(super) fn may_log_separate_publishing(&self) -> bool {
        !self
            .separate_publishing_logged
            .swap(true, Ordering::Relaxed)
    }

    /// Returns `true` while separate commands are paused.
    pub(super) fn is_paused(&self) -> bool {
        let until = self.paused_until.lock();
        let until = until.unwrap_or_else(PoisonError::into_inner);
        until.is_some_and(|until| Instant::now() < until)
    }

    /// Pauses separate commands for [`REJECTED_RETRY_DELAY`]. Called after the server has rejected
    /// such a command.
    pub(super) fn pause(&self) {
        let until = Instant::now() + REJECTED_RETRY_DELAY;
        *self
            .paused_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(until);
    }
}
