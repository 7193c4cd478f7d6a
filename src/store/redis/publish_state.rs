//! How invalidations are published: by the script of the write, by a separate command, or not at
//! all.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

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
/// - Paused, for one channel: for [`REJECTED_RETRY_DELAY`] after the server has rejected the separate
///   command too, for example because the ACL user lacks permission for the channel. No separate
///   command is sent on this channel during the pause, so its writes are not published.
///
/// The flags are independent of other memory, so `Relaxed` is enough. A task that reads an old
/// value makes one more attempt, which the server rejects again.
#[derive(Default)]
pub(super) struct PublishState {
    /// `true` after the server rejected the text of a script that publishes.
    must_publish_separately: AtomicBool,
    /// `true` after a log line has reported separate publication.
    separate_publishing_logged: AtomicBool,
    /// The end of the pause of each channel on which the server rejected a separate `PUBLISH`.
    paused: Mutex<HashMap<Box<str>, Instant>>,
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

    /// Returns `true` while separate commands on this channel are paused.
    pub(super) fn is_paused(&self, channel: &str) -> bool {
        let until = self.lock_paused().get(channel).copied();
        until.is_some_and(|until| Instant::now() < until)
    }

    /// Pauses separate commands on this channel for [`REJECTED_RETRY_DELAY`]. Called after the
    /// server has rejected such a command. Forgets the pauses that have ended, so that the channels
    /// of earlier accounts take no memory.
    pub(super) fn pause(&self, channel: &str) {
        let now = Instant::now();
        let mut paused = self.lock_paused();
        paused.retain(|_, until| now < *until);
        paused.insert(channel.into(), now + REJECTED_RETRY_DELAY);
    }

    fn lock_paused(&self) -> MutexGuard<'_, HashMap<Box<str>, Instant>> {
        self.paused.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_pause_concerns_one_channel_and_ends() {
        let state = PublishState::default();
        state.pause("wechat:wx1:news");
        assert!(state.is_paused("wechat:wx1:news"));
        assert!(!state.is_paused("wechat:wx2:news"));
        tokio::time::advance(REJECTED_RETRY_DELAY).await;
        assert!(!state.is_paused("wechat:wx1:news"));
        state.pause("wechat:wx2:news");
        assert_eq!(state.lock_paused().len(), 1);
    }
}
