//! Tests of the start of a platform: wrong settings, and no ticket yet.

use super::{COMPONENT, SHOP, World};
use crate::processes::start_up::{PASSWORD, gives_up};
use crate::support::browser::Browser;
use crate::support::demo_process::DemoProcess;
use crate::support::harness::Layout;
use crate::support::http_client::Asked;

const KEY: &str = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG";

#[tokio::test(flavor = "multi_thread")]
async fn wrong_settings_are_one_sentence() {
    let all = [
        ("PLATFORM_APPID", COMPONENT),
        ("PLATFORM_SECRET", PASSWORD),
        ("PLATFORM_TOKEN", "token"),
        ("PLATFORM_AES_KEY", KEY),
    ];
    for missing in 0..4 {
        let mut set = all.to_vec();
        let (name, _) = set.remove(missing);
        gives_up(&set, &[name, "is set without", "open.weixin.qq.com"]).await;
    }
    for (name, value, says) in [
        ("PLATFORM_APPID", "wx 1", "PLATFORM_APPID"),
        ("PLATFORM_TOKEN", "token,", "PLATFORM_TOKEN"),
        ("PLATFORM_TOKEN", "a", "3 to 32"),
        ("PLATFORM_TOKEN", KEY, "swapped"),
        ("PLATFORM_AES_KEY", "token", "swapped"),
        ("PLATFORM_AES_KEY", "abc", "PLATFORM_AES_KEY"),
        (
            "PLATFORM_AES_KEY",
            &format!("{KEY},{KEY}x"),
            "PLATFORM_AES_KEY",
        ),
        ("ACCOUNT_BY", "header:x-account", "PLATFORM_APPID"),
        ("WECHAT_ACCOUNTS", "wx1:secret", "both set"),
    ] {
        let mut set = all.to_vec();
        set.retain(|(other, _)| *other != name);
        set.push((name, value));
        gives_up(&set, &[name, says]).await;
    }
    let mut set = all.to_vec();
    set.extend([("WECHAT_APPID", "wx1"), ("WECHAT_SECRET", "secret")]);
    gives_up(&set, &["WECHAT_APPID", "PLATFORM_APPID", "both set"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_platform_without_a_ticket_starts_and_waits() {
    let world = World::start().await;
    world.platform.stop_ticket_pushes();
    let demo = DemoProcess::start(&world.environment(Layout::Hashes, &[])).await;
    let health = demo.ask(Asked::get("/healthz")).await;
    assert_eq!(health.status, 200, "{health:?}");
    assert_eq!(health.json()["platform"], "platform_starting");
    let page = Browser::new()
        .visit(&format!("{}/wechat/platform/authorize", demo.url))
        .await;
    page.is_page(503, "platform_starting");
    assert!(page.header("retry-after").is_some());
    for path in [
        "/api/accounts",
        "/wechat/platform/authorize",
        &format!("/{SHOP}/api/me"),
    ] {
        let reply = demo.ask(Asked::get(path)).await;
        reply.is_rejected(503, "platform_starting");
        assert!(reply.headers.contains_key("retry-after"), "{path}");
    }
    // A return that this platform did not begin.
    for path in [
        "/wechat/platform/authorized",
        "/wechat/platform/authorized/x?auth_code=y",
    ] {
        let reply = demo.ask(Asked::get(path)).await;
        reply.is_rejected(400, "invalid_state");
    }
    assert_eq!(world.wechat.calls_to(super::COMPONENT_TOKEN), 0);
    world.push_ticket(&demo).await;
    super::serves(&demo, SHOP, false).await;
}
