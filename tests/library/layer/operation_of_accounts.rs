//! What an operator sees of several accounts: their health, and the log lines about requests without
//! an account.

use std::convert::Infallible;

use axum::body::Body;
use axum::{Router, routing};
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HOST};
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use redis::Commands;
use tower::{Layer, ServiceExt, service_fn};
use tower_wechat::credential::AppId;
use tower_wechat::layer::WechatAccount;
use tower_wechat::redis::RedisNames;
use tower_wechat::{
    Account, AccountSelector, Accounts, CookieKeys, ErrorKind, Login, MemoryStore, Policy,
    RedisStore, Store, UserId, WechatClient, WechatLayer,
};

use super::{id, text};
use crate::support::log_lines::LogLines;
use crate::support::redis_server::RedisServer;

type Reply = Response<Full<Bytes>>;

fn account(app_id: &str) -> Account {
    let client = WechatClient::builder(app_id, "secret").api_url("http://127.0.0.1:1");
    Account::new(client.build().unwrap())
}

fn accounts(selector: AccountSelector, store: impl Store) -> Accounts {
    let builder = Accounts::builder(store).selector(selector);
    builder
        .accounts(["wx1", "wx2"].map(account))
        .build()
        .unwrap()
}

async fn send(accounts: &Accounts, request: Request<()>) -> Reply {
    let layer = WechatLayer::for_accounts(accounts.clone()).policy(Policy::Optional);
    let inner = service_fn(async |_: Request<()>| Ok::<_, Infallible>(Reply::default()));
    layer.layer(inner).oneshot(request).await.unwrap()
}

fn get(uri: &str) -> Request<()> {
    Request::get(uri).body(()).unwrap()
}

/// Collects the lines of the crate from level INFO that this thread logs, until the guard is dropped.
fn collect() -> (LogLines, tracing::subscriber::DefaultGuard) {
    let lines = LogLines::default();
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter("tower_wechat=info")
        .with_ansi(false)
        .with_writer(lines.clone())
        .finish();
    (lines, tracing::subscriber::set_default(subscriber))
}

/// Before, the health was that of one listed account, and the order of the list is random.
#[tokio::test]
async fn a_broken_name_of_one_account_leaves_the_process_ready() {
    let mut server = RedisServer::start();
    let broken = "user.wxUserAccessToken.wx2";
    let () = server.connection().set(broken, "text").unwrap();
    for _ in 0..8 {
        let names = RedisNames::default().with_appid();
        let store = RedisStore::builder(&server.url()).names(names);
        let store = store.connect().await.unwrap();
        let accounts = accounts(AccountSelector::path(), store);
        let (lines, _guard) = collect();
        for app_id in ["wx1", "wx2"] {
            assert_eq!(
                send(&accounts, get(&format!("/{app_id}/"))).await.status(),
                200
            );
        }
        assert!(accounts.health().await.is_ready());
        // The log has an error.
        let broken_account = accounts.get(&AppId::new("wx2").unwrap()).await.unwrap();
        let users = broken_account.unwrap().users().unwrap().clone();
        let error = users.get(&id("oA")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::StoreUnavailable);
        assert!(
            lines.text().contains("a value of another type"),
            "{}",
            lines.text()
        );
    }
    let store = RedisStore::builder(&server.url()).names(RedisNames::default().with_appid());
    let accounts = accounts(AccountSelector::path(), store.connect().await.unwrap());
    server.kill();
    assert!(!accounts.health().await.is_ready());
}

#[tokio::test]
async fn the_log_names_what_the_selector_saw_once_a_minute() {
    let hosts = [("a.example", "wx1"), ("b.example", "wx2")];
    let long = "x".repeat(500);
    let with_host = |host: &str| Request::get("/").header(HOST, host).body(()).unwrap();
    let with_account = |id: &str| Request::get("/").header("x-account", id).body(()).unwrap();
    for (selector, request, seen, check) in [
        (
            AccountSelector::host(hosts).unwrap(),
            with_host("127.0.0.1:17380"),
            r#"examined="127.0.0.1:17380""#.to_owned(),
            "must pass the header Host on",
        ),
        (
            AccountSelector::path(),
            get("/cart%0a?secret"),
            r#"examined="/cart%0a""#.to_owned(),
            "the path must begin with the AppID",
        ),
        (
            AccountSelector::path(),
            get("/wx00000000000000aa/me"),
            r#"examined="/wx00000000000000aa/me""#.to_owned(),
            "may not have authorized it",
        ),
        (
            AccountSelector::header("x-account").unwrap(),
            with_account(&long),
            format!("examined={:?}", &long[..64]),
            "the gateway must set the header",
        ),
        (
            AccountSelector::query("appid").unwrap(),
            get("/cart?app=wx1"),
            r#"examined="""#.to_owned(),
            "every link needs the parameter",
        ),
        (
            AccountSelector::from_fn(|_| None),
            get("/wx1/"),
            r#"examined="""#.to_owned(),
            "AccountSelector::from_fn",
        ),
    ] {
        let accounts = accounts(selector, MemoryStore::new());
        let (lines, _guard) = collect();
        for _ in 0..3 {
            let mut again = get("/");
            *again.uri_mut() = request.uri().clone();
            *again.headers_mut() = request.headers().clone();
            assert_eq!(send(&accounts, again).await.status(), 404);
        }
        let lines = lines.text();
        assert_eq!(lines.lines().count(), 1, "{lines}");
        assert!(
            lines.contains("INFO tower_wechat::layer: a request named no"),
            "{lines}"
        );
        assert!(lines.contains(&seen) && lines.contains(check), "{lines}");
        assert!(!lines.contains("secret"), "{lines}");
    }
}

#[tokio::test]
async fn a_callback_that_selects_no_account_is_a_warning_without_its_code() {
    let listed = accounts(AccountSelector::path(), MemoryStore::new());
    let found = Accounts::builder(MemoryStore::new())
        .registry(async |_: AppId| Ok::<_, tower_wechat::Error>(None))
        .build()
        .unwrap();
    for accounts in [listed, found] {
        let (lines, _guard) = collect();
        for uri in [
            "/wx3/",
            "/wx3/wechat/callback?code=the-code&state=the-state",
        ] {
            assert_eq!(send(&accounts, get(uri)).await.status(), 404);
        }
        let lines = lines.text();
        assert_eq!(lines.lines().count(), 2, "{lines}");
        assert!(
            lines.contains(
                "WARN tower_wechat::layer: WeChat sent a user to an address that selects"
            ),
            "{lines}"
        );
        assert!(
            !lines.contains("the-code") && !lines.contains("the-state"),
            "{lines}"
        );
    }
}

#[tokio::test]
async fn a_page_load_sees_a_page_while_the_registry_fails() {
    let accounts = Accounts::builder(MemoryStore::new())
        .selector(AccountSelector::from_fn(|_| AppId::new("wx1").ok()))
        .registry(async |_: AppId| Err::<Option<Account>, _>("no connection"))
        .build()
        .unwrap();
    let page = Request::get("//evil.example/wx1/")
        .header(ACCEPT, "text/html")
        .header("sec-fetch-mode", "navigate")
        .header("sec-fetch-dest", "document");
    for (request, content_type) in [
        (page.body(()).unwrap(), "text/html; charset=utf-8"),
        (get("/wx1/"), "application/json"),
    ] {
        let response = send(&accounts, request).await;
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()[CONTENT_TYPE], content_type);
        assert_eq!(response.headers()["retry-after"], "1");
        assert_eq!(response.headers()["cache-control"], "no-store");
        let body = text(response).await;
        match content_type {
            "application/json" => assert!(body.contains("accounts_unavailable"), "{body}"),
            // An empty reference loads the same address again.
            _ => assert!(
                body.contains("<a href=\"\">") && !body.contains("evil"),
                "{body}"
            ),
        }
    }
}

#[tokio::test]
async fn an_application_signs_users_in_to_the_selected_account() {
    let keys = CookieKeys::random().unwrap();
    let with_login = |app_id: &str| {
        let login = Login::new(format!("http://h5.example.com/{app_id}"), keys.clone());
        account(app_id).login(login.unwrap())
    };
    let builder = Accounts::builder(MemoryStore::new()).account(account("wx3"));
    let builder = builder.accounts(["wx1", "wx2"].map(with_login));
    let accounts = builder.build().unwrap();
    let cookie = async |app_id: &str| {
        let account: WechatAccount = accounts
            .get(&AppId::new(app_id).unwrap())
            .await
            .unwrap()
            .unwrap();
        let user: UserId = id("oA");
        Some(
            account
                .session_cookie()?
                .issue(&user)
                .to_str()
                .unwrap()
                .to_owned(),
        )
    };
    assert!(
        cookie("wx1")
            .await
            .unwrap()
            .starts_with("wechat_session_wx1=")
    );
    assert!(
        cookie("wx2")
            .await
            .unwrap()
            .starts_with("wechat_session_wx2=")
    );
    assert_eq!(cookie("wx3").await, None);
}

/// A layer inside of a nested router does not receive the login's paths. The guide mounts them as the
/// fallback of the outermost router.
#[tokio::test]
async fn a_layer_inside_of_a_nested_router_has_its_logins_in_the_fallback() {
    let login = Login::new("http://h5.example.com/wx1", CookieKeys::random().unwrap());
    let accounts =
        Accounts::builder(MemoryStore::new()).account(account("wx1").login(login.unwrap()));
    let layer = WechatLayer::for_accounts(accounts.build().unwrap());
    let logins = layer.login_service::<Body>();
    let pages = Router::new()
        .route("/me", routing::get(async || "me"))
        .layer(layer);
    let app: Router = Router::new()
        .nest("/{account}", pages)
        .fallback_service(logins);
    for (uri, status) in [
        ("/wx1/wechat/login", 302),
        ("/wx1/me", 401),
        ("/wx2/me", 404),
        ("/wx2/wechat/login", 404),
        ("/", 404),
    ] {
        let request = Request::get(uri).body(Body::empty()).unwrap();
        let response = app.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), status, "{uri}");
    }
}
