//! Runs demos behind proxies under a load of users with fresh, stale and expired tokens, and prints
//! the row of a fault.

use std::collections::{BTreeMap, HashSet};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use tower_wechat::simulator::IssuedKind;

use crate::support::demo_process::{DemoProcess, USER_HEADER};
use crate::support::eventually;
use crate::support::harness::{Age, Harness, Layout, REFRESH};
use crate::support::http_client::{Answer, Asked, HttpClient, fingerprint};
use crate::support::proxy::Proxy;
use crate::support::redis_server::RedisServer;

/// Maximum duration of a request, 10 s: a wait of 5 s, and tolerance for a loaded machine.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// Maximum time until all users are served after a fault, 60 s. It takes 5 s after an outage of
/// Redis, and up to 30 s after WeChat's failure.
const RECOVERY: Duration = Duration::from_secs(60);

/// A row of the fault table, with texts in English and Chinese.
pub struct Row {
    /// Name of the test function.
    pub test: &'static str,
    pub fault: [&'static str; 2],
    pub sees: [&'static str; 2],
    /// The permitted responses: the status, and the code of a rejection or an empty text.
    pub answers: &'static [(u16, &'static str)],
}

#[derive(Default)]
pub struct Tally {
    requests: u64,
    answers: BTreeMap<(u16, String), u64>,
    wrong: Vec<String>,
    longest: Duration,
    seen: HashSet<(String, String)>,
    /// Number of calls to WeChat when the load ends. `None` before.
    calls: Option<u64>,
    /// Requests without a response, because their process was killed.
    broken: u64,
}

pub struct FaultHarness {
    pub services: Harness,
    pub redis: Proxy,
    pub wechat: Proxy,
    pub demos: Vec<DemoProcess>,
    pub users: Vec<String>,
    pub tally: Mutex<Tally>,
    /// Path at WeChat whose calls the row shows.
    pub counted: &'static str,
    answers: &'static [(u16, &'static str)],
}

impl FaultHarness {
    /// Starts the demos with twelve users: four tokens are expired, four stale and four fresh. Each
    /// demo has cached the fresh tokens.
    pub async fn start(row: &Row, layout: Layout, demos: usize) -> Self {
        let options = ["--appendonly", "yes", "--appendfsync", "always"];
        let mut services = Harness::on(RedisServer::with_options(&options), layout).await;
        let redis = Proxy::start(&format!("127.0.0.1:{}", services.redis.port()), 1).await;
        let wechat = Proxy::start(services.wechat.url().trim_start_matches("http://"), 2).await;
        services.variables = vec![
            (
                "REDIS_URL".to_owned(),
                format!("redis://{}/", redis.address()),
            ),
            (
                "WECHAT_API_URL".to_owned(),
                format!("http://{}", wechat.address()),
            ),
            ("CACHE_TTL_SECS".to_owned(), "1".to_owned()),
        ];
        let mut users = Vec::new();
        for (name, age) in [
            ("Expired", Age::Expired),
            ("Stale", Age::Stale),
            ("Fresh", Age::Fresh),
        ] {
            for number in 0..4 {
                let user = format!("o{name}{number}");
                // Expired users come first, because `sign_in` advances WeChat's clock for each of them.
                services.sign_in(&user, age).await;
                users.push(user);
            }
        }
        let mut harness = Self {
            services,
            redis,
            wechat,
            demos: Vec::new(),
            users,
            tally: Mutex::default(),
            counted: REFRESH,
            answers: row.answers,
        };
        for _ in 0..demos {
            harness.demos.push(harness.services.demo().await);
        }
        for demo in &harness.demos {
            for user in &harness.users[8..] {
                assert_eq!(demo.me(user).await.status, 200);
            }
        }
        harness
    }

    /// Sends requests from eight callers to all demos until `happens` ends. Returns its output.
    pub async fn during<T>(&self, happens: impl Future<Output = T>) -> T {
        let sites: Vec<HttpClient> = self.demos.iter().map(|demo| demo.http().clone()).collect();
        let callers = (0..8usize).map(|caller| {
            let sites = &sites;
            async move {
                for turn in caller.. {
                    // Four callers send requests for the expired users and may wait. The other four
                    // use the remaining users and get responses at once.
                    let user = match caller {
                        waiting @ 0..4 => &self.users[waiting],
                        _ => &self.users[4 + turn % (self.users.len() - 4)],
                    };
                    self.ask(&sites[turn % sites.len()], user).await;
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            }
        });
        let outcome = tokio::select! {
            outcome = happens => outcome,
            () = side_by_side(callers) => unreachable!("callers go on"),
        };
        self.tally.lock().unwrap().calls = Some(self.calls());
        outcome
    }

    fn calls(&self) -> u64 {
        self.services.wechat.calls_to(self.counted)
    }

    async fn ask(&self, site: &HttpClient, user: &str) {
        let answer = site
            .try_ask(Asked::get("/api/me").header(USER_HEADER, user))
            .await;
        match answer {
            Ok(answer) => self.record(user, &answer),
            Err(_) => self.tally.lock().unwrap().broken += 1,
        }
    }

    /// Counts a response in the row, and records as wrong what the row does not permit.
    pub fn record(&self, user: &str, answer: &Answer) {
        let json = serde_json::from_str::<serde_json::Value>(&answer.text).unwrap_or_default();
        let field = |name: &str| json[name].as_str().unwrap_or_default().to_owned();
        let mut tally = self.tally.lock().unwrap();
        tally.requests += 1;
        tally.longest = tally.longest.max(answer.took);
        let outcome = (answer.status, field("error"));
        let known = |(status, code): &(u16, &str)| *status == outcome.0 && *code == outcome.1;
        let retries = answer.status != 503 || !answer.header("retry-after").is_empty();
        let named = json.get("user_id").is_none_or(|id| id == user);
        if !self.answers.iter().any(known) || !retries || !named || answer.took > LONGEST_WAIT {
            tally.wrong.push(format!("{user}: {answer:?}"));
        }
        if answer.status == 200 && json.get("token_fingerprint").is_some() {
            tally
                .seen
                .insert((user.to_owned(), field("token_fingerprint")));
        }
        *tally.answers.entry(outcome).or_default() += 1;
    }

    /// Waits until each demo serves each user, and until Redis has the pair of each user that is
    /// valid at WeChat.
    pub async fn recovers(&self) {
        for user in &self.users {
            for demo in &self.demos {
                eventually("all are served again", RECOVERY, async || {
                    demo.me(user).await.status == 200
                })
                .await;
            }
            self.newest_pair_is_stored(user).await;
        }
    }

    /// Waits until Redis has the newest pair that WeChat issued. A demo may serve a pair that it
    /// has not written to Redis yet.
    async fn newest_pair_is_stored(&self, user: &str) {
        eventually("Redis has WeChat's newest pair", RECOVERY, async || {
            let newest = self.services.wechat.current_pair(user);
            let newest = newest.map(|pair| (pair.access_token, pair.refresh_token));
            self.services.stored(user) == newest
        })
        .await;
    }

    /// Fails if a response was wrong or a token belonged to another user. Otherwise prints the row
    /// in both languages.
    pub fn print(&self, row: &Row, broken_allowed: bool) {
        let mut tally = self.tally.lock().unwrap();
        let calls = tally.calls.unwrap_or_else(|| self.calls());
        let issued = self.services.wechat.issued_credentials();
        let pairs = issued
            .iter()
            .filter(|pair| matches!(pair.kind, IssuedKind::SignIn | IssuedKind::Refresh));
        let owned: HashSet<_> = pairs
            .map(|pair| (pair.openid.clone(), fingerprint(&pair.secrets[0])))
            .collect();
        let foreign: Vec<_> = tally.seen.difference(&owned).cloned().collect();
        tally.wrong.extend(
            foreign
                .iter()
                .map(|seen| format!("a foreign token: {seen:?}")),
        );
        if !broken_allowed && tally.broken > 0 {
            let broken = format!("{} requests without an answer", tally.broken);
            tally.wrong.push(broken);
        }
        assert!(tally.wrong.is_empty(), "{}: {:#?}", row.test, tally.wrong);
        assert!(tally.requests > 0);
        let answers: Vec<String> = tally
            .answers
            .iter()
            .map(|((status, code), count)| format!("{count} × {status} {code}").trim().to_owned())
            .collect();
        for (language, tag) in ["fault-row", "fault-row-zh"].into_iter().enumerate() {
            println!(
                "{tag} | {} | {} | {} ({}) | 0 | {} ms | {calls} | `{}` |",
                row.fault[language],
                row.sees[language],
                tally.requests,
                answers.join(", "),
                tally.longest.as_millis(),
                row.test,
            );
        }
    }
}

/// Runs all futures at the same time, without end.
async fn side_by_side(futures: impl Iterator<Item = impl Future<Output = ()>>) {
    let mut futures: Vec<_> = futures.map(Box::pin).collect();
    std::future::poll_fn(|context| {
        for future in &mut futures {
            let _ = future.as_mut().poll(context);
        }
        std::task::Poll::<()>::Pending
    })
    .await;
}

pub async fn seconds(number: f64) {
    tokio::time::sleep(Duration::from_secs_f64(number)).await;
}

/// Runs a demo under load for `time` seconds, from the fault that `begin` starts. Then runs `end`,
/// waits for the recovery and prints the row.
pub async fn lasting(
    row: &Row,
    layout: Layout,
    time: f64,
    begin: impl FnOnce(&mut FaultHarness),
    end: impl FnOnce(&mut FaultHarness),
) {
    let mut harness = FaultHarness::start(row, layout, 1).await;
    begin(&mut harness);
    let began = Instant::now();
    harness.during(seconds(time)).await;
    assert!(began.elapsed() >= Duration::from_secs_f64(time));
    end(&mut harness);
    harness.recovers().await;
    harness.print(row, false);
}
