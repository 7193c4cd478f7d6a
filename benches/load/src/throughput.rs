//! Measurement of requests per second, CPU and latency, of each contender against bare axum.
//!
//! Each round visits the contenders in a random order, with a slice of bare axum before and after
//! each: `bare A bare B bare …`. A contender's slice counts as a ratio to the mean of the two
//! slices beside it. A machine that becomes slower or faster thus affects the slice and the slices
//! beside it alike. The figure of a contender is the median of its ratios.
//!
//! Before a slice the generator sends one request of every user. The slice thus measures the steady
//! state, and not the first requests to a cache whose entries are a round old.

use std::collections::HashMap;
use std::time::Duration;

use crate::contender::{Contender, UserCredential};
use crate::generator::{Generator, LoadResult, PreparedRequests, StopCondition, UserOrder};
use crate::histogram::Histogram;
use crate::machine::{self, TICKS_PER_SECOND};
use crate::population::{self, USERS};
use crate::processes::{Redis, RedisCounters, Server};
use crate::results::{Row, Spread, Throughput};

pub const CONNECTIONS: usize = 64;

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

struct ThroughputBench<'a> {
    redis: &'a Redis,
    counter: RedisCounters,
    requests: HashMap<UserCredential, PreparedRequests>,
    servers: HashMap<Contender, (Server, Generator)>,
}

struct Slice {
    per_second: f64,
    cpu_micros: f64,
    redis_commands: f64,
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
            p99: ratio(|slice| slice.p99),
            disturbed: [before, &slice, after]
                .iter()
                .any(|slice| slice.is_disturbed()),
            slice,
        }
    }
}

impl<'a> ThroughputBench<'a> {
    fn start(redis: &'a Redis) -> Self {
        let mut servers = HashMap::new();
        let mut requests = HashMap::new();
        for contender in Contender::ALL {
            let server = Server::start(contender, redis);
            let generator = Generator::connect(&[server.address], CONNECTIONS);
            servers.insert(contender, (server, generator.expect("connections")));
            let naming = contender.user_credential();
            requests
                .entry(naming)
                .or_insert_with(|| population::requests(naming, USERS));
        }
        Self {
            redis,
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
        self.run(
            contender,
            UserOrder::RoundRobin,
            StopCondition::Requests(USERS),
        );
        let server = self.servers[&contender].0.process_id();
        let ours = [server, self.redis.process_id(), std::process::id()];
        let commands = self.counter.now();
        let (busy, used) = (machine::cpu_times(), ours.map(machine::process_cpu_ticks));

        let outcome = self.run(contender, UserOrder::Uniform, StopCondition::Time(length));

        let (busy_after, used_after) = (machine::cpu_times(), ours.map(machine::process_cpu_ticks));
        let commands = self.counter.now().since(commands).commands;
        let used: Vec<f64> = used_after.iter().zip(&used).map(|(b, a)| b - a).collect();
        let disturbance = match (busy, busy_after) {
            (Some(before), Some(after)) => {
                let others = (after.busy - before.busy - used.iter().sum::<f64>()).max(0.0);
                let capacity =
                    outcome.took.as_secs_f64() * TICKS_PER_SECOND * machine::cores() as f64;
                (others + after.stolen - before.stolen) / capacity
            }
            _ => 0.0,
        };
        let answers = outcome.answers as f64;
        Slice {
            per_second: outcome.per_second(length),
            cpu_micros: used[0] / TICKS_PER_SECOND * 1e6 / answers,
            redis_commands: commands as f64 / answers,
            p99: outcome.latencies.quantile(0.99).as_secs_f64(),
            latencies: outcome.latencies,
            disturbance,
        }
    }

    /// Returns the number of round trips to Redis for each request, measured with one request at a
    /// time.
    fn round_trips(&mut self, contender: Contender) -> f64 {
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
}

pub fn measure(redis: &Redis, plan: &Plan) -> Throughput {
    let mut bench = ThroughputBench::start(redis);
    let mut bare = Vec::new();
    let mut pairs: HashMap<Contender, Vec<Pair>> = HashMap::new();
    let mut order: Vec<Contender> = Contender::ALL
        .into_iter()
        .filter(|contender| *contender != Contender::Bare)
        .collect();
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
        eprintln!("throughput, round {round}: {} contenders", order.len());
        fastrand::shuffle(&mut order);
        let mut before = bench.measure_slice(Contender::Bare, plan.slice);
        for contender in &order {
            let slice = bench.measure_slice(*contender, plan.slice);
            let after = bench.measure_slice(Contender::Bare, plan.slice);
            let pair = Pair::from_slices(&before, slice, &after);
            pairs.entry(*contender).or_default().push(pair);
            bare.push(std::mem::replace(&mut before, after));
        }
        bare.push(before);
    }

    let measured = pairs.values().map(Vec::len).sum();
    let discarded = pairs.values().flatten().filter(|pair| pair.disturbed);
    let discarded = discarded.count();
    let p99_noise = p99_noise(&bare);
    let mut quiet = true;
    let rows = Contender::ALL.map(|contender| {
        let pairs = if contender == Contender::Bare {
            baseline_pairs(std::mem::take(&mut bare))
        } else {
            pairs.remove(&contender).unwrap_or_default()
        };
        let (good, disturbed): (Vec<_>, Vec<_>) =
            pairs.into_iter().partition(|pair| !pair.disturbed);
        let counting = if good.len() < MIN_PAIRS {
            quiet = false;
            good.into_iter().chain(disturbed).collect()
        } else {
            good
        };
        let round_trips = bench.round_trips(contender);
        row(contender, &counting, round_trips)
    });
    Throughput {
        users: USERS,
        connections: CONNECTIONS,
        slice_secs: plan.slice.as_secs_f64(),
        pairs: measured,
        discarded,
        quiet,
        p99_noise,
        rows: rows.into(),
    }
}

/// Returns pairs that compare slices of bare axum with each other. The ratios of these pairs show
/// the noise around one.
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

fn p99_noise(bare: &[Slice]) -> f64 {
    let mut factors: Vec<f64> = bare
        .windows(2)
        .map(|two| {
            let ratio = two[0].p99 / two[1].p99;
            ratio.max(1.0 / ratio)
        })
        .collect();
    factors.sort_by(f64::total_cmp);
    factors.get(factors.len() * 9 / 10).copied().unwrap_or(1.0)
}

fn row(contender: Contender, pairs: &[Pair], redis_round_trips: f64) -> Row {
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
        p50_micros: micros(0.5),
        p99_micros: micros(0.99),
        p99: spread(|pair| pair.p99),
        redis_commands: spread(|pair| pair.slice.redis_commands).median,
        redis_round_trips,
        instructions: None,
    }
}
