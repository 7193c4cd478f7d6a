//! Tests of the hook that chooses the user id at the end of a login.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::get;
use redis::Commands;
use tokio::sync::Notify;
use tower_wechat::login::{LoginBuilder, LoginUser};
use tower_wechat::redis::Layout;
use tower_wechat::simulator::SimulatedUser;
use tower_wechat::{ErrorKind, Rejection, Scope, UserId, WechatUser};

use super::harness::{ALICE, Harness, Site, USERINFO, router};
use crate::support::browser::{Browser, Reply};

/// Timeout of callbacks and hooks. A login without a hanging hook needs less on a slow machine.
const TIMEOUT: Duration = Duration::from_secs(1);
const HOOK_FAILED: &str = "登录未完成";

/// The application's database, which a test can make fail or hang. It counts the runs of the hook.
#[derive(Clone, Default)]
struct Database(Arc<Rows>);

#[derive(Default)]
struct Rows {
    runs: AtomicU64,
    fails: AtomicBool,
    hangs: AtomicBool,
    answers_once: Notify,
    dropped: AtomicU64,
}

/// Counts the futures of the hook that were dropped before their end.
struct CountDrop<'a>(&'a AtomicU64);

impl Drop for CountDrop<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Database {
    fn runs(&self) -> u64 {
        self.0.runs.load(Ordering::SeqCst)
    }

    /// Waits until the hook has begun to run.
    async fn has_run(&self) {
        let begun = async || self.runs() > 0;
        crate::support::eventually("the hook runs", TIMEOUT, begun).await;
    }

    fn fail(&self, fails: bool) {
        self.0.fails.store(fails, Ordering::SeqCst);
    }

    fn hang(&self, hangs: bool) {
        self.0.hangs.store(hangs, Ordering::SeqCst);
        self.0.answers_once.notify_waiters();
    }

    async fn find_or_create(&self, openid: &str) -> Result<String, std::io::Error> {
        let run = self.0.runs.fetch_add(1, Ordering::SeqCst) + 1;
        if self.0.hangs.load(Ordering::SeqCst) {
            let dropped = CountDrop(&self.0.dropped);
            self.0.answers_once.notified().await;
            std::mem::forget(dropped);
        }
        match self.0.fails.load(Ordering::SeqCst) {
            true => Err(std::io::Error::other("the database is away")),
            // Each run chooses another id.
            false => Ok(format!("row {run} of {openid}")),
        }
    }

    fn hook(&self) -> impl FnOnce(LoginBuilder) -> LoginBuilder + use<> {
        let database = self.clone();
        move |login| {
            login
                .exchange_timeout(TIMEOUT)
                .on_login(move |user: LoginUser| {
                    let database = database.clone();
                    async move { database.find_or_create(user.openid()).await }
                })
        }
    }
}

/// Returns harnesses on every store: memory, and Redis in both layouts.
async fn every_store() -> [Harness; 3] {
    [
        Harness::new().await,
        Harness::with_redis_in(Layout::Hashes).await,
        Harness::with_redis_in(Layout::Keys).await,
    ]
}

/// Starts two servers of one application with the same database.
async fn two_sites(harness: &Harness, database: &Database) -> [Site; 2] {
    let first = harness.site_with(database.hook()).await;
    let second = harness.behind(&first.url, database.hook(), router).await;
    [first, second]
}

/// Returns the URL of the callback at another server.
fn at(site: &Site, callback: &str) -> String {
    let url = url::Url::parse(callback).unwrap();
    format!("{}{}?{}", site.url, url.path(), url.query().unwrap())
}

/// Waits until a stored failure has expired.
async fn wait_as_told(harness: &Harness, reply: &Reply) {
    let seconds = reply.header("retry-after").unwrap().parse().unwrap();
    let wait = Duration::from_secs(seconds);
    match harness.redis {
        Some(_) => tokio::time::sleep(wait).await,
        None => harness.advance(wait),
    }
}

/// Starts a server whose hook gives each user the same id. The hook fails while the flag is set.
async fn site_of_one_row(harness: &Harness) -> (Arc<AtomicBool>, Site) {
    let fails = Arc::new(AtomicBool::new(true));
    let flag = Arc::clone(&fails);
    let hook = move |_: LoginUser| {
        let fails = flag.load(Ordering::SeqCst);
        std::future::ready(if fails {
            Err("no database")
        } else {
            Ok("row 1")
        })
    };
    let site = harness.site_with(|login| login.on_login(hook)).await;
    (fails, site)
}

fn query(url: &str, name: &str) -> String {
    let url = url::Url::parse(url).unwrap();
    let (_, value) = url.query_pairs().find(|(known, _)| known == name).unwrap();
    value.into_owned()
}

fn has_session(browser: &Browser) -> bool {
    let mut names = browser.cookie_names().into_iter();
    names.any(|name| name.contains("wechat_session"))
}

/// Returns the keys of suspended exchanges in Redis.
fn pending_keys(harness: &Harness) -> Vec<String> {
    match &harness.redis {
        Some(redis) => redis.connection().keys("wechat:*:response:*").unwrap(),
        None => Vec::new(),
    }
}

/// Checks that the store has no tokens of Alice, under her openid or under the id of a run.
async fn nothing_is_stored(site: &Site, runs: u64) {
    let rows = (1..=runs).map(|run| format!("row {run} of {ALICE}"));
    for id in rows.chain([ALICE.to_owned()]) {
        let found = site.users.get(&UserId::new(&*id).unwrap()).await;
        assert_eq!(found.unwrap_err().kind(), ErrorKind::LoginRequired, "{id}");
    }
}

#[tokio::test]
async fn sessions_and_the_store_carry_the_chosen_id() {
    for harness in every_store().await {
        let database = Database::default();
        let sites = two_sites(&harness, &database).await;
        let browser = Browser::new();
        let me = format!("{}/me", sites[0].url);
        let callback = browser.callback_of(&me).await;
        let reply = browser.visit(&callback).await;
        let id = format!("row 1 of {ALICE}");
        assert!(
            reply.cookies()[0].starts_with("wechat_session"),
            "{reply:?}"
        );
        for site in &sites {
            let page = browser.visit(&format!("{}/me", site.url)).await.json();
            assert_eq!(
                (&page["id"], &page["openid"]),
                (&id.as_str().into(), &ALICE.into())
            );
            let user = UserId::new(&*id).unwrap();
            assert_eq!(site.users.get(&user).await.unwrap().openid(), Some(ALICE));
        }
        assert_eq!(database.runs(), 1, "requests need no query");
        // The token is renewed with the openid that the store kept.
        harness.advance(Duration::from_secs(7_300));
        let page = browser.visit(&me).await.json();
        assert_eq!(
            (&page["id"], &page["openid"]),
            (&id.as_str().into(), &ALICE.into())
        );
        let by_openid = sites[1].users.get(&UserId::new(ALICE).unwrap()).await;
        assert_eq!(by_openid.unwrap_err().kind(), ErrorKind::LoginRequired);
        assert_eq!(pending_keys(&harness), [""; 0]);
        // A logout everywhere ends the sessions of the chosen id.
        let logout = format!("{}/logout/everywhere", sites[1].url);
        let copy = browser.copy();
        assert_eq!(browser.post(&logout).await.status, 204);
        assert_eq!(copy.fetch(&me).await.status, 401);
    }
}

#[tokio::test]
async fn a_reload_on_another_server_runs_a_failed_hook_again() {
    for harness in every_store().await {
        let database = Database::default();
        let sites = two_sites(&harness, &database).await;
        let browser = Browser::new();
        let callback = browser.callback_of(&format!("{}/me", sites[0].url)).await;
        database.fail(true);
        let failed = browser.visit(&callback).await;
        failed.is_page(503, HOOK_FAILED);
        // The button loads the callback again.
        assert!(failed.text.contains("<a href=\"\">"), "{}", failed.text);
        // A copy receives the failure, without another run.
        browser
            .fetch(&at(&sites[1], &callback))
            .await
            .is_error(503, "store_unavailable");
        assert_eq!(database.runs(), 1);
        wait_as_told(&harness, &failed).await;
        let failed = browser.visit(&at(&sites[1], &callback)).await;
        failed.is_page(503, HOOK_FAILED);
        assert!(!has_session(&browser));
        nothing_is_stored(&sites[0], database.runs()).await;
        assert_eq!(
            pending_keys(&harness).len(),
            usize::from(harness.redis.is_some())
        );

        database.fail(false);
        wait_as_told(&harness, &failed).await;
        let reply = browser.visit(&at(&sites[1], &callback)).await;
        assert_eq!((reply.status, reply.header("location")), (302, Some("/me")));
        let page = browser.visit(&format!("{}/me", sites[0].url)).await.json();
        assert_eq!(page["id"], format!("row 3 of {ALICE}"));
        let current = harness.sim.current_pair(ALICE).unwrap().access_token;
        assert_eq!(page["token"], current, "the tokens of the first response");
        assert_eq!((database.runs(), harness.exchanges()), (3, 1));
        assert_eq!(
            pending_keys(&harness),
            [""; 0],
            "a success deletes the response"
        );
    }
}

#[tokio::test]
async fn a_hanging_hook_ends_on_the_page_and_is_dropped() {
    for harness in every_store().await {
        let database = Database::default();
        let sites = two_sites(&harness, &database).await;
        let browser = Browser::new();
        let callback = browser.callback_of(&format!("{}/me", sites[0].url)).await;
        database.hang(true);
        let (started, copy) = (Instant::now(), browser.copy());
        let second = at(&sites[1], &callback);
        let (first, second) = tokio::join!(browser.visit(&callback), copy.visit(&second));
        // The process that runs the hook names it. The other one waits for that process.
        assert_eq!((first.status, second.status), (503, 503));
        let named = [first, second].map(|page| page.text.contains(HOOK_FAILED));
        assert!(named.contains(&true), "{named:?}");
        assert!(started.elapsed() < TIMEOUT * 3, "{:?}", started.elapsed());
        crate::support::eventually("the hook is dropped", TIMEOUT * 3, async || {
            database.0.dropped.load(Ordering::SeqCst) == 1
        })
        .await;
        assert_eq!(database.runs(), 1, "one process runs the hook");
        nothing_is_stored(&sites[1], 1).await;
        database.hang(false);
        let page = browser.visit(&at(&sites[1], &callback)).await;
        wait_as_told(&harness, &page).await;
        let reply = browser.visit(&at(&sites[1], &callback)).await;
        assert_eq!(reply.status, 302, "{reply:?}");
        assert_eq!((database.runs(), harness.exchanges()), (2, 1));
    }
}

#[tokio::test]
async fn a_slow_hook_signs_in_at_a_reload() {
    let harness = Harness::with_redis().await;
    let database = Database::default();
    let sites = two_sites(&harness, &database).await;
    let browser = Browser::new();
    let callback = browser.callback_of(&format!("{}/me", sites[0].url)).await;
    database.hang(true);
    let copy = browser.copy();
    let visits = [callback.clone(), at(&sites[1], &callback)];
    let (first, second) = (browser.visit(&visits[0]), copy.visit(&visits[1]));
    let (first, second, ()) = tokio::join!(first, second, async {
        database.has_run().await;
        database.hang(false);
    });
    // The callbacks on both servers wait for the one run, although each run chooses another id.
    for reply in [first, second] {
        assert_eq!((reply.status, reply.header("location")), (302, Some("/me")));
    }
    for browser in [browser, copy] {
        let page = browser.visit(&format!("{}/me", sites[0].url)).await.json();
        assert_eq!(page["id"], format!("row 1 of {ALICE}"));
    }
    assert_eq!((database.runs(), harness.exchanges()), (1, 1));
}

#[tokio::test]
async fn a_panic_of_the_hook_is_a_failure() {
    let harness = Harness::new().await;
    let panics = Arc::new(AtomicBool::new(true));
    let hook = {
        let panics = Arc::clone(&panics);
        async move |panic: bool| {
            assert!(!panic, "the hook panics");
            let _ = panics;
            Ok::<_, std::io::Error>("row 7")
        }
    };
    let switch = Arc::clone(&panics);
    let hook = Arc::new(hook);
    let site = harness
        .site_with(|login| {
            login.on_login(move |_: LoginUser| {
                let (hook, panic) = (Arc::clone(&hook), switch.load(Ordering::SeqCst));
                async move { hook(panic).await }
            })
        })
        .await;
    let browser = Browser::new();
    let callback = browser.callback_of(&format!("{}/me", site.url)).await;
    let page = browser.visit(&callback).await;
    page.is_page(503, HOOK_FAILED);
    panics.store(false, Ordering::SeqCst);
    wait_as_told(&harness, &page).await;
    assert_eq!(browser.open(&callback).await.json()["id"], "row 7");
    assert_eq!(harness.exchanges(), 1);
}

#[tokio::test]
async fn an_id_that_is_no_user_id_is_rejected_with_500() {
    for id in [String::new(), "x".repeat(257), "a\nb".to_owned()] {
        let harness = Harness::with_redis().await;
        let site = harness
            .site_with(|login| {
                login.on_login(move |_: LoginUser| {
                    let id = id.clone();
                    async move { Ok::<_, std::io::Error>(id) }
                })
            })
            .await;
        let browser = Browser::new();
        let callback = browser.callback_of(&format!("{}/me", site.url)).await;
        let page = browser.visit(&callback).await;
        page.is_page(500, "暂时无法登录");
        assert_eq!(page.header("retry-after"), None);
        let json = browser.fetch(&callback).await;
        json.is_error(500, "configuration");
        assert!(!has_session(&browser));
        nothing_is_stored(&site, 0).await;
        assert_eq!(pending_keys(&harness), [""; 0]);
    }
}

#[tokio::test]
async fn snapshot_users_never_reach_the_hook() {
    const VIRTUAL: &str = "oVirtual00000000000000000000";
    let harness = Harness::new().await;
    harness
        .sim
        .add_user(SimulatedUser::new(VIRTUAL).snapshot(true));
    let database = Database::default();
    let site = harness.site_with(database.hook()).await;
    let page = Browser::new()
        .open(&format!("{}/me", site.url))
        .await
        .json();
    assert_eq!(
        (&page["id"], &page["snapshot"]),
        (&VIRTUAL.into(), &true.into())
    );
    assert_eq!(database.runs(), 0);
}

#[tokio::test]
async fn two_openids_may_share_one_id() {
    const BOB: &str = "oBob000000000000000000000000";
    let harness = Harness::with_redis().await;
    let site = harness
        .site_with(|login| login.on_login(async |_: LoginUser| Ok::<_, std::io::Error>("family")))
        .await;
    let me = format!("{}/me", site.url);
    let (alice, bob) = (Browser::new(), Browser::new());
    let page = alice.open(&me).await.json();
    assert_eq!(
        (&page["id"], &page["openid"]),
        (&"family".into(), &ALICE.into())
    );
    harness.sim.add_user(SimulatedUser::new(BOB));
    let page = bob.open(&me).await.json();
    assert_eq!(
        (&page["id"], &page["openid"]),
        (&"family".into(), &BOB.into())
    );
    // The store keeps the tokens of the later login, for the sessions of both.
    let page = alice.visit(&me).await.json();
    assert_eq!(
        (&page["id"], &page["openid"]),
        (&"family".into(), &BOB.into())
    );
}

#[tokio::test]
async fn the_hook_sees_the_profile() {
    let harness = Harness::new().await;
    for (scope, status) in [(Scope::UserInfo, 200), (Scope::Base, 503)] {
        let before = harness.sim.calls_to(USERINFO);
        let site = harness
            .site_with(|login| {
                login.scope(scope).on_login(async |user: LoginUser| {
                    let profile = user.profile().await?;
                    assert!(user.scope().is_some_and(|scope| scope.contains("userinfo")));
                    Ok::<_, tower_wechat::Error>(format!("{} {}", profile.nickname, user.openid()))
                })
            })
            .await;
        let page = Browser::new().open(&format!("{}/me", site.url)).await;
        assert_eq!(page.status, status);
        if status == 200 {
            assert_eq!(page.json()["id"], format!("爱丽丝 {ALICE}"));
        }
        assert_eq!(harness.sim.calls_to(USERINFO), before + 1);
    }
}

/// During a rolling deploy, a process without the hook must not sign the user in under the openid.
#[tokio::test]
async fn a_process_without_the_hook_leaves_a_suspended_login() {
    let harness = Harness::with_redis().await;
    let database = Database::default();
    let site = harness.site_with(database.hook()).await;
    let older = harness.behind(&site.url, |login| login, router).await;
    let browser = Browser::new();
    let callback = browser.callback_of(&format!("{}/me", site.url)).await;
    database.fail(true);
    let page = browser.visit(&callback).await;
    wait_as_told(&harness, &page).await;
    let page = browser.visit(&at(&older, &callback)).await;
    page.is_page(503, HOOK_FAILED);
    nothing_is_stored(&older, 1).await;
    database.fail(false);
    wait_as_told(&harness, &page).await;
    let page = browser.open(&callback).await.json();
    assert_eq!(page["id"], format!("row 2 of {ALICE}"));
    assert_eq!(harness.exchanges(), 1);
}

#[tokio::test]
async fn a_login_starts_again_if_its_response_is_lost() {
    let mut harness = Harness::with_redis().await;
    let database = Database::default();
    let site = harness.site_with(database.hook()).await;
    let browser = Browser::new();
    let me = format!("{}/me", site.url);
    let callback = browser.callback_of(&me).await;
    database.hang(true);
    let (page, ()) = tokio::join!(browser.visit(&callback), async {
        database.has_run().await;
        harness.redis.as_mut().unwrap().kill();
    });
    page.is_page(503, HOOK_FAILED);
    tokio::time::sleep(TIMEOUT).await;
    harness.redis.as_mut().unwrap().run();
    database.hang(false);
    crate::support::eventually("Redis is back", Duration::from_secs(8), async || {
        site.users.health().await.is_ok()
    })
    .await;
    // WeChat rejects the code as spent, so that another login begins.
    let page = browser.open(&callback).await.json();
    assert_eq!(page["id"], format!("row 2 of {ALICE}"));
}

#[tokio::test]
async fn a_login_starts_again_if_the_process_crashes_in_the_hook() {
    let harness = Harness::with_redis().await;
    let database = Database::default();
    let site = harness.site_with(database.hook()).await;
    database.hang(true);
    let browser = Browser::new();
    let callback = browser.callback_of(&format!("{}/me", site.url)).await;
    let crashing = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let hook = database.hook();
    let (harness, site_url) = (Arc::new(harness), site.url.clone());
    let started = {
        let harness = Arc::clone(&harness);
        crashing.spawn(async move { harness.behind(&site_url, hook, router).await.url })
    };
    let crashing_url = started.await.unwrap();
    let url = callback.replace(&site.url, &crashing_url);
    let copy = browser.copy();
    let visit = tokio::spawn(async move { copy.visit(&url).await.status });
    crate::support::eventually("the hook runs", Duration::from_secs(5), async || {
        database.runs() == 1
    })
    .await;
    crashing.shutdown_background();
    let _ = visit.await;
    nothing_is_stored(&site, 1).await;
    // The lease of the crashed process expires.
    let mut redis = harness.redis.as_ref().unwrap().connection();
    let keys: Vec<String> = redis.keys("wechat:*:code:*").unwrap();
    let [key] = &keys[..] else { panic!("{keys:?}") };
    let lease: i64 = redis.pttl(key).unwrap();
    assert!(lease > 10_000, "{lease} ms cover the call and the hook");
    let _: () = redis.del(key).unwrap();
    database.hang(false);
    let page = browser.open(&callback).await.json();
    assert_eq!(page["id"], format!("row 2 of {ALICE}"));
}

#[tokio::test]
async fn a_reload_after_ten_minutes_runs_nothing() {
    let harness = Harness::new().await;
    let database = Database::default();
    let hour = Duration::from_secs(3_600);
    let long = harness
        .site_with(|login| database.hook()(login).state_lifetime(hour))
        .await;
    let site = harness.site_with(database.hook()).await;
    for (site, status) in [(&site, 400), (&long, 302)] {
        let (browser, runs) = (Browser::new(), database.runs() + 1);
        let callback = browser.callback_of(&format!("{}/me", site.url)).await;
        database.fail(true);
        browser.visit(&callback).await.is_page(503, HOOK_FAILED);
        database.fail(false);
        harness.advance(Duration::from_secs(601));
        // The login has expired, or another login begins because WeChat rejects the spent code.
        let reply = browser.visit(&callback).await;
        assert_eq!(reply.status, status);
        assert!(status == 400 || reply.location().unwrap().path().contains("authorize"));
        assert_eq!(database.runs(), runs);
        nothing_is_stored(site, runs).await;
    }
    assert_eq!(harness.exchanges(), 3);
}

/// A handler that finds no row for the id of a session asks for another login.
#[tokio::test]
async fn a_handler_can_ask_for_another_login() {
    let harness = Harness::new().await;
    let database = Database::default();
    let site = harness
        .mounted(database.hook(), |layer, login| {
            let page = async |user: WechatUser| match user.id().starts_with("row 1 ") {
                true => Err(Rejection::login_required()),
                false => Ok(user.id().to_owned()),
            };
            Router::new()
                .route("/", get(page))
                .layer(layer.login(login))
        })
        .await;
    let browser = Browser::new();
    let page = browser.open(&site.url).await;
    assert_eq!(page.text, format!("row 2 of {ALICE}"), "{page:?}");
    let session = harness.session(&site);
    let first = session.issue(&UserId::new("row 1 of nobody").unwrap());
    let first = first.to_str().unwrap().split(';').next().unwrap();
    let script = Browser::new().with_header("cookie", first);
    let reply = script.fetch(&site.url).await;
    reply.is_error(401, "login_required");
    assert_eq!(reply.json()["login_url"], "/wechat/login?return_to=%2F");
}

/// Logs and histories contain the URL of a callback. A person who has read the URL cannot resume
/// the login, even after the binding of its code has expired.
#[tokio::test]
async fn a_suspended_code_is_rejected_in_another_login() {
    for harness in every_store().await {
        let database = Database::default();
        let sites = two_sites(&harness, &database).await;
        let (me, victim) = (format!("{}/me", sites[0].url), Browser::new());
        let callback = victim.callback_of(&me).await;
        database.fail(true);
        let page = victim.visit(&callback).await;
        page.is_page(503, HOOK_FAILED);
        database.fail(false);
        wait_as_told(&harness, &page).await;
        // A request without the cookie binds the code again, for six minutes.
        let stranger = Browser::new().fetch(&callback).await;
        stranger.is_error(400, "invalid_state");
        match &harness.redis {
            None => harness.advance(Duration::from_secs(361)),
            Some(redis) => {
                let mut redis = redis.connection();
                let bindings: Vec<String> = redis.keys("wechat:*:bound:*").unwrap();
                let _: () = redis.del(bindings).unwrap();
            }
        }
        let thief = Browser::new();
        let sent = thief.visit(&me).await.location().unwrap();
        let (code, state) = (query(&callback, "code"), query(sent.as_str(), "state"));
        let forged = format!("{}/wechat/callback?code={code}&state={state}", sites[1].url);
        thief.fetch(&forged).await.is_error(400, "invalid_state");
        assert!(!has_session(&thief));
        assert_eq!(database.runs(), 1);
        nothing_is_stored(&sites[0], 1).await;
    }
}

/// The back button can resume a login after a later login has ended.
#[tokio::test]
async fn a_resumed_login_does_not_replace_later_tokens() {
    for harness in every_store().await {
        let (fails, site) = site_of_one_row(&harness).await;
        let (browser, me) = (Browser::new(), format!("{}/me", site.url));
        let suspended = browser.callback_of(&me).await;
        let page = browser.visit(&suspended).await;
        page.is_page(503, HOOK_FAILED);
        fails.store(false, Ordering::SeqCst);
        wait_as_told(&harness, &page).await;
        harness.advance(Duration::from_secs(2));
        let later = browser.open(&format!("{}/", site.url)).await.json();
        let reply = browser.visit(&suspended).await;
        assert_eq!((reply.status, reply.header("location")), (302, Some("/me")));
        let user = UserId::new("row 1").unwrap();
        let stored = harness.users().await.get(&user).await.unwrap();
        assert_eq!(later["token"], stored.access_token().expose());
        assert_eq!(browser.visit(&me).await.json()["token"], later["token"]);
        assert_eq!(pending_keys(&harness), [""; 0]);
    }
}

#[tokio::test]
async fn a_logout_everywhere_ends_a_suspended_login() {
    for harness in every_store().await {
        let (fails, site) = site_of_one_row(&harness).await;
        let browser = Browser::new();
        let suspended = browser.callback_of(&format!("{}/me", site.url)).await;
        let page = browser.visit(&suspended).await;
        page.is_page(503, HOOK_FAILED);
        fails.store(false, Ordering::SeqCst);
        wait_as_told(&harness, &page).await;
        let user = UserId::new("row 1").unwrap();
        site.users.revoke(&user).await.unwrap();
        // Only another login with WeChat signs the user in.
        let reply = browser.visit(&suspended).await;
        assert!(reply.location().unwrap().path().contains("authorize"));
        assert!(!has_session(&browser));
        let found = site.users.get(&user).await;
        assert_eq!(found.unwrap_err().kind(), ErrorKind::LoginRequired);
    }
}
