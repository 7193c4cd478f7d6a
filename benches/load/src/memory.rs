//! Measurement of the memory of one user, in a process that caches the token and in Redis.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use tower_wechat::redis::Layout;
use tower_wechat::{RedisStore, UserId, UserTokens};

use crate::account::wechat;
use crate::environment::{self, REDIS_URL};
use crate::machine;
use crate::population;
use crate::processes::{Redis, RedisCounters};
use crate::results::Memory;

pub struct Plan {
    pub cached: usize,
    pub stored: usize,
}

pub async fn measure(plan: &Plan) -> Memory {
    let redis = Redis::start();
    let mut counter = RedisCounters::new(&redis);
    let mut stored = [0.0; 2];
    for (bytes, layout) in stored.iter_mut().zip([Layout::Hashes, Layout::Keys]) {
        eprintln!("memory of Redis, {layout:?}");
        redis.flush();
        let before = stable_redis_memory(&mut counter).await;
        population::store_users(&redis.url(), layout, plan.stored).await;
        let after = stable_redis_memory(&mut counter).await;
        *bytes = (after - before) as f64 / plan.stored as f64;
    }
    eprintln!("memory of {} cached users", plan.cached);
    redis.flush();
    population::store_users_raw(&mut redis.connection(), plan.cached);
    let (cached_users, bytes_per_cached_user) = measure_cached_users(&redis, plan.cached);
    Memory {
        cached_users,
        bytes_per_cached_user,
        stored_users: plan.stored,
        redis_bytes_per_user_hashes: stored[0],
        redis_bytes_per_user_keys: stored[1],
    }
}

/// Waits until the memory of Redis changes by less than 4 KiB in half a second, and returns it.
/// Before that, Redis grows its tables and closes old connections.
async fn stable_redis_memory(counter: &mut RedisCounters) -> u64 {
    let mut last = counter.used_memory();
    loop {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let now = counter.used_memory();
        if now.abs_diff(last) < 4_096 {
            return now;
        }
        last = now;
    }
}

/// Starts a separate process that caches the users, so that no other data is in its memory. Returns
/// the number of cached users, and the bytes of memory for each of them.
fn measure_cached_users(redis: &Redis, users: usize) -> (usize, f64) {
    let mut child = Command::new(std::env::current_exe().expect("this program"))
        .args(["fill", &users.to_string()])
        .env(REDIS_URL, redis.url())
        .stdout(Stdio::piped())
        .spawn()
        .expect("this program");
    let mut line = String::new();
    let stdout = child.stdout.take().expect("piped");
    BufReader::new(stdout).read_line(&mut line).expect("a line");
    let _ = child.wait();
    let mut numbers = line.split_whitespace();
    let mut number = || numbers.next().and_then(|number| number.parse().ok());
    let (held, bytes): (Option<f64>, Option<f64>) = (number(), number());
    let (held, bytes) = held.zip(bytes).expect("what the child counted");
    (held as usize, bytes / held)
}

/// Runs in the child process: reads every user once, and prints the number of cached users and the
/// growth of the memory.
pub async fn fill_cache(users: usize) {
    const AT_ONCE: usize = 256;
    let redis = environment::redis_url();
    let store = RedisStore::connect(&redis).await.expect("Redis");
    let tokens = UserTokens::builder(wechat(), store)
        // No cache entry may expire before the last user is read.
        .cache_ttl(Duration::from_secs(600))
        .build();
    tokens.health().await.expect("Redis");
    let before = machine::resident_bytes(std::process::id());
    let mut readers = tokio::task::JoinSet::new();
    for first in 0..AT_ONCE {
        let tokens = tokens.clone();
        readers.spawn(async move {
            for at in (first..users).step_by(AT_ONCE) {
                let id = UserId::new(population::user_id(at)).expect("an id");
                tokens.get(&id).await.expect("a token");
            }
        });
    }
    readers.join_all().await;
    let grown = machine::resident_bytes(std::process::id()) - before;
    println!("{} {grown}", tokens.cached_users());
}
