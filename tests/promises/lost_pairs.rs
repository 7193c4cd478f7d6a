//! Tests of the promise "nothing lost". A process gets new pairs from WeChat and cannot store them
//! before its leases expire. WeChat rejects the old refresh tokens when other processes use them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tower_wechat::simulator::Fault;
use tower_wechat::{Error, ErrorKind, UserTokens};

use crate::harness::{Harness, REFRESH, id, text};
use crate::support::eventually;

crate::for_each_server!(
    a_pair_is_stored_despite_another_processs_rejection,
    a_pair_is_stored_after_an_outage_past_its_lease,
);

const LEASE: Duration = Duration::from_secs(1);
const USERS: u64 = 20;

fn names() -> Vec<String> {
    (0..USERS).map(|number| format!("oUser{number}")).collect()
}

/// Requests the token of every user, and waits until WeChat has renewed all of them. WeChat's
/// responses arrive 300 ms after the calls.
async fn granted(harness: &Harness, users: &UserTokens) -> JoinSet<Result<String, Error>> {
    let slow = Fault::on(REFRESH).delay(Duration::from_millis(300));
    harness.simulator.inject(slow.times(USERS));
    let mut asking = JoinSet::new();
    for name in names() {
        let users = users.clone();
        asking.spawn(async move { users.get(&id(&name)).await.map(|token| text(&token)) });
    }
    eventually("WeChat is asked", Duration::from_secs(5), async || {
        harness.refreshes() == USERS
    })
    .await;
    asking
}

/// Requests the token of every user again and again until `enough` is set. Returns the kinds of all
/// errors.
fn traffic(users: &UserTokens, enough: &Arc<AtomicBool>) -> JoinSet<Vec<ErrorKind>> {
    let mut callers = JoinSet::new();
    for name in names() {
        let (users, enough) = (users.clone(), Arc::clone(enough));
        callers.spawn(async move {
            let mut errors = Vec::new();
            while !enough.load(Ordering::Relaxed) {
                errors.extend(users.get(&id(&name)).await.err().map(|error| error.kind()));
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            errors
        });
    }
    callers
}

/// Checks that the store has the newest pair of every user, and that each pair can be renewed.
async fn every_pair_is_stored(harness: &Harness) {
    let mut lost = Vec::new();
    for name in names() {
        let stored = harness.stored_token(&name).await;
        let live = harness.live_token(&name);
        lost.extend((stored.ok().as_ref() != Some(&live)).then_some(name));
    }
    assert!(lost.is_empty(), "of {USERS} pairs are lost: {lost:?}");
    harness.advance(Duration::from_secs(7_300));
    for name in names() {
        let renewed = harness.stored_token(&name).await.unwrap();
        assert_eq!(renewed, harness.live_token(&name));
    }
}

fn rotating(harness: &Harness) {
    harness
        .simulator
        .settings(|settings| settings.rotate_refresh_token = true);
}

async fn a_pair_is_stored_despite_another_processs_rejection(harness: Harness) {
    rotating(&harness);
    let (first, proxy) = harness.process_behind_a_proxy(LEASE).await;
    let second = harness
        .process_with(|builder| builder.lease_duration(LEASE))
        .await;
    let names = names();
    let all: Vec<&str> = names.iter().map(String::as_str).collect();
    harness.expired(&first, &all).await;
    let asking = granted(&harness, &first).await;
    proxy.silent(true);
    let enough = Arc::new(AtomicBool::new(false));
    let callers = traffic(&second, &enough);
    for token in asking.join_all().await {
        token.expect("WeChat has granted it");
    }
    // Longer than the lease, and longer than a process waits for another one that may have the
    // pair.
    tokio::time::sleep(LEASE * 4).await;
    proxy.silent(false);
    assert!(first.shutdown(Duration::from_secs(20)).await);
    enough.store(true, Ordering::Relaxed);
    drop(callers.join_all().await);
    every_pair_is_stored(&harness).await;
}

async fn a_pair_is_stored_after_an_outage_past_its_lease(harness: Harness) {
    rotating(&harness);
    let (first, to_first) = harness.process_behind_a_proxy(LEASE).await;
    let (second, to_second) = harness.process_behind_a_proxy(LEASE).await;
    let names = names();
    let all: Vec<&str> = names.iter().map(String::as_str).collect();
    harness.expired(&first, &all).await;
    let asking = granted(&harness, &first).await;
    to_first.silent(true);
    to_second.silent(true);
    let enough = Arc::new(AtomicBool::new(false));
    let callers = traffic(&second, &enough);
    for token in asking.join_all().await {
        token.expect("WeChat has granted it");
    }
    tokio::time::sleep(LEASE * 2).await;
    to_second.silent(false);
    to_first.silent(false);
    to_first.cut_all();
    assert!(first.shutdown(Duration::from_secs(20)).await);
    enough.store(true, Ordering::Relaxed);
    let errors = callers.join_all().await.concat();
    // The process with the new pairs stores them before another process sends a user to log in.
    assert!(!errors.contains(&ErrorKind::LoginRequired));
    every_pair_is_stored(&harness).await;
}
