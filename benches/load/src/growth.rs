//! Measurement of one load on one, two, three and four processes, which share one Redis.

use std::time::Duration;

use crate::contender::{Contender, UserCredential};
use crate::generator::{Generator, StopCondition, UserOrder};
use crate::machine;
use crate::population::{self, USERS};
use crate::processes::{Redis, RedisCounters, Server};
use crate::results::{Growth, Spread};
use crate::throughput::CONNECTIONS;

pub struct Plan {
    pub slice: Duration,
    pub slices: usize,
}

pub fn measure(redis: &Redis, plan: &Plan) -> Vec<Growth> {
    (1..=4)
        .map(|processes| measure_processes(redis, processes, plan))
        .collect()
}

fn measure_processes(redis: &Redis, processes: usize, plan: &Plan) -> Growth {
    eprintln!("growth: {processes} processes");
    let start = |_| Server::start(Contender::CachedHeader, redis);
    let servers: Vec<Server> = (0..processes).map(start).collect();
    let addresses: Vec<_> = servers.iter().map(|server| server.address).collect();
    let requests = population::requests(UserCredential::Header, USERS);
    let mut counter = RedisCounters::new(redis);

    let empty = counter.now();
    for address in &addresses {
        let mut generator = Generator::connect(&[*address], CONNECTIONS).expect("connections");
        let filled = generator.run(
            &requests,
            UserOrder::RoundRobin,
            StopCondition::Requests(USERS),
        );
        filled
            .expect("answers")
            .expect_no_wrong_answers("cached-header");
    }
    let to_fill = counter.now().since(empty).commands as f64;

    let used = || {
        servers
            .iter()
            .map(|server| machine::process_cpu(server.process_id()))
            .sum::<Duration>()
    };
    let mut generator = Generator::connect(&addresses, CONNECTIONS).expect("connections");
    let (before, commands) = (used(), counter.now());
    let (mut answers, mut rates) = (0.0, Vec::new());
    for _ in 0..plan.slices {
        let outcome = generator.run(
            &requests,
            UserOrder::Uniform,
            StopCondition::Time(plan.slice),
        );
        let outcome = outcome
            .expect("answers")
            .expect_no_wrong_answers("cached-header");
        rates.push(outcome.per_second(plan.slice));
        answers += outcome.answers as f64;
    }
    Growth {
        processes,
        requests_per_second: Spread::from_figures(rates).median,
        cpu_micros: used().saturating_sub(before).as_secs_f64() * 1e6 / answers,
        redis_commands_to_fill: to_fill / (USERS * processes) as f64,
        redis_commands: counter.now().since(commands).commands as f64 / answers,
    }
}
