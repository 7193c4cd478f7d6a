//! A layer of several accounts: the selection, the registry, and what bad input gets.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use tower::{Layer, ServiceExt};
use tower_wechat::client::UserTokenResponse;
use tower_wechat::credential::AppId;
use tower_wechat::layer::{AccountSession, JsonRejection, WechatAccount};
use tower_wechat::{
    Account, AccountSelector, Accounts, CookieKeys, ErrorKind, Login, MemoryStore, Policy,
    SessionCookie, UserId, WechatClient, WechatLayer, WechatUser,
};

type Reply = Response<Full<Bytes>>;

fn client(app_id: &str) -> WechatClient {
    let client = WechatClient::builder(app_id, "secret").api_url("http://127.0.0.1:1");
    client.build().unwrap()
}

fn login(app_id: &str, keys: &CookieKeys) -> Login {
    Login::new(format!("http://h5.example.com/{app_id}"), keys.clone()).unwrap()
}

/// A handler that answers with the accounts and the user of the request.
async fn answer(request: Request<()>) -> Result<Reply, std::convert::Infallible> {
    let account = request.extensions().get::<WechatAccount>();
    let user = request.extensions().get::<WechatUser>();
    let text = format!(
        "{} {}",
        account.map_or("none", |account| account.app_id().as_str()),
        user.map_or("nobody".to_owned(), |user| format!(
            "{}@{}",
            user.id(),
            user.app_id().as_str()
        )),
    );
    Ok(Response::new(Full::from(text)))
}

/// Sends a request through a layer with `Policy::Optional`, and returns status and body.
async fn send(accounts: &Accounts, request: Request<()>) -> (StatusCode, String) {
    let layer: WechatLayer<AccountSession, JsonRejection> =
        WechatLayer::for_accounts(accounts.clone()).policy(Policy::Optional);
    let service = layer.layer(tower::service_fn(answer));
    let response = service.oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    (parts.status, String::from_utf8_lossy(&body).into_owned())
}

fn get(uri: &str) -> Request<()> {
    Request::get(uri).body(()).unwrap()
}

async fn is_unknown(accounts: &Accounts, request: Request<()>) -> bool {
    let (status, body) = send(accounts, request).await;
    status == StatusCode::NOT_FOUND && body.contains(r#""error":"unknown_account""#)
}

fn two_accounts(selector: AccountSelector) -> Accounts {
    let accounts = ["wx1", "wx2"].map(|app_id| Account::new(client(app_id)));
    let builder = Accounts::builder(MemoryStore::new()).selector(selector);
    builder.accounts(accounts).build().unwrap()
}

#[tokio::test]
async fn requests_reach_the_account_that_they_name() {
    let by_path = two_accounts(AccountSelector::path());
    for (uri, account) in [("/wx1/", "wx1"), ("/wx2/a?b", "wx2"), ("/wx1", "wx1")] {
        let expected = (StatusCode::OK, format!("{account} nobody"));
        assert_eq!(send(&by_path, get(uri)).await, expected);
    }
    let hosts = [("a.example", "wx1"), ("b.example", "wx2")];
    let by_host = two_accounts(AccountSelector::host(hosts).unwrap());
    let request = Request::get("/")
        .header("host", "B.example:80")
        .body(())
        .unwrap();
    assert_eq!(send(&by_host, request).await.1, "wx2 nobody");
    let by_header = two_accounts(AccountSelector::header("x-account").unwrap());
    let request = Request::get("/")
        .header("x-account", "wx2")
        .body(())
        .unwrap();
    assert_eq!(send(&by_header, request).await.1, "wx2 nobody");
    let by_query = two_accounts(AccountSelector::query("appid").unwrap());
    assert_eq!(send(&by_query, get("/a?appid=wx1")).await.1, "wx1 nobody");
    let by_function = two_accounts(AccountSelector::from_fn(|head| {
        AppId::new(head.uri.path().strip_prefix("/shop")?.trim_end_matches('/')).ok()
    }));
    assert_eq!(send(&by_function, get("/shopwx1/")).await.1, "wx1 nobody");
}

#[tokio::test]
async fn unknown_accounts_receive_404_for_every_method_and_kind_of_request() {
    let accounts = two_accounts(AccountSelector::path());
    for uri in [
        "/",
        "/wx3/",
        "/WX1/",
        "/wx1%0a/",
        "/%77x1/",
        "//wx1/",
        "/wx1.html",
        "/healthz",
    ] {
        assert!(is_unknown(&accounts, get(uri)).await, "{uri}");
    }
    let page = Request::get("/wx3/").header("accept", "text/html");
    let page = page.header("sec-fetch-mode", "navigate").body(()).unwrap();
    assert!(is_unknown(&accounts, page).await);
    let callback = get("/wx3/wechat/callback?code=c&state=s");
    assert!(is_unknown(&accounts, callback).await);
    let preflight = Request::options("/wx3/").header("access-control-request-method", "GET");
    assert!(is_unknown(&accounts, preflight.body(()).unwrap()).await);
    let by_header = two_accounts(AccountSelector::header("x-account").unwrap());
    assert!(is_unknown(&by_header, get("/wx1/")).await);
    let twice = Request::get("/")
        .header("x-account", "wx1")
        .header("x-account", "wx2");
    assert!(is_unknown(&by_header, twice.body(()).unwrap()).await);
}

#[tokio::test]
async fn a_session_of_one_account_is_none_of_another() {
    let keys = CookieKeys::random().unwrap();
    let account = |app_id| Account::new(client(app_id)).login(login(app_id, &keys));
    let accounts = Accounts::builder(MemoryStore::new())
        .accounts(["wx1", "wx2"].map(account))
        .build()
        .unwrap();
    let user = UserId::new("oSame").unwrap();
    let mut cookies = Vec::new();
    for app_id in ["wx1", "wx2"] {
        let app_id = AppId::new(app_id).unwrap();
        let made = accounts.get(&app_id).await.unwrap().unwrap();
        let token = UserTokenResponse::new(format!("token-{}", app_id.as_str())).expires_in(7_200);
        made.users().unwrap().store(&user, &token).await.unwrap();
        let session = SessionCookie::builder(&app_id, &keys)
            .secure(false)
            .build()
            .unwrap();
        let cookie = session.issue(&user).to_str().unwrap().to_owned();
        cookies.push(cookie.split(';').next().unwrap().to_owned());
    }
    let request = |path: &str, cookie: &str| {
        Request::get(path)
            .header("cookie", cookie)
            .body(())
            .unwrap()
    };
    assert_eq!(
        send(&accounts, request("/wx1/", &cookies[0])).await.1,
        "wx1 oSame@wx1"
    );
    assert_eq!(
        send(&accounts, request("/wx2/", &cookies[0])).await.1,
        "wx2 nobody"
    );
    let both = cookies.join("; ");
    assert_eq!(
        send(&accounts, request("/wx2/", &both)).await.1,
        "wx2 oSame@wx2"
    );
    // The value of one account's cookie under the name of the other's.
    let (_, value) = cookies[0].split_once('=').unwrap();
    let (name, _) = cookies[1].split_once('=').unwrap();
    let forged = format!("{name}={value}");
    assert_eq!(
        send(&accounts, request("/wx2/", &forged)).await.1,
        "wx2 nobody"
    );
}

/// A registry that counts its searches, and whose answers a test sets.
#[derive(Clone, Default)]
struct Searched {
    count: Arc<AtomicUsize>,
    known: Arc<Mutex<Vec<(&'static str, &'static str)>>>,
    fails: Arc<Mutex<Option<&'static str>>>,
}

impl Searched {
    fn accounts(&self) -> tower_wechat::layer::AccountsBuilder {
        let this = self.clone();
        let find = move |app_id: AppId| {
            let this = this.clone();
            async move {
                this.count.fetch_add(1, Ordering::SeqCst);
                let fails = *this.fails.lock().unwrap();
                match fails {
                    Some("hangs") => std::future::pending().await,
                    Some("panics") => panic!("out of rows"),
                    Some("swaps") => return Ok(Some(Account::new(client("wx9")))),
                    Some(text) => return Err(text),
                    None => {}
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
                let known = this.known.lock().unwrap();
                let found = known.iter().find(|(known, _)| *known == app_id.as_str());
                Ok(found.map(|(app_id, secret)| {
                    Account::new(client("wx0").for_account(app_id, *secret).unwrap())
                }))
            }
        };
        Accounts::builder(MemoryStore::new())
            .registry(find)
            .find_timeout(Duration::from_millis(300))
    }

    fn searches(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }
}

#[tokio::test]
async fn one_search_runs_for_all_requests_of_an_account() {
    let registry = Searched::default();
    registry.known.lock().unwrap().push(("wx1", "secret"));
    let accounts = registry.accounts().build().unwrap();
    let requests = (0..100).map(|_| {
        let accounts = accounts.clone();
        tokio::spawn(async move { send(&accounts, get("/wx1/")).await.1 })
    });
    for request in requests.collect::<Vec<_>>() {
        assert_eq!(request.await.unwrap(), "wx1 nobody");
    }
    assert_eq!(registry.searches(), 1);
    // Names that no AppID has do not reach the registry.
    assert!(is_unknown(&accounts, get("/wx.1/")).await);
    assert_eq!(registry.searches(), 1);
    assert!(is_unknown(&accounts, get("/wx2/")).await);
    assert_eq!(registry.searches(), 2);
}

#[tokio::test]
async fn a_registry_that_fails_gives_503_and_keeps_known_accounts() {
    let registry = Searched::default();
    registry.known.lock().unwrap().push(("wx1", "secret"));
    let accounts = registry.accounts().build().unwrap();
    assert_eq!(send(&accounts, get("/wx1/")).await.1, "wx1 nobody");
    for failure in ["no connection", "hangs", "panics", "swaps"] {
        *registry.fails.lock().unwrap() = Some(failure);
        let (status, body) = send(&accounts, get("/wx2/")).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{failure}");
        assert!(body.contains(r#""error":"accounts_unavailable""#), "{body}");
        assert!(!body.contains("connection"), "{body}");
        assert_eq!(send(&accounts, get("/wx1/")).await.1, "wx1 nobody");
        let error = accounts.get(&AppId::new("wx2").unwrap()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AccountsUnavailable);
    }
    *registry.fails.lock().unwrap() = None;
    registry.known.lock().unwrap().push(("wx2", "secret"));
    assert_eq!(send(&accounts, get("/wx2/")).await.1, "wx2 nobody");
}

#[tokio::test]
async fn accounts_come_and_go_with_the_registry() {
    let registry = Searched::default();
    registry.known.lock().unwrap().push(("wx1", "secret"));
    let accounts = registry
        .accounts()
        .refresh_interval(Duration::from_millis(50))
        .build()
        .unwrap();
    assert_eq!(send(&accounts, get("/wx1/")).await.1, "wx1 nobody");
    let first = accounts
        .get(&AppId::new("wx1").unwrap())
        .await
        .unwrap()
        .unwrap();
    // A failing registry removes nothing.
    *registry.fails.lock().unwrap() = Some("no connection");
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(send(&accounts, get("/wx1/")).await.1, "wx1 nobody");
    // Another secret replaces the account.
    *registry.known.lock().unwrap() = vec![("wx1", "another")];
    *registry.fails.lock().unwrap() = None;
    let replaced = async {
        loop {
            let now = accounts
                .get(&AppId::new("wx1").unwrap())
                .await
                .unwrap()
                .unwrap();
            if !std::ptr::eq(now.tokens().app_id(), first.tokens().app_id())
                && !std::ptr::eq(now.app_id().as_str(), first.app_id().as_str())
            {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), replaced)
        .await
        .unwrap();
    registry.known.lock().unwrap().clear();
    let gone = async {
        while !is_unknown(&accounts, get("/wx1/")).await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), gone)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listed_accounts_are_added_and_removed_while_requests_run() {
    let accounts = two_accounts(AccountSelector::path());
    let wx3 = AppId::new("wx3").unwrap();
    let stop = Arc::new(AtomicUsize::new(0));
    let load = tokio::spawn({
        let (accounts, stop) = (accounts.clone(), Arc::clone(&stop));
        async move {
            let mut seen = [0, 0];
            while stop.load(Ordering::SeqCst) == 0 {
                assert_eq!(send(&accounts, get("/wx1/")).await.1, "wx1 nobody");
                match send(&accounts, get("/wx3/")).await {
                    (StatusCode::OK, body) if body == "wx3 nobody" => seen[0] += 1,
                    (StatusCode::NOT_FOUND, _) => seen[1] += 1,
                    other => panic!("{other:?}"),
                }
                tokio::task::yield_now().await;
            }
            seen
        }
    });
    for _ in 0..200 {
        accounts.insert(Account::new(client("wx3"))).unwrap();
        assert_eq!(send(&accounts, get("/wx3/")).await.1, "wx3 nobody");
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert!(accounts.remove(&wx3));
        assert!(is_unknown(&accounts, get("/wx3/")).await);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    stop.store(1, Ordering::SeqCst);
    let seen = load.await.unwrap();
    assert!(seen[0] > 0 && seen[1] > 0, "{seen:?}");
    assert!(!accounts.remove(&wx3));
    assert!(accounts.shutdown(Duration::from_secs(5)).await);
}

#[tokio::test]
async fn idle_accounts_are_dropped_and_made_again() {
    let accounts = ["wx1", "wx2"].map(|app_id| Account::new(client(app_id)));
    let accounts = Accounts::builder(MemoryStore::new())
        .accounts(accounts)
        .idle_timeout(Duration::from_millis(100))
        .build()
        .unwrap();
    let served = |accounts: &Accounts| format!("{accounts:?}");
    assert!(served(&accounts).contains("served: 0"), "{accounts:?}");
    send(&accounts, get("/wx1/")).await;
    send(&accounts, get("/wx2/")).await;
    assert!(served(&accounts).contains("served: 2"), "{accounts:?}");
    let idle = async {
        while !served(&accounts).contains("served: 1") {
            send(&accounts, get("/wx2/")).await;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), idle)
        .await
        .unwrap();
    assert_eq!(send(&accounts, get("/wx1/")).await.1, "wx1 nobody");
}

#[test]
fn bad_configuration_fails_at_build() {
    let keys = CookieKeys::random().unwrap();
    let error = |builder: tower_wechat::layer::AccountsBuilder| {
        let error = builder.build().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration);
        error.to_string()
    };
    let builder = || Accounts::builder(MemoryStore::new());
    assert!(error(builder()).contains("no account"));
    let none = async |_: AppId| Ok::<_, tower_wechat::Error>(None);
    assert!(error(builder().registry(none).registry(none)).contains("two registries"));
    let twice = ["wx1", "wx1"].map(|app_id| Account::new(client(app_id)));
    assert!(error(builder().accounts(twice)).contains("wx1 is listed twice"));
    let elsewhere = Login::new("https://h5.example.com", keys.clone()).unwrap();
    let elsewhere = Account::new(client("wx1")).login(elsewhere);
    assert!(error(builder().account(elsewhere.clone())).contains("must end with /wx1"));
    let hosts = AccountSelector::host([("a.example", "wx1")]).unwrap();
    let error_of_host = error(builder().selector(hosts).account(elsewhere));
    assert!(error_of_host.contains("h5.example.com"), "{error_of_host}");
    let named = |app_id| {
        let url = format!("https://h5.example.com/{app_id}");
        let login = Login::builder(url, keys.clone()).cookie_name("session");
        Account::new(client(app_id)).login(login.build().unwrap())
    };
    let same = error(builder().account(named("wx1")).account(named("wx2")));
    assert!(
        same.contains("wx1") && same.contains("wx2") && same.contains("session"),
        "{same}"
    );
    let bad_host = Account::new(client("wx1")).page_hosts(["https://x"]);
    assert!(error(builder().account(bad_host)).contains("https://x"));
    assert!(
        error(
            builder()
                .account(Account::new(client("wx1")))
                .find_timeout(Duration::ZERO)
        )
        .contains("find_timeout")
    );
    let accounts = builder()
        .account(Account::new(client("wx1")))
        .build()
        .unwrap();
    let elsewhere = Login::new("https://h5.example.com", keys).unwrap();
    assert!(
        accounts
            .insert(Account::new(client("wx2")).login(elsewhere))
            .is_err()
    );
}

/// axum handlers take the selected account as an argument.
#[tokio::test]
async fn handlers_take_the_account() {
    async fn name(account: WechatAccount) -> String {
        let users = account
            .users()
            .map(|users| users.app_id().as_str().to_owned());
        format!("{} {users:?}", account.app_id().as_str())
    }
    let layer = WechatLayer::for_accounts(two_accounts(AccountSelector::path()));
    let app = axum::Router::new()
        .route("/{appid}/", axum::routing::get(name))
        .layer(layer.policy(Policy::Optional));
    let request = Request::get("/wx2/")
        .body(axum::body::Body::empty())
        .unwrap();
    let body = app.oneshot(request).await.unwrap().into_body();
    let body = body.collect().await.unwrap().to_bytes();
    assert_eq!(body, r#"wx2 Some("wx2")"#);
}
