//! Tests of an authorization from the page to a user's login, on two processes.

use std::time::Duration;

use tower_wechat::simulator::{Fault, SimulatedPush};

use super::{CLUB, COMPONENT_TOKEN, QUERY, SHOP, USER, World, finish, serves};
use crate::support::browser::Browser;
use crate::support::demo_process::DemoProcess;
use crate::support::eventually;
use crate::support::harness::Layout;
use crate::support::http_client::Asked;

/// Logs a user of the account in. The login begins at one process and ends at another.
async fn log_in(browser: &Browser, [first, second]: [&DemoProcess; 2], account: &str) {
    let page = browser.visit(&format!("{}/{account}/", first.url)).await;
    let authorize = page
        .location()
        .unwrap_or_else(|| panic!("no login: {page:?}"));
    assert!(
        authorize.query().unwrap().contains("component_appid="),
        "{authorize}"
    );
    let approved = browser.visit(authorize.as_str()).await;
    let callback = approved.location().expect("a redirect to the callback");
    let page = finish(browser, second, &callback).await;
    assert_eq!(page.status, 302, "{page:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn users_of_authorized_accounts_log_in() {
    for layout in Layout::BOTH {
        let world = World::start().await;
        let (one, two) = (world.demo(layout).await, world.demo(layout).await);
        world.push_ticket(&one).await;
        let browser = Browser::new();
        for account in [SHOP, CLUB] {
            serves(&two, account, false).await;
            world.authorize([&two, &one], account).await;
            log_in(&browser, [&one, &two], account).await;
            for demo in [&one, &two] {
                let me = browser
                    .fetch(&format!("{}/{account}/api/me", demo.url))
                    .await;
                assert_eq!(me.status, 200, "{me:?}");
                let openid = world.wechat.app(account).unwrap().openid_of(USER);
                assert_eq!(me.json()["openid"], openid);
                assert_eq!(me.json()["app_id"], account);
                let token = demo
                    .ask(Asked::get(&format!("/{account}/api/account")))
                    .await;
                assert_eq!(token.status, 200, "{token:?}");
            }
            let refresh = world.stored_refresh_token(layout, account);
            assert_eq!(refresh, world.platform.refresh_token(account));
        }
        assert_eq!(world.wechat.calls_to(COMPONENT_TOKEN), 1);
        assert_eq!(world.wechat.calls_to(QUERY), 2);

        // The owner of the shop ends the authorization. A late event of the club changes nothing.
        world.platform.revoke(SHOP);
        assert!(
            world
                .push(SimulatedPush::unauthorized(SHOP))
                .await
                .is_success()
        );
        let late = SimulatedPush::unauthorized(CLUB).age(Duration::from_secs(3_600));
        assert!(world.push(late).await.is_success());
        for demo in [&one, &two] {
            serves(demo, SHOP, false).await;
            serves(demo, CLUB, true).await;
        }
        assert_eq!(world.stored_refresh_token(layout, SHOP), None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_platform_needs_nothing_of_wechat() {
    let world = World::start().await;
    let demo = world.demo(Layout::Hashes).await;
    world.push_ticket(&demo).await;
    world.authorize([&demo, &demo], SHOP).await;
    demo.signal("TERM");
    let (status, log) = demo.ended(Duration::from_secs(20)).await;
    assert!(status.success(), "{log}");
    world.platform.stop_ticket_pushes();
    world.wechat.reset_calls();
    let demo = world.demo(Layout::Hashes).await;
    serves(&demo, SHOP, true).await;
    let page = Browser::new()
        .visit(&format!("{}/wechat/platform/authorize", demo.url))
        .await;
    assert_eq!(page.status, 200, "{page:?}");
    let token = demo.ask(Asked::get(&format!("/{SHOP}/api/account"))).await;
    assert_eq!(token.status, 200, "{token:?}");
    assert_eq!(world.wechat.calls_to(COMPONENT_TOKEN), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shutdown_waits_for_an_exchange() {
    let world = World::start().await;
    let demo = world.demo(Layout::Keys).await;
    world.push_ticket(&demo).await;
    world
        .wechat
        .inject(Fault::on(QUERY).delay(Duration::from_millis(1_500)));
    world.platform.authorize(SHOP).unwrap();
    assert!(
        world
            .push(SimulatedPush::authorized(SHOP))
            .await
            .is_success()
    );
    eventually(
        "the exchange has begun",
        Duration::from_secs(5),
        async || world.wechat.calls_to(QUERY) == 1,
    )
    .await;
    demo.signal("TERM");
    let (status, log) = demo.ended(Duration::from_secs(20)).await;
    assert!(status.success(), "{log}");
    let refresh = world.stored_refresh_token(Layout::Keys, SHOP);
    assert!(
        refresh.is_some() && refresh == world.platform.refresh_token(SHOP),
        "{log}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn former_tokens_and_keys_are_accepted() {
    let world = World::start().await;
    let (token, key) = world.platform.push_keys();
    let (new_token, new_key) = ("new-token", "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789abcdefg");
    let more = [
        ("PLATFORM_TOKEN", format!("{new_token}, {token}")),
        ("PLATFORM_AES_KEY", format!("{new_key}, {key}")),
    ];
    let more = more.each_ref().map(|(name, value)| (*name, &**value));
    let demo = DemoProcess::start(&world.environment(Layout::Hashes, &more)).await;
    world.push_ticket(&demo).await;
    world.platform.rotate_keys(new_token, new_key);
    for push in [
        SimulatedPush::ticket(),
        SimulatedPush::ticket().former_keys(),
    ] {
        let reply = world.push(push).await;
        assert!(reply.is_success(), "{reply:?}");
    }
    let forged = world.push(SimulatedPush::ticket().wrong_signature()).await;
    assert_eq!(forged.status, Some(401), "{forged:?}");
}
