//! The figures of a run, in the form of results.json.

use serde::{Deserialize, Serialize};

use crate::machine::Machine;

#[derive(Serialize, Deserialize)]
pub struct Results {
    /// `true` for a quick run, which shows that the benchmark works, and whose figures mean
    /// nothing.
    pub quick: bool,
    pub machine: Machine,
    /// Every contender against bare axum.
    pub throughput: Comparison,
    /// The contenders without a cache against a hand-written `HGET`, one comparison for each load.
    pub uncached: Vec<Comparison>,
    pub memory: Memory,
    pub herds: Vec<Herd>,
    pub restart: Restart,
    pub growth: Vec<Growth>,
}

/// The result of a comparison of servers with a reference, under one load.
#[derive(Serialize, Deserialize)]
pub struct Comparison {
    /// The name of the reference, which is the contender of the first row.
    pub reference: String,
    pub users: usize,
    pub connections: usize,
    /// The delay between the servers and Redis. `None` means that both are on the loopback.
    pub delay: Option<Delay>,
    pub slice_secs: f64,
    /// The number of measured pairs, of which `discarded` were disturbed.
    pub pairs: usize,
    pub discarded: usize,
    /// `true` if every contender has enough undisturbed pairs, and only these count. With too few
    /// undisturbed pairs, all pairs of a contender count.
    pub quiet: bool,
    /// The noise of the p99 of the reference. In nine of ten pairs of neighbouring slices, the p99
    /// differs at most by this factor.
    pub p99_noise: f64,
    pub rows: Vec<Row>,
}

impl Comparison {
    pub fn row(&self, name: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.contender == name)
    }

    /// Returns where Redis is for the servers: on the loopback, or behind a delay.
    pub fn redis_place(&self) -> String {
        match self.delay {
            None => "loopback".to_owned(),
            Some(delay) => format!("{:.1} ms away", delay.intended_ms),
        }
    }
}

/// The figures of one server.
#[derive(Serialize, Deserialize)]
pub struct Row {
    pub contender: String,
    pub pairs: usize,
    pub requests_per_second: f64,
    /// The contender's requests per second, divided by those of the reference.
    pub throughput: Spread,
    pub cpu_micros: f64,
    /// The processor time of the server per request, divided by that of the reference.
    pub cpu: Spread,
    /// The processor time of Redis per request.
    pub redis_cpu_micros: f64,
    /// The processor time of the server and Redis per request, divided by that of the reference and
    /// Redis.
    pub total_cpu: Spread,
    pub p50_micros: f64,
    /// The contender's median latency, divided by that of the reference.
    pub p50: Spread,
    pub p99_micros: f64,
    /// The contender's 99th percentile of the latency, divided by that of the reference.
    pub p99: Spread,
    pub redis_commands: f64,
    /// Number of round trips to Redis for each request, measured with one request at a time. Only
    /// the comparison with bare axum measures it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub redis_round_trips: Option<f64>,
    /// Instructions of the server for each request. Only the comparison with bare axum has them, if
    /// there is valgrind.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub instructions: Option<f64>,
}

/// The delay of the replies of Redis, in milliseconds.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Delay {
    pub intended_ms: f64,
    /// What the proxy added to a round trip, in the median.
    pub measured_ms: f64,
}

/// The median of a list of figures, with the lower and the upper quartile.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Spread {
    pub low: f64,
    pub median: f64,
    pub high: f64,
}

impl Spread {
    pub fn from_figures(mut figures: Vec<f64>) -> Self {
        figures.sort_by(f64::total_cmp);
        let at = |part: f64| -> f64 {
            let place = part * (figures.len().max(1) - 1) as f64;
            let (below, above) = (place.floor() as usize, place.ceil() as usize);
            match (figures.get(below), figures.get(above)) {
                (Some(low), Some(high)) => low + (high - low) * place.fract(),
                _ => f64::NAN,
            }
        };
        Self {
            low: at(0.25),
            median: at(0.5),
            high: at(0.75),
        }
    }
}

#[derive(Serialize, Deserialize)]
pub struct Memory {
    pub cached_users: usize,
    pub bytes_per_cached_user: f64,
    pub stored_users: usize,
    pub redis_bytes_per_user_hashes: f64,
    pub redis_bytes_per_user_keys: f64,
}

/// The result of many concurrent requests for users whose tokens have expired. The figures are
/// those of the run with the median time.
#[derive(Serialize, Deserialize)]
pub struct Herd {
    pub layout: String,
    pub processes: usize,
    pub requests: usize,
    pub users: usize,
    pub runs: usize,
    /// The number of calls to WeChat of one run: of all runs, the number that differs most from the
    /// number of users.
    pub calls_to_wechat: u64,
    /// Number of responses other than 200 with the user's id, in all runs.
    pub refused: u64,
    pub all_answered_ms: f64,
    pub median_wait_ms: f64,
    pub longest_wait_ms: f64,
    pub redis_commands: u64,
}

/// The result of one request of every user to a new process with an empty cache, and of another one
/// with the full cache. The figures are medians over the processes.
#[derive(Serialize, Deserialize)]
pub struct Restart {
    pub users: usize,
    pub processes: usize,
    pub empty: Pass,
    pub full: Pass,
    /// The time with the empty cache, divided by the time of the same process with the full cache.
    pub ratio: Spread,
}

/// The result of one request of every user.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Pass {
    /// Time until all requests were answered.
    pub ms: f64,
    pub p99_micros: f64,
    /// Number of Redis commands for each request.
    pub redis_commands: f64,
}

/// The result of the measured load on this number of processes.
#[derive(Serialize, Deserialize)]
pub struct Growth {
    pub processes: usize,
    pub requests_per_second: f64,
    pub cpu_micros: f64,
    /// Number of Redis commands for each user and process to fill the caches.
    pub redis_commands_to_fill: f64,
    /// Number of Redis commands for each request after the caches are full.
    pub redis_commands: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_has_its_quartiles() {
        let spread = Spread::from_figures(vec![5.0, 1.0, 3.0, 2.0, 4.0]);
        assert_eq!((spread.low, spread.median, spread.high), (2.0, 3.0, 4.0));
        assert_eq!(Spread::from_figures(vec![1.0, 2.0]).median, 1.5);
        assert!(Spread::from_figures(Vec::new()).median.is_nan());
    }
}
