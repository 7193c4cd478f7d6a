//! Tests of the account's token in several processes on one Redis.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use tower_wechat::simulator::{Fault, Simulator};
use tower_wechat::{AccountTokens, RedisStore, Tickets, WechatClient};

use super::harness::{STABLE, TICKET, secs};
use crate::support::redis_server::RedisServer;

const WORKER: &str = "TOWER_WECHAT_TEST_WORKER";

/// A process that runs this test program again, with only the test `worker`.
struct Worker {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Worker {
    fn start(sim: &Simulator, server: &RedisServer) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "account::processes::worker", "--nocapture"])
            .env(WORKER, "1")
            .env("WECHAT_APPID", sim.app_id())
            .env("WECHAT_SECRET", sim.app_secret())
            .env("WECHAT_API_URL", sim.url())
            .env("REDIS_URL", server.url())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let mut worker = Self {
            child,
            stdin,
            stdout,
        };
        assert_eq!(worker.read(), "ready");
        worker
    }

    fn ask(&mut self, what: &str) {
        writeln!(self.stdin, "{what}").unwrap();
    }

    /// Returns the next line that the worker has written. Lines of the test runner are skipped.
    fn read(&mut self) -> String {
        loop {
            let mut line = String::new();
            assert_ne!(
                self.stdout.read_line(&mut line).unwrap(),
                0,
                "the worker has ended"
            );
            if let Some((_, said)) = line.trim_end().split_once("worker: ") {
                return said.to_owned();
            }
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The loop of a worker process. In a normal test run this function returns at once.
#[tokio::test]
async fn worker() {
    if std::env::var(WORKER).is_err() {
        return;
    }
    let var = |name: &str| std::env::var(name).unwrap();
    let wechat = WechatClient::builder(var("WECHAT_APPID"), var("WECHAT_SECRET"))
        .api_url(var("WECHAT_API_URL"))
        .build()
        .unwrap();
    let store = RedisStore::connect(&var("REDIS_URL")).await.unwrap();
    let accounts = AccountTokens::builder(wechat, store)
        .lease_duration(secs(3))
        .build();
    let tickets = Tickets::new(&accounts, ["h5.example.com"]).unwrap();
    println!("worker: ready");
    loop {
        let line = tokio::task::spawn_blocking(|| {
            let mut line = String::new();
            std::io::stdin().read_line(&mut line).map(|_| line)
        });
        let said = match line.await.unwrap().unwrap().trim_end() {
            "token" => match accounts.get().await {
                Ok(token) => token.access_token().expose().to_owned(),
                Err(error) => format!("error {error}"),
            },
            "ticket" => match tickets.get().await {
                Ok(ticket) => ticket.ticket().expose().to_owned(),
                Err(error) => format!("error {error}"),
            },
            _ => return,
        };
        println!("worker: {said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_processes_fetch_one_token_and_one_ticket() {
    let sim = Simulator::start().await.unwrap();
    let server = RedisServer::start();
    for path in [STABLE, TICKET] {
        sim.inject(Fault::on(path).delay(Duration::from_millis(200)));
    }
    let mut workers: Vec<_> = (0..3).map(|_| Worker::start(&sim, &server)).collect();
    for (what, path) in [("ticket", TICKET), ("token", STABLE)] {
        workers.iter_mut().for_each(|worker| worker.ask(what));
        let answers: Vec<_> = workers.iter_mut().map(Worker::read).collect();
        assert!(!answers[0].starts_with("error"), "{answers:?}");
        assert!(
            answers.iter().all(|answer| *answer == answers[0]),
            "{answers:?}"
        );
        assert_eq!(sim.calls_to(path), 1);
    }
    assert_eq!(sim.calls_to(STABLE), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_holder_killed_during_a_fetch_costs_one_lease() {
    let sim = Simulator::start().await.unwrap();
    let server = RedisServer::start();
    let mut workers: Vec<_> = (0..3).map(|_| Worker::start(&sim, &server)).collect();
    sim.inject(Fault::on(STABLE).hang().times(1));
    let mut holder = workers.remove(0);
    holder.ask("token");
    crate::support::eventually("the fetch has begun", secs(5), async || {
        sim.calls_to(STABLE) == 1
    })
    .await;
    holder.child.kill().unwrap();
    let killed = Instant::now();
    workers.iter_mut().for_each(|worker| worker.ask("token"));
    let answers: Vec<_> = workers.iter_mut().map(Worker::read).collect();
    assert!(!answers[0].starts_with("error"), "{answers:?}");
    assert_eq!(answers[0], answers[1]);
    assert!(killed.elapsed() < secs(3 + 4), "{:?}", killed.elapsed());
    assert_eq!(sim.calls_to(STABLE), 2);
}
