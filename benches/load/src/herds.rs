//! Measurement of a herd: ten thousand concurrent requests for expired tokens.

use std::time::Duration;

use redis::Commands;
use tower_wechat::redis::Layout;
use tower_wechat::simulator::{Fault, Simulator};

use crate::account::{APP_ID, APP_SECRET, WECHAT_URL};
use crate::contender::{Contender, UserCredential};
use crate::environment::LAYOUT;
use crate::generator::{Generator, StopCondition, UserOrder};
use crate::machine::now_ms;
use crate::population::{self, ACCESS_HASH, REFRESH_HASH, SCOPE};
use crate::processes::{Redis, RedisCounters, Server};
use crate::results::Herd;

/// Time that the simulator takes for a renewal: 100 ms.
pub const RENEWAL_DELAY: Duration = Duration::from_millis(100);

const REFRESH_PATH: &str = "/sns/oauth2/refresh_token";

const HOUR_MS: u64 = 3_600_000;

pub struct Plan {
    pub requests: usize,
    /// Number of runs of each herd, which report the run with the median time.
    pub runs: usize,
}

pub async fn measure(plan: &Plan) -> Vec<Herd> {
    let mut herds = Vec::new();
    for (layout, processes) in [(Layout::Hashes, 1), (Layout::Hashes, 4), (Layout::Keys, 1)] {
        for users in [1, plan.requests] {
            let mut runs = Vec::new();
            for run in 1..=plan.runs {
                eprintln!("herd, run {run}: {users} users, {processes} processes, {layout:?}");
                runs.push(measure_herd(layout, processes, users, plan.requests).await);
            }
            herds.push(median_run(runs));
        }
    }
    herds
}

/// Returns the run with the median time, with the refusals of all runs. Its number of calls to
/// WeChat is the one that differs most from the number of users.
fn median_run(mut runs: Vec<Herd>) -> Herd {
    let refused = runs.iter().map(|run| run.refused).sum();
    let calls = runs.iter().map(|run| run.calls_to_wechat);
    let users = runs[0].users as u64;
    let calls_to_wechat = calls.max_by_key(|calls| calls.abs_diff(users));
    let number = runs.len();
    runs.sort_by(|one, other| one.all_answered_ms.total_cmp(&other.all_answered_ms));
    Herd {
        runs: number,
        refused,
        calls_to_wechat: calls_to_wechat.unwrap_or_default(),
        ..runs.swap_remove(number / 2)
    }
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
        runs: 1,
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
    // An empty openid stands for the user id.
    let details = format!("#scope={SCOPE}#openid=");
    let mut lifetime = Duration::ZERO;
    for at in 0..users {
        let id = population::user_id(at);
        let pair = wechat.sign_in(&id, SCOPE);
        lifetime = pair.expires_in;
        let (access, refresh) = (&pair.access_token, &pair.refresh_token);
        if layout == Layout::Keys {
            let key = format!("wechat:{APP_ID}:user:{id}");
            let record = format!("1#{access}#{renew_at}#{expired}#{refresh}#{due}{details}");
            () = connection.set(key, record).expect("stored");
        } else {
            () = connection
                .hset(ACCESS_HASH, &id, format!("{access}#{renew_at}"))
                .expect("stored");
            () = connection
                .hset(REFRESH_HASH, &id, format!("{refresh}#{due}{details}"))
                .expect("stored");
        }
    }
    wechat.advance(lifetime);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(all_answered_ms: f64, calls_to_wechat: u64, refused: u64) -> Herd {
        Herd {
            layout: "keys".to_owned(),
            processes: 1,
            requests: 10,
            users: 10,
            runs: 1,
            calls_to_wechat,
            refused,
            all_answered_ms,
            median_wait_ms: 1.0,
            longest_wait_ms: 2.0,
            redis_commands: all_answered_ms as u64,
        }
    }

    #[test]
    fn a_refusal_in_one_run_shows_in_the_median() {
        let herd = median_run(vec![run(30.0, 11, 0), run(20.0, 10, 0), run(10.0, 10, 2)]);
        assert_eq!((herd.all_answered_ms, herd.redis_commands), (20.0, 20));
        assert_eq!((herd.calls_to_wechat, herd.refused), (11, 2));
        assert_eq!(herd.runs, 3);
    }
}
