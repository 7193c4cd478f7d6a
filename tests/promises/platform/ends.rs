//! Tests of the end of an authorization: what is removed, and which events change nothing.

use std::time::Duration;

use tower_wechat::simulator::SimulatedPush;

use super::world::{AUTHORIZER_TOKEN, QUERY_AUTH, SOON, World};
use crate::harness::Harness;
use crate::support::eventually;

crate::for_each_store!(
    an_ended_authorization_is_gone_on_all_processes,
    an_old_end_changes_nothing,
    an_account_can_be_authorized_again,
    unknown_accounts_cause_no_call,
);

/// Time that must lie between two events whose order counts: two seconds.
const BETWEEN_EVENTS: Duration = Duration::from_secs(2);

async fn an_ended_authorization_is_gone_on_all_processes(harness: Harness) {
    let (world, processes) = World::with_ticket(harness, 3).await;
    let (account, other) = (world.account(0), world.account(1));
    world
        .authorize(&processes[0], &[account.clone(), other.clone()])
        .await;
    for process in &processes {
        process.token(&account).await.unwrap();
        process.token(&other).await.unwrap();
    }
    // Each change is published once the subscription works.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let refresh = world.wechat.refresh_token(account.as_str()).unwrap();
    let access = world.live_token(&account);

    world.harness.advance(BETWEEN_EVENTS);
    world.wechat.revoke(account.as_str());
    let end = SimulatedPush::unauthorized(account.as_str());
    world.push(&processes[1], end).await;
    for process in &processes {
        eventually("the account is gone", Duration::from_secs(1), async || {
            process.account(&account).await.is_ok_and(|it| it.is_none())
        })
        .await;
        assert_eq!(
            process.token(&other).await.unwrap(),
            world.live_token(&other)
        );
        let known = process.platform.app_ids().await.unwrap();
        assert!(known.len() == 1 && known[0] == other);
    }
    world.holds_no_secret(&[&refresh, &access]);
    let calls = world.calls(AUTHORIZER_TOKEN);
    for process in &processes {
        let tokens = process.platform.account_tokens(&account);
        assert!(tokens.get().await.is_err());
    }
    assert_eq!(
        world.calls(AUTHORIZER_TOKEN),
        calls,
        "no call without an authorization"
    );
}

async fn an_old_end_changes_nothing(harness: Harness) {
    let (world, processes) = World::with_ticket(harness, 2).await;
    let account = world.account(0);
    world.harness.advance(Duration::from_secs(100));
    world.wechat.authorize(account.as_str()).unwrap();
    let event = SimulatedPush::authorized(account.as_str());
    world.push(&processes[0], event).await;
    let token = world.live_token(&account);
    for process in &processes {
        for age in [5, 60, 36_000] {
            let end = SimulatedPush::unauthorized(account.as_str());
            let end = end.age(Duration::from_secs(age)).repeat(2);
            world.push(process, end).await;
        }
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    for process in &processes {
        assert_eq!(process.token(&account).await.unwrap(), token);
    }
    assert_eq!(
        (world.calls(AUTHORIZER_TOKEN), world.calls(QUERY_AUTH)),
        (0, 1)
    );
}

async fn an_account_can_be_authorized_again(harness: Harness) {
    let (world, processes) = World::with_ticket(harness, 2).await;
    let account = world.account(0);
    for round in 0..3 {
        world.harness.advance(BETWEEN_EVENTS);
        world.wechat.authorize(account.as_str()).unwrap();
        let event = SimulatedPush::authorized(account.as_str());
        world.push(&processes[round % 2], event).await;
        world.all_serve_the_live_token(&processes, &account).await;

        world.harness.advance(BETWEEN_EVENTS);
        world.wechat.revoke(account.as_str());
        let end = SimulatedPush::unauthorized(account.as_str()).repeat(2);
        world.push(&processes[(round + 1) % 2], end).await;
        for process in &processes {
            eventually("the account is gone", SOON, async || {
                process.account(&account).await.is_ok_and(|it| it.is_none())
            })
            .await;
        }
    }
    assert_eq!(world.calls(QUERY_AUTH), 3);
}

async fn unknown_accounts_cause_no_call(harness: Harness) {
    let (world, processes) = World::with_ticket(harness, 2).await;
    let account = world.account(0);
    world
        .authorize(&processes[0], std::slice::from_ref(&account))
        .await;
    let before = world.harness.simulator.calls();
    for number in 1..=300 {
        for process in &processes {
            let unknown = world.account(number);
            assert!(process.account(&unknown).await.unwrap().is_none());
        }
    }
    assert_eq!(world.harness.simulator.calls(), before);
    world.all_serve_the_live_token(&processes, &account).await;
}
