//! Instructions per request, counted by valgrind: `cargo bench --bench instructions`.
//!
//! Other load on the machine does not change the number of instructions. Each case runs twice under
//! callgrind, with few requests and with many. The difference is what the requests cost. Valgrind
//! hides the processor's SHA-256 instructions, so hashes are counted as in software.
//!
//! `cargo bench --bench instructions -- CASE REQUESTS` runs one case without valgrind, for other
//! tools. Cases with Redis round `REQUESTS` down to a multiple of 64.

mod fixtures;
#[path = "../tests/support/mod.rs"]
mod support;

use std::convert::Infallible;
use std::hint::black_box;
use std::process::{Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tokio::runtime::Runtime;
use tower::{Layer, Service, service_fn};
use tower_wechat::client::UserTokenResponse;
use tower_wechat::redis::Layout;
use tower_wechat::{
    Account, AccountTokens, Accounts, CookieKeys, Login, MemoryStore, RedisStore, SessionCookie,
    Tickets, TrustedHeader, UserTokens, WechatLayer,
};

use fixtures::{
    Body, cookie_request, header_request, hget_service, respond_empty, send_requests, user_id,
    user_token, wechat_client,
};
use support::redis_server::RedisServer;

/// Number of users: 200. All users are in memory or in Redis before the first request.
const USERS: usize = 200;

/// Number of accounts in the cases of several accounts: 50. One of them receives all requests.
const ACCOUNTS: usize = 50;

/// Maximum time for a command of Redis: 30 seconds, because programs are slow under valgrind.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(30);

/// The names of the cases. The second name is the case whose instructions are subtracted in the
/// column of added instructions.
const CASES: [(&str, Option<&str>); 11] = [
    ("bare", None),
    ("extension", Some("bare")),
    ("header", Some("bare")),
    ("cookie", Some("bare")),
    ("account-header", Some("bare")),
    ("account-cookie", Some("bare")),
    ("accounts-header", Some("account-header")),
    ("accounts-cookie", Some("account-cookie")),
    ("naive-hget", None),
    ("uncached-hashes", Some("naive-hget")),
    ("uncached-keys", Some("naive-hget")),
];

fn main() {
    // `cargo bench` adds `--bench` to the arguments.
    let words: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| word != "--bench")
        .collect();
    match words.as_slice() {
        [] => print_table(),
        [case, requests] => run_case(case, requests.parse().expect("a number of requests")),
        [case, requests, url] => {
            run_case_against(case, requests.parse().expect("a number of requests"), url);
        }
        _ => panic!("no words, or CASE REQUESTS"),
    }
}

/// Counts the instructions of every case and prints a table.
fn print_table() {
    let server = RedisServer::start();
    println!("{:<18} {:>14} {:>10}", "", "instructions", "added");
    let mut counts: Vec<(&str, u64)> = Vec::new();
    for (case, baseline) in CASES {
        let count = instructions_per_request(case, &server);
        let other = |name| counts.iter().find(|(other, _)| *other == name);
        let added = baseline
            .and_then(other)
            .map_or(String::new(), |(_, other)| {
                (count as i64 - *other as i64).to_string()
            });
        println!("{case:<18} {count:>14} {added:>10}");
        counts.push((case, count));
    }
}

fn instructions_per_request(case: &str, server: &RedisServer) -> u64 {
    const FEW: usize = 640;
    const MANY: usize = 6_400;
    let [few, many] = [FEW, MANY].map(|requests| count_instructions(case, requests, server));
    (many - few) / (MANY - FEW) as u64
}

/// Runs one case under callgrind. Returns the number of all instructions of the run, which
/// callgrind prints at the end.
fn count_instructions(case: &str, requests: usize, server: &RedisServer) -> u64 {
    let this = std::env::current_exe().expect("this program");
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(this)
        .args([case, &requests.to_string(), &server.url()])
        .stdout(Stdio::null())
        .output()
        .expect("valgrind starts; `apt-get install valgrind` installs it");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{case} fails: {stderr}");
    let collected = stderr
        .lines()
        .rev()
        .find_map(|line| line.split("Collected : ").nth(1));
    collected
        .and_then(|count| count.trim().parse().ok())
        .unwrap_or_else(|| panic!("callgrind printed no count: {stderr}"))
}

fn run_case(case: &str, requests: usize) {
    let server = RedisServer::start();
    run_case_against(case, requests, &server.url());
}

fn run_case_against(case: &str, requests: usize, url: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    match case {
        "bare" | "extension" | "header" | "cookie" => run_cached(&runtime, case, requests),
        "account-header" | "account-cookie" | "accounts-header" | "accounts-cookie" => {
            run_with_login(&runtime, case, requests);
        }
        "naive-hget" => runtime.block_on(async {
            drop(stored_users(url, Layout::Hashes).await);
            send_requests(hget_service(url, COMMAND_TIMEOUT).await, requests, USERS).await;
        }),
        "uncached-hashes" | "uncached-keys" => runtime.block_on(async {
            let layout = match case {
                "uncached-keys" => Layout::Keys,
                _ => Layout::Hashes,
            };
            let header = TrustedHeader::new("x-user-id").expect("a header");
            let layer = WechatLayer::new(stored_users(url, layout).await).identity(header);
            send_requests(
                layer.layer(service_fn(respond_empty::<Body>)),
                requests,
                USERS,
            )
            .await;
        }),
        _ => panic!("the cases are {:?}", CASES.map(|(case, _)| case)),
    }
}

/// Returns WeChat's response for the user with this number: an access token, a refresh token and a
/// scope.
fn token_response(at: usize) -> UserTokenResponse {
    fixtures::token_response(at)
        .refresh_token(user_token(at))
        .scope("snsapi_userinfo")
}

async fn stored_users(url: &str, layout: Layout) -> UserTokens {
    let store = RedisStore::builder(url)
        .layout(layout)
        .command_timeout(COMMAND_TIMEOUT)
        .connect()
        .await;
    let builder = UserTokens::builder(wechat_client(), store.expect("Redis"));
    let users = builder.cache_ttl(Duration::ZERO).build();
    store_users(&users).await;
    users
}

async fn store_users(users: &UserTokens) {
    for at in 0..USERS {
        users
            .store(&user_id(at), &token_response(at))
            .await
            .expect("stored");
    }
}

fn run_cached(runtime: &Runtime, case: &str, requests: usize) {
    let _entered = runtime.enter();
    let users = UserTokens::new(wechat_client(), MemoryStore::new());
    runtime.block_on(store_users(&users));
    let session = SessionCookie::new(users.app_id(), &CookieKeys::random().expect("keys"));
    let made: Vec<Request<Body>> = (0..USERS)
        .map(|at| match case {
            "cookie" => cookie_request(&session, at),
            _ => header_request(at),
        })
        .collect();
    let bare = service_fn(respond_empty::<Body>);
    let header = TrustedHeader::new("x-user-id").expect("a header");
    match case {
        "bare" => poll_requests(bare, &made, requests),
        "extension" => {
            let value = users.cached(&user_id(0)).expect("cached");
            let adding = move |mut request: Request<Body>| {
                let three = (value.clone(), value.clone(), None::<std::sync::Arc<()>>);
                request.extensions_mut().insert(three);
                respond_empty(request)
            };
            poll_requests(service_fn(adding), &made, requests);
        }
        "header" => {
            let layer = WechatLayer::new(users).identity(header);
            poll_requests(layer.layer(bare), &made, requests);
        }
        _ => {
            let layer = WechatLayer::new(users).identity(session);
            poll_requests(layer.layer(bare), &made, requests);
        }
    }
}

/// Runs the cached cases of a layer with a login and with the account's own token: for one account,
/// or for several accounts whose AppID is the first segment of the path. All requests are for the
/// same account.
fn run_with_login(runtime: &Runtime, case: &str, requests: usize) {
    let _entered = runtime.enter();
    let wechat = wechat_client();
    let app_id = wechat.app_id().clone();
    let keys = CookieKeys::random().expect("keys");
    let login = |app_id: &str| {
        let url = format!("https://h5.example.com/{app_id}");
        Login::new(url, keys.clone()).expect("a URL")
    };
    let session = SessionCookie::new(&app_id, &keys);
    let made: Vec<Request<Body>> = (0..USERS)
        .map(|at| {
            let mut request = match case {
                "account-cookie" | "accounts-cookie" => cookie_request(&session, at),
                _ => header_request(at),
            };
            let path = format!("/{}/", app_id.as_str());
            *request.uri_mut() = path.parse().expect("a path");
            request
        })
        .collect();
    let header = TrustedHeader::new("x-user-id").expect("a header");
    let bare = service_fn(respond_empty::<Body>);
    if case.starts_with("account-") {
        let store = MemoryStore::new();
        let users = UserTokens::new(wechat.clone(), store.clone());
        runtime.block_on(store_users(&users));
        let tokens = AccountTokens::new(wechat, store);
        let tickets = Tickets::new(&tokens, ["h5.example.com"]).expect("a host");
        let layer = WechatLayer::new(users).account(tickets);
        let layer = layer.login(login(app_id.as_str()));
        match case {
            "account-cookie" => poll_requests(layer.layer(bare), &made, requests),
            _ => poll_requests(layer.identity(header).layer(bare), &made, requests),
        }
        return;
    }
    let listed = (0..ACCOUNTS).map(|at| {
        let app_id = match at {
            0 => app_id.as_str().to_owned(),
            _ => format!("wx{at:016x}"),
        };
        let login = login(&app_id);
        Account::new(wechat.for_account(app_id, "secret").expect("a client")).login(login)
    });
    let accounts = Accounts::builder(MemoryStore::new()).accounts(listed);
    let accounts = accounts.build().expect("accounts");
    runtime.block_on(async {
        let account = accounts.get(&app_id).await.expect("no registry");
        store_users(account.expect("listed").users().expect("users")).await;
    });
    let layer = WechatLayer::for_accounts(accounts);
    match case {
        "accounts-cookie" => poll_requests(layer.layer(bare), &made, requests),
        _ => poll_requests(layer.identity(header).layer(bare), &made, requests),
    }
}

/// Sends the requests in turn. Polls each call once, which completes the call of a cached user.
fn poll_requests<S>(mut service: S, made: &[Request<Body>], requests: usize)
where
    S: Service<Request<Body>, Response = Response<Full<Bytes>>, Error = Infallible>,
{
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    for at in 0..requests {
        let request = made[at % made.len()].clone();
        let mut call = std::pin::pin!(service.call(request));
        assert!(black_box(call.as_mut().poll(&mut context)).is_ready());
    }
}
