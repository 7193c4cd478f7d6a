//! Tests of the circuit breaker: a batch that fails counts as one command.

use std::time::Instant;

use super::*;

/// Timeout of a command in these tests: 300 ms.
const COMMAND_TIMEOUT: Duration = Duration::from_millis(300);

async fn connect(server: &RedisServer, layout: Layout) -> RedisStore {
    let builder = RedisStore::builder(&server.url()).layout(layout);
    let builder = builder.command_timeout(COMMAND_TIMEOUT);
    builder.connect().await.unwrap()
}

/// Returns `true` if the metrics show the server as available.
fn is_up(exchanges: &Exchanges, server: &RedisServer) -> bool {
    let name = format!("wechat_store_up{{address=\"{}\"}} ", server.address());
    exchanges.value(&name) == 1
}

/// Checks that each operation has failed because the store was unavailable. Returns the texts of
/// the errors.
#[track_caller]
fn texts<T: std::fmt::Debug>(results: Vec<Result<T, Error>>) -> Vec<String> {
    let errors = results.into_iter().map(Result::unwrap_err);
    let text = |error: Error| {
        assert_eq!(error.kind(), ErrorKind::StoreUnavailable, "{error}");
        error.to_string()
    };
    errors.map(text).collect()
}

async fn is_available_again(store: &RedisStore, users: &[CredentialSlot]) {
    support::eventually("reads succeed", Duration::from_secs(5), async || {
        load_all(store, users).await.iter().all(Result::is_ok)
    })
    .await;
}

#[tokio::test]
async fn a_batch_without_a_reply_fails_as_one_command() {
    let (exchanges, server) = (Exchanges::new(), RedisServer::start());
    let _recording = exchanges.record();
    for layout in BOTH {
        let (store, users) = (connect(&server, layout).await, users());
        let expected = store_first(&store, &users).await;
        assert!(is_up(&exchanges, &server));
        let failed = exchanges.count("failed");
        server.freeze(true);
        let errors = texts(load_all(&store, &users).await);
        // Eight reads are sent alone, and all others in one batch.
        assert_eq!(exchanges.count("failed") - failed, 9);
        assert!(!is_up(&exchanges, &server));
        for error in errors {
            assert!(error.contains("did not reply within 300ms"), "{error}");
        }
        server.freeze(false);
        is_available_again(&store, &users).await;
        assert!(is_up(&exchanges, &server));

        let failed = exchanges.count("failed");
        let owners = owners(&users);
        server.freeze(true);
        let errors = texts(acquire_all(&store, &users, &expected, &owners).await);
        assert_eq!(exchanges.count("failed") - failed, 2);
        for error in errors {
            assert!(error.contains("did not reply within 300ms"), "{error}");
        }
        server.freeze(false);
        is_available_again(&store, &users).await;
        // The server has executed the lost leases meanwhile, and the same owners have them.
        for result in acquire_all(&store, &users, &expected, &owners).await {
            assert!(matches!(result.unwrap(), LeaseResult::Acquired));
        }
    }
}

#[tokio::test]
async fn an_open_circuit_rejects_operations_at_once() {
    let (exchanges, server) = (Exchanges::new(), RedisServer::start());
    let _recording = exchanges.record();
    let (store, users) = (connect(&server, Layout::Hashes).await, users());
    let expected = store_first(&store, &users).await;
    server.freeze(true);
    texts(load_all(&store, &users).await);
    let (failed, started_at) = (exchanges.count("failed"), Instant::now());
    let errors = texts(load_all(&store, &users).await);
    let steps = texts(acquire_all(&store, &users, &expected, &owners(&users)).await);
    // An open circuit rejects commands for 250 ms.
    if started_at.elapsed() < Duration::from_millis(200) {
        for error in errors.iter().chain(&steps) {
            assert!(error.contains("failed a moment ago"), "{error}");
        }
        assert_eq!(exchanges.count("failed"), failed);
    }
    server.freeze(false);
    is_available_again(&store, &users).await;
}

/// A batch succeeds although one of its reads fails, because the server has replied.
#[tokio::test]
async fn an_error_reply_in_a_batch_opens_no_circuit() {
    let (exchanges, server) = (Exchanges::new(), RedisServer::start());
    let _recording = exchanges.record();
    let (store, users) = (connect(&server, Layout::Keys).await, users());
    store_first(&store, &users).await;
    let key = format!("wechat:wx1:user:{}", users[30].key.id);
    let mut connection = server.connection();
    let _: () = operate(&mut connection, &["DEL", &key]);
    let _: () = operate(&mut connection, &["RPUSH", &key, "a list"]);
    let mut read = load_all(&store, &users).await;
    let error = read.remove(30).unwrap_err();
    assert!(error.to_string().contains("another type"), "{error}");
    let others = [&users[..30], &users[31..]].concat();
    assert_all_read(&others, read, "t1");
    // The read of the list was sent again alone.
    assert_eq!(exchanges.count("failed"), 1);
    assert!(is_up(&exchanges, &server));
}

/// A replica that waits for its primary may reply `MASTERDOWN` to every command.
#[tokio::test]
async fn a_batch_that_the_server_rejects_opens_the_circuit() {
    let (exchanges, server) = (Exchanges::new(), RedisServer::start());
    let _recording = exchanges.record();
    for layout in BOTH {
        let (store, users) = (connect(&server, layout).await, users());
        store_first(&store, &users).await;
        let mut connection = server.connection();
        let nowhere = support::free_port().to_string();
        let _: () = operate(
            &mut connection,
            &["CONFIG", "SET", "replica-serve-stale-data", "no"],
        );
        let _: () = operate(&mut connection, &["REPLICAOF", "127.0.0.1", &nowhere]);
        let failed = exchanges.count("failed");
        let errors = texts(load_all(&store, &users).await);
        for error in &errors {
            assert!(
                error.contains("MASTERDOWN") && error.contains("is not ready"),
                "{error}"
            );
        }
        assert_eq!(exchanges.count("failed") - failed, 9);
        assert!(!is_up(&exchanges, &server));
        let _: () = operate(&mut connection, &["REPLICAOF", "NO", "ONE"]);
        is_available_again(&store, &users).await;
        assert_all_read(&users, load_all(&store, &users).await, "t1");
        assert!(is_up(&exchanges, &server));
    }
}
