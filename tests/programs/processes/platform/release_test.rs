//! Tests of WeChat's release test of platforms (全网发布检测) against the demo.

use std::time::{Duration, Instant};

use tower_wechat::simulator::SimulatedPush;

use super::{QUERY, SHOP, USER, World};
use crate::support::eventually;
use crate::support::harness::Layout;

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_passes_all_steps() {
    let world = World::start().await;
    let demo = world.demo(Layout::Hashes).await;
    // The ticket step.
    world.push_ticket(&demo).await;
    world.authorize([&demo, &demo], SHOP).await;

    let text = "TESTCOMPONENT_MSG_TYPE_TEXT";
    let reply = world.push(SimulatedPush::text(SHOP, USER, text)).await;
    assert_eq!(reply.status, Some(200), "{reply:?}");
    let message = reply.message.unwrap_or_else(|| panic!("{:?}", reply.body));
    assert!(message.contains(&format!("[{text}_callback]")), "{message}");

    // The code is one that the platform has not exchanged.
    let code = world.platform.authorize(SHOP).unwrap();
    let asked = Instant::now();
    let push = SimulatedPush::text(SHOP, USER, format!("QUERY_AUTH_CODE:{code}"));
    let reply = world.push(push).await;
    assert!(asked.elapsed() < Duration::from_secs(5));
    assert_eq!(reply.status, Some(200), "{reply:?}");
    assert!(["", "success"].contains(&&*reply.body), "{reply:?}");
    eventually("the message is sent", Duration::from_secs(5), async || {
        let sent = world.platform.sent_messages(SHOP);
        sent.iter()
            .any(|(user, text)| user == USER && *text == format!("{code}_from_api"))
    })
    .await;

    // Other messages and events are taken.
    for push in [
        SimulatedPush::text(SHOP, USER, "hello"),
        SimulatedPush::user_event(SHOP, USER, "subscribe"),
        SimulatedPush::event("notify_third_fasteregister", [("status", "0")]),
    ] {
        let reply = world.push(push).await;
        assert!(reply.is_success(), "{reply:?}");
    }
}

/// Any user of an account can send the texts of the release test.
#[tokio::test(flavor = "multi_thread")]
async fn invented_codes_cost_few_calls() {
    let world = World::start().await;
    let demo = world.demo(Layout::Hashes).await;
    world.push_ticket(&demo).await;
    world.wechat.reset_calls();
    for number in 0..40 {
        let text = format!("QUERY_AUTH_CODE:invented{number}");
        let reply = world.push(SimulatedPush::text(SHOP, USER, text)).await;
        assert_eq!(reply.status, Some(200), "{reply:?}");
    }
    let made = || world.wechat.calls_to(QUERY);
    eventually("the exchanges end", Duration::from_secs(5), async || {
        made() >= 10
    })
    .await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(made() <= 20, "{} calls", made());
}
