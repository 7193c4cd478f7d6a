//! The time in which a store sends no batches, because the server has rejected one.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::clock::duration_millis;

/// Time without batches after the server has rejected one: one minute. Most such errors last until
/// an operator changes something. A proxy may report a short outage by an error of the same class.
const PAUSE: Duration = Duration::from_secs(60);

/// Whether a store sends batches. All orderings are `Relaxed`, because the value is read by itself.
#[derive(Debug)]
pub(super) struct BatchPause {
    created_at: Instant,
    /// Milliseconds since the creation until which no batches are sent; 0 if none was rejected.
    until: AtomicU64,
}

impl BatchPause {
    pub(super) fn new() -> Self {
        Self {
            created_at: Instant::now(),
            until: AtomicU64::new(0),
        }
    }

    /// Returns `true` if no batches are sent at this time.
    pub(super) fn is_active(&self, now: Instant) -> bool {
        match self.until.load(Ordering::Relaxed) {
            0 => false,
            until => self.millis(now) < until,
        }
    }

    /// Sends no batches for [`PAUSE`]. Returns `true` if this is the first pause.
    pub(super) fn start(&self, now: Instant) -> bool {
        let until = self.millis(now).saturating_add(duration_millis(PAUSE));
        self.until.swap(until, Ordering::Relaxed) == 0
    }

    fn millis(&self, now: Instant) -> u64 {
        duration_millis(now.saturating_duration_since(self.created_at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_pause_ends_after_a_minute() {
        let pause = BatchPause::new();
        assert!(!pause.is_active(Instant::now()));
        assert!(pause.start(Instant::now()));
        assert!(pause.is_active(Instant::now()));
        tokio::time::advance(PAUSE).await;
        assert!(!pause.is_active(Instant::now()));
        assert!(!pause.start(Instant::now()), "only the first is reported");
    }
}
