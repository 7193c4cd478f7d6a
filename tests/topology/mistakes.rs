//! Tests of wrong set-ups: the start fails with one sentence that names the cause and the remedy.

use std::time::{Duration, Instant};

use redis::Commands;
use tower_wechat::client::UserTokenResponse;
use tower_wechat::redis::{ExternalToken, Layout, RedisStoreBuilder};
use tower_wechat::{AccountTokens, ErrorKind, RedisStore, UserId, UserTokens, WechatClient};

use crate::support::demo_process::DemoProcess;
use crate::support::free_port;
use crate::support::harness::variables;
use crate::support::redis_cluster::RedisCluster;
use crate::support::redis_server::RedisServer;
use crate::support::sentinel_group::SentinelGroup;

/// Maximum time for a failed start, 20 s. A connection attempt takes 3 s; the rest is for slow
/// machines.
const SOON: Duration = Duration::from_secs(20);

pub const SECRET: &str = "s3cret-of-redis";

/// Checks that the store does not connect, and that the error is one line with all of `says` and
/// without a secret.
pub async fn refused(builder: RedisStoreBuilder, kind: ErrorKind, says: &[&str]) {
    let started = Instant::now();
    let error = builder.connect().await.expect_err("a mistake");
    assert!(started.elapsed() < SOON, "{:?}", started.elapsed());
    let said = error.to_string();
    assert_eq!(error.kind(), kind, "{said}");
    for part in says {
        assert!(said.contains(part), "{part:?} in: {said}");
    }
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(!said.contains(SECRET), "{said}");
}

/// Checks that the demo exits with one line that contains all of `says`.
pub async fn demo_refuses(url: &str, says: &[&str]) {
    let ended = DemoProcess::start_in_vain(&variables(&[("REDIS_URL", url)])).await;
    assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
    assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
    for part in says {
        assert!(ended.stderr.contains(part), "{part:?} in: {}", ended.stderr);
    }
}

pub fn to(url: &str) -> RedisStoreBuilder {
    RedisStore::builder(url)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_unknown_to_the_sentinels() {
    let group = SentinelGroup::start().await;
    let url = group.url("").replace("/wechat-main", "/wechat-mian");
    let says = [
        "watch no group named \"wechat-mian\"",
        "they watch wechat-main",
    ];
    refused(to(&url), ErrorKind::Configuration, &says).await;
    demo_refuses(&url, &says).await;
    // A `redis://` URL leads to a Sentinel.
    let plain = format!("redis://{}/", group.sentinels[0].address());
    refused(
        to(&plain),
        ErrorKind::Configuration,
        &["a Sentinel replied", "redis+sentinel://"],
    )
    .await;
}

#[tokio::test]
async fn unreachable_sentinels() {
    let url = format!(
        "redis+sentinel://:{SECRET}@127.0.0.1:{},127.0.0.1:{}/main",
        free_port(),
        free_port()
    );
    let says = ["no Sentinel of 127.0.0.1:", "can be reached"];
    refused(to(&url), ErrorKind::StoreUnavailable, &says).await;
    demo_refuses(&url, &says).await;
}

#[tokio::test]
async fn a_server_instead_of_a_sentinel() {
    let redis = RedisServer::start();
    let url = format!("redis+sentinel://{}/main", redis.address());
    let says = ["a Redis server instead of a Sentinel", "26379"];
    refused(to(&url), ErrorKind::Configuration, &says).await;
}

#[tokio::test]
async fn sentinels_and_their_primary_with_passwords() {
    let redis = RedisServer::with_options(&["--requirepass", "right"]);
    let port = redis.port();
    let sentinel = RedisServer::sentinel(&format!(
        "sentinel monitor main 127.0.0.1 {port} 1\nsentinel auth-pass main right\nrequirepass of-sentinel\n"
    ));
    let url = |password: &str| format!("redis+sentinel://:{password}@{}/main", sentinel.address());
    refused(
        to(&url("right")),
        ErrorKind::Configuration,
        &["the Sentinels at", "sentinel_credentials"],
    )
    .await;
    refused(
        to(&url(SECRET)).sentinel_credentials("", "of-sentinel"),
        ErrorKind::Configuration,
        &["Redis at 127.0.0.1", "rejected the user or password"],
    )
    .await;
    let store = to(&url("right")).sentinel_credentials("", "of-sentinel");
    store.connect().await.unwrap();
}

#[tokio::test]
async fn a_cluster_url_at_a_single_server() {
    let redis = RedisServer::start();
    let url = format!("redis+cluster://{}", redis.address());
    let keys = to(&url).layout(Layout::Keys);
    let says = ["a single server and no Cluster", "redis://"];
    refused(keys, ErrorKind::Configuration, &says).await;
}

#[tokio::test]
async fn an_unreachable_cluster_or_one_with_a_password() {
    let url = format!("redis+cluster://:{SECRET}@127.0.0.1:{}", free_port());
    let says = ["Redis at 127.0.0.1:", "cannot be reached"];
    refused(
        to(&url).layout(Layout::Keys),
        ErrorKind::StoreUnavailable,
        &says,
    )
    .await;

    let options = ["--cluster-enabled", "yes", "--requirepass", "right"];
    let bus = free_port().to_string();
    let node = RedisServer::with_options(&[&options[..], &["--cluster-port", &bus]].concat());
    let url = |password: &str| format!("redis+cluster://:{password}@{}", node.address());
    let says = ["rejected the user or password"];
    let keys = to(&url(SECRET)).layout(Layout::Keys);
    refused(keys, ErrorKind::Configuration, &says).await;
    // The node has not joined a Cluster.
    let keys = to(&url("right")).layout(Layout::Keys);
    refused(keys, ErrorKind::Configuration, &["serves no slots"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_url_or_a_wrong_layout_on_a_cluster() {
    let cluster = RedisCluster::start().await;
    let plain = format!("redis://{}/", cluster.nodes[0].address());
    let says = ["is a node of a Cluster", "redis+cluster://"];
    refused(to(&plain), ErrorKind::Configuration, &says).await;
    demo_refuses(&plain, &says).await;

    let url = cluster.url("");
    let says = [
        "share a hash tag",
        "{wechat}.user.wxUserAccessToken",
        "Keys",
    ];
    refused(to(&url), ErrorKind::Configuration, &says).await;
    demo_refuses(&url, &["share a hash tag", "REDIS_LAYOUT=keys"]).await;
}

/// The unreachable address is not in the URL, so the error says that a Sentinel named it.
#[tokio::test]
async fn a_sentinel_that_names_an_unreachable_server() {
    let port = free_port();
    let sentinel = RedisServer::sentinel(&format!("sentinel monitor main 127.0.0.1 {port} 1\n"));
    let at = sentinel.address();
    let url = format!("redis+sentinel://:{SECRET}@{at}/main");
    let says = [
        &format!("Redis at 127.0.0.1:{port}"),
        &format!("named by the Sentinel at {at}"),
        "the group main",
        "replica-announce-ip",
    ];
    refused(to(&url), ErrorKind::StoreUnavailable, &says).await;
    demo_refuses(&url, &says).await;
}

/// During a fail-over a Sentinel may name a server that is a replica.
#[tokio::test]
async fn a_sentinel_that_names_a_replica() {
    let nowhere = free_port().to_string();
    let replica = RedisServer::with_options(&["--replicaof", "127.0.0.1", &nowhere]);
    let port = replica.port();
    let sentinel = RedisServer::sentinel(&format!("sentinel monitor main 127.0.0.1 {port} 1\n"));
    let url = format!("redis+sentinel://{}/main", sentinel.address());
    let says = ["named by the Sentinel at", "is a replica"];
    refused(to(&url), ErrorKind::StoreUnavailable, &says).await;
}

pub async fn sign_in(store: RedisStore) {
    let users = UserTokens::new(WechatClient::new("wx0", "secret").unwrap(), store);
    let grant = UserTokenResponse::new("token")
        .expires_in(7_200)
        .refresh_token("r");
    users
        .store(&UserId::new("oUser").unwrap(), &grant)
        .await
        .unwrap();
    users.health().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn ipv6_addresses_of_all_topologies() {
    let bus = free_port().to_string();
    let both = ["--bind", "127.0.0.1", "::1"];
    let redis = RedisServer::with_options(&both);
    let watch = format!("sentinel monitor main ::1 {} 1\n", redis.port());
    let sentinel = RedisServer::sentinel(&watch);
    let options = ["--cluster-enabled", "yes", "--cluster-port", &bus];
    let node = RedisServer::with_options(&[&options[..], &both].concat());
    let mut take = redis::cmd("CLUSTER");
    take.arg(&["ADDSLOTSRANGE", "0", "16383"]);
    let () = take.query(&mut node.connection()).unwrap();
    for url in [
        format!("redis://[::1]:{}/", redis.port()),
        format!("redis+sentinel://127.0.0.1:{}/main", sentinel.port()),
        format!("redis+cluster://[::1]:{}", node.port()),
    ] {
        let builder = to(&url).layout(Layout::Keys);
        crate::support::eventually(&url, Duration::from_secs(20), async || {
            builder.clone().connect().await.is_ok()
        })
        .await;
        sign_in(builder.connect().await.expect(&url)).await;
    }
    let nowhere = free_port();
    let shown = format!("[::1]:{nowhere}");
    for url in [
        format!("redis://:{SECRET}@[::1]:{nowhere}/"),
        format!("redis+sentinel://:{SECRET}@[::1]:{nowhere}/main"),
        format!("redis+cluster://:{SECRET}@[::1]:{nowhere}"),
    ] {
        let builder = to(&url).layout(Layout::Keys);
        refused(builder, ErrorKind::StoreUnavailable, &[&shown]).await;
    }
}

/// The nodes announce no addresses, so that a client cannot find the node of a slot.
#[tokio::test]
async fn a_cluster_that_hides_the_addresses_of_its_nodes() {
    for kind in ["unknown-endpoint", "hostname"] {
        let bus = free_port().to_string();
        let options = ["--cluster-enabled", "yes", "--cluster-port", &bus];
        let endpoint = ["--cluster-preferred-endpoint-type", kind];
        let node = RedisServer::with_options(&[&options[..], &endpoint].concat());
        let mut take = redis::cmd("CLUSTER");
        take.arg(&["ADDSLOTSRANGE", "0", "16383"]);
        let () = take.query(&mut node.connection()).unwrap();
        let url = format!("redis+cluster://{}", node.address());
        let says = [
            "announces no addresses of its nodes",
            "cluster-preferred-endpoint-type",
        ];
        let builder = to(&url).layout(Layout::Keys);
        refused(builder, ErrorKind::Configuration, &says).await;
    }
}

/// Another system owns the key. The error does not recommend its removal.
#[tokio::test]
async fn a_followed_key_of_another_type_is_kept() {
    let redis = RedisServer::start();
    let () = redis
        .connection()
        .rpush("wx:access_token:wx0", "a list")
        .unwrap();
    let store = to(&redis.url()).connect().await.unwrap();
    let client = WechatClient::new("wx0", "secret").unwrap();
    let accounts = AccountTokens::new(
        ExternalToken::wx_java().source(client, store.clone()),
        store,
    );
    let said = accounts.get().await.unwrap_err().to_string();
    for part in [
        "wx:access_token:wx0",
        "another type",
        "belongs to that system",
        "ExternalToken",
    ] {
        assert!(said.contains(part), "{part:?} in: {said}");
    }
    assert!(!said.contains("remove"), "{said}");
}

/// `exclusive_writer` relies on heartbeats through one server, so it is rejected with Sentinels and
/// with a Cluster.
#[tokio::test]
async fn an_exclusive_writer_on_several_servers() {
    for url in [
        "redis+sentinel://127.0.0.1:1/main",
        "redis+cluster://127.0.0.1:1",
    ] {
        let builder = to(url).layout(Layout::Keys).exclusive_writer(true);
        refused(
            builder,
            ErrorKind::Configuration,
            &["exclusive_writer", "cache_ttl"],
        )
        .await;
    }
}

/// The error says that a host name does not resolve, and not only that a connection failed.
#[tokio::test(flavor = "multi_thread")]
async fn host_names_that_do_not_resolve() {
    for url in [
        format!("redis://:{SECRET}@nowhere.invalid/"),
        format!("redis+cluster://:{SECRET}@nowhere.invalid"),
        format!("redis+sentinel://:{SECRET}@nowhere.invalid/main"),
    ] {
        let says = ["nowhere.invalid", "does not resolve", "check the name"];
        let builder = to(&url).layout(Layout::Keys);
        refused(builder, ErrorKind::StoreUnavailable, &says).await;
        if !url.contains("cluster") {
            demo_refuses(&url, &says).await;
        }
    }
    // Of two addresses, one is unreachable and the other does not resolve. The error names both.
    let nobody = free_port();
    for scheme in ["redis+cluster", "redis+sentinel"] {
        let url = format!("{scheme}://127.0.0.1:{nobody},nowhere.invalid/main");
        let url = url.replace(
            if scheme.ends_with("cluster") {
                "/main"
            } else {
                "!"
            },
            "",
        );
        let says = [
            &format!("127.0.0.1:{nobody}"),
            "can",
            "be reached",
            "nowhere.invalid",
            "does not resolve",
        ];
        let builder = to(&url).layout(Layout::Keys);
        refused(builder, ErrorKind::StoreUnavailable, &says).await;
    }
}

/// The unreachable address is not in the URL, so the error says that the Cluster announced it.
#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_with_unreachable_node_addresses() {
    let nobody = free_port().to_string();
    for announce in [
        ["--cluster-announce-hostname", "nowhere.invalid"],
        ["--cluster-announce-port", &nobody],
    ] {
        let bus = free_port().to_string();
        let options = ["--cluster-enabled", "yes", "--cluster-port", &bus];
        let by_name = ["--cluster-preferred-endpoint-type", "hostname"];
        let by_name = &by_name[..if announce[1] == nobody { 0 } else { 2 }];
        let node = RedisServer::with_options(&[&options[..], by_name, &announce].concat());
        let mut take = redis::cmd("CLUSTER");
        take.arg(&["ADDSLOTSRANGE", "0", "16383"]);
        let () = take.query(&mut node.connection()).unwrap();
        let url = format!("redis+cluster://{}", node.address());
        let says = [
            &format!("the Redis Cluster of {}", node.address()),
            announce[1],
            "can be reached from here",
            "cluster-announce-ip",
        ];
        let builder = to(&url).layout(Layout::Keys);
        refused(builder, ErrorKind::StoreUnavailable, &says).await;
        let keys = [("REDIS_URL", &*url), ("REDIS_LAYOUT", "keys")];
        let ended = DemoProcess::start_in_vain(&variables(&keys)).await;
        assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
        assert!(!ended.stdout.contains("redis::"), "{}", ended.stdout);
    }
}

/// Starts a server that sends these bytes in response to the first bytes of a client, and then
/// closes the connection.
async fn something_else(says: &'static [u8]) -> std::net::SocketAddr {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut said = [0; 4_096];
                if client.read(&mut said).await.is_ok_and(|read| read > 0) {
                    let _ = client.write_all(says).await;
                }
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_redis() {
    for (answer, kind, says) in [
        (
            &b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n<html></html>\r\n"[..],
            ErrorKind::Configuration,
            "does not speak the protocol of Redis",
        ),
        (
            b"220 mail.example.com ESMTP\r\n",
            ErrorKind::Configuration,
            "does not speak the protocol of Redis",
        ),
        (
            b"J\0\0\0\n8.0.33\0\0\0\0\0",
            ErrorKind::Configuration,
            "does not speak the protocol of Redis",
        ),
        // Replies in the form of Redis' protocol that answer no command.
        (
            b"+OK POP3 ready\r\n+OK\r\n+OK\r\n+OK\r\n+OK\r\n",
            ErrorKind::Configuration,
            "does not speak the protocol of Redis",
        ),
        (
            b"",
            ErrorKind::StoreUnavailable,
            "closed the connection at once",
        ),
    ] {
        let at = something_else(answer).await;
        for url in [
            format!("redis://:{SECRET}@{at}/"),
            format!("redis+cluster://:{SECRET}@{at}"),
            format!("redis+sentinel://:{SECRET}@{at}/main"),
            format!("redis://{at}/?protocol=resp2"),
        ] {
            if answer.starts_with(b"+OK") && !url.starts_with("redis://1") {
                continue;
            }
            let says = [&at.to_string(), says, "the port"];
            let builder = to(&url).layout(Layout::Keys);
            refused(builder, kind, &says).await;
        }
    }
}
