//! Log lines that strangers can cause: one for many.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The time within which one line of each kind is written.
const INTERVAL: Duration = Duration::from_secs(60);

/// Decides which lines are written. Each kind has a name of its own.
#[derive(Debug, Default)]
pub(crate) struct LogLimiter(Mutex<HashMap<&'static str, LineState>>);

#[derive(Debug)]
struct LineState {
    logged_at: Instant,
    suppressed: u64,
}

impl LogLimiter {
    /// Returns how many lines of this kind were left out since the last one, if one may be written
    /// now. Counts this one as left out otherwise.
    pub(crate) fn allow_line(&self, kind: &'static str) -> Option<u64> {
        self.allow_line_at(kind, Instant::now())
    }

    fn allow_line_at(&self, kind: &'static str, now: Instant) -> Option<u64> {
        let mut kinds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(known) = kinds.get_mut(kind) else {
            let first = LineState {
                logged_at: now,
                suppressed: 0,
            };
            kinds.insert(kind, first);
            return Some(0);
        };
        if now.saturating_duration_since(known.logged_at) < INTERVAL {
            known.suppressed = known.suppressed.saturating_add(1);
            return None;
        }
        known.logged_at = now;
        Some(std::mem::take(&mut known.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_one_line_of_each_kind_per_minute() {
        let (lines, now) = (LogLimiter::default(), Instant::now());
        assert_eq!(lines.allow_line_at("a", now), Some(0));
        assert_eq!(lines.allow_line_at("b", now), Some(0));
        for _ in 0..1_000 {
            assert_eq!(
                lines.allow_line_at("a", now + INTERVAL - Duration::from_millis(1)),
                None
            );
        }
        assert_eq!(lines.allow_line_at("a", now + INTERVAL), Some(1_000));
        assert_eq!(lines.allow_line_at("a", now + INTERVAL), None);
        assert_eq!(lines.allow_line_at("a", now + INTERVAL * 2), Some(1));
    }
}
