//! Tests of the unchanged demo on each topology: a login in a browser and a renewal, before and
//! after a fail-over.

use std::time::Duration;

use tower_wechat::simulator::Simulator;

use crate::support::demo_process::DemoProcess;
use crate::support::eventually;
use crate::support::harness::variables;
use crate::support::http_client::{Answer, Asked, HttpClient, fingerprint};
use crate::support::redis_cluster::RedisCluster;
use crate::support::sentinel_group::SentinelGroup;

/// An HTTP client that follows redirects between a demo and WeChat, and keeps the demo's cookies.
struct Browser<'a> {
    demo: &'a DemoProcess,
    wechat: HttpClient,
    cookies: Vec<(String, String)>,
}

impl<'a> Browser<'a> {
    fn new(demo: &'a DemoProcess, wechat: &Simulator) -> Self {
        Self {
            demo,
            wechat: HttpClient::new(wechat.url()),
            cookies: Vec::new(),
        }
    }

    async fn get(&mut self, path: &str) -> Answer {
        let cookies: Vec<_> = self
            .cookies
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let asked = Asked::get(path)
            .header("accept", "text/html")
            .header("cookie", cookies.join("; "));
        let answer = self.demo.ask(asked).await;
        for cookie in answer.headers.get_all("set-cookie") {
            let cookie = cookie.to_str().unwrap().split(';').next().unwrap();
            let (name, value) = cookie.split_once('=').unwrap();
            self.cookies.retain(|(known, _)| known != name);
            self.cookies.push((name.to_owned(), value.to_owned()));
        }
        answer
    }

    /// Opens the start page and follows redirects, through WeChat, to the end. Returns the last
    /// status.
    async fn open(&mut self) -> u16 {
        let (mut at, mut status) = ("/".to_owned(), 0);
        for _ in 0..8 {
            let answer = match at.strip_prefix(self.wechat.base()) {
                Some(path) => self.wechat.ask(Asked::get(path)).await,
                None => self.get(at.trim_start_matches(&self.demo.url)).await,
            };
            status = answer.status;
            if !(300..400).contains(&status) {
                break;
            }
            let to = answer.header("location");
            at = to.split('#').next().unwrap().to_owned();
        }
        status
    }

    async fn me(&mut self) -> Answer {
        self.get("/api/me").await
    }
}

/// Runs two demos on this Redis. A login and a renewal work before and after `trouble`, and both
/// demos see the results.
async fn serves(url: &str, trouble: impl AsyncFnOnce()) {
    let wechat = Simulator::start().await.unwrap();
    let key = base64_of_64_bytes();
    let environment = variables(&[
        ("REDIS_URL", url),
        ("REDIS_LAYOUT", "keys"),
        ("CACHE_TTL_SECS", "1"),
        ("COOKIE_KEY", &key),
        ("WECHAT_APPID", wechat.app_id()),
        ("WECHAT_SECRET", wechat.app_secret()),
        ("WECHAT_API_URL", wechat.url()),
        ("WECHAT_OPEN_URL", wechat.url()),
    ]);
    let (one, other) = (
        DemoProcess::start(&environment).await,
        DemoProcess::start(&environment).await,
    );
    let mut browser = Browser::new(&one, &wechat);
    assert_eq!(browser.open().await, 200, "the first login");
    let user = browser.me().await.field("openid");
    let token = |user: &str| fingerprint(&wechat.current_pair(user).unwrap().access_token);

    let mut elsewhere = Browser::new(&other, &wechat);
    elsewhere.cookies = browser.cookies.clone();
    let answer = elsewhere.me().await;
    assert_eq!(
        answer.field("token_fingerprint"),
        token(&user),
        "{answer:?}"
    );

    trouble().await;
    assert_eq!(elsewhere.me().await.field("user_id"), user);

    // WeChat rejects the user's token, and the demo renews it on the new primary.
    let before = token(&user);
    wechat.advance(Duration::from_secs(7_300));
    // Cached users do not need Redis. This user does, and is served after the fail-over.
    eventually("a renewal", Duration::from_secs(60), async || {
        let info = browser.get("/api/userinfo").await;
        info.status == 200 && info.field("openid") == user
    })
    .await;
    assert_ne!(token(&user), before);
    eventually(
        "the other demo has it",
        Duration::from_secs(30),
        async || elsewhere.me().await.field("token_fingerprint") == token(&user),
    )
    .await;

    let mut stranger = Browser::new(&other, &wechat);
    assert_eq!(stranger.open().await, 200, "a login after the fail-over");
    assert_eq!(stranger.me().await.status, 200);
}

fn base64_of_64_bytes() -> String {
    // 86 characters and two of padding encode 64 bytes.
    format!("{}QQ==", "QUFB".repeat(21))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn on_sentinels() {
    let mut group = SentinelGroup::start().await;
    let url = group.url("");
    serves(&url, async || {
        let old = group.primary();
        group.servers[old].kill();
        group.fails_over_from(old).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn on_a_cluster() {
    let mut cluster = RedisCluster::start().await;
    let url = cluster.url("");
    serves(&url, async || {
        let old = cluster.owner_of("wechat:wx0:user:anybody");
        cluster.nodes[old].kill();
        cluster
            .fails_over_from(old, "wechat:wx0:user:anybody")
            .await;
    })
    .await;
}
