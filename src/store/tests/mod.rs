//! What every store must do, and what Redis alone can do wrong.

#[cfg(feature = "sealing")]
mod sealing;
#[path = "../../../tests/support/mod.rs"]
mod support;
mod tombstones;

use std::time::Duration;

use ::redis::Commands;

use self::support::redis_server::RedisServer;
use super::*;
use crate::clock::{Clock, Timestamp};
use crate::credential::{
    AccessToken, AppId, Lifetime, Record, Refresh, RefreshToken, Token, UserDetails,
};
use crate::error::{Error, ErrorKind};

const MARGIN: Duration = Duration::from_secs(900);
const LEASE: Duration = Duration::from_secs(10);

fn slot(kind: CredentialKind, id: &str) -> CredentialSlot {
    let name = CredentialKey {
        app: AppId::new("wx1").unwrap(),
        kind,
        id: id.into(),
    };
    CredentialSlot {
        key: name,
        margin: MARGIN,
    }
}

fn record(kind: CredentialKind, token: &str) -> Record {
    let now = Clock::system().now();
    let lifetime = Lifetime::from_response(now, Some(7_200), MARGIN);
    let token = Some(Token {
        secret: AccessToken::from(token),
        lifetime,
    });
    if kind != CredentialKind::User {
        return Record {
            token,
            ..Record::default()
        };
    }
    let due = now.saturating_add(Duration::from_secs(86_400));
    let refresh = Some(Refresh {
        secret: RefreshToken::from("refresh"),
        expected_expiry: due,
    });
    let details = UserDetails {
        openid: Some("oA".into()),
        ..UserDetails::default()
    };
    Record {
        token,
        refresh,
        details,
    }
}

async fn connect_redis(server: &RedisServer, layout: Layout) -> RedisStore {
    RedisStore::builder(&server.url())
        .layout(layout)
        .connect()
        .await
        .unwrap()
}

/// A store that reads one layout and writes both.
async fn connect_dual_write(server: &RedisServer, layout: Layout, copy: Layout) -> RedisStore {
    let builder = RedisStore::builder(&server.url()).layout(layout);
    builder.dual_write(copy).connect().await.unwrap()
}

/// Runs a check against every store, for every kind of credential.
async fn on_every_store(check: impl AsyncFn(&dyn Store, CredentialSlot)) {
    let server = RedisServer::start();
    let hashes = connect_redis(&server, Layout::Hashes).await;
    let keys = connect_redis(&server, Layout::Keys).await;
    let memory = MemoryStore::new();
    let both = RedisServer::start();
    let from_hashes = connect_dual_write(&both, Layout::Hashes, Layout::Keys).await;
    let from_keys = connect_dual_write(&both, Layout::Keys, Layout::Hashes).await;
    let mut stores: Vec<&dyn Store> = vec![&memory, &hashes, &keys, &from_hashes, &from_keys];
    #[cfg(feature = "sealing")]
    let sealed = sealing::start_sealed_stores().await;
    #[cfg(feature = "sealing")]
    stores.extend(sealed.1.iter().map(|store| store as &dyn Store));
    for store in stores {
        for kind in [
            CredentialKind::User,
            CredentialKind::SnapshotUser,
            CredentialKind::AccountToken,
            CredentialKind::JsapiTicket,
        ] {
            let id = if matches!(kind, CredentialKind::User | CredentialKind::SnapshotUser) {
                "u:{1}# \u{5f20}"
            } else {
                ""
            };
            check(store, slot(kind, id)).await;
        }
    }
}

#[tokio::test]
async fn overwrite_stores_and_an_empty_record_deletes() {
    on_every_store(async |store, slot| {
        assert!(store.load(&slot).await.unwrap().record.is_empty());
        let record = record(slot.key.kind, "t1");
        store.overwrite(&slot, &record).await.unwrap();
        assert_eq!(store.load(&slot).await.unwrap().record, record);
        store.overwrite(&slot, &Record::default()).await.unwrap();
        assert!(store.load(&slot).await.unwrap().record.is_empty());
    })
    .await;
}

#[tokio::test]
async fn a_lease_has_one_owner_who_can_reacquire_it() {
    on_every_store(async |store, slot| {
        store
            .overwrite(&slot, &record(slot.key.kind, "t1"))
            .await
            .unwrap();
        let witness = store.load(&slot).await.unwrap().expected;
        let (ours, theirs) = (LeaseOwner::unique(), LeaseOwner::unique());
        let claim = async |owner| {
            store
                .acquire_lease(&slot, &witness, owner, LEASE)
                .await
                .unwrap()
        };
        assert!(matches!(claim(&ours).await, LeaseResult::Acquired));
        assert!(matches!(claim(&theirs).await, LeaseResult::Busy));
        assert!(matches!(claim(&ours).await, LeaseResult::Acquired));
        store.release_lease(&slot, &theirs).await.unwrap();
        assert!(matches!(claim(&theirs).await, LeaseResult::Busy));
        store.release_lease(&slot, &ours).await.unwrap();
        assert!(matches!(claim(&theirs).await, LeaseResult::Acquired));
        store.release_lease(&slot, &theirs).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn one_owner_exchanges_a_code_and_all_read_the_outcome() {
    on_every_store(async |store, slot| {
        // Codes lie in one place in both layouts, and the two share a server here.
        let code = LoginCodeKey::new(&slot.key.app, &format!("{:?}", LeaseOwner::unique()));
        let (ours, theirs) = (LeaseOwner::unique(), LeaseOwner::unique());
        let claim = async |owner| store.acquire_code(&code, owner, LEASE).await.unwrap();
        let settle = async |owner, outcome| {
            let settled = store.finish_code(&code, owner, outcome, LEASE).await;
            settled.unwrap();
        };
        assert_eq!(claim(&ours).await, CodeLeaseResult::Acquired);
        assert_eq!(claim(&theirs).await, CodeLeaseResult::Busy);
        assert_eq!(claim(&ours).await, CodeLeaseResult::Acquired);
        settle(Some(&theirs), "not theirs to say").await;
        assert_eq!(claim(&theirs).await, CodeLeaseResult::Busy);
        settle(Some(&ours), "refused").await;
        let outcome = |text: &str| CodeLeaseResult::Finished(text.to_owned());
        assert_eq!(claim(&theirs).await, outcome("refused"));
        settle(Some(&theirs), "too late").await;
        assert_eq!(claim(&ours).await, outcome("refused"));
        settle(None, "a success counts, whoever brings it").await;
        assert_eq!(
            claim(&ours).await,
            outcome("a success counts, whoever brings it")
        );
    })
    .await;
}

#[tokio::test]
async fn a_code_is_bound_to_the_first_login() {
    on_every_store(async |store, slot| {
        let code = LoginCodeKey::new(&slot.key.app, &format!("{:?}", LeaseOwner::unique()));
        let bind = async |login, ttl| store.bind_code(&code, login, ttl).await.unwrap();
        assert_eq!(bind(1, LEASE).await, CodeBindResult::Bound);
        assert_eq!(bind(1, LEASE).await, CodeBindResult::AlreadyBound);
        assert_eq!(bind(2, LEASE).await, CodeBindResult::BoundElsewhere);
        let short = Duration::from_millis(30);
        assert_eq!(bind(1, short).await, CodeBindResult::AlreadyBound);
        tokio::time::sleep(short * 2).await;
        assert_eq!(bind(2, LEASE).await, CodeBindResult::Bound);
        assert_eq!(bind(1, LEASE).await, CodeBindResult::BoundElsewhere);
    })
    .await;
}

#[tokio::test]
async fn a_code_lease_expires() {
    on_every_store(async |store, slot| {
        // Codes lie in one place in both layouts, and the two share a server here.
        let code = LoginCodeKey::new(&slot.key.app, &format!("{:?}", LeaseOwner::unique()));
        let (dead, ours) = (LeaseOwner::unique(), LeaseOwner::unique());
        let short = Duration::from_millis(30);
        let claim = store.acquire_code(&code, &dead, short).await.unwrap();
        assert_eq!(claim, CodeLeaseResult::Acquired);
        tokio::time::sleep(short * 2).await;
        let claim = store.acquire_code(&code, &ours, LEASE).await.unwrap();
        assert_eq!(claim, CodeLeaseResult::Acquired);
    })
    .await;
}

#[tokio::test]
async fn expired_leases_release_and_settle_nothing() {
    on_every_store(async |store, slot| {
        let code = LoginCodeKey::new(&slot.key.app, &format!("{:?}", LeaseOwner::unique()));
        let (late, next) = (LeaseOwner::unique(), LeaseOwner::unique());
        let short = Duration::from_millis(30);
        let witness = store.load(&slot).await.unwrap().expected;
        store
            .acquire_lease(&slot, &witness, &late, short)
            .await
            .unwrap();
        store.acquire_code(&code, &late, short).await.unwrap();
        tokio::time::sleep(short * 2).await;
        assert!(!store.release_lease(&slot, &late).await.unwrap());
        assert!(!store.release_code(&code, &late).await.unwrap());
        let settled = store.finish_code(&code, Some(&late), "late", LEASE).await;
        settled.unwrap();
        let claim = store.acquire_code(&code, &next, LEASE).await.unwrap();
        assert_eq!(claim, CodeLeaseResult::Acquired);
    })
    .await;
}

#[tokio::test]
async fn acquire_returns_a_record_changed_since_the_read() {
    on_every_store(async |store, slot| {
        let before = store.load(&slot).await.unwrap().expected;
        let newer = record(slot.key.kind, "t2");
        store.overwrite(&slot, &newer).await.unwrap();
        let (ours, theirs) = (LeaseOwner::unique(), LeaseOwner::unique());
        match store
            .acquire_lease(&slot, &before, &ours, LEASE)
            .await
            .unwrap()
        {
            LeaseResult::Conflict(stored) => {
                assert_eq!(stored.record, newer);
                let claim = store
                    .acquire_lease(&slot, &stored.expected, &theirs, LEASE)
                    .await
                    .unwrap();
                assert!(
                    matches!(claim, LeaseResult::Acquired),
                    "no lease was taken before"
                );
            }
            other => panic!("{other:?}"),
        }
        store.release_lease(&slot, &theirs).await.unwrap();
        store.overwrite(&slot, &Record::default()).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn commit_conflicts_if_the_record_changed() {
    on_every_store(async |store, slot| {
        let kind = slot.key.kind;
        store.overwrite(&slot, &record(kind, "t1")).await.unwrap();
        let witness = store.load(&slot).await.unwrap().expected;
        let owner = LeaseOwner::unique();
        store
            .acquire_lease(&slot, &witness, &owner, LEASE)
            .await
            .unwrap();
        let newer = record(kind, "t-login");
        store.overwrite(&slot, &newer).await.unwrap();
        match store
            .commit(&slot, &witness, &record(kind, "t2"), &owner)
            .await
            .unwrap()
        {
            CommitResult::Conflict(stored) => assert_eq!(stored.record, newer),
            other => panic!("{other:?}"),
        }
        assert_eq!(store.load(&slot).await.unwrap().record, newer);
        // The lease was given back all the same.
        let witness = store.load(&slot).await.unwrap().expected;
        let theirs = LeaseOwner::unique();
        let claim = store
            .acquire_lease(&slot, &witness, &theirs, LEASE)
            .await
            .unwrap();
        assert!(matches!(claim, LeaseResult::Acquired));
        let committed = record(kind, "t3");
        let commit = store
            .commit(&slot, &witness, &committed, &theirs)
            .await
            .unwrap();
        assert!(matches!(commit, CommitResult::Committed));
        assert_eq!(store.load(&slot).await.unwrap().record, committed);
        store.overwrite(&slot, &Record::default()).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn commit_fails_after_the_lease_changed_owner() {
    on_every_store(async |store, slot| {
        let kind = slot.key.kind;
        store.overwrite(&slot, &record(kind, "t1")).await.unwrap();
        let witness = store.load(&slot).await.unwrap().expected;
        let (slow, quick) = (LeaseOwner::unique(), LeaseOwner::unique());
        let short = Duration::from_millis(30);
        store
            .acquire_lease(&slot, &witness, &slow, short)
            .await
            .unwrap();
        tokio::time::sleep(Duration::from_millis(60)).await;
        let claim = store
            .acquire_lease(&slot, &witness, &quick, LEASE)
            .await
            .unwrap();
        assert!(matches!(claim, LeaseResult::Acquired), "a lease runs out");
        let late = store
            .commit(&slot, &witness, &record(kind, "late"), &slow)
            .await
            .unwrap();
        assert!(matches!(late, CommitResult::LeaseLost));
        let newest = record(kind, "newest");
        let commit = store
            .commit(&slot, &witness, &newest, &quick)
            .await
            .unwrap();
        assert!(matches!(commit, CommitResult::Committed));
        let late = store
            .commit(&slot, &witness, &record(kind, "late"), &slow)
            .await
            .unwrap();
        assert!(matches!(late, CommitResult::Conflict(stored) if stored.record == newest));
        // Without anybody in between, a late commit still counts (R3).
        let witness = store.load(&slot).await.unwrap().expected;
        store
            .acquire_lease(&slot, &witness, &slow, short)
            .await
            .unwrap();
        tokio::time::sleep(Duration::from_millis(60)).await;
        let late = store
            .commit(&slot, &witness, &record(kind, "late"), &slow)
            .await
            .unwrap();
        assert!(matches!(late, CommitResult::Committed));
        store.overwrite(&slot, &Record::default()).await.unwrap();
    })
    .await;
}

async fn acquire_current(
    store: &RedisStore,
    slot: &CredentialSlot,
    owner: &LeaseOwner,
) -> LeaseResult {
    let witness = store.load(slot).await.unwrap().expected;
    store
        .acquire_lease(slot, &witness, owner, LEASE)
        .await
        .unwrap()
}

/// Services that move from one layout to the other: those that have not begun know the old one
/// only, the others write both. None overwrites another's work or renews beside it.
#[tokio::test]
async fn dual_write_updates_both_layouts_and_holds_both_leases() {
    let server = RedisServer::start();
    let (old, new) = (
        connect_redis(&server, Layout::Hashes).await,
        connect_redis(&server, Layout::Keys).await,
    );
    let leaving = connect_dual_write(&server, Layout::Hashes, Layout::Keys).await;
    let arriving = connect_dual_write(&server, Layout::Keys, Layout::Hashes).await;
    for kind in [
        CredentialKind::User,
        CredentialKind::SnapshotUser,
        CredentialKind::AccountToken,
    ] {
        let id = if kind.belongs_to_account() { "" } else { "oA" };
        let slot = slot(kind, id);
        let first = record(kind, "t1");
        leaving.overwrite(&slot, &first).await.unwrap();
        for (holder, others) in [
            (&old, vec![&leaving, &arriving]),
            (&new, vec![&leaving, &arriving]),
            (&leaving, vec![&old, &new, &arriving]),
            (&arriving, vec![&old, &new, &leaving]),
        ] {
            let owner = LeaseOwner::unique();
            let claim = acquire_current(holder, &slot, &owner).await;
            assert!(matches!(claim, LeaseResult::Acquired));
            for other in others {
                let stranger = LeaseOwner::unique();
                let beside = acquire_current(other, &slot, &stranger).await;
                assert!(matches!(beside, LeaseResult::Busy), "{kind:?}: {other:?}");
            }
            holder.release_lease(&slot, &owner).await.unwrap();
        }
        for (store, token) in [(&leaving, "t2"), (&arriving, "t3")] {
            let witness = store.load(&slot).await.unwrap().expected;
            let owner = LeaseOwner::unique();
            let claim = store
                .acquire_lease(&slot, &witness, &owner, LEASE)
                .await
                .unwrap();
            assert!(
                matches!(claim, LeaseResult::Acquired),
                "all leases are given back"
            );
            let newer = record(kind, token);
            let commit = store.commit(&slot, &witness, &newer, &owner).await.unwrap();
            assert!(matches!(commit, CommitResult::Committed));
            for reader in [&old, &new, &leaving, &arriving] {
                assert_eq!(reader.load(&slot).await.unwrap().record, newer);
            }
        }
        let witness = arriving.load(&slot).await.unwrap().expected;
        let owner = LeaseOwner::unique();
        let nothing = Record::default();
        let commit = arriving.commit(&slot, &witness, &nothing, &owner).await;
        assert!(matches!(commit.unwrap(), CommitResult::Committed));
        for reader in [&old, &new] {
            assert!(reader.load(&slot).await.unwrap().record.is_empty());
        }
    }
}

#[tokio::test]
async fn the_published_layout_is_byte_compatible() {
    let server = RedisServer::start();
    let store = connect_redis(&server, Layout::Hashes).await;
    let at = |millis| Timestamp::from_millis(millis);
    let lifetime = Lifetime::from_response(at(1_700_000_000_000), Some(7_200), MARGIN);
    let mut pair = record(CredentialKind::User, "ACCESS");
    pair.token = Some(Token {
        secret: AccessToken::from("ACCESS"),
        lifetime,
    });
    pair.refresh = Some(Refresh {
        secret: RefreshToken::from("REFRESH"),
        expected_expiry: at(1_702_591_100_000),
    });
    pair.details = UserDetails::default();
    store
        .overwrite(&slot(CredentialKind::User, "oA"), &pair)
        .await
        .unwrap();
    let account = Record {
        token: pair.token.clone(),
        ..Record::default()
    };
    store
        .overwrite(&slot(CredentialKind::AccountToken, ""), &account)
        .await
        .unwrap();
    let mut connection = server.connection();
    let value: String = connection.hget("user.wxUserAccessToken", "oA").unwrap();
    assert_eq!(value, "ACCESS#1700006300000");
    let value: String = connection.hget("user.wxUserRefreshToken", "oA").unwrap();
    assert_eq!(value, "REFRESH#1702591100000");
    let value: String = connection.get("sys.wxAccessToken").unwrap();
    assert_eq!(value, "ACCESS#1700006300000");
    let ttl: i64 = connection.ttl("sys.wxAccessToken").unwrap();
    assert_eq!(ttl, -1, "the published layout never expires its keys");
}

#[tokio::test]
async fn keys_expire_and_stay_small() {
    let server = RedisServer::start();
    let store = connect_redis(&server, Layout::Keys).await;
    store
        .overwrite(
            &slot(CredentialKind::User, "oA"),
            &record(CredentialKind::User, "t"),
        )
        .await
        .unwrap();
    let mut connection = server.connection();
    let ttl: i64 = connection.ttl("wechat:wx1:user:oA").unwrap();
    // The refresh token's day, and a day in which WeChat is still asked.
    assert!((2 * 86_400 - 5..=2 * 86_400).contains(&ttl), "{ttl}");
    let bytes: u64 = ::redis::cmd("MEMORY")
        .arg("USAGE")
        .arg("wechat:wx1:user:oA")
        .query(&mut connection)
        .unwrap();
    assert!(bytes < 431, "{bytes}");
}

#[tokio::test]
async fn unreadable_values_are_misses_and_replaced() {
    let server = RedisServer::start();
    let mut connection = server.connection();
    let (hashes, keys) = (
        connect_redis(&server, Layout::Hashes).await,
        connect_redis(&server, Layout::Keys).await,
    );
    let slot = slot(CredentialKind::User, "oA");
    for garbage in [
        &b"abc"[..],
        b"tok#",
        b"#123",
        b"tok#12x",
        b"",
        b"\xff\x00\xfe",
        b"9#a#1#2",
    ] {
        let _: () = connection
            .hset("user.wxUserAccessToken", "oA", garbage)
            .unwrap();
        let _: () = connection
            .hset("user.wxUserRefreshToken", "oA", garbage)
            .unwrap();
        let _: () = connection.set("wechat:wx1:user:oA", garbage).unwrap();
        for store in [&hashes, &keys] {
            let stored = store.load(&slot).await.unwrap();
            assert!(stored.record.is_empty(), "{garbage:?}");
            // It can be renewed over and compared with like anything else.
            let owner = LeaseOwner::unique();
            let claim = store
                .acquire_lease(&slot, &stored.expected, &owner, LEASE)
                .await
                .unwrap();
            assert!(matches!(claim, LeaseResult::Acquired));
            let good = record(CredentialKind::User, "good");
            let commit = store
                .commit(&slot, &stored.expected, &good, &owner)
                .await
                .unwrap();
            assert!(matches!(commit, CommitResult::Committed));
            assert_eq!(store.load(&slot).await.unwrap().record, good);
        }
    }
}

#[tokio::test]
async fn a_key_of_another_type_is_a_store_error() {
    let server = RedisServer::start();
    let mut connection = server.connection();
    let _: () = connection
        .set("user.wxUserAccessToken", "a string")
        .unwrap();
    let _: () = connection.rpush("wechat:wx1:user:oA", "a list").unwrap();
    let slot = slot(CredentialKind::User, "oA");
    for layout in [Layout::Hashes, Layout::Keys] {
        let store = connect_redis(&server, layout).await;
        let owner = LeaseOwner::unique();
        let witness = Expected(vec![None, None]);
        let errors = [
            store.load(&slot).await.unwrap_err(),
            store
                .acquire_lease(&slot, &witness, &owner, LEASE)
                .await
                .unwrap_err(),
        ];
        for error in errors {
            assert_eq!(error.kind(), ErrorKind::StoreUnavailable);
            assert!(error.to_string().contains("another type"), "{error}");
        }
        // It is not an outage: other commands still run. But where users lie there, nobody logs in.
        let app = &slot.key.app;
        store
            .check_health(app, CredentialKind::AccountToken)
            .await
            .unwrap();
        let ready = store.check_health(app, CredentialKind::User).await.is_ok();
        assert_eq!(ready, layout == Layout::Keys);
    }
}

#[tokio::test]
async fn tokens_that_cannot_be_stored_are_rejected() {
    let server = RedisServer::start();
    let store = connect_redis(&server, Layout::Hashes).await;
    let slot = slot(CredentialKind::User, "oA");
    for token in ["a#b", ""] {
        let error = store
            .overwrite(&slot, &record(CredentialKind::User, token))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WechatUnavailable);
    }
    assert!(store.load(&slot).await.unwrap().record.is_empty());
}

#[tokio::test]
async fn sweep_removes_only_expired_users() {
    let server = RedisServer::start();
    let store = connect_redis(&server, Layout::Hashes).await;
    let mut connection = server.connection();
    let now = Clock::system().now().as_millis();
    // The Java service may store a time with a refresh token that is hours after the login.
    let (past, long_past) = (now - 29 * 86_400_000, now - 32 * 86_400_000);
    let (access, refresh) = ("user.wxUserAccessToken", "user.wxUserRefreshToken");
    for (id, access_ms, refresh_ms) in [
        ("alive", Some(now + 1_000), Some(now + 1_000)),
        ("renewable", Some(long_past), Some(now + 1_000)),
        ("just-dead", Some(long_past), Some(past)),
        ("dead", Some(long_past), Some(long_past)),
        ("access-only", Some(now + 1_000), None),
        ("dead-access-only", Some(long_past), None),
    ] {
        let mut set = |hash: &str, ms: Option<i64>| {
            if let Some(ms) = ms {
                let _: () = connection.hset(hash, id, format!("tok#{ms}")).unwrap();
            }
        };
        set(access, access_ms);
        set(refresh, refresh_ms);
    }
    let _: () = connection.hset(refresh, "garbage", "abc").unwrap();
    for n in 0..3_000 {
        let _: () = connection
            .hset(refresh, format!("old{n}"), format!("r#{long_past}"))
            .unwrap();
    }
    let swept = store
        .sweep(&AppId::new("wx1").unwrap(), Duration::ZERO)
        .await
        .unwrap();
    assert_eq!(swept.removed, 3_000 + 3, "{swept:?}");
    let mut left: Vec<String> = connection.hkeys(refresh).unwrap();
    left.sort();
    assert_eq!(left, ["alive", "garbage", "just-dead", "renewable"]);
    let mut left: Vec<String> = connection.hkeys(access).unwrap();
    left.sort();
    assert_eq!(left, ["access-only", "alive", "just-dead", "renewable"]);
}

/// The rights that the Redis guide lists are enough for everything that a store does.
#[tokio::test]
async fn the_documented_acl_user_is_enough() {
    const COMMANDS: &str = "+get +set +del +incr +pexpire +hget +hset +hdel +hmget +hscan \
                            +eval +evalsha +subscribe +publish +ping +hello +auth +client";
    let guide = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/src/guide/redis.md"));
    assert!(guide.unwrap().contains(&format!("`{COMMANDS}`")));
    let server = RedisServer::start();
    let mut create = ::redis::cmd("ACL");
    create.arg(&[
        "SETUSER",
        "app",
        "on",
        ">word",
        "~user.wx*",
        "~sys.wx*",
        "~wechat:*",
        "&wechat:*",
    ]);
    let _: () = create
        .arg(COMMANDS.split(' ').collect::<Vec<_>>())
        .query(&mut server.connection())
        .unwrap();
    let url = server.url().replace("redis://", "redis://app:word@");
    for layout in [Layout::Hashes, Layout::Keys] {
        let store = RedisStore::builder(&url)
            .layout(layout)
            .connect()
            .await
            .unwrap();
        for kind in [
            CredentialKind::User,
            CredentialKind::SnapshotUser,
            CredentialKind::AccountToken,
            CredentialKind::JsapiTicket,
        ] {
            let (slot, owner) = (slot(kind, "oA"), LeaseOwner::unique());
            store.overwrite(&slot, &record(kind, "t1")).await.unwrap();
            let witness = store.load(&slot).await.unwrap().expected;
            store
                .acquire_lease(&slot, &witness, &owner, LEASE)
                .await
                .unwrap();
            let commit = store
                .commit(&slot, &witness, &record(kind, "t2"), &owner)
                .await;
            assert!(matches!(commit.unwrap(), CommitResult::Committed));
            store.release_lease(&slot, &owner).await.unwrap();
            store.overwrite(&slot, &Record::default()).await.unwrap();
        }
        let (app, owner) = (AppId::new("wx1").unwrap(), LeaseOwner::unique());
        let code = LoginCodeKey::new(&app, "code");
        store.acquire_code(&code, &owner, LEASE).await.unwrap();
        store
            .finish_code(&code, Some(&owner), "outcome", LEASE)
            .await
            .unwrap();
        let allowance = Quota {
            app: app.clone(),
            purpose: "x".into(),
            limit: 2,
            window: LEASE,
        };
        assert!(store.try_consume(&allowance).await.unwrap());
        store.sweep(&app, Duration::ZERO).await.unwrap();
        for kind in CredentialKind::ALL {
            store.check_health(&app, kind).await.unwrap();
        }
    }
}

#[tokio::test]
async fn connect_errors_are_one_sentence() {
    let server = RedisServer::with_options(&["--requirepass", "right"]);
    let port = server.port();
    for (url, kind, word) in [
        ("not a url".to_owned(), ErrorKind::Configuration, "redis://"),
        (
            "http://127.0.0.1/".to_owned(),
            ErrorKind::Configuration,
            "redis://",
        ),
        (
            format!("redis://:hunter2@127.0.0.1:{port}/"),
            ErrorKind::Configuration,
            "password",
        ),
        (
            format!("redis://127.0.0.1:{port}/"),
            ErrorKind::Configuration,
            "password",
        ),
        (
            format!("redis://:right@127.0.0.1:{port}/99"),
            ErrorKind::Configuration,
            "DB index",
        ),
        (
            "redis://127.0.0.1:1/".to_owned(),
            ErrorKind::StoreUnavailable,
            "is it running",
        ),
        (
            format!("rediss://127.0.0.1:{port}/"),
            ErrorKind::StoreUnavailable,
            "TLS",
        ),
        (
            "redis+sentinel://127.0.0.1:1/m".to_owned(),
            ErrorKind::StoreUnavailable,
            "no Sentinel",
        ),
        (
            "redis+sentinel://127.0.0.1:1/".to_owned(),
            ErrorKind::Configuration,
            "redis+sentinel",
        ),
    ] {
        let error = RedisStore::connect(&url).await.unwrap_err();
        let text = error.to_string();
        assert_eq!(error.kind(), kind, "{url}: {text}");
        assert!(text.contains(word), "{url}: {text}");
        assert!(!format!("{text} {error:?}").contains("hunter2"), "{text}");
        assert_eq!(text.lines().count(), 1);
    }
    let url = format!("redis://:right@127.0.0.1:{port}/3");
    let store = RedisStore::connect(&url).await.unwrap();
    ping(&store).await.unwrap();
}

async fn ping(store: &RedisStore) -> Result<(), Error> {
    store
        .check_health(&AppId::new("wx1").unwrap(), CredentialKind::User)
        .await
}

/// A balancer in front of Redis may lose its way to it without a word to us: TCP sees nothing.
#[tokio::test]
async fn an_unresponsive_connection_is_replaced() {
    use self::support::proxy::{Proxy, Weather};

    let server = RedisServer::start();
    let proxy = Proxy::start(&format!("127.0.0.1:{}", server.port()), 1).await;
    let url = format!("redis://{}/", proxy.address());
    let store = RedisStore::connect(&url).await.unwrap();
    ping(&store).await.unwrap();
    proxy.weather(Weather {
        blackhole: 1_000,
        ..Weather::CALM
    });
    // The answer of a second ago may still hold.
    support::eventually("it is noticed", Duration::from_secs(5), async || {
        ping(&store).await.is_err()
    })
    .await;
    // The connection that stands stays as it is; a new one would do.
    proxy.weather(Weather::CALM);
    support::eventually("another one is made", Duration::from_secs(20), async || {
        ping(&store).await.is_ok()
    })
    .await;
}
