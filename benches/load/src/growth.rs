//! What it costs to run more processes: the same load on one to four of them.

use std::time::Duration;

use crate::contender::{Contender, Naming};
use crate::generator::{Generator, Order, Until};
use crate::machine::{self, TICKS_PER_SECOND};
use crate::population::{self, USERS};
use crate::processes::{Counter, Redis, Server};
use crate::results::{Growth, Spread};
use crate::throughput::CONNECTIONS;

pub struct Plan {
    pub slice: Duration,
    pub slices: usize,
}

pub fn measure(redis: &Redis, plan: &Plan) -> Vec<Growth> {
    (1..=4)
        .map(|processes| grown(redis, processes, plan))
        .collect()
}

fn grown(redis: &Redis, processes: usize, plan: &Plan) -> Growth {
    eprintln!("growth: {processes} processes");
    let start = |_| Server::start(Contender::CachedHeader, redis);
    let servers: Vec<Server> = (0..processes).map(start).collect();
    let addresses: Vec<_> = servers.iter().map(|server| server.address).collect();
    let requests = population::requests(Naming::Header, USERS);
    let mut counter = Counter::new(redis);

    let empty = counter.now();
    for address in &addresses {
        let mut generator = Generator::connect(&[*address], CONNECTIONS).expect("connections");
        let filled = generator.run(&requests, Order::InTurn, Until::Requests(USERS));
        filled.expect("answers").all_well("cached-header");
    }
    let to_fill = counter.now().since(empty).commands as f64;

    let used = || {
        servers
            .iter()
            .map(|server| machine::ticks(server.process()))
            .sum::<f64>()
    };
    let mut generator = Generator::connect(&addresses, CONNECTIONS).expect("connections");
    let (before, commands) = (used(), counter.now());
    let (mut answers, mut rates) = (0.0, Vec::new());
    for _ in 0..plan.slices {
        let outcome = generator.run(&requests, Order::Uniform, Until::Time(plan.slice));
        let outcome = outcome.expect("answers").all_well("cached-header");
        rates.push(outcome.per_second(plan.slice));
        answers += outcome.answers as f64;
    }
    Growth {
        processes,
        requests_per_second: Spread::of(rates).median,
        cpu_micros: (used() - before) / TICKS_PER_SECOND * 1e6 / answers,
        redis_commands_to_fill: to_fill / (USERS * processes) as f64,
        redis_commands: counter.now().since(commands).commands as f64 / answers,
    }
}
