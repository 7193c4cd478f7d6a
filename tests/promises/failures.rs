//! Tests of the promise "failures are sorted".

use std::time::Duration;

use tower_wechat::ErrorKind;
use tower_wechat::simulator::Fault;

use crate::harness::{Harness, REFRESH, id, many, text};

crate::for_each_store!(
    an_expired_refresh_token_leads_to_a_login,
    a_replaced_pair_is_not_deleted,
    a_passing_failure_is_retried,
    a_lasting_failure_limits_calls,
    an_account_failure_suppresses_all_calls,
    a_rate_limit_delays_calls,
    a_spent_quota_stops_renewals_for_a_minute,
    a_token_of_another_user_is_not_kept,
);

async fn an_expired_refresh_token_leads_to_a_login(harness: Harness) {
    for (at, errcode) in [40030, 42002, 42007, 40003].into_iter().enumerate() {
        let openid = format!("oUser{at}");
        let users = harness.process().await;
        harness.expired(&users, &[&openid]).await;
        let before = harness.refreshes();
        harness
            .simulator
            .inject(Fault::on(REFRESH).errcode(errcode).times(1));
        let error = users.get(&id(&openid)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::LoginRequired, "{errcode}");
        // The pair is deleted for all processes, so that none of them calls WeChat for this user
        // again.
        for outcome in many(&[users, harness.process().await], &openid, 20).await {
            assert_eq!(outcome.unwrap_err().kind(), ErrorKind::LoginRequired);
        }
        assert_eq!(harness.refreshes(), before + 1, "{errcode}");
    }
}

async fn a_replaced_pair_is_not_deleted(harness: Harness) {
    let (users, elsewhere) = (harness.process().await, harness.process().await);
    harness.expired(&users, &["oA"]).await;
    // WeChat takes 300 ms for the refresh. Meanwhile the user logs in again, which revokes the old
    // refresh token. The pair of the login must survive the rejection of the old one (40030).
    harness.simulator.inject(
        Fault::on(REFRESH)
            .delay(Duration::from_millis(300))
            .errcode(40030),
    );
    let asking = tokio::spawn({
        let users = users.clone();
        async move { users.get(&id("oA")).await }
    });
    crate::support::eventually("WeChat is asked", Duration::from_secs(5), async || {
        harness.refreshes() > 0
    })
    .await;
    let login = harness.log_in(&elsewhere, "oA").await;
    assert_eq!(text(&asking.await.unwrap().unwrap()), login.access_token);
    assert_eq!(
        harness.stored_token("oA").await.unwrap(),
        login.access_token
    );
}

async fn a_passing_failure_is_retried(harness: Harness) {
    let users = harness.process().await;
    harness.expired(&users, &["oA"]).await;
    harness
        .simulator
        .inject(Fault::on(REFRESH).errcode(-1).times(1));
    harness.simulator.inject(
        Fault::on(REFRESH)
            .status(502)
            .body("<html>bad gateway")
            .times(1),
    );
    assert_eq!(
        text(&users.get(&id("oA")).await.unwrap()),
        harness.live_token("oA")
    );
    assert_eq!(harness.refreshes(), 3);
}

async fn a_lasting_failure_limits_calls(harness: Harness) {
    // A lease of 2 s limits the retries of a renewal to less than 2 s, so that this test is short.
    let users = harness
        .process_with(|builder| builder.lease_duration(Duration::from_secs(2)))
        .await;
    harness.expired(&users, &["oA"]).await;
    harness.simulator.inject(Fault::on(REFRESH).errcode(-1));
    let error = users.get(&id("oA")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WechatUnavailable);
    let tries = harness.refreshes();
    assert!(
        (2..=4).contains(&tries),
        "{tries} tries within 1.6 s of back-off"
    );
    for _ in 0..200 {
        let error = users.get(&id("oA")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WechatUnavailable);
        assert!(
            error
                .retry_after()
                .is_some_and(|wait| wait <= Duration::from_secs(30))
        );
    }
    assert_eq!(harness.refreshes(), tries);
    // The pair stays in the store, and is renewed when WeChat works again and the back-off is over.
    harness.simulator.clear_faults();
    harness.clock.advance(Duration::from_secs(31));
    assert_eq!(
        text(&users.get(&id("oA")).await.unwrap()),
        harness.live_token("oA")
    );
    // A success ends the back-off: after the next failure, the renewal is retried while the request
    // waits.
    harness.advance(Duration::from_secs(7_300));
    harness
        .simulator
        .inject(Fault::on(REFRESH).errcode(-1).times(1));
    users.get(&id("oA")).await.unwrap();
}

async fn an_account_failure_suppresses_all_calls(harness: Harness) {
    let users = harness.process().await;
    harness.expired(&users, &["oA", "oB"]).await;
    harness.simulator.inject(Fault::on(REFRESH).errcode(40164));
    let first = users.get(&id("oA")).await.unwrap_err();
    assert_eq!(first.kind(), ErrorKind::WechatConfig);
    // The caller whose call failed gets a Retry-After, like all callers after it.
    assert!(
        first
            .retry_after()
            .is_some_and(|wait| wait > Duration::from_secs(20)),
        "{first:?}"
    );
    for outcome in many(std::slice::from_ref(&users), "oB", 100).await {
        let error = outcome.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WechatConfig);
        assert_eq!(error.errcode(), Some(40164));
        assert!(
            error
                .retry_after()
                .is_some_and(|wait| wait <= Duration::from_secs(30))
        );
    }
    assert_eq!(harness.refreshes(), 1);
    // When the back-off has ended, calls succeed without a restart.
    harness.simulator.clear_faults();
    harness.clock.advance(Duration::from_secs(31));
    assert_eq!(
        text(&users.get(&id("oB")).await.unwrap()),
        harness.live_token("oB")
    );
    assert_eq!(
        text(&users.get(&id("oA")).await.unwrap()),
        harness.live_token("oA")
    );
}

async fn a_rate_limit_delays_calls(harness: Harness) {
    let users = harness.process().await;
    harness.expired(&users, &["oA"]).await;
    // 45011: the account has used up its calls of this minute.
    harness.simulator.inject(Fault::on(REFRESH).errcode(45011));
    let error = users.get(&id("oA")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WechatUnavailable);
    for _ in 0..50 {
        assert!(users.get(&id("oA")).await.is_err());
    }
    let tries = harness.refreshes();
    assert!(tries <= 4, "{tries} calls although the minute is spent");
    harness.simulator.clear_faults();
    harness.clock.advance(Duration::from_secs(61));
    assert_eq!(
        text(&users.get(&id("oA")).await.unwrap()),
        harness.live_token("oA")
    );
}

async fn a_token_of_another_user_is_not_kept(harness: Harness) {
    let users = harness
        .process_with(|builder| builder.lease_duration(Duration::from_secs(1)))
        .await;
    harness.expired(&users, &["oA"]).await;
    let body =
        r#"{"access_token":"83_theirs","expires_in":7200,"refresh_token":"83_r","openid":"oB"}"#;
    harness.simulator.inject(Fault::on(REFRESH).body(body));
    assert_eq!(
        users.get(&id("oA")).await.unwrap_err().kind(),
        ErrorKind::WechatUnavailable
    );
    harness.simulator.clear_faults();
    assert_eq!(
        harness.stored_token("oA").await.unwrap(),
        harness.live_token("oA")
    );
}

async fn a_spent_quota_stops_renewals_for_a_minute(harness: Harness) {
    let users = harness.process().await;
    harness.expired(&users, &["oA", "oB"]).await;
    harness
        .simulator
        .inject(Fault::on(REFRESH).errcode(45009).times(1));
    for openid in ["oA", "oB"] {
        let error = users.get(&id(openid)).await.unwrap_err();
        assert_eq!(error.errcode(), Some(45009), "{openid}");
        assert!(error.retry_after().unwrap() <= Duration::from_secs(60));
    }
    assert_eq!(harness.refreshes(), 1);
    harness.advance(Duration::from_secs(61));
    for openid in ["oA", "oB"] {
        let token = users.get(&id(openid)).await.unwrap();
        assert_eq!(text(&token), harness.live_token(openid));
    }
}
