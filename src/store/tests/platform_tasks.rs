//! Tests of the operators' tasks on the secrets of a third-party platform.

use ::redis::Commands;

use super::platform::secret;
use super::platform_values::{TOKEN, capture, raw, refresh_key, store_secret, ticket_key};
use super::sealing::{connect_sealed, connect_without_registry, sealing_keys};
use super::support::log_lines::LogLines;
use super::*;
use crate::clock::Timestamp;
use crate::error::ErrorKind;
use crate::store::admin::{ScanOptions, Summary, migrate, reseal, sweep};

fn options(app: &str, dry_run: bool) -> ScanOptions {
    ScanOptions {
        app: AppId::new(app).unwrap(),
        margin: MARGIN,
        pause: Duration::ZERO,
        dry_run,
    }
}

async fn run_migrate(store: &RedisStore, app: &str) -> Summary {
    migrate(store, &options(app, false), &mut |_| {})
        .await
        .unwrap()
}

async fn run_reseal(store: &RedisStore, app: &str) -> Summary {
    reseal(store, &options(app, false), false, &mut |_| {})
        .await
        .unwrap()
}

/// Authorizes accounts at the platform `wxc`, and stores the platform's ticket.
async fn authorize(store: &RedisStore, accounts: &[&str]) {
    let component = AppId::new("wxc").unwrap();
    store_secret(store, &ticket_key("wxc"), &secret("ticket@@@1", 5)).await;
    for account in accounts {
        let entry = Authorization {
            state: AuthorizationState::Authorized,
            since: Timestamp::from_millis(5),
        };
        let account = AppId::new(*account).unwrap();
        let recorded = store.record_authorization(&component, &account, entry);
        assert!(recorded.await.unwrap());
    }
}

async fn connect(server: &RedisServer, layout: Layout) -> RedisStore {
    let names = RedisNames::default().with_appid();
    let builder = RedisStore::builder(&server.url()).names(names);
    builder.layout(layout).connect().await.unwrap()
}

async fn loaded(store: &RedisStore, account: &str) -> Option<DurableSecret> {
    let stored = store.load_secret(&refresh_key(account)).await.unwrap();
    stored.value
}

#[tokio::test]
async fn migration_copies_the_refresh_tokens_of_all_accounts() {
    let server = RedisServer::start();
    let hashes = connect(&server, Layout::Hashes).await;
    let keys = connect(&server, Layout::Keys).await;
    let (one, two) = (secret("one@@@1", 5), secret("two@@@1", 5));
    for (from, to) in [(&hashes, &keys), (&keys, &hashes)] {
        authorize(from, &["wx1", "wx2", "wx3"]).await;
        store_secret(from, &refresh_key("wx1"), &one).await;
        store_secret(from, &refresh_key("wx2"), &two).await;
        let dry = migrate(from, &options("wxc", true), &mut |_| {}).await;
        assert_eq!(dry.unwrap().written, 2);
        assert_eq!(loaded(to, "wx1").await, None, "a dry run writes nothing");
        assert_eq!(run_migrate(from, "wxc").await.written, 2);
        let again = run_migrate(from, "wxc").await;
        assert_eq!((again.written, again.removed), (0, 0));
        assert_eq!(loaded(to, "wx1").await.as_ref(), Some(&one));
        assert_eq!(loaded(to, "wx2").await.as_ref(), Some(&two));
        assert_eq!(loaded(from, "wx1").await.as_ref(), Some(&one));
        // A newer token at the destination stays, and an older one is replaced.
        let newer = secret("newer@@@1", 9);
        store_secret(to, &refresh_key("wx1"), &newer).await;
        store_secret(to, &refresh_key("wx2"), &secret("older@@@1", 1)).await;
        let summary = run_migrate(from, "wxc").await;
        assert_eq!((summary.written, summary.newer), (1, 1));
        assert_eq!(loaded(to, "wx1").await, Some(newer));
        assert_eq!(loaded(to, "wx2").await.as_ref(), Some(&two));
        // A task on the account itself copies its token too, and keeps a token without a source.
        store_secret(from, &refresh_key("wx1"), &secret("one@@@2", 10)).await;
        assert_eq!(run_migrate(from, "wx1").await.written, 1);
        store_secret(to, &refresh_key("wx3"), &one).await;
        assert_eq!(run_migrate(from, "wx3").await.removed, 0);
        assert_eq!(run_migrate(from, "wxc").await.removed, 0);
        assert_eq!(loaded(to, "wx3").await.as_ref(), Some(&one));
        let () = ::redis::cmd("FLUSHDB")
            .query(&mut server.connection())
            .unwrap();
    }
}

/// A task that looks under other names than the services finds nothing. It must not report that
/// everything is done, nor drop the mark of a key that is in use.
#[tokio::test]
async fn tasks_with_names_without_appid_are_refused() {
    let server = RedisServer::start();
    let names = RedisNames::default().with_appid();
    let builder = RedisStore::builder(&server.url()).names(names);
    let services = builder.sealing(sealing_keys("a")).connect().await.unwrap();
    authorize(&services, &["wx1"]).await;
    store_secret(&services, &refresh_key("wx1"), &secret(TOKEN, 5)).await;
    let mut marks = ::redis::cmd("HLEN");
    marks.arg("wechat:sealing");
    let marks = || marks.query::<u64>(&mut server.connection()).unwrap();
    let published = connect_sealed(&server, Layout::Hashes, sealing_keys("ba")).await;
    let before = marks();
    for (app, says) in [
        ("wxc", "several accounts share this Redis"),
        ("wx1", "Redis holds sys.wxRefreshToken.wx1"),
    ] {
        let options = options(app, false);
        for refused in [
            migrate(&published, &options, &mut |_| {}).await,
            reseal(&published, &options, false, &mut |_| {}).await,
        ] {
            let error = refused.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Configuration);
            assert!(error.to_string().contains(says), "{error}");
        }
    }
    assert_eq!(marks(), before);
    assert_eq!(run_reseal(&published, "wx2").await.scanned, 0);
    assert_eq!(marks(), 1);
}

#[tokio::test]
async fn unreadable_refresh_tokens_are_left_as_they_are() {
    let server = RedisServer::start();
    let lines = LogLines::default();
    let _capture = capture(&lines);
    let hashes = connect(&server, Layout::Hashes).await;
    authorize(&hashes, &["wx1", "wx2", "wx3"]).await;
    let mut connection = server.connection();
    let () = connection
        .set("sys.wxRefreshToken.wx1", "two words")
        .unwrap();
    let () = connection.lpush("sys.wxRefreshToken.wx2", "list").unwrap();
    store_secret(&hashes, &refresh_key("wx3"), &secret(TOKEN, 5)).await;
    let target = "wechat:wx3:account:refresh_token";
    let () = connection.lpush(target, "list").unwrap();
    let summary = run_migrate(&hashes, "wxc").await;
    assert_eq!((summary.written, summary.unreadable), (0, 3));
    assert!(!lines.text().contains(TOKEN));
}

#[tokio::test]
async fn resealing_covers_the_secrets_of_a_platform() {
    let server = RedisServer::start();
    for layout in [Layout::Hashes, Layout::Keys] {
        let plain = connect(&server, layout).await;
        authorize(&plain, &["wx1", "wx2"]).await;
        let token = secret(TOKEN, 5);
        store_secret(&plain, &refresh_key("wx1"), &token).await;
        // As another program writes it.
        let foreign = match layout {
            Layout::Hashes => "sys.wxRefreshToken.wx2",
            Layout::Keys => "wechat:wx2:account:refresh_token",
        };
        let () = server.connection().set_ex(foreign, TOKEN, 1_000).unwrap();
        let mut account = slot(CredentialKind::AccountToken, "");
        account.key.app = AppId::new("wx1").unwrap();
        let record = record(CredentialKind::AccountToken, "account");
        plain.overwrite(&account, &record).await.unwrap();

        let names = RedisNames::default().with_appid();
        let connect_with = async |letters: &str| {
            let builder = RedisStore::builder(&server.url()).names(names.clone());
            let builder = builder.layout(layout).sealing(sealing_keys(letters));
            builder.connect().await.unwrap()
        };
        for (letters, last) in [("a", "a"), ("ba", "b")] {
            let sealed = connect_with(letters).await;
            let dry = reseal(&sealed, &options("wxc", true), false, &mut |_| {}).await;
            assert_eq!(dry.unwrap().written, 4);
            // The ticket, two refresh tokens and the token of an account.
            let summary = run_reseal(&sealed, "wxc").await;
            assert_eq!((summary.written, summary.unreadable), (4, 0), "{layout:?}");
            let again = run_reseal(&sealed, "wxc").await;
            assert_eq!((again.written, again.unchanged), (0, 4));
            assert!(raw(&server, foreign).unwrap().starts_with("#0#s1#"));
            let ttl: i64 = server.connection().ttl(foreign).unwrap();
            assert_eq!(ttl, -1);
            // The old key has left the registry, so a process with the new key alone starts.
            let only = connect_with(last).await;
            assert_eq!(loaded(&only, "wx1").await.as_ref(), Some(&token));
            assert_eq!(loaded(&only, "wx2").await, Some(secret(TOKEN, 0)));
            let ticket = only.load_secret(&ticket_key("wxc")).await.unwrap();
            assert_eq!(ticket.value, Some(secret("ticket@@@1", 5)));
            assert_eq!(only.load(&account).await.unwrap().record, record);
        }
        let () = ::redis::cmd("FLUSHDB")
            .query(&mut server.connection())
            .unwrap();
    }
}

/// A Java service may keep a refresh token under the published name for itself.
#[tokio::test]
async fn resealing_one_account_leaves_foreign_tokens_alone() {
    let server = RedisServer::start();
    let sealed = connect_sealed(&server, Layout::Hashes, sealing_keys("a")).await;
    let name = "sys.wxRefreshToken";
    let mut connection = server.connection();
    for value in [TOKEN.to_owned(), format!("{TOKEN}#1700000000000")] {
        let () = connection.set(name, &value).unwrap();
        assert_eq!(run_reseal(&sealed, "wx1").await.written, 0);
        assert_eq!(raw(&server, name), Some(value));
    }
    let plain = connect_without_registry(&server, "").await;
    store_secret(&plain, &refresh_key("wx1"), &secret(TOKEN, 5)).await;
    assert_eq!(run_reseal(&sealed, "wx1").await.written, 1);
    assert!(raw(&server, name).unwrap().starts_with("#0#s1#"));
    assert_eq!(loaded(&sealed, "wx1").await, Some(secret(TOKEN, 5)));
}

/// The task `sweep` removes expired users, and nothing of a platform.
#[tokio::test]
async fn the_sweep_of_the_program_keeps_secrets() {
    let server = RedisServer::start();
    let store = connect(&server, Layout::Hashes).await;
    authorize(&store, &["wx1"]).await;
    store_secret(&store, &refresh_key("wx1"), &secret(TOKEN, 0)).await;
    for app in ["wxc", "wx1"] {
        let report = sweep(&store, &options(app, false), &mut |_| {}).await;
        assert_eq!(report.unwrap().removed, 0);
    }
    assert_eq!(loaded(&store, "wx1").await, Some(secret(TOKEN, 0)));
    let ticket = store.load_secret(&ticket_key("wxc")).await.unwrap();
    assert!(ticket.value.is_some());
}
