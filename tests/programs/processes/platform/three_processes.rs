//! Tests of three demos of one platform: killed and restarted ones, a Redis that loses its data, and
//! new authorizations.

use std::time::Duration;

use tokio::task::JoinSet;
use tower_wechat::simulator::{Fault, SimulatedPush};

use super::{CLUB, COMPONENT_TOKEN, QUERY, SHOP, World, serves};
use crate::support::demo_process::DemoProcess;
use crate::support::eventually;
use crate::support::harness::Layout;
use crate::support::http_client::{Asked, fingerprint};

const AUTHORIZER_TOKEN: &str = "/cgi-bin/component/api_authorizer_token";
const LIST: &str = "/cgi-bin/component/api_get_authorizer_list";
const START_PUSH: &str = "/cgi-bin/component/api_start_push_ticket";

/// Time after which a killed process blocks nothing any more: its lease and one renewal.
const AFTER_A_LEASE: Duration = Duration::from_secs(20);

async fn demos(world: &World, layout: Layout) -> [DemoProcess; 3] {
    [
        world.demo(layout).await,
        world.demo(layout).await,
        world.demo(layout).await,
    ]
}

/// The owner of an account authorizes the platform, and WeChat sends the event to a process.
async fn authorize(world: &World, demo: &DemoProcess, account: &str) {
    world.wechat.advance(Duration::from_secs(2));
    world.platform.authorize(account).unwrap();
    world.push_to(demo);
    let reply = world.push(SimulatedPush::authorized(account)).await;
    assert!(reply.is_success(), "{reply:?}");
}

/// Returns the fingerprint of the account's token that a process serves.
async fn token(demo: &DemoProcess, account: &str) -> Option<String> {
    let state = demo
        .ask(Asked::get(&format!("/{account}/api/account")))
        .await;
    (state.status == 200).then(|| state.field("token_fingerprint"))
}

/// Waits until all processes serve the account's token that WeChat has issued last.
async fn all_serve(world: &World, demos: &[DemoProcess], account: &str, within: Duration) {
    for demo in demos {
        eventually("the newest token is served", within, async || {
            let live = world.platform.authorizer_token(account);
            let live = live.map(|live| fingerprint(&live));
            live.is_some() && token(demo, account).await == live
        })
        .await;
    }
}

/// Two accounts that all processes serve.
async fn with_two_accounts(world: &World, demos: &[DemoProcess]) {
    world.push_ticket(&demos[0]).await;
    for (account, demo) in [(SHOP, &demos[0]), (CLUB, &demos[1])] {
        authorize(world, demo, account).await;
        for demo in demos {
            serves(demo, account, true).await;
        }
        all_serve(world, demos, account, Duration::from_secs(5)).await;
    }
}

/// Processes die while they hold the lease of the component token, and of the exchange of a code.
#[tokio::test(flavor = "multi_thread")]
async fn killed_holders_block_the_others_for_one_lease() {
    for layout in Layout::BOTH {
        let world = World::start().await;
        let [victim, two, three] = demos(&world, layout).await;
        world
            .wechat
            .inject(Fault::on(COMPONENT_TOKEN).hang().times(1));
        world.push_to(&victim);
        let push = world.push(SimulatedPush::ticket()).await;
        assert!(push.is_success(), "{push:?}");
        eventually(
            "a process asks WeChat",
            Duration::from_secs(10),
            async || world.wechat.calls_to(COMPONENT_TOKEN) == 1,
        )
        .await;
        // Any of the three may have been first. The lease of one that dies runs out.
        victim.signal("KILL");
        let demos = [two, three];
        for demo in &demos {
            eventually("the platform has a token", AFTER_A_LEASE, async || {
                demo.ask(Asked::get("/healthz")).await.json()["platform"] == "alive"
            })
            .await;
        }
        assert!(world.wechat.calls_to(COMPONENT_TOKEN) <= 2);

        // The process that exchanges a code dies before WeChat has answered. WeChat repeats the event.
        let victim = world.demo(layout).await;
        world.wechat.inject(Fault::on(QUERY).hang().times(1));
        world.wechat.advance(Duration::from_secs(2));
        world.platform.authorize(SHOP).unwrap();
        world.push_to(&victim);
        let exchange = world.push(SimulatedPush::authorized(SHOP));
        let death = async {
            eventually(
                "the code is exchanged",
                Duration::from_secs(10),
                async || world.wechat.calls_to(QUERY) == 1,
            )
            .await;
            victim.signal("KILL");
        };
        let (reply, ()) = tokio::join!(exchange, death);
        assert!(!reply.is_success(), "a dead process answered: {reply:?}");
        world.push_to(&demos[0]);
        let repeated = world.push(SimulatedPush::authorized(SHOP)).await;
        assert!(repeated.is_success(), "{repeated:?}");
        all_serve(&world, &demos, SHOP, AFTER_A_LEASE * 2).await;
        assert_eq!(world.wechat.calls_to(QUERY), 2);
    }
}

/// Redis loses everything while requests run. The list of accounts brings the refresh tokens back.
#[tokio::test(flavor = "multi_thread")]
async fn a_flushed_redis_is_recovered_from_the_list() {
    for layout in Layout::BOTH {
        let world = World::start().await;
        let demos = demos(&world, layout).await;
        with_two_accounts(&world, &demos).await;
        let before = [LIST, START_PUSH].map(|path| world.wechat.calls_to(path));
        let () = redis::cmd("FLUSHALL")
            .query(&mut world.redis.connection())
            .unwrap();
        for account in [SHOP, CLUB] {
            // Reads cause renewals of what is lost.
            all_serve(&world, &demos, account, Duration::from_secs(15)).await;
            eventually(
                "the refresh token is back",
                Duration::from_secs(30),
                async || {
                    for demo in &demos {
                        token(demo, account).await;
                    }
                    let stored = world.stored_refresh_token(layout, account);
                    stored.is_some() && stored == world.platform.refresh_token(account)
                },
            )
            .await;
            for demo in &demos {
                serves(demo, account, true).await;
            }
        }
        let after = [LIST, START_PUSH].map(|path| world.wechat.calls_to(path));
        assert_eq!(after[0] - before[0], 1, "one list over all processes");
        assert_eq!(after[1] - before[1], 0, "a process remembers the ticket");
    }
}

/// Each process takes one step of what an owner does: authorize, authorize again, end.
#[tokio::test(flavor = "multi_thread")]
async fn the_newest_authorization_wins_on_all_processes() {
    let world = World::start().await;
    let demos = demos(&world, Layout::Keys).await;
    with_two_accounts(&world, &demos).await;
    for at in 0..4 {
        let mut requests = JoinSet::new();
        for demo in &demos {
            for _ in 0..10 {
                let http = demo.http().clone();
                requests.spawn(async move {
                    http.ask(Asked::get(&format!("/{SHOP}/api/account")))
                        .await
                        .status
                });
            }
        }
        authorize(&world, &demos[at % 3], SHOP).await;
        for status in requests.join_all().await {
            assert_eq!(status, 200);
        }
        all_serve(&world, &demos, SHOP, Duration::from_secs(5)).await;
        // An event of an earlier time changes nothing.
        let late = SimulatedPush::unauthorized(SHOP).age(Duration::from_secs(600));
        world.push_to(&demos[(at + 1) % 3]);
        assert!(world.push(late).await.is_success());
    }
    world.wechat.advance(Duration::from_secs(2));
    world.platform.revoke(SHOP);
    world.push_to(&demos[2]);
    let end = world.push(SimulatedPush::unauthorized(SHOP)).await;
    assert!(end.is_success(), "{end:?}");
    for demo in &demos {
        serves(demo, SHOP, false).await;
        serves(demo, CLUB, true).await;
    }
    assert_eq!(world.stored_refresh_token(Layout::Keys, SHOP), None);
    assert_eq!(world.wechat.calls_to(AUTHORIZER_TOKEN), 0);
}

/// All processes end, and others start. Redis holds everything, so WeChat receives no call.
#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_all_processes_needs_nothing_of_wechat() {
    for layout in Layout::BOTH {
        let world = World::start().await;
        let before = demos(&world, layout).await;
        with_two_accounts(&world, &before).await;
        world.platform.stop_ticket_pushes();
        for demo in &before {
            demo.signal("TERM");
        }
        for demo in before {
            let (status, log) = demo.ended(Duration::from_secs(20)).await;
            assert!(status.success(), "{log}");
        }
        world.wechat.reset_calls();
        let after = demos(&world, layout).await;
        for account in [SHOP, CLUB] {
            all_serve(&world, &after, account, Duration::from_secs(5)).await;
        }
        for path in [COMPONENT_TOKEN, QUERY, AUTHORIZER_TOKEN, START_PUSH] {
            assert_eq!(world.wechat.calls_to(path), 0, "{path}");
        }
    }
}
