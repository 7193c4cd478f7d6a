//! Back-off: waits between tries, which double up to a maximum, with or without jitter.

use std::time::Duration;

/// Back-off of a loop that tries something again: each wait is twice as long as the one before it,
/// up to a maximum.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
    max: Duration,
}

impl Backoff {
    /// Creates a back-off whose first wait is `first` and whose later waits are `max` at most.
    pub(crate) const fn new(first: Duration, max: Duration) -> Self {
        Self { next: first, max }
    }

    /// Replaces the next wait. The wait after that is twice as long, up to the maximum.
    #[cfg(any(test, feature = "redis"))]
    pub(crate) fn set_next(&mut self, next: Duration) {
        self.next = next;
    }

    /// Sleeps for the current wait of the back-off, without jitter. Meant for loops that do not run
    /// in several processes at the same moment.
    pub(crate) async fn wait(&mut self) {
        tokio::time::sleep(self.advance()).await;
    }

    /// Sleeps for 75 % to 125 % of the current wait of the back-off. With this jitter, processes
    /// that began to wait at the same moment do not all try again at the same moment.
    pub(crate) async fn wait_with_jitter(&mut self) {
        let wait = self.advance().mul_f64(0.75 + 0.5 * fastrand::f64());
        tokio::time::sleep(wait).await;
    }

    /// Returns the current wait, and doubles it for the next call, up to the maximum.
    fn advance(&mut self) -> Duration {
        let wait = self.next;
        self.next = wait.saturating_mul(2).min(self.max);
        wait
    }
}

/// Returns the wait after `failures` failed tries in a row: `first` after one failure, twice as
/// long after each further one, `max` at most. Jitter shortens the wait by up to a quarter.
pub(crate) fn delay_after(failures: u32, first: Duration, max: Duration) -> Duration {
    let doubled = first.saturating_mul(1 << failures.saturating_sub(1).min(10));
    doubled.min(max).mul_f64(1.0 - 0.25 * fastrand::f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_maximum() {
        let mut backoff = Backoff::new(Duration::from_millis(20), Duration::from_millis(50));
        let waits = [(); 4].map(|()| backoff.advance().as_millis());
        assert_eq!(waits, [20, 40, 50, 50]);
        backoff.set_next(Duration::from_secs(60));
        assert_eq!(backoff.advance(), Duration::from_secs(60));
        assert_eq!(backoff.advance(), Duration::from_millis(50));
    }

    #[test]
    fn delay_doubles_with_each_failure() {
        for (failures, longest) in [(1, 500), (2, 1_000), (5, 8_000), (7, 30_000), (400, 30_000)] {
            let delay = delay_after(
                failures,
                Duration::from_millis(500),
                Duration::from_secs(30),
            );
            let delay = delay.as_millis();
            assert!(
                delay <= longest && delay >= longest * 3 / 4,
                "{failures}: {delay}"
            );
        }
    }
}
