//! Tests of the login with several accounts and one browser: by path, by host, by header and by
//! query, with the simulator as WeChat of both accounts.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::{OriginalUri, Request};
use axum::middleware::{self, Next};
use axum::routing::{get, post};
use axum::{Json, Router};
use http::HeaderValue;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tower_wechat::client::UserTokenResponse;
use tower_wechat::credential::AppId;
use tower_wechat::layer::AccountsBuilder;
use tower_wechat::redis::{Layout, RedisNames};
use tower_wechat::simulator::{SimulatedApp, SimulatedUser, Simulator};
use tower_wechat::{
    Account, AccountSelector, Accounts, CookieKeys, Error, Login, Logout, MemoryStore, RedisStore,
    UserId, WechatLayer, WechatUser,
};

use super::harness::{ALICE, EXCHANGE};
use crate::support::browser::{Browser, Reply};
use crate::support::eventually;
use crate::support::redis_server::RedisServer;

/// The AppIDs of both accounts, which differ only in letter case.
const APPS: [&str; 2] = ["wx0123456789abcdef", "WX0123456789ABCDEF"];
const SHOP: usize = 0;
const CLUB: usize = 1;

/// The part of a request that names its account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Path,
    Host,
    Header,
    Query,
}

const ALL: [By; 4] = [By::Path, By::Host, By::Header, By::Query];

/// WeChat with both accounts, and the keys and stores that all servers share.
struct Town {
    sim: Simulator,
    apps: [SimulatedApp; 2],
    keys: CookieKeys,
    memory: MemoryStore,
}

/// A server of both accounts.
struct Site {
    by: By,
    /// The origin of each account.
    origins: [String; 2],
    accounts: Accounts,
}

impl Town {
    async fn new() -> Self {
        let sim = Simulator::start().await.unwrap();
        sim.add_user(SimulatedUser::new(ALICE).nickname("爱丽丝"));
        sim.add_account(APPS[CLUB], sim.app_secret());
        Self {
            apps: APPS.map(|app_id| sim.app(app_id).unwrap()),
            sim,
            keys: CookieKeys::random().unwrap(),
            memory: MemoryStore::new(),
        }
    }

    /// Starts a server that lists both accounts.
    async fn site(&self, by: By) -> Site {
        let builder = Accounts::builder(self.memory.clone());
        self.site_with(by, builder, None, |builder, accounts| {
            builder.accounts(accounts)
        })
        .await
    }

    /// Starts a server with these accounts. Its public URLs are those of `public`, or its own.
    async fn site_with(
        &self,
        by: By,
        builder: AccountsBuilder,
        public: Option<&Site>,
        change: impl FnOnce(AccountsBuilder, [Account; 2]) -> AccountsBuilder,
    ) -> Site {
        let listeners = [listen().await, listen().await];
        let [first, second] = listeners.each_ref().map(|listener| {
            let port = listener.local_addr().unwrap().port();
            format!("127.0.0.1:{port}")
        });
        let hosts = match by {
            By::Path | By::Query => [first.clone(), first],
            By::Host => [first.clone(), first.replace("127.0.0.1", "localhost")],
            By::Header => [first, second],
        };
        let origins = hosts.each_ref().map(|host| format!("http://{host}"));
        let public = public.map_or(&origins, |site| &site.origins);
        let accounts = [SHOP, CLUB].map(|at| {
            let url = match by {
                By::Path => format!("{}/{}", public[at], APPS[at]),
                By::Host | By::Header | By::Query => public[at].clone(),
            };
            let login = Login::new(url, self.keys.clone()).unwrap();
            Account::new(self.apps[at].client().unwrap()).login(login)
        });
        let selector = match by {
            By::Path => AccountSelector::path(),
            By::Host => {
                let host = |at: usize| public[at].strip_prefix("http://").unwrap();
                AccountSelector::host(
                    [
                        (host(SHOP), APPS[SHOP]),
                        (host(CLUB), APPS[CLUB]),
                        (&*hosts[SHOP], APPS[SHOP]),
                        (&*hosts[CLUB], APPS[CLUB]),
                    ]
                    .into_iter()
                    .take(if public == &origins { 2 } else { 4 }),
                )
                .unwrap()
            }
            By::Header => AccountSelector::header("x-account").unwrap(),
            By::Query => AccountSelector::query("account").unwrap(),
        };
        let accounts = change(builder.selector(selector), accounts)
            .build()
            .unwrap();
        let pages = || match by {
            By::Path => Router::new().nest("/{appid}", pages()),
            By::Host | By::Header | By::Query => pages(),
        };
        for (listener, app_id) in listeners.into_iter().zip(APPS) {
            let app = pages().layer(WechatLayer::for_accounts(accounts.clone()));
            // The gateway in front of an account sets the header.
            let gateway = middleware::from_fn(move |mut request: Request, next: Next| {
                let name = HeaderValue::from_static(app_id);
                request.headers_mut().insert("x-account", name);
                next.run(request)
            });
            let app = app.layer(gateway);
            tokio::spawn(async move { axum::serve(listener, app).await });
        }
        Site {
            by,
            origins,
            accounts,
        }
    }

    /// Returns how many codes each account has exchanged.
    fn exchanges(&self) -> [u64; 2] {
        self.apps.each_ref().map(|app| app.calls_to(EXCHANGE))
    }

    /// Returns Alice's openid in an account.
    fn alice(&self, account: usize) -> String {
        self.apps[account].openid_of(ALICE)
    }

    /// Asserts that `reply` is a page of Alice in this account.
    #[track_caller]
    fn is_alices(&self, account: usize, reply: &Reply) {
        assert_eq!(reply.status, 200, "{}", reply.text);
        let json = reply.json();
        assert_eq!(json["app"], APPS[account]);
        assert_eq!(json["id"], *self.alice(account));
    }
}

impl Site {
    /// Returns the URL of an account's page.
    fn url(&self, account: usize, path: &str) -> String {
        let (origin, app_id) = (&self.origins[account], APPS[account]);
        match self.by {
            By::Path => format!("{origin}/{app_id}{path}"),
            By::Host | By::Header => format!("{origin}{path}"),
            By::Query if path.contains('?') => format!("{origin}{path}&account={app_id}"),
            By::Query => format!("{origin}{path}?account={app_id}"),
        }
    }

    fn me(&self, account: usize) -> String {
        self.url(account, "/me")
    }

    /// Returns the callback URL of an account with the code and the state of `callback`.
    fn callback(&self, account: usize, callback: &str) -> String {
        let (code, state) = (parameter(callback, "code"), parameter(callback, "state"));
        self.callback_with(account, &code, &state)
    }

    fn callback_with(&self, account: usize, code: &str, state: &str) -> String {
        self.url(
            account,
            &format!("/wechat/callback?code={code}&state={state}"),
        )
    }
}

async fn listen() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

fn pages() -> Router {
    Router::new()
        .route("/me", get(me))
        .route("/logout", post(async |_: WechatUser| Logout))
        .route("/logout/everywhere", post(logout_everywhere))
}

async fn me(user: WechatUser, OriginalUri(uri): OriginalUri) -> Json<Value> {
    Json(json!({
        "app": user.app_id().as_str(),
        "id": user.id(),
        "uri": uri.to_string(),
    }))
}

async fn logout_everywhere(user: WechatUser) -> Result<Logout, Error> {
    user.revoke().await?;
    Ok(Logout)
}

fn parameter(url: &str, name: &str) -> String {
    let url = url::Url::parse(url).unwrap();
    let (_, value) = url.query_pairs().find(|(known, _)| known == name).unwrap();
    value.into_owned()
}

/// Loads a page and follows redirects up to the callback. Returns the callback's URL without a
/// request to it.
async fn callback_of(browser: &Browser, url: &str) -> String {
    let mut reply = browser.visit(url).await;
    for _ in 0..12 {
        let next = reply.location();
        let next = next.unwrap_or_else(|| panic!("no redirect: {reply:?}"));
        if next.path().ends_with("/wechat/callback") {
            return next.into();
        }
        reply = browser.visit(next.as_str()).await;
    }
    panic!("redirects without end");
}

fn session(account: usize) -> String {
    format!("wechat_session_{}", APPS[account])
}

#[tokio::test]
async fn one_browser_is_signed_in_to_both_accounts() {
    for by in ALL {
        let town = Town::new().await;
        let site = town.site(by).await;
        let browser = Browser::new();
        for account in [SHOP, CLUB] {
            let page = site.url(account, "/me?tab=2");
            let reply = browser.open(&page).await;
            town.is_alices(account, &reply);
            assert_eq!(reply.url.as_str(), page);
        }
        assert_eq!(town.exchanges(), [1, 1], "{by:?}");
        let mut sessions = [session(SHOP), session(CLUB)];
        sessions.sort();
        let names = browser.cookie_names();
        let names = names.iter().filter(|name| name.contains("session"));
        assert_eq!(
            names.collect::<Vec<_>>(),
            sessions.iter().collect::<Vec<_>>()
        );
        for account in [SHOP, CLUB, SHOP] {
            town.is_alices(account, &browser.fetch(&site.me(account)).await);
        }
        assert_eq!(town.exchanges(), [1, 1], "{by:?}");
        assert_ne!(town.alice(SHOP), town.alice(CLUB));
    }
}

#[tokio::test]
async fn the_login_url_of_a_script_leads_to_its_account() {
    for by in ALL {
        let town = Town::new().await;
        let site = town.site(by).await;
        for account in [SHOP, CLUB] {
            let browser = Browser::new();
            let reply = browser.fetch(&site.me(account)).await;
            let json = reply.is_error(401, "login_required");
            let login_url = reply.url.join(json["login_url"].as_str().unwrap()).unwrap();
            let (start, _) = login_url.as_str().split_once("return_to=").unwrap();
            let page = site.me(account).replacen(&site.origins[account], "", 1);
            let page = page.replace('?', "%3F").replace('=', "%3D");
            let start = format!("{start}return_to={page}");
            let landed = browser.open(&start).await;
            town.is_alices(account, &landed);
            assert_eq!(browser.cookie(&session(1 - account)), None, "{by:?}");
        }
        assert_eq!(town.exchanges(), [1, 1], "{by:?}");
    }
}

#[tokio::test]
async fn a_crossed_callback_is_rejected_and_the_login_succeeds_afterwards() {
    for by in ALL {
        let town = Town::new().await;
        let site = town.site(by).await;
        for (account, other) in [(SHOP, CLUB), (CLUB, SHOP)] {
            let browser = Browser::new();
            let callback = callback_of(&browser, &site.me(account)).await;
            let cookies = browser.cookie_names();
            let crossed = site.callback(other, &callback);
            browser.fetch(&crossed).await.is_error(400, "invalid_state");
            assert_eq!(browser.visit(&crossed).await.status, 400, "{by:?}");
            assert_eq!(browser.cookie_names(), cookies, "{by:?}");
            // The cookies of the login under the names of the other account's cookies.
            let thief = browser.copy();
            for name in cookies {
                let value = browser.cookie(&name).unwrap();
                thief.set_cookie(&name.replace(APPS[account], APPS[other]), "/", &value);
            }
            thief.fetch(&crossed).await.is_error(400, "invalid_state");
            assert_eq!(
                town.exchanges()[other],
                u64::from(account == CLUB),
                "{by:?}"
            );
            // Another login of the other account is under way at the same time.
            let second = callback_of(&browser, &site.me(other)).await;
            town.is_alices(account, &browser.open(&callback).await);
            if account == CLUB {
                town.is_alices(other, &browser.open(&second).await);
            }
        }
        assert_eq!(town.exchanges(), [2, 1], "{by:?}");
    }
}

/// A code belongs to the account that issued it, also in the records of used codes.
#[tokio::test]
async fn a_code_of_one_account_is_of_no_use_in_another() {
    let town = Town::new().await;
    let site = town.site(By::Path).await;
    let browser = Browser::new();
    let first = callback_of(&browser, &site.me(SHOP)).await;
    let second = callback_of(&browser, &site.me(CLUB)).await;
    let (code, state) = (parameter(&first, "code"), parameter(&second, "state"));
    // WeChat rejects the code for the other account. The browser has no session there.
    browser
        .visit(&site.callback_with(CLUB, &code, &state))
        .await;
    assert_eq!(town.exchanges(), [0, 1]);
    assert_eq!(browser.cookie(&session(CLUB)), None);
    // The code is unspent in its own account, and a repeated callback succeeds without WeChat.
    town.is_alices(SHOP, &browser.open(&first).await);
    town.is_alices(SHOP, &browser.open(&first).await);
    assert_eq!(town.exchanges(), [1, 1]);
    town.is_alices(CLUB, &browser.open(&site.me(CLUB)).await);
}

#[tokio::test]
async fn a_session_is_not_valid_in_another_account() {
    for by in ALL {
        let town = Town::new().await;
        let site = town.site(by).await;
        let browser = Browser::new();
        browser.open(&site.me(SHOP)).await;
        let value = browser.cookie(&session(SHOP)).unwrap();
        // The other account has a user with the same id.
        let club = site.accounts.get(&AppId::new(APPS[CLUB]).unwrap()).await;
        let club = club.unwrap().unwrap();
        let token = UserTokenResponse::new("token").expires_in(7_200);
        let id = UserId::new(town.alice(SHOP)).unwrap();
        club.users().unwrap().store(&id, &token).await.unwrap();
        let reply = browser.fetch(&site.me(CLUB)).await;
        reply.is_error(401, "login_required");
        browser.set_cookie(&session(CLUB), "/", &value);
        let reply = browser.fetch(&site.me(CLUB)).await;
        reply.is_error(401, "login_required");
        town.is_alices(SHOP, &browser.fetch(&site.me(SHOP)).await);
    }
}

#[tokio::test]
async fn a_logout_ends_the_session_of_one_account() {
    for by in ALL {
        let town = Town::new().await;
        let site = town.site(by).await;
        let (phone, desktop) = (Browser::new(), Browser::new());
        for browser in [&phone, &desktop] {
            for account in [SHOP, CLUB] {
                browser.open(&site.me(account)).await;
            }
        }
        let signed_out = async |browser: &Browser, account: usize| {
            let reply = browser.fetch(&site.me(account)).await;
            reply.is_error(401, "login_required");
        };
        let reply = phone.post(&site.url(SHOP, "/logout")).await;
        assert_eq!(reply.status, 204, "{by:?}");
        signed_out(&phone, SHOP).await;
        town.is_alices(CLUB, &phone.fetch(&site.me(CLUB)).await);
        town.is_alices(SHOP, &desktop.fetch(&site.me(SHOP)).await);

        let reply = desktop.post(&site.url(CLUB, "/logout/everywhere")).await;
        assert_eq!(reply.status, 204, "{by:?}");
        signed_out(&desktop, CLUB).await;
        signed_out(&phone, CLUB).await;
        town.is_alices(SHOP, &desktop.fetch(&site.me(SHOP)).await);
        // A later login in the one account does not revive the other's sessions.
        town.is_alices(SHOP, &phone.open(&site.me(SHOP)).await);
        signed_out(&phone, CLUB).await;
    }
}

#[tokio::test]
async fn an_account_may_be_removed_during_a_login() {
    let town = Town::new().await;
    let site = town.site(By::Path).await;
    let browser = Browser::new();
    let callback = callback_of(&browser, &site.me(CLUB)).await;
    let shop = callback_of(&browser, &site.me(SHOP)).await;
    assert!(site.accounts.remove(&AppId::new(APPS[CLUB]).unwrap()));
    let reply = browser.visit(&callback).await;
    reply.is_error(404, "unknown_account");
    assert!(reply.cookies().is_empty(), "{reply:?}");
    town.is_alices(SHOP, &browser.open(&shop).await);
    // The account comes back, for example because its removal was a mistake.
    let login = Login::new(site.url(CLUB, ""), town.keys.clone()).unwrap();
    let account = Account::new(town.apps[CLUB].client().unwrap());
    site.accounts.insert(account.login(login)).unwrap();
    town.is_alices(CLUB, &browser.open(&callback).await);
    assert_eq!(town.exchanges(), [1, 1]);
}

#[tokio::test]
async fn a_registry_that_fails_at_the_callback_spends_no_login() {
    for by in ALL {
        let town = Town::new().await;
        let failure = Arc::new(Mutex::new(None));
        let find = {
            let failure = Arc::clone(&failure);
            move |accounts: [Account; 2]| {
                move |app_id: AppId| {
                    let failure = *failure.lock().unwrap();
                    let mut accounts = accounts.iter().cloned();
                    let found = accounts.find(|account| *account.app_id() == app_id);
                    async move {
                        match failure {
                            None => Ok(found),
                            Some("hangs") => std::future::pending().await,
                            Some(failure) => Err(failure),
                        }
                    }
                }
            }
        };
        let builder = Accounts::builder(town.memory.clone());
        let change = |builder: AccountsBuilder, accounts| {
            builder
                .registry(find(accounts))
                .find_timeout(Duration::from_millis(200))
        };
        let site = town.site_with(by, builder, None, change).await;
        for (done, why) in ["no connection", "hangs"].into_iter().enumerate() {
            let browser = Browser::new();
            let callback = callback_of(&browser, &site.me(CLUB)).await;
            *failure.lock().unwrap() = Some(why);
            // The process forgets the account, as a new process does not know it yet.
            site.accounts.remove(&AppId::new(APPS[CLUB]).unwrap());
            for _ in 0..3 {
                let reply = browser.visit(&callback).await;
                reply.is_page(503, "服务暂时不可用");
                let wait = reply.header("retry-after").unwrap();
                assert!(wait.parse::<u64>().unwrap() >= 1);
                assert!(reply.cookies().is_empty(), "{reply:?}");
            }
            assert_eq!(town.exchanges(), [0, done as u64], "{by:?}");
            *failure.lock().unwrap() = None;
            town.is_alices(CLUB, &browser.open(&callback).await);
        }
    }
}

#[tokio::test]
async fn a_name_in_the_wrong_case_or_with_control_characters_is_unknown() {
    let town = Town::new().await;
    for by in [By::Path, By::Query] {
        let site = town.site(by).await;
        let browser = Browser::new();
        browser.open(&site.me(SHOP)).await;
        let before = town.exchanges();
        let callback = callback_of(&browser, &site.me(CLUB)).await;
        for wrong in [
            "wX0123456789ABCDEF",
            "WX0123456789ABCDEF%0A",
            "WX0123456789ABCDEF%00",
            "%57X0123456789ABCDEF",
            "WX0123456789ABCDEF%20",
            "",
        ] {
            for url in [&site.me(CLUB), &callback] {
                let url = url.replace(APPS[CLUB], wrong);
                let reply = browser.visit(&url).await;
                reply.is_error(404, "unknown_account");
                assert!(reply.cookies().is_empty(), "{reply:?}");
            }
        }
        assert_eq!(town.exchanges(), before);
        town.is_alices(CLUB, &browser.open(&callback).await);
    }
}

#[tokio::test]
async fn a_host_in_another_case_is_the_same_account() {
    let town = Town::new().await;
    let site = town.site(By::Host).await;
    let browser = Browser::new();
    let callback = callback_of(&browser, &site.me(CLUB)).await;
    let host = site.origins[CLUB].replace("http://localhost", "LOCALHOST");
    let shouted = browser.copy().with_header("host", &host);
    shouted
        .fetch(&site.me(CLUB))
        .await
        .is_error(401, "login_required");
    town.is_alices(CLUB, &browser.open(&callback).await);
}

/// Redis permits both processes only names that contain one of the AppIDs.
#[tokio::test]
async fn two_processes_serve_both_accounts_with_one_redis() {
    for layout in [Layout::Keys, Layout::Hashes] {
        let town = Town::new().await;
        let server = RedisServer::start();
        let mut rules = redis::cmd("ACL");
        rules.arg("SETUSER").arg(&[
            "app",
            "on",
            ">word",
            "+@all",
            "~wechat:lease:probe",
            "~wechat:sealing",
        ]);
        for app_id in APPS {
            rules
                .arg(format!("~*{app_id}*"))
                .arg(format!("&*{app_id}*"));
        }
        let () = rules.query(&mut server.connection()).unwrap();
        let store = async || {
            let url = server.url().replace("redis://", "redis://app:word@");
            let builder = RedisStore::builder(&url).layout(layout);
            let builder = builder.names(RedisNames::default().with_appid());
            Accounts::builder(builder.connect().await.unwrap())
        };
        let listed = |builder: AccountsBuilder, accounts| builder.accounts(accounts);
        let by = By::Path;
        let first = town.site_with(by, store().await, None, listed).await;
        let second = town
            .site_with(by, store().await, Some(&first), listed)
            .await;
        let (phone, desktop) = (Browser::new(), Browser::new());
        for browser in [&phone, &desktop] {
            for (account, other) in [(SHOP, CLUB), (CLUB, SHOP)] {
                let callback = callback_of(browser, &first.me(account)).await;
                let crossed = second.callback(other, &callback);
                browser.fetch(&crossed).await.is_error(400, "invalid_state");
                let callback = second.callback(account, &callback);
                assert_eq!(browser.visit(&callback).await.status, 302);
                // A reload of the callback in the other process exchanges nothing.
                let again = first.callback(account, &callback);
                assert_eq!(browser.visit(&again).await.status, 302);
                for site in [&first, &second] {
                    town.is_alices(account, &browser.fetch(&site.me(account)).await);
                }
            }
        }
        assert_eq!(town.exchanges(), [2, 2]);
        let reply = phone.post(&second.url(SHOP, "/logout/everywhere")).await;
        assert_eq!(reply.status, 204);
        eventually("the logout arrives", Duration::from_secs(5), async || {
            desktop.fetch(&first.me(SHOP)).await.status == 401
        })
        .await;
        for site in [&first, &second] {
            let reply = desktop.fetch(&site.me(SHOP)).await;
            reply.is_error(401, "login_required");
            for browser in [&phone, &desktop] {
                town.is_alices(CLUB, &browser.fetch(&site.me(CLUB)).await);
            }
        }
        town.is_alices(SHOP, &desktop.open(&first.me(SHOP)).await);
        // A virtual user of a snapshot page (快照页).
        let user = SimulatedUser::new("oVirtual").snapshot(true);
        town.sim.add_user(user);
        for account in [SHOP, CLUB] {
            let reply = Browser::new().open(&second.me(account)).await;
            assert_eq!(
                reply.json()["id"],
                *town.apps[account].openid_of("oVirtual")
            );
        }
        let mut ask = redis::cmd("ACL");
        let refusals: Vec<redis::Value> = ask.arg("LOG").query(&mut server.connection()).unwrap();
        assert!(refusals.is_empty(), "{refusals:#?}");
        for site in [first, second] {
            assert!(site.accounts.shutdown(Duration::from_secs(5)).await);
        }
    }
}
