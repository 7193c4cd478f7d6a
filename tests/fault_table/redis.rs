//! Rows of faults of Redis: it is killed, frozen or replaced, its connections break or are silent,
//! or its data is lost.

use std::time::{Duration, Instant};

use crate::harness::{FaultHarness, Row, lasting, seconds};
use crate::processes::renewing;
use crate::support::eventually;
use crate::support::harness::{Age, Layout};
use crate::support::old_proxy::{Manner, OldProxy};
use crate::support::proxy::Weather;
use crate::support::redis_server::RedisServer;

const SERVED_OR_REJECTED: &[(u16, &str)] = &[(200, ""), (503, "store_unavailable")];

const SERVED_OR_LATE: &[(u16, &str)] = &[
    (200, ""),
    (503, "store_unavailable"),
    (503, "wechat_unavailable"),
];

const SEES: [&str; 2] = [
    "users in this process's memory are served; others get 503 within one second; normal operation resumes seconds after Redis does",
    "本进程缓存中的用户照常访问；其他用户在 1 秒内得到 503；恢复后数秒内一切正常",
];

#[tokio::test(flavor = "multi_thread")]
async fn redis_is_killed_and_restarted() {
    let row = Row {
        test: "redis_is_killed_and_restarted",
        fault: ["Redis killed and restarted", "Redis 被杀死并重启"],
        sees: SEES,
        answers: SERVED_OR_REJECTED,
    };
    lasting(
        &row,
        Layout::Hashes,
        2.5,
        |harness| harness.services.redis.kill(),
        |harness| harness.services.redis.run(),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_is_frozen() {
    let row = Row {
        test: "redis_is_frozen",
        fault: ["Redis frozen (SIGSTOP)", "Redis 冻结（SIGSTOP）"],
        sees: SEES,
        answers: SERVED_OR_REJECTED,
    };
    let (begin, end) = (
        |harness: &mut FaultHarness| harness.services.redis.freeze(true),
        |harness: &mut FaultHarness| harness.services.redis.freeze(false),
    );
    lasting(&row, Layout::Keys, 2.5, begin, end).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_way_to_redis_swallows_everything() {
    let row = Row {
        test: "the_way_to_redis_swallows_everything",
        fault: [
            "the connection to Redis stays open, and no data passes",
            "与 Redis 的连接还在，但数据有去无回（黑洞）",
        ],
        sees: SEES,
        answers: SERVED_OR_REJECTED,
    };
    let swallow = Weather {
        blackhole: 1_000,
        ..Weather::CALM
    };
    // A connection that has lost a reply stays silent after the fault. Only new connections work.
    lasting(
        &row,
        Layout::Hashes,
        2.5,
        |harness| harness.redis.weather(swallow),
        |harness| harness.redis.weather(Weather::CALM),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_to_redis_are_cut() {
    let row = Row {
        test: "connections_to_redis_are_cut",
        fault: [
            "connections to Redis reset five times a second",
            "与 Redis 的连接每秒被重置 5 次",
        ],
        sees: [
            "a request that encounters a reset gets 503, unless its token is in memory",
            "遇到重置的请求得到 503，令牌在内存中的用户不受影响",
        ],
        answers: SERVED_OR_REJECTED,
    };
    let harness = FaultHarness::start(&row, Layout::Keys, 1).await;
    harness
        .during(async {
            for _ in 0..12 {
                harness.redis.cut_all();
                seconds(0.2).await;
            }
        })
        .await;
    harness.recovers().await;
    harness.print(&row, false);
}

#[tokio::test(flavor = "multi_thread")]
async fn replies_of_redis_are_truncated() {
    let row = Row {
        test: "replies_of_redis_are_truncated",
        fault: [
            "one in five replies of Redis is truncated",
            "Redis 的回复有五分之一在中途断开",
        ],
        sees: [
            "a request that receives one gets 503, unless its token is in memory; a truncated reply is never used",
            "遇到的请求得到 503，令牌在内存中的用户不受影响；半个回复绝不会被当成完整的",
        ],
        answers: SERVED_OR_REJECTED,
    };
    let torn = Weather {
        truncate: 200,
        ..Weather::CALM
    };
    lasting(
        &row,
        Layout::Hashes,
        2.5,
        |harness| harness.redis.weather(torn),
        |harness| harness.redis.weather(Weather::CALM),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_is_flushed() {
    let row = Row {
        test: "redis_is_flushed",
        fault: ["FLUSHALL", "FLUSHALL"],
        sees: [
            "users log in once; until then users in memory are served for a moment",
            "用户需要重新登录一次；在此之前，内存中的用户还能继续访问片刻",
        ],
        answers: &[(200, ""), (401, "login_required")],
    };
    let harness = FaultHarness::start(&row, Layout::Keys, 1).await;
    harness
        .during(async {
            seconds(0.5).await;
            let () = ::redis::cmd("FLUSHALL")
                .query(&mut harness.services.connection())
                .unwrap();
            seconds(2.0).await;
        })
        .await;
    // All users log in again, because they got "login required".
    for user in &harness.users {
        harness.services.sign_in(user, Age::Fresh).await;
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    harness.recovers().await;
    harness.print(&row, false);
}

/// The address leads to a new primary, as of a managed Redis or a virtual IP. The former primary
/// becomes a replica and keeps its connections.
#[tokio::test(flavor = "multi_thread")]
async fn another_server_takes_over_behind_the_address() {
    let row = Row {
        test: "another_server_takes_over_behind_the_address",
        fault: [
            "another server takes over behind the address of Redis; the old one becomes a replica and keeps its connections",
            "Redis 地址背后换了主库；旧主库变成从库，连接都还在",
        ],
        sees: [
            "stored tokens are served; renewals and logins get 503 until the address leads to the new primary, and `/healthz` says so",
            "已存的令牌照常使用；续期和登录在地址指向新主库之前得到 503，`/healthz` 会说明",
        ],
        answers: SERVED_OR_REJECTED,
    };
    let mut harness = FaultHarness::start(&row, Layout::Keys, 2).await;
    let port = harness.services.redis.port().to_string();
    let second = RedisServer::with_options(&["--replicaof", "127.0.0.1", &port]);
    let follow = |server: &RedisServer, whom: &[&str]| {
        let mut command = ::redis::cmd("REPLICAOF");
        let () = command.arg(whom).query(&mut server.connection()).unwrap();
    };
    eventually(
        "the replica is filled",
        Duration::from_secs(20),
        async || {
            let info: String = ::redis::cmd("INFO")
                .arg("replication")
                .query(&mut second.connection())
                .unwrap();
            info.contains("master_link_status:up")
        },
    )
    .await;
    // The demo renews the tokens before the change, so that the replica has them.
    for user in &harness.users {
        harness.demos[0].me(user).await;
    }
    for user in &harness.users[..4] {
        harness.services.sign_in(user, Age::Expired).await;
    }
    let _: u64 = ::redis::cmd("WAIT")
        .arg(&[1, 5_000])
        .query(&mut harness.services.connection())
        .unwrap();
    follow(&second, &["NO", "ONE"]);
    follow(
        &harness.services.redis,
        &["127.0.0.1", &second.port().to_string()],
    );
    harness
        .during(async {
            seconds(1.0).await;
            harness.redis.lead_to(&second.address());
            seconds(1.5).await;
        })
        .await;
    let _old = std::mem::replace(&mut harness.services.redis, second);
    harness.recovers().await;
    assert_eq!(harness.redis.damage().cut, 0);
    harness.print(&row, false);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_way_to_redis_speaks_resp2_only() {
    let row = Row {
        test: "the_way_to_redis_speaks_resp2_only",
        fault: [
            "a proxy with RESP2 only replaces the connection to Redis",
            "通往 Redis 的路上换成了只会 RESP2 的代理",
        ],
        sees: [
            "503 for a moment, unless the token is in memory; then the store uses RESP2",
            "片刻的 503，令牌在内存中的用户不受影响；之后改用 RESP2",
        ],
        answers: SERVED_OR_REJECTED,
    };
    let harness = FaultHarness::start(&row, Layout::Hashes, 1).await;
    let words = Manner::Says("ERR unknown command 'HELLO'");
    let old = OldProxy::start(&harness.services.redis.address(), words).await;
    harness
        .during(async {
            seconds(0.5).await;
            harness.redis.lead_to(&old.address().to_string());
            harness.redis.cut_all();
            seconds(3.5).await;
        })
        .await;
    harness.recovers().await;
    assert!(old.received("HELLO") > 0);
    harness.print(&row, false);
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_is_away_for_longer_than_a_lease() {
    let row = Row {
        test: "redis_is_away_for_longer_than_a_lease",
        fault: [
            "Redis is down for 12 s, longer than a lease, while WeChat issues new refresh tokens",
            "微信刚发放新的 refresh_token，Redis 就断开 12 秒（超过租约）",
        ],
        sees: [
            "users in this process's memory are served, others get 503; every issued pair is stored afterwards, and no user has to log in",
            "本进程缓存中的用户照常访问，其他用户得到 503；恢复后已发放的令牌全部写入，无人需要重新登录",
        ],
        answers: SERVED_OR_LATE,
    };
    let mut harness = FaultHarness::start(&row, Layout::Keys, 2).await;
    harness
        .services
        .wechat
        .settings(|settings| settings.rotate_refresh_token = true);
    let holder = renewing(&mut harness, Duration::from_millis(500)).await;
    harness.redis.silent(true);
    harness.during(seconds(12.0)).await;
    // The commands that were sent meanwhile are lost.
    harness.redis.cut_all();
    harness.redis.silent(false);
    harness.demos.push(holder);
    harness.during(seconds(2.0)).await;
    harness.recovers().await;
    harness.print(&row, false);
}

#[tokio::test(flavor = "multi_thread")]
async fn replies_to_lease_commands_are_lost() {
    let row = Row {
        test: "replies_to_lease_commands_are_lost",
        fault: [
            "Redis grants leases, and the replies are lost",
            "Redis 已授予租约，但回复丢失",
        ],
        sees: [
            "users whose token has expired get 503; the process releases the leases, and normal operation resumes within seconds",
            "令牌已过期的用户得到 503；进程会自行归还租约，数秒内一切正常",
        ],
        answers: SERVED_OR_LATE,
    };
    let harness = FaultHarness::start(&row, Layout::Hashes, 1).await;
    // The first request loads the scripts. The pause then delays the lease command until its reply
    // can be dropped.
    harness.demos[0].me(&harness.users[3]).await;
    let () = ::redis::cmd("CLIENT")
        .arg(&["PAUSE", "600", "WRITE"])
        .query(&mut harness.services.connection())
        .unwrap();
    let swallow = Weather {
        blackhole: 1_000,
        ..Weather::CALM
    };
    harness
        .during(async {
            seconds(0.3).await;
            harness.redis.weather(swallow);
            seconds(0.6).await;
            harness.redis.weather(Weather::CALM);
        })
        .await;
    let back = Instant::now();
    harness.during(seconds(3.0)).await;
    harness.recovers().await;
    let took = back.elapsed();
    assert!(took < Duration::from_secs(9), "a lease was left: {took:?}");
    harness.print(&row, false);
}
