//! Tests of lists of accounts that are read while authorizations are exchanged.

use std::time::Duration;

use tokio::task::JoinSet;
use tower_wechat::clock::Clock;
use tower_wechat::credential::AppId;

use super::world::World;
use crate::harness::Harness;

crate::for_each_server!(
    lists_that_cross_exchanges_end_no_authorization,
    lists_that_cross_exchanges_lose_no_account,
);

const ROUNDS: usize = 6;
const ACCOUNTS_OF_A_ROUND: usize = 12;

/// Exchanges the codes of new accounts in a process whose clock is `behind` WeChat's, while another
/// process reads lists. A list has no refresh token of an account whose code was not exchanged yet.
async fn exchange_during_lists(world: &World, behind: Duration) -> Vec<AppId> {
    let clock = Clock::shifted();
    world.harness.advance(behind);
    let listing = world.process().await;
    let exchanging = world
        .process_with(world.wechat.client().unwrap(), &clock)
        .await;
    exchanging.component_token().await.unwrap();
    let numbers: Vec<_> = (0..ROUNDS * ACCOUNTS_OF_A_ROUND).collect();
    let mut accounts = Vec::new();
    for round in numbers.chunks(ACCOUNTS_OF_A_ROUND) {
        let new: Vec<_> = round.iter().map(|number| world.account(*number)).collect();
        let codes: Vec<_> = new
            .iter()
            .map(|account| world.wechat.authorize(account.as_str()).unwrap())
            .collect();
        world.let_limits_pass();
        let mut exchanges = JoinSet::new();
        for (number, code) in codes.into_iter().enumerate() {
            let platform = exchanging.platform.clone();
            exchanges.spawn(async move {
                // Spreads the exchanges over the time of the list.
                tokio::time::sleep(Duration::from_micros(500) * number as u32).await;
                platform.authorize(&code).await.unwrap();
            });
        }
        listing.platform.reconcile().await.unwrap();
        exchanges.join_all().await;
        accounts.extend(new);
    }
    accounts
}

/// The list calls the account lost a moment after its authorization began, by WeChat's clock.
async fn lists_that_cross_exchanges_end_no_authorization(harness: Harness) {
    let (world, _processes) = World::with_ticket(harness, 1).await;
    let accounts = exchange_during_lists(&world, Duration::from_secs(3)).await;
    all_are_authorized(&world, accounts).await;
}

async fn lists_that_cross_exchanges_lose_no_account(harness: Harness) {
    let (world, _processes) = World::with_ticket(harness, 1).await;
    let accounts = exchange_during_lists(&world, Duration::ZERO).await;
    all_are_authorized(&world, accounts).await;
}

/// Checks that a new process serves all accounts, without a list.
async fn all_are_authorized(world: &World, mut accounts: Vec<AppId>) {
    let process = world.process().await;
    for account in &accounts {
        let token = process.token(account).await.unwrap();
        assert_eq!(token, world.live_token(account));
    }
    let mut known = process.platform.app_ids().await.unwrap();
    known.sort();
    accounts.sort();
    assert_eq!(known, accounts);
}
