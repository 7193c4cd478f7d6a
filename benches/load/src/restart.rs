//! Measurement of the first requests to a process after its start.

use crate::contender::{Contender, UserCredential};
use crate::generator::{Generator, PreparedRequests, StopCondition, UserOrder};
use crate::population::{self, USERS};
use crate::processes::{Redis, RedisCounters, Server};
use crate::results::{Pass, Restart, Spread};
use crate::throughput::CONNECTIONS;

pub struct Plan {
    /// Number of processes that are measured, one after the other.
    pub processes: usize,
}

/// Measures new processes: sends one request of every user to an empty cache, and one more to the
/// full cache.
pub fn measure(redis: &Redis, plan: &Plan) -> Restart {
    let requests = population::requests(UserCredential::Header, USERS);
    let measured: Vec<(Pass, Pass)> = (1..=plan.processes)
        .map(|process| {
            eprintln!("restart: process {process} with nothing in memory");
            measure_process(redis, &requests)
        })
        .collect();
    summary(&measured)
}

fn measure_process(redis: &Redis, requests: &PreparedRequests) -> (Pass, Pass) {
    let server = Server::start(Contender::CachedHeader, redis);
    let mut generator = Generator::connect(&[server.address], CONNECTIONS).expect("connections");
    let mut counter = RedisCounters::new(redis);
    let mut pass = || {
        let before = counter.now();
        let until = StopCondition::Requests(requests.len());
        let outcome = generator.run(requests, UserOrder::RoundRobin, until);
        let outcome = outcome
            .expect("answers")
            .expect_no_wrong_answers("cached-header");
        let commands = counter.now().since(before).commands as f64;
        Pass {
            ms: outcome.took.as_secs_f64() * 1e3,
            p99_micros: outcome.latencies.quantile(0.99).as_secs_f64() * 1e6,
            redis_commands: commands / requests.len() as f64,
        }
    };
    (pass(), pass())
}

/// Returns the median of each figure over the processes, and the spread of the ratios of the two
/// times.
fn summary(measured: &[(Pass, Pass)]) -> Restart {
    let spread = |figure: &dyn Fn(&(Pass, Pass)) -> f64| {
        Spread::from_figures(measured.iter().map(figure).collect())
    };
    let median = |pass: fn(&(Pass, Pass)) -> Pass| Pass {
        ms: spread(&|both| pass(both).ms).median,
        p99_micros: spread(&|both| pass(both).p99_micros).median,
        redis_commands: spread(&|both| pass(both).redis_commands).median,
    };
    Restart {
        users: USERS,
        processes: measured.len(),
        empty: median(|both| both.0),
        full: median(|both| both.1),
        ratio: spread(&|(empty, full)| empty.ms / full.ms),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_has_the_median_of_the_ratios() {
        let pass = |ms| Pass {
            ms,
            p99_micros: 10.0 * ms,
            redis_commands: 2.0,
        };
        let measured = [(30.0, 10.0), (20.0, 20.0), (50.0, 25.0)];
        let restart = summary(&measured.map(|(empty, full)| (pass(empty), pass(full))));
        assert_eq!((restart.empty.ms, restart.full.ms), (30.0, 20.0));
        assert_eq!(restart.full.p99_micros, 200.0);
        assert_eq!(restart.ratio.median, 2.0);
        assert_eq!(restart.processes, 3);
    }
}
