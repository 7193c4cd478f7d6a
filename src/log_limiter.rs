//! The rate limiter of log lines that every request, or any client, could cause.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::clock::{Timestamp, duration_millis};

/// Time for which further lines of one kind are suppressed after a line: one minute. Callers of
/// [`LogLimiter::allow_line_every`] set another interval.
const INTERVAL: Duration = Duration::from_secs(60);

/// Limiter of log lines: allows one line of each kind in each interval. A kind is a name that the
/// caller chooses. The limiter counts the lines that it suppresses, and the next line can report
/// their number.
#[derive(Debug)]
pub(crate) struct LogLimiter {
    started: Instant,
    kinds: Mutex<HashMap<&'static str, LineState>>,
}

/// The time of the last line of one kind, and the number of lines suppressed since then.
#[derive(Debug)]
struct LineState {
    logged_at_millis: u64,
    suppressed: u64,
}

impl Default for LogLimiter {
    fn default() -> Self {
        Self {
            started: Instant::now(),
            kinds: Mutex::default(),
        }
    }
}

impl LogLimiter {
    /// Allows one line of this kind a minute. Returns the number of lines that were suppressed
    /// since the last allowed line, or `None` if this line is suppressed too.
    pub(crate) fn allow_line(&self, kind: &'static str) -> Option<u64> {
        self.allow_line_every(kind, INTERVAL)
    }

    /// Does the same as [`allow_line`](Self::allow_line), with one line in each `interval`.
    #[cfg_attr(not(feature = "redis"), allow(dead_code))]
    pub(crate) fn allow_line_every(&self, kind: &'static str, interval: Duration) -> Option<u64> {
        self.allow_line_at(kind, duration_millis(self.started.elapsed()), interval)
    }

    /// Does the same as [`allow_line`](Self::allow_line) by the time of the application's clock.
    ///
    /// All lines of one kind must be timed by the same clock.
    pub(crate) fn allow_line_by_clock(&self, kind: &'static str, now: Timestamp) -> Option<u64> {
        let now_millis = u64::try_from(now.as_millis()).unwrap_or(0);
        self.allow_line_at(kind, now_millis, INTERVAL)
    }

    fn allow_line_at(&self, kind: &'static str, now: u64, interval: Duration) -> Option<u64> {
        let mut kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(last) = kinds.get_mut(kind) else {
            let first = LineState {
                logged_at_millis: now,
                suppressed: 0,
            };
            kinds.insert(kind, first);
            return Some(0);
        };
        let due = last
            .logged_at_millis
            .saturating_add(duration_millis(interval));
        // A time before the last line means that the wall clock was set back. The line is then
        // allowed; otherwise all lines would be suppressed until the clock reaches its old time.
        if (last.logged_at_millis..due).contains(&now) {
            last.suppressed = last.suppressed.saturating_add(1);
            return None;
        }
        last.logged_at_millis = now;
        Some(std::mem::take(&mut last.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_one_line_of_each_kind_per_minute() {
        let limiter = LogLimiter::default();
        let line = |kind, millis| limiter.allow_line_at(kind, millis, INTERVAL);
        assert_eq!(line("a", 0), Some(0));
        assert_eq!(line("b", 0), Some(0));
        for _ in 0..1_000 {
            assert_eq!(line("a", 59_999), None);
        }
        assert_eq!(line("a", 60_000), Some(1_000));
        assert_eq!(line("a", 60_000), None);
        assert_eq!(line("a", 120_000), Some(1));
    }

    #[test]
    fn clock_that_is_set_back_allows_a_line() {
        let limiter = LogLimiter::default();
        let line = |millis| limiter.allow_line_by_clock("a", Timestamp::from_millis(millis));
        assert_eq!(line(1_000_000), Some(0));
        assert_eq!(line(1_000_001), None);
        assert_eq!(line(999_999), Some(1));
    }
}
