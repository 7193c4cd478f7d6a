//! Tests of invalidation: a write by one process reaches the others at once. If a message is lost,
//! the bound of the cache still limits staleness.

use std::time::Duration;

use redis::{Commands, Connection};
use tower_wechat::{ErrorKind, RedisStore, UserTokens};

use crate::harness::{Backend, Harness, grant, id, text};
use crate::support::eventually;

crate::for_each_store!(
    a_login_elsewhere_is_known_at_once,
    a_deletion_elsewhere_is_known_at_once,
    a_renewal_elsewhere_is_known_at_once,
    a_login_elsewhere_ends_a_cached_miss,
    concurrent_writes_leave_no_process_behind,
);

/// Lifetime of cache entries, so long that only an invalidation can end it.
const HOUR: Duration = Duration::from_secs(3_600);

/// Maximum time for an invalidation to arrive, 10 s. An idle machine needs milliseconds.
const SOON: Duration = Duration::from_secs(10);

async fn two_processes(harness: &Harness) -> (UserTokens, UserTokens) {
    let process = async || {
        harness
            .process_with(|builder| builder.cache_ttl(HOUR))
            .await
    };
    (process().await, process().await)
}

async fn serves(users: &UserTokens, openid: &str, token: &str) {
    eventually("the newest token is served", SOON, async || {
        let served = users.get(&id(openid)).await;
        served.is_ok_and(|served| text(&served) == token)
    })
    .await;
}

async fn serves_nothing(users: &UserTokens, openid: &str) {
    eventually("the deletion is known", SOON, async || {
        let served = users.get(&id(openid)).await;
        served.is_err_and(|error| error.kind() == ErrorKind::LoginRequired)
    })
    .await;
}

async fn a_login_elsewhere_is_known_at_once(harness: Harness) {
    let (ours, theirs) = two_processes(&harness).await;
    for _ in 0..5 {
        let pair = harness.log_in(&theirs, "oA").await;
        serves(&ours, "oA", &pair.access_token).await;
        let pair = harness.log_in(&ours, "oA").await;
        serves(&theirs, "oA", &pair.access_token).await;
    }
}

async fn a_deletion_elsewhere_is_known_at_once(harness: Harness) {
    let (ours, theirs) = two_processes(&harness).await;
    for _ in 0..5 {
        let pair = harness.log_in(&ours, "oA").await;
        serves(&theirs, "oA", &pair.access_token).await;
        ours.revoke(&id("oA")).await.unwrap();
        serves_nothing(&theirs, "oA").await;
    }
}

async fn a_renewal_elsewhere_is_known_at_once(harness: Harness) {
    let (ours, theirs) = two_processes(&harness).await;
    harness.log_in(&theirs, "oA").await;
    let before = ours.get(&id("oA")).await.unwrap();
    harness.advance(Duration::from_secs(1_000));
    let token = theirs.get(&id("oA")).await.unwrap();
    let renewed = theirs
        .report_invalid(&id("oA"), token.access_token())
        .await
        .unwrap();
    assert!(renewed.lifetime().expires_at() > before.lifetime().expires_at());
    eventually("the renewal is known", SOON, async || {
        let served = ours.get(&id("oA")).await.unwrap();
        served.lifetime() == renewed.lifetime()
    })
    .await;
    assert_eq!(harness.refreshes(), 1);
}

async fn a_login_elsewhere_ends_a_cached_miss(harness: Harness) {
    let (ours, theirs) = two_processes(&harness).await;
    for round in 0..10 {
        let openid = format!("oUser{round}");
        ours.get(&id(&openid)).await.unwrap_err();
        let pair = harness.log_in(&theirs, &openid).await;
        serves(&ours, &openid, &pair.access_token).await;
    }
}

async fn concurrent_writes_leave_no_process_behind(harness: Harness) {
    let (ours, theirs) = two_processes(&harness).await;
    let processes = [ours, theirs];
    for round in 0..30 {
        let mut writes = tokio::task::JoinSet::new();
        for at in 0..6 {
            let (users, reader) = (processes[at % 2].clone(), processes[(at + 1) % 2].clone());
            let mut grant = grant(&harness.simulator.sign_in("oA", "snsapi_base"));
            grant.access_token = format!("t{round}-{at}").as_str().into();
            writes.spawn(async move {
                let user = id("oA");
                match at {
                    2 => users.revoke(&user).await.unwrap(),
                    _ => drop(users.store(&user, &grant).await.unwrap()),
                }
                let _ = reader.get(&user).await;
            });
        }
        writes.join_all().await;
        match harness.stored_token("oA").await {
            Ok(stored) => {
                for users in &processes {
                    serves(users, "oA", &stored).await;
                }
            }
            Err(_) => {
                for users in &processes {
                    serves_nothing(users, "oA").await;
                }
            }
        }
    }
}

/// Returns the number of subscribers to the account's channel.
fn listeners(harness: &Harness, connection: &mut Connection) -> u64 {
    let channel = format!("wechat:{}:news", harness.simulator.app_id());
    let mut ask = redis::cmd("PUBSUB");
    let (_, count): (String, u64) = ask.arg("NUMSUB").arg(channel).query(connection).unwrap();
    count
}

async fn all_listen(harness: &Harness, processes: u64) {
    let mut connection = harness.redis.as_ref().unwrap().connection();
    eventually("the channel is heard", SOON, async || {
        listeners(harness, &mut connection) >= processes
    })
    .await;
}

fn reads(harness: &Harness) -> u64 {
    let redis = harness.redis.as_ref().unwrap();
    redis.calls("hget") + redis.calls("get")
}

/// Runs a test against both layouts, one after the other.
async fn in_both_layouts(test: impl AsyncFn(Harness)) {
    for backend in [Backend::Hashes, Backend::Keys] {
        test(Harness::new(backend).await).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_processs_own_writes_need_no_reads() {
    in_both_layouts(async |harness| {
        let users = harness
            .process_with(|builder| builder.cache_ttl(HOUR))
            .await;
        all_listen(&harness, 1).await;
        let mut missing = 0;
        for at in 0..50 {
            let openid = format!("oUser{at}");
            let pair = harness.log_in(&users, &openid).await;
            // Time for the invalidation to arrive.
            tokio::time::sleep(Duration::from_millis(5)).await;
            match users.cached(&id(&openid)) {
                Some(token) => assert_eq!(text(&token), pair.access_token),
                None => missing += 1,
            }
        }
        // The opening of the subscription ends all cached entries, and an invalidation may end an
        // entry of another user.
        assert!(missing <= 5, "{missing} of 50 logins have to be read again");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_subscription_reconnects_and_catches_up() {
    in_both_layouts(async |harness| {
        let (ours, theirs) = two_processes(&harness).await;
        let mut connection = harness.redis.as_ref().unwrap().connection();
        for _ in 0..3 {
            all_listen(&harness, 2).await;
            let pair = harness.log_in(&theirs, "oA").await;
            serves(&ours, "oA", &pair.access_token).await;
            let killed: u64 = redis::cmd("CLIENT")
                .arg(&["KILL", "TYPE", "pubsub"])
                .query(&mut connection)
                .unwrap();
            assert!(killed >= 2, "{killed}");
            // No process has a subscription when this login is published.
            let pair = harness.log_in(&theirs, "oA").await;
            serves(&ours, "oA", &pair.access_token).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_of_redis_resumes_invalidation() {
    in_both_layouts(async |mut harness| {
        let (ours, theirs) = two_processes(&harness).await;
        harness.log_in(&theirs, "oA").await;
        ours.get(&id("oA")).await.unwrap();
        all_listen(&harness, 2).await;
        let redis = harness.redis.as_mut().unwrap();
        redis.kill();
        redis.run();
        // Redis has lost its data, so no user is logged in.
        serves_nothing(&ours, "oA").await;
        all_listen(&harness, 2).await;
        let pair = harness.log_in(&theirs, "oA").await;
        serves(&ours, "oA", &pair.access_token).await;
        theirs.revoke(&id("oA")).await.unwrap();
        serves_nothing(&ours, "oA").await;
    })
    .await;
}

/// A process that may not subscribe still caches a token no longer than `cache_ttl`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_channel_the_bound_holds() {
    in_both_layouts(async |harness| {
        let redis = harness.redis.as_ref().unwrap();
        let _: () = redis::cmd("ACL")
            .arg(&[
                "SETUSER",
                "deaf",
                "on",
                ">word",
                "~*",
                "+@all",
                "resetchannels",
            ])
            .query(&mut redis.connection())
            .unwrap();
        let restricted = redis.url().replace("redis://", "redis://deaf:word@");
        let process = async |url: &str| {
            let store = harness
                .redis_store_at(url, |builder| builder.exclusive_writer(true))
                .await;
            UserTokens::builder(harness.client(), store)
                .clock(harness.clock.clone())
                .build()
        };
        let (deaf, hearing) = (process(&restricted).await, process(&redis.url()).await);
        all_listen(&harness, 1).await;
        let first = harness.log_in(&hearing, "oA").await;
        serves(&deaf, "oA", &first.access_token).await;
        let second = harness.log_in(&hearing, "oA").await;
        harness.advance(Duration::from_secs(61));
        let served = deaf.get(&id("oA")).await.unwrap();
        assert_eq!(text(&served), second.access_token);
        // The writes of this process reach the store although the process may not publish.
        let third = harness.log_in(&deaf, "oA").await;
        assert_eq!(
            harness.stored_token("oA").await.unwrap(),
            third.access_token
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn foreign_messages_cost_only_reads() {
    in_both_layouts(async |harness| {
        let (ours, theirs) = two_processes(&harness).await;
        all_listen(&harness, 2).await;
        let pair = harness.log_in(&ours, "oA").await;
        serves(&theirs, "oA", &pair.access_token).await;
        let channel = format!("wechat:{}:news", harness.simulator.app_id());
        let mut connection = harness.redis.as_ref().unwrap().connection();
        let garbage: [&[u8]; 8] = [
            b"",
            b"user",
            b"\xff\xfe\x00 - x",
            b"user zz oA",
            b"proof x 18446744073709551615",
            b"user - oA",
            b"user 0000000000000000 oA",
            b"access_token 0000000000000000 ",
        ];
        for _ in 0..20 {
            let mut flood = redis::pipe();
            for _ in 0..50 {
                for message in garbage {
                    flood.publish(&channel, message).ignore();
                }
            }
            let _: () = flood.query(&mut connection).unwrap();
            let _: u64 = connection.publish(&channel, vec![b' '; 100_000]).unwrap();
        }
        serves(&theirs, "oA", &pair.access_token).await;
        let pair = harness.log_in(&ours, "oA").await;
        serves(&theirs, "oA", &pair.access_token).await;
        ours.revoke(&id("oA")).await.unwrap();
        serves_nothing(&theirs, "oA").await;
    })
    .await;
}

/// With an exclusive writer, entries stay in the cache until their renewal point. Redis receives
/// only heartbeats, which prove that no invalidation was missed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exclusive_writer_reads_nothing_from_redis() {
    in_both_layouts(async |harness| {
        const TTL: Duration = Duration::from_secs(2_500);
        let redis = harness.redis.as_ref().unwrap();
        let url = redis.url();
        let store: RedisStore = harness
            .redis_store_at(&url, |builder| builder.exclusive_writer(true))
            .await;
        let users = UserTokens::builder(harness.client(), store)
            .clock(harness.clock.clone())
            .cache_ttl(TTL)
            .build();
        all_listen(&harness, 1).await;
        let openids: Vec<String> = (0..20).map(|at| format!("oUser{at}")).collect();
        for openid in &openids {
            harness.log_in(&users, openid).await;
        }
        let proved = async || {
            let before = redis.calls("publish");
            // The second heartbeat from here was sent after this moment, and the first one has
            // arrived.
            eventually("news is proved complete", SOON, async || {
                redis.calls("publish") >= before + 2
            })
            .await;
        };
        // The opening of the subscription may have ended the cached entries, so each token is read
        // once more.
        proved().await;
        for openid in &openids {
            users.get(&id(openid)).await.unwrap();
        }
        let commands = || reads(&harness) + redis.calls("evalsha") + redis.calls("eval");
        let before = commands();
        // Advances the clocks by more than twice `cache_ttl`. Without heartbeats, the process would
        // read Redis again.
        for _ in 0..3 {
            harness.advance(Duration::from_secs(1_900));
            proved().await;
            for _ in 0..50 {
                for openid in &openids {
                    users.get(&id(openid)).await.unwrap();
                }
            }
        }
        assert_eq!(commands() - before, 0, "commands for 3,000 requests");
        // A deletion by another process still ends the cached entry.
        let other = harness.process().await;
        other.revoke(&id("oUser0")).await.unwrap();
        serves_nothing(&users, "oUser0").await;
    })
    .await;
}

/// Without an exclusive writer, the process caches a token no longer than `cache_ttl`, even while
/// heartbeats arrive.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_of_other_services_are_seen_in_time() {
    let harness = Harness::new(Backend::Hashes).await;
    let users = harness.process().await;
    harness.log_in(&users, "oA").await;
    all_listen(&harness, 1).await;
    let redis = harness.redis.as_ref().unwrap();
    let mut connection = redis.connection();
    for hash in ["user.wxUserAccessToken", "user.wxUserRefreshToken"] {
        let _: u64 = connection.hdel(hash, "oA").unwrap();
    }
    harness.advance(Duration::from_secs(61));
    let error = users.get(&id("oA")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LoginRequired);
}
