//! Tests of a WeChat that fails or hangs, of spent quotas, and of clocks that differ.

use std::time::Duration;

use tokio::time::Instant;
use tower_wechat::ErrorKind;
use tower_wechat::simulator::{Fault, SimulatedPush};

use super::world::{AUTHORIZER_TOKEN, COMPONENT_TOKEN, TOKENS_EXPIRED, World, request_all};
use crate::harness::Harness;
use crate::support::eventually;

crate::for_each_store!(
    no_account_waits_longer_than_its_deadline,
    a_spent_quota_stops_all_calls,
    clocks_may_differ_by_a_minute,
);

const ACCOUNTS: usize = 200;

/// All tokens have expired, and the component token that 200 renewals need does not come.
async fn no_account_waits_longer_than_its_deadline(harness: Harness) {
    let (world, processes) = World::with_ticket(harness, 2).await;
    let accounts: Vec<_> = (0..ACCOUNTS).map(|number| world.account(number)).collect();
    world.authorize(&processes[0], &accounts).await;
    world.harness.advance(TOKENS_EXPIRED);
    world
        .harness
        .simulator
        .inject(Fault::on(COMPONENT_TOKEN).hang());
    let started = Instant::now();
    for (_, token) in request_all(&processes, &accounts, 2).await {
        let error = token.expect_err("an error");
        assert_eq!(error.kind(), ErrorKind::WechatUnavailable, "{error}");
    }
    let took = started.elapsed();
    assert!(took < Duration::from_secs(20), "{took:?}");
    assert_eq!(world.calls(AUTHORIZER_TOKEN), 0);
    let calls = world.calls(COMPONENT_TOKEN);
    assert!(calls <= 12, "{calls} calls of a WeChat that hangs");

    world.harness.simulator.clear_faults();
    let again = &accounts[..40];
    for account in again {
        eventually(
            "WeChat answers again",
            Duration::from_secs(30),
            async || processes[0].token(account).await.is_ok(),
        )
        .await;
    }
    for (account, token) in request_all(&processes, again, 2).await {
        assert_eq!(token.unwrap(), world.live_token(&account));
    }
}

async fn a_spent_quota_stops_all_calls(harness: Harness) {
    let (world, processes) = World::with_ticket(harness, 3).await;
    let account = world.account(0);
    world
        .authorize(&processes[0], std::slice::from_ref(&account))
        .await;
    for process in &processes {
        process.token(&account).await.unwrap();
    }
    world.harness.advance(Duration::from_secs(6_700));
    let spent = Fault::on(COMPONENT_TOKEN).errcode(45009);
    world.harness.simulator.inject(spent);
    let before = world.calls(COMPONENT_TOKEN);
    for _ in 0..20 {
        for process in &processes {
            // The component token is stale and is served.
            process.component_token().await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    world.harness.advance(Duration::from_secs(600));
    for _ in 0..20 {
        for process in &processes {
            let error = process.component_token().await.expect_err("an error");
            assert_eq!(error.kind(), ErrorKind::WechatConfig, "{error}");
        }
    }
    let calls = world.calls(COMPONENT_TOKEN) - before;
    assert!(
        calls <= 6,
        "{calls} calls with a spent quota, two for each process"
    );
}

/// Three processes whose clocks are a minute apart share tickets, tokens and events.
async fn clocks_may_differ_by_a_minute(harness: Harness) {
    let world = World::new(harness);
    let mut processes = vec![world.process().await];
    for shift in [60_i64, -60] {
        let clock = tower_wechat::clock::Clock::shifted();
        let span = Duration::from_secs(shift.unsigned_abs());
        match shift > 0 {
            true => clock.advance(span),
            false => clock.rewind(span),
        }
        let client = world.wechat.client().unwrap();
        processes.push(world.process_with(client, &clock).await);
    }
    world.push(&processes[1], SimulatedPush::ticket()).await;
    let accounts: Vec<_> = (0..9).map(|number| world.account(number)).collect();
    for (at, account) in accounts.iter().enumerate() {
        world.wechat.authorize(account.as_str()).unwrap();
        let event = SimulatedPush::authorized(account.as_str());
        world.push(&processes[at % 3], event).await;
    }
    for account in &accounts {
        world.all_serve_the_live_token(&processes, account).await;
    }
    // A process whose clock is slow ends what one whose clock is fast has stored, and the reverse.
    world.harness.simulator.advance(Duration::from_secs(2));
    for (at, account) in accounts.iter().enumerate() {
        world.wechat.revoke(account.as_str());
        let end = SimulatedPush::unauthorized(account.as_str());
        world.push(&processes[(at + 1) % 3], end).await;
    }
    for process in &processes {
        for account in &accounts {
            eventually("the account is gone", Duration::from_secs(10), async || {
                process.account(account).await.is_ok_and(|it| it.is_none())
            })
            .await;
        }
    }
    // And an authorization after the end wins.
    world.harness.simulator.advance(Duration::from_secs(2));
    for (at, account) in accounts.iter().enumerate() {
        world.wechat.authorize(account.as_str()).unwrap();
        let event = SimulatedPush::authorized(account.as_str());
        world.push(&processes[(at + 2) % 3], event).await;
    }
    for account in &accounts {
        world.all_serve_the_live_token(&processes, account).await;
    }
    assert_eq!(world.calls(COMPONENT_TOKEN), 1);
    // A request between the two writes of an authorization renews the token that it does not find yet.
    let renewals = world.calls(AUTHORIZER_TOKEN);
    assert!(renewals <= 2, "{renewals} renewals");
}
