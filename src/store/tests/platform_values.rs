//! Tests of what a third-party platform keeps in Redis: names, values, TTLs, and the values of other
//! programs.

use ::redis::Commands;

use super::platform::secret;
use super::support::log_lines::LogLines;
use super::*;

pub(super) const TOKEN: &str = "refreshtoken@@@abc";

pub(super) fn refresh_key(account: &str) -> DurableSecretKey {
    let account = AppId::new(account).unwrap();
    DurableSecretKey::RefreshToken { account }
}

pub(super) fn ticket_key(component: &str) -> DurableSecretKey {
    let component = AppId::new(component).unwrap();
    DurableSecretKey::VerifyTicket { component }
}

/// Returns the key of a secret with the default names.
pub(super) fn name_of(layout: Layout, key: &DurableSecretKey) -> String {
    match (key, layout) {
        (DurableSecretKey::VerifyTicket { component }, _) => {
            format!("wechat:{component}:platform:ticket")
        }
        (DurableSecretKey::RefreshToken { .. }, Layout::Hashes) => "sys.wxRefreshToken".to_owned(),
        (DurableSecretKey::RefreshToken { account }, Layout::Keys) => {
            format!("wechat:{account}:account:refresh_token")
        }
    }
}

/// Stores a secret, also in place of another one.
pub(super) async fn store_secret(store: &dyn Store, key: &DurableSecretKey, value: &DurableSecret) {
    let expected = store.load_secret(key).await.unwrap().expected;
    let replaced = store.replace_secret(key, &expected, Some(value)).await;
    assert!(replaced.unwrap());
}

pub(super) fn raw(server: &RedisServer, key: &str) -> Option<String> {
    server.connection().get(key).unwrap()
}

/// Writes log lines to `lines` while the guard is in scope.
pub(super) fn capture(lines: &LogLines) -> tracing::subscriber::DefaultGuard {
    let subscriber = tracing_subscriber::fmt()
        .with_writer(lines.clone())
        .with_ansi(false)
        .finish();
    tracing::subscriber::set_default(subscriber)
}

#[tokio::test]
async fn secrets_have_the_documented_names_and_no_ttl() {
    let server = RedisServer::start();
    let hashes = connect_redis(&server, Layout::Hashes).await;
    let keys = connect_redis(&server, Layout::Keys).await;
    let names = RedisNames::default().with_appid();
    let builder = RedisStore::builder(&server.url()).names(names);
    let several = builder.connect().await.unwrap();
    let (refresh, ticket) = (refresh_key("wx1"), ticket_key("wxc"));
    for (store, refresh_name) in [
        (&hashes, "sys.wxRefreshToken"),
        (&keys, "wechat:wx1:account:refresh_token"),
        (&several, "sys.wxRefreshToken.wx1"),
    ] {
        for (key, name) in [
            (&refresh, refresh_name),
            (&ticket, "wechat:wxc:platform:ticket"),
        ] {
            store_secret(store, key, &secret(TOKEN, 1_700_000_000_123)).await;
            let value = raw(&server, name).unwrap();
            let parts: Vec<&str> = value.split('#').collect();
            assert_eq!((parts[0], parts[2]), (TOKEN, "1700000000123"), "{name}");
            assert_eq!(parts.len(), 3);
            let ttl: i64 = server.connection().ttl(name).unwrap();
            assert_eq!(ttl, -1, "{name}");
        }
    }
}

#[tokio::test]
async fn accounts_are_fields_of_a_hash() {
    let server = RedisServer::start();
    let store = connect_redis(&server, Layout::Hashes).await;
    let (component, account) = (AppId::new("wxc").unwrap(), AppId::new("wx1").unwrap());
    let at = crate::clock::Timestamp::from_millis(1_700_000_000_123);
    let entry = Authorization {
        state: AuthorizationState::Unauthorized,
        since: at,
    };
    let recorded = store.record_authorization(&component, &account, entry);
    assert!(recorded.await.unwrap());
    store.set_listed(&component, at).await.unwrap();
    let mut connection = server.connection();
    let hash = "wechat:wxc:platform:accounts";
    let fields: Vec<(String, String)> = connection.hgetall(hash).unwrap();
    let listed = ("*".to_owned(), "1700000000123".to_owned());
    assert!(fields.contains(&listed), "{fields:?}");
    let stored = ("wx1".to_owned(), "unauthorized#1700000000123".to_owned());
    assert!(fields.contains(&stored), "{fields:?}");
    // Values of another form count as missing, and older than every entry.
    for other in [
        "lost",
        "lost#",
        "lost#99999999999999",
        "Lost#1",
        "gone#1",
        "\u{5f20}",
    ] {
        let () = connection.hset(hash, "wx1", other).unwrap();
        let () = connection.hset(hash, "*", other).unwrap();
        let lookup = store.authorization(&component, &account).await.unwrap();
        assert_eq!(lookup, AuthorizationLookup::default(), "{other}");
        let list = store.authorizations(&component).await.unwrap();
        assert_eq!(list, AuthorizationList::default(), "{other}");
        store.set_listed(&component, at).await.unwrap();
        let recorded = store.record_authorization(&component, &account, entry);
        assert!(recorded.await.unwrap(), "{other}");
        let lookup = store.authorization(&component, &account).await.unwrap();
        assert_eq!((lookup.entry, lookup.listed_at), (Some(entry), Some(at)));
    }
}

#[tokio::test]
async fn a_dual_write_keeps_both_refresh_tokens() {
    let server = RedisServer::start();
    let hashes = connect_redis(&server, Layout::Hashes).await;
    let keys = connect_redis(&server, Layout::Keys).await;
    let from_hashes = connect_dual_write(&server, Layout::Hashes, Layout::Keys).await;
    let from_keys = connect_dual_write(&server, Layout::Keys, Layout::Hashes).await;
    for key in [refresh_key("wx1"), ticket_key("wxc")] {
        for (since, writer) in [(1, &from_hashes), (2, &from_keys)] {
            let value = secret(&format!("t@@@{since}"), since);
            store_secret(writer, &key, &value).await;
            for reader in [&hashes, &keys, &from_hashes, &from_keys] {
                let stored = reader.load_secret(&key).await.unwrap();
                assert_eq!(stored.value.as_ref(), Some(&value), "{key:?}");
            }
        }
        let expected = from_keys.load_secret(&key).await.unwrap().expected;
        assert!(
            from_keys
                .replace_secret(&key, &expected, None)
                .await
                .unwrap()
        );
        for reader in [&hashes, &keys] {
            assert_eq!(reader.load_secret(&key).await.unwrap().value, None);
        }
    }
}

#[tokio::test]
async fn values_of_other_programs_are_read_and_replaced() {
    let server = RedisServer::start();
    let store = connect_redis(&server, Layout::Hashes).await;
    let key = refresh_key("wx1");
    let mut connection = server.connection();
    for (value, since) in [
        (TOKEN.to_owned(), 0),
        (format!("{TOKEN}\n"), 0),
        (format!("{TOKEN}#1600000000000"), 0),
        (format!("{TOKEN}#1600000000000#soon"), 0),
        (format!("{TOKEN}#1600000000000#55#more"), 55),
    ] {
        let () = connection.set("sys.wxRefreshToken", &value).unwrap();
        let stored = store.load_secret(&key).await.unwrap();
        assert_eq!(stored.value, Some(secret(TOKEN, since)), "{value}");
        let next = secret("next@@@1", 99);
        let replaced = store
            .replace_secret(&key, &stored.expected, Some(&next))
            .await;
        assert!(replaced.unwrap());
        // A process whose reply was lost repeats the write of what is stored already.
        let replaced = store
            .replace_secret(&key, &stored.expected, Some(&next))
            .await;
        assert!(replaced.unwrap());
    }
    for empty in ["", "\n"] {
        let () = connection.set("sys.wxRefreshToken", empty).unwrap();
        assert_eq!(store.load_secret(&key).await.unwrap().value, None);
    }
}

#[tokio::test]
async fn unreadable_values_are_replaced_with_a_warning() {
    let server = RedisServer::start();
    let store = connect_redis(&server, Layout::Hashes).await;
    let lines = LogLines::default();
    let _capture = capture(&lines);
    let key = refresh_key("wx1");
    let mut connection = server.connection();
    for (value, reason) in [
        ("secret with blanks#1", "its token holds what no token"),
        (
            "\"refreshtoken@@@quoted\"",
            "a JSON serializer has written it",
        ),
    ] {
        let () = connection.set("sys.wxRefreshToken", value).unwrap();
        let mut stored = StoredSecret::default();
        for _ in 0..3 {
            stored = store.load_secret(&key).await.unwrap();
            assert_eq!(stored.value, None);
        }
        let text = lines.text();
        assert_eq!(text.matches(reason).count(), 1, "{text}");
        let next = secret(TOKEN, 1);
        assert!(
            !store
                .replace_secret(&key, &Expected::default(), Some(&next))
                .await
                .unwrap()
        );
        assert_eq!(raw(&server, "sys.wxRefreshToken").as_deref(), Some(value));
        assert!(
            store
                .replace_secret(&key, &stored.expected, Some(&next))
                .await
                .unwrap()
        );
    }
    let text = lines.text();
    let replaced = "replaced a value that could not be read";
    assert_eq!(text.matches(replaced).count(), 2, "{text}");
    assert!(
        !text.contains("blanks") && !text.contains("quoted"),
        "{text}"
    );
}

#[tokio::test]
async fn the_ttl_of_another_program_is_removed() {
    let server = RedisServer::start();
    let lines = LogLines::default();
    let _capture = capture(&lines);
    let from_hashes = connect_dual_write(&server, Layout::Hashes, Layout::Keys).await;
    let key = refresh_key("wx1");
    let names = ["sys.wxRefreshToken", "wechat:wx1:account:refresh_token"];
    let mut connection = server.connection();
    let has_ttl = || {
        names.map(|name| {
            let ttl: i64 = server.connection().ttl(name).unwrap();
            ttl > 0
        })
    };
    // As WxJava writes it.
    for name in names {
        let () = connection.set_ex(name, TOKEN, 2_147_483_647).unwrap();
    }
    let stored = from_hashes.load_secret(&key).await.unwrap();
    assert_eq!(stored.value, Some(secret(TOKEN, 0)));
    assert_eq!(has_ttl(), [false; 2]);
    for name in names {
        let () = connection.expire(name, 1_000).unwrap();
    }
    let next = secret("next@@@1", 1);
    let replaced = from_hashes.replace_secret(&key, &stored.expected, Some(&next));
    assert!(replaced.await.unwrap());
    assert_eq!(has_ttl(), [false; 2]);
    let text = lines.text();
    assert_eq!(text.matches("removed the TTL").count(), 2, "{text}");
    assert!(!text.contains(TOKEN), "{text}");
}

/// A read of a value of this crate is one command, and no write. While the server does not reply,
/// the circuit breaker rejects the read at once.
#[tokio::test]
async fn a_read_is_one_command_behind_the_circuit_breaker() {
    let server = RedisServer::start();
    let builder = RedisStore::builder(&server.url()).layout(Layout::Keys);
    let builder = builder.command_timeout(Duration::from_millis(500));
    let store = builder.connect().await.unwrap();
    let key = refresh_key("wx1");
    store_secret(&store, &key, &secret(TOKEN, 1)).await;
    let before = server.calls("get");
    for _ in 0..3 {
        let stored = store.load_secret(&key).await.unwrap();
        assert_eq!(stored.value, Some(secret(TOKEN, 1)));
    }
    assert_eq!(server.calls("get"), before + 3);
    assert_eq!(server.calls("persist"), 0);
    server.freeze(true);
    let mut fastest = Duration::MAX;
    for _ in 0..20 {
        let started = std::time::Instant::now();
        assert!(store.load_secret(&key).await.is_err());
        fastest = fastest.min(started.elapsed());
    }
    server.freeze(false);
    assert!(fastest < Duration::from_millis(100), "{fastest:?}");
}

#[tokio::test]
async fn a_sweep_keeps_secrets_and_accounts() {
    let server = RedisServer::start();
    let store = connect_redis(&server, Layout::Hashes).await;
    let app = AppId::new("wx1").unwrap();
    for key in [refresh_key("wx1"), ticket_key("wx1")] {
        store_secret(&store, &key, &secret(TOKEN, 0)).await;
    }
    let entry = Authorization {
        state: AuthorizationState::Lost,
        since: crate::clock::Timestamp::from_millis(0),
    };
    let recorded = store.record_authorization(&app, &app, entry);
    assert!(recorded.await.unwrap());
    store.sweep(&app, Duration::ZERO).await.unwrap();
    for key in [refresh_key("wx1"), ticket_key("wx1")] {
        let stored = store.load_secret(&key).await.unwrap();
        assert_eq!(stored.value, Some(secret(TOKEN, 0)));
    }
    let lookup = store.authorization(&app, &app).await.unwrap();
    assert_eq!(lookup.entry, Some(entry));
}
