//! Tests of the connection to Redis: start-up, errors, permissions and replacement.

use super::*;
use crate::error::{Error, ErrorKind};

/// An ACL user with only the commands that the Redis guide lists can run the operations of a store.
#[tokio::test]
async fn the_documented_acl_commands_are_enough() {
    const COMMANDS: &str = "+get +set +del +incr +pexpire +hget +hset +hdel +hmget +mget +hscan \
                            +persist +eval +evalsha +subscribe +unsubscribe +publish +ping +hello +auth +client";
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
        for kind in CredentialKind::ALL {
            let (slot, owner) = (slot(kind, "oA"), LeaseOwner::unique());
            store.overwrite(&slot, &record(kind, "t1")).await.unwrap();
            let expected = store.load(&slot).await.unwrap().expected;
            store
                .acquire_lease(&slot, &expected, &owner, LEASE)
                .await
                .unwrap();
            let commit = store
                .commit(&slot, &expected, &record(kind, "t2"), &owner)
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
        let other = LoginCodeKey::new(&app, "another code");
        let suspension = Suspension {
            outcome: "failed",
            outcome_ttl: LEASE,
            response: &PendingResponse::new("tokens".to_owned().into()),
            response_ttl: LEASE,
        };
        store
            .suspend_code(&other, &owner, &suspension)
            .await
            .unwrap();
        let quota = Quota {
            app: app.clone(),
            purpose: "x".into(),
            limit: 2,
            window: LEASE,
        };
        assert!(store.try_consume(&quota).await.unwrap());
        store.sweep(&app, Duration::ZERO).await.unwrap();
        for kind in CredentialKind::ALL {
            store.check_health(&app, kind).await.unwrap();
        }
        renew_many(&store).await;
    }
    // Reads and renewals of many users were sent in batches.
    assert!(server.calls("hmget") > 0 && server.calls("mget") > 0);
    let rejected: ::redis::Value = ::redis::cmd("ACL")
        .arg("LOG")
        .query(&mut server.connection())
        .unwrap();
    assert!(!format!("{rejected:?}").contains("mget"), "{rejected:?}");
}

/// Reads and renews the tokens of many users at the same time.
async fn renew_many(store: &RedisStore) {
    let renew = async |user: usize| {
        let slot = slot(CredentialKind::User, &format!("o{user}"));
        let expected = store.load(&slot).await.unwrap().expected;
        let owner = acquire(store, &slot, &expected).await;
        let record = record(CredentialKind::User, "t");
        let commit = store.commit(&slot, &expected, &record, &owner).await;
        assert!(matches!(commit.unwrap(), CommitResult::Committed));
    };
    // The first renewal stores the records, and the second one replaces them.
    for _ in 0..2 {
        futures_util::future::join_all((0..40).map(renew)).await;
    }
}

#[tokio::test]
async fn connect_errors_are_one_sentence() {
    let server = RedisServer::with_options(&["--requirepass", "right"]);
    let port = server.port();
    for (url, kind, quote) in [
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
        assert!(text.contains(quote), "{url}: {text}");
        assert!(!format!("{text} {error:?}").contains("hunter2"), "{text}");
        assert_eq!(text.lines().count(), 1);
    }
    let url = format!("redis://:right@127.0.0.1:{port}/3");
    let store = RedisStore::connect(&url).await.unwrap();
    check_health(&store).await.unwrap();
}

/// Runs the health check of users' credentials.
async fn check_health(store: &RedisStore) -> Result<(), Error> {
    store
        .check_health(&AppId::new("wx1").unwrap(), CredentialKind::User)
        .await
}

/// A load balancer in front of Redis may drop the packets of a connection. The TCP connection stays
/// open although no replies arrive. The store then opens a new connection.
#[tokio::test]
async fn an_unresponsive_connection_is_replaced() {
    use self::support::proxy::{Proxy, Weather};

    let server = RedisServer::start();
    let proxy = Proxy::start(&format!("127.0.0.1:{}", server.port()), 1).await;
    let url = format!("redis://{}/", proxy.address());
    let store = RedisStore::connect(&url).await.unwrap();
    check_health(&store).await.unwrap();
    proxy.weather(Weather {
        blackhole: 1_000,
        ..Weather::CALM
    });
    // A cached result of a health check is reused for one second.
    support::eventually("a health check fails", Duration::from_secs(5), async || {
        check_health(&store).await.is_err()
    })
    .await;
    // The proxy still drops the packets of the old connection. A new connection works.
    proxy.weather(Weather::CALM);
    support::eventually(
        "a new connection replaces the old one",
        Duration::from_secs(20),
        async || check_health(&store).await.is_ok(),
    )
    .await;
}
