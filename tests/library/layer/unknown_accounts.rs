//! Tests of 100,000 requests for accounts that do not exist: memory, names in Redis and metrics do
//! not grow.

use std::convert::Infallible;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};
use tokio::runtime::Runtime;
use tower::{Layer, ServiceExt, service_fn};
use tower_wechat::credential::AppId;
use tower_wechat::layer::AccountsBuilder;
use tower_wechat::redis::Layout;
use tower_wechat::{
    Account, Accounts, ErrorKind, Policy, RedisStore, UserId, WechatClient, WechatLayer,
};

use crate::support::eventually;
use crate::support::redis_server::RedisServer;

const REQUESTS: u64 = 100_000;

/// Number of requests that create what all later ones use again.
const FIRST_REQUESTS: u64 = 2_000;

/// Number of all requests of a test.
const TOTAL: u64 = FIRST_REQUESTS + REQUESTS;

/// Maximum number of searches in a registry that run at the same time.
const MAX_SEARCHES: usize = 256;

/// Maximum time of a search: longer than all requests take on a busy machine.
const FIND_TIMEOUT: Duration = Duration::from_secs(30);

/// Maximum growth of live memory: less than one byte for each request.
const MAX_GROWTH: i64 = REQUESTS as i64 / 2;

fn client(app_id: &str) -> WechatClient {
    let client = WechatClient::builder(app_id, "secret").api_url("http://127.0.0.1:1");
    client.build().unwrap()
}

async fn empty(request: Request<()>) -> Result<Response<Full<Bytes>>, Infallible> {
    drop(request);
    Ok(Response::new(Full::default()))
}

/// Sends a request for an account, and returns the status and the header `Retry-After`.
async fn send(accounts: &Accounts, app_id: &str) -> (StatusCode, bool) {
    let layer = WechatLayer::for_accounts(accounts.clone()).policy(Policy::Optional);
    let service = layer.layer(service_fn(empty));
    let request = Request::get(format!("/{app_id}/")).body(()).unwrap();
    let response: Response<Full<Bytes>> = service.oneshot(request).await.unwrap();
    let has_retry_after = response.headers().contains_key("retry-after");
    (response.status(), has_retry_after)
}

/// Sends requests for invented accounts, and returns the growth of live memory.
fn growth(
    runtime: &Runtime,
    accounts: &Accounts,
    numbers: Range<u64>,
    expected: StatusCode,
) -> i64 {
    let measured = allocation_counter::measure(|| {
        runtime.block_on(async {
            for at in numbers {
                let (status, _) = send(accounts, &format!("wx{at:016x}")).await;
                assert_eq!(status, expected);
            }
        });
    });
    measured.bytes_current
}

fn runtime() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().unwrap()
}

fn alive_tasks(runtime: &Runtime) -> usize {
    runtime.metrics().num_alive_tasks()
}

/// Returns the number of time series.
fn series(recorder: &PrometheusRecorder) -> usize {
    let text = recorder.handle().render();
    text.lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .count()
}

/// Sends requests for invented accounts to accounts with a store in Redis, and asserts that nothing
/// grows.
fn nothing_grows(listed: &[&str], change: impl Fn(AccountsBuilder) -> AccountsBuilder) {
    let server = RedisServer::start();
    let recorder = PrometheusBuilder::new().build_recorder();
    let runtime = runtime();
    metrics::with_local_recorder(&recorder, || {
        let accounts = runtime.block_on(async {
            let store = RedisStore::builder(&server.url()).layout(Layout::Keys);
            let builder = Accounts::builder(store.connect().await.unwrap());
            let listed = listed.iter().map(|app_id| Account::new(client(app_id)));
            change(builder.accounts(listed)).build().unwrap()
        });
        for app_id in listed {
            runtime.block_on(send(&accounts, app_id));
        }
        growth(
            &runtime,
            &accounts,
            0..FIRST_REQUESTS,
            StatusCode::NOT_FOUND,
        );
        let (tasks, before) = (alive_tasks(&runtime), series(&recorder));
        let calls = || server.calls("get") + server.calls("set") + server.calls("evalsha");
        let commands = calls();
        let grown = growth(
            &runtime,
            &accounts,
            FIRST_REQUESTS..TOTAL,
            StatusCode::NOT_FOUND,
        );
        assert!(grown < MAX_GROWTH, "{grown} bytes for {REQUESTS} requests");
        assert!(alive_tasks(&runtime) <= tasks);
        assert_eq!((series(&recorder), calls()), (before, commands));
        let size: u64 = redis::cmd("DBSIZE")
            .query(&mut server.connection())
            .unwrap();
        assert_eq!(size, 0, "names in Redis");
        assert!(!recorder.handle().render().contains("wx0000"));
        let served = format!("served: {}", listed.len());
        assert!(format!("{accounts:?}").contains(&served), "{accounts:?}");
    });
}

#[test]
fn requests_for_accounts_that_are_not_listed_leave_nothing_behind() {
    nothing_grows(&["wx1", "wx2"], |builder| builder);
}

#[test]
fn requests_for_accounts_that_the_registry_does_not_find_leave_nothing_behind() {
    let searches = Arc::new(AtomicU64::new(0));
    nothing_grows(&[], |builder| {
        let searches = Arc::clone(&searches);
        builder.registry(move |_: AppId| {
            searches.fetch_add(1, Ordering::Relaxed);
            async { Ok::<_, Infallible>(None) }
        })
    });
    assert_eq!(searches.load(Ordering::Relaxed), TOTAL);
}

#[test]
fn a_hanging_registry_bounds_its_searches() {
    let hangs = Arc::new(AtomicBool::new(true));
    let find = {
        let hangs = Arc::clone(&hangs);
        move |app_id: AppId| {
            let hangs = hangs.load(Ordering::Relaxed);
            async move {
                if hangs {
                    std::future::pending::<()>().await;
                }
                let account = (app_id.as_str() == "wx1").then(|| Account::new(client("wx1")));
                Ok::<_, Infallible>(account)
            }
        }
    };
    let runtime = runtime();
    let builder = Accounts::builder(tower_wechat::MemoryStore::new()).registry(find);
    let builder = builder.find_timeout(FIND_TIMEOUT);
    let accounts = builder.build().unwrap();
    let waiting: Vec<_> = (0..MAX_SEARCHES)
        .map(|at| {
            let accounts = accounts.clone();
            runtime.spawn(async move { send(&accounts, &format!("waiting{at}")).await })
        })
        .collect();
    runtime.block_on(async { tokio::time::sleep(Duration::from_millis(50)).await });
    // Requests for other accounts do not wait. All of them fail while the searches hang.
    growth(
        &runtime,
        &accounts,
        0..FIRST_REQUESTS,
        StatusCode::SERVICE_UNAVAILABLE,
    );
    let tasks = alive_tasks(&runtime);
    let grown = growth(
        &runtime,
        &accounts,
        FIRST_REQUESTS..TOTAL,
        StatusCode::SERVICE_UNAVAILABLE,
    );
    assert!(grown < MAX_GROWTH, "{grown} bytes for {REQUESTS} requests");
    assert_eq!(alive_tasks(&runtime), tasks);
    let (status, has_retry_after) = runtime.block_on(send(&accounts, "wx1"));
    assert_eq!(
        (status, has_retry_after),
        (StatusCode::SERVICE_UNAVAILABLE, true)
    );
    assert!(waiting.iter().all(|waiting| !waiting.is_finished()));

    // The searches end with their timeout.
    hangs.store(false, Ordering::Relaxed);
    runtime.block_on(async {
        for waiting in waiting {
            assert_eq!(waiting.await.unwrap().0, StatusCode::SERVICE_UNAVAILABLE);
        }
        assert_eq!(send(&accounts, "wx1").await.0, StatusCode::OK);
        assert_eq!(send(&accounts, "wx2").await.0, StatusCode::NOT_FOUND);
    });
}

/// Accounts that are used and dropped again and again use no more memory than after the first time.
#[test]
fn idle_accounts_leave_nothing_behind() {
    const ACCOUNTS: usize = 50;
    let server = RedisServer::start();
    let runtime = runtime();
    let app_ids: Vec<_> = (0..ACCOUNTS).map(|at| format!("wx{at:016x}")).collect();
    let accounts = runtime.block_on(async {
        let store = RedisStore::builder(&server.url()).layout(Layout::Keys);
        let builder = Accounts::builder(store.connect().await.unwrap());
        let listed = app_ids.iter().map(|app_id| Account::new(client(app_id)));
        let builder = builder.accounts(listed);
        builder
            .idle_timeout(Duration::from_millis(50))
            .build()
            .unwrap()
    });
    let tasks = alive_tasks(&runtime);
    let use_and_drop = || {
        runtime.block_on(async {
            for app_id in &app_ids {
                assert_eq!(send(&accounts, app_id).await.0, StatusCode::OK);
                let account = accounts.get(&AppId::new(app_id).unwrap()).await.unwrap();
                let users = account.unwrap().users().unwrap().clone();
                let missing = users.get(&UserId::new("oA").unwrap()).await;
                assert_eq!(missing.unwrap_err().kind(), ErrorKind::LoginRequired);
            }
            eventually(
                "all accounts are dropped",
                Duration::from_secs(10),
                async || {
                    // The upkeep is the one task that stays.
                    format!("{accounts:?}").contains("served: 0")
                        && alive_tasks(&runtime) <= tasks + 1
                },
            )
            .await;
        });
    };
    for _ in 0..3 {
        use_and_drop();
    }
    let measured = allocation_counter::measure(|| (0..10).for_each(|_| use_and_drop()));
    let grown = measured.bytes_current;
    assert!(
        grown < 500 * 10,
        "{grown} bytes for {ACCOUNTS} accounts, ten times"
    );
}
