//! The simulator's clock: the system's clock plus an offset that only grows.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::clock::Timestamp;

/// Maximum offset of the simulator's clock: 100 years. Tests need less, and with this limit no sum
/// of times can overflow.
pub(super) const MAX_OFFSET: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

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

/// Returns the number of the day in Beijing since 1 January 1970. The simulator resets daily quotas
/// when this number changes.
pub(super) fn beijing_day(now: Duration) -> u64 {
    let day = Timestamp::from_millis(0).saturating_add(now).beijing_day();
    u64::try_from(day).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

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
