//! Tests of one renewal across several processes: WeChat receives one call for each user, however
//! many requests arrive.

use std::collections::HashSet;

use tokio::task::JoinSet;

use crate::support::harness::{Age, Harness, Layout};
use crate::support::http_client::fingerprint;

const PROCESSES: usize = 3;
const REQUESTS_EACH: usize = 150;
const USERS: usize = 200;

async fn many_requests_of_one_user(layout: Layout) {
    let harness = Harness::new(layout).await;
    let demos = harness.demos::<PROCESSES>().await;
    let old = harness.sign_in("oUser", Age::Expired).await;

    let mut requests = JoinSet::new();
    for demo in &demos {
        for _ in 0..REQUESTS_EACH {
            let http = demo.http().clone();
            requests.spawn(async move { http.me("oUser").await });
        }
    }
    let answers = requests.join_all().await;

    assert_eq!(answers.len(), PROCESSES * REQUESTS_EACH);
    let current = harness.wechat.current_pair("oUser").unwrap();
    assert_ne!(
        current.access_token, old.access_token,
        "the old token had expired"
    );
    for answer in &answers {
        answer.has_token(&current.access_token);
        assert_eq!(answer.field("freshness"), "fresh");
    }
    assert_eq!(harness.refreshes(), 1);
    harness.assert_newest_pair_is_stored("oUser");
}

async fn many_users(layout: Layout) {
    let harness = Harness::new(layout).await;
    let demos = harness.demos::<PROCESSES>().await;
    let users: Vec<String> = (0..USERS).map(|number| format!("oUser{number}")).collect();
    let pairs: Vec<_> = users
        .iter()
        .map(|user| harness.wechat.sign_in(user, "snsapi_userinfo"))
        .collect();
    harness.wechat.advance(pairs[0].expires_in);
    for (user, pair) in users.iter().zip(&pairs) {
        harness.store(user, pair, Age::Expired);
    }

    // Each process gets one request of each user.
    let mut requests = JoinSet::new();
    for demo in &demos {
        for user in &users {
            let (http, user) = (demo.http().clone(), user.clone());
            requests.spawn(async move {
                let answer = http.me(&user).await;
                (user, answer)
            });
        }
    }
    let answers = requests.join_all().await;

    assert_eq!(answers.len(), PROCESSES * USERS);
    let mut tokens = HashSet::new();
    for (user, answer) in &answers {
        let current = harness.wechat.current_pair(user).unwrap();
        answer.has_token(&current.access_token);
        assert_eq!(answer.field("user_id"), *user);
        tokens.insert(fingerprint(&current.access_token));
    }
    assert_eq!(tokens.len(), USERS, "each user has another token");
    assert_eq!(harness.refreshes(), USERS as u64);
    for user in &users {
        harness.assert_newest_pair_is_stored(user);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_user_is_renewed_once_hashes() {
    many_requests_of_one_user(Layout::Hashes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_user_is_renewed_once_keys() {
    many_requests_of_one_user(Layout::Keys).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_users_are_renewed_once_each_hashes() {
    many_users(Layout::Hashes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_users_are_renewed_once_each_keys() {
    many_users(Layout::Keys).await;
}
