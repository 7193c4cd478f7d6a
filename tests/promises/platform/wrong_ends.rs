//! Tests of ends that are none: a list or a refusal of WeChat must not end an authorization that is newer,
//! or valid.

use std::slice::from_ref;
use std::time::Duration;

use tower_wechat::simulator::{Fault, SimulatedPush};

use super::slow_replies::SlowReplies;
use super::world::{AUTHORIZER_LIST, AUTHORIZER_TOKEN, TOKENS_EXPIRED, World};
use crate::harness::Harness;
use crate::support::eventually;

// Servers that tests share measure the limit of lists by their own clock.
crate::for_each_server!(
    a_slow_list_does_not_end_a_new_authorization,
    one_wrong_refusal_does_not_end_an_account,
);
crate::for_each_store!(
    @ memory, Memory,
    a_slow_list_does_not_end_a_new_authorization,
    one_wrong_refusal_does_not_end_an_account
);

/// Time within which a refused account must be served again: two lists.
const RECOVERED: Duration = Duration::from_secs(20);

/// The owner leaves, and the event is lost. WeChat answers 61003 to a call. While the process reads the
/// list, the owner authorizes the platform again.
async fn a_slow_list_does_not_end_a_new_authorization(harness: Harness) {
    let (world, processes) = World::with_ticket(harness, 1).await;
    let account = world.account(0);
    world.authorize(&processes[0], from_ref(&account)).await;
    world.let_limits_pass();
    let proxy = SlowReplies::start(&world).await;
    let slow = world
        .process_with(proxy.client(&world), &world.harness.clock)
        .await;
    slow.component_token().await.unwrap();
    assert!(world.wechat.revoke(account.as_str()));
    proxy.hold(AUTHORIZER_LIST);
    let refused = slow.platform.client(&account).exchange_code("code").await;
    assert_eq!(refused.unwrap_err().errcode(), Some(61003));
    proxy.reply_is_held().await;
    world.harness.advance(Duration::from_secs(2));
    world.wechat.authorize(account.as_str()).unwrap();
    let event = SimulatedPush::authorized(account.as_str());
    world.push(&processes[0], event).await;
    proxy.release();
    assert!(slow.platform.shutdown(Duration::from_secs(20)).await);
    world.all_serve_the_live_token(&processes, &account).await;
    let known = processes[0].platform.app_ids().await.unwrap();
    assert_eq!(known, [account]);
}

/// WeChat refuses a valid refresh token once. Its list still has the same token.
async fn one_wrong_refusal_does_not_end_an_account(harness: Harness) {
    let (world, processes) = World::with_ticket(harness, 2).await;
    let account = world.account(0);
    world.authorize(&processes[0], from_ref(&account)).await;
    world.harness.advance(TOKENS_EXPIRED);
    for process in &processes {
        process.component_token().await.unwrap();
    }
    world.let_limits_pass();
    let wrong = Fault::on(AUTHORIZER_TOKEN)
        .app(account.as_str())
        .errcode(61023)
        .times(1);
    world.harness.simulator.inject(wrong);
    // If a list was read just before, the next one comes ten seconds later.
    eventually("the account has a token", RECOVERED, async || {
        processes[0].token(&account).await.is_ok()
    })
    .await;
    world.all_serve_the_live_token(&processes, &account).await;
}
