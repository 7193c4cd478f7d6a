//! Tests of replies that are late: because of a large value, or because the server does not answer.

use std::time::Instant;

use ::redis::Commands;

use super::support::proxy::Proxy;
use super::*;

/// Timeout of the callers: 100 ms.
const TIMEOUT: Duration = Duration::from_millis(100);

/// Maximum time until all callers have timed out, on a busy machine.
const SOON: Duration = Duration::from_millis(600);

/// Checks that each of many reads times out soon after its own timeout. Eight of them are sent
/// alone, and the others in a batch.
async fn assert_timeouts(store: &RedisStore, users: &[CredentialSlot]) {
    let started_at = Instant::now();
    let reads = users.iter();
    let reads = reads.map(|user| Manner::VisitAndAccept.read(store, user, TIMEOUT));
    for end in join_all(reads).await {
        assert_eq!(end, ReadEnd::TimedOut);
    }
    let took = started_at.elapsed();
    assert!((TIMEOUT..SOON).contains(&took), "{took:?}");
}

#[tokio::test]
async fn reads_time_out_while_their_batch_hangs() {
    let server = RedisServer::start();
    for layout in BOTH {
        let (store, users) = (connect_redis(&server, layout).await, users());
        store_first(&store, &users).await;
        let _: () = operate(&mut server.connection(), &["CLIENT", "PAUSE", "700", "ALL"]);
        assert_timeouts(&store, &users).await;
        // The batch that hangs does not hold up the next reads, which time out too.
        assert_timeouts(&store, &users).await;
        // The reads that wait longer get their replies.
        assert_all_read(&users, load_all(&store, &users).await, "t1");
    }
}

#[tokio::test]
async fn reads_time_out_while_replies_are_held_back() {
    let server = RedisServer::start();
    let proxy = Proxy::start(&server.address(), 1).await;
    for layout in BOTH {
        let builder = RedisStore::builder(&format!("redis://{}/", proxy.address()));
        let (store, users) = (builder.layout(layout).connect().await.unwrap(), users());
        store_first(&store, &users).await;
        proxy.silent(true);
        assert_timeouts(&store, &users).await;
        proxy.silent(false);
        assert_all_read(&users, load_all(&store, &users).await, "t1");
    }
}

/// The second read of a record without ids has what is left of the caller's time.
#[tokio::test]
async fn the_read_of_a_logout_times_out_in_time() {
    let server = RedisServer::start();
    let (store, users) = (connect_redis(&server, Layout::Keys).await, users());
    for user in &users {
        let mut record = record_of(user, "t1");
        record.details = UserDetails::default();
        store.overwrite(user, &record).await.unwrap();
    }
    let minute = Duration::from_secs(60);
    let reads = users.iter();
    let reads = reads.map(|user| Manner::VisitAndAccept.read(&store, user, minute));
    for end in join_all(reads).await {
        assert!(matches!(end, ReadEnd::Accepted(_)), "{end:?}");
    }
    let _: () = operate(&mut server.connection(), &["CLIENT", "PAUSE", "700", "ALL"]);
    assert_timeouts(&store, &users).await;
}

/// A value of several megabytes delays the other replies of its batch, and mixes none of them up.
#[tokio::test]
async fn a_huge_value_among_small_ones_is_read() {
    let server = RedisServer::start();
    for layout in BOTH {
        let builder = RedisStore::builder(&server.url()).layout(layout);
        let builder = builder.command_timeout(Duration::from_secs(10));
        let (store, users) = (builder.connect().await.unwrap(), users());
        store_first(&store, &users).await;
        let huge = vec![b'x'; 12 << 20];
        let mut connection = server.connection();
        match layout {
            Layout::Hashes => {
                let hash = "user.wxUserAccessToken";
                let () = connection.hset(hash, &*users[30].key.id, &huge).unwrap();
            }
            Layout::Keys => {
                let key = format!("wechat:wx1:user:{}", users[30].key.id);
                let () = connection.set(key, &huge).unwrap();
            }
        }
        let started_at = Instant::now();
        let mut read = load_all(&store, &users).await;
        let took = started_at.elapsed();
        let unreadable = read.remove(30).unwrap();
        assert!(unreadable.record.token.is_none());
        assert_eq!(unreadable.expected.0[0].as_ref().unwrap().len(), huge.len());
        let others = [&users[..30], &users[31..]].concat();
        assert_all_read(&others, read, "t1");
        assert!(took < Duration::from_secs(5), "{took:?}");
        // The huge value is replaced in a batch.
        let expected = load_all(&store, &users).await.into_iter();
        let expected: Vec<_> = expected.map(|read| read.unwrap().expected).collect();
        renew_all(&store, &users, &expected, "t2").await;
        assert_all_read(&users, load_all(&store, &users).await, "t2");
    }
}
