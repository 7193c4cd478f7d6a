//! Tests of the promise "reports compared": a report renews the token only if the stored token is
//! the reported one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tower_wechat::client::{Language, UserInfo};
use tower_wechat::simulator::Fault;
use tower_wechat::{AccessToken, Error, ErrorKind, UserToken, UserTokens};

use crate::harness::{Harness, REFRESH, grant, id, text};

crate::for_each_store!(
    a_thousand_reports_make_one_renewal,
    a_report_of_an_old_token_renews_nothing,
    a_rejected_call_is_repeated_once,
    a_call_is_never_made_a_third_time,
    a_repeated_invalid_token_causes_few_calls,
    reports_make_no_other_caller_fail,
    reports_without_a_refresh_token_fail_no_other_caller,
);

/// Stores a pair whose access token WeChat rejects although it has not expired. Returns that access
/// token.
async fn refused(harness: &Harness, users: &UserTokens) -> AccessToken {
    let mut wrong = grant(&harness.simulator.sign_in("oA", "snsapi_userinfo"));
    wrong.access_token = AccessToken::from("83_refused");
    users.store(&id("oA"), &wrong).await.unwrap();
    wrong.access_token
}

async fn a_thousand_reports_make_one_renewal(harness: Harness) {
    let processes = [harness.process().await, harness.process().await];
    let token = refused(&harness, &processes[0]).await;
    let mut running = tokio::task::JoinSet::new();
    for at in 0..1_000 {
        let (users, token) = (processes[at % 2].clone(), token.clone());
        running.spawn(async move {
            users
                .report_invalid(&id("oA"), &token)
                .await
                .map(|token| text(&token))
        });
    }
    let live = harness.live_token("oA");
    for outcome in running.join_all().await {
        assert_eq!(outcome.unwrap(), live);
    }
    assert_eq!(harness.refreshes(), 1);
}

async fn a_report_of_an_old_token_renews_nothing(harness: Harness) {
    let (users, elsewhere) = (harness.process().await, harness.process().await);
    let old = harness.log_in(&users, "oA").await;
    users.get(&id("oA")).await.unwrap();
    let new = harness.log_in(&elsewhere, "oA").await;
    // The process caches the old token. The report makes the process read the store, and does not
    // renew the token.
    let token = users
        .report_invalid(&id("oA"), &old.access_token.as_str().into())
        .await
        .unwrap();
    assert_eq!(text(&token), new.access_token);
    let again = users
        .report_invalid(&id("oA"), &"83_ancient".into())
        .await
        .unwrap();
    assert_eq!(text(&again), new.access_token);
    assert_eq!(harness.refreshes(), 0);
}

async fn userinfo(users: &UserTokens, calls: &AtomicU32) -> Result<UserInfo, Error> {
    let wechat = users.wechat();
    users
        .with_token(&id("oA"), |token: UserToken| async move {
            calls.fetch_add(1, Ordering::Relaxed);
            wechat
                .user_info(token.access_token(), "oA", Language::ZhCn)
                .await
        })
        .await
}

async fn a_rejected_call_is_repeated_once(harness: Harness) {
    let users = harness.process().await;
    refused(&harness, &users).await;
    let calls = AtomicU32::new(0);
    assert_eq!(userinfo(&users, &calls).await.unwrap().openid, "oA");
    assert_eq!((calls.load(Ordering::Relaxed), harness.refreshes()), (2, 1));
    userinfo(&users, &calls).await.unwrap();
    assert_eq!((calls.load(Ordering::Relaxed), harness.refreshes()), (3, 1));
}

async fn a_call_is_never_made_a_third_time(harness: Harness) {
    let users = harness.process().await;
    refused(&harness, &users).await;
    harness
        .simulator
        .inject(Fault::on("/sns/userinfo").errcode(40001));
    let calls = AtomicU32::new(0);
    let error = userinfo(&users, &calls).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TokenRefused);
    assert_eq!((calls.load(Ordering::Relaxed), harness.refreshes()), (2, 1));
}

async fn a_repeated_invalid_token_causes_few_calls(harness: Harness) {
    let users = harness.process().await;
    harness.log_in(&users, "oA").await;
    // WeChat rejects the token in calls, and a refresh returns the same token, because it has not
    // expired.
    harness
        .simulator
        .inject(Fault::on("/sns/userinfo").errcode(40001));
    let calls = AtomicU32::new(0);
    for _ in 0..50 {
        assert!(userinfo(&users, &calls).await.is_err());
    }
    assert_eq!(harness.refreshes(), 1);
    harness.simulator.clear_faults();
    userinfo(&users, &calls).await.unwrap();
    // After 16 s the process refreshes the token again if it is reported.
    harness.advance(Duration::from_secs(16));
    harness
        .simulator
        .inject(Fault::on("/sns/userinfo").errcode(40001).times(1));
    calls.store(0, Ordering::Relaxed);
    userinfo(&users, &calls).await.unwrap();
    assert_eq!((calls.load(Ordering::Relaxed), harness.refreshes()), (2, 2));
}

/// Reads a user's token in ten tasks while four tasks report it again and again. Ends after 40
/// failed reports and 1,000 reads by each reader. Returns the errors of the readers.
async fn reads_beside_reports(users: &UserTokens, token: &AccessToken) -> Vec<Error> {
    const READERS: usize = 10;
    const READS: usize = 1_000;
    const FAILED_REPORTS: u32 = 40;
    let failed = Arc::new(AtomicU32::new(0));
    let mut reporters = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let (users, token, failed) = (users.clone(), token.clone(), failed.clone());
        reporters.spawn(async move {
            loop {
                let outcome = users.report_invalid(&id("oA"), &token).await;
                failed.fetch_add(u32::from(outcome.is_err()), Ordering::Relaxed);
                tokio::task::yield_now().await;
            }
        });
    }
    let mut readers = tokio::task::JoinSet::new();
    for _ in 0..READERS {
        let (users, failed) = (users.clone(), failed.clone());
        readers.spawn(async move {
            let (mut reads, mut errors) = (0, Vec::new());
            while reads < READS || failed.load(Ordering::Relaxed) < FAILED_REPORTS {
                errors.extend(users.get(&id("oA")).await.err());
                reads += 1;
                tokio::task::yield_now().await;
            }
            errors
        });
    }
    let errors = readers.join_all().await.concat();
    reporters.abort_all();
    errors
}

/// Returns a process whose renewals fail within half a second, so that many reports fail.
async fn impatient(harness: &Harness) -> UserTokens {
    let brief = Duration::from_millis(500);
    harness
        .process_with(|builder| builder.load_timeout(brief).lease_duration(brief))
        .await
}

async fn reports_make_no_other_caller_fail(harness: Harness) {
    for errcode in [45009, -1, 40030] {
        let users = impatient(&harness).await;
        harness.simulator.clear_faults();
        let pair = harness.log_in(&users, "oA").await;
        let token = AccessToken::from(pair.access_token.as_str());
        harness
            .simulator
            .inject(Fault::on(REFRESH).errcode(errcode));
        let errors = reads_beside_reports(&users, &token).await;
        assert_eq!(errors.len(), 0, "{errcode}: such as {}", errors[0]);
        // The failed reports have not deleted the token.
        assert_eq!(harness.stored_token("oA").await.unwrap(), pair.access_token);
    }
}

async fn reports_without_a_refresh_token_fail_no_other_caller(harness: Harness) {
    let users = impatient(&harness).await;
    let mut alone = grant(&harness.simulator.sign_in("oA", "snsapi_userinfo"));
    alone.refresh_token = None;
    users.store(&id("oA"), &alone).await.unwrap();
    let errors = reads_beside_reports(&users, &alone.access_token).await;
    assert_eq!(errors.len(), 0, "such as {}", errors[0]);
}
