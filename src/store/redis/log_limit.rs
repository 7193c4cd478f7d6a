//! Log lines that would come with every request, at most one in a while.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::guard::millis;

/// When the next line of a kind may be written.
#[derive(Debug)]
pub(super) struct LogLimit {
    started: Instant,
    next: AtomicU64,
}

impl Default for LogLimit {
    fn default() -> Self {
        Self {
            started: Instant::now(),
            next: AtomicU64::new(0),
        }
    }
}

impl LogLimit {
    /// Returns `true` to one caller in each `span`.
    pub(super) fn allows_one_in(&self, span: Duration) -> bool {
        let now = millis(self.started.elapsed());
        let due = self.next.load(Ordering::Relaxed);
        let next = now.saturating_add(millis(span)).max(1);
        let exchange = || {
            let order = Ordering::Relaxed;
            self.next.compare_exchange(due, next, order, order)
        };
        due <= now && exchange().is_ok()
    }
}

/// The lines of one store.
#[derive(Debug, Default)]
pub(super) struct Lines {
    /// A value that is sealed with a key that this process does not have.
    pub(super) other_key: LogLimit,
    /// A value that another serializer has written.
    pub(super) serializer: LogLimit,
    /// Names that another serializer has written, and the search for them.
    pub(super) names: LogLimit,
}
