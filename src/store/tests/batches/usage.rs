//! Tests that concurrent operations are sent in batches, and single operations alone.

use super::*;

/// Returns how often the server has run each of these commands, in scripts too.
fn calls<const N: usize>(server: &RedisServer, commands: [&str; N]) -> [u64; N] {
    commands.map(|command| server.calls(command))
}

fn difference<const N: usize>(before: [u64; N], after: [u64; N]) -> [u64; N] {
    std::array::from_fn(|at| after[at] - before[at])
}

#[tokio::test]
async fn concurrent_reads_are_one_exchange() {
    let (exchanges, server) = (Exchanges::new(), RedisServer::start());
    let _recording = exchanges.record();
    for layout in BOTH {
        let (store, users) = (connect_redis(&server, layout).await, users());
        store_first(&store, &users).await;
        let before = calls(&server, ["get", "hget", "hmget"]);
        let exchanges_before = exchanges.count("ok");
        assert_all_read(&users, load_all(&store, &users).await, "t1");
        // Eight reads are sent alone, and all others in one batch.
        assert_eq!(exchanges.count("ok") - exchanges_before, 9);
        let sent = difference(before, calls(&server, ["get", "hget", "hmget"]));
        match layout {
            Layout::Hashes => assert_eq!(sent, [0, 16, 2]),
            Layout::Keys => assert_eq!(sent, [MANY as u64, 0, 0]),
        }
    }
}

#[tokio::test]
async fn single_reads_are_not_delayed() {
    let (exchanges, server) = (Exchanges::new(), RedisServer::start());
    let _recording = exchanges.record();
    for layout in BOTH {
        let (store, users) = (connect_redis(&server, layout).await, users());
        store_first(&store, &users).await;
        let before = (exchanges.count("ok"), server.calls("hmget"));
        for user in &users {
            store.load(user).await.unwrap();
        }
        // The limit is eight reads at the same time.
        for users in users.chunks(8) {
            load_all(&store, users).await;
        }
        let after = (exchanges.count("ok"), server.calls("hmget"));
        assert_eq!(after.0 - before.0, 2 * MANY as u64);
        assert_eq!(after.1, before.1);
    }
}

#[tokio::test]
async fn concurrent_steps_are_one_script() {
    let (exchanges, server) = (Exchanges::new(), RedisServer::start());
    let _recording = exchanges.record();
    for layout in BOTH {
        let (store, users) = (connect_redis(&server, layout).await, users());
        let expected = store_first(&store, &users).await;
        let before = calls(&server, ["mget", "hmget", "publish"]);
        let exchanges_before = exchanges.count("ok");
        renew_all(&store, &users, &expected, "t2").await;
        // One lease is sent alone, and so is one commit, unless it follows at once on the batch of
        // leases. All others are sent in two batches.
        let sent = exchanges.count("ok") - exchanges_before;
        assert!((3..=4).contains(&sent), "{sent}");
        let sent = difference(before, calls(&server, ["mget", "hmget", "publish"]));
        let published = MANY as u64;
        match layout {
            // One `HMGET` reads each hash, and one `MGET` the leases of the commits.
            Layout::Hashes => assert_eq!(sent, [1, 4, published]),
            // One `MGET` reads the values of each batch, and one the leases of the commits.
            Layout::Keys => assert_eq!(sent, [3, 0, published]),
        }
        assert_all_read(&users, load_all(&store, &users).await, "t2");
    }
}

#[tokio::test]
async fn a_single_renewal_is_not_delayed() {
    let server = RedisServer::start();
    for layout in BOTH {
        let (store, users) = (connect_redis(&server, layout).await, users());
        let expected = store_first(&store, &users).await;
        for at in 0..users.len() {
            renew_all(&store, &users[at..=at], &expected[at..=at], "t2").await;
        }
        assert_all_read(&users, load_all(&store, &users).await, "t2");
        assert_eq!(server.calls("mget"), 0);
    }
}

/// A server loses its scripts in a restart, and by `SCRIPT FLUSH`.
#[tokio::test]
async fn forgotten_scripts_are_sent_again() {
    let server = RedisServer::start();
    for layout in BOTH {
        let (store, users) = (connect_redis(&server, layout).await, users());
        let mut expected = store_first(&store, &users).await;
        for generation in ["t2", "t3", "t4"] {
            let batches = server.calls("mget");
            renew_all(&store, &users, &expected, generation).await;
            assert!(server.calls("mget") > batches, "{generation}");
            let read = load_all(&store, &users).await;
            let values = read
                .iter()
                .map(|read| read.as_ref().unwrap().expected.clone());
            expected = values.collect();
            assert_all_read(&users, read, generation);
            let _: () = operate(&mut server.connection(), &["SCRIPT", "FLUSH"]);
        }
    }
}

/// A step of a dual write has two leases, and is sent alone. Its reads are sent in batches.
#[tokio::test]
async fn a_dual_write_sends_each_step_alone() {
    let server = RedisServer::start();
    let store = connect_dual_write(&server, Layout::Hashes, Layout::Keys).await;
    let users = users();
    let expected = store_first(&store, &users).await;
    renew_all(&store, &users, &expected, "t2").await;
    assert_eq!(server.calls("mget"), 0);
    assert_all_read(&users, load_all(&store, &users).await, "t2");
    assert!(server.calls("hmget") > 0);
}
