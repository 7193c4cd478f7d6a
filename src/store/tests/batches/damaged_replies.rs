//! Tests of connections that break in the middle of a batch: no caller gets a wrong record, and no
//! renewal is lost.

use super::support::proxy::{Proxy, Weather};
use super::*;

/// Each piece of a reply is cut in the middle, and the connection closes.
const TRUNCATE_ALL: Weather = Weather {
    truncate: 1_000,
    ..Weather::CALM
};

/// Some pieces are late, and some connections break.
const STORM: Weather = Weather {
    delay: 200,
    longest_delay: Duration::from_millis(20),
    cut: 100,
    truncate: 100,
    blackhole: 0,
};

async fn connect_through(proxy: &Proxy, layout: Layout) -> RedisStore {
    let builder = RedisStore::builder(&format!("redis://{}/", proxy.address()));
    builder.layout(layout).connect().await.unwrap()
}

/// Checks that an operation failed because the store was unavailable.
#[track_caller]
fn assert_unavailable(error: &Error) {
    assert_eq!(error.kind(), ErrorKind::StoreUnavailable, "{error}");
}

async fn is_available_again(store: &RedisStore, users: &[CredentialSlot]) {
    support::eventually("reads succeed", Duration::from_secs(10), async || {
        load_all(store, users).await.iter().all(Result::is_ok)
    })
    .await;
}

/// Commits a record of each user, until all have this generation. Checks that each commit that the
/// server has executed before finds its own record.
async fn commit_until_done(
    store: &RedisStore,
    users: &[CredentialSlot],
    expected: &[Expected],
    owners: &[LeaseOwner],
    generation: &str,
) {
    let results = commit_all(store, users, expected, owners, generation).await;
    for (user, result) in users.iter().zip(results) {
        match result.unwrap() {
            CommitResult::Committed => {}
            CommitResult::Conflict(now) => {
                let token = now.record.token.unwrap().secret;
                assert_eq!(token.expose(), token_of(user, generation));
            }
            CommitResult::LeaseLost => panic!("the lease of {:?}", user.key),
        }
    }
}

#[tokio::test]
async fn half_a_reply_is_no_reply() {
    let server = RedisServer::start();
    let proxy = Proxy::start(&server.address(), 7).await;
    for layout in BOTH {
        let (store, users) = (connect_through(&proxy, layout).await, users());
        let expected = store_first(&store, &users).await;
        let owners = owners(&users);
        for result in acquire_all(&store, &users, &expected, &owners).await {
            assert!(matches!(result.unwrap(), LeaseResult::Acquired));
        }
        proxy.weather(TRUNCATE_ALL);
        // Eight reads are sent alone, and the others in a batch, of whose reply a part is missing.
        for read in load_all(&store, &users).await.split_off(8) {
            assert_unavailable(&read.unwrap_err());
        }
        proxy.weather(Weather::CALM);
        is_available_again(&store, &users).await;

        proxy.weather(TRUNCATE_ALL);
        let results = commit_all(&store, &users, &expected, &owners, "t2").await;
        for result in results.into_iter().skip(1) {
            assert_unavailable(&result.unwrap_err());
        }
        proxy.weather(Weather::CALM);
        is_available_again(&store, &users).await;
        commit_until_done(&store, &users, &expected, &owners, "t2").await;
        assert_all_read(&users, load_all(&store, &users).await, "t2");
    }
}

#[tokio::test]
async fn reads_in_a_storm_return_the_right_records() {
    let server = RedisServer::start();
    let proxy = Proxy::start(&server.address(), 11).await;
    for layout in BOTH {
        let (store, users) = (connect_through(&proxy, layout).await, users());
        store_first(&store, &users).await;
        proxy.weather(STORM);
        let (mut read, mut failed) = (0, 0);
        for _ in 0..30 {
            for (user, result) in users.iter().zip(load_all(&store, &users).await) {
                match result {
                    Ok(stored) => {
                        let token = stored.record.token.expect("a token").secret;
                        assert_eq!(token.expose(), token_of(user, "t1"));
                        read += 1;
                    }
                    Err(error) => {
                        assert_unavailable(&error);
                        failed += 1;
                    }
                }
            }
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
        assert!(read > 0 && failed > 0, "{read} read, {failed} failed");
        proxy.weather(Weather::CALM);
        is_available_again(&store, &users).await;
    }
}

#[tokio::test]
async fn renewals_in_a_storm_are_not_lost() {
    let server = RedisServer::start();
    let proxy = Proxy::start(&server.address(), 13).await;
    for layout in BOTH {
        let (store, users) = (connect_through(&proxy, layout).await, users());
        let expected = store_first(&store, &users).await;
        let owners = owners(&users);
        proxy.weather(STORM);
        for _ in 0..8 {
            for result in acquire_all(&store, &users, &expected, &owners).await {
                match result {
                    Ok(result) => assert!(matches!(result, LeaseResult::Acquired), "{result:?}"),
                    Err(error) => assert_unavailable(&error),
                }
            }
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
        for result in commit_all(&store, &users, &expected, &owners, "t2").await {
            match result {
                Ok(result) => assert!(!matches!(result, CommitResult::LeaseLost)),
                Err(error) => assert_unavailable(&error),
            }
        }
        proxy.weather(Weather::CALM);
        is_available_again(&store, &users).await;
        commit_until_done(&store, &users, &expected, &owners, "t2").await;
        assert_all_read(&users, load_all(&store, &users).await, "t2");
    }
}

/// The server is killed while batches are under way, and comes back without data.
#[tokio::test]
async fn operations_of_a_killed_server_fail() {
    for layout in BOTH {
        let mut server = RedisServer::start();
        let (store, users) = (connect_redis(&server, layout).await, users());
        let expected = store_first(&store, &users).await;
        let running = async {
            let owners = owners(&users);
            let mut failed = 0;
            while failed < 3 {
                let (read, leases) = tokio::join!(
                    load_all(&store, &users),
                    acquire_all(&store, &users, &expected, &owners),
                );
                let errors = read.into_iter().filter_map(Result::err);
                let errors: Vec<_> = errors
                    .chain(leases.into_iter().filter_map(Result::err))
                    .collect();
                errors.iter().for_each(assert_unavailable);
                failed += u32::from(!errors.is_empty());
                tokio::task::yield_now().await;
            }
        };
        let killing = async {
            tokio::time::sleep(Duration::from_millis(30)).await;
            server.kill();
        };
        tokio::join!(running, killing);
        server.run();
        is_available_again(&store, &users).await;
        let read = load_all(&store, &users).await;
        assert!(
            read.iter()
                .all(|read| read.as_ref().unwrap().record.is_empty())
        );
        let expected = store_first(&store, &users).await;
        let batches = server.calls("mget");
        renew_all(&store, &users, &expected, "t2").await;
        assert!(server.calls("mget") > batches);
    }
}
