//! Tests of website apps (网站应用) beside several accounts of one layer.

use std::time::Duration;

use axum::Router;
use axum::routing::{get, post};
use tower_wechat::redis::Layout;
use tower_wechat::simulator::{SimulatedApp, SimulatedUser};
use tower_wechat::{
    Account, AccountSelector, Accounts, CookieKeys, ErrorKind, Login, Logout, MemoryStore,
    RedisStore, UserTokens, WechatLayer, WechatUser,
};

use super::harness::{ALICE, Harness, listen, serve};
use crate::support::browser::Browser;
use crate::support::redis_server::RedisServer;

const SHOP: &str = "wx00000000000000aa";
const WEBSITE: &str = "wx00000000000000bb";
const CHROME: &str = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Safari/537.36";

/// The first account of the simulator and a shop, with one website beside both.
struct Apps {
    harness: Harness,
    club: SimulatedApp,
    shop: SimulatedApp,
    website: SimulatedApp,
}

impl Apps {
    async fn start() -> Self {
        let harness = Harness::new().await;
        harness.sim.add_user(SimulatedUser::new(ALICE));
        Self {
            club: harness.sim.app(harness.sim.app_id()).unwrap(),
            shop: harness.sim.add_account(SHOP, "secret-of-the-shop"),
            website: harness.sim.add_website(WEBSITE, "secret-of-the-website"),
            harness,
        }
    }

    /// Returns both accounts with the website. `login` creates the login of an AppID.
    fn accounts(&self, login: impl Fn(&str) -> Login) -> [Account; 2] {
        [&self.club, &self.shop].map(|app| {
            let clock = self.harness.clock.clone();
            Account::new(app.client().unwrap())
                .login(login(app.app_id()))
                .website(self.website.client().unwrap())
                .user_tokens(move |users| users.clock(clock.clone()))
        })
    }
}

async fn whoami(user: WechatUser) -> String {
    format!("{}@{}", user.id(), user.app_id())
}

fn app(accounts: Accounts, prefix: &str) -> Router {
    Router::new()
        .route(&format!("{prefix}/whoami"), get(whoami))
        .route(&format!("{prefix}/logout"), post(async || Logout))
        .layer(WechatLayer::for_accounts(accounts))
}

fn desktop() -> Browser {
    Browser::new().with_header("user-agent", CHROME)
}

#[tokio::test]
async fn each_account_logs_in_with_its_website() {
    let apps = Apps::start().await;
    let (listener, url) = listen().await;
    let keys = CookieKeys::random().unwrap();
    let login = |app_id: &str| Login::new(format!("{url}/{app_id}"), keys.clone()).unwrap();
    let accounts = Accounts::builder(MemoryStore::with_clock(apps.harness.clock.clone()))
        .accounts(apps.accounts(login))
        .build()
        .unwrap();
    serve(listener, app(accounts.clone(), "/{appid}"));
    let alice = format!("{}@{WEBSITE}", apps.website.openid_of(ALICE));
    for account in [&apps.club, &apps.shop] {
        let whoami = format!("{url}/{}/whoami", account.app_id());
        let browser = desktop();
        assert_eq!(browser.open(&whoami).await.text, alice);
        apps.harness.advance(Duration::from_secs(3 * 3_600));
        assert_eq!(browser.visit(&whoami).await.text, alice, "after a renewal");
        let phone = browser.copy();
        let login = format!("{url}/{}/wechat/login?return_to={whoami}", account.app_id());
        let openid = account.openid_of(ALICE);
        let page = phone.open(&login).await;
        assert_eq!(page.text, format!("{openid}@{}", account.app_id()));
        let logout = format!("{url}/{}/logout", account.app_id());
        assert_eq!(phone.post(&logout).await.cookies().len(), 2);
        phone.fetch(&whoami).await.is_error(401, "login_required");
    }
    assert!(accounts.shutdown(Duration::from_secs(5)).await);
}

/// The query selects the account, so that both accounts have the same callback path.
#[tokio::test]
async fn a_login_with_the_website_ends_at_its_account() {
    let apps = Apps::start().await;
    let (listener, url) = listen().await;
    let keys = CookieKeys::random().unwrap();
    let login = |_: &str| Login::new(&url, keys.clone()).unwrap();
    let accounts = Accounts::builder(MemoryStore::with_clock(apps.harness.clock.clone()))
        .selector(AccountSelector::query("appid").unwrap())
        .accounts(apps.accounts(login))
        .build()
        .unwrap();
    serve(listener, app(accounts, ""));
    let (club, shop) = (apps.club.app_id(), apps.shop.app_id());
    let browser = desktop();
    let callback = browser
        .callback_of(&format!("{url}/whoami?appid={club}"))
        .await;
    let crossed = callback.replace(club, shop);
    assert_ne!(crossed, callback);
    let reply = browser.fetch(&crossed).await;
    reply.is_error(400, "invalid_state");
    assert!(reply.cookies().is_empty());
    let reply = browser.visit(&callback).await;
    assert_eq!(
        reply.header("location"),
        Some(&*format!("/whoami?appid={club}"))
    );
    let alice = format!("{}@{WEBSITE}", apps.website.openid_of(ALICE));
    let page = browser.visit(&format!("{url}/whoami?appid={club}")).await;
    assert_eq!(page.text, alice);
    // The other account does not accept the session.
    let other = format!("{url}/whoami?appid={shop}");
    let reply = browser.fetch(&other).await;
    reply.is_error(401, "login_required");
    assert_eq!(browser.open(&other).await.text, alice);
}

#[tokio::test]
async fn wrong_websites_are_refused() {
    let apps = Apps::start().await;
    let login = || {
        let url = format!("https://h5.example.com/{SHOP}");
        Login::builder(url, CookieKeys::random().unwrap())
    };
    let shop = || Account::new(apps.shop.client().unwrap());
    let website = || apps.website.client().unwrap();
    let with_login = || shop().login(login().build().unwrap());
    let message = |accounts: Vec<Account>| {
        let built = Accounts::builder(MemoryStore::new())
            .accounts(accounts)
            .build();
        let error = built.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration);
        error.to_string()
    };
    let bound = login().bind_to_identity(true).build().unwrap();
    for (accounts, expected) in [
        (
            vec![shop().website(website())],
            "has a website and no login",
        ),
        (
            vec![with_login().website(apps.shop.client().unwrap())],
            "has the AppID of the account",
        ),
        (
            vec![shop().login(bound).website(website())],
            "website and bind_to_identity cannot be combined",
        ),
        (
            vec![with_login().website(website()), Account::new(website())],
            "is an account too",
        ),
    ] {
        let message = message(accounts);
        assert!(message.contains(expected), "{message}");
    }
    // One account and its website are two apps.
    let redis = RedisServer::start();
    let hashes = RedisStore::builder(&redis.url()).layout(Layout::Hashes);
    let hashes = hashes.connect().await.unwrap();
    let one = Accounts::builder(hashes.clone()).account(with_login());
    assert!(one.build().is_ok());
    let two = Accounts::builder(hashes).account(with_login().website(website()));
    let error = two.build().unwrap_err().to_string();
    assert!(error.contains("{appid}"), "{error}");
    // Accounts may share the users of one website.
    let users = UserTokens::new(website(), MemoryStore::new());
    let shared = shop().login(login().website(users).build().unwrap());
    let built = Accounts::builder(MemoryStore::new())
        .account(shared)
        .build();
    assert!(built.is_ok());
}
