//! Measurement of requests per second, CPU and latency, of each contender against bare axum.
//!
//! Before a slice the generator sends one request of every user. The slice thus measures the steady
//! state, and not the first requests to a cache whose entries are a round old.

use crate::comparison::{ComparisonBench, Plan, Setup};
use crate::contender::Contender;
use crate::generator::StopCondition;
use crate::population::USERS;
use crate::processes::Redis;
use crate::results::Comparison;

pub const CONNECTIONS: usize = 64;

pub fn measure(redis: &Redis, plan: &Plan) -> Comparison {
    let mut contenders = Contender::ALL.to_vec();
    contenders.retain(|contender| *contender != Contender::Bare);
    let setup = Setup {
        name: "throughput".to_owned(),
        reference: Contender::Bare,
        contenders,
        connections: CONNECTIONS,
        redis_url: redis.url(),
        warm_up: StopCondition::Requests(USERS),
    };
    let mut bench = ComparisonBench::start(redis, setup);
    let mut comparison = bench.compare(plan);
    for row in &mut comparison.rows {
        let contender = row.contender.parse().expect("a contender");
        row.redis_round_trips = Some(bench.round_trips(contender));
    }
    comparison
}
