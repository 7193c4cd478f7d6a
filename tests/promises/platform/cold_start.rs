//! Tests of "one renewal" for the component token and the tokens of 200 accounts.

use std::time::Duration;

use tokio::task::JoinSet;

use super::world::{
    AUTHORIZER_LIST, AUTHORIZER_TOKEN, COMPONENT_TOKEN, QUERY_AUTH, START_PUSH, TOKENS_EXPIRED,
    World, request_all, request_patiently,
};
use crate::harness::Harness;

crate::for_each_store!(
    each_token_of_200_accounts_is_requested_once,
    the_component_token_is_requested_once,
    an_expired_component_token_is_renewed_once,
    stale_tokens_are_served_while_wechat_hangs,
);

const ACCOUNTS: usize = 200;

async fn each_token_of_200_accounts_is_requested_once(harness: Harness) {
    let (world, first) = World::with_ticket(harness, 1).await;
    let accounts: Vec<_> = (0..ACCOUNTS).map(|number| world.account(number)).collect();
    world.authorize(&first[0], &accounts).await;
    assert_eq!(world.calls(QUERY_AUTH), ACCOUNTS as u64);
    drop(first);
    world.harness.advance(TOKENS_EXPIRED);
    world.harness.simulator.reset_calls();

    let processes = world.processes(3).await;
    for (account, token) in request_patiently(&processes, &accounts, 3).await {
        assert_eq!(token.unwrap(), world.live_token(&account));
    }
    assert_eq!(world.calls(COMPONENT_TOKEN), 1);
    assert_eq!(world.calls(AUTHORIZER_TOKEN), ACCOUNTS as u64);
    assert_eq!((world.calls(START_PUSH), world.calls(QUERY_AUTH)), (0, 0));
    assert!(
        world.calls(AUTHORIZER_LIST) <= 1,
        "one list for all processes"
    );

    // A further process finds all tokens in the store.
    let further = world.processes(1).await;
    for (account, token) in request_patiently(&further, &accounts, 1).await {
        assert_eq!(token.unwrap(), world.live_token(&account));
    }
    assert_eq!(world.calls(COMPONENT_TOKEN), 1);
    assert_eq!(world.calls(AUTHORIZER_TOKEN), ACCOUNTS as u64);
}

/// Requests the component token 100 times from each process, and checks that all get the live one.
async fn component_tokens(world: &World, processes: &[super::world::Process]) {
    let mut running = JoinSet::new();
    for at in 0..100 * processes.len() {
        let platform = processes[at % processes.len()].platform.clone();
        running.spawn(async move {
            platform
                .with_component_token(async |token| {
                    Ok::<_, tower_wechat::Error>(token.access_token().expose().to_owned())
                })
                .await
        });
    }
    let tokens = running.join_all().await;
    for token in tokens {
        assert_eq!(Some(token.unwrap()), world.wechat.component_token());
    }
}

async fn the_component_token_is_requested_once(harness: Harness) {
    let (world, processes) = World::with_ticket(harness, 3).await;
    component_tokens(&world, &processes).await;
    assert_eq!(world.calls(COMPONENT_TOKEN), 1);
}

async fn an_expired_component_token_is_renewed_once(harness: Harness) {
    let (world, processes) = World::with_ticket(harness, 3).await;
    component_tokens(&world, &processes).await;
    for renewals in 1..=3 {
        world.harness.advance(TOKENS_EXPIRED);
        component_tokens(&world, &processes).await;
        assert_eq!(world.calls(COMPONENT_TOKEN), 1 + renewals);
    }
}

/// All tokens are due for renewal and none has expired, and WeChat does not answer.
async fn stale_tokens_are_served_while_wechat_hangs(harness: Harness) {
    let (world, processes) = World::with_ticket(harness, 2).await;
    let accounts: Vec<_> = (0..20).map(|number| world.account(number)).collect();
    world.authorize(&processes[0], &accounts).await;
    let component = processes[0].component_token().await.unwrap();
    world.harness.advance(Duration::from_secs(6_900));
    let hang = tower_wechat::simulator::Fault::on("*").hang();
    world.harness.simulator.inject(hang);
    let started = tokio::time::Instant::now();
    for _ in 0..3 {
        for (account, token) in request_all(&processes, &accounts, 4).await {
            assert_eq!(token.unwrap(), world.live_token(&account));
        }
        for process in &processes {
            assert_eq!(process.component_token().await.unwrap(), component);
        }
    }
    let took = started.elapsed();
    assert!(took < Duration::from_secs(4), "nobody waits: {took:?}");
}
