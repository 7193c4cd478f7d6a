//! Tests of sealed values, and of processes with different sealing keys.

use ::redis::Commands;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::support::log_lines::LogLines;
use super::*;
use crate::error::ErrorKind;
use crate::redis::{SealingKeys, SealingMode};

/// Returns one sealing key for each letter. The first key seals new values.
pub(super) fn sealing_keys(letters: &str) -> SealingKeys {
    let keys = letters.bytes().map(|letter| STANDARD.encode([letter; 32]));
    SealingKeys::from_base64(&keys.collect::<Vec<_>>().join(",")).unwrap()
}

pub(super) async fn connect_sealed(
    server: &RedisServer,
    layout: Layout,
    keys: SealingKeys,
) -> RedisStore {
    let builder = RedisStore::builder(&server.url()).layout(layout);
    builder.sealing(keys).connect().await.unwrap()
}

pub(super) async fn start_sealed_stores() -> (RedisServer, [RedisStore; 2]) {
    let server = RedisServer::start();
    let stores = [
        connect_sealed(&server, Layout::Hashes, sealing_keys("a")).await,
        connect_sealed(&server, Layout::Keys, sealing_keys("a")).await,
    ];
    (server, stores)
}

/// Connects with one sealing key for each letter, or without keys if there are no letters. Empties
/// the registry of sealing keys while it connects, as if no value had been sealed yet.
pub(super) async fn connect_without_registry(server: &RedisServer, letters: &str) -> RedisStore {
    let mut connection = server.connection();
    let registered: Vec<(String, String)> = connection.hgetall("wechat:sealing").unwrap();
    let _: () = connection.del("wechat:sealing").unwrap();
    let store = match letters {
        "" => connect_redis(server, Layout::Hashes).await,
        letters => connect_sealed(server, Layout::Hashes, sealing_keys(letters)).await,
    };
    let _: () = connection.del("wechat:sealing").unwrap();
    let _: () = connection
        .hset_multiple("wechat:sealing", &registered)
        .unwrap();
    store
}

/// Returns the values of all string keys and hash fields of a server.
fn all_values(server: &RedisServer) -> Vec<String> {
    let mut connection = server.connection();
    let keys: Vec<String> = connection.keys("*").unwrap();
    let mut values = Vec::new();
    for key in keys {
        let kind: String = ::redis::cmd("TYPE")
            .arg(&key)
            .query(&mut connection)
            .unwrap();
        match kind.as_str() {
            "hash" => values.extend(connection.hvals::<_, Vec<String>>(&key).unwrap()),
            _ => values.push(connection.get(&key).unwrap()),
        }
    }
    values
}

#[tokio::test]
async fn sealed_stores_write_no_plain_token() {
    let server = RedisServer::start();
    for layout in [Layout::Hashes, Layout::Keys] {
        let store = connect_sealed(&server, layout, sealing_keys("a")).await;
        for kind in CredentialKind::ALL {
            let slot = slot(kind, if kind.belongs_to_account() { "" } else { "oA" });
            let record = record(kind, "plain-text");
            store.overwrite(&slot, &record).await.unwrap();
            assert_eq!(store.load(&slot).await.unwrap().record, record);
        }
    }
    let values = all_values(&server);
    let sealed = values.iter().filter(|value| value.starts_with("#0#s1#"));
    // The hash layout has four sealed values: two of a user, an account token and a ticket. The key
    // layout has three: a record, an account token and a ticket. Both layouts share the keys of a
    // snapshot user and of a component token.
    assert_eq!(sealed.count(), 4 + 3 + 2);
    for value in &values {
        assert!(
            !value.contains("plain-text") && !value.contains("refresh"),
            "{value}"
        );
    }
}

#[tokio::test]
async fn responses_of_suspended_exchanges_are_sealed() {
    let (server, [store, _]) = start_sealed_stores().await;
    let (owner, app) = (LeaseOwner::unique(), AppId::new("wx1").unwrap());
    let (code, other) = (
        LoginCodeKey::new(&app, "code"),
        LoginCodeKey::new(&app, "other"),
    );
    let response = PendingResponse::new("plain-text".to_owned().into());
    let short = Duration::from_millis(20);
    let suspension = Suspension {
        outcome: "failed",
        outcome_ttl: short,
        response: &response,
        response_ttl: LEASE,
    };
    store
        .suspend_code(&code, &owner, &suspension)
        .await
        .unwrap();
    assert!(
        all_values(&server)
            .iter()
            .all(|value| !value.contains("plain-text"))
    );
    tokio::time::sleep(short * 2).await;
    // A process without the key treats the response as missing, and so does every process if the
    // value was copied to another code.
    let unkeyed = connect_without_registry(&server, "b").await;
    let theirs = LeaseOwner::unique();
    let result = unkeyed.acquire_code(&code, &theirs, LEASE).await.unwrap();
    assert_eq!(result, CodeLeaseResult::Acquired);
    assert!(unkeyed.release_code(&code, &theirs).await.unwrap());
    let mut redis = server.connection();
    let key =
        |code: &LoginCodeKey| format!("wechat:wx1:response:{{wechat:wx1:code:{}}}", code.hash);
    let value: String = redis.get(key(&code)).unwrap();
    assert!(value.starts_with("#0#s1#"), "{value}");
    let _: () = redis.set(key(&other), value).unwrap();
    let result = store.acquire_code(&other, &owner, LEASE).await.unwrap();
    assert_eq!(result, CodeLeaseResult::Acquired);
    let result = store.acquire_code(&code, &owner, LEASE).await.unwrap();
    assert_eq!(result, CodeLeaseResult::Resumed(response));
}

#[tokio::test]
async fn a_value_copied_to_another_user_does_not_open() {
    let (server, [hashes, keys]) = start_sealed_stores().await;
    let (user, attacker) = (
        slot(CredentialKind::User, "oUser"),
        slot(CredentialKind::User, "oAttacker"),
    );
    for store in [&hashes, &keys] {
        store
            .overwrite(&user, &record(CredentialKind::User, "t"))
            .await
            .unwrap();
    }
    let mut redis = server.connection();
    let (access, refresh) = ("user.wxUserAccessToken", "user.wxUserRefreshToken");
    for hash in [access, refresh] {
        let value: String = redis.hget(hash, "oUser").unwrap();
        let _: () = redis.hset(hash, "oAttacker", value).unwrap();
    }
    let value: String = redis.get("wechat:wx1:user:oUser").unwrap();
    let _: () = redis.set("wechat:wx1:user:oAttacker", &value).unwrap();
    for store in [&hashes, &keys] {
        assert!(store.load(&attacker).await.unwrap().record.is_empty());
        assert!(!store.load(&user).await.unwrap().record.is_empty());
    }
    // Copies in other places do not open: a refresh token in the hash of access tokens, and a
    // user's record in a snapshot user's key.
    let refresh_value: String = redis.hget(refresh, "oUser").unwrap();
    let _: () = redis.hset(access, "oUser", refresh_value).unwrap();
    assert!(hashes.load(&user).await.unwrap().record.token.is_none());
    let _: () = redis.set("wechat:wx1:snapshot:oUser", &value).unwrap();
    let snapshot = slot(CredentialKind::SnapshotUser, "oUser");
    assert!(keys.load(&snapshot).await.unwrap().record.is_empty());
}

#[tokio::test]
async fn processes_with_both_orders_of_keys_run_together() {
    let server = RedisServer::start();
    let slot = slot(CredentialKind::User, "oA");
    for layout in [Layout::Hashes, Layout::Keys] {
        let mut redis = server.connection();
        let _: () = redis.del("wechat:sealing").unwrap();
        let first = connect_sealed(&server, layout, sealing_keys("a")).await;
        first
            .overwrite(&slot, &record(CredentialKind::User, "t1"))
            .await
            .unwrap();
        let (before, after) = (
            connect_sealed(&server, layout, sealing_keys("ab")).await,
            connect_sealed(&server, layout, sealing_keys("ba")).await,
        );
        for (writer, token) in [
            (&before, "t2"),
            (&after, "t3"),
            (&before, "t4"),
            (&after, "t5"),
        ] {
            let expected = writer.load(&slot).await.unwrap().expected;
            let owner = LeaseOwner::unique();
            let result = writer
                .acquire_lease(&slot, &expected, &owner, LEASE)
                .await
                .unwrap();
            assert!(matches!(result, LeaseResult::Acquired));
            let newer = record(CredentialKind::User, token);
            let commit = writer
                .commit(&slot, &expected, &newer, &owner)
                .await
                .unwrap();
            assert!(matches!(commit, CommitResult::Committed));
            for reader in [&before, &after] {
                assert_eq!(reader.load(&slot).await.unwrap().record, newer);
            }
        }
        // All values are now sealed with the new key, so the old key can be removed.
        let _: () = redis
            .hdel(
                "wechat:sealing",
                sealing_keys("a").ids().collect::<Vec<_>>(),
            )
            .unwrap();
        let last = connect_sealed(&server, layout, sealing_keys("b")).await;
        assert!(!last.load(&slot).await.unwrap().record.is_empty());
    }
}

#[tokio::test]
async fn plain_values_are_read_until_sealing_is_required() {
    for layout in [Layout::Hashes, Layout::Keys] {
        let server = RedisServer::start();
        let opening =
            connect_sealed(&server, layout, sealing_keys("a").mode(SealingMode::Open)).await;
        let plain = slot(CredentialKind::User, "oPlain");
        opening
            .overwrite(&plain, &record(CredentialKind::User, "t1"))
            .await
            .unwrap();
        assert!(
            all_values(&server)
                .iter()
                .any(|value| value.contains("t1#"))
        );
        let sealing = connect_sealed(&server, layout, sealing_keys("a")).await;
        let secret = slot(CredentialKind::User, "oSealed");
        sealing
            .overwrite(&secret, &record(CredentialKind::User, "t2"))
            .await
            .unwrap();
        for (store, slot) in [(&opening, &secret), (&sealing, &plain)] {
            assert!(!store.load(slot).await.unwrap().record.is_empty());
        }
        let strict = connect_sealed(
            &server,
            layout,
            sealing_keys("a").mode(SealingMode::Require),
        )
        .await;
        assert!(strict.load(&plain).await.unwrap().record.is_empty());
        assert!(!strict.load(&secret).await.unwrap().record.is_empty());
        // A renewal seals a plain value.
        let stored = sealing.load(&plain).await.unwrap();
        let owner = LeaseOwner::unique();
        let commit = sealing
            .commit(
                &plain,
                &stored.expected,
                &record(CredentialKind::User, "t3"),
                &owner,
            )
            .await;
        assert!(matches!(commit.unwrap(), CommitResult::Committed));
        assert!(!strict.load(&plain).await.unwrap().record.is_empty());
    }
}

/// A process without the key of a value neither renews nor deletes it.
#[tokio::test]
async fn without_the_key_only_a_login_replaces_a_value() {
    for other_keys in ["b", ""] {
        let server = RedisServer::start();
        let ours = connect_sealed(&server, Layout::Hashes, sealing_keys("a")).await;
        let other = connect_without_registry(&server, other_keys).await;
        for kind in [CredentialKind::User, CredentialKind::AccountToken] {
            let slot = slot(
                kind,
                if kind == CredentialKind::User {
                    "oA"
                } else {
                    ""
                },
            );
            let good = record(kind, "good");
            ours.overwrite(&slot, &good).await.unwrap();
            if kind == CredentialKind::User {
                // The refresh token is plain text, as in the middle of a migration. A process
                // without the key of the access token does not use the refresh token either.
                let due = Clock::system().now().as_millis() + 86_400_000;
                let plain = format!("refresh#{due}#openid=");
                let mut redis = server.connection();
                let _: () = redis.hset("user.wxUserRefreshToken", "oA", plain).unwrap();
            }
            let before = ours.load(&slot).await.unwrap();
            let loaded = other.load(&slot).await.unwrap();
            assert!(loaded.record.is_empty());
            let owner = LeaseOwner::unique();
            let result = other
                .acquire_lease(&slot, &loaded.expected, &owner, LEASE)
                .await;
            let nothing = Record::default();
            let commit = other
                .commit(&slot, &loaded.expected, &nothing, &owner)
                .await;
            for error in [result.unwrap_err(), commit.unwrap_err()] {
                assert_eq!(error.kind(), ErrorKind::Configuration);
                assert!(error.to_string().contains("add that key"), "{error}");
            }
            let after = ours.load(&slot).await.unwrap();
            assert_eq!(after.expected, before.expected);
            assert_eq!(after.record.token, good.token);

            other
                .overwrite(&slot, &record(kind, "login"))
                .await
                .unwrap();
            let login = other.load(&slot).await.unwrap().record;
            assert_eq!(login.token.unwrap().secret.expose(), "login");
        }
    }
}

#[tokio::test]
async fn a_corrupt_sealed_value_is_replaced() {
    let (server, [hashes, _]) = start_sealed_stores().await;
    let slot = slot(CredentialKind::AccountToken, "");
    let mut redis = server.connection();
    for broken in ["#0#s1#", "#0#s1#ID#", "#0#s1#ID#AAAA", "#0#s1#ID#\u{e9}"] {
        let id = sealing_keys("a").ids().next().unwrap();
        let _: () = redis
            .set("sys.wxAccessToken", broken.replace("ID", &id))
            .unwrap();
        let loaded = hashes.load(&slot).await.unwrap();
        assert!(loaded.record.is_empty(), "{broken}");
        let owner = LeaseOwner::unique();
        let result = hashes
            .acquire_lease(&slot, &loaded.expected, &owner, LEASE)
            .await;
        assert!(matches!(result.unwrap(), LeaseResult::Acquired));
        let new = record(CredentialKind::AccountToken, "new");
        let commit = hashes.commit(&slot, &loaded.expected, &new, &owner).await;
        assert!(matches!(commit.unwrap(), CommitResult::Committed));
    }
}

/// A value that is sealed again during a renewal counts as unchanged, so the new tokens are
/// committed (nothing lost).
#[tokio::test]
async fn a_reseal_during_a_renewal_loses_nothing() {
    let (_server, stores) = start_sealed_stores().await;
    for store in &stores {
        let slot = slot(CredentialKind::User, "oA");
        let first = record(CredentialKind::User, "t1");
        store.overwrite(&slot, &first).await.unwrap();
        let expected = store.load(&slot).await.unwrap().expected;
        let owner = LeaseOwner::unique();
        store
            .acquire_lease(&slot, &expected, &owner, LEASE)
            .await
            .unwrap();
        store.overwrite(&slot, &first).await.unwrap();
        assert_ne!(store.load(&slot).await.unwrap().expected, expected);
        let newer = record(CredentialKind::User, "t2");
        let commit = store
            .commit(&slot, &expected, &newer, &owner)
            .await
            .unwrap();
        assert!(matches!(commit, CommitResult::Committed), "{commit:?}");
        assert_eq!(store.load(&slot).await.unwrap().record, newer);
        // A newer record is still a conflict.
        let commit = store
            .commit(&slot, &expected, &first, &owner)
            .await
            .unwrap();
        assert!(matches!(commit, CommitResult::Conflict(stored) if stored.record == newer));
    }
}

#[tokio::test]
async fn connect_fails_without_a_registered_key() {
    let server = RedisServer::start();
    let connect = async |keys: Option<SealingKeys>| {
        let mut builder = RedisStore::builder(&server.url());
        if let Some(keys) = keys {
            builder = builder.sealing(keys);
        }
        builder.connect().await
    };
    // A process that seals no values registers no key.
    connect(Some(sealing_keys("a").mode(SealingMode::Open)))
        .await
        .unwrap();
    connect(None).await.unwrap();
    connect(Some(sealing_keys("a"))).await.unwrap();
    let id = sealing_keys("a").ids().next().unwrap();
    for keys in [
        None,
        Some(sealing_keys("b")),
        Some(sealing_keys("b").mode(SealingMode::Open)),
    ] {
        let error = connect(keys).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration);
        let text = error.to_string();
        assert!(
            text.contains(&id) && text.contains("add the missing key"),
            "{text}"
        );
    }
    connect(Some(sealing_keys("ba"))).await.unwrap();
    // A process with only the old key could not read values that the new key seals.
    assert!(connect(Some(sealing_keys("a"))).await.is_err());
    connect(Some(sealing_keys("ab"))).await.unwrap();
}

#[tokio::test]
async fn missing_key_errors_are_rate_limited() {
    let lines = LogLines::default();
    let subscriber = tracing_subscriber::fmt()
        .with_writer(lines.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let server = RedisServer::start();
    let ours = connect_sealed(&server, Layout::Hashes, sealing_keys("a")).await;
    let other = connect_without_registry(&server, "b").await;
    let started = std::time::Instant::now();
    for user in 0..50 {
        let slot = slot(CredentialKind::User, &format!("o{user}"));
        ours.overwrite(&slot, &record(CredentialKind::User, "t"))
            .await
            .unwrap();
        assert!(other.load(&slot).await.unwrap().record.is_empty());
    }
    let log = lines.text();
    let errors = log
        .lines()
        .filter(|line| line.contains("ERROR") && line.contains("sealed with"));
    let max_lines = 1 + started.elapsed().as_secs() / 10;
    assert!((1..=max_lines as usize).contains(&errors.count()), "{log}");
    assert!(!log.contains("refresh#"), "{log}");
}

#[tokio::test]
async fn sweep_keeps_values_it_cannot_open() {
    let (server, [hashes, _]) = start_sealed_stores().await;
    let app = AppId::new("wx1").unwrap();
    let clock = Clock::shifted();
    let later = RedisStore::builder(&server.url())
        .sealing(sealing_keys("a"))
        .clock(clock.clone());
    let later = later.connect().await.unwrap();
    let other = connect_without_registry(&server, "b").await;
    hashes
        .overwrite(
            &slot(CredentialKind::User, "oA"),
            &record(CredentialKind::User, "t"),
        )
        .await
        .unwrap();
    clock.advance(Duration::from_secs(40 * 86_400));
    assert_eq!(other.sweep(&app, Duration::ZERO).await.unwrap().removed, 0);
    assert_eq!(later.sweep(&app, Duration::ZERO).await.unwrap().removed, 2);
}
