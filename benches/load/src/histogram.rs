//! A histogram of latencies, with buckets of about one percent.

use std::time::Duration;

/// Number of buckets for each doubling of the latency: 64, so that a bucket is 0.8 to 1.6 percent
/// wide.
const STEPS_PER_DOUBLING: usize = 64;
const DOUBLINGS: usize = 36;

#[derive(Clone)]
pub struct Histogram {
    counts: Vec<u64>,
    longest: Duration,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            counts: vec![0; STEPS_PER_DOUBLING * DOUBLINGS],
            longest: Duration::ZERO,
        }
    }
}

impl Histogram {
    pub fn record(&mut self, took: Duration) {
        self.longest = self.longest.max(took);
        self.counts[bucket_of(took.as_nanos() as u64)] += 1;
    }

    pub fn merge(&mut self, other: &Self) {
        self.longest = self.longest.max(other.longest);
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
    }

    pub fn longest(&self) -> Duration {
        self.longest
    }

    /// Returns the latency that the given part of all requests, such as 0.99, did not exceed.
    /// Returns zero if there were no requests.
    pub fn quantile(&self, part: f64) -> Duration {
        let wanted = (self.counts.iter().sum::<u64>() as f64 * part).ceil() as u64;
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted && seen > 0 {
                return Duration::from_nanos(bucket_middle(bucket)).min(self.longest);
            }
        }
        Duration::ZERO
    }
}

fn bucket_of(nanos: u64) -> usize {
    let nanos = nanos.max(STEPS_PER_DOUBLING as u64);
    let doubling = nanos.ilog2() as usize - STEPS_PER_DOUBLING.ilog2() as usize;
    let step = (nanos >> doubling) as usize - STEPS_PER_DOUBLING;
    (doubling * STEPS_PER_DOUBLING + step).min(STEPS_PER_DOUBLING * DOUBLINGS - 1)
}

fn bucket_middle(bucket: usize) -> u64 {
    let (doubling, step) = (bucket / STEPS_PER_DOUBLING, bucket % STEPS_PER_DOUBLING);
    let from = ((STEPS_PER_DOUBLING + step) as u64) << doubling;
    from + (1 << doubling) / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_right_to_a_few_percent() {
        let mut histogram = Histogram::default();
        for micros in 1..=1_000 {
            histogram.record(Duration::from_micros(micros));
        }
        for part in [0.1, 0.5, 0.9, 0.99] {
            let found = histogram.quantile(part).as_nanos() as f64;
            let exact = part * 1e6;
            assert!((found / exact - 1.0).abs() < 0.02, "{part}: {found}");
        }
        assert_eq!(histogram.longest(), Duration::from_millis(1));
    }
}
