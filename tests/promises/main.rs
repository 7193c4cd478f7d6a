//! Tests of the promises: one renewal, newest wins, nothing lost, stale served, failures sorted,
//! reports compared, followers bounded, clocks may differ. Each runs against the store in memory;
//! against Redis in both layouts; sealed, while services move from one layout to the other; behind
//! Sentinels; and against a Cluster in both layouts. `tests/topology` kills the servers.

#![allow(unreachable_pub)]

#[path = "../support/mod.rs"]
mod support;

mod bounds;
mod crossings;
mod failures;
mod freshness;
mod harness;
mod herds;
mod leases;
mod lost_pairs;
mod news;
mod odd_replies;
mod outages;
mod platform;
mod races;
mod renewal_limit;
mod reports;
mod separate_accounts;
mod several_accounts;
mod shared;

/// Runs each function as a test on each store with a private server, which the test may stop.
#[macro_export]
macro_rules! for_each_server {
    ($($name:ident),* $(,)?) => {
        $crate::for_each_store!(@ redis_hashes, Hashes, $($name),*);
        $crate::for_each_store!(@ redis_keys, Keys, $($name),*);
        $crate::for_each_store!(@ redis_sealed_hashes_and_keys, SealedHashesAndKeys, $($name),*);
        $crate::for_each_store!(@ redis_sealed_keys_and_hashes, SealedKeysAndHashes, $($name),*);
    };
}

/// Runs each function as a test on each store.
#[macro_export]
macro_rules! for_each_store {
    ($($name:ident),* $(,)?) => {
        $crate::for_each_store!(@ memory, Memory, $($name),*);
        $crate::for_each_store!(@ redis_hashes, Hashes, $($name),*);
        $crate::for_each_store!(@ redis_keys, Keys, $($name),*);
        $crate::for_each_store!(@ redis_sealed_hashes_and_keys, SealedHashesAndKeys, $($name),*);
        $crate::for_each_store!(@ redis_sealed_keys_and_hashes, SealedKeysAndHashes, $($name),*);
        $crate::for_each_store!(@ sentinel_hashes, SentinelHashes, $($name),*);
        $crate::for_each_store!(@ cluster_keys, ClusterKeys, $($name),*);
        $crate::for_each_store!(@ cluster_hashes, ClusterHashes, $($name),*);
    };
    (@ $module:ident, $backend:ident, $($name:ident),*) => {
        mod $module {
            use $crate::harness::{Backend, Harness};
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    super::$name(Harness::new(Backend::$backend).await).await;
                }
            )*
        }
    };
}
