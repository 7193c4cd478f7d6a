//! Tests of error replies of Redis, temporary and lasting: which users are served, and what
//! `/healthz` reports.

use std::time::Duration;

use redis::Connection;
use tower_wechat::client::UserTokenResponse;
use tower_wechat::{ErrorKind, RedisStore, UserId, UserTokens, WechatClient};

use crate::mistakes::refused;
use crate::support::demo_process::DemoProcess;
use crate::support::eventually;
use crate::support::free_port;
use crate::support::harness::{Age, Harness, Layout};
use crate::support::http_client::{Answer, Asked};
use crate::support::proxy::Proxy;
use crate::support::redis_server::RedisServer;

/// Maximum time until all requests succeed after the end of a fault, 5 s.
const RECOVERY: Duration = Duration::from_secs(5);

async fn healthz(demo: &DemoProcess) -> Answer {
    demo.ask(Asked::get("/healthz")).await
}

fn run(server: &mut Connection, words: &[&str]) {
    let _: redis::Value = redis::cmd(words[0]).arg(&words[1..]).query(server).unwrap();
}

/// A server serves reads and rejects writes, for one of six reasons. The demo serves stored tokens
/// and names the reason in `/healthz`.
#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_server_is_not_ready_and_serves_tokens() {
    for layout in Layout::BOTH {
        let options = ["--save", "900", "1", "--appendonly", "no"];
        let harness = Harness::on(RedisServer::with_options(&options), layout).await;
        harness.sign_in("oExpired", Age::Expired).await;
        harness.sign_in("oReader", Age::Fresh).await;
        let demo = harness.demo().await;
        let nowhere = free_port().to_string();
        let folder = harness.redis.process().1.to_owned();
        let mut operator = harness.connection();
        run(&mut operator, &["CONFIG", "SET", "save", "900 1"]);
        for (reason, begin, end) in [
            (
                "memory of Redis is full",
                &["CONFIG", "SET", "maxmemory", "1"][..],
                &["CONFIG", "SET", "maxmemory", "0"][..],
            ),
            (
                "too few replicas",
                &["CONFIG", "SET", "min-replicas-to-write", "1"],
                &["CONFIG", "SET", "min-replicas-to-write", "0"],
            ),
            (
                "is a replica",
                &["REPLICAOF", "127.0.0.1", &nowhere],
                &["REPLICAOF", "NO", "ONE"],
            ),
            (
                "does not let this user",
                &["ACL", "SETUSER", "default", "-set", "-evalsha", "-eval"],
                &["ACL", "SETUSER", "default", "+@all"],
            ),
            (
                "does not let this user",
                &["ACL", "SETUSER", "default", "-@scripting"],
                &["ACL", "SETUSER", "default", "+@all"],
            ),
            (
                "cannot save to disk",
                &["BGSAVE"],
                &["CONFIG", "SET", "stop-writes-on-bgsave-error", "no"],
            ),
        ] {
            eventually("ready", RECOVERY, async || {
                healthz(&demo).await.status == 200
            })
            .await;
            let ready = healthz(&demo).await;
            assert_eq!(ready.field("serves"), "everyone", "{ready:?}");
            assert!(ready.json().get("reason").is_none(), "{ready:?}");
            if begin == ["BGSAVE"] {
                std::fs::remove_dir_all(&folder).unwrap();
            }
            run(&mut operator, begin);
            eventually(reason, Duration::from_secs(5), async || {
                healthz(&demo).await.status == 503
            })
            .await;
            let health = healthz(&demo).await;
            assert_eq!(health.field("status"), "unavailable", "{health:?}");
            assert_eq!(health.field("store"), "store_unavailable", "{health:?}");
            assert_eq!(health.field("serves"), "stored_tokens", "{health:?}");
            assert!(
                health.field("reason").contains(reason),
                "{reason}: {health:?}"
            );
            assert!(!health.text.contains("127.0.0.1"), "{health:?}");
            let refused = demo.me("oExpired").await;
            refused.is_rejected(503, "store_unavailable");
            assert_eq!(demo.me("oReader").await.status, 200, "{reason}");
            // A process that starts meanwhile serves the same users and reports the same.
            if reason != "does not let this user" {
                let another = harness.demo().await;
                assert_eq!(another.me("oReader").await.status, 200, "{reason}");
                assert_eq!(healthz(&another).await.field("serves"), "stored_tokens");
            }
            run(&mut operator, end);
        }
        eventually("all is well", RECOVERY, async || {
            healthz(&demo).await.status == 200 && demo.me("oExpired").await.status == 200
        })
        .await;
        std::fs::create_dir_all(&folder).unwrap();
    }
}

/// 300 health checks cost Redis one command each second, and not one for each check.
#[tokio::test(flavor = "multi_thread")]
async fn health_checks_cost_one_command_a_second() {
    let harness = Harness::new(Layout::Keys).await;
    let demo = harness.demo().await;
    assert_eq!(healthz(&demo).await.status, 200);
    let before = harness.redis.calls("set");
    let began = std::time::Instant::now();
    for _ in 0..300 {
        assert_eq!(healthz(&demo).await.status, 200);
    }
    let seconds = began.elapsed().as_secs() + 2;
    let asked = harness.redis.calls("set") - before;
    assert!(asked <= seconds, "{asked} times in {seconds} s");
}

/// A Lua script that runs until it is killed. Redis replies `BUSY` to other commands meanwhile.
struct Endless {
    thread: std::thread::JoinHandle<()>,
    /// The connection that kills the script. The test opens it before the script runs, because a
    /// busy server may reject new connections.
    operator: Connection,
}

impl Endless {
    async fn begin(server: &RedisServer) -> Self {
        let (mut connection, mut operator) = (server.connection(), server.connection());
        let thread = std::thread::spawn(move || {
            let _: Result<(), _> = redis::cmd("EVAL")
                .arg("while true do end")
                .arg(0)
                .query(&mut connection);
        });
        eventually("Redis is busy", Duration::from_secs(10), async || {
            let mut get = redis::cmd("GET");
            let answer = get.arg("x").query::<redis::Value>(&mut operator);
            answer.is_err_and(|error| error.code() == Some("BUSY"))
        })
        .await;
        Self { thread, operator }
    }

    fn end(mut self) {
        run(&mut self.operator, &["SCRIPT", "KILL"]);
        self.thread.join().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endless_script_is_not_taken_for_lost_rights() {
    let server = RedisServer::with_options(&["--lua-time-limit", "50"]);
    let mut harness = Harness::on(server, Layout::Keys).await;
    let proxy = Proxy::start(&harness.redis.address(), 1).await;
    let url = format!("redis://{}/", proxy.address());
    harness.variables = vec![("REDIS_URL".to_owned(), url.clone())];
    harness.sign_in("oUser", Age::Fresh).await;
    let demo = harness.demo().await;
    assert_eq!(demo.me("oUser").await.status, 200);
    let listens = || {
        let mut ask = redis::cmd("PUBSUB");
        ask.arg("NUMSUB")
            .arg(format!("wechat:{}:news", harness.wechat.app_id()));
        let (_, count): (String, u64) = ask.query(&mut harness.connection()).unwrap();
        count > 0
    };
    eventually("it listens", Duration::from_secs(5), async || listens()).await;

    let endless = Endless::begin(&harness.redis).await;
    // During this time Redis rejects the demo's next heartbeat and its next subscription.
    tokio::time::sleep(Duration::from_secs(3)).await;
    // Redis has rejected every command since, so the health check reports the script.
    eventually("the reason", Duration::from_secs(5), async || {
        let health = healthz(&demo).await;
        assert_eq!(health.status, 503, "{health:?}");
        assert_eq!(health.field("serves"), "cached_tokens", "{health:?}");
        health.field("reason").contains("script")
    })
    .await;
    assert_eq!(demo.me("oUser").await.status, 200, "from memory");
    proxy.cut_all();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let says = ["is not ready", "BUSY"];
    refused(
        RedisStore::builder(&url),
        ErrorKind::StoreUnavailable,
        &says,
    )
    .await;
    endless.end();

    eventually("ready", RECOVERY, async || {
        healthz(&demo).await.status == 200
    })
    .await;
    eventually("it listens again", RECOVERY, async || listens()).await;
    let before = harness.redis.calls("publish");
    eventually("proofs go on", Duration::from_secs(10), async || {
        harness.redis.calls("publish") >= before + 2
    })
    .await;
    assert!(!demo.log().contains("+subscribe"), "{}", demo.log());
}

/// Redis rejects all commands while a password is set. When the operator has removed the password,
/// the demo subscribes again.
#[tokio::test(flavor = "multi_thread")]
async fn a_password_set_later_does_not_end_the_subscription() {
    let harness = Harness::new(Layout::Keys).await;
    harness.sign_in("oUser", Age::Fresh).await;
    let demo = harness.demo().await;
    assert_eq!(demo.me("oUser").await.status, 200);
    let mut operator = harness.connection();
    let channel = format!("wechat:{}:news", harness.wechat.app_id());
    let listens = || {
        let mut ask = redis::cmd("PUBSUB");
        ask.arg("NUMSUB").arg(&channel);
        let (_, count): (String, u64) = ask.query(&mut harness.connection()).unwrap();
        count > 0
    };
    eventually("it listens", Duration::from_secs(5), async || listens()).await;

    run(&mut operator, &["CONFIG", "SET", "requirepass", "s3cret"]);
    run(&mut operator, &["CLIENT", "KILL", "TYPE", "normal"]);
    run(&mut operator, &["CLIENT", "KILL", "TYPE", "pubsub"]);
    tokio::time::sleep(Duration::from_secs(4)).await;
    run(&mut operator, &["CONFIG", "SET", "requirepass", ""]);

    let recovery = Duration::from_secs(10);
    eventually("it listens again", recovery, async || listens()).await;
    assert!(!demo.log().contains("+subscribe"), "{}", demo.log());
}

/// A script blocks Redis for five seconds. The heartbeats continue afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn heartbeats_continue_after_an_endless_script() {
    let server = RedisServer::with_options(&["--lua-time-limit", "50"]);
    let store = RedisStore::connect(&server.url()).await.unwrap();
    let users = UserTokens::new(WechatClient::new("wx0", "secret").unwrap(), store);
    let grant = UserTokenResponse::new("token")
        .expires_in(7_200)
        .refresh_token("r");
    users
        .store(&UserId::new("oUser").unwrap(), &grant)
        .await
        .unwrap();
    let published = || server.calls("publish");
    eventually("proofs", Duration::from_secs(10), async || published() > 1).await;
    let endless = Endless::begin(&server).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    endless.end();
    let before = published();
    eventually("more proofs", Duration::from_secs(10), async || {
        published() >= before + 2
    })
    .await;
}

/// A server with too many connections counts as unavailable, and not as configured wrongly.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_full_of_connections() {
    let server = RedisServer::start();
    let store = RedisStore::connect(&server.url()).await.unwrap();
    let users = UserTokens::new(WechatClient::new("wx0", "secret").unwrap(), store);
    let mut operator = server.connection();
    run(&mut operator, &["CONFIG", "SET", "maxclients", "1"]);
    // The server may close the connection before the client reads the error. The error contains
    // this text in both cases.
    let full = RedisStore::builder(&server.url());
    refused(full, ErrorKind::StoreUnavailable, &["Redis at "]).await;
    run(
        &mut operator,
        &["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"],
    );
    eventually("not ready", Duration::from_secs(5), async || {
        users.health().await.is_err()
    })
    .await;
    run(&mut operator, &["CONFIG", "SET", "maxclients", "1000"]);
    eventually("ready", RECOVERY, async || users.health().await.is_ok()).await;
}

/// The demo is not ready if its Redis user lacks a right that logins need, or if one of its keys
/// has another type.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_logins_is_not_ready() {
    for layout in Layout::BOTH {
        let harness = Harness::new(layout).await;
        harness.sign_in("oReader", Age::Fresh).await;
        let demo = harness.demo().await;
        assert_eq!(demo.me("oReader").await.status, 200);
        let mut operator = harness.connection();
        let hashes = layout == Layout::Hashes;
        let all_rights = &["ACL", "SETUSER", "default", "+@all", "allkeys"][..];
        for (what, begin, end, concerns) in [
            (
                "-hset",
                &["ACL", "SETUSER", "default", "-hset"][..],
                all_rights,
                hashes,
            ),
            (
                "-hdel",
                &["ACL", "SETUSER", "default", "-hdel"],
                all_rights,
                hashes,
            ),
            (
                "-hget",
                &["ACL", "SETUSER", "default", "-hget"],
                all_rights,
                hashes,
            ),
            (
                "-del",
                &["ACL", "SETUSER", "default", "-del"],
                all_rights,
                true,
            ),
            (
                "-incr",
                &["ACL", "SETUSER", "default", "-incr"],
                all_rights,
                true,
            ),
            (
                "-pexpire",
                &["ACL", "SETUSER", "default", "-pexpire"],
                all_rights,
                true,
            ),
            (
                "keys",
                &[
                    "ACL",
                    "SETUSER",
                    "default",
                    "resetkeys",
                    "~wechat:*",
                    "~sys.wx*",
                ],
                all_rights,
                hashes,
            ),
            (
                "type of the first hash",
                &["RENAME", "user.wxUserAccessToken", "elsewhere"],
                &["RENAME", "elsewhere", "user.wxUserAccessToken"],
                hashes,
            ),
            (
                "type of the second hash",
                &["RENAME", "user.wxUserRefreshToken", "elsewhere"],
                &["RENAME", "elsewhere", "user.wxUserRefreshToken"],
                hashes,
            ),
        ] {
            if begin[0] == "RENAME" && hashes {
                run(&mut operator, begin);
            }
            match begin[0] {
                "RENAME" => run(&mut operator, &["SET", begin[1], "not a hash"]),
                _ => run(&mut operator, begin),
            }
            if concerns {
                eventually(what, Duration::from_secs(5), async || {
                    healthz(&demo).await.status == 503
                })
                .await;
                let health = healthz(&demo).await;
                assert_ne!(health.field("serves"), "everyone", "{what}: {health:?}");
                let reason = health.field("reason");
                let says = if begin[0] == "RENAME" {
                    "another type"
                } else {
                    "user"
                };
                assert!(reason.contains(says), "{what}: {health:?}");
            } else {
                tokio::time::sleep(Duration::from_millis(1_500)).await;
                let health = healthz(&demo).await;
                assert_eq!(health.status, 200, "{what}: {health:?}");
            }
            if begin[0] == "RENAME" {
                run(&mut operator, &["DEL", begin[1]]);
            }
            if begin[0] != "RENAME" || hashes {
                run(&mut operator, end);
            }
            eventually(what, RECOVERY, async || healthz(&demo).await.status == 200).await;
        }
        let left: Vec<String> = redis::cmd("KEYS")
            .arg("*ping*")
            .query(&mut operator)
            .unwrap();
        assert_eq!(left, Vec::<String>::new(), "nothing stays of the checks");
    }
}
