//! Tests of a Cluster of three primaries with a replica each, while slots move and nodes fail.

use std::sync::Arc;
use std::time::Duration;

use tower_wechat::RedisStore;
use tower_wechat::redis::{Layout, RedisNames, RedisStoreBuilder};

use crate::harness::LoadHarness;
use crate::support::redis_cluster::RedisCluster;

const A_WHILE: Duration = Duration::from_millis(1_500);

/// Names for the hash layout with a hash tag, so that all keys are in one slot.
fn tagged() -> RedisNames {
    let mut names = RedisNames::default();
    names.user_access_token = "{wechat}.user.wxUserAccessToken".into();
    names.user_refresh_token = "{wechat}.user.wxUserRefreshToken".into();
    names
}

/// Returns the configuration of a store in this layout, and one of the store's keys.
fn store(cluster: &RedisCluster, layout: Layout) -> (RedisStoreBuilder, &'static str) {
    let builder = RedisStore::builder(&cluster.url("")).layout(layout);
    match layout {
        Layout::Keys => (builder, "wechat:wx0:user:oUser1"),
        _ => (builder.names(tagged()), "{wechat}.user.wxUserAccessToken"),
    }
}

async fn slots_move(layout: Layout) {
    let cluster = Arc::new(RedisCluster::start().await);
    let (builder, key) = store(&cluster, layout);
    let harness = LoadHarness::start(builder).await;
    // The hash layout uses one slot. All slots of its node move, so that this slot is among them.
    let slots = if layout == Layout::Keys { 1_500 } else { 5_462 };
    let before = cluster.owner_of(key);
    harness
        .during(async {
            tokio::time::sleep(A_WHILE).await;
            let moving = Arc::clone(&cluster);
            let moving = tokio::task::spawn_blocking(move || moving.reshard_away(key, slots));
            moving.await.unwrap();
            tokio::time::sleep(A_WHILE).await;
        })
        .await;
    if layout != Layout::Keys {
        assert_ne!(cluster.owner_of(key), before, "the hashes' slot has moved");
    }
    harness.serves_again().await;
    harness
        .balances(&format!("Cluster, {slots} slots moved, {layout:?}"))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn slots_move_under_load_in_the_key_layout() {
    slots_move(Layout::Keys).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn slots_move_under_load_in_the_hash_layout() {
    slots_move(Layout::Hashes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_primary_is_killed_under_load() {
    let mut cluster = RedisCluster::start().await;
    let (builder, key) = store(&cluster, Layout::Keys);
    let harness = LoadHarness::start(builder).await;
    let old = cluster.owner_of(key);
    harness
        .during(async {
            tokio::time::sleep(A_WHILE).await;
            cluster.nodes[old].kill();
            cluster.fails_over_from(old, key).await;
            tokio::time::sleep(A_WHILE).await;
        })
        .await;
    harness.serves_again().await;
    harness.during(tokio::time::sleep(A_WHILE)).await;
    harness.balances("Cluster, a primary killed").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_primary_is_frozen_under_load_and_comes_back() {
    let cluster = RedisCluster::start().await;
    let (builder, key) = store(&cluster, Layout::Hashes);
    let harness = LoadHarness::start(builder).await;
    let old = cluster.owner_of(key);
    harness
        .during(async {
            tokio::time::sleep(A_WHILE).await;
            cluster.nodes[old].freeze(true);
            cluster.fails_over_from(old, key).await;
            tokio::time::sleep(A_WHILE).await;
            cluster.nodes[old].freeze(false);
            tokio::time::sleep(A_WHILE).await;
        })
        .await;
    harness.serves_again().await;
    harness
        .balances("Cluster, a primary frozen, and back later")
        .await;
}
