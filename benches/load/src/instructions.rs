//! Instructions of a server for each request, counted by valgrind's callgrind. No other load on the
//! machine disturbs this figure.
//!
//! Each contender runs twice, with few requests and with many, on one connection and one worker
//! thread. The difference is what the requests cost. Valgrind hides the processor's SHA
//! instructions, so the figures of contenders that compute an HMAC are too high.

use std::path::Path;

use crate::contender::Contender;
use crate::generator::{Generator, StopCondition, UserOrder};
use crate::population;
use crate::processes::{Redis, Server};

const USERS: usize = 100;

pub struct Plan {
    pub few: usize,
    pub many: usize,
}

/// Returns the instructions of every contender for each request. Returns `None` without valgrind.
pub fn measure(redis: &Redis, plan: &Plan) -> Option<Vec<(Contender, f64)>> {
    let asked = std::process::Command::new("valgrind")
        .arg("--version")
        .output();
    if asked.is_err() {
        eprintln!(
            "no valgrind: instructions are not counted; `apt-get install valgrind` brings it"
        );
        return None;
    }
    let next = std::sync::Mutex::new(Contender::ALL.into_iter());
    let counted = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..crate::machine::cores() {
            scope.spawn(|| {
                while let Some(contender) = { next.lock().expect("a list").next() } {
                    eprintln!("instructions: {contender}");
                    let few = count_total(redis, contender, plan.few);
                    let many = count_total(redis, contender, plan.many);
                    let each = (many - few) / (plan.many - plan.few) as f64;
                    counted.lock().expect("a list").push((contender, each));
                }
            });
        }
    });
    Some(counted.into_inner().expect("a list"))
}

/// Returns all instructions of a server that starts, serves `requests` requests, and ends.
fn count_total(redis: &Redis, contender: Contender, requests: usize) -> f64 {
    let file = std::env::temp_dir().join(format!(
        "tower-wechat-load-{}-{contender}.callgrind",
        std::process::id()
    ));
    let out = format!("--callgrind-out-file={}", file.display());
    let watcher = ["valgrind", "--quiet", "--tool=callgrind", &out].map(str::to_owned);
    let one_worker = [("TOKIO_WORKER_THREADS", "1")];
    let server = Server::start_under(&watcher, contender, redis, &one_worker);
    let users = population::requests(contender.user_credential(), USERS);
    let mut generator = Generator::connect(&[server.address], 1).expect("a connection");
    generator
        .run(
            &users,
            UserOrder::RoundRobin,
            StopCondition::Requests(requests),
        )
        .unwrap_or_else(|error| panic!("{contender} under valgrind: {error}"))
        .expect_no_wrong_answers(contender.name());
    server.wait_for_exit();
    let total = read_total(&file);
    let _ = std::fs::remove_file(&file);
    total.unwrap_or_else(|| panic!("{contender}: valgrind left no count"))
}

fn read_total(file: &Path) -> Option<f64> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text
        .lines()
        .rev()
        .find_map(|line| line.strip_prefix("totals: "));
    line?.trim().parse().ok()
}
