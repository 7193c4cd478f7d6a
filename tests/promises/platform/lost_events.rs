//! Tests of events that never arrived: authorizations and ends that the list of accounts tells.

use std::time::Duration;

use tower_wechat::simulator::{Fault, SimulatedPush};

use super::world::{AUTHORIZER_TOKEN, TOKENS_EXPIRED, World, request_all};
use crate::harness::Harness;
use crate::support::eventually;

crate::for_each_store!(
    an_event_that_was_lost_is_found_in_the_list,
    an_account_that_wechat_refuses_is_not_authorized,
);

/// Time within which an account must be served: 10 s, times 4 for a busy machine.
const RECOVERED: Duration = Duration::from_secs(10);

/// The platform gets no event of an authorization, but the list has the account.
async fn an_event_that_was_lost_is_found_in_the_list(harness: Harness) {
    let (world, processes) = World::with_ticket(harness, 2).await;
    let account = world.account(0);
    let code = world.wechat.authorize(account.as_str()).unwrap();
    // Another service of the operator has exchanged the code, so that the list has the token.
    let token = processes[0].component_token().await.unwrap();
    let url = format!(
        "{}/cgi-bin/component/api_query_auth?component_access_token={token}",
        world.harness.simulator.url()
    );
    let body = serde_json::json!({
        "component_appid": world.wechat.app_id(), "authorization_code": code,
    });
    let reply = reqwest::Client::new().post(url).body(body.to_string());
    let reply = reply.send().await.unwrap().text().await.unwrap();
    assert!(reply.contains("authorizer_refresh_token"), "{reply}");
    if world.can_let_limits_pass() {
        world.let_limits_pass();
        processes[1].platform.reconcile().await.unwrap();
        for process in &processes {
            eventually("the account is served", RECOVERED, async || {
                process.token(&account).await.is_ok()
            })
            .await;
        }
        world.all_serve_the_live_token(&processes, &account).await;
    }
}

/// WeChat answers 61003 or 61023, and the list does not have the account.
async fn an_account_that_wechat_refuses_is_not_authorized(harness: Harness) {
    let (world, processes) = World::with_ticket(harness, 3).await;
    let (lost, other) = (world.account(0), world.account(1));
    world
        .authorize(&processes[0], &[lost.clone(), other.clone()])
        .await;
    request_all(&processes, &[lost.clone(), other.clone()], 3).await;
    world.wechat.revoke(lost.as_str());
    world.harness.advance(TOKENS_EXPIRED);
    let refuse = Fault::on(AUTHORIZER_TOKEN)
        .app(lost.as_str())
        .errcode(61003);
    world.harness.simulator.inject(refuse);
    world.harness.simulator.reset_calls();
    for _ in 0..4 {
        for process in &processes {
            // The account is unknown or not authorized.
            assert!(process.token(&lost).await.is_err());
        }
    }
    let calls = world.calls(AUTHORIZER_TOKEN);
    assert!(calls <= 6, "{calls} calls with a refused refresh token");
    for process in &processes {
        let served = process.token(&other).await.unwrap();
        assert_eq!(served, world.live_token(&other));
    }
    // A new authorization helps at once.
    world.harness.simulator.clear_faults();
    world.wechat.authorize(lost.as_str()).unwrap();
    let event = SimulatedPush::authorized(lost.as_str());
    world.push(&processes[2], event).await;
    world.all_serve_the_live_token(&processes, &lost).await;
}
