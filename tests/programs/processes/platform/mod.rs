//! Tests of demos that are a third-party platform: two processes, one Redis, and accounts whose owners
//! authorize the platform in a browser.

mod authorize;
mod release_test;
mod start_up;
mod three_processes;

use std::time::Duration;

use redis::Commands;
use reqwest::Method;
use tower_wechat::simulator::{
    PushReply, SimulatedPlatform, SimulatedPush, SimulatedUser, Simulator,
};
use url::{Position, Url};

use crate::support::browser::{Browser, Reply};
use crate::support::demo_process::DemoProcess;
use crate::support::eventually;
use crate::support::harness::{Layout, variables};
use crate::support::http_client::Asked;
use crate::support::redis_server::RedisServer;

const COMPONENT: &str = "wx00000000000000c0";
/// The first account of the simulator.
const SHOP: &str = "wx0123456789abcdef";
const CLUB: &str = "wxfedcba9876543210";

/// The openid, in the shop, of the user of all tests.
const USER: &str = "oUser";

const COMPONENT_TOKEN: &str = "/cgi-bin/component/api_component_token";
const QUERY: &str = "/cgi-bin/component/api_query_auth";

/// A Redis, and a simulator with a platform, two accounts and one user.
struct World {
    redis: RedisServer,
    wechat: Simulator,
    platform: SimulatedPlatform,
}

impl World {
    async fn start() -> Self {
        let wechat = Simulator::start().await.unwrap();
        wechat.add_account(CLUB, "secret-of-the-club");
        wechat.add_user(SimulatedUser::new(USER).unionid("uUser"));
        let platform = wechat.add_platform(COMPONENT, "secret-of-the-platform");
        Self {
            redis: RedisServer::start(),
            wechat,
            platform,
        }
    }

    /// Returns the variables of a demo of the platform, and `more`.
    fn environment(&self, layout: Layout, more: &[(&str, &str)]) -> Vec<(String, String)> {
        let (token, key) = self.platform.push_keys();
        let mut environment = variables(&[
            ("REDIS_URL", &self.redis.url()),
            ("REDIS_LAYOUT", layout.name()),
            ("PLATFORM_APPID", COMPONENT),
            ("PLATFORM_SECRET", "secret-of-the-platform"),
            ("PLATFORM_TOKEN", &token),
            ("PLATFORM_AES_KEY", &key),
            ("WECHAT_API_URL", self.wechat.url()),
            ("WECHAT_OPEN_URL", self.wechat.url()),
            ("COOKIE_KEY", &"QUJD".repeat(22)),
            ("PUBLIC_URL", "http://h5.example.com"),
        ]);
        environment.extend(variables(more));
        environment
    }

    async fn demo(&self, layout: Layout) -> DemoProcess {
        DemoProcess::start(&self.environment(layout, &[])).await
    }

    /// Lets WeChat push to this process.
    fn push_to(&self, demo: &DemoProcess) {
        let url = format!("{}/wechat/platform/push", demo.url);
        let _ = self.platform.clone().push_url(&*url).message_url(url);
    }

    async fn push(&self, push: SimulatedPush) -> PushReply {
        self.platform.push(push).await.unwrap().remove(0)
    }

    /// Pushes a ticket, and waits until this process can show the page with the links.
    async fn push_ticket(&self, demo: &DemoProcess) {
        self.push_to(demo);
        let reply = self.push(SimulatedPush::ticket()).await;
        assert!(reply.is_success(), "{reply:?}");
        eventually(
            "the platform has a token",
            Duration::from_secs(5),
            async || {
                let health = demo.ask(Asked::get("/healthz")).await;
                assert_eq!(health.status, 200, "{health:?}");
                health.json()["platform"] == "alive"
            },
        )
        .await;
    }

    /// Begins an authorization of this account at a process: opens its page, follows the first link, and
    /// agrees. Returns the URL to which WeChat returns.
    async fn agree(&self, demo: &DemoProcess, account: &str) -> Url {
        self.platform
            .choose_account(&self.wechat.app(account).unwrap());
        let browser = Browser::new();
        let page = browser
            .visit(&format!("{}/wechat/platform/authorize", demo.url))
            .await;
        assert_eq!(page.status, 200, "{}", page.text);
        let link = page.text.split("<a href=\"").nth(1).expect("a link");
        let link = link.split('"').next().unwrap().replace("&amp;", "&");
        let headers = [("referer", "http://h5.example.com/")];
        let reply = browser.send(Method::GET, &link, &headers).await.unwrap();
        reply.location().unwrap_or_else(|| panic!("{}", reply.text))
    }

    /// Authorizes an account. The authorization begins at one process and ends at another.
    async fn authorize(&self, [first, second]: [&DemoProcess; 2], account: &str) {
        let back = self.agree(first, account).await;
        let page = finish(&Browser::new(), second, &back).await;
        page.is_page(200, account);
        for demo in [first, second] {
            serves(demo, account, true).await;
        }
    }

    /// Returns the stored refresh token of an account.
    fn stored_refresh_token(&self, layout: Layout, account: &str) -> Option<String> {
        let key = match layout {
            Layout::Hashes => format!("sys.wxRefreshToken.{account}"),
            Layout::Keys => format!("wechat:{account}:account:refresh_token"),
        };
        let value: Option<String> = self.redis.connection().get(key).unwrap();
        value.map(|value| value.split('#').next().unwrap().to_owned())
    }
}

/// Sends a URL of the public address to a process, which a proxy serves under that address.
async fn finish(browser: &Browser, demo: &DemoProcess, url: &Url) -> Reply {
    let target = &url[Position::BeforePath..];
    browser.visit(&format!("{}{target}", demo.url)).await
}

/// Waits until a process lists an account and serves its paths, or does neither.
async fn serves(demo: &DemoProcess, account: &str, expected: bool) {
    let what = format!("serves {account}: {expected}");
    eventually(&what, Duration::from_secs(5), async || {
        let list = demo.ask(Asked::get("/api/accounts")).await;
        let list = list.json();
        let known = list["accounts"].as_array().into_iter().flatten();
        let is_listed = known.into_iter().any(|known| known == account);
        let me = demo.ask(Asked::get(&format!("/{account}/api/me"))).await;
        let status = if expected { 401 } else { 404 };
        is_listed == expected && me.status == status
    })
    .await;
}
