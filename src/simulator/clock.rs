//! The simulator's clock: the system's clock plus an offset that only grows.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The largest offset: a century. Tests need less, and no sum of times can overflow with it.
pub(super) const MAX_OFFSET: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// Seconds by which Beijing, where WeChat's days begin, is ahead of UTC.
const BEIJING_OFFSET_SECS: u64 = 8 * 3600;

#[derive(Debug, Default)]
pub(super) struct SimulatedClock {
    offset: Duration,
}

impl SimulatedClock {
    /// Returns the time since the Unix epoch on the simulator's clock.
    pub(super) fn now(&self) -> Duration {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            + self.offset
    }

    pub(super) fn advance(&mut self, by: Duration) {
        self.offset = self.offset.saturating_add(by).min(MAX_OFFSET);
    }

    pub(super) fn offset(&self) -> Duration {
        self.offset
    }
}

/// Returns the number of the day in Beijing. Daily quotas are assumed to be reset at its start.
pub(super) fn beijing_day(now: Duration) -> u64 {
    (now.as_secs() + BEIJING_OFFSET_SECS) / (24 * 3600)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_begins_at_midnight_in_beijing() {
        // 2024-01-01 16:00:00 UTC is 2024-01-02 00:00:00 in Beijing.
        let midnight = Duration::from_secs(1_704_124_800);
        assert_eq!(
            beijing_day(midnight),
            beijing_day(midnight - Duration::from_secs(1)) + 1
        );
    }

    #[test]
    fn advancing_never_overflows() {
        let mut clock = SimulatedClock::default();
        let before = clock.now();
        clock.advance(Duration::from_secs(60));
        assert!(clock.now() >= before + Duration::from_secs(60));
        clock.advance(Duration::MAX);
        assert_eq!(clock.offset(), MAX_OFFSET);
    }
}
