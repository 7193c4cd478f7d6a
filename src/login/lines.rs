//! Log lines that strangers can cause: one for many.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The time within which one line of each kind is written.
const SPAN: Duration = Duration::from_secs(60);

/// Decides which lines are written. Each kind has a name of its own.
#[derive(Debug, Default)]
pub(super) struct Lines(Mutex<HashMap<&'static str, Kind>>);

#[derive(Debug)]
struct Kind {
    written: Instant,
    left_out: u64,
}

impl Lines {
    /// Returns how many lines of this kind were left out since the last one, if one may be written
    /// now. Counts this one as left out otherwise.
    pub(super) fn may_write(&self, kind: &'static str) -> Option<u64> {
        self.at(kind, Instant::now())
    }

    fn at(&self, kind: &'static str, now: Instant) -> Option<u64> {
        let mut kinds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(known) = kinds.get_mut(kind) else {
            let first = Kind {
                written: now,
                left_out: 0,
            };
            kinds.insert(kind, first);
            return Some(0);
        };
        if now.saturating_duration_since(known.written) < SPAN {
            known.left_out = known.left_out.saturating_add(1);
            return None;
        }
        known.written = now;
        Some(std::mem::take(&mut known.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_of_each_kind_is_written_a_minute() {
        let (lines, now) = (Lines::default(), Instant::now());
        assert_eq!(lines.at("a", now), Some(0));
        assert_eq!(lines.at("b", now), Some(0));
        for _ in 0..1_000 {
            assert_eq!(lines.at("a", now + SPAN - Duration::from_millis(1)), None);
        }
        assert_eq!(lines.at("a", now + SPAN), Some(1_000));
        assert_eq!(lines.at("a", now + SPAN), None);
        assert_eq!(lines.at("a", now + SPAN * 2), Some(1));
    }
}
