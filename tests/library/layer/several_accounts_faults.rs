//! Faults of the application beside a layer of several accounts: functions that panic, block or use
//! the accounts, a slow registry, and changes that race.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use tower::{Layer, ServiceExt};
use tower_wechat::credential::AppId;
use tower_wechat::simulator::{Fault, Simulator};
use tower_wechat::{
    Account, AccountSelector, Accounts, CookieKeys, ErrorKind, Login, MemoryStore, Policy,
    WechatClient, WechatLayer,
};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

fn client(app_id: &str) -> WechatClient {
    let client = WechatClient::builder(app_id, "secret").api_url("http://127.0.0.1:1");
    client.build().unwrap()
}

fn app(id: &str) -> AppId {
    AppId::new(id).unwrap()
}

fn within<T: Send + 'static>(
    time: Duration,
    run: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let _ = sender.send(run());
    });
    receiver.recv_timeout(time).ok()
}

fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().unwrap()
}

/// A closure of a listed account that asks the accounts.
fn closure_that(does: fn(&Accounts)) -> Option<()> {
    let handle: Arc<OnceLock<Accounts>> = Arc::default();
    let inner = Arc::clone(&handle);
    let account = Account::new(client("wx1")).user_tokens(move |builder| {
        does(inner.get().unwrap());
        builder
    });
    let accounts = Accounts::builder(MemoryStore::new());
    let accounts = accounts.account(account).build().unwrap();
    handle.set(accounts.clone()).unwrap();
    within(Duration::from_secs(3), move || {
        runtime().block_on(async { accounts.get(&app("wx1")).await.unwrap().unwrap() });
    })
}

#[test]
fn a_closure_may_read_debug() {
    assert!(closure_that(|accounts| drop(format!("{accounts:?}"))).is_some());
}

#[test]
fn a_closure_may_insert_another() {
    let done = closure_that(|accounts| accounts.insert(Account::new(client("wx2"))).unwrap());
    assert!(done.is_some(), "deadlock");
}

#[test]
fn a_closure_may_remove_another() {
    let done = closure_that(|accounts| assert!(!accounts.remove(&app("wx2"))));
    assert!(done.is_some(), "deadlock");
}

/// A slow closure of one listed account stalls requests of all accounts.
#[test]
fn a_slow_closure_does_not_stall_other_accounts() {
    let slow = Account::new(client("wx2")).user_tokens(|builder| {
        std::thread::sleep(Duration::from_secs(2));
        builder
    });
    let accounts = Accounts::builder(MemoryStore::new());
    let accounts = accounts.account(Account::new(client("wx1"))).account(slow);
    let accounts = accounts.build().unwrap();
    runtime()
        .block_on(accounts.get(&app("wx1")))
        .unwrap()
        .unwrap();
    let other = accounts.clone();
    std::thread::spawn(move || drop(runtime().block_on(other.get(&app("wx2")))));
    std::thread::sleep(Duration::from_millis(200));
    let started = Instant::now();
    runtime()
        .block_on(accounts.get(&app("wx1")))
        .unwrap()
        .unwrap();
    assert!(
        started.elapsed() < Duration::from_millis(500),
        "{:?}",
        started.elapsed()
    );
}

/// A panic in a closure during the refresh ends the upkeep for all accounts.
#[tokio::test(start_paused = true)]
async fn a_panic_in_one_closure_does_not_end_the_upkeep() {
    let known: Arc<Mutex<HashSet<String>>> = Arc::default();
    known
        .lock()
        .unwrap()
        .extend(["wx1".to_owned(), "wx2".to_owned()]);
    let broken = Arc::new(AtomicBool::new(false));
    let (its_known, its_broken) = (Arc::clone(&known), Arc::clone(&broken));
    let find = move |app_id: AppId| {
        let (known, broken) = (Arc::clone(&its_known), Arc::clone(&its_broken));
        async move {
            if !known.lock().unwrap().contains(app_id.as_str()) {
                return Ok::<_, BoxError>(None);
            }
            let is_broken = broken.load(Ordering::SeqCst) && app_id.as_str() == "wx1";
            let secret = if is_broken { "another" } else { "secret" };
            let account = Account::new(client("wx0").for_account(&app_id, secret)?);
            Ok(Some(account.user_tokens(move |builder| {
                assert!(!is_broken, "a panic of the application");
                builder
            })))
        }
    };
    let accounts = Accounts::builder(MemoryStore::new()).registry(find);
    let accounts = accounts.build().unwrap();
    for id in ["wx1", "wx2"] {
        accounts.get(&app(id)).await.unwrap().unwrap();
    }
    broken.store(true, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(130)).await;
    known.lock().unwrap().remove("wx2");
    let mut served = 0;
    for _ in 0..30 {
        tokio::time::sleep(Duration::from_secs(60)).await;
        served += usize::from(accounts.get(&app("wx2")).await.unwrap().is_some());
    }
    assert!(
        served <= 2,
        "wx2 is served {served} minutes after the registry removed it"
    );
}

/// The last of 400 accounts, if a search takes half a second.
#[tokio::test(start_paused = true)]
async fn the_last_of_many_accounts_is_asked_in_time() {
    let last_asked: Arc<Mutex<HashMap<String, tokio::time::Instant>>> = Arc::default();
    let worst: Arc<Mutex<Duration>> = Arc::default();
    let (asked, its_worst) = (Arc::clone(&last_asked), Arc::clone(&worst));
    let template = client("wx0");
    let find = move |app_id: AppId| {
        let (asked, worst, template) =
            (Arc::clone(&asked), Arc::clone(&its_worst), template.clone());
        async move {
            tokio::time::sleep(Duration::from_millis(500)).await;
            let now = tokio::time::Instant::now();
            if let Some(before) = asked
                .lock()
                .unwrap()
                .insert(app_id.as_str().to_owned(), now)
            {
                let mut worst = worst.lock().unwrap();
                *worst = (*worst).max(now - before);
            }
            Ok::<_, BoxError>(Some(Account::new(template.for_account(&app_id, "secret")?)))
        }
    };
    let accounts = Accounts::builder(MemoryStore::new())
        .registry(find)
        .build()
        .unwrap();
    for batch in 0..2 {
        let mut all = tokio::task::JoinSet::new();
        for number in 0..200 {
            let accounts = accounts.clone();
            all.spawn(async move {
                accounts
                    .get(&app(&format!("wx{}", batch * 200 + number)))
                    .await
                    .unwrap()
                    .unwrap();
            });
        }
        all.join_all().await;
    }
    let started = tokio::time::Instant::now();
    tokio::time::sleep(Duration::from_secs(400)).await;
    assert!(last_asked.lock().unwrap().values().all(|at| *at >= started));
    assert!(
        *worst.lock().unwrap() < Duration::from_secs(120),
        "{worst:?}"
    );
}

/// Idle accounts go while the registry hangs.
#[tokio::test(start_paused = true)]
async fn idle_accounts_go_while_the_registry_hangs() {
    let hangs = Arc::new(AtomicBool::new(false));
    let its_hangs = Arc::clone(&hangs);
    let template = client("wx0");
    let find = move |app_id: AppId| {
        let (hangs, template) = (Arc::clone(&its_hangs), template.clone());
        async move {
            if hangs.load(Ordering::SeqCst) {
                std::future::pending::<()>().await;
            }
            Ok::<_, BoxError>(Some(Account::new(template.for_account(&app_id, "secret")?)))
        }
    };
    let accounts = Accounts::builder(MemoryStore::new())
        .registry(find)
        .build()
        .unwrap();
    for number in 0..1_000 {
        accounts
            .get(&app(&format!("wx{number}")))
            .await
            .unwrap()
            .unwrap();
    }
    hangs.store(true, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(12 * 60)).await;
    let text = format!("{accounts:?}");
    assert!(text.contains("served: 0"), "{text}");
}

/// The registry is asked once in each `refresh_interval`, whatever `idle_timeout` is.
#[tokio::test(start_paused = true)]
async fn the_refresh_interval_is_that_of_the_settings() {
    let count = Arc::new(AtomicUsize::new(0));
    let its_count = Arc::clone(&count);
    let find = move |app_id: AppId| {
        its_count.fetch_add(1, Ordering::SeqCst);
        async move {
            Ok::<_, BoxError>(Some(Account::new(
                client("wx0").for_account(&app_id, "secret")?,
            )))
        }
    };
    let accounts = Accounts::builder(MemoryStore::new()).registry(find);
    let accounts = accounts
        .refresh_interval(Duration::from_secs(3_600))
        .idle_timeout(Duration::from_secs(10))
        .build()
        .unwrap();
    for _ in 0..600 {
        accounts.get(&app("wx1")).await.unwrap().unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let count = count.load(Ordering::SeqCst);
    assert!(
        count <= 2,
        "{count} searches in ten minutes, with an interval of an hour"
    );
}

/// `insert` against a search in the registry: the listed account must win.
#[test]
fn a_listed_account_wins_against_a_search() {
    let threads = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .enable_all()
        .build()
        .unwrap();
    let keys = CookieKeys::random().unwrap();
    let template = client("wx0");
    let mut lost = 0;
    let started = Instant::now();
    let mut rounds = 0;
    while started.elapsed() < Duration::from_secs(3) {
        rounds += 1;
        let its = template.clone();
        let find = move |app_id: AppId| {
            let template = its.clone();
            async move { Ok::<_, BoxError>(Some(Account::new(template.for_account(&app_id, "old")?))) }
        };
        let accounts = Accounts::builder(MemoryStore::new())
            .registry(find)
            .build()
            .unwrap();
        let login = Login::new("http://h5.example.com/wx1", keys.clone()).unwrap();
        let listed = Account::new(template.for_account("wx1", "new").unwrap()).login(login);
        let barrier = Arc::new(std::sync::Barrier::new(3));
        let mut handles = Vec::new();
        for _ in 0..2 {
            let (accounts, barrier, runtime) = (
                accounts.clone(),
                Arc::clone(&barrier),
                threads.handle().clone(),
            );
            handles.push(std::thread::spawn(move || {
                barrier.wait();
                runtime.block_on(async { drop(accounts.get(&app("wx1")).await) });
            }));
        }
        barrier.wait();
        for _ in 0..fastrand::u32(0..400) {
            std::hint::spin_loop();
        }
        accounts.insert(listed).unwrap();
        for handle in handles {
            handle.join().unwrap();
        }
        let served = threads
            .block_on(accounts.get(&app("wx1")))
            .unwrap()
            .unwrap();
        lost += usize::from(!format!("{served:?}").contains("h5.example.com"));
    }
    assert_eq!(lost, 0, "of {rounds} rounds");
}

/// Shutdown while a search runs, whose request then fetches a token.
#[tokio::test]
async fn shutdown_waits_for_the_work_of_a_search() {
    let simulator = Simulator::start().await.unwrap();
    simulator.inject(Fault::on("/cgi-bin/stable_token").delay(Duration::from_millis(600)));
    let wechat = simulator.client().unwrap();
    let id = wechat.app_id().clone();
    let find = move |_: AppId| {
        let wechat = wechat.clone();
        async move {
            tokio::time::sleep(Duration::from_millis(300)).await;
            Ok::<_, BoxError>(Some(Account::new(wechat)))
        }
    };
    let accounts = Accounts::builder(MemoryStore::new())
        .registry(find)
        .build()
        .unwrap();
    let (other, its_id) = (accounts.clone(), id.clone());
    let request = tokio::spawn(async move {
        let account = other.get(&its_id).await.unwrap().unwrap();
        account.tokens().get().await.map(drop)
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    let ended = accounts.shutdown(Duration::from_secs(5)).await;
    tokio::time::sleep(Duration::from_millis(400)).await;
    let calls = simulator.calls_to("/cgi-bin/stable_token");
    assert!(
        !ended || request.is_finished(),
        "shutdown said {ended}, and {calls} call is under way"
    );
}

#[tokio::test]
async fn shutdown_waits_for_a_removed_account() {
    let simulator = Simulator::start().await.unwrap();
    simulator.inject(Fault::on("/cgi-bin/stable_token").delay(Duration::from_millis(1_500)));
    let wechat = simulator.client().unwrap();
    let id = wechat.app_id().clone();
    let accounts = Accounts::builder(MemoryStore::new()).account(Account::new(wechat.clone()));
    let accounts = accounts
        .refresh_interval(Duration::from_millis(200))
        .build()
        .unwrap();
    let account = accounts.get(&id).await.unwrap().unwrap();
    let request = tokio::spawn(async move { account.tokens().get().await.map(drop) });
    tokio::time::sleep(Duration::from_millis(100)).await;
    accounts.remove(&id);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let ended = accounts.shutdown(Duration::from_secs(5)).await;
    assert!(
        !ended || request.is_finished(),
        "shutdown said {ended} while a renewal runs"
    );
}

#[tokio::test]
async fn shutdown_waits_for_an_idle_account() {
    let simulator = Simulator::start().await.unwrap();
    simulator.inject(Fault::on("/cgi-bin/stable_token").delay(Duration::from_millis(2_000)));
    let wechat = simulator.client().unwrap();
    let id = wechat.app_id().clone();
    let accounts = Accounts::builder(MemoryStore::new()).account(Account::new(wechat.clone()));
    let accounts = accounts
        .idle_timeout(Duration::from_millis(200))
        .build()
        .unwrap();
    let account = accounts.get(&id).await.unwrap().unwrap();
    let request = tokio::spawn(async move { account.tokens().get().await.map(drop) });
    tokio::time::sleep(Duration::from_millis(1_000)).await;
    let text = format!("{accounts:?}");
    let ended = accounts.shutdown(Duration::from_secs(5)).await;
    assert!(
        !ended || request.is_finished(),
        "shutdown said {ended} while a renewal runs; {text}"
    );
}

#[test]
fn a_request_outside_of_a_runtime_does_not_panic() {
    let find = |app_id: AppId| async move {
        Ok::<_, BoxError>(Some(Account::new(
            client("wx0").for_account(&app_id, "secret")?,
        )))
    };
    let accounts = Accounts::builder(MemoryStore::new())
        .registry(find)
        .build()
        .unwrap();
    let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        futures_util::FutureExt::now_or_never(accounts.get(&app("wx1"))).is_some()
    }));
    assert!(done.is_ok(), "a panic");
}

/// The upkeep after the runtime that started it has ended.
#[test]
fn the_upkeep_runs_on_a_second_runtime() {
    let accounts = Accounts::builder(MemoryStore::new()).account(Account::new(client("wx1")));
    let accounts = accounts
        .idle_timeout(Duration::from_millis(100))
        .refresh_interval(Duration::from_millis(100))
        .build()
        .unwrap();
    runtime()
        .block_on(accounts.get(&app("wx1")))
        .unwrap()
        .unwrap();
    runtime().block_on(async {
        accounts.get(&app("wx1")).await.unwrap().unwrap();
        tokio::time::sleep(Duration::from_millis(800)).await;
    });
    let text = format!("{accounts:?}");
    assert!(text.contains("served: 0"), "{text}");
}

#[tokio::test]
async fn insert_checks_the_names_of_cookies() {
    let keys = CookieKeys::random().unwrap();
    let account = |id: &str| {
        let login = Login::builder(format!("http://h5.example.com/{id}"), keys.clone())
            .cookie_name("session")
            .build()
            .unwrap();
        Account::new(client(id)).login(login)
    };
    let both = Accounts::builder(MemoryStore::new()).accounts([account("wx1"), account("wx2")]);
    assert!(both.build().is_err());
    let accounts = Accounts::builder(MemoryStore::new())
        .account(account("wx1"))
        .build()
        .unwrap();
    assert!(
        accounts.insert(account("wx2")).is_err(),
        "insert accepts what build refuses"
    );
}

#[tokio::test]
async fn insert_checks_that_a_website_is_no_account() {
    let keys = CookieKeys::random().unwrap();
    let shop = || {
        let login = Login::new("http://h5.example.com/wx1", keys.clone()).unwrap();
        Account::new(client("wx1"))
            .login(login)
            .website(client("wx2"))
    };
    let both =
        Accounts::builder(MemoryStore::new()).accounts([shop(), Account::new(client("wx2"))]);
    assert!(both.build().is_err());
    let accounts = Accounts::builder(MemoryStore::new())
        .account(shop())
        .build()
        .unwrap();
    assert!(
        accounts.insert(Account::new(client("wx2"))).is_err(),
        "insert accepts what build refuses"
    );
}

#[tokio::test(start_paused = true)]
async fn changes_of_the_description_are_seen() {
    let old_keys = CookieKeys::random().unwrap();
    let new_keys = CookieKeys::random().unwrap();
    let login = |keys: &CookieKeys| Login::builder("http://h5.example.com/wx1", keys.clone());
    let wechat = client("wx1");
    let elsewhere = WechatClient::builder("wx1", "secret")
        .api_url("http://127.0.0.1:2")
        .build()
        .unwrap();
    let base = || Account::new(wechat.clone()).login(login(&old_keys).build().unwrap());
    let cases: Vec<(&str, Account, Account)> = vec![
        (
            "cookie keys",
            base(),
            Account::new(wechat.clone()).login(login(&new_keys).build().unwrap()),
        ),
        (
            "cookie name",
            base(),
            Account::new(wechat.clone()).login(login(&old_keys).cookie_name("s").build().unwrap()),
        ),
        (
            "page hosts",
            base(),
            base().page_hosts(["other.example.com"]),
        ),
        (
            "api url",
            base(),
            Account::new(elsewhere).login(login(&old_keys).build().unwrap()),
        ),
        (
            "user_tokens",
            base(),
            base().user_tokens(|b| b.cache_ttl(Duration::from_secs(1))),
        ),
        (
            "account_tokens",
            base(),
            base().account_tokens(|b| b.daily_quota(1)),
        ),
        ("login gone", base(), Account::new(wechat.clone())),
        (
            "secret",
            base(),
            Account::new(wechat.for_account("wx1", "x").unwrap())
                .login(login(&old_keys).build().unwrap()),
        ),
        ("website", base(), base().website(client("wx9"))),
    ];
    let mut missed = Vec::new();
    for (name, before, after) in cases {
        let current = Arc::new(Mutex::new(before));
        let its = Arc::clone(&current);
        let find = move |_: AppId| {
            let found = its.lock().unwrap().clone();
            async move { Ok::<_, BoxError>(Some(found)) }
        };
        let accounts = Accounts::builder(MemoryStore::new())
            .registry(find)
            .build()
            .unwrap();
        let id = app("wx1");
        let first = accounts.get(&id).await.unwrap().unwrap();
        *current.lock().unwrap() = after;
        for _ in 0..5 {
            tokio::time::sleep(Duration::from_secs(60)).await;
            accounts.get(&id).await.unwrap().unwrap();
        }
        let second = accounts.get(&id).await.unwrap().unwrap();
        if format!("{:p}", first.tokens()) == format!("{:p}", second.tokens()) {
            missed.push(name);
        }
    }
    assert!(missed.is_empty(), "missed: {missed:?}");
}

/// The reservation of a concurrency limit while the registry is asked, and after a drop midway.
#[tokio::test]
async fn a_search_holds_no_reservation() {
    let find = |app_id: AppId| async move {
        if app_id.as_str() == "wxslow" {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        Ok::<_, BoxError>(
            (app_id.as_str() != "wxnone")
                .then(|| Account::new(client("wx0").for_account(&app_id, "s").unwrap())),
        )
    };
    let accounts = Accounts::builder(MemoryStore::new())
        .registry(find)
        .selector(AccountSelector::path())
        .build()
        .unwrap();
    let handler = tower::ServiceBuilder::new()
        .concurrency_limit(1)
        .service_fn(|_: Request<()>| async {
            Ok::<_, std::convert::Infallible>(Response::new(Full::<Bytes>::from("ok")))
        });
    let mut service = WechatLayer::for_accounts(accounts)
        .policy(Policy::Optional)
        .layer(handler);
    let request = |path: &str| Request::get(path).body(()).unwrap();
    let first = service.ready().await.unwrap().call(request("/wxslow/"));
    let second = tokio::time::timeout(Duration::from_millis(200), async {
        service.ready().await.unwrap().call(request("/wx1/")).await
    });
    assert!(second.await.unwrap().unwrap().status().is_success());
    assert!(first.await.unwrap().status().is_success());
    for _ in 0..3 {
        let mut dropped = Box::pin(service.ready().await.unwrap().call(request("/wxslow2/")));
        let _ = futures_util::FutureExt::now_or_never(&mut dropped);
        drop(dropped);
        let none = service.ready().await.unwrap().call(request("/wxnone/"));
        assert_eq!(none.await.unwrap().status(), 404);
    }
    let last = tokio::time::timeout(Duration::from_millis(200), service.ready());
    assert!(last.await.is_ok());
}

/// The search of a dropped request ends its work, and the next request finds the account.
#[tokio::test]
async fn a_dropped_request_leaves_the_search() {
    let count = Arc::new(AtomicUsize::new(0));
    let its_count = Arc::clone(&count);
    let find = move |app_id: AppId| {
        its_count.fetch_add(1, Ordering::SeqCst);
        async move {
            tokio::time::sleep(Duration::from_millis(100)).await;
            Ok::<_, BoxError>(Some(Account::new(client("wx0").for_account(&app_id, "s")?)))
        }
    };
    let accounts = Accounts::builder(MemoryStore::new())
        .registry(find)
        .build()
        .unwrap();
    let id = app("wx1");
    let first = tokio::time::timeout(Duration::from_millis(10), accounts.get(&id));
    assert!(first.await.is_err());
    assert!(accounts.get(&id).await.unwrap().is_some());
    assert_eq!(count.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_panic_in_a_closure_of_a_listed_account_stays_inside() {
    let broken = Account::new(client("wx1")).user_tokens(|_| panic!("a panic of the application"));
    let accounts =
        Accounts::builder(MemoryStore::new()).accounts([broken, Account::new(client("wx2"))]);
    let accounts = accounts.build().unwrap();
    let other = accounts.clone();
    let first = tokio::spawn(async move { other.get(&app("wx1")).await.is_err() }).await;
    assert!(
        accounts.get(&app("wx2")).await.unwrap().is_some(),
        "the other account"
    );
    assert!(first.is_ok(), "the panic reached the caller");
}

#[tokio::test]
async fn a_panic_in_a_closure_of_the_registry_is_told() {
    let find = |_: AppId| async move {
        Ok::<_, BoxError>(Some(
            Account::new(client("wx1")).user_tokens(|_| panic!("a panic of the application")),
        ))
    };
    let accounts = Accounts::builder(MemoryStore::new())
        .registry(find)
        .build()
        .unwrap();
    let lines = Arc::new(Mutex::new(Vec::new()));
    #[derive(Clone)]
    struct Lines(Arc<Mutex<Vec<u8>>>);
    impl std::io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let writer = Lines(Arc::clone(&lines));
    let subscriber = tracing_subscriber::fmt()
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let error = accounts.get(&app("wx1")).await.unwrap_err();
    let text = String::from_utf8(lines.lock().unwrap().clone()).unwrap();
    assert!(
        text.contains("panic"),
        "no log line; the error says: {error}"
    );
}

/// A registry that describes the same account anew each time changes nothing.
#[tokio::test(start_paused = true)]
async fn an_equal_description_is_no_change() {
    let keys = CookieKeys::random().unwrap();
    let find = move |_: AppId| {
        let keys = keys.clone();
        async move {
            let login = Login::builder("http://h5.example.com/wx1", keys)
                .cookie_name("s")
                .build()?;
            let account = Account::new(client("wx1"))
                .login(login)
                .website(client("wx9"));
            let account = account
                .page_hosts(["h5.example.com"])
                .user_tokens(|users| users);
            Ok::<_, BoxError>(Some(account))
        }
    };
    let accounts = Accounts::builder(MemoryStore::new())
        .registry(find)
        .build()
        .unwrap();
    let first = accounts.get(&app("wx1")).await.unwrap().unwrap();
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_secs(60)).await;
        accounts.get(&app("wx1")).await.unwrap().unwrap();
    }
    let now = accounts.get(&app("wx1")).await.unwrap().unwrap();
    assert_eq!(
        format!("{:p}", first.tokens()),
        format!("{:p}", now.tokens())
    );
}

/// A wrong description is no outage: the error names the account and the reason, and is no reason to
/// try again.
#[tokio::test]
async fn a_wrong_description_of_the_registry_is_a_configuration_error() {
    let keys = CookieKeys::random().unwrap();
    for (url, reason) in [
        ("https://h5.example.com", "must end with /wx1"),
        ("h5.example.com/wx1", "must begin with https://"),
    ] {
        let keys = keys.clone();
        let find = move |_: AppId| {
            let login = Login::new(url, keys.clone());
            async move { Ok::<_, BoxError>(Some(Account::new(client("wx1")).login(login?))) }
        };
        let accounts = Accounts::builder(MemoryStore::new())
            .registry(find)
            .build()
            .unwrap();
        let error = accounts.get(&app("wx1")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration);
        let text = error.to_string();
        assert!(
            text.contains("the account wx1") && text.contains(reason),
            "{text}"
        );
        assert_eq!(error.retry_after(), None);
        let handler = tower::service_fn(|_: Request<()>| async {
            Ok::<_, std::convert::Infallible>(Response::new(Full::<Bytes>::from("ok")))
        });
        let service = WechatLayer::for_accounts(accounts)
            .policy(Policy::Optional)
            .layer(handler);
        let response = service
            .oneshot(Request::get("/wx1/").body(()).unwrap())
            .await
            .unwrap();
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    }
}

#[test]
fn errors_of_selectors_say_what_selects_which_account() {
    let keys = CookieKeys::random().unwrap();
    let refused = |selector: AccountSelector, url: &str| {
        let account = Account::new(client("wx1")).login(Login::new(url, keys.clone()).unwrap());
        let accounts = Accounts::builder(MemoryStore::new()).account(account);
        match accounts.selector(selector).build() {
            Ok(_) => String::new(),
            Err(error) => error.to_string(),
        }
    };
    let below = || AccountSelector::path_below("/h5").unwrap();
    assert_eq!(refused(below(), "https://example.com/h5/wx1"), "");
    let text = refused(below(), "https://example.com/wx1");
    assert!(text.contains("must end with /h5/wx1"), "{text}");
    let hosts =
        |host: &str| AccountSelector::host([(host, "wx1"), ("club.example.com", "wx2")]).unwrap();
    assert_eq!(refused(hosts("a.example.com"), "https://a.example.com"), "");
    let text = refused(hosts("a.example.com"), "https://club.example.com");
    assert!(text.contains("selects the account wx2"), "{text}");
    let text = refused(hosts("a.example.com:8443"), "https://a.example.com");
    assert!(
        text.contains("selects no account") && text.contains("a.example.com:8443"),
        "{text}"
    );
    let swapped = AccountSelector::host([("wx1", "a.example.com/")]).unwrap_err();
    assert!(swapped.to_string().contains("a.example.com/"), "{swapped}");
}
