//! What lies sealed in Redis, and who can read it.

use ::redis::Commands;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::support::log_lines::LogLines;
use super::*;
use crate::redis::{SealingKeys, SealingMode};

/// A ring of keys that are named by letters.
fn ring(letters: &str) -> SealingKeys {
    let keys = letters.bytes().map(|letter| STANDARD.encode([letter; 32]));
    SealingKeys::from_base64(&keys.collect::<Vec<_>>().join(",")).unwrap()
}

async fn connect_sealed(server: &RedisServer, layout: Layout, keys: SealingKeys) -> RedisStore {
    let builder = RedisStore::builder(&server.url()).layout(layout);
    builder.sealing(keys).connect().await.unwrap()
}

pub(super) async fn start_sealed_stores() -> (RedisServer, [RedisStore; 2]) {
    let server = RedisServer::start();
    let stores = [
        connect_sealed(&server, Layout::Hashes, ring("a")).await,
        connect_sealed(&server, Layout::Keys, ring("a")).await,
    ];
    (server, stores)
}

/// As a process that connected before anybody sealed: it has no mark to look at.
async fn connect_without_registry(server: &RedisServer, other: &str) -> RedisStore {
    let mut connection = server.connection();
    let marks: Vec<(String, String)> = connection.hgetall("wechat:sealing").unwrap();
    let _: () = connection.del("wechat:sealing").unwrap();
    let store = match other {
        "" => connect_redis(server, Layout::Hashes).await,
        letters => connect_sealed(server, Layout::Hashes, ring(letters)).await,
    };
    let _: () = connection.del("wechat:sealing").unwrap();
    let _: () = connection.hset_multiple("wechat:sealing", &marks).unwrap();
    store
}

/// All the texts that lie in a server.
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
        let store = connect_sealed(&server, layout, ring("a")).await;
        for kind in [
            CredentialKind::User,
            CredentialKind::SnapshotUser,
            CredentialKind::AccountToken,
            CredentialKind::JsapiTicket,
        ] {
            let slot = slot(kind, if kind.belongs_to_account() { "" } else { "oA" });
            let record = record(kind, "legible");
            store.overwrite(&slot, &record).await.unwrap();
            assert_eq!(store.load(&slot).await.unwrap().record, record);
        }
    }
    let values = all_values(&server);
    let sealed = values.iter().filter(|value| value.starts_with("#0#s1#"));
    // Two halves of a pair, an account token and a ticket; a record and the two; the virtual user,
    // who lies in one place.
    assert_eq!(sealed.count(), 4 + 3 + 1);
    for value in &values {
        assert!(
            !value.contains("legible") && !value.contains("refresh"),
            "{value}"
        );
    }
}

#[tokio::test]
async fn a_copied_value_does_not_open() {
    let (server, [hashes, keys]) = start_sealed_stores().await;
    let (victim, thief) = (
        slot(CredentialKind::User, "oVictim"),
        slot(CredentialKind::User, "oThief"),
    );
    for store in [&hashes, &keys] {
        store
            .overwrite(&victim, &record(CredentialKind::User, "t"))
            .await
            .unwrap();
    }
    let mut redis = server.connection();
    let (access, refresh) = ("user.wxUserAccessToken", "user.wxUserRefreshToken");
    for hash in [access, refresh] {
        let value: String = redis.hget(hash, "oVictim").unwrap();
        let _: () = redis.hset(hash, "oThief", value).unwrap();
    }
    let value: String = redis.get("wechat:wx1:user:oVictim").unwrap();
    let _: () = redis.set("wechat:wx1:user:oThief", &value).unwrap();
    for store in [&hashes, &keys] {
        assert!(store.load(&thief).await.unwrap().record.is_empty());
        assert!(!store.load(&victim).await.unwrap().record.is_empty());
    }
    // One half of the victim's own pair in the place of the other; a record as a virtual user's.
    let value_of_refresh: String = redis.hget(refresh, "oVictim").unwrap();
    let _: () = redis.hset(access, "oVictim", value_of_refresh).unwrap();
    assert!(hashes.load(&victim).await.unwrap().record.token.is_none());
    let _: () = redis.set("wechat:wx1:snapshot:oVictim", &value).unwrap();
    let snapshot = slot(CredentialKind::SnapshotUser, "oVictim");
    assert!(keys.load(&snapshot).await.unwrap().record.is_empty());
}

#[tokio::test]
async fn keys_rotate_while_both_orders_run() {
    let server = RedisServer::start();
    let slot = slot(CredentialKind::User, "oA");
    for layout in [Layout::Hashes, Layout::Keys] {
        let mut redis = server.connection();
        let _: () = redis.del("wechat:sealing").unwrap();
        let first = connect_sealed(&server, layout, ring("a")).await;
        first
            .overwrite(&slot, &record(CredentialKind::User, "t1"))
            .await
            .unwrap();
        let (before, after) = (
            connect_sealed(&server, layout, ring("ab")).await,
            connect_sealed(&server, layout, ring("ba")).await,
        );
        for (writer, token) in [
            (&before, "t2"),
            (&after, "t3"),
            (&before, "t4"),
            (&after, "t5"),
        ] {
            let witness = writer.load(&slot).await.unwrap().expected;
            let owner = LeaseOwner::unique();
            let claim = writer
                .acquire_lease(&slot, &witness, &owner, LEASE)
                .await
                .unwrap();
            assert!(matches!(claim, LeaseResult::Acquired));
            let newer = record(CredentialKind::User, token);
            let commit = writer
                .commit(&slot, &witness, &newer, &owner)
                .await
                .unwrap();
            assert!(matches!(commit, CommitResult::Committed));
            for reader in [&before, &after] {
                assert_eq!(reader.load(&slot).await.unwrap().record, newer);
            }
        }
        // All is sealed with the new key by now; the old one may go.
        let _: () = redis
            .hdel("wechat:sealing", ring("a").ids().collect::<Vec<_>>())
            .unwrap();
        let last = connect_sealed(&server, layout, ring("b")).await;
        assert!(!last.load(&slot).await.unwrap().record.is_empty());
    }
}

#[tokio::test]
async fn plain_values_are_read_until_sealing_is_required() {
    for layout in [Layout::Hashes, Layout::Keys] {
        let server = RedisServer::start();
        let opening = connect_sealed(&server, layout, ring("a").mode(SealingMode::Open)).await;
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
        let sealing = connect_sealed(&server, layout, ring("a")).await;
        let secret = slot(CredentialKind::User, "oSealed");
        sealing
            .overwrite(&secret, &record(CredentialKind::User, "t2"))
            .await
            .unwrap();
        for (store, slot) in [(&opening, &secret), (&sealing, &plain)] {
            assert!(!store.load(slot).await.unwrap().record.is_empty());
        }
        let strict = connect_sealed(&server, layout, ring("a").mode(SealingMode::Require)).await;
        assert!(strict.load(&plain).await.unwrap().record.is_empty());
        assert!(!strict.load(&secret).await.unwrap().record.is_empty());
        // A renewal seals what was plain.
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

/// A process with the wrong ring, or with none, leaves alone what others can read.
#[tokio::test]
async fn without_the_key_only_a_login_replaces_a_value() {
    for ring_of_the_other in ["b", ""] {
        let server = RedisServer::start();
        let ours = connect_sealed(&server, Layout::Hashes, ring("a")).await;
        let other = connect_without_registry(&server, ring_of_the_other).await;
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
                // Half of it is plain, as in the middle of a migration: not even that is used.
                let due = Clock::system().now().as_millis() + 86_400_000;
                let plain = format!("refresh#{due}#openid=");
                let mut redis = server.connection();
                let _: () = redis.hset("user.wxUserRefreshToken", "oA", plain).unwrap();
            }
            let before = ours.load(&slot).await.unwrap();
            let seen = other.load(&slot).await.unwrap();
            assert!(seen.record.is_empty());
            let owner = LeaseOwner::unique();
            let claim = other
                .acquire_lease(&slot, &seen.expected, &owner, LEASE)
                .await;
            let nothing = Record::default();
            let commit = other.commit(&slot, &seen.expected, &nothing, &owner).await;
            for error in [claim.unwrap_err(), commit.unwrap_err()] {
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
        let id = ring("a").ids().next().unwrap();
        let _: () = redis
            .set("sys.wxAccessToken", broken.replace("ID", &id))
            .unwrap();
        let seen = hashes.load(&slot).await.unwrap();
        assert!(seen.record.is_empty(), "{broken}");
        let owner = LeaseOwner::unique();
        let claim = hashes
            .acquire_lease(&slot, &seen.expected, &owner, LEASE)
            .await;
        assert!(matches!(claim.unwrap(), LeaseResult::Acquired));
        let new = record(CredentialKind::AccountToken, "new");
        let commit = hashes.commit(&slot, &seen.expected, &new, &owner).await;
        assert!(matches!(commit.unwrap(), CommitResult::Committed));
    }
}

/// R3: a value that is sealed anew during a renewal is the same value; what WeChat has granted
/// from it is not thrown away.
#[tokio::test]
async fn a_reseal_during_a_renewal_loses_nothing() {
    let (_server, stores) = start_sealed_stores().await;
    for store in &stores {
        let slot = slot(CredentialKind::User, "oA");
        let first = record(CredentialKind::User, "t1");
        store.overwrite(&slot, &first).await.unwrap();
        let witness = store.load(&slot).await.unwrap().expected;
        let owner = LeaseOwner::unique();
        store
            .acquire_lease(&slot, &witness, &owner, LEASE)
            .await
            .unwrap();
        store.overwrite(&slot, &first).await.unwrap();
        assert_ne!(store.load(&slot).await.unwrap().expected, witness);
        let newer = record(CredentialKind::User, "t2");
        let commit = store.commit(&slot, &witness, &newer, &owner).await.unwrap();
        assert!(matches!(commit, CommitResult::Committed), "{commit:?}");
        assert_eq!(store.load(&slot).await.unwrap().record, newer);
        // Something newer is still newer.
        let commit = store.commit(&slot, &witness, &first, &owner).await.unwrap();
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
    // Who only opens leaves no mark that others would have to know.
    connect(Some(ring("a").mode(SealingMode::Open)))
        .await
        .unwrap();
    connect(None).await.unwrap();
    connect(Some(ring("a"))).await.unwrap();
    let id = ring("a").ids().next().unwrap();
    for keys in [
        None,
        Some(ring("b")),
        Some(ring("b").mode(SealingMode::Open)),
    ] {
        let error = connect(keys).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration);
        let sentence = error.to_string();
        assert!(
            sentence.contains(&id) && sentence.contains("add the missing key"),
            "{sentence}"
        );
    }
    connect(Some(ring("ba"))).await.unwrap();
    // By now a process that has only the old key would not read what the new one seals.
    assert!(connect(Some(ring("a"))).await.is_err());
    connect(Some(ring("ab"))).await.unwrap();
}

#[tokio::test]
async fn missing_key_errors_are_rate_limited() {
    let lines = LogLines::default();
    let subscriber = tracing_subscriber::fmt()
        .with_writer(lines.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let server = RedisServer::start();
    let ours = connect_sealed(&server, Layout::Hashes, ring("a")).await;
    let other = connect_without_registry(&server, "b").await;
    let started = std::time::Instant::now();
    for user in 0..50 {
        let slot = slot(CredentialKind::User, &format!("o{user}"));
        ours.overwrite(&slot, &record(CredentialKind::User, "t"))
            .await
            .unwrap();
        assert!(other.load(&slot).await.unwrap().record.is_empty());
    }
    let said = lines.text();
    let loud = said
        .lines()
        .filter(|line| line.contains("ERROR") && line.contains("sealed with"));
    let most = 1 + started.elapsed().as_secs() / 10;
    assert!((1..=most as usize).contains(&loud.count()), "{said}");
    assert!(!said.contains("refresh#"), "{said}");
}

#[tokio::test]
async fn sweep_keeps_values_it_cannot_open() {
    let (server, [hashes, _]) = start_sealed_stores().await;
    let app = AppId::new("wx1").unwrap();
    let clock = Clock::shifted();
    let later = RedisStore::builder(&server.url())
        .sealing(ring("a"))
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
