//! Tests of "reports compared" for the component token and the tokens of accounts.

use std::time::Duration;

use tokio::task::JoinSet;
use tower_wechat::ErrorKind;

use super::world::{
    AUTHORIZER_TOKEN, COMPONENT_TOKEN, Process, Refused, SOON, TOKENS_EXPIRED, World, is_kind,
};
use crate::harness::Harness;
use crate::support::eventually;

crate::for_each_store!(
    a_thousand_reports_of_the_component_token_make_one_renewal,
    a_thousand_reports_of_an_account_token_make_one_renewal,
    a_report_of_an_old_account_token_renews_nothing,
    the_component_token_is_replaced_once_a_minute,
    a_rejected_component_token_is_replaced_behind_an_account_token,
    a_dead_component_token_causes_no_calls,
);

/// Another service fetches a component token. The former one ends at once.
async fn fetch_elsewhere(world: &World) {
    world
        .harness
        .simulator
        .settings(|settings| settings.component_token_overlap = Duration::ZERO);
    let body = serde_json::json!({
        "component_appid": world.wechat.app_id(),
        "component_appsecret": world.wechat.app().app_secret(),
        "component_verify_ticket": world.wechat.ticket(),
    });
    let url = format!("{}{COMPONENT_TOKEN}", world.harness.simulator.url());
    let reply = reqwest::Client::new().post(url).body(body.to_string());
    let reply = reply.send().await.unwrap().text().await.unwrap();
    assert!(reply.contains("component_access_token"), "{reply}");
}

/// Calls WeChat with the component token 1,000 times from all processes at once.
async fn calls(world: &World, processes: &[Process]) -> Vec<Result<String, Refused>> {
    let mut running = JoinSet::new();
    for at in 0..1_000 {
        let platform = processes[at % processes.len()].platform.clone();
        let wechat = world.wechat.clone();
        running.spawn(async move {
            platform
                .with_component_token(async |token| {
                    let token = token.access_token().expose();
                    match wechat.is_component_token_valid(token) {
                        true => Ok(token.to_owned()),
                        false => Err(Refused(None)),
                    }
                })
                .await
        });
    }
    running.join_all().await
}

async fn a_thousand_reports_of_the_component_token_make_one_renewal(harness: Harness) {
    let (world, processes) = World::with_ticket(harness, 3).await;
    for process in &processes {
        process.component_token().await.unwrap();
    }
    fetch_elsewhere(&world).await;
    let before = world.calls(COMPONENT_TOKEN);
    for token in calls(&world, &processes).await {
        assert_eq!(Some(token.unwrap()), world.wechat.component_token());
    }
    assert_eq!(world.calls(COMPONENT_TOKEN) - before, 1);
}

/// A second service with the same component_appid ends the token again and again.
async fn the_component_token_is_replaced_once_a_minute(harness: Harness) {
    let (world, processes) = World::with_ticket(harness, 3).await;
    for process in &processes {
        process.component_token().await.unwrap();
    }
    let mut ours = 0;
    for round in 0..3 {
        fetch_elsewhere(&world).await;
        let before = world.calls(COMPONENT_TOKEN);
        calls(&world, &processes).await;
        ours += world.calls(COMPONENT_TOKEN) - before;
        // Once all processes know that the token is dead, none of them calls WeChat with it.
        for process in processes.iter().filter(|_| round > 0) {
            let error = is_kind(
                process.component_token().await,
                ErrorKind::WechatUnavailable,
            );
            let pause = error.retry_after().expect("a Retry-After");
            assert!(pause <= Duration::from_secs(60), "{pause:?}");
        }
    }
    assert_eq!(ours, 1, "forced renewals within a minute");

    // A token that is due is renewed all the same.
    world.harness.advance(TOKENS_EXPIRED);
    for token in calls(&world, &processes).await {
        token.unwrap();
    }
}

async fn a_thousand_reports_of_an_account_token_make_one_renewal(harness: Harness) {
    let (world, processes) = World::with_ticket(harness, 3).await;
    let account = world.account(0);
    world
        .authorize(&processes[0], std::slice::from_ref(&account))
        .await;
    let old = processes[0].token(&account).await.unwrap();
    let mut running = JoinSet::new();
    for at in 0..1_000 {
        let tokens = processes[at % 3].tokens(&account).await.unwrap();
        let old = tower_wechat::AccessToken::from(old.as_str());
        running.spawn(async move {
            let token = tokens.report_invalid(&old).await?;
            Ok::<_, tower_wechat::Error>(token.access_token().expose().to_owned())
        });
    }
    for token in running.join_all().await {
        assert_eq!(token.unwrap(), world.live_token(&account));
    }
    assert_eq!(world.calls(AUTHORIZER_TOKEN), 1);
    assert_eq!(world.calls(COMPONENT_TOKEN), 1);
}

async fn a_report_of_an_old_account_token_renews_nothing(harness: Harness) {
    let (world, processes) = World::with_ticket(harness, 2).await;
    let account = world.account(0);
    world
        .authorize(&processes[0], std::slice::from_ref(&account))
        .await;
    let old = processes[1].token(&account).await.unwrap();
    world
        .authorize(&processes[0], std::slice::from_ref(&account))
        .await;
    for process in &processes {
        let tokens = process.tokens(&account).await.unwrap();
        let token = tokens.report_invalid(&old.as_str().into()).await.unwrap();
        assert_eq!(token.access_token().expose(), world.live_token(&account));
    }
    // If a list has brought the second authorization before its event, its token is renewed once.
    let renewals = world.calls(AUTHORIZER_TOKEN);
    assert!(renewals <= 1, "{renewals} renewals");
}

/// The renewal of an account's token meets a component token that WeChat rejects: it is replaced, and
/// the renewal succeeds. If WeChat rejects the next one too, there is no third call.
async fn a_rejected_component_token_is_replaced_behind_an_account_token(harness: Harness) {
    let (world, processes) = World::with_ticket(harness, 2).await;
    let accounts: Vec<_> = (0..10).map(|number| world.account(number)).collect();
    world.authorize(&processes[0], &accounts).await;
    world.harness.advance(Duration::from_secs(6_700));
    processes[0].component_token().await.unwrap();
    eventually("the stale token is renewed", SOON, async || {
        world.calls(COMPONENT_TOKEN) == 2
    })
    .await;
    world.harness.advance(Duration::from_secs(600));
    // A process may notice at once, because it renews tokens ahead of requests too.
    let before = world.calls(COMPONENT_TOKEN);
    fetch_elsewhere(&world).await;
    for (account, token) in super::world::request_all(&processes, &accounts, 3).await {
        assert_eq!(token.unwrap(), world.live_token(&account));
    }
    let (elsewhere, here) = (1, 1);
    assert_eq!(world.calls(COMPONENT_TOKEN) - before, elsewhere + here);
    let calls = world.calls(AUTHORIZER_TOKEN);
    assert!(calls <= 20, "{calls} calls for ten accounts");

    // These processes renew the tokens of all ten accounts ahead of requests. Their tasks end a moment
    // after the processes.
    drop(processes);
    tokio::time::sleep(Duration::from_millis(200)).await;
    let process = world.process().await;
    world.harness.advance(TOKENS_EXPIRED);
    let reject = tower_wechat::simulator::Fault::on(AUTHORIZER_TOKEN).errcode(40001);
    world.harness.simulator.inject(reject);
    let before = world.calls(AUTHORIZER_TOKEN);
    let outcome = process.token(&accounts[0]).await;
    let error = outcome.expect_err("an error");
    assert_ne!(error.kind(), ErrorKind::AccountNotAuthorized, "{error}");
    let calls = world.calls(AUTHORIZER_TOKEN) - before;
    assert!(calls <= 2, "{calls} calls: {error}");
}

/// Another service has ended the component token, which may not be replaced yet: requests for many
/// accounts make no further call with it, and all of them succeed after the minute.
async fn a_dead_component_token_causes_no_calls(harness: Harness) {
    let (world, processes) = World::with_ticket(harness, 2).await;
    let accounts: Vec<_> = (0..20).map(|number| world.account(number)).collect();
    world.authorize(&processes[0], &accounts).await;
    world.harness.advance(TOKENS_EXPIRED);
    for _ in 0..2 {
        for process in &processes {
            process.component_token().await.unwrap();
        }
        fetch_elsewhere(&world).await;
        calls(&world, &processes).await;
    }
    let before = (world.calls(AUTHORIZER_TOKEN), world.calls(COMPONENT_TOKEN));
    for (account, token) in super::world::request_all(&processes, &accounts, 10).await {
        assert!(token.is_err(), "{account}");
    }
    let after = (world.calls(AUTHORIZER_TOKEN), world.calls(COMPONENT_TOKEN));
    assert_eq!(after, before, "calls with a dead token");

    if !world.can_let_limits_pass() {
        return;
    }
    world.let_limits_pass();
    world.harness.advance(Duration::from_secs(61));
    for (account, token) in super::world::request_all(&processes, &accounts, 1).await {
        assert_eq!(token.unwrap(), world.live_token(&account));
    }
}
