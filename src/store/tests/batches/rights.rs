//! Tests of servers that do not let the store send batches, or not with `PUBLISH`. Each operation is
//! then sent alone.

use super::support::old_proxy::{Manner, OldProxy};
use super::twins::Subscriber;
use super::*;

/// Returns how many calls of a command the server has rejected before it ran them.
fn rejected(server: &RedisServer, command: &str) -> u64 {
    let info: String = operate(&mut server.connection(), &["INFO", "commandstats"]);
    let name = format!("cmdstat_{command}:");
    let line = info.lines().find(|line| line.starts_with(&name));
    let count = line.and_then(|line| {
        line.split("rejected_calls=")
            .nth(1)?
            .split(',')
            .next()?
            .parse()
            .ok()
    });
    count.unwrap_or(0)
}

async fn connect(url: &str, layout: Layout) -> RedisStore {
    RedisStore::builder(url)
        .layout(layout)
        .connect()
        .await
        .unwrap()
}

/// Reads and renews the tokens of all users twice.
async fn assert_works(store: &RedisStore) {
    let users = users();
    let mut expected = store_first(store, &users).await;
    for generation in ["t2", "t3"] {
        renew_all(store, &users, &expected, generation).await;
        let read = load_all(store, &users).await;
        let values = read
            .iter()
            .map(|read| read.as_ref().unwrap().expected.clone());
        expected = values.collect();
        assert_all_read(&users, read, generation);
    }
}

#[tokio::test]
async fn a_user_without_hmget_reads_alone() {
    let server = RedisServer::start();
    let url = create_user(&server, &["~*", "&*", "+@all", "-hmget"]);
    let store = connect(&url, Layout::Hashes).await;
    assert_works(&store).await;
    assert_eq!(server.calls("hmget"), 0);
    // The first batch of reads and the first one of steps were rejected. No batch followed.
    let (of_reads, of_steps) = (2, 1);
    assert!(rejected(&server, "hmget") <= of_reads + of_steps);
    assert_works(&store).await;
    assert!(rejected(&server, "hmget") <= of_reads + of_steps);
}

#[tokio::test]
async fn a_user_without_mget_sends_steps_alone() {
    let server = RedisServer::start();
    let url = create_user(&server, &["~*", "&*", "+@all", "-mget"]);
    for layout in BOTH {
        let store = connect(&url, layout).await;
        let before = rejected(&server, "mget");
        assert_works(&store).await;
        assert_works(&store).await;
        assert_eq!(server.calls("mget"), 0);
        // The first batch was rejected, and no batch followed.
        let rejections = rejected(&server, "mget") - before;
        assert!(rejections <= 1, "{rejections}");
    }
}

/// Reads do not need `MGET`, and steps in the key layout do not need `HMGET`.
#[tokio::test]
async fn a_missing_right_stops_only_the_batches_that_need_it() {
    let server = RedisServer::start();
    let url = create_user(&server, &["~*", "&*", "+@all", "-mget"]);
    let (store, users) = (connect(&url, Layout::Hashes).await, users());
    store_first(&store, &users).await;
    assert_all_read(&users, load_all(&store, &users).await, "t1");
    assert!(server.calls("hmget") > 0);
    let url = create_user(&server, &["~*", "&*", "+@all", "-hmget"]);
    assert_works(&connect(&url, Layout::Keys).await).await;
    assert!(server.calls("mget") > 0);
}

/// The batch of a user who may not read the keys of one account contains reads of two accounts.
#[tokio::test]
async fn a_forbidden_account_fails_alone() {
    let server = RedisServer::start();
    let names = RedisNames::default().with_appid();
    let connect = async |url: &str| {
        let builder = RedisStore::builder(url).names(names.clone());
        builder.connect().await.unwrap()
    };
    let (store, mine) = (connect(&server.url()).await, users());
    let mut foreign = mine.clone();
    for slot in &mut foreign {
        slot.key.app = AppId::new("wx2").unwrap();
    }
    store_first(&store, &mine).await;
    let expected = store_first(&store, &foreign).await;
    let rights = ["~*wx1*", "~wechat:[^w]*", "&*", "+@all"];
    let store = connect(&create_user(&server, &rights)).await;
    let both: Vec<_> = [mine.clone(), foreign.clone()].concat();
    let mut read = load_all(&store, &both).await;
    for read in read.split_off(mine.len()) {
        let error = read.unwrap_err();
        assert!(error.to_string().contains("NOPERM"), "{error}");
    }
    assert_all_read(&mine, read, "t1");
    for result in acquire_all(&store, &foreign, &expected, &owners(&foreign)).await {
        let error = result.unwrap_err();
        assert!(error.to_string().contains("NOPERM"), "{error}");
    }
}

/// The password of the user changes for a while. The store uses batches again afterwards.
#[tokio::test]
async fn a_wrong_password_stops_no_batches() {
    let server = RedisServer::start();
    for layout in BOTH {
        let url = create_user(&server, &["~*", "&*", "+@all"]);
        let (store, users) = (connect(&url, layout).await, users());
        let expected = store_first(&store, &users).await;
        let mut operator = server.connection();
        let _: () = operate(
            &mut operator,
            &["ACL", "SETUSER", "app", "resetpass", ">other"],
        );
        let _: u64 = operate(&mut operator, &["CLIENT", "KILL", "USER", "app"]);
        support::eventually("a rejection", Duration::from_secs(5), async || {
            let leases = acquire_all(&store, &users, &expected, &owners(&users)).await;
            let is_rejected = |error: &Error| error.to_string().contains("password");
            load_all(&store, &users).await.iter().all(Result::is_err)
                && leases
                    .iter()
                    .all(|lease| lease.as_ref().is_err_and(is_rejected))
        })
        .await;
        let _: () = operate(&mut operator, &["ACL", "SETUSER", "app", ">word"]);
        support::eventually("reads succeed", Duration::from_secs(10), async || {
            load_all(&store, &users).await.iter().all(Result::is_ok)
        })
        .await;
        let batches = (server.calls("mget"), server.calls("hmget"));
        renew_all(&store, &users, &expected, "t2").await;
        assert!(server.calls("mget") > batches.0);
        assert_all_read(&users, load_all(&store, &users).await, "t2");
        assert_eq!(server.calls("hmget") > batches.1, layout == Layout::Hashes);
    }
}

/// The proxy rejects each script that does not name its keys literally, as those of batches.
#[tokio::test]
async fn scripts_of_batches_may_be_rejected() {
    let server = RedisServer::start();
    let proxy = OldProxy::start(&server.address(), Manner::ChecksScripts).await;
    for layout in BOTH {
        let url = format!("redis://{}/", proxy.address());
        assert_works(&connect(&url, layout).await).await;
        assert_eq!(server.calls("mget"), 0);
    }
    assert!(proxy.received("refused") > 0);
}

/// Scripts on this server cannot call `PUBLISH`. A separate command publishes each commit.
#[tokio::test]
async fn commits_of_a_batch_are_published_apart() {
    let server = RedisServer::with_options(&["--rename-command", "PUBLISH", "XPUBLSH"]);
    let proxy = OldProxy::start(&server.address(), Manner::RenamesPublish).await;
    for layout in BOTH {
        let url = format!("redis://{}/", proxy.address());
        let (store, users) = (connect(&url, layout).await, users());
        let expected = store_first(&store, &users).await;
        let mut subscriber = Subscriber::new(&server);
        let batches = server.calls("mget");
        renew_all(&store, &users, &expected, "t2").await;
        assert!(server.calls("mget") > batches);
        let messages = subscriber.messages("XPUBLSH");
        assert_eq!(messages.len(), MANY, "{messages:?}");
        for user in &users {
            let id = &user.key.id;
            let named = messages.iter().filter(|message| message.contains(&**id));
            assert!(named.count() >= 1, "{id} in {messages:?}");
        }
    }
}
