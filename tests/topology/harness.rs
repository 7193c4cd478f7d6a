//! A load on two processes while Redis fails: requests, renewals and logins. All responses are
//! recorded and checked.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tower_wechat::client::UserTokenResponse;
use tower_wechat::redis::RedisStoreBuilder;
use tower_wechat::simulator::Simulator;
use tower_wechat::{ErrorKind, RedisStore, UserId, UserToken, UserTokens, WechatClient};

const USERS: usize = 30;
const TASKS: usize = 8;

/// Lifetime of a user's token, 8 s, so that each user's token is renewed several times in a test.
const TOKEN_LIFETIME: Duration = Duration::from_secs(8);

pub struct LoadHarness {
    pub wechat: Arc<Simulator>,
    processes: Vec<UserTokens>,
    books: Arc<Books>,
    redis: RedisStoreBuilder,
}

#[derive(Default)]
struct Books {
    /// The user of each token that WeChat issued or a process returned.
    owners: Mutex<HashMap<String, usize>>,
    /// One lock for each user, so that a user has one login at a time.
    logging_in: Vec<tokio::sync::Mutex<()>>,
    requests: AtomicU64,
    unavailable: AtomicU64,
    logins_again: AtomicU64,
    wrong: AtomicU64,
    longest_ms: AtomicU64,
    failures: Mutex<Option<(Instant, Instant)>>,
    other: Mutex<Vec<String>>,
    stop: AtomicBool,
}

fn id(user: usize) -> UserId {
    UserId::new(openid(user)).unwrap()
}

fn openid(user: usize) -> String {
    format!("oUser{user}")
}

impl LoadHarness {
    /// Starts two processes on this Redis, and logs all users in.
    pub async fn start(redis: RedisStoreBuilder) -> Self {
        let wechat = Simulator::start().await.unwrap();
        wechat.settings(|settings| {
            settings.user_token_lifetime = TOKEN_LIFETIME;
            settings.rotate_refresh_token = true;
        });
        let mut harness = Self {
            wechat: Arc::new(wechat),
            processes: Vec::new(),
            books: Arc::new(Books {
                logging_in: (0..USERS).map(|_| tokio::sync::Mutex::default()).collect(),
                ..Books::default()
            }),
            redis,
        };
        for _ in 0..2 {
            harness.processes.push(harness.process().await);
        }
        for user in 0..USERS {
            log_in(
                &harness.wechat,
                &harness.processes[user % 2],
                &harness.books,
                user,
            )
            .await;
        }
        assert_eq!(harness.books.unavailable.load(Ordering::Relaxed), 0);
        harness
    }

    async fn process(&self) -> UserTokens {
        let wechat = WechatClient::builder(self.wechat.app_id(), self.wechat.app_secret())
            .api_url(self.wechat.url())
            .build()
            .unwrap();
        let store: RedisStore = self.redis.clone().connect().await.unwrap();
        UserTokens::builder(wechat, store)
            .cache_ttl(Duration::from_millis(100))
            .build()
    }

    /// Runs the load until `happens` ends, and returns its output.
    pub async fn during<T>(&self, happens: impl Future<Output = T>) -> T {
        let mut running = JoinSet::new();
        for at in 0..TASKS {
            let users = self.processes[at % self.processes.len()].clone();
            let (wechat, books) = (Arc::clone(&self.wechat), Arc::clone(&self.books));
            running.spawn(async move { run(&wechat, &users, &books, at).await });
        }
        let out = happens.await;
        self.books.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = running.join_next().await {
            ended.unwrap();
        }
        self.books.stop.store(false, Ordering::Relaxed);
        out
    }

    /// Waits until each user gets a token or has to log in, without any other error in between.
    pub async fn serves_again(&self) {
        let at_once = async || {
            for user in 0..USERS {
                let process = &self.processes[user % 2];
                match process.get(&id(user)).await {
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::LoginRequired => {}
                    Err(_) => return false,
                }
            }
            true
        };
        crate::support::eventually("all is well again", Duration::from_secs(60), at_once).await;
    }

    /// Checks after a fault that a new process serves each user with a token that WeChat accepts.
    /// Reports and logins on the way are counted. Prints the numbers of the test.
    pub async fn balances(&self, fault: &str) {
        let fresh = self.process().await;
        let renewals = || self.wechat.calls_to("/sns/oauth2/refresh_token");
        let before = renewals();
        let mut again = 0;
        for user in 0..USERS {
            let mut steps = 0;
            loop {
                steps += 1;
                assert!(steps <= 4, "user {user} goes round and round");
                match fresh.get(&id(user)).await {
                    Ok(token) => {
                        self.books.check(&self.wechat, user, &token);
                        if self.is_alive(user, &token) {
                            break;
                        }
                        // Another login has revoked this pair at WeChat. A report asks for a login.
                        // The pair stays for other callers, because the access token is not due.
                        let (id, dead) = (id(user), token.access_token());
                        match fresh.report_invalid(&id, dead).await {
                            Err(error) if error.kind() == ErrorKind::LoginRequired => {
                                again += 1;
                                log_in(&self.wechat, &fresh, &self.books, user).await;
                            }
                            Ok(_) | Err(_) => {}
                        }
                    }
                    Err(error) if error.kind() == ErrorKind::LoginRequired => {
                        again += 1;
                        log_in(&self.wechat, &fresh, &self.books, user).await;
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        }
        let asked = renewals() - before;
        assert!(
            asked <= 3 * USERS as u64,
            "{asked} renewals for {USERS} users"
        );
        let books = &self.books;
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let failures = *books.failures.lock().unwrap();
        let outage = failures.map_or(Duration::ZERO, |(first, last)| last - first);
        println!(
            "{fault}: {} requests, {} wrong answers, {} answered store_unavailable over {outage:.1?}, \
             longest wait {} ms, {} logged in again, {:?}",
            count(&books.requests),
            count(&books.wrong),
            count(&books.unavailable),
            count(&books.longest_ms),
            count(&books.logins_again) + again,
            self.wechat.calls(),
        );
        // If two processes use different primaries, the logins at one revoke the pairs at the
        // other. The number of logins has only this loose bound.
        let logins = count(&books.logins_again) + again;
        assert!(
            2 * logins < count(&books.requests),
            "{logins} logins: round and round"
        );
        assert_eq!(count(&books.wrong), 0, "somebody saw another user's token");
        let other = books.other.lock().unwrap();
        assert!(other.is_empty(), "{other:?}");
        assert!(count(&books.requests) > 100, "there was hardly a load");
        assert!(count(&books.longest_ms) < 15_000, "a request hung");
    }

    fn is_alive(&self, user: usize, token: &UserToken) -> bool {
        let known = self.wechat.current_pair(&openid(user));
        known.is_some_and(|pair| pair.access_token == token.access_token().expose())
    }
}

impl Books {
    fn owns(&self, user: usize, token: &str) {
        let mut owners = self.owners.lock().unwrap();
        if *owners.entry(token.to_owned()).or_insert(user) != user {
            self.wrong.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn check(&self, wechat: &Simulator, user: usize, token: &UserToken) {
        if let Some(pair) = wechat.current_pair(&openid(user)) {
            self.owns(user, &pair.access_token);
        }
        self.owns(user, token.access_token().expose());
    }

    fn answered(&self, asked: Instant) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let took = u64::try_from(asked.elapsed().as_millis()).unwrap();
        self.longest_ms.fetch_max(took, Ordering::Relaxed);
    }

    fn failed(&self, error: &tower_wechat::Error) {
        if error.kind() != ErrorKind::StoreUnavailable {
            self.other.lock().unwrap().push(error.to_string());
            return;
        }
        self.unavailable.fetch_add(1, Ordering::Relaxed);
        let now = Instant::now();
        let mut failures = self.failures.lock().unwrap();
        *failures = Some((failures.map_or(now, |(first, _)| first), now));
    }
}

async fn log_in(wechat: &Simulator, users: &UserTokens, books: &Books, user: usize) {
    let _alone = books.logging_in[user].lock().await;
    let pair = wechat.sign_in(&openid(user), "snsapi_userinfo");
    books.owns(user, &pair.access_token);
    let grant = UserTokenResponse::new(pair.access_token.as_str())
        .expires_in(pair.expires_in.as_secs() as i64)
        .refresh_token(pair.refresh_token.as_str())
        .openid(pair.openid.as_str())
        .scope(pair.scope.as_str());
    let asked = Instant::now();
    let put = users.store(&id(user), &grant).await;
    books.answered(asked);
    if let Err(error) = put {
        books.failed(&error);
    }
}

async fn run(wechat: &Simulator, users: &UserTokens, books: &Books, seed: usize) {
    let mut step = seed;
    while !books.stop.load(Ordering::Relaxed) {
        step += 1;
        let user = (step * 7 + seed * 11) % USERS;
        if step.is_multiple_of(40) {
            log_in(wechat, users, books, user).await;
            continue;
        }
        let asked = Instant::now();
        let got = users.get(&id(user)).await;
        books.answered(asked);
        let token = match got {
            Ok(token) => token,
            Err(error) if error.kind() == ErrorKind::LoginRequired => {
                books.logins_again.fetch_add(1, Ordering::Relaxed);
                log_in(wechat, users, books, user).await;
                continue;
            }
            Err(error) => {
                books.failed(&error);
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            }
        };
        books.check(wechat, user, &token);
        let known = wechat.current_pair(&openid(user));
        let alive = known.is_some_and(|pair| pair.access_token == token.access_token().expose());
        if !alive {
            // A handler would report the token when WeChat rejects it. A login that is under way
            // ends first, because the login has revoked the stored pair.
            let login = books.logging_in[user].lock().await;
            let asked = Instant::now();
            let healed = users.report_invalid(&id(user), token.access_token()).await;
            books.answered(asked);
            drop(login);
            match healed {
                Ok(token) => books.check(wechat, user, &token),
                Err(error) if error.kind() == ErrorKind::LoginRequired => {
                    books.logins_again.fetch_add(1, Ordering::Relaxed);
                    log_in(wechat, users, books, user).await;
                }
                Err(error) => books.failed(&error),
            }
        }
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
}
