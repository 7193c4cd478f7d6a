//! Tests of the login cookies of several accounts on one host behind a real nginx with its default
//! buffers, under https: all cookies have the path `/`.

use axum::Router;
use tower_wechat::simulator::{SimulatedUser, Simulator};
use tower_wechat::{Account, Accounts, CookieKeys, Login, MemoryStore, WechatLayer};

use super::harness::{ALICE, listen, pages, serve};
use crate::support::browser::{Browser, Reply};
use crate::support::free_port;
use crate::support::nginx::Nginx;

/// The public origin. The TLS of the proxy is not part of the tests.
const ORIGIN: &str = "https://h5.example.com";

/// Accounts by path behind an nginx.
struct Town {
    nginx: Nginx,
    app_ids: Vec<String>,
    _sim: Simulator,
}

impl Town {
    async fn new(count: usize) -> Self {
        let sim = Simulator::start().await.unwrap();
        sim.add_user(SimulatedUser::new(ALICE));
        let keys = CookieKeys::random().unwrap();
        let app_ids: Vec<_> = (0..count)
            .map(|number| format!("wx{number:016x}"))
            .collect();
        let mut builder = Accounts::builder(MemoryStore::new());
        for app_id in &app_ids {
            sim.add_account(app_id, sim.app_secret());
            let login = Login::new(format!("{ORIGIN}/{app_id}"), keys.clone()).unwrap();
            let client = sim.app(app_id).unwrap().client().unwrap();
            builder = builder.account(Account::new(client).login(login));
        }
        let layer = WechatLayer::for_accounts(builder.build().unwrap());
        let (listener, url) = listen().await;
        serve(
            listener,
            Router::new().nest("/{appid}", pages()).layer(layer),
        );
        let address = format!("127.0.0.1:{}", free_port());
        let nginx = Nginx::start(&address, &format!("location / {{ proxy_pass {url}; }}"));
        Self {
            nginx,
            app_ids,
            _sim: sim,
        }
    }

    /// Returns the URL of an account's page at nginx. The query has this length.
    fn page(&self, account: usize, number: usize, length: usize) -> String {
        let (nginx, app_id) = (&self.nginx.url, &self.app_ids[account]);
        format!("{nginx}/{app_id}/me?n={number}&q={}", "x".repeat(length))
    }

    /// Opens a page up to the callback of its login, and returns the callback's URL at nginx.
    async fn begin(&self, browser: &Browser, url: &str) -> String {
        let sent = browser.visit(url).await;
        assert_eq!(sent.status, 302, "{}", sent.text);
        let total = kept(browser);
        assert!(total < 4_096, "{total}");
        let answered = browser.visit(sent.location().unwrap().as_str()).await;
        let callback = answered.location().unwrap();
        callback.as_str().replacen(ORIGIN, &self.nginx.url, 1)
    }

    /// Sends a callback, and opens the page to which it leads.
    async fn finish(&self, browser: &Browser, callback: &str) -> Reply {
        let mut reply = browser.visit(callback).await;
        if let Some(next) = reply.location() {
            let next = next.as_str().replacen(ORIGIN, &self.nginx.url, 1);
            reply = browser.visit(&next).await;
        }
        reply
    }

    #[track_caller]
    fn has_no_errors(&self) {
        let errors = self.nginx.errors();
        assert!(
            !errors.contains("too big") && !errors.contains("too large"),
            "{errors}"
        );
    }
}

/// Returns the number of bytes that all login cookies take in a `Cookie` header.
fn kept(browser: &Browser) -> usize {
    let names = browser.cookie_names();
    let names = names.iter().filter(|name| name.contains("_login_"));
    let sizes = names.map(|name| name.len() + 3 + browser.cookie(name).unwrap().len());
    sizes.sum()
}

/// Begins logins of many pages in turn in all accounts, and completes the newest login.
async fn passes_nginx(accounts: usize, tabs: usize, length: usize) {
    let town = Town::new(accounts).await;
    let browser = Browser::new();
    let mut newest = (String::new(), String::new());
    for number in 0..tabs {
        for account in 0..accounts {
            let page = town.page(account, number, length);
            newest = (town.begin(&browser, &page).await, page);
        }
    }
    let landed = town.finish(&browser, &newest.0).await;
    assert_eq!((landed.status, landed.url.as_str()), (200, &*newest.1));
    town.has_no_errors();
}

#[tokio::test]
async fn long_pages_of_eight_accounts_pass_nginx() {
    passes_nginx(8, 3, 1_500).await;
    passes_nginx(8, 3, 1_990).await;
}

#[tokio::test]
async fn many_tabs_of_several_accounts_pass_nginx() {
    passes_nginx(5, 4, 600).await;
    passes_nginx(3, 30, 100).await;
}

/// Short logins leave many small cookies, which the long page's reply has to remove.
#[tokio::test]
async fn a_long_page_after_many_short_ones_passes_nginx() {
    let town = Town::new(40).await;
    let browser = Browser::new();
    for account in 0..39 {
        town.begin(&browser, &town.page(account, 0, 40)).await;
    }
    let page = town.page(39, 0, 1_990);
    let callback = town.begin(&browser, &page).await;
    let landed = town.finish(&browser, &callback).await;
    assert_eq!((landed.status, landed.url.as_str()), (200, &*page));
    town.has_no_errors();
}

#[tokio::test]
async fn sessions_of_28_accounts_pass_nginx() {
    let town = Town::new(28).await;
    let browser = Browser::new();
    for account in 0..28 {
        let page = town.page(account, 0, 40);
        let callback = town.begin(&browser, &page).await;
        assert_eq!(town.finish(&browser, &callback).await.status, 200);
    }
    let long = town.page(0, 0, 1_990);
    assert_eq!(browser.visit(&long).await.status, 200);
    for account in 0..28 {
        let page = town.page(account, 1, 0);
        assert_eq!(browser.visit(&page).await.status, 200);
    }
    town.has_no_errors();
}

/// Two tabs of two accounts log in at the same time, with pages of the usual length.
#[tokio::test]
async fn logins_of_two_accounts_in_two_tabs_succeed() {
    let town = Town::new(2).await;
    let browser = Browser::new();
    let pages = [0, 1].map(|account| town.page(account, 0, 300));
    let first = town.begin(&browser, &pages[0]).await;
    let second = town.begin(&browser, &pages[1]).await;
    for (callback, page) in [(first, &pages[0]), (second, &pages[1])] {
        let landed = town.finish(&browser, &callback).await;
        assert_eq!((landed.status, landed.url.as_str()), (200, page.as_str()));
    }
    town.has_no_errors();
}

/// The callback of a login whose cookies made room for another account's answers with a page.
/// Its button leads to another login, which succeeds.
#[tokio::test]
async fn a_removed_login_can_be_repeated() {
    let town = Town::new(2).await;
    let browser = Browser::new();
    let removed = town.begin(&browser, &town.page(0, 0, 1_990)).await;
    let kept = town.begin(&browser, &town.page(1, 0, 1_990)).await;
    let reply = town.finish(&browser, &removed).await;
    reply.is_page(400, "lang=\"zh-CN\"");
    assert_eq!(town.finish(&browser, &kept).await.status, 200);
    let page = town.page(0, 0, 1_990);
    let again = town.begin(&browser, &page).await;
    let landed = town.finish(&browser, &again).await;
    assert_eq!((landed.status, landed.url.as_str()), (200, &*page));
    town.has_no_errors();
}
