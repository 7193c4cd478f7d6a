//! What lies sealed in Redis, and who can read it.

use ::redis::Commands;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::support::log_lines::LogLines;
use super::*;
use crate::{SealingKeys, SealingMode};

/// A ring of keys that are named by letters.
fn ring(letters: &str) -> SealingKeys {
    let keys = letters.bytes().map(|letter| STANDARD.encode([letter; 32]));
    SealingKeys::from_base64(&keys.collect::<Vec<_>>().join(",")).unwrap()
}

async fn sealed(server: &RedisServer, layout: Layout, keys: SealingKeys) -> RedisStore {
    let builder = RedisStore::builder(&server.url()).layout(layout);
    builder.sealing(keys).connect().await.unwrap()
}

pub(super) async fn on_a_server_of_its_own() -> (RedisServer, [RedisStore; 2]) {
    let server = RedisServer::start();
    let stores = [
        sealed(&server, Layout::Hashes, ring("a")).await,
        sealed(&server, Layout::Keys, ring("a")).await,
    ];
    (server, stores)
}

/// As a process that connected before anybody sealed: it has no mark to look at.
async fn without_a_look_at_the_marks(server: &RedisServer, other: &str) -> RedisStore {
    let mut connection = server.connection();
    let marks: Vec<(String, String)> = connection.hgetall("wechat:sealing").unwrap();
    let _: () = connection.del("wechat:sealing").unwrap();
    let store = match other {
        "" => redis(server, Layout::Hashes).await,
        letters => sealed(server, Layout::Hashes, ring(letters)).await,
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
async fn no_token_is_legible_in_redis() {
    let server = RedisServer::start();
    for layout in [Layout::Hashes, Layout::Keys] {
        let store = sealed(&server, layout, ring("a")).await;
        for kind in [
            Kind::User,
            Kind::SnapshotUser,
            Kind::AccountToken,
            Kind::JsapiTicket,
        ] {
            let slot = slot(kind, if kind.is_accounts_own() { "" } else { "oA" });
            let record = record(kind, "legible");
            store.put(&slot, &record).await.unwrap();
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
async fn a_value_that_is_copied_elsewhere_does_not_open() {
    let (server, [hashes, keys]) = on_a_server_of_its_own().await;
    let (victim, thief) = (slot(Kind::User, "oVictim"), slot(Kind::User, "oThief"));
    for store in [&hashes, &keys] {
        store.put(&victim, &record(Kind::User, "t")).await.unwrap();
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
    let snapshot = slot(Kind::SnapshotUser, "oVictim");
    assert!(keys.load(&snapshot).await.unwrap().record.is_empty());
}

#[tokio::test]
async fn keys_change_while_processes_with_either_order_run() {
    let server = RedisServer::start();
    let slot = slot(Kind::User, "oA");
    for layout in [Layout::Hashes, Layout::Keys] {
        let mut redis = server.connection();
        let _: () = redis.del("wechat:sealing").unwrap();
        let first = sealed(&server, layout, ring("a")).await;
        first.put(&slot, &record(Kind::User, "t1")).await.unwrap();
        let (before, after) = (
            sealed(&server, layout, ring("ab")).await,
            sealed(&server, layout, ring("ba")).await,
        );
        for (writer, token) in [
            (&before, "t2"),
            (&after, "t3"),
            (&before, "t4"),
            (&after, "t5"),
        ] {
            let witness = writer.load(&slot).await.unwrap().witness;
            let owner = LeaseOwner::unique();
            let claim = writer.claim(&slot, &witness, &owner, LEASE).await.unwrap();
            assert!(matches!(claim, Claim::Granted));
            let newer = record(Kind::User, token);
            let commit = writer
                .commit(&slot, &witness, &newer, &owner)
                .await
                .unwrap();
            assert!(matches!(commit, Commit::Done));
            for reader in [&before, &after] {
                assert_eq!(reader.load(&slot).await.unwrap().record, newer);
            }
        }
        // All is sealed with the new key by now; the old one may go.
        let _: () = redis
            .hdel("wechat:sealing", ring("a").ids().collect::<Vec<_>>())
            .unwrap();
        let last = sealed(&server, layout, ring("b")).await;
        assert!(!last.load(&slot).await.unwrap().record.is_empty());
    }
}

#[tokio::test]
async fn plain_and_sealed_values_live_side_by_side_until_plain_ones_are_refused() {
    for layout in [Layout::Hashes, Layout::Keys] {
        let server = RedisServer::start();
        let opening = sealed(&server, layout, ring("a").mode(SealingMode::Open)).await;
        let plain = slot(Kind::User, "oPlain");
        opening
            .put(&plain, &record(Kind::User, "t1"))
            .await
            .unwrap();
        assert!(
            all_values(&server)
                .iter()
                .any(|value| value.contains("t1#"))
        );
        let sealing = sealed(&server, layout, ring("a")).await;
        let secret = slot(Kind::User, "oSealed");
        sealing
            .put(&secret, &record(Kind::User, "t2"))
            .await
            .unwrap();
        for (store, slot) in [(&opening, &secret), (&sealing, &plain)] {
            assert!(!store.load(slot).await.unwrap().record.is_empty());
        }
        let strict = sealed(&server, layout, ring("a").mode(SealingMode::Require)).await;
        assert!(strict.load(&plain).await.unwrap().record.is_empty());
        assert!(!strict.load(&secret).await.unwrap().record.is_empty());
        // A renewal seals what was plain.
        let stored = sealing.load(&plain).await.unwrap();
        let owner = LeaseOwner::unique();
        let commit = sealing
            .commit(&plain, &stored.witness, &record(Kind::User, "t3"), &owner)
            .await;
        assert!(matches!(commit.unwrap(), Commit::Done));
        assert!(!strict.load(&plain).await.unwrap().record.is_empty());
    }
}

/// A process with the wrong ring, or with none, leaves alone what others can read.
#[tokio::test]
async fn who_cannot_read_neither_renews_nor_deletes_and_a_login_beats_everything() {
    for ring_of_the_other in ["b", ""] {
        let server = RedisServer::start();
        let ours = sealed(&server, Layout::Hashes, ring("a")).await;
        let other = without_a_look_at_the_marks(&server, ring_of_the_other).await;
        for kind in [Kind::User, Kind::AccountToken] {
            let slot = slot(kind, if kind == Kind::User { "oA" } else { "" });
            let good = record(kind, "good");
            ours.put(&slot, &good).await.unwrap();
            if kind == Kind::User {
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
            let claim = other.claim(&slot, &seen.witness, &owner, LEASE).await;
            let nothing = Record::default();
            let commit = other.commit(&slot, &seen.witness, &nothing, &owner).await;
            for error in [claim.unwrap_err(), commit.unwrap_err()] {
                assert_eq!(error.kind(), ErrorKind::Configuration);
                assert!(error.to_string().contains("add that key"), "{error}");
            }
            let after = ours.load(&slot).await.unwrap();
            assert_eq!(after.witness, before.witness);
            assert_eq!(after.record.token, good.token);

            other.put(&slot, &record(kind, "login")).await.unwrap();
            let login = other.load(&slot).await.unwrap().record;
            assert_eq!(login.token.unwrap().secret.expose(), "login");
        }
    }
}

#[tokio::test]
async fn a_broken_seal_is_renewed_over_since_nobody_can_read_it() {
    let (server, [hashes, _]) = on_a_server_of_its_own().await;
    let slot = slot(Kind::AccountToken, "");
    let mut redis = server.connection();
    for broken in ["#0#s1#", "#0#s1#ID#", "#0#s1#ID#AAAA", "#0#s1#ID#\u{e9}"] {
        let id = ring("a").ids().next().unwrap();
        let _: () = redis
            .set("sys.wxAccessToken", broken.replace("ID", &id))
            .unwrap();
        let seen = hashes.load(&slot).await.unwrap();
        assert!(seen.record.is_empty(), "{broken}");
        let owner = LeaseOwner::unique();
        let claim = hashes.claim(&slot, &seen.witness, &owner, LEASE).await;
        assert!(matches!(claim.unwrap(), Claim::Granted));
        let new = record(Kind::AccountToken, "new");
        let commit = hashes.commit(&slot, &seen.witness, &new, &owner).await;
        assert!(matches!(commit.unwrap(), Commit::Done));
    }
}

/// R3: a value that is sealed anew during a renewal is the same value; what WeChat has granted
/// from it is not thrown away.
#[tokio::test]
async fn a_new_seal_in_the_middle_of_a_renewal_loses_nothing() {
    let (_server, stores) = on_a_server_of_its_own().await;
    for store in &stores {
        let slot = slot(Kind::User, "oA");
        let first = record(Kind::User, "t1");
        store.put(&slot, &first).await.unwrap();
        let witness = store.load(&slot).await.unwrap().witness;
        let owner = LeaseOwner::unique();
        store.claim(&slot, &witness, &owner, LEASE).await.unwrap();
        store.put(&slot, &first).await.unwrap();
        assert_ne!(store.load(&slot).await.unwrap().witness, witness);
        let newer = record(Kind::User, "t2");
        let commit = store.commit(&slot, &witness, &newer, &owner).await.unwrap();
        assert!(matches!(commit, Commit::Done), "{commit:?}");
        assert_eq!(store.load(&slot).await.unwrap().record, newer);
        // Something newer is still newer.
        let commit = store.commit(&slot, &witness, &first, &owner).await.unwrap();
        assert!(matches!(commit, Commit::Changed(stored) if stored.record == newer));
    }
}

#[tokio::test]
async fn a_wrong_ring_is_told_at_the_start() {
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
async fn a_wrong_ring_is_loud_but_not_for_every_user() {
    let lines = LogLines::default();
    let subscriber = tracing_subscriber::fmt()
        .with_writer(lines.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let server = RedisServer::start();
    let ours = sealed(&server, Layout::Hashes, ring("a")).await;
    let other = without_a_look_at_the_marks(&server, "b").await;
    let started = std::time::Instant::now();
    for user in 0..50 {
        let slot = slot(Kind::User, &format!("o{user}"));
        ours.put(&slot, &record(Kind::User, "t")).await.unwrap();
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
async fn sealed_users_are_swept_when_they_are_dead_and_others_users_never() {
    let (server, [hashes, _]) = on_a_server_of_its_own().await;
    let app = AppId::new("wx1").unwrap();
    let clock = Clock::shifted();
    let later = RedisStore::builder(&server.url())
        .sealing(ring("a"))
        .clock(clock.clone());
    let later = later.connect().await.unwrap();
    let other = without_a_look_at_the_marks(&server, "b").await;
    hashes
        .put(&slot(Kind::User, "oA"), &record(Kind::User, "t"))
        .await
        .unwrap();
    clock.advance(Duration::from_secs(40 * 86_400));
    assert_eq!(other.sweep(&app, Duration::ZERO).await.unwrap().removed, 0);
    assert_eq!(later.sweep(&app, Duration::ZERO).await.unwrap().removed, 2);
}
