//! Log lines that would come with every request, at most one in a while.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::clock::duration_millis;

/// When the next line of a kind may be written.
#[derive(Debug)]
pub(super) struct LogRateLimit {
    started: Instant,
    next_at_millis: AtomicU64,
}

impl Default for LogRateLimit {
    fn default() -> Self {
        Self {
            started: Instant::now(),
            next_at_millis: AtomicU64::new(0),
        }
    }
}

impl LogRateLimit {
    /// Returns `true` to one caller in each `span`.
    pub(super) fn allow_one_per(&self, interval: Duration) -> bool {
        let now = duration_millis(self.started.elapsed());
        let due = self.next_at_millis.load(Ordering::Relaxed);
        let next = now.saturating_add(duration_millis(interval)).max(1);
        let exchange = || {
            let order = Ordering::Relaxed;
            self.next_at_millis
                .compare_exchange(due, next, order, order)
        };
        due <= now && exchange().is_ok()
    }
}

/// The lines of one store.
#[derive(Debug, Default)]
pub(super) struct LogRateLimits {
    /// A value that is sealed with a key that this process does not have.
    pub(super) unknown_key: LogRateLimit,
    /// A value that another serializer has written.
    pub(super) serializer: LogRateLimit,
    /// Names that another serializer has written, and the search for them.
    pub(super) java_names: LogRateLimit,
}
