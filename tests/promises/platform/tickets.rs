//! Tests of the verify ticket: none, a refused one, an old one, a repeated one.

use std::time::Duration;

use tokio::task::JoinSet;
use tower_wechat::simulator::{Fault, SimulatedPush};
use tower_wechat::{Error, ErrorKind};

use super::world::{COMPONENT_TOKEN, Process, SOON, START_PUSH, World, is_kind};
use crate::harness::Harness;
use crate::support::eventually;

crate::for_each_store!(
    without_a_ticket_wechat_is_asked_once_to_push_one,
    an_expired_ticket_counts_as_none,
    an_invalid_ticket_counts_as_none,
    a_ticket_that_was_refused_once_is_tried_again,
    a_new_ticket_ends_every_back_off,
    an_older_ticket_is_ignored,
    a_repeated_ticket_changes_nothing,
    an_empty_ticket_is_never_used,
    a_refused_ticket_is_never_tried_again,
    a_ticket_older_than_its_lifetime_is_none,
    a_failing_request_for_a_push_is_repeated_with_a_back_off,
);

/// Requests the component token 30 times from each process.
async fn crowd(processes: &[Process]) -> Vec<Result<String, Error>> {
    let mut running = JoinSet::new();
    for at in 0..30 * processes.len() {
        let platform = processes[at % processes.len()].platform.clone();
        running.spawn(async move {
            platform
                .with_component_token(async |token| Ok(token.access_token().expose().to_owned()))
                .await
        });
    }
    running.join_all().await
}

async fn all_wait_for_a_ticket(processes: &[Process]) {
    for outcome in crowd(processes).await {
        let error = is_kind(outcome, ErrorKind::PlatformStarting);
        let pause = error.retry_after().expect("a Retry-After");
        assert!(pause > Duration::ZERO && pause <= Duration::from_secs(600));
    }
}

async fn all_serve(world: &World, processes: &[Process]) {
    for process in processes {
        eventually("the component token", SOON, async || {
            process.component_token().await.is_ok()
        })
        .await;
        let token = process.component_token().await.unwrap();
        assert!(world.wechat.is_component_token_valid(&token));
    }
}

async fn without_a_ticket_wechat_is_asked_once_to_push_one(harness: Harness) {
    let world = World::new(harness);
    let processes = world.processes(3).await;
    for _ in 0..3 {
        all_wait_for_a_ticket(&processes).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let account = world.account(0);
    for process in &processes {
        is_kind(process.account(&account).await, ErrorKind::PlatformStarting);
        is_kind(
            process.platform.app_ids().await,
            ErrorKind::PlatformStarting,
        );
    }
    assert_eq!(world.calls(COMPONENT_TOKEN), 0);
    assert_eq!(world.calls(START_PUSH), 1);

    world.push(&processes[1], SimulatedPush::ticket()).await;
    all_serve(&world, &processes).await;
    assert_eq!(world.calls(COMPONENT_TOKEN), 1);
    assert_eq!(world.calls(START_PUSH), 1);
}

async fn refused_ticket_counts_as_none(harness: Harness, errcode: i64) {
    let world = World::new(harness);
    let processes = world.processes(3).await;
    let refuse = Fault::on(COMPONENT_TOKEN).errcode(errcode);
    world.harness.simulator.inject(refuse);
    world.push(&processes[0], SimulatedPush::ticket()).await;
    for _ in 0..4 {
        all_wait_for_a_ticket(&processes).await;
    }
    assert_eq!(world.calls(COMPONENT_TOKEN), 2, "a ticket is tried twice");
    // One at the start without a ticket, and one after the refusal.
    let asked = world.calls(START_PUSH);
    assert!((1..=2).contains(&asked), "{asked} calls for a push");

    world.harness.simulator.clear_faults();
    world.harness.advance(Duration::from_secs(2));
    world.push(&processes[1], SimulatedPush::ticket()).await;
    all_serve(&world, &processes).await;
    assert_eq!(world.calls(COMPONENT_TOKEN), 3);
    assert_eq!(world.calls(START_PUSH), asked);
}

async fn an_expired_ticket_counts_as_none(harness: Harness) {
    refused_ticket_counts_as_none(harness, 61005).await;
}

async fn an_invalid_ticket_counts_as_none(harness: Harness) {
    refused_ticket_counts_as_none(harness, 61006).await;
}

/// WeChat sometimes refuses a valid ticket once.
async fn a_ticket_that_was_refused_once_is_tried_again(harness: Harness) {
    let world = World::new(harness);
    let processes = world.processes(2).await;
    let refuse = Fault::on(COMPONENT_TOKEN).errcode(61006).times(1);
    world.harness.simulator.inject(refuse);
    world.push(&processes[0], SimulatedPush::ticket()).await;
    all_serve(&world, &processes).await;
    assert_eq!(world.calls(COMPONENT_TOKEN), 2);
}

/// WeChat fails for a while, and all processes back off.
async fn a_new_ticket_ends_every_back_off(harness: Harness) {
    let world = World::new(harness);
    let processes = world.processes(3).await;
    world
        .harness
        .simulator
        .inject(Fault::on(COMPONENT_TOKEN).errcode(-1));
    world.push(&processes[0], SimulatedPush::ticket()).await;
    for _ in 0..4 {
        for outcome in crowd(&processes).await {
            assert!(outcome.is_err());
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let failed = world.calls(COMPONENT_TOKEN);
    assert!(failed <= 40, "{failed} calls of a failing WeChat");
    world.harness.simulator.clear_faults();
    world.push(&processes[2], SimulatedPush::ticket()).await;
    for process in &processes {
        let started = tokio::time::Instant::now();
        eventually("the component token", Duration::from_secs(1), async || {
            process.component_token().await.is_ok()
        })
        .await;
        let took = started.elapsed();
        assert!(took < Duration::from_secs(2), "{took:?}");
    }
}

/// A push of the ticket with this text and CreateTime.
fn ticket(world: &World, text: &str, age: Duration) -> SimulatedPush {
    let now = world.harness.simulator.now();
    let created = now.duration_since(std::time::UNIX_EPOCH).unwrap() - age;
    SimulatedPush::xml(format!(
        "<xml><AppId><![CDATA[{}]]></AppId><CreateTime>{}</CreateTime>\
         <InfoType><![CDATA[component_verify_ticket]]></InfoType>\
         <ComponentVerifyTicket><![CDATA[{text}]]></ComponentVerifyTicket></xml>",
        world.wechat.app_id(),
        created.as_secs(),
    ))
}

async fn an_older_ticket_is_ignored(harness: Harness) {
    let (world, processes) = World::with_ticket(harness, 2).await;
    for age in [1, 60, 36_000] {
        let late = ticket(&world, "ticket@@@late", Duration::from_secs(age));
        world
            .push(&processes[1], late.age(Duration::from_secs(age)))
            .await;
    }
    // WeChat would refuse the late ticket, which it never issued.
    all_serve(&world, &processes).await;
    assert_eq!(world.calls(COMPONENT_TOKEN), 1);
}

async fn a_repeated_ticket_changes_nothing(harness: Harness) {
    let (world, processes) = World::with_ticket(harness, 2).await;
    all_serve(&world, &processes).await;
    for process in &processes {
        world
            .push(process, SimulatedPush::same_ticket().repeat(20))
            .await;
    }
    all_serve(&world, &processes).await;
    assert_eq!(world.calls(COMPONENT_TOKEN), 1);
}

async fn an_empty_ticket_is_never_used(harness: Harness) {
    let world = World::new(harness);
    let processes = world.processes(2).await;
    all_wait_for_a_ticket(&processes).await;
    eventually("WeChat is asked for a push", SOON, async || {
        world.calls(START_PUSH) == 1
    })
    .await;
    for process in &processes {
        let empty = ticket(&world, "", Duration::ZERO);
        world.push_any(process, empty).await;
    }
    all_wait_for_a_ticket(&processes).await;
    assert_eq!(world.calls(COMPONENT_TOKEN), 0);

    // An empty ticket does not replace a valid one.
    world.push(&processes[0], SimulatedPush::ticket()).await;
    world.harness.advance(Duration::from_secs(5));
    let empty = ticket(&world, "", Duration::ZERO);
    world.push_any(&processes[0], empty).await;
    all_serve(&world, &processes).await;
}

/// Somebody repeats genuine pushes whose tickets WeChat refuses.
async fn a_refused_ticket_is_never_tried_again(harness: Harness) {
    let world = World::without_requested_pushes(harness);
    let mut processes = world.processes(2).await;
    let refused = ticket(&world, "ticket@@@refused", Duration::from_secs(60));
    let older = ticket(&world, "ticket@@@older", Duration::from_secs(3_600));
    world.push(&processes[0], refused.clone()).await;
    for _ in 0..2 {
        all_wait_for_a_ticket(&processes).await;
    }
    assert_eq!(world.calls(COMPONENT_TOKEN), 2, "a ticket is tried twice");
    for round in 0..3 {
        match (round, &world.harness.redis) {
            // A new process finds the mark in the store.
            (1, _) => processes.push(world.process().await),
            // A process remembers the mark that the store has lost.
            (2, Some(server)) => {
                let key = format!("wechat:{}:platform:ticket", world.wechat.app_id());
                let deleted: usize = redis::cmd("DEL")
                    .arg(key)
                    .query(&mut server.connection())
                    .unwrap();
                assert_eq!(deleted, 1);
            }
            _ => {}
        }
        for process in &processes {
            world.push(process, refused.clone().repeat(5)).await;
            world.push(process, older.clone()).await;
        }
        all_wait_for_a_ticket(&processes).await;
    }
    assert_eq!(world.calls(COMPONENT_TOKEN), 2);

    world.push(&processes[1], SimulatedPush::ticket()).await;
    all_serve(&world, &processes).await;
    assert_eq!(world.calls(COMPONENT_TOKEN), 3);
    // The older tickets do not come back.
    world.push(&processes[0], refused).await;
    all_serve(&world, &processes).await;
    assert_eq!(world.calls(COMPONENT_TOKEN), 3);
}

async fn a_ticket_older_than_its_lifetime_is_none(harness: Harness) {
    const LIFETIME: Duration = Duration::from_secs(12 * 3_600);
    let world = World::without_requested_pushes(harness);
    let processes = world.processes(2).await;
    for age in [LIFETIME, 4 * LIFETIME] {
        let late = ticket(&world, "ticket@@@late", age);
        world.push(&processes[0], late.age(age)).await;
        all_wait_for_a_ticket(&processes).await;
    }
    assert_eq!(world.calls(COMPONENT_TOKEN), 0);

    // A stored ticket ages too.
    world.push(&processes[0], SimulatedPush::ticket()).await;
    all_serve(&world, &processes).await;
    assert_eq!(world.calls(COMPONENT_TOKEN), 1);
    world.harness.advance(LIFETIME);
    all_wait_for_a_ticket(&processes).await;
    assert_eq!(world.calls(COMPONENT_TOKEN), 1);
}

async fn a_failing_request_for_a_push_is_repeated_with_a_back_off(harness: Harness) {
    let world = World::without_requested_pushes(harness);
    let processes = world.processes(3).await;
    for _ in 0..10 {
        all_wait_for_a_ticket(&processes).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let asked = world.calls(START_PUSH);
    assert!((1..=5).contains(&asked), "{asked} calls for a push");

    world.harness.simulator.clear_faults();
    world.harness.advance(Duration::from_secs(60));
    // One of the processes has the right to repeat the request.
    eventually("the request is repeated", SOON, async || {
        all_wait_for_a_ticket(&processes).await;
        world.calls(START_PUSH) > asked
    })
    .await;
    all_wait_for_a_ticket(&processes).await;
    assert_eq!(world.calls(START_PUSH), asked + 1);
}
