//! Tests of `examples/token_center.rs` as a process.

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tower_wechat::account::TokenCenterClient;
use tower_wechat::simulator::Fault;
use tower_wechat::{AccountTokens, MemoryStore};

use super::harness::{Harness, STABLE, TICKET, secs};
use crate::support::redis_server::RedisServer;

/// Returns the path of the example. Builds it if cargo has not built it, as in a run of this test
/// alone.
fn program() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let path = tests
        .ancestors()
        .nth(2)
        .unwrap()
        .join("examples/token_center");
    if !path.exists() {
        let built = Command::new(env!("CARGO"))
            .args(["build", "--example", "token_center"])
            .status();
        assert!(built.unwrap().success());
    }
    path
}

fn command() -> Command {
    let mut command = Command::new(program());
    command
        .env_clear()
        .env("LISTEN", "127.0.0.1:0")
        .env("CENTER_TOKEN", "one, two");
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

struct Center {
    child: Child,
    url: String,
}

impl Center {
    fn start(command: &mut Command) -> Self {
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap())
            .read_line(&mut line)
            .unwrap();
        let url = line
            .trim_end()
            .strip_prefix("listening on ")
            .unwrap_or_default()
            .to_owned();
        assert!(url.starts_with("http://127.0.0.1:"), "{line}");
        Self { child, url }
    }

    fn terminate(mut self) -> i32 {
        let id = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-TERM", &id])
                .status()
                .unwrap()
                .success()
        );
        let give_up = Instant::now() + secs(10);
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code().unwrap_or(-1);
            }
            assert!(Instant::now() < give_up, "it does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Center {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn of_harness<'a>(
    command: &'a mut Command,
    harness: &Harness,
    server: &RedisServer,
) -> &'a mut Command {
    command
        .env("WECHAT_APPID", harness.sim.app_id())
        .env("WECHAT_SECRET", harness.sim.app_secret())
        .env("WECHAT_API_URL", harness.sim.url())
        .env("REDIS_URL", server.url())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_centers_on_one_redis_fetch_once() {
    let harness = Harness::start().await;
    let server = RedisServer::start();
    for path in [STABLE, TICKET] {
        harness
            .sim
            .inject(Fault::on(path).delay(Duration::from_millis(200)));
    }
    let starts: Vec<_> = (0..3)
        .map(|_| {
            let mut command = command();
            of_harness(&mut command, &harness, &server);
            tokio::task::spawn_blocking(move || Center::start(&mut command))
        })
        .collect();
    let mut centers = Vec::new();
    for start in starts {
        centers.push(start.await.unwrap());
    }
    assert_eq!(
        (harness.sim.calls_to(STABLE), harness.sim.calls_to(TICKET)),
        (1, 1)
    );
    for (center, path, bearer) in [(&centers[0], "/center", "one"), (&centers[1], "", "two")] {
        let url = format!("{}{path}", center.url);
        let source = TokenCenterClient::new(harness.sim.app_id(), url, bearer).unwrap();
        let accounts = AccountTokens::new(source, MemoryStore::new());
        harness.call(&accounts).await.unwrap();
        assert!(accounts.shutdown(secs(1)).await);
    }
    for center in centers {
        assert_eq!(center.terminate(), 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_starts_without_settings_and_without_wechat() {
    let center = Center::start(&mut command());
    assert_eq!(center.terminate(), 0);

    let harness = Harness::start().await;
    let server = RedisServer::start();
    harness.sim.inject(Fault::on(STABLE).hang());
    let started = Instant::now();
    let mut command = command();
    of_harness(&mut command, &harness, &server);
    let center = tokio::task::spawn_blocking(move || Center::start(&mut command))
        .await
        .unwrap();
    assert!(started.elapsed() < secs(8), "start-up does not hang");
    assert_eq!(
        tokio::task::spawn_blocking(|| center.terminate())
            .await
            .unwrap(),
        0
    );
}

#[test]
fn a_wrong_setting_is_reported_in_one_sentence() {
    for (name, value, message) in [
        ("CENTER_TOKEN", "", "set CENTER_TOKEN"),
        ("CENTER_TOKEN", "two words", "bearer secret"),
        ("WECHAT_APPID", "wx1", "WECHAT_SECRET"),
        ("JSSDK_HOSTS", "https://h5.example.com", "is no host"),
        ("LISTEN", "nowhere", "LISTEN=nowhere"),
        ("CACHE_TTL_SECS", "soon", "CACHE_TTL_SECS=soon"),
        ("WECHAT_TOKEN_MODE", "both", "WECHAT_TOKEN_MODE=both"),
        ("REDIS_URL", "nonsense", "Redis URL"),
    ] {
        let mut child = command().env(name, value).spawn().unwrap();
        let (mut stderr, mut out) = (String::new(), String::new());
        child
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut stderr)
            .unwrap();
        child
            .stdout
            .take()
            .unwrap()
            .read_to_string(&mut out)
            .unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(1), "{name}={value}");
        let last = stderr.lines().last().unwrap_or_default();
        assert!(
            last.starts_with("token_center: ") && last.contains(message),
            "{name}: {stderr}"
        );
        assert_eq!(out, "");
    }
}
