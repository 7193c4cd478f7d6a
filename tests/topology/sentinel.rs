//! Tests of a fail-over: a primary with two replicas and three Sentinels.

use std::time::Duration;

use tower_wechat::client::UserTokenResponse;
use tower_wechat::redis::Layout;
use tower_wechat::{RedisStore, UserId, UserTokens, WechatClient};

use crate::harness::LoadHarness;
use crate::support::eventually;
use crate::support::redis_server::RedisServer;
use crate::support::sentinel_group::SentinelGroup;

const A_WHILE: Duration = Duration::from_millis(1_500);

async fn harness_on(group: &SentinelGroup, layout: Layout) -> LoadHarness {
    LoadHarness::start(RedisStore::builder(&group.url("")).layout(layout)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_primary_is_killed_under_load() {
    let mut group = SentinelGroup::start().await;
    let harness = harness_on(&group, Layout::Hashes).await;
    let old = group.primary();
    harness
        .during(async {
            tokio::time::sleep(A_WHILE).await;
            group.servers[old].kill();
            group.fails_over_from(old).await;
            tokio::time::sleep(A_WHILE).await;
        })
        .await;
    harness.serves_again().await;
    harness.during(tokio::time::sleep(A_WHILE)).await;
    harness.balances("Sentinel, primary killed").await;
}

/// Tests a primary that is frozen, so that its connections stay open without replies. When the
/// server resumes, the Sentinels make it a replica.
#[tokio::test(flavor = "multi_thread")]
async fn the_primary_is_frozen_under_load_and_comes_back() {
    let group = SentinelGroup::start().await;
    let harness = harness_on(&group, Layout::Keys).await;
    let old = group.primary();
    harness
        .during(async {
            tokio::time::sleep(A_WHILE).await;
            group.servers[old].freeze(true);
            group.fails_over_from(old).await;
            tokio::time::sleep(A_WHILE).await;
            group.servers[old].freeze(false);
            tokio::time::sleep(A_WHILE).await;
        })
        .await;
    harness.serves_again().await;
    eventually(
        "the old primary follows",
        Duration::from_secs(40),
        async || {
            let Some(mut old) = group.servers[old].try_connection() else {
                return false;
            };
            let role = redis::cmd("ROLE").query(&mut old);
            let role: Vec<redis::Value> = role.unwrap_or_default();
            role.into_iter()
                .next()
                .is_some_and(|role| redis::from_redis_value::<String>(role).unwrap() == "slave")
        },
    )
    .await;
    harness.during(tokio::time::sleep(A_WHILE)).await;
    harness
        .balances("Sentinel, primary frozen, and back later")
        .await;
}

/// Tests that the service continues when an operator changes the primary with `SENTINEL FAILOVER`.
#[tokio::test(flavor = "multi_thread")]
async fn a_manual_failover_under_load() {
    let group = SentinelGroup::start().await;
    let harness = harness_on(&group, Layout::Keys).await;
    let old = group.primary();
    harness
        .during(async {
            tokio::time::sleep(A_WHILE).await;
            let mut failover = redis::cmd("SENTINEL");
            failover
                .arg("FAILOVER")
                .arg(crate::support::sentinel_group::GROUP);
            let () = failover
                .query(&mut group.sentinels[0].connection())
                .unwrap();
            group.fails_over_from(old).await;
            tokio::time::sleep(A_WHILE).await;
        })
        .await;
    harness.serves_again().await;
    harness.balances("Sentinel, primary changed by hand").await;
}

/// Tests that the service continues without Sentinels. When two of them are back, they lead it to a
/// new primary.
#[tokio::test(flavor = "multi_thread")]
async fn sentinels_are_killed_under_load() {
    let mut group = SentinelGroup::start().await;
    let harness = harness_on(&group, Layout::Hashes).await;
    harness
        .during(async {
            for sentinel in &mut group.sentinels {
                tokio::time::sleep(Duration::from_millis(700)).await;
                sentinel.kill();
            }
            tokio::time::sleep(Duration::from_secs(6)).await;
        })
        .await;
    let url = group.url("");
    let refused = RedisStore::connect(&url).await.unwrap_err();
    assert!(refused.to_string().contains("no Sentinel of"), "{refused}");
    // Two of three Sentinels can agree on a new primary. The first one in the URL stays down.
    group.sentinels[1].run();
    group.sentinels[2].run();
    let old = group.primary();
    harness
        .during(async {
            group.servers[old].kill();
            group.fails_over_from(old).await;
            tokio::time::sleep(A_WHILE).await;
        })
        .await;
    harness.serves_again().await;
    harness
        .balances("Sentinel, all Sentinels killed, later two are back and the primary is killed")
        .await;
}

/// Two servers and a Sentinel that the test reconfigures. No connection to the former primary is
/// closed.
struct SentinelHarness {
    first: RedisServer,
    second: RedisServer,
    sentinel: RedisServer,
}

impl SentinelHarness {
    fn start() -> Self {
        let first = RedisServer::start();
        let port = first.port().to_string();
        let second = RedisServer::with_options(&["--replicaof", "127.0.0.1", &port]);
        let sentinel =
            RedisServer::sentinel(&format!("sentinel monitor main 127.0.0.1 {port} 1\n"));
        Self {
            first,
            second,
            sentinel,
        }
    }

    async fn store(&self) -> RedisStore {
        let url = format!("redis+sentinel://{}/main", self.sentinel.address());
        let builder = RedisStore::builder(&url).layout(Layout::Keys);
        builder.connect().await.unwrap()
    }

    /// Makes the second server the primary, and makes the Sentinel name it. The first server stays
    /// as it is.
    fn switch(&self) {
        let ask = |server: &RedisServer, words: &[&str]| {
            let () = redis::cmd(words[0])
                .arg(&words[1..])
                .query(&mut server.connection())
                .unwrap();
        };
        let port = self.second.port().to_string();
        ask(&self.second, &["REPLICAOF", "NO", "ONE"]);
        ask(&self.sentinel, &["SENTINEL", "REMOVE", "main"]);
        ask(
            &self.sentinel,
            &["SENTINEL", "MONITOR", "main", "127.0.0.1", &port, "1"],
        );
    }

    fn demote_the_first(&self) {
        let port = self.second.port().to_string();
        let mut follow = redis::cmd("REPLICAOF");
        let () = follow
            .arg("127.0.0.1")
            .arg(port)
            .query(&mut self.first.connection())
            .unwrap();
    }

    fn keys_of_the_second(&self) -> usize {
        redis::cmd("DBSIZE")
            .query(&mut self.second.connection())
            .unwrap()
    }
}

async fn sign_in(users: &UserTokens, user: &str) -> Result<(), tower_wechat::Error> {
    let grant = UserTokenResponse::new("token")
        .expires_in(7_200)
        .refresh_token("r");
    let put = users.store(&UserId::new(user).unwrap(), &grant).await;
    put.map(|_| ())
}

fn users_of(store: RedisStore) -> UserTokens {
    UserTokens::new(WechatClient::new("wx0", "secret").unwrap(), store)
}

/// The first server becomes a replica and rejects a write without executing it. The store sends the
/// command to the new primary, and the caller gets no error.
#[tokio::test(flavor = "multi_thread")]
async fn a_write_rejected_by_a_replica_goes_to_the_primary() {
    let harness = SentinelHarness::start();
    let users = users_of(harness.store().await);
    sign_in(&users, "oBefore").await.unwrap();
    harness.switch();
    harness.demote_the_first();
    sign_in(&users, "oAfter").await.unwrap();
    eventually("the login is there", Duration::from_secs(20), async || {
        harness.keys_of_the_second() > 0
    })
    .await;
    users.health().await.unwrap();
}

/// The first server stays a primary, and the Sentinel names another one. The store asks the
/// Sentinel every few seconds and leaves the first server.
#[tokio::test(flavor = "multi_thread")]
async fn an_isolated_primary_is_left_within_seconds() {
    let harness = SentinelHarness::start();
    let users = users_of(harness.store().await);
    harness.switch();
    let mut logins = 0;
    eventually(
        "logins reach the new primary",
        Duration::from_secs(40),
        async || {
            logins += 1;
            sign_in(&users, &format!("oUser{logins}")).await.unwrap();
            harness.keys_of_the_second() > 0
        },
    )
    .await;
}
