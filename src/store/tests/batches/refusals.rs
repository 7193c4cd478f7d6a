//! Tests of servers that reject commands for a time: each operation of a batch fails as alone, and
//! batches work again afterwards.

use std::thread::JoinHandle;

use super::*;

/// Checks that an operation has failed as the same one alone, with this reason.
#[track_caller]
fn assert_refused<T: std::fmt::Debug>(results: Vec<Result<T, Error>>, alone: &Error, reason: &str) {
    for result in results {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), alone.kind(), "{error}");
        assert!(error.to_string().contains(reason), "{error}");
    }
    assert!(alone.to_string().contains(reason), "{alone}");
}

/// Checks leases, commits and reads while the server rejects writes with this reason, between the
/// two commands of the operator.
async fn while_writes_are_refused(begin: &[&str], end: &[&str], reason: &str) {
    let server = RedisServer::start();
    let mut operator = server.connection();
    for layout in BOTH {
        let (store, users) = (connect_redis(&server, layout).await, users());
        let expected = store_first(&store, &users).await;
        let owners = owners(&users);
        let (user, record) = (&users[0], record_of(&users[0], "t2"));
        for result in acquire_all(&store, &users, &expected, &owners).await {
            assert!(matches!(result.unwrap(), LeaseResult::Acquired));
        }
        let _: () = operate(&mut operator, begin);
        let alone = store.commit(user, &expected[0], &record, &owners[0]).await;
        let refused = commit_all(&store, &users, &expected, &owners, "t2").await;
        assert_refused(refused, &alone.unwrap_err(), reason);
        // Users without a lease need a write for it.
        let (other, nothing) = (
            slot(CredentialKind::User, "other"),
            Expected(vec![None, None]),
        );
        let nothing = match layout {
            Layout::Hashes => nothing,
            Layout::Keys => Expected(vec![None]),
        };
        let owner = LeaseOwner::unique();
        let alone = store.acquire_lease(&other, &nothing, &owner, LEASE).await;
        let others: Vec<_> = (0..MANY)
            .map(|at| slot(CredentialKind::User, &format!("n{at}")))
            .collect();
        let nothings = vec![nothing; MANY];
        let refused = acquire_all(&store, &others, &nothings, &owners).await;
        assert_refused(refused, &alone.unwrap_err(), reason);
        assert_all_read(&users, load_all(&store, &users).await, "t1");

        let _: () = operate(&mut operator, end);
        let batches = server.calls("mget");
        support::eventually("commits succeed", Duration::from_secs(10), async || {
            let results = commit_all(&store, &users[..1], &expected[..1], &owners[..1], "t2").await;
            results.iter().all(Result::is_ok)
        })
        .await;
        for result in commit_all(&store, &users[1..], &expected[1..], &owners[1..], "t2").await {
            assert!(matches!(result.unwrap(), CommitResult::Committed));
        }
        assert!(
            server.calls("mget") > batches,
            "the store uses batches again"
        );
        assert_all_read(&users, load_all(&store, &users).await, "t2");
    }
}

#[tokio::test]
async fn steps_fail_as_alone_without_memory() {
    let begin = ["CONFIG", "SET", "maxmemory", "1"];
    while_writes_are_refused(&begin, &["CONFIG", "SET", "maxmemory", "0"], "OOM").await;
}

#[tokio::test]
async fn steps_fail_as_alone_without_replicas() {
    let begin = ["CONFIG", "SET", "min-replicas-to-write", "1"];
    let end = ["CONFIG", "SET", "min-replicas-to-write", "0"];
    while_writes_are_refused(&begin, &end, "NOREPLICAS").await;
}

#[tokio::test]
async fn steps_fail_as_alone_on_a_replica() {
    let nowhere = support::free_port().to_string();
    let begin = ["REPLICAOF", "127.0.0.1", &nowhere];
    while_writes_are_refused(&begin, &["REPLICAOF", "NO", "ONE"], "READONLY").await;
}

/// With `min-replicas-to-write` and a replica, steps are sent in batches.
#[tokio::test]
async fn steps_use_batches_with_enough_replicas() {
    let server = RedisServer::with_options(&["--min-replicas-to-write", "1"]);
    let port = server.port().to_string();
    let replica = RedisServer::with_options(&["--replicaof", "127.0.0.1", &port]);
    for layout in BOTH {
        let (store, users) = (connect_redis(&server, layout).await, users());
        support::eventually("a replica", Duration::from_secs(10), async || {
            let record = record_of(&users[0], "t1");
            store.overwrite(&users[0], &record).await.is_ok()
        })
        .await;
        let expected = store_first(&store, &users).await;
        let batches = server.calls("mget");
        renew_all(&store, &users, &expected, "t2").await;
        assert!(server.calls("mget") > batches);
        // The replica receives the writes of a batch.
        let on_replica = connect_redis(&replica, layout).await;
        support::eventually("a copy", Duration::from_secs(10), async || {
            let read = load_all(&on_replica, &users).await;
            read.into_iter().zip(&users).all(|(read, user)| {
                let token = read.unwrap().record.token;
                token.is_some_and(|token| token.secret.expose() == token_of(user, "t2"))
            })
        })
        .await;
    }
}

/// Lets a server load its data again on another thread, which takes more than a second.
fn reload(server: &RedisServer) -> JoinHandle<()> {
    let mut connection = server.connection();
    std::thread::spawn(move || {
        let _: () = operate(&mut connection, &["DEBUG", "RELOAD"]);
    })
}

#[tokio::test]
async fn reads_and_steps_fail_while_a_server_loads_its_data() {
    let server = RedisServer::with_options(&[
        "--enable-debug-command",
        "yes",
        // Microseconds for each key.
        "--key-load-delay",
        "1000",
        "--loading-process-events-interval-bytes",
        "1024",
    ]);
    let fill = "for i = 1, 1500 do redis.call('SET', 'filler' .. i, string.rep('x', 64)) end";
    let _: () = operate(&mut server.connection(), &["EVAL", fill, "0"]);
    for layout in BOTH {
        let (store, users) = (connect_redis(&server, layout).await, users());
        let expected = store_first(&store, &users).await;
        let owners = owners(&users);
        let reloading = reload(&server);
        support::eventually("LOADING", Duration::from_secs(5), async || {
            let loaded = store.load(&users[0]).await;
            loaded.is_err_and(|error| error.to_string().contains("LOADING"))
        })
        .await;
        // The circuit is open now, and closes after 250 ms.
        tokio::time::sleep(Duration::from_millis(260)).await;
        let refused = load_all(&store, &users).await;
        let alone = Error::store_unavailable("LOADING");
        assert_refused(refused, &alone, "LOADING");
        tokio::time::sleep(Duration::from_millis(260)).await;
        let refused = acquire_all(&store, &users, &expected, &owners).await;
        assert_refused(refused, &alone, "LOADING");
        reloading.join().unwrap();
        support::eventually("reads succeed", Duration::from_secs(5), async || {
            store.load(&users[0]).await.is_ok()
        })
        .await;
        let batches = server.calls("mget");
        renew_all(&store, &users, &expected, "t2").await;
        assert!(
            server.calls("mget") > batches,
            "the store uses batches again"
        );
        assert_all_read(&users, load_all(&store, &users).await, "t2");
    }
}

/// One account has a string in place of a hash. The steps of other accounts are sent in batches
/// nevertheless.
#[tokio::test]
async fn a_hash_of_another_type_stops_no_batches_of_other_accounts() {
    let server = RedisServer::start();
    let names = RedisNames::default().with_appid();
    let builder = RedisStore::builder(&server.url()).names(names);
    let (store, users) = (builder.connect().await.unwrap(), users());
    let expected = store_first(&store, &users).await;
    let wrong = ["SET", "user.wxUserAccessToken.wx2", "no hash"];
    let _: () = operate(&mut server.connection(), &wrong);
    let mut others = users.clone();
    for other in &mut others {
        other.key.app = AppId::new("wx2").unwrap();
    }
    for read in load_all(&store, &others).await {
        let error = read.unwrap_err();
        assert!(error.to_string().contains("another type"), "{error}");
    }
    for result in acquire_all(&store, &others, &expected, &owners(&others)).await {
        let error = result.unwrap_err();
        assert!(error.to_string().contains("another type"), "{error}");
    }
    let batches = (server.calls("mget"), server.calls("hmget"));
    renew_all(&store, &users, &expected, "t2").await;
    assert!(server.calls("mget") > batches.0);
    assert_all_read(&users, load_all(&store, &users).await, "t2");
    assert!(server.calls("hmget") > batches.1);
}
