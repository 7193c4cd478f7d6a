//! When WeChat or the store does not do its part.

use std::time::Duration;

use tower_wechat::simulator::Fault;

use crate::client::Browser;
use crate::rig::{ALICE, EXCHANGE, Rig};

#[tokio::test]
async fn a_code_that_wechat_refuses_restarts_the_login_once_and_then_works() {
    let rig = Rig::new().await;
    let site = rig.site().await;
    for errcode in [40029, 40163] {
        rig.sim
            .inject(Fault::on(EXCHANGE).errcode(errcode).times(1));
        let browser = Browser::new();
        let page = browser.open(&format!("{}/me?a=b", site.url)).await;
        assert_eq!(page.json()["uri"], "/me?a=b");
    }
    assert_eq!(rig.exchanges(), 4);
}

#[tokio::test]
async fn a_login_that_never_works_ends_on_a_page() {
    let rig = Rig::new().await;
    let site = rig.site().await;
    rig.sim.inject(Fault::on(EXCHANGE).errcode(40029));
    let browser = Browser::new();
    let page = browser.open(&format!("{}/me", site.url)).await;
    page.is_page(429, "登录过于频繁");
    assert_eq!(rig.exchanges(), 3, "the first try and two restarts");
    // The guard is the browser's, and lasts a minute.
    rig.sim.clear_faults();
    assert_eq!(
        Browser::new()
            .open(&format!("{}/me", site.url))
            .await
            .json()["id"],
        ALICE
    );
    rig.advance(Duration::from_secs(61));
    rig.sim.inject(Fault::on(EXCHANGE).errcode(40029).times(1));
    assert_eq!(
        browser.open(&format!("{}/me", site.url)).await.json()["id"],
        ALICE
    );
}

#[tokio::test]
async fn whoever_is_signed_in_is_not_sent_around_again() {
    let rig = Rig::new().await;
    let site = rig.site().await;
    let browser = Browser::new();
    assert_eq!(
        browser.open(&format!("{}/me", site.url)).await.json()["id"],
        ALICE
    );
    let again = browser
        .callback_of(&format!("{}/wechat/login?return_to=%2Fme", site.url))
        .await;
    rig.sim.inject(Fault::on(EXCHANGE).errcode(40163).times(1));
    assert_eq!(browser.open(&again).await.json()["uri"], "/me");
    assert_eq!(rig.exchanges(), 2);
}

#[tokio::test]
async fn each_trouble_has_its_page_and_status() {
    let rig = Rig::new().await;
    let site = rig.site().await;
    for (fault, status, code, chinese) in [
        (
            Fault::on(EXCHANGE).errcode(40125),
            502,
            "wechat_config",
            "暂时无法登录",
        ),
        (
            Fault::on(EXCHANGE).errcode(40226),
            403,
            "login_denied",
            "无法登录",
        ),
        (
            Fault::on(EXCHANGE).errcode(99_999),
            502,
            "wechat_unavailable",
            "登录未完成",
        ),
        (
            Fault::on(EXCHANGE).errcode(-1),
            503,
            "wechat_unavailable",
            "微信暂时没有响应",
        ),
        (
            Fault::on(EXCHANGE).status(500).body("<html>"),
            503,
            "wechat_unavailable",
            "微信暂时没有响应",
        ),
        (
            Fault::on(EXCHANGE).reset(),
            503,
            "wechat_unavailable",
            "微信暂时没有响应",
        ),
    ] {
        rig.sim.clear_faults();
        rig.sim.inject(fault);
        let browser = Browser::new();
        let callback = browser.callback_of(&format!("{}/me?a=b", site.url)).await;
        let page = browser.visit(&callback).await;
        page.is_page(status, chinese);
        assert_eq!(page.header("retry-after").is_some(), status == 503);
        assert_eq!(page.header("referrer-policy"), Some("no-referrer"));
        let json = browser.fetch(&callback).await;
        json.is_error(status, code);
        assert!(browser.cookie("wechat_session").is_none());
    }
}

#[tokio::test]
async fn a_reload_after_wechat_is_back_signs_in() {
    let rig = Rig::new().await;
    let site = rig.site().await;
    let browser = Browser::new();
    let callback = browser.callback_of(&format!("{}/me", site.url)).await;
    rig.sim.inject(Fault::on(EXCHANGE).errcode(-1).times(1));
    let page = browser.visit(&callback).await;
    assert_eq!(page.status, 503);
    // Not a moment later than it was told.
    let wait: u64 = page.header("retry-after").unwrap().parse().unwrap();
    rig.advance(Duration::from_secs(wait));
    assert_eq!(browser.open(&callback).await.json()["id"], ALICE);
}

/// The same where Redis forgets the result by its own clock.
#[tokio::test]
async fn whoever_waits_as_long_as_told_is_signed_in() {
    let rig = Rig::with_redis().await;
    let site = rig.site().await;
    let browser = Browser::new();
    let callback = browser.callback_of(&format!("{}/me", site.url)).await;
    rig.sim.inject(Fault::on(EXCHANGE).errcode(-1).times(1));
    let refused = browser.fetch(&callback).await;
    refused.is_error(503, "wechat_unavailable");
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    tokio::time::sleep(Duration::from_secs(wait)).await;
    assert_eq!(browser.open(&callback).await.json()["id"], ALICE);
    assert_eq!(rig.exchanges(), 2);
}

#[tokio::test]
async fn without_a_store_no_code_is_spent() {
    let mut rig = Rig::with_redis().await;
    let site = rig.site().await;
    let browser = Browser::new();
    let callback = browser.callback_of(&format!("{}/me", site.url)).await;
    rig.redis.as_mut().unwrap().kill();
    browser
        .visit(&callback)
        .await
        .is_page(503, "服务暂时不可用");
    browser
        .fetch(&callback)
        .await
        .is_error(503, "store_unavailable");
    assert_eq!(rig.exchanges(), 0);
    rig.redis.as_mut().unwrap().run();
    crate::support::eventually(
        "the login works again",
        Duration::from_secs(8),
        async || browser.visit(&callback).await.status == 302,
    )
    .await;
    assert_eq!(rig.exchanges(), 1);
}

#[tokio::test]
async fn a_slow_exchange_answers_in_time_and_goes_on() {
    let rig = Rig::new().await;
    let site = rig
        .site_with(|login| login.wait(Duration::from_millis(300)))
        .await;
    let browser = Browser::new();
    let callback = browser.callback_of(&format!("{}/me", site.url)).await;
    rig.sim.inject(
        Fault::on(EXCHANGE)
            .delay(Duration::from_millis(800))
            .times(1),
    );
    browser
        .visit(&callback)
        .await
        .is_page(503, "微信暂时没有响应");
    tokio::time::sleep(Duration::from_millis(900)).await;
    assert_eq!(browser.open(&callback).await.json()["id"], ALICE);
    assert_eq!(rig.exchanges(), 1);
}

#[tokio::test]
async fn page_loads_get_pages_while_the_store_is_away() {
    let mut rig = Rig::with_redis().await;
    let site = rig.site().await;
    let browser = Browser::new();
    assert_eq!(
        browser.open(&format!("{}/me", site.url)).await.json()["id"],
        ALICE
    );
    let other = rig.cluster(1).await.remove(0);
    rig.redis.as_mut().unwrap().kill();
    // This process has never seen the user.
    let page = browser.visit(&format!("{}/me", other.url)).await;
    page.is_page(503, "服务暂时不可用");
    assert!(page.header("retry-after").is_some());
    browser
        .fetch(&format!("{}/me", other.url))
        .await
        .is_error(503, "store_unavailable");
}

/// Follows redirects until something else comes; how many logins that took.
async fn rounds_until_told(rig: &Rig, browser: &Browser, url: &str, forget: bool) -> u64 {
    let mut reply = browser.visit(url).await;
    for _ in 0..200 {
        let Some(next) = reply.location() else {
            reply.is_page(429, "登录过于频繁");
            return rig.exchanges();
        };
        if forget {
            browser.drop_cookies(|_| true);
        }
        reply = browser.visit(next.as_str()).await;
    }
    panic!("a loop without end");
}

#[tokio::test]
async fn logins_that_do_not_help_end_on_a_page() {
    let rig = Rig::new().await;
    // The gateway never names the user, so that every login is in vain.
    let header = tower_wechat::TrustedHeader::new("x-user").unwrap();
    let site = rig
        .mounted(
            |login| login,
            |layer, login| {
                crate::rig::pages(login.clone()).layer(layer.login(login).identity(header))
            },
        )
        .await;
    let url = format!("{}/me", site.url);
    assert_eq!(
        rounds_until_told(&rig, &Browser::new(), &url, false).await,
        11
    );
}

#[tokio::test]
async fn a_lenient_login_of_a_browser_without_cookies_ends_on_a_page() {
    let rig = Rig::new().await;
    let site = rig.site_with(|login| login.lenient(true).unwrap()).await;
    let url = format!("{}/me", site.url);
    assert_eq!(
        rounds_until_told(&rig, &Browser::new(), &url, true).await,
        11
    );
}
