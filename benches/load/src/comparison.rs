//! Comparison of servers with a reference server, in slices that alternate.
//!
//! Each round visits the contenders in a random order, with a slice of the reference before and
//! after each: `reference A reference B reference …`. A contender's slice counts as a ratio to the
//! mean of the two slices beside it. A machine that becomes slower or faster thus affects the slice
//! and the slices beside it alike. The figure of a contender is the median of its ratios.

use std::collections::HashMap;
use std::time::Duration;

use crate::contender::{Contender, UserCredential};
use crate::environment::REDIS_URL;
use crate::generator::{Generator, LoadResult, PreparedRequests, StopCondition, UserOrder};
use crate::histogram::Histogram;
use crate::machine;
use crate::population::{self, USERS};
use crate::processes::{Redis, RedisCounters, Server};
use crate::results::{Comparison, Row, Spread};

/// Maximum part of the machine's processor time that other programs and the hypervisor may take
/// during a slice: 3 percent. With more, the slice counts as disturbed.
const MAX_DISTURBANCE: f64 = 0.03;

/// Minimum number of undisturbed pairs of a contender: three. With fewer, all pairs of the
/// contender count, and the report says so.
const MIN_PAIRS: usize = 3;

/// Number of requests on one connection for the count of round trips: 1,000.
const ROUND_TRIP_REQUESTS: usize = 1_000;

pub struct Plan {
    pub slice: Duration,
    /// Number of undisturbed pairs after which a contender is complete.
    pub rounds: usize,
    /// Maximum number of rounds, even if contenders are not complete.
    pub rounds_at_most: usize,
}

/// The servers of a comparison, and the load on them.
pub struct Setup {
    /// The name of the comparison in the messages of progress.
    pub name: String,
    pub reference: Contender,
    /// The servers that are compared with the reference, in the order of the report.
    pub contenders: Vec<Contender>,
    pub connections: usize,
    /// The URL at which the servers reach Redis.
    pub redis_url: String,
    /// The load on a server before each of its slices, whose figures do not count.
    pub warm_up: StopCondition,
}

/// The running servers of a comparison.
pub struct ComparisonBench<'a> {
    redis: &'a Redis,
    setup: Setup,
    counter: RedisCounters,
    requests: HashMap<UserCredential, PreparedRequests>,
    servers: HashMap<Contender, (Server, Generator)>,
}

struct Slice {
    per_second: f64,
    cpu_micros: f64,
    redis_cpu_micros: f64,
    redis_commands: f64,
    p50: f64,
    p99: f64,
    latencies: Histogram,
    disturbance: f64,
}

impl Slice {
    fn is_disturbed(&self) -> bool {
        self.disturbance > MAX_DISTURBANCE
    }
}

struct Pair {
    slice: Slice,
    throughput: f64,
    cpu: f64,
    total_cpu: f64,
    p50: f64,
    p99: f64,
    disturbed: bool,
}

impl Pair {
    fn from_slices(before: &Slice, slice: Slice, after: &Slice) -> Self {
        let ratio =
            |figure: fn(&Slice) -> f64| figure(&slice) / ((figure(before) + figure(after)) / 2.0);
        Self {
            throughput: ratio(|slice| slice.per_second),
            cpu: ratio(|slice| slice.cpu_micros),
            total_cpu: ratio(|slice| slice.cpu_micros + slice.redis_cpu_micros),
            p50: ratio(|slice| slice.p50),
            p99: ratio(|slice| slice.p99),
            disturbed: [before, &slice, after]
                .iter()
                .any(|slice| slice.is_disturbed()),
            slice,
        }
    }
}

impl<'a> ComparisonBench<'a> {
    /// Starts the servers and opens the connections to them.
    pub fn start(redis: &'a Redis, setup: Setup) -> Self {
        let mut servers = HashMap::new();
        let mut requests = HashMap::new();
        for contender in [setup.reference].iter().chain(&setup.contenders) {
            let variables = [(REDIS_URL, setup.redis_url.as_str())];
            let server = Server::start_with_env(*contender, redis, &variables);
            let generator = Generator::connect(&[server.address], setup.connections);
            servers.insert(*contender, (server, generator.expect("connections")));
            let naming = contender.user_credential();
            requests
                .entry(naming)
                .or_insert_with(|| population::requests(naming, USERS));
        }
        Self {
            redis,
            setup,
            counter: RedisCounters::new(redis),
            requests,
            servers,
        }
    }

    fn run(&mut self, contender: Contender, order: UserOrder, until: StopCondition) -> LoadResult {
        let requests = &self.requests[&contender.user_credential()];
        let (_, generator) = self.servers.get_mut(&contender).expect("started");
        let outcome = generator.run(requests, order, until);
        outcome
            .unwrap_or_else(|error| panic!("{contender}: {error}"))
            .expect_no_wrong_answers(contender.name())
    }

    fn measure_slice(&mut self, contender: Contender, length: Duration) -> Slice {
        self.run(contender, UserOrder::RoundRobin, self.setup.warm_up);
        let server = self.servers[&contender].0.process_id();
        let ours = [server, self.redis.process_id(), std::process::id()];
        let commands = self.counter.now();
        let (busy, used) = (machine::cpu_times(), ours.map(machine::process_cpu));

        let outcome = self.run(contender, UserOrder::Uniform, StopCondition::Time(length));

        let (busy_after, used_after) = (machine::cpu_times(), ours.map(machine::process_cpu));
        let commands = self.counter.now().since(commands).commands;
        let used: Vec<f64> = used_after
            .iter()
            .zip(used)
            .map(|(after, before)| after.saturating_sub(before).as_secs_f64())
            .collect();
        let disturbance = match (busy, busy_after) {
            (Some(before), Some(after)) => {
                let others = (after.busy - before.busy - used.iter().sum::<f64>()).max(0.0);
                let capacity = outcome.took.as_secs_f64() * machine::cores() as f64;
                (others + after.stolen - before.stolen) / capacity
            }
            _ => 0.0,
        };
        let answers = outcome.answers as f64;
        Slice {
            per_second: outcome.per_second(length),
            cpu_micros: used[0] * 1e6 / answers,
            redis_cpu_micros: used[1] * 1e6 / answers,
            redis_commands: commands as f64 / answers,
            p50: outcome.latencies.quantile(0.5).as_secs_f64(),
            p99: outcome.latencies.quantile(0.99).as_secs_f64(),
            latencies: outcome.latencies,
            disturbance,
        }
    }

    /// Returns the number of round trips to Redis for each request, measured with one request at a
    /// time.
    pub fn round_trips(&mut self, contender: Contender) -> f64 {
        let address = self.servers[&contender].0.address;
        let mut generator = Generator::connect(&[address], 1).expect("a connection");
        let requests = &self.requests[&contender.user_credential()];
        let mut run = || {
            let until = StopCondition::Requests(ROUND_TRIP_REQUESTS);
            let outcome = generator.run(requests, UserOrder::RoundRobin, until);
            outcome
                .expect("answers")
                .expect_no_wrong_answers(contender.name());
        };
        run();
        let before = self.counter.now();
        run();
        self.counter.now().since(before).reads as f64 / ROUND_TRIP_REQUESTS as f64
    }

    /// Compares the contenders with the reference. The first row of the comparison shows the
    /// reference against itself.
    pub fn compare(&mut self, plan: &Plan) -> Comparison {
        let reference = self.setup.reference;
        let mut baseline = Vec::new();
        let mut pairs: HashMap<Contender, Vec<Pair>> = HashMap::new();
        let mut order = self.setup.contenders.clone();
        for round in 1..=plan.rounds_at_most {
            let wanted = |contender: &Contender| {
                let good = pairs.get(contender).map_or(0, |pairs| {
                    pairs.iter().filter(|pair| !pair.disturbed).count()
                });
                good < plan.rounds
            };
            order.retain(wanted);
            if order.is_empty() {
                break;
            }
            let name = &self.setup.name;
            eprintln!("{name}, round {round}: {} contenders", order.len());
            fastrand::shuffle(&mut order);
            let mut before = self.measure_slice(reference, plan.slice);
            for contender in &order {
                let slice = self.measure_slice(*contender, plan.slice);
                let after = self.measure_slice(reference, plan.slice);
                let pair = Pair::from_slices(&before, slice, &after);
                pairs.entry(*contender).or_default().push(pair);
                baseline.push(std::mem::replace(&mut before, after));
            }
            baseline.push(before);
        }

        let measured = pairs.values().map(Vec::len).sum();
        let discarded = pairs.values().flatten().filter(|pair| pair.disturbed);
        let discarded = discarded.count();
        let p99_noise = p99_noise(&baseline);
        let mut quiet = true;
        pairs.insert(reference, baseline_pairs(baseline));
        let rows = [&self.setup.reference]
            .into_iter()
            .chain(&self.setup.contenders);
        let rows = rows.map(|contender| {
            let pairs = pairs.remove(contender).unwrap_or_default();
            let (good, disturbed): (Vec<_>, Vec<_>) =
                pairs.into_iter().partition(|pair| !pair.disturbed);
            let counting = if good.len() < MIN_PAIRS {
                quiet = false;
                good.into_iter().chain(disturbed).collect()
            } else {
                good
            };
            row(*contender, &counting)
        });
        Comparison {
            reference: reference.name().to_owned(),
            users: USERS,
            connections: self.setup.connections,
            delay: None,
            slice_secs: plan.slice.as_secs_f64(),
            pairs: measured,
            discarded,
            rows: rows.collect(),
            quiet,
            p99_noise,
        }
    }
}

/// Returns pairs that compare slices of the reference with each other. The ratios of these pairs
/// show the noise around one.
fn baseline_pairs(slices: Vec<Slice>) -> Vec<Pair> {
    let mut slices = slices.into_iter();
    let mut pairs = Vec::new();
    while let (Some(before), Some(slice), Some(after)) =
        (slices.next(), slices.next(), slices.next())
    {
        pairs.push(Pair::from_slices(&before, slice, &after));
    }
    pairs
}

fn p99_noise(baseline: &[Slice]) -> f64 {
    let mut factors: Vec<f64> = baseline
        .windows(2)
        .map(|two| {
            let ratio = two[0].p99 / two[1].p99;
            ratio.max(1.0 / ratio)
        })
        .collect();
    factors.sort_by(f64::total_cmp);
    factors.get(factors.len() * 9 / 10).copied().unwrap_or(1.0)
}

fn row(contender: Contender, pairs: &[Pair]) -> Row {
    let mut latencies = Histogram::default();
    for pair in pairs {
        latencies.merge(&pair.slice.latencies);
    }
    let micros = |part| latencies.quantile(part).as_secs_f64() * 1e6;
    let spread =
        |figure: fn(&Pair) -> f64| Spread::from_figures(pairs.iter().map(figure).collect());
    Row {
        contender: contender.name().to_owned(),
        pairs: pairs.len(),
        requests_per_second: spread(|pair| pair.slice.per_second).median,
        throughput: spread(|pair| pair.throughput),
        cpu_micros: spread(|pair| pair.slice.cpu_micros).median,
        cpu: spread(|pair| pair.cpu),
        redis_cpu_micros: spread(|pair| pair.slice.redis_cpu_micros).median,
        total_cpu: spread(|pair| pair.total_cpu),
        p50_micros: micros(0.5),
        p50: spread(|pair| pair.p50),
        p99_micros: micros(0.99),
        p99: spread(|pair| pair.p99),
        redis_commands: spread(|pair| pair.slice.redis_commands).median,
        redis_round_trips: None,
        instructions: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slice(per_second: f64, cpu_micros: f64, redis_cpu_micros: f64) -> Slice {
        Slice {
            per_second,
            cpu_micros,
            redis_cpu_micros,
            redis_commands: 1.0,
            p50: 1.0 / per_second,
            p99: 2.0 / per_second,
            latencies: Histogram::default(),
            disturbance: 0.0,
        }
    }

    #[test]
    fn a_pair_divides_by_the_mean_of_its_neighbours() {
        let (before, after) = (slice(80.0, 20.0, 4.0), slice(120.0, 10.0, 6.0));
        let pair = Pair::from_slices(&before, slice(50.0, 30.0, 10.0), &after);
        assert_eq!(pair.throughput, 0.5);
        assert_eq!(pair.cpu, 2.0);
        assert_eq!(pair.total_cpu, 2.0);
        assert!(!pair.disturbed);
    }

    #[test]
    fn a_disturbed_neighbour_disturbs_a_pair() {
        let (before, mut after) = (slice(1.0, 1.0, 1.0), slice(1.0, 1.0, 1.0));
        after.disturbance = 2.0 * MAX_DISTURBANCE;
        assert!(Pair::from_slices(&before, slice(1.0, 1.0, 1.0), &after).disturbed);
    }

    #[test]
    fn p99_noise_is_the_factor_between_neighbours() {
        let slices = [slice(1.0, 1.0, 1.0), slice(2.0, 1.0, 1.0)];
        assert_eq!(p99_noise(&slices), 2.0);
        assert_eq!(p99_noise(&[]), 1.0);
    }
}
