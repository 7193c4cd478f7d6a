//! What is set up wrongly is told at the start, in one sentence with the cause and the cure.

use std::time::{Duration, Instant};

use tower_wechat::{ErrorKind, Layout, RedisStore, RedisStoreBuilder};

use crate::support::demo_process::DemoProcess;
use crate::support::free_port;
use crate::support::redis_cluster::RedisCluster;
use crate::support::redis_server::RedisServer;
use crate::support::scene::variables;
use crate::support::sentinel_group::SentinelGroup;

/// Connecting gives up after 3 s; the rest is for slow machines.
const SOON: Duration = Duration::from_secs(20);

const SECRET: &str = "s3cret-of-redis";

/// The library refuses, and its sentence holds all of `says` and no password.
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

/// And so does the demo, which ends.
async fn demo_refuses(url: &str, says: &[&str]) {
    let ended = DemoProcess::start_in_vain(&variables(&[("REDIS_URL", url)])).await;
    assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
    assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
    for part in says {
        assert!(ended.stderr.contains(part), "{part:?} in: {}", ended.stderr);
    }
}

fn to(url: &str) -> RedisStoreBuilder {
    RedisStore::builder(url)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_the_sentinels_do_not_know() {
    let group = SentinelGroup::start().await;
    let url = group.url("").replace("/wechat-main", "/wechat-mian");
    let says = [
        "know no group named \"wechat-mian\"",
        "they watch wechat-main",
    ];
    refused(to(&url), ErrorKind::Configuration, &says).await;
    demo_refuses(&url, &says).await;
    // A plain URL at a Sentinel.
    let plain = format!("redis://{}/", group.sentinels[0].address());
    refused(
        to(&plain),
        ErrorKind::Configuration,
        &["a Sentinel answers", "redis+sentinel://"],
    )
    .await;
}

#[tokio::test]
async fn sentinels_that_are_not_there() {
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
async fn a_server_in_the_place_of_a_sentinel() {
    let redis = RedisServer::start();
    let url = format!("redis+sentinel://{}/main", redis.address());
    let says = ["a Redis server and no Sentinel", "26379"];
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
        &["Redis at 127.0.0.1", "refuses the user or password"],
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
async fn a_cluster_that_is_not_there_or_wants_a_password() {
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
    let says = ["refuses the user or password"];
    let keys = to(&url(SECRET)).layout(Layout::Keys);
    refused(keys, ErrorKind::Configuration, &says).await;
    // A node of no Cluster yet.
    let keys = to(&url("right")).layout(Layout::Keys);
    refused(keys, ErrorKind::Configuration, &["serves no slots"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_url_at_a_node_of_a_cluster_and_a_layout_that_does_not_fit_one() {
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
