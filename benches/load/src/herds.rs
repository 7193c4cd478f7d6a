//! Two peaks of load: a herd of ten thousand concurrent requests for expired tokens, and the first
//! requests to a process after its start.

use std::time::Duration;

use redis::Commands;
use tower_wechat::redis::Layout;
use tower_wechat::simulator::{Fault, Simulator};

use crate::account::{APP_ID, APP_SECRET, WECHAT_URL};
use crate::contender::{Contender, UserCredential};
use crate::environment::LAYOUT;
use crate::generator::{Generator, StopCondition, UserOrder};
use crate::machine::now_ms;
use crate::population::{self, ACCESS_HASH, REFRESH_HASH, USERS};
use crate::processes::{Redis, RedisCounters, Server};
use crate::results::{Herd, Restart};
use crate::throughput::CONNECTIONS;

/// Time that the simulator takes for a renewal: 100 ms.
const RENEWAL_DELAY: Duration = Duration::from_millis(100);

const REFRESH_PATH: &str = "/sns/oauth2/refresh_token";

const HOUR_MS: u64 = 3_600_000;

pub struct Plan {
    pub requests: usize,
}

pub async fn measure(plan: &Plan) -> Vec<Herd> {
    let mut herds = Vec::new();
    for (layout, processes) in [(Layout::Hashes, 1), (Layout::Hashes, 4), (Layout::Keys, 1)] {
        for users in [1, plan.requests] {
            eprintln!("herd: {users} users, {processes} processes, {layout:?}");
            herds.push(measure_herd(layout, processes, users, plan.requests).await);
        }
    }
    herds
}

async fn measure_herd(layout: Layout, processes: usize, users: usize, requests: usize) -> Herd {
    let redis = Redis::start();
    let wechat = Simulator::builder().app(APP_ID, APP_SECRET).start().await;
    let wechat = wechat.expect("a simulator");
    store_expired(&redis, &wechat, layout, users);
    wechat.inject(Fault::on(REFRESH_PATH).delay(RENEWAL_DELAY));

    let name = if layout == Layout::Keys {
        "keys"
    } else {
        "hashes"
    };
    let variables = [(WECHAT_URL, wechat.url()), (LAYOUT, name)];
    let start = |_| Server::start_with_env(Contender::CachedHeader, &redis, &variables);
    let servers: Vec<Server> = (0..processes).map(start).collect();
    let addresses: Vec<_> = servers.iter().map(|server| server.address).collect();
    let prepared = population::requests(UserCredential::Header, users);
    let mut counter = RedisCounters::new(&redis);
    // The generator blocks its thread. The simulator runs on the other threads.
    let (outcome, commands) = tokio::task::block_in_place(|| {
        let mut generator = Generator::connect(&addresses, requests).unwrap_or_else(|error| {
            panic!("{requests} connections: {error}; `ulimit -n` must allow as many")
        });
        let before = counter.now();
        let outcome = generator.run(
            &prepared,
            UserOrder::RoundRobin,
            StopCondition::Requests(requests),
        );
        let outcome = outcome.expect("answers");
        (outcome, counter.now().since(before).commands)
    });
    let calls_to_wechat = wechat.calls_to(REFRESH_PATH);
    wechat.stop().await;
    if let Some(example) = &outcome.first_wrong_answer {
        eprintln!("{} were refused, as\n{example}", outcome.wrong_answers);
    }
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    Herd {
        layout: name.to_owned(),
        processes,
        requests,
        users,
        calls_to_wechat,
        refused: outcome.wrong_answers,
        all_answered_ms: ms(outcome.took),
        median_wait_ms: ms(outcome.latencies.quantile(0.5)),
        longest_wait_ms: ms(outcome.latencies.longest()),
        redis_commands: commands,
    }
}

/// Stores users whose access tokens have expired, in the form in which another process would have
/// stored them.
fn store_expired(redis: &Redis, wechat: &Simulator, layout: Layout, users: usize) {
    let mut connection = redis.connection();
    let (renew_at, expired) = (now_ms() - 2 * HOUR_MS, now_ms() - HOUR_MS);
    let due = now_ms() + 29 * 24 * HOUR_MS;
    let mut lifetime = Duration::ZERO;
    for at in 0..users {
        let id = population::user_id(at);
        let pair = wechat.sign_in(&id, "snsapi_userinfo");
        lifetime = pair.expires_in;
        let (access, refresh) = (&pair.access_token, &pair.refresh_token);
        if layout == Layout::Keys {
            let key = format!("wechat:{APP_ID}:user:{id}");
            let record = format!("1#{access}#{renew_at}#{expired}#{refresh}#{due}");
            () = connection.set(key, record).expect("stored");
        } else {
            () = connection
                .hset(ACCESS_HASH, &id, format!("{access}#{renew_at}"))
                .expect("stored");
            () = connection
                .hset(REFRESH_HASH, &id, format!("{refresh}#{due}"))
                .expect("stored");
        }
    }
    wechat.advance(lifetime);
}

/// Measures a process after its start: sends one request of every user with an empty cache. Then
/// sends one more request of every user with a full cache.
pub fn measure_restart(redis: &Redis) -> Restart {
    eprintln!("restart: {USERS} users and nothing in memory");
    let server = Server::start(Contender::CachedHeader, redis);
    let mut generator = Generator::connect(&[server.address], CONNECTIONS).expect("connections");
    let requests = population::requests(UserCredential::Header, USERS);
    let mut counter = RedisCounters::new(redis);
    let mut pass = || {
        let before = counter.now();
        let outcome = generator.run(
            &requests,
            UserOrder::RoundRobin,
            StopCondition::Requests(USERS),
        );
        let outcome = outcome
            .expect("answers")
            .expect_no_wrong_answers("cached-header");
        let commands = counter.now().since(before).commands as f64 / USERS as f64;
        let p99 = outcome.latencies.quantile(0.99).as_secs_f64() * 1e6;
        (outcome.took.as_secs_f64() * 1e3, p99, commands)
    };
    let (cold, warm) = (pass(), pass());
    Restart {
        users: USERS,
        cold_ms: cold.0,
        cold_p99_micros: cold.1,
        cold_redis_commands: cold.2,
        warm_ms: warm.0,
        warm_p99_micros: warm.1,
        warm_redis_commands: warm.2,
    }
}
