//! Tests of concurrent logins, renewals, reports and deletions of one user.

use std::time::{Duration, Instant};

use tower_wechat::client::UserTokenResponse;
use tower_wechat::simulator::Fault;
use tower_wechat::{ErrorKind, UserTokens};

use crate::harness::{Harness, REFRESH, id, text};
use crate::support::eventually;

crate::for_each_store!(
    of_two_logins_the_stored_one_is_served,
    a_login_during_a_commit_leaves_no_older_token,
    a_deletion_during_a_commit_leaves_no_token,
    a_login_survives_the_deletion_of_an_expired_pair,
    a_revocation_acts_at_once_on_a_stale_token,
    a_login_acts_at_once_on_a_stale_token,
    waiting_requests_get_the_account_failure,
    a_report_delays_no_other_request,
    a_logout_completes_if_its_caller_hangs_up,
    a_login_completes_if_its_caller_hangs_up,
);

fn grant(token: &str) -> UserTokenResponse {
    UserTokenResponse::new(token)
        .expires_in(7_200)
        .refresh_token("r")
        .openid("oA")
}

/// Returns the token that `users` serves, and the token in the store.
async fn both(
    users: &UserTokens,
    harness: &Harness,
    openid: &str,
) -> (Option<String>, Option<String>) {
    let served = users.get(&id(openid)).await.ok().map(|token| text(&token));
    (served, harness.stored_token(openid).await.ok())
}

/// Starts the renewal of an expired user, and returns shortly before or after WeChat's response.
async fn renewal_about_to_end(
    harness: &Harness,
    users: &UserTokens,
    openid: &str,
    round: u32,
) -> tokio::task::JoinHandle<()> {
    harness.expired(users, &[openid]).await;
    let before = harness.refreshes();
    let asking = tokio::spawn({
        let (users, user) = (users.clone(), id(openid));
        async move {
            let _ = users.get(&user).await;
        }
    });
    eventually("WeChat is asked", Duration::from_secs(5), async || {
        harness.refreshes() > before
    })
    .await;
    tokio::time::sleep(Duration::from_micros(u64::from(round) * 150)).await;
    asking
}

async fn of_two_logins_the_stored_one_is_served(harness: Harness) {
    let users = harness.process().await;
    for round in 0..60 {
        let mut logins = tokio::task::JoinSet::new();
        for browser in 0..2 {
            let users = users.clone();
            logins.spawn(async move {
                let grant = grant(&format!("t{round}-{browser}"));
                users.store(&id("oA"), &grant).await.unwrap();
            });
        }
        logins.join_all().await;
        let (served, stored) = both(&users, &harness, "oA").await;
        assert_eq!(served, stored, "round {round}");
    }
}

async fn a_login_during_a_commit_leaves_no_older_token(harness: Harness) {
    let users = harness.process().await;
    harness
        .simulator
        .inject(Fault::on(REFRESH).delay(Duration::from_millis(10)));
    for round in 0..40 {
        let openid = format!("oUser{round}");
        let asking = renewal_about_to_end(&harness, &users, &openid, round).await;
        users.store(&id(&openid), &grant("login")).await.unwrap();
        asking.await.unwrap();
        assert_eq!(
            text(&users.get(&id(&openid)).await.unwrap()),
            "login",
            "round {round}"
        );
    }
}

async fn a_deletion_during_a_commit_leaves_no_token(harness: Harness) {
    let users = harness.process().await;
    harness
        .simulator
        .inject(Fault::on(REFRESH).delay(Duration::from_millis(10)));
    for round in 0..40 {
        let openid = format!("oUser{round}");
        let asking = renewal_about_to_end(&harness, &users, &openid, round).await;
        users.revoke(&id(&openid)).await.unwrap();
        asking.await.unwrap();
        let error = users.get(&id(&openid)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::LoginRequired, "round {round}");
    }
}

async fn a_login_survives_the_deletion_of_an_expired_pair(harness: Harness) {
    let users = harness.process().await;
    harness.simulator.inject(
        Fault::on(REFRESH)
            .errcode(40030)
            .delay(Duration::from_millis(10)),
    );
    for round in 0..40 {
        let openid = format!("oUser{round}");
        let asking = renewal_about_to_end(&harness, &users, &openid, round).await;
        users.store(&id(&openid), &grant("login")).await.unwrap();
        asking.await.unwrap();
        let token = users.get(&id(&openid)).await;
        assert_eq!(
            token.map(|token| text(&token)).unwrap(),
            "login",
            "round {round}"
        );
    }
}

/// Starts the renewal of a stale token and waits until WeChat has the call. WeChat responds after
/// 800 ms.
async fn stale_in_renewal(harness: &Harness, users: &UserTokens) {
    harness.stale(users, &["oA"]).await;
    harness.simulator.inject(
        Fault::on(REFRESH)
            .delay(Duration::from_millis(800))
            .times(1),
    );
    users.get(&id("oA")).await.unwrap();
    eventually("WeChat is asked", Duration::from_secs(5), async || {
        harness.refreshes() > 0
    })
    .await;
}

async fn a_revocation_acts_at_once_on_a_stale_token(harness: Harness) {
    let users = harness.process().await;
    stale_in_renewal(&harness, &users).await;
    users.revoke(&id("oA")).await.unwrap();
    let error = users.get(&id("oA")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LoginRequired);
    assert!(users.shutdown(Duration::from_secs(5)).await);
    assert!(
        users.get(&id("oA")).await.is_err(),
        "and does not come back"
    );
}

async fn a_login_acts_at_once_on_a_stale_token(harness: Harness) {
    let users = harness
        .process_with(|builder| builder.cache_ttl(Duration::ZERO))
        .await;
    stale_in_renewal(&harness, &users).await;
    let login = harness.log_in(&users, "oA").await;
    assert_eq!(
        text(&users.get(&id("oA")).await.unwrap()),
        login.access_token
    );
    // The renewal that the login superseded ends meanwhile, and must not disturb the next renewal.
    harness.advance(Duration::from_secs(7_300));
    let (users, before) = (users, harness.refreshes());
    let tokens = crate::harness::many(std::slice::from_ref(&users), "oA", 50).await;
    assert!(
        tokens
            .into_iter()
            .all(|token| token.unwrap() == harness.live_token("oA"))
    );
    assert_eq!(harness.refreshes(), before + 1);
}

async fn waiting_requests_get_the_account_failure(harness: Harness) {
    let users = harness.process().await;
    let openids: Vec<String> = (0..1_500).map(|n| format!("oUser{n}")).collect();
    let named: Vec<&str> = openids.iter().map(String::as_str).collect();
    harness.expired(&users, &named).await;
    let answer = Fault::on(REFRESH)
        .errcode(40164)
        .delay(Duration::from_millis(1_500));
    harness.simulator.inject(answer);
    let mut running = tokio::task::JoinSet::new();
    for openid in openids {
        let users = users.clone();
        running.spawn(async move { users.get(&id(&openid)).await.is_ok() });
    }
    assert!(running.join_all().await.iter().all(|served| !served));
    assert!(users.shutdown(Duration::from_secs(20)).await);
    // WeChat gets the calls that a process runs at once, and not one call for each of 1,500 users.
    assert!(harness.refreshes() <= 600, "{} calls", harness.refreshes());
}

async fn a_report_delays_no_other_request(harness: Harness) {
    let users = harness.process().await;
    let pair = harness.log_in(&users, "oA").await;
    harness.simulator.inject(Fault::on(REFRESH).hang());
    let token = users.get(&id("oA")).await.unwrap();
    let reporting = tokio::spawn({
        let users = users.clone();
        async move { users.report_invalid(&id("oA"), token.access_token()).await }
    });
    eventually("WeChat is asked", Duration::from_secs(5), async || {
        harness.refreshes() > 0
    })
    .await;
    let began = Instant::now();
    let token = users.get(&id("oA")).await.unwrap();
    assert_eq!(text(&token), pair.access_token);
    assert!(
        began.elapsed() < Duration::from_secs(3),
        "{:?}",
        began.elapsed()
    );
    reporting.abort();
}

/// Runs `work` and drops it after `round` times 40 µs, like a client that disconnects.
async fn hang_up(work: impl Future<Output = ()>, round: u32) {
    let after = Duration::from_micros(u64::from(round) * 40);
    tokio::select! {
        biased;
        () = work => {}
        () = tokio::time::sleep(after) => {}
    }
}

async fn a_logout_completes_if_its_caller_hangs_up(harness: Harness) {
    let (users, elsewhere) = (harness.process().await, harness.process().await);
    for round in 0..20 {
        let openid = format!("oUser{round}");
        harness.log_in(&users, &openid).await;
        let user = id(&openid);
        let forget = async {
            users.revoke(&user).await.unwrap();
        };
        hang_up(forget, round).await;
        eventually("the pair is gone", Duration::from_secs(5), async || {
            elsewhere.get(&user).await.is_err()
        })
        .await;
    }
    assert!(users.shutdown(Duration::from_secs(5)).await);
}

async fn a_login_completes_if_its_caller_hangs_up(harness: Harness) {
    let (users, elsewhere) = (harness.process().await, harness.process().await);
    for round in 0..20 {
        let user = id(&format!("oUser{round}"));
        let login = grant("login");
        let put = async {
            users.store(&user, &login).await.unwrap();
        };
        hang_up(put, round).await;
        eventually("the pair is stored", Duration::from_secs(5), async || {
            elsewhere.get(&user).await.is_ok() && users.get(&user).await.is_ok()
        })
        .await;
    }
    // After the shutdown, the tokens of users can still be revoked.
    assert!(users.shutdown(Duration::from_secs(5)).await);
    users.revoke(&id("oUser0")).await.unwrap();
    assert!(harness.stored_token("oUser0").await.is_err());
}

/// A call starts on a runtime that ends before the call's task has run. A later request must not
/// wait for that call.
#[test]
fn a_task_that_never_ran_blocks_no_request() {
    use tokio::runtime::Builder;
    use tower_wechat::{MemoryStore, WechatClient};

    let client = WechatClient::builder("wxa", "s")
        .api_url("http://127.0.0.1:9")
        .build()
        .unwrap();
    let users = UserTokens::new(client, MemoryStore::new());
    let runtime = || Builder::new_current_thread().enable_all().build().unwrap();
    let first = runtime();
    first.block_on(async {
        let user = id("oA");
        let mut asking = std::pin::pin!(users.get(&user));
        // Polls the request once, so that its task is queued and does not run.
        std::future::poll_fn(|context| {
            let _ = asking.as_mut().poll(context);
            std::task::Poll::Ready(())
        })
        .await;
    });
    drop(first);
    runtime().block_on(async {
        let error = users.get(&id("oA")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::LoginRequired, "{error:?}");
    });
}
