//! Tests of requests that name an unknown account.

use std::collections::BTreeSet;

use redis::Commands;

use super::{CLUB, SHOP, World};
use crate::support::demo_process::DemoProcess;
use crate::support::http_client::Asked;

/// Returns the names and labels of all metrics, without their values.
async fn series(demo: &DemoProcess) -> BTreeSet<String> {
    let page = demo.ask(Asked::get("/metrics")).await.text;
    let lines = page.lines().filter(|line| !line.starts_with('#'));
    let names = lines.filter_map(|line| line.rsplit_once(' '));
    names.map(|(name, _)| name.to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_account_comes_before_every_route() {
    let world = World::start().await;
    let [demo] = world.demos(&[]).await;
    let upper = SHOP.to_uppercase();
    let encoded = SHOP.replace('w', "%77");
    let controls = format!("{SHOP}%00");
    for account in [
        "wx1", "api", "wechat", "center", &upper, &encoded, &controls, "", "..", "%2e",
    ] {
        for rest in [
            "",
            "/",
            "/api/me",
            "/api/account",
            "/wechat/callback?code=1&state=2",
            "/x/y",
        ] {
            let reply = demo.ask(Asked::get(&format!("/{account}{rest}"))).await;
            // A URL parser resolves dots before the request is sent.
            let resolved = account.is_empty() || account == ".." || account == "%2e";
            assert_eq!(reply.status, 404, "/{account}{rest}: {reply:?}");
            if !resolved {
                reply.is_rejected(404, "unknown_account");
            }
        }
    }
    let page = Asked::get("/wx1/").header("accept", "text/html");
    demo.ask(page).await.is_rejected(404, "unknown_account");
    for asked in [
        Asked::post("/wx1/logout"),
        Asked::post("/"),
        Asked::options("/wx1/api/me"),
    ] {
        demo.ask(asked).await.is_rejected(404, "unknown_account");
    }
    let preflight = Asked::options("/wx1/api/me").header("access-control-request-method", "GET");
    demo.ask(preflight)
        .await
        .is_rejected(404, "unknown_account");
}

/// Requests for unknown accounts leave no metric, no key and no cookie.
#[tokio::test(flavor = "multi_thread")]
async fn unknown_accounts_leave_nothing_behind() {
    let world = World::start().await;
    let [demo] = world.demos(&[]).await;
    let ask = async |account: &str| demo.ask(Asked::get(&format!("/{account}/api/me"))).await;
    ask("wx1").await.is_rejected(404, "unknown_account");
    ask(CLUB).await.is_rejected(401, "login_required");
    let before = series(&demo).await;
    let keys: Vec<String> = world.redis.connection().keys("*").unwrap();
    for number in 0..1_000 {
        let reply = ask(&format!("wx{number:016}")).await;
        assert_eq!(reply.status, 404, "{reply:?}");
        assert!(!reply.headers.contains_key("set-cookie"), "{reply:?}");
    }
    assert_eq!(series(&demo).await, before);
    let after: Vec<String> = world.redis.connection().keys("*").unwrap();
    assert_eq!(after, keys);
    assert!(!demo.log().contains("wx0000000000000"), "{}", demo.log());
}
