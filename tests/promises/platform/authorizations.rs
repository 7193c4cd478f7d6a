//! Tests of authorizations that cross each other, renewals and ends: the newest wins on all processes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;
use tower_wechat::ErrorKind;
use tower_wechat::credential::AppId;
use tower_wechat::simulator::{Fault, SimulatedPush};

use super::slow_replies::SlowReplies;
use super::world::{AUTHORIZER_TOKEN, Process, QUERY_AUTH, SOON, TOKENS_EXPIRED, World, is_kind};
use crate::harness::Harness;
use crate::support::eventually;

crate::for_each_store!(
    requests_survive_new_authorizations,
    a_renewal_that_crosses_an_authorization_stores_nothing_old,
    a_rotated_refresh_token_does_not_replace_that_of_a_new_authorization,
    an_exchange_that_a_newer_one_overtakes_stores_nothing,
    an_exchange_that_an_end_overtakes_stores_nothing,
    refresh_tokens_may_change_at_each_renewal,
    event_and_return_of_one_authorization_are_one_exchange,
    a_failing_exchange_is_repeated,
    repeated_and_late_authorizations_change_nothing,
);

/// Time that must lie between two events whose order counts: two seconds. CreateTime counts seconds.
const BETWEEN_EVENTS: Duration = Duration::from_secs(2);

/// The owner authorizes the platform again, which ends the running token, and WeChat tells a process.
async fn authorize_again(world: &World, process: &Process, account: &AppId) {
    world.harness.advance(BETWEEN_EVENTS);
    world.wechat.authorize(account.as_str()).unwrap();
    world
        .push(process, SimulatedPush::authorized(account.as_str()))
        .await;
}

/// Checks that a new process finds the account's live token in the store, and that the refresh token
/// of the store still works.
async fn the_store_has_the_newest(world: &World, account: &AppId) {
    let process = world.process().await;
    assert_eq!(
        process.token(account).await.unwrap(),
        world.live_token(account)
    );
    assert!(world.is_valid(account, &world.live_token(account)));
    world.harness.advance(TOKENS_EXPIRED);
    let renewed = process.token(account).await.unwrap();
    assert_eq!(renewed, world.live_token(account));
    assert!(world.is_valid(account, &renewed));
}

/// Uses the account's token again and again, as handlers do. Returns the longest time without a
/// success.
async fn use_token(
    world: Arc<World>,
    accounts: tower_wechat::Accounts,
    account: AppId,
    stop: Arc<AtomicBool>,
    uses: Arc<AtomicU64>,
) -> Duration {
    let (mut longest, mut since) = (Duration::ZERO, Instant::now());
    while !stop.load(Ordering::Relaxed) {
        let found = accounts.get(&account).await;
        if let Ok(Some(found)) = found {
            let call = found.tokens().with_token(async |token| {
                match world.is_valid(&account, token.access_token().expose()) {
                    true => Ok(()),
                    false => Err(super::world::Refused(None)),
                }
            });
            if call.await.is_ok() {
                longest = longest.max(since.elapsed());
                since = Instant::now();
                uses.fetch_add(1, Ordering::Relaxed);
            }
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    longest.max(since.elapsed())
}

async fn requests_survive_new_authorizations(harness: Harness) {
    let (world, processes) = World::with_ticket(harness, 3).await;
    let account = world.account(0);
    authorize_again(&world, &processes[0], &account).await;
    let world = Arc::new(world);
    let (stop, uses) = (Arc::new(AtomicBool::new(false)), Arc::default());
    let mut running = JoinSet::new();
    for at in 0..12 {
        running.spawn(use_token(
            Arc::clone(&world),
            processes[at % 3].accounts.clone(),
            account.clone(),
            Arc::clone(&stop),
            Arc::clone(&uses),
        ));
    }
    for at in 0..5 {
        let before: u64 = uses.load(Ordering::Relaxed);
        eventually("requests run", SOON, async || {
            uses.load(Ordering::Relaxed) >= before + 60
        })
        .await;
        authorize_again(&world, &processes[at % 3], &account).await;
    }
    world.all_serve_the_live_token(&processes, &account).await;
    stop.store(true, Ordering::Relaxed);
    for longest in running.join_all().await {
        assert!(longest < SOON, "a request failed for {longest:?}");
    }
    assert_eq!(world.calls(QUERY_AUTH), 6);
    // A report in the moment of an authorization may cost one token more, which WeChat prefers then.
    let token = world.process().await.token(&account).await.unwrap();
    assert!(world.is_valid(&account, &token));
    world.harness.advance(TOKENS_EXPIRED);
    let renewed = world.process().await.token(&account).await.unwrap();
    assert_eq!(renewed, world.live_token(&account));
}

/// WeChat has answered a renewal, and its reply is on the way when the owner authorizes the platform
/// again and another process exchanges the code.
async fn renewal_crosses_an_authorization(harness: Harness, rotates: bool) {
    let (world, processes) = World::with_ticket(harness, 2).await;
    let account = world.account(0);
    authorize_again(&world, &processes[0], &account).await;
    let proxy = SlowReplies::start(&world).await;
    let slow = world
        .process_with(proxy.client(&world), &world.harness.clock)
        .await;
    world.harness.advance(TOKENS_EXPIRED);
    world
        .harness
        .simulator
        .settings(|settings| settings.rotate_authorizer_refresh_token = rotates);
    slow.component_token().await.unwrap();
    proxy.hold(AUTHORIZER_TOKEN);
    let tokens = slow.tokens(&account).await.unwrap();
    let renewal = tokio::spawn(async move { tokens.get().await });
    proxy.reply_is_held().await;
    let outdated = world.live_token(&account);
    authorize_again(&world, &processes[0], &account).await;
    assert_ne!(world.live_token(&account), outdated);
    proxy.release();
    if let Ok(token) = renewal.await.unwrap() {
        assert_ne!(token.access_token().expose(), outdated);
    }
    let mut processes = processes;
    processes.push(slow);
    world.all_serve_the_live_token(&processes, &account).await;
    assert_ne!(world.live_token(&account), outdated);
    the_store_has_the_newest(&world, &account).await;
}

async fn a_renewal_that_crosses_an_authorization_stores_nothing_old(harness: Harness) {
    renewal_crosses_an_authorization(harness, false).await;
}

async fn a_rotated_refresh_token_does_not_replace_that_of_a_new_authorization(harness: Harness) {
    renewal_crosses_an_authorization(harness, true).await;
}

async fn an_exchange_that_a_newer_one_overtakes_stores_nothing(harness: Harness) {
    let (world, processes) = World::with_ticket(harness, 2).await;
    let account = world.account(0);
    let proxy = SlowReplies::start(&world).await;
    let slow = world
        .process_with(proxy.client(&world), &world.harness.clock)
        .await;
    slow.component_token().await.unwrap();
    proxy.hold(QUERY_AUTH);
    authorize_again(&world, &slow, &account).await;
    proxy.reply_is_held().await;
    authorize_again(&world, &processes[0], &account).await;
    let newest = world.live_token(&account);
    proxy.release();
    assert!(slow.platform.shutdown(Duration::from_secs(20)).await);
    assert_eq!(world.live_token(&account), newest);
    world.all_serve_the_live_token(&processes, &account).await;
    the_store_has_the_newest(&world, &account).await;
}

async fn an_exchange_that_an_end_overtakes_stores_nothing(harness: Harness) {
    let (world, processes) = World::with_ticket(harness, 2).await;
    let account = world.account(0);
    let proxy = SlowReplies::start(&world).await;
    let slow = world
        .process_with(proxy.client(&world), &world.harness.clock)
        .await;
    slow.component_token().await.unwrap();
    proxy.hold(QUERY_AUTH);
    authorize_again(&world, &slow, &account).await;
    proxy.reply_is_held().await;
    world.harness.advance(BETWEEN_EVENTS);
    world.wechat.revoke(account.as_str());
    let end = SimulatedPush::unauthorized(account.as_str());
    world.push(&processes[0], end).await;
    proxy.release();
    assert!(slow.platform.shutdown(Duration::from_secs(20)).await);
    for process in &processes {
        assert!(process.account(&account).await.unwrap().is_none());
        assert!(process.platform.app_ids().await.unwrap().is_empty());
    }
}

async fn refresh_tokens_may_change_at_each_renewal(harness: Harness) {
    let (world, processes) = World::with_ticket(harness, 3).await;
    let account = world.account(0);
    authorize_again(&world, &processes[0], &account).await;
    world.harness.simulator.settings(|settings| {
        settings.rotate_authorizer_refresh_token = true;
        // The former refresh token ends at once.
        settings.authorizer_refresh_token_grace = Duration::ZERO;
    });
    for round in 1..=4_u64 {
        let former = world.wechat.refresh_token(account.as_str());
        world.harness.advance(TOKENS_EXPIRED);
        let accounts = [account.clone()];
        for (_, token) in super::world::request_all(&processes, &accounts, 30).await {
            assert_eq!(token.unwrap(), world.live_token(&account));
        }
        assert_eq!(world.calls(AUTHORIZER_TOKEN), round);
        assert_ne!(world.wechat.refresh_token(account.as_str()), former);
    }
    the_store_has_the_newest(&world, &account).await;
}

async fn event_and_return_of_one_authorization_are_one_exchange(harness: Harness) {
    let (world, processes) = World::with_ticket(harness, 3).await;
    processes[0].component_token().await.unwrap();
    for number in 0..5 {
        let account = world.account(number);
        let code = world.wechat.authorize(account.as_str()).unwrap();
        let mut returns = JoinSet::new();
        for at in 0..12 {
            let (platform, code) = (processes[at % 3].platform.clone(), code.clone());
            returns.spawn(async move { platform.authorize(&code).await });
        }
        let event = SimulatedPush::authorized(account.as_str()).repeat(3);
        world.push(&processes[number % 3], event).await;
        for returned in returns.join_all().await {
            assert_eq!(returned.unwrap(), account);
        }
        assert_eq!(world.calls(QUERY_AUTH), number as u64 + 1);
        world.all_serve_the_live_token(&processes, &account).await;
    }
    // A copy that comes much later has the same outcome.
    let code = world.wechat.authorize(world.account(0).as_str()).unwrap();
    for _ in 0..3 {
        for process in &processes {
            let returned = process.platform.authorize(&code).await.unwrap();
            assert_eq!(returned, world.account(0));
        }
    }
    assert_eq!(world.calls(QUERY_AUTH), 6);
    // A code that WeChat never issued is refused, for all processes with one call.
    for process in &processes {
        let refused = process.platform.authorize("queryauthcode@@@made-up").await;
        is_kind(refused, ErrorKind::BadRequest);
    }
    assert_eq!(world.calls(QUERY_AUTH), 7);
}

/// The first tries fail in each way in which WeChat fails.
async fn a_failing_exchange_is_repeated(harness: Harness) {
    let (world, processes) = World::with_ticket(harness, 2).await;
    let account = world.account(0);
    processes[0].component_token().await.unwrap();
    for fault in [
        Fault::on(QUERY_AUTH).errcode(-1),
        Fault::on(QUERY_AUTH).status(502),
        Fault::on(QUERY_AUTH).reset(),
    ] {
        world.harness.simulator.inject(fault.times(1));
    }
    authorize_again(&world, &processes[0], &account).await;
    eventually(
        "the exchange succeeds",
        Duration::from_secs(20),
        async || world.wechat.authorizer_token(account.as_str()).is_some(),
    )
    .await;
    world.all_serve_the_live_token(&processes, &account).await;
    the_store_has_the_newest(&world, &account).await;
}

async fn repeated_and_late_authorizations_change_nothing(harness: Harness) {
    let (world, processes) = World::with_ticket(harness, 2).await;
    let account = world.account(0);
    authorize_again(&world, &processes[0], &account).await;
    let token = world.live_token(&account);
    for process in &processes {
        for age in [0, 30, 3_000, 36_000] {
            let event = SimulatedPush::authorized(account.as_str());
            let event = event.age(Duration::from_secs(age)).repeat(2);
            world.push(process, event).await;
        }
    }
    assert_eq!(world.calls(QUERY_AUTH), 1);
    world.all_serve_the_live_token(&processes, &account).await;
    assert_eq!(world.live_token(&account), token);

    // After the end of the authorization, its own event does not bring it back.
    world.harness.advance(BETWEEN_EVENTS);
    world.wechat.revoke(account.as_str());
    let end = SimulatedPush::unauthorized(account.as_str());
    world.push(&processes[1], end).await;
    for process in &processes {
        let event = SimulatedPush::authorized(account.as_str());
        let late = event.age(Duration::from_secs(10)).repeat(1);
        world.push(process, late).await;
        eventually("the account is gone", SOON, async || {
            process.account(&account).await.is_ok_and(|it| it.is_none())
        })
        .await;
    }
    assert_eq!(world.calls(AUTHORIZER_TOKEN), 0);
}
