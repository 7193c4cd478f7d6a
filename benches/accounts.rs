//! The cost of registered accounts that are not used: `cargo bench --bench accounts`.
//!
//! One process serves 50 accounts of 50 registered ones, another 50 of 5,000, with a real Redis. The
//! benchmark compares resident memory, tasks, connections and the time of an account's first
//! request. Then all accounts become idle.

mod fixtures;
#[path = "../tests/support/mod.rs"]
mod support;

use std::process::Command;
use std::time::{Duration, Instant};

use http::Request;
use tower::{Layer, ServiceExt, service_fn};
use tower_wechat::redis::Layout;
use tower_wechat::{
    Account, Accounts, CookieKeys, Login, RedisStore, TrustedHeader, UserTokens, WechatClient,
    WechatLayer,
};

use fixtures::{Body, header_request, median, respond_empty, token_response, user_id};
use support::redis_server::RedisServer;

/// Numbers of registered accounts. The first is the one that the others are compared with.
const REGISTERED: [usize; 2] = [50, 5_000];

/// Number of accounts that receive requests: 50.
const BUSY: usize = 50;

/// Number of users of each busy account: 20.
const USERS: usize = 20;

/// Time without requests after which an account is dropped: 2 seconds.
const IDLE_TIMEOUT: Duration = Duration::from_secs(2);

/// The names of the figures that a process prints, in their order.
const FIGURES: [&str; 10] = [
    "memory before the registration, KiB",
    "memory after the registration, KiB",
    "memory while busy, KiB",
    "memory when idle again, KiB",
    "tasks before the first request",
    "tasks while busy",
    "tasks when idle again",
    "connections to Redis while busy",
    "connections to Redis when idle again",
    "first request of an account, µs",
];

fn main() {
    // `cargo bench` adds `--bench` to the arguments.
    let words: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| word != "--bench")
        .collect();
    match words.as_slice() {
        [] => print_table(),
        [registered, url] => {
            let runtime = tokio::runtime::Runtime::new().expect("a runtime");
            runtime.block_on(serve(registered.parse().expect("a number"), url));
        }
        _ => panic!("no words"),
    }
}

/// Runs one process for each number of registered accounts and prints their figures.
fn print_table() {
    let server = RedisServer::start();
    let [few, many] = REGISTERED.map(|registered| figures_of(registered, &server));
    println!(
        "{:<40} {:>10} {:>10} {:>8}",
        "registered accounts", REGISTERED[0], REGISTERED[1], "ratio"
    );
    for ((name, few), many) in FIGURES.iter().zip(few).zip(many) {
        println!("{name:<40} {few:>10.0} {many:>10.0} {:>8.2}", many / few);
    }
}

fn figures_of(registered: usize, server: &RedisServer) -> Vec<f64> {
    let this = std::env::current_exe().expect("this program");
    let mut process = Command::new(this);
    let output = process
        .args([&registered.to_string(), &server.url()])
        .output();
    let output = output.expect("the process starts");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let figures: Vec<f64> = text.split_whitespace().flat_map(str::parse).collect();
    assert_eq!(figures.len(), FIGURES.len(), "{text}");
    figures
}

fn app_id(at: usize) -> String {
    format!("wx{at:016x}")
}

fn url(at: usize) -> String {
    format!("https://h5.example.com/{}", app_id(at))
}

/// Registers the accounts, sends requests to some of them, and prints the figures.
async fn serve(registered: usize, redis: &str) {
    let store = RedisStore::builder(redis).layout(Layout::Keys).connect();
    let store = store.await.expect("Redis");
    let first = WechatClient::new(app_id(0), "secret").expect("a client");
    store_users(&first, &store).await;
    let before = resident_kib();
    let keys = CookieKeys::random().expect("keys");
    let account = |at| {
        let wechat = first.for_account(app_id(at), "secret").expect("a client");
        Account::new(wechat).login(Login::new(url(at), keys.clone()).expect("a URL"))
    };
    let accounts = Accounts::builder(store)
        .accounts((0..registered).map(account))
        .idle_timeout(IDLE_TIMEOUT)
        .refresh_interval(IDLE_TIMEOUT / 4)
        .build();
    let accounts = accounts.expect("accounts");
    let after_registration = resident_kib();
    let tasks_before = alive_tasks();
    let header = TrustedHeader::new("x-user-id").expect("a header");
    let layer = WechatLayer::for_accounts(accounts.clone()).identity(header);
    let service = layer.layer(service_fn(respond_empty::<Body>));
    let mut first_requests = Vec::new();
    for user in 0..USERS {
        for at in 0..BUSY {
            let started = Instant::now();
            let response = service
                .clone()
                .oneshot(request(at, user))
                .await
                .expect("a response");
            assert!(response.status().is_success());
            if user == 0 && at > 0 {
                first_requests.push(started.elapsed().as_secs_f64() * 1e6);
            }
        }
    }
    wait_until(|| connections(redis, "pubsub") == 1).await;
    let busy = (resident_kib(), alive_tasks(), all_connections(redis));
    wait_until(|| format!("{accounts:?}").contains("served: 0")).await;
    wait_until(|| connections(redis, "pubsub") == 0).await;
    // The tasks of the subscription end after its connection.
    tokio::time::sleep(IDLE_TIMEOUT).await;
    let idle = (resident_kib(), alive_tasks(), all_connections(redis));
    println!("{before} {after_registration} {} {}", busy.0, idle.0);
    println!("{tasks_before} {} {}", busy.1, idle.1);
    println!("{} {} {}", busy.2, idle.2, median(first_requests));
}

/// Stores the users of the busy accounts through clients that are dropped afterwards.
async fn store_users(first: &WechatClient, store: &RedisStore) {
    for at in 0..BUSY {
        let wechat = first.for_account(app_id(at), "secret").expect("a client");
        let users = UserTokens::new(wechat, store.clone());
        for user in 0..USERS {
            let stored = users.store(&user_id(user), &token_response(user)).await;
            stored.expect("stored");
        }
    }
    // The tasks of the dropped users end.
    tokio::time::sleep(Duration::from_secs(1)).await;
}

fn request(account: usize, user: usize) -> Request<Body> {
    let mut request = header_request(user);
    let path = format!("/{}/", app_id(account));
    *request.uri_mut() = path.parse().expect("a path");
    request
}

async fn wait_until(holds: impl Fn() -> bool) {
    let give_up = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < give_up, "not within a minute");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn alive_tasks() -> usize {
    let runtime = tokio::runtime::Handle::current();
    runtime.metrics().num_alive_tasks()
}

/// Returns the number of connections to Redis of this type, without that of the question.
fn connections(redis: &str, kind: &str) -> usize {
    let client = redis::Client::open(redis).expect("an address");
    let mut connection = client.get_connection().expect("Redis");
    let mut ask = redis::cmd("CLIENT");
    let list: String = ask
        .arg(&["LIST", "TYPE", kind])
        .query(&mut connection)
        .expect("a list");
    list.lines().count() - usize::from(kind == "normal")
}

fn all_connections(redis: &str) -> usize {
    connections(redis, "normal") + connections(redis, "pubsub")
}

/// Returns the resident memory of this process in KiB.
fn resident_kib() -> i64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse().ok());
    kib.expect("the resident memory")
}
