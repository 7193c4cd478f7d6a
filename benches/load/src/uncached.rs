//! Measurement of this crate's layer without its cache against a hand-written `HGET`.
//!
//! Both ask Redis for each request. Many connections show what a request costs, one and eight
//! connections show how long it takes. Redis is on the loopback, or behind a proxy that delays its
//! replies as a network between two machines does.

use std::time::{Duration, Instant};

use crate::comparison::{ComparisonBench, Plan, Setup};
use crate::contender::Contender;
use crate::delay_proxy::DelayProxy;
use crate::generator::StopCondition;
use crate::processes::Redis;
use crate::results::{Comparison, Delay};

/// Time that a network adds to a round trip between two machines of one data centre: 0.5 ms.
const NETWORK_DELAY: Duration = Duration::from_micros(500);

/// The loads: the number of connections, and the delay of the replies of Redis.
const LOADS: [(usize, Option<Duration>); 6] = [
    (64, None),
    (256, None),
    (1, None),
    (8, None),
    (1, Some(NETWORK_DELAY)),
    (8, Some(NETWORK_DELAY)),
];

/// Number of commands for the measurement of a round trip: 500.
const PINGS: usize = 500;

pub fn measure(redis: &Redis, plan: &Plan) -> Vec<Comparison> {
    LOADS
        .map(|(connections, delay)| match delay {
            None => compare(redis, redis.url(), connections, "", plan),
            Some(delay) => {
                let proxy = DelayProxy::start(redis.address(), delay).expect("a proxy");
                let url = format!("redis://{}/", proxy.address());
                let added = round_trip(&url).saturating_sub(round_trip(&redis.url()));
                let ms = |time: Duration| time.as_secs_f64() * 1e3;
                let (intended_ms, measured_ms) = (ms(delay), ms(added));
                eprintln!("the proxy before Redis adds {measured_ms:.3} ms to a round trip");
                let mut comparison = compare(redis, url, connections, ", delayed", plan);
                comparison.delay = Some(Delay {
                    intended_ms,
                    measured_ms,
                });
                comparison
            }
        })
        .into()
}

fn compare(
    redis: &Redis,
    redis_url: String,
    connections: usize,
    suffix: &str,
    plan: &Plan,
) -> Comparison {
    let setup = Setup {
        name: format!("uncached, {connections} connections{suffix}"),
        reference: Contender::Naive,
        contenders: vec![Contender::UncachedKeys, Contender::UncachedHashes],
        connections,
        redis_url,
        // No server keeps users, so it suffices that its connections have served requests.
        warm_up: StopCondition::Time(plan.slice / 5),
    };
    ComparisonBench::start(redis, setup).compare(plan)
}

/// Returns the median time of a round trip to Redis.
fn round_trip(url: &str) -> Duration {
    let client = redis::Client::open(url).expect("an address");
    let mut connection = client.get_connection().expect("Redis");
    let mut times: Vec<Duration> = (0..PINGS)
        .map(|_| {
            let sent = Instant::now();
            redis::cmd("PING").exec(&mut connection).expect("PONG");
            sent.elapsed()
        })
        .collect();
    times.sort();
    times[PINGS / 2]
}
