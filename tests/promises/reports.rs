//! R6 reports are compared.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tower_wechat::simulator::Fault;
use tower_wechat::{AccessToken, Error, ErrorKind, Language, UserInfo, UserToken, UserTokens};

use crate::rig::{Rig, grant, id, text};

crate::for_each_store!(
    r6_a_thousand_reports_make_one_renewal,
    r6_a_report_of_an_old_token_renews_nothing,
    r6_a_refused_call_is_healed_once,
    r6_a_call_is_never_made_a_third_time,
    r6_wechat_handing_back_what_it_refused_makes_no_storm,
);

/// A pair whose access token WeChat does not know, although its time is not over.
async fn refused(rig: &Rig, users: &UserTokens) -> AccessToken {
    let mut wrong = grant(&rig.simulator.sign_in("oA", "snsapi_userinfo"));
    wrong.access_token = AccessToken::from("83_refused");
    users.put(&id("oA"), &wrong).await.unwrap();
    wrong.access_token
}

async fn r6_a_thousand_reports_make_one_renewal(rig: Rig) {
    let processes = [rig.process().await, rig.process().await];
    let token = refused(&rig, &processes[0]).await;
    let mut running = tokio::task::JoinSet::new();
    for at in 0..1_000 {
        let (users, token) = (processes[at % 2].clone(), token.clone());
        running.spawn(async move {
            users
                .report_refused(&id("oA"), &token)
                .await
                .map(|token| text(&token))
        });
    }
    let live = rig.live_token("oA");
    for outcome in running.join_all().await {
        assert_eq!(outcome.unwrap(), live);
    }
    assert_eq!(rig.refreshes(), 1);
}

async fn r6_a_report_of_an_old_token_renews_nothing(rig: Rig) {
    let (users, elsewhere) = (rig.process().await, rig.process().await);
    let old = rig.log_in(&users, "oA").await;
    users.get(&id("oA")).await.unwrap();
    let new = rig.log_in(&elsewhere, "oA").await;
    // This process still holds the old one; the report makes it look, not renew.
    let token = users
        .report_refused(&id("oA"), &old.access_token.as_str().into())
        .await
        .unwrap();
    assert_eq!(text(&token), new.access_token);
    let again = users
        .report_refused(&id("oA"), &"83_ancient".into())
        .await
        .unwrap();
    assert_eq!(text(&again), new.access_token);
    assert_eq!(rig.refreshes(), 0);
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

async fn r6_a_refused_call_is_healed_once(rig: Rig) {
    let users = rig.process().await;
    refused(&rig, &users).await;
    let calls = AtomicU32::new(0);
    assert_eq!(userinfo(&users, &calls).await.unwrap().openid, "oA");
    assert_eq!((calls.load(Ordering::Relaxed), rig.refreshes()), (2, 1));
    userinfo(&users, &calls).await.unwrap();
    assert_eq!((calls.load(Ordering::Relaxed), rig.refreshes()), (3, 1));
}

async fn r6_a_call_is_never_made_a_third_time(rig: Rig) {
    let users = rig.process().await;
    refused(&rig, &users).await;
    rig.simulator
        .inject(Fault::on("/sns/userinfo").errcode(40001));
    let calls = AtomicU32::new(0);
    let error = userinfo(&users, &calls).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TokenRefused);
    assert_eq!((calls.load(Ordering::Relaxed), rig.refreshes()), (2, 1));
}

async fn r6_wechat_handing_back_what_it_refused_makes_no_storm(rig: Rig) {
    let users = rig.process().await;
    rig.log_in(&users, "oA").await;
    // Before its expiry a refresh hands out the same token again.
    rig.simulator
        .inject(Fault::on("/sns/userinfo").errcode(40001));
    let calls = AtomicU32::new(0);
    for _ in 0..50 {
        assert!(userinfo(&users, &calls).await.is_err());
    }
    assert_eq!(rig.refreshes(), 1);
    rig.simulator.clear_faults();
    userinfo(&users, &calls).await.unwrap();
    // A while later a new report asks again.
    rig.advance(Duration::from_secs(16));
    rig.simulator
        .inject(Fault::on("/sns/userinfo").errcode(40001).times(1));
    calls.store(0, Ordering::Relaxed);
    userinfo(&users, &calls).await.unwrap();
    assert_eq!((calls.load(Ordering::Relaxed), rig.refreshes()), (2, 2));
}
