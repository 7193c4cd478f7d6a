//! Tests of lost data: refresh tokens, verify tickets and lists that the store has lost.

use std::time::Duration;

use redis::Commands;
use tokio::task::JoinSet;
use tower_wechat::ErrorKind;

use super::world::{
    AUTHORIZER_LIST, AUTHORIZER_TOKEN, COMPONENT_TOKEN, START_PUSH, TOKENS_EXPIRED, World, is_kind,
    request_all,
};
use crate::harness::Harness;

crate::for_each_server!(
    a_flushed_store_is_recovered_while_requests_run,
    a_lost_refresh_token_is_recovered_from_the_list,
    a_restart_keeps_tickets_and_refresh_tokens,
    a_lost_account_is_not_authorized_and_causes_no_storm,
);

/// Time within which all accounts must be served again: 10 s, times 4 for a busy machine.
const RECOVERED: Duration = Duration::from_secs(10);

async fn a_flushed_store_is_recovered_while_requests_run(harness: Harness) {
    let (world, processes) = World::with_ticket(harness, 3).await;
    let accounts: Vec<_> = (0..20).map(|number| world.account(number)).collect();
    world.authorize(&processes[0], &accounts).await;
    for (_, token) in request_all(&processes, &accounts, 3).await {
        token.unwrap();
    }
    world.harness.advance(TOKENS_EXPIRED);
    world.harness.simulator.reset_calls();
    let () = redis::cmd("FLUSHALL")
        .query(&mut world.harness.redis.as_ref().unwrap().connection())
        .unwrap();

    let mut running = JoinSet::new();
    for account in &accounts {
        for process in &processes {
            let (found, account) = (process.accounts.clone(), account.clone());
            running.spawn(async move {
                let give_up = tokio::time::Instant::now() + RECOVERED * 4;
                loop {
                    let served = match found.get(&account).await {
                        Ok(Some(found)) => found.tokens().get().await.map(drop),
                        Ok(None) => panic!("{account} is unknown"),
                        Err(error) => Err(error),
                    };
                    match served {
                        Ok(()) => return,
                        Err(error) => {
                            let is_late = tokio::time::Instant::now() > give_up;
                            assert!(!is_late, "{account} is not served again: {error}");
                        }
                    }
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            });
        }
    }
    running.join_all().await;
    for account in &accounts {
        for process in &processes {
            let token = process.token(account).await.unwrap();
            assert!(world.is_valid(account, &token));
        }
    }
    assert_eq!(world.calls(AUTHORIZER_LIST), 1, "one list for all");
    // Redis has lost the leases too, so a renewal may have run twice.
    assert!(world.calls(COMPONENT_TOKEN) <= 2);
    let calls = world.calls(AUTHORIZER_TOKEN);
    assert!(calls <= 2 * accounts.len() as u64, "{calls} calls");
    assert!(
        world.calls(START_PUSH) <= 1,
        "one process may know no ticket"
    );
    let mut known = processes[0].platform.app_ids().await.unwrap();
    known.sort();
    let mut all = accounts.clone();
    all.sort();
    assert_eq!(known, all);
}

/// Deletes the stored refresh tokens of an account, in all layouts.
fn delete_refresh_token(world: &World, account: &str) {
    let mut redis = world.harness.redis.as_ref().unwrap().connection();
    let keys: Vec<String> = redis.keys("*").unwrap();
    let mut deleted = 0;
    for key in keys {
        let is_refresh = key.contains(account)
            && (key.contains("wxRefreshToken") || key.ends_with("account:refresh_token"));
        if is_refresh {
            let () = redis.del(key).unwrap();
            deleted += 1;
        }
    }
    assert!(deleted > 0, "a refresh token is stored");
}

async fn a_lost_refresh_token_is_recovered_from_the_list(harness: Harness) {
    let (world, processes) = World::with_ticket(harness, 3).await;
    let accounts = [world.account(0), world.account(1)];
    world.authorize(&processes[0], &accounts).await;
    request_all(&processes, &accounts, 3).await;
    world.harness.advance(TOKENS_EXPIRED);
    world.let_limits_pass();
    world.harness.simulator.reset_calls();
    delete_refresh_token(&world, accounts[0].as_str());
    for (account, token) in request_all(&processes, &accounts, 12).await {
        assert!(world.is_valid(&account, &token.unwrap()));
    }
    let lists = world.calls(AUTHORIZER_LIST);
    assert!((1..=2).contains(&lists), "{lists} lists");
    // The list may end a token that another process has just renewed.
    let calls = world.calls(AUTHORIZER_TOKEN);
    assert!((2..=4).contains(&calls), "{calls} renewals of two tokens");
}

async fn a_restart_keeps_tickets_and_refresh_tokens(harness: Harness) {
    let (world, processes) = World::with_ticket(harness, 2).await;
    let accounts: Vec<_> = (0..5).map(|number| world.account(number)).collect();
    world.authorize(&processes[0], &accounts).await;
    drop(processes);
    world.harness.advance(TOKENS_EXPIRED);
    world.harness.simulator.reset_calls();
    let processes = world.processes(2).await;
    for (account, token) in request_all(&processes, &accounts, 4).await {
        assert_eq!(token.unwrap(), world.live_token(&account));
    }
    assert_eq!(world.calls(START_PUSH), 0);
    assert_eq!(world.calls(COMPONENT_TOKEN), 1);
}

/// The owner has withdrawn the authorization, the event was lost, and the refresh token is lost too.
async fn a_lost_account_is_not_authorized_and_causes_no_storm(harness: Harness) {
    let (world, processes) = World::with_ticket(harness, 3).await;
    let (lost, other) = (world.account(0), world.account(1));
    world
        .authorize(&processes[0], &[lost.clone(), other.clone()])
        .await;
    request_all(&processes, &[lost.clone(), other.clone()], 3).await;
    world.wechat.revoke(lost.as_str());
    delete_refresh_token(&world, lost.as_str());
    world.harness.advance(TOKENS_EXPIRED);
    world.let_limits_pass();
    world.harness.simulator.reset_calls();
    for _ in 0..30 {
        for process in &processes {
            // The account is unknown or not authorized.
            assert!(process.token(&lost).await.is_err());
        }
    }
    for process in &processes {
        let tokens = process.platform.account_tokens(&lost);
        is_kind(tokens.get().await, ErrorKind::AccountNotAuthorized);
    }
    assert!(world.calls(AUTHORIZER_LIST) <= 2);
    let calls = world.calls(AUTHORIZER_TOKEN);
    assert!(
        calls <= 1,
        "{calls} calls for an account without a refresh token"
    );
    world.all_serve_the_live_token(&processes, &other).await;
}
