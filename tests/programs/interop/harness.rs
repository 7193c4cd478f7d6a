//! The demo and a service in another language on one Redis.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use redis::Commands;
use serde_json::{Value, json};
use tower_wechat::simulator::UserPair;

use crate::support::demo_process::DemoProcess;
use crate::support::harness::{Harness, Layout, variables};
use crate::support::http_client::{Asked, HttpClient};

const SCRIPT: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/programs/interop/java_service.py"
);

pub(crate) const ACCESS_HASH: &str = "user.wxUserAccessToken";
pub(crate) const REFRESH_HASH: &str = "user.wxUserRefreshToken";

pub(crate) const USER: &str = "oUser";
pub(crate) const TWO_HOURS: Duration = Duration::from_secs(7_200);

/// The demo and the other service, on one Redis and one WeChat.
pub(crate) struct InteropHarness {
    pub(crate) services: Harness,
    pub(crate) demo: DemoProcess,
}

impl InteropHarness {
    pub(crate) async fn new() -> Self {
        Self::with(&[]).await
    }

    /// Starts the demo with additional variables.
    pub(crate) async fn with(more: &[(&str, &str)]) -> Self {
        let mut services = Harness::new(Layout::Hashes).await;
        // The demo reads Redis on every request, so that each response reflects the stored values.
        services
            .variables
            .push(("CACHE_TTL_SECS".to_owned(), "0".to_owned()));
        services.variables.extend(variables(more));
        let demo = services.demo().await;
        Self { services, demo }
    }

    /// Runs the other service once, with `input` on its stdin. Returns its output as JSON, or
    /// `null` if it prints nothing.
    async fn java(&self, task: &str, user: &str, input: String) -> Value {
        let mut command = Command::new("python3");
        command
            .arg(SCRIPT)
            .args([
                "--redis",
                &format!("127.0.0.1:{}", self.services.redis.port()),
            ])
            .args([
                "--api",
                self.services.wechat.url(),
                "--appid",
                self.services.wechat.app_id(),
            ])
            .args([task, user])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let run = move || {
            let mut child = command.spawn().unwrap_or_else(|error| {
                panic!("python3 does not start ({error}); `apt-get install python3` brings it")
            });
            child
                .stdin
                .take()
                .unwrap()
                .write_all(input.as_bytes())
                .unwrap();
            child.wait_with_output().unwrap()
        };
        let output = tokio::task::spawn_blocking(run).await.unwrap();
        assert!(
            output.status.success(),
            "the other service failed; its words are above"
        );
        match &output.stdout[..] {
            b"" => Value::Null,
            printed => serde_json::from_slice(printed).unwrap(),
        }
    }

    /// Returns the token that the other service uses for the user, and whether the service has just
    /// renewed it.
    pub(crate) async fn java_token(&self, user: &str) -> Value {
        self.java("token", user, String::new()).await
    }

    /// Logs a user in at WeChat, and lets the other service store the pair.
    pub(crate) async fn java_login(&self, user: &str) -> UserPair {
        let pair = self.services.wechat.sign_in(user, "snsapi_userinfo");
        let reply = json!({
            "access_token": pair.access_token,
            "expires_in": pair.expires_in.as_secs(),
            "refresh_token": pair.refresh_token,
            "openid": user,
            "scope": pair.scope,
        });
        self.java("login", user, reply.to_string()).await;
        pair
    }

    pub(crate) fn raw(&self, hash: &str, user: &str) -> String {
        self.services.connection().hget(hash, user).unwrap()
    }

    /// Advances WeChat's clock and reduces the times in Redis by as much, because the clocks of the
    /// two services cannot be moved.
    pub(crate) fn time_passes(&self, by: Duration) {
        self.services.wechat.advance(by);
        let by = i64::try_from(by.as_millis()).unwrap();
        for hash in [ACCESS_HASH, REFRESH_HASH] {
            let mut redis = self.services.connection();
            let fields: Vec<(String, String)> = redis.hgetall(hash).unwrap();
            for (user, value) in fields {
                let older = |(at, part): (usize, &str)| match part.parse::<i64>() {
                    Ok(ms) if at > 0 => (ms - by).to_string(),
                    _ => part.to_owned(),
                };
                let parts: Vec<String> = value.split('#').enumerate().map(older).collect();
                () = redis.hset(hash, user, parts.join("#")).unwrap();
            }
        }
    }

    pub(crate) fn current(&self, user: &str) -> String {
        self.services
            .wechat
            .current_pair(user)
            .unwrap()
            .access_token
    }

    /// Returns `true` if WeChat accepts the token for this user.
    pub(crate) async fn wechat_accepts(&self, user: &str, token: &str) -> bool {
        let path = format!("/sns/auth?access_token={token}&openid={user}");
        let answer = HttpClient::new(self.services.wechat.url())
            .ask(Asked::get(&path))
            .await;
        answer.json()["errcode"] == 0
    }
}

/// Returns the output of the other service after it has renewed the token.
pub(crate) fn renewed(token: &str) -> Value {
    json!({"token": token, "renewed": true})
}

/// Returns the output of the other service if it found a valid token.
pub(crate) fn as_it_was(token: &str) -> Value {
    json!({"token": token, "renewed": false})
}
