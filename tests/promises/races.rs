//! Tests of the promises "one renewal", "newest wins" and "nothing lost".

use std::time::Duration;

use tower_wechat::client::UserTokenResponse;
use tower_wechat::simulator::Fault;
use tower_wechat::{ErrorKind, UserTokens};

use crate::harness::{Harness, REFRESH, grant, id, many, text};
use crate::support::eventually;

crate::for_each_store!(
    five_hundred_tasks_make_one_call,
    three_processes_make_one_call,
    each_user_is_renewed_separately,
    unknown_users_do_not_reach_wechat,
    a_login_supersedes_an_earlier_renewal,
    a_login_elsewhere_supersedes_an_earlier_renewal,
    a_revocation_supersedes_an_earlier_renewal,
    a_concurrent_read_restores_no_old_token,
    a_client_that_hangs_up_does_not_lose_the_pair,
    shutdown_waits_for_calls_under_way,
    a_reply_without_a_refresh_token_keeps_the_old_one,
    a_rotated_refresh_token_is_kept,
    a_follower_stops_waiting_at_its_deadline,
);

async fn five_hundred_tasks_make_one_call(harness: Harness) {
    let users = harness.process().await;
    harness.expired(&users, &["oA"]).await;
    let tokens = many(std::slice::from_ref(&users), "oA", 500).await;
    assert_eq!(harness.refreshes(), 1);
    let live = harness.live_token("oA");
    assert!(tokens.into_iter().all(|token| token.unwrap() == live));
}

async fn three_processes_make_one_call(harness: Harness) {
    let processes = [
        harness.process().await,
        harness.process().await,
        harness.process().await,
    ];
    harness.expired(&processes[0], &["oA"]).await;
    harness
        .simulator
        .inject(Fault::on(REFRESH).delay(Duration::from_millis(150)));
    let tokens = many(&processes, "oA", 600).await;
    assert_eq!(harness.refreshes(), 1);
    let live = harness.live_token("oA");
    assert!(tokens.into_iter().all(|token| token.unwrap() == live));
}

async fn each_user_is_renewed_separately(harness: Harness) {
    let processes = [harness.process().await, harness.process().await];
    let openids: Vec<String> = (0..200).map(|n| format!("oUser{n}")).collect();
    let named: Vec<&str> = openids.iter().map(String::as_str).collect();
    harness.expired(&processes[0], &named).await;
    let mut running = tokio::task::JoinSet::new();
    for at in 0..800 {
        let (users, openid) = (processes[at % 2].clone(), openids[at % 200].clone());
        running.spawn(async move {
            let token = users.get(&id(&openid)).await.unwrap();
            (openid, text(&token))
        });
    }
    for (openid, token) in running.join_all().await {
        assert_eq!(token, harness.live_token(&openid), "{openid}");
    }
    assert_eq!(harness.refreshes(), 200);
}

async fn unknown_users_do_not_reach_wechat(harness: Harness) {
    let users = harness.process().await;
    for outcome in many(std::slice::from_ref(&users), "oStranger", 300).await {
        assert_eq!(outcome.unwrap_err().kind(), ErrorKind::LoginRequired);
    }
    // One request after another, as of a client that retries without end.
    for _ in 0..300 {
        let error = users.get(&id("oStranger")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::LoginRequired);
    }
    assert!(harness.simulator.calls().is_empty());
    if let Some(redis) = &harness.redis {
        // The first requests read the store. The process caches the missing token for one second.
        let reads = redis.calls("hget") + redis.calls("get");
        assert!(reads <= 10, "{reads} reads for 600 requests");
    }
}

/// Starts a renewal that takes 400 ms, and waits until WeChat has received the call.
async fn slow_renewal(harness: &Harness, users: &UserTokens) -> tokio::task::JoinHandle<()> {
    let before = harness.refreshes();
    // WeChat renews the pair when the call arrives, and sends the response 400 ms later.
    harness.simulator.inject(
        Fault::on(REFRESH)
            .delay(Duration::from_millis(400))
            .times(1),
    );
    let users = users.clone();
    let asking = tokio::spawn(async move {
        let _ = users.get(&id("oA")).await;
    });
    eventually("WeChat is asked", Duration::from_secs(5), async || {
        harness.refreshes() > before
    })
    .await;
    asking
}

async fn a_login_supersedes_an_earlier_renewal(harness: Harness) {
    let users = harness.process().await;
    login_during_a_renewal(&harness, &users, &users).await;
}

async fn a_login_elsewhere_supersedes_an_earlier_renewal(harness: Harness) {
    let (users, elsewhere) = (harness.process().await, harness.process().await);
    login_during_a_renewal(&harness, &users, &elsewhere).await;
}

async fn login_during_a_renewal(harness: &Harness, users: &UserTokens, logging_in: &UserTokens) {
    harness.expired(users, &["oA"]).await;
    let asking = slow_renewal(harness, users).await;
    let login = harness.log_in(logging_in, "oA").await;
    asking.await.unwrap();
    assert!(users.shutdown(Duration::from_secs(5)).await);
    assert_eq!(
        text(&users.get(&id("oA")).await.unwrap()),
        login.access_token
    );
    assert_eq!(
        harness.stored_token("oA").await.unwrap(),
        login.access_token
    );
}

async fn a_revocation_supersedes_an_earlier_renewal(harness: Harness) {
    let users = harness.process().await;
    harness.expired(&users, &["oA"]).await;
    let asking = slow_renewal(&harness, &users).await;
    users.revoke(&id("oA")).await.unwrap();
    asking.await.unwrap();
    assert!(users.shutdown(Duration::from_secs(5)).await);
    let error = harness.stored_token("oA").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LoginRequired);
    assert_eq!(
        users.get(&id("oA")).await.unwrap_err().kind(),
        ErrorKind::LoginRequired
    );
}

async fn a_concurrent_read_restores_no_old_token(harness: Harness) {
    let users = harness.process().await;
    harness.log_in(&users, "oA").await;
    for round in 0..100 {
        let reader = harness.process().await;
        let reading = tokio::spawn({
            let reader = reader.clone();
            async move { reader.get(&id("oA")).await }
        });
        let login = harness.simulator.sign_in("oA", "snsapi_base");
        reader.store(&id("oA"), &grant(&login)).await.unwrap();
        reading.await.unwrap().unwrap();
        let now = reader.get(&id("oA")).await.unwrap();
        assert_eq!(text(&now), login.access_token, "round {round}");
        if harness.is_remote() && round >= 20 {
            break;
        }
    }
}

async fn a_client_that_hangs_up_does_not_lose_the_pair(harness: Harness) {
    let users = harness.process().await;
    harness.expired(&users, &["oA"]).await;
    let old = harness.live_token("oA");
    let asking = slow_renewal(&harness, &users).await;
    asking.abort();
    assert!(asking.await.unwrap_err().is_cancelled());
    eventually("the pair is stored", Duration::from_secs(5), async || {
        harness
            .stored_token("oA")
            .await
            .is_ok_and(|token| token != old)
    })
    .await;
    assert_eq!(
        harness.stored_token("oA").await.unwrap(),
        harness.live_token("oA")
    );
    assert_eq!(harness.refreshes(), 1);
}

async fn shutdown_waits_for_calls_under_way(harness: Harness) {
    let users = harness.process().await;
    harness.expired(&users, &["oA"]).await;
    slow_renewal(&harness, &users).await.abort();
    assert!(users.shutdown(Duration::from_secs(5)).await);
    assert_eq!(
        harness.stored_token("oA").await.unwrap(),
        harness.live_token("oA")
    );
    assert_eq!(harness.refreshes(), 1);
    // A shutdown does not wait longer than its timeout for a call that hangs.
    harness.advance(Duration::from_secs(7_300));
    harness.simulator.inject(Fault::on(REFRESH).hang().times(1));
    let hanging = users.clone();
    tokio::spawn(async move { hanging.get(&id("oA")).await });
    eventually("WeChat is asked", Duration::from_secs(5), async || {
        harness.refreshes() > 1
    })
    .await;
    assert!(!users.shutdown(Duration::from_millis(50)).await);
}

async fn a_reply_without_a_refresh_token_keeps_the_old_one(harness: Harness) {
    let users = harness.process().await;
    harness.expired(&users, &["oA"]).await;
    let body = r#"{"access_token":"83_bare","expires_in":7200,"openid":"oA"}"#;
    harness
        .simulator
        .inject(Fault::on(REFRESH).body(body).times(1));
    assert_eq!(text(&users.get(&id("oA")).await.unwrap()), "83_bare");
    harness.advance(Duration::from_secs(7_300));
    let renewed = harness.process().await.get(&id("oA")).await.unwrap();
    assert_eq!(text(&renewed), harness.live_token("oA"));
    assert_eq!(renewed.scope(), Some("snsapi_userinfo"));
    assert_eq!(harness.refreshes(), 2);
}

async fn a_rotated_refresh_token_is_kept(harness: Harness) {
    harness
        .simulator
        .settings(|settings| settings.rotate_refresh_token = true);
    let users = harness.process().await;
    harness.expired(&users, &["oA"]).await;
    for _ in 0..3 {
        // Each time a new process, whose cache is empty, renews the stored pair.
        let token = harness.process().await.get(&id("oA")).await.unwrap();
        assert_eq!(text(&token), harness.live_token("oA"));
        harness.advance(Duration::from_secs(7_300));
    }
    assert_eq!(harness.refreshes(), 3);
}

async fn a_follower_stops_waiting_at_its_deadline(harness: Harness) {
    let holder = harness.process().await;
    let follower = harness
        .process_with(|builder| builder.load_timeout(Duration::from_millis(300)))
        .await;
    harness.expired(&holder, &["oA"]).await;
    harness.simulator.inject(
        Fault::on(REFRESH)
            .delay(Duration::from_millis(1_500))
            .times(1),
    );
    let holding = tokio::spawn(async move { holder.get(&id("oA")).await });
    eventually("WeChat is asked", Duration::from_secs(5), async || {
        harness.refreshes() > 0
    })
    .await;
    let error = follower.get(&id("oA")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WechatUnavailable);
    assert!(error.retry_after().is_some());
    let token = text(&holding.await.unwrap().unwrap());
    eventually(
        "the follower has it too",
        Duration::from_secs(5),
        async || {
            follower
                .get(&id("oA"))
                .await
                .is_ok_and(|theirs| text(&theirs) == token)
        },
    )
    .await;
    assert_eq!(harness.refreshes(), 1);
    if let Some(redis) = &harness.redis {
        let commands = redis.calls("evalsha");
        assert!(
            commands < 60,
            "{commands} scripts ran for one renewal and one follower"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_accounts_share_nothing() {
    use crate::harness::Backend;
    use tower_wechat::redis::{Layout, RedisNames};
    use tower_wechat::simulator::Simulator;
    use tower_wechat::{RedisStore, WechatClient};

    let harness = Harness::new(Backend::Hashes).await;
    let other = Simulator::builder()
        .app("wxother", "other-secret")
        .start()
        .await
        .unwrap();
    let names: RedisNames = serde_json::from_str(
        r#"{"redisWxUserAccessToken": "{appid}.access", "redisWxUserRefreshToken": "{appid}.refresh"}"#,
    )
    .unwrap();
    for layout in [Layout::Hashes, Layout::Keys] {
        let url = harness.redis.as_ref().unwrap().url();
        let store = RedisStore::builder(&url)
            .layout(layout)
            .names(names.clone());
        let store = store.connect().await.unwrap();
        let theirs = WechatClient::builder(other.app_id(), other.app_secret()).api_url(other.url());
        let ours = UserTokens::new(harness.client(), store.clone());
        let theirs = UserTokens::new(theirs.build().unwrap(), store);
        ours.store(&id("oA"), &UserTokenResponse::new("ours").expires_in(7_200))
            .await
            .unwrap();
        theirs
            .store(
                &id("oA"),
                &UserTokenResponse::new("theirs").expires_in(7_200),
            )
            .await
            .unwrap();
        assert_eq!(text(&ours.get(&id("oA")).await.unwrap()), "ours");
        assert_eq!(text(&theirs.get(&id("oA")).await.unwrap()), "theirs");
        ours.revoke(&id("oA")).await.unwrap();
        assert!(ours.get(&id("oA")).await.is_err());
        assert_eq!(text(&theirs.get(&id("oA")).await.unwrap()), "theirs");
    }
}
