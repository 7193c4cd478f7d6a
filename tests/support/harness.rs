//! A real Redis, a simulated WeChat, and functions that write and read tokens in both.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use redis::{Commands, Connection};
use tower_wechat::simulator::{Simulator, UserPair};

use super::demo_process::{DemoProcess, USER_HEADER};
use super::redis_server::RedisServer;

pub const REFRESH: &str = "/sns/oauth2/refresh_token";
pub const USERINFO: &str = "/sns/userinfo";

const ACCESS_HASH: &str = "user.wxUserAccessToken";
const REFRESH_HASH: &str = "user.wxUserRefreshToken";

const HOUR_MS: i64 = 3_600_000;
/// The margin between the renewal point and the expiry in the hash layout: 15 minutes.
const MARGIN_MS: i64 = 900_000;

/// Layout of users' tokens in Redis, with its name in the variable `REDIS_LAYOUT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    Hashes,
    Keys,
}

impl Layout {
    pub const BOTH: [Self; 2] = [Self::Hashes, Self::Keys];

    pub fn name(self) -> &'static str {
        match self {
            Self::Hashes => "hashes",
            Self::Keys => "keys",
        }
    }
}

/// Age of a pair when a test writes it into Redis.
#[derive(Clone, Copy, Debug)]
pub enum Age {
    Fresh,
    /// Ten minutes past its renewal point, and five minutes before its expiry.
    Stale,
    Expired,
}

impl Age {
    /// Returns the renewal point of a pair of this age, in milliseconds since 1970.
    fn renew_at(self) -> i64 {
        now_ms()
            + match self {
                Self::Fresh => HOUR_MS,
                Self::Stale => 300_000 - MARGIN_MS,
                Self::Expired => -HOUR_MS,
            }
    }
}

pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    since.as_millis().try_into().unwrap()
}

/// A redis-server, a simulated WeChat, and the variables with which demos use both.
pub struct Harness {
    pub redis: RedisServer,
    pub wechat: Simulator,
    pub layout: Layout,
    /// Variables that each demo gets in addition to those of the harness.
    pub variables: Vec<(String, String)>,
}

impl Harness {
    pub async fn new(layout: Layout) -> Self {
        Self::on(RedisServer::start(), layout).await
    }

    pub async fn on(redis: RedisServer, layout: Layout) -> Self {
        let wechat = Simulator::start().await.unwrap();
        Self {
            redis,
            wechat,
            layout,
            variables: Vec::new(),
        }
    }

    /// Returns all variables with which a demo of this harness starts.
    pub fn environment(&self) -> Vec<(String, String)> {
        let mut variables = variables(&[
            ("REDIS_URL", &self.redis.url()),
            ("REDIS_LAYOUT", self.layout.name()),
            ("WECHAT_APPID", self.wechat.app_id()),
            ("WECHAT_SECRET", self.wechat.app_secret()),
            ("WECHAT_API_URL", self.wechat.url()),
            ("WECHAT_OPEN_URL", self.wechat.url()),
            ("TRUSTED_USER_HEADER", USER_HEADER),
        ]);
        variables.extend(self.variables.iter().cloned());
        variables
    }

    pub async fn demo(&self) -> DemoProcess {
        DemoProcess::start(&self.environment()).await
    }

    pub async fn demos<const N: usize>(&self) -> [DemoProcess; N] {
        let mut demos = Vec::with_capacity(N);
        for _ in 0..N {
            demos.push(self.demo().await);
        }
        demos
            .try_into()
            .unwrap_or_else(|_| unreachable!("as many as were started"))
    }

    /// Logs a user in at WeChat and writes the pair into Redis as another service would. For an
    /// expired pair, WeChat's clock advances, so that the pairs of earlier users expire too.
    pub async fn sign_in(&self, user: &str, age: Age) -> UserPair {
        let pair = self.wechat.sign_in(user, "snsapi_userinfo");
        if matches!(age, Age::Expired) {
            self.wechat.advance(pair.expires_in);
        }
        self.store(user, &pair, age);
        pair
    }

    /// Writes a pair into Redis, as another service would that publishes nothing.
    pub fn store(&self, user: &str, pair: &UserPair, age: Age) {
        self.store_text(
            user,
            &pair.access_token,
            age.renew_at(),
            &pair.refresh_token,
        );
    }

    pub fn store_text(&self, user: &str, access: &str, renew_at: i64, refresh: &str) {
        let due = now_ms() + 29 * 24 * HOUR_MS;
        match self.layout {
            Layout::Hashes => {
                self.put_access(user, format!("{access}#{renew_at}"));
                self.put_refresh(user, format!("{refresh}#{due}"));
            }
            Layout::Keys => {
                let expires_at = renew_at + MARGIN_MS;
                self.put_record(
                    user,
                    format!("1#{access}#{renew_at}#{expires_at}#{refresh}#{due}"),
                );
            }
        }
    }

    /// Writes the access value of a user in the hash layout.
    pub fn put_access(&self, user: &str, value: impl AsRef<[u8]>) {
        () = self
            .connection()
            .hset(ACCESS_HASH, user, value.as_ref())
            .unwrap();
    }

    /// Writes the refresh value of a user in the hash layout.
    pub fn put_refresh(&self, user: &str, value: impl AsRef<[u8]>) {
        () = self
            .connection()
            .hset(REFRESH_HASH, user, value.as_ref())
            .unwrap();
    }

    /// Writes the record of a user in the key layout.
    pub fn put_record(&self, user: &str, value: impl AsRef<[u8]>) {
        () = self
            .connection()
            .set(self.key(user), value.as_ref())
            .unwrap();
    }

    /// Returns the key of a user's record in the key layout, in which braces and `%` are escaped.
    pub fn key(&self, user: &str) -> String {
        let user = user
            .replace('%', "%25")
            .replace('{', "%7B")
            .replace('}', "%7D");
        format!("wechat:{}:user:{user}", self.wechat.app_id())
    }

    pub fn connection(&self) -> Connection {
        self.redis.connection()
    }

    /// Returns the user's access token and refresh token in Redis. Returns `None` if one of them is
    /// missing.
    pub fn stored(&self, user: &str) -> Option<(String, String)> {
        let mut redis = self.connection();
        let part = |value: &str, at: usize| value.split('#').nth(at).unwrap_or_default().to_owned();
        match self.layout {
            Layout::Hashes => {
                let access: Option<String> = redis.hget(ACCESS_HASH, user).unwrap();
                let refresh: Option<String> = redis.hget(REFRESH_HASH, user).unwrap();
                Some((part(&access?, 0), part(&refresh?, 0)))
            }
            Layout::Keys => {
                let record: Option<String> = redis.get(self.key(user)).unwrap();
                let record = record?;
                Some((part(&record, 1), part(&record, 4)))
            }
        }
    }

    /// Checks that Redis has the user's pair that is valid at WeChat.
    #[track_caller]
    pub fn assert_newest_pair_is_stored(&self, user: &str) {
        let newest = self.wechat.current_pair(user);
        let newest = newest.map(|pair| (pair.access_token, pair.refresh_token));
        assert_eq!(
            self.stored(user),
            newest,
            "the pair in Redis, and WeChat's newest pair of {user}"
        );
    }

    /// Returns the number of refresh calls that WeChat has received.
    pub fn refreshes(&self) -> u64 {
        self.wechat.calls_to(REFRESH)
    }

    /// Waits until WeChat has received this number of refresh calls, so that a renewal is in
    /// progress.
    pub async fn refreshes_reach(&self, calls: u64) {
        super::eventually(
            "a call of refresh_token",
            Duration::from_secs(20),
            async || self.refreshes() >= calls,
        )
        .await;
    }
}

/// Returns variables as owned texts, in the form that processes are started with.
pub fn variables(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}
