//! Tests of demos with several accounts: two processes, one Redis, and one browser that logs in to two
//! accounts.

mod by_header;
mod by_host;
mod by_path;
mod one_renewal;
mod start_up;
mod unknown;
mod website;

use reqwest::Url;
use tower_wechat::simulator::{SimulatedUser, Simulator};

use crate::support::browser::{Browser, Reply};
use crate::support::demo_process::DemoProcess;
use crate::support::harness::variables;
use crate::support::redis_server::RedisServer;

/// The first account of the simulator.
const SHOP: &str = "wx0123456789abcdef";
const CLUB: &str = "wxfedcba9876543210";
/// The website app.
const SITE: &str = "wx00000000000000ab";

/// The openid, in the shop, of the user of all tests.
const USER: &str = "oUser";

/// User agent of a browser on a computer.
const DESKTOP: &str = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) \
                       Chrome/130.0.0.0 Safari/537.36";

/// A Redis, and a simulator with two accounts, a website app and one user.
struct World {
    redis: RedisServer,
    wechat: Simulator,
}

impl World {
    async fn start() -> Self {
        let wechat = Simulator::start().await.unwrap();
        wechat.add_account(CLUB, "secret-of-the-club");
        wechat.add_website(SITE, "secret-of-the-site");
        wechat.add_user(SimulatedUser::new(USER).unionid("uUser"));
        Self {
            redis: RedisServer::start(),
            wechat,
        }
    }

    /// Returns the variables of a demo of both accounts, and `more`.
    fn environment(&self, more: &[(&str, &str)]) -> Vec<(String, String)> {
        let shop = format!("{SHOP}:{}", self.wechat.app_secret());
        let accounts = format!("{shop},{CLUB}:secret-of-the-club");
        let mut environment = variables(&[
            ("REDIS_URL", &self.redis.url()),
            ("WECHAT_ACCOUNTS", &accounts),
            ("WECHAT_API_URL", self.wechat.url()),
            ("WECHAT_OPEN_URL", self.wechat.url()),
            ("COOKIE_KEY", &"QUJD".repeat(22)),
            ("PUBLIC_URL", "http://h5.example.com"),
        ]);
        environment.extend(variables(more));
        environment
    }

    async fn demos<const N: usize>(&self, more: &[(&str, &str)]) -> [DemoProcess; N] {
        let mut demos = Vec::with_capacity(N);
        for _ in 0..N {
            demos.push(DemoProcess::start(&self.environment(more)).await);
        }
        demos
            .try_into()
            .unwrap_or_else(|_| unreachable!("{N} demos"))
    }

    /// Returns the openid of the user in an account or in the website app.
    fn openid(&self, app_id: &str) -> String {
        self.wechat.app(app_id).unwrap().openid_of(USER)
    }
}

/// Begins a login with the start page below `base`. Returns the URL of its callback.
async fn begin(browser: &Browser, base: &str) -> Url {
    let page = browser.visit(&format!("{base}/")).await;
    let authorize = page
        .location()
        .unwrap_or_else(|| panic!("no login: {page:?}"));
    let approved = browser.visit(authorize.as_str()).await;
    approved.location().expect("a redirect to the callback")
}

/// Sends a callback to a process, which a proxy serves under the public URL.
async fn finish(browser: &Browser, demo: &DemoProcess, callback: &Url) -> Reply {
    let target = &callback[url::Position::BeforePath..];
    browser.visit(&format!("{}{target}", demo.url)).await
}

/// Logs a browser in. The login begins at one process and ends at another.
async fn log_in(browser: &Browser, [first, second]: [&DemoProcess; 2], path: &str) {
    let callback = begin(browser, &format!("{}{path}", first.url)).await;
    let page = finish(browser, second, &callback).await;
    assert_eq!(page.status, 302, "{page:?}");
}

/// Checks that the browser is the user with this openid of this app.
async fn is_user(browser: &Browser, base: &str, app_id: &str, openid: &str) {
    let me = browser.fetch(&format!("{base}/api/me")).await;
    assert_eq!(me.status, 200, "{me:?}");
    let me = me.json();
    assert_eq!(
        (&me["app_id"], &me["openid"]),
        (&app_id.into(), &openid.into())
    );
    assert_eq!(me["unionid"], "uUser");
}

async fn is_anonymous(browser: &Browser, base: &str) {
    let me = browser.fetch(&format!("{base}/api/me")).await;
    me.is_error(401, "login_required");
}
