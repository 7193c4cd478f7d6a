//! Tests of logins while WeChat or the store fails.

use std::time::Duration;

use tower_wechat::simulator::Fault;

use super::harness::{ALICE, EXCHANGE, Harness};
use crate::support::browser::{Browser, SESSION};

#[tokio::test]
async fn a_rejected_code_restarts_the_login_once() {
    let harness = Harness::new().await;
    let site = harness.site().await;
    for errcode in [40029, 40163] {
        harness
            .sim
            .inject(Fault::on(EXCHANGE).errcode(errcode).times(1));
        let browser = Browser::new();
        let page = browser.open(&format!("{}/me?a=b", site.url)).await;
        assert_eq!(page.json()["uri"], "/me?a=b");
    }
    assert_eq!(harness.exchanges(), 4);
}

#[tokio::test]
async fn a_login_that_never_works_ends_on_a_page() {
    let harness = Harness::new().await;
    let site = harness.site().await;
    harness.sim.inject(Fault::on(EXCHANGE).errcode(40029));
    let browser = Browser::new();
    let page = browser.open(&format!("{}/me", site.url)).await;
    page.is_page(429, "登录过于频繁");
    assert_eq!(harness.exchanges(), 3, "the first try and two restarts");
    // The limit is for this browser and one minute. Another browser can log in at once.
    harness.sim.clear_faults();
    assert_eq!(
        Browser::new()
            .open(&format!("{}/me", site.url))
            .await
            .json()["id"],
        ALICE
    );
    harness.advance(Duration::from_secs(61));
    harness
        .sim
        .inject(Fault::on(EXCHANGE).errcode(40029).times(1));
    assert_eq!(
        browser.open(&format!("{}/me", site.url)).await.json()["id"],
        ALICE
    );
}

#[tokio::test]
async fn a_logged_in_user_is_not_redirected_again() {
    let harness = Harness::new().await;
    let site = harness.site().await;
    let browser = Browser::new();
    assert_eq!(
        browser.open(&format!("{}/me", site.url)).await.json()["id"],
        ALICE
    );
    let again = browser
        .callback_of(&format!("{}/wechat/login?return_to=%2Fme", site.url))
        .await;
    harness
        .sim
        .inject(Fault::on(EXCHANGE).errcode(40163).times(1));
    assert_eq!(browser.open(&again).await.json()["uri"], "/me");
    assert_eq!(harness.exchanges(), 2);
}

#[tokio::test]
async fn each_failure_has_its_page_and_status() {
    let harness = Harness::new().await;
    let site = harness.site().await;
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
        harness.sim.clear_faults();
        harness.sim.inject(fault);
        let browser = Browser::new();
        let callback = browser.callback_of(&format!("{}/me?a=b", site.url)).await;
        let page = browser.visit(&callback).await;
        page.is_page(status, chinese);
        assert_eq!(page.header("retry-after").is_some(), status == 503);
        assert_eq!(page.header("referrer-policy"), Some("no-referrer"));
        let json = browser.fetch(&callback).await;
        json.is_error(status, code);
        assert!(browser.cookie(SESSION).is_none());
    }
}

#[tokio::test]
async fn a_reload_logs_in_when_wechat_is_back() {
    let harness = Harness::new().await;
    let site = harness.site().await;
    let browser = Browser::new();
    let callback = browser.callback_of(&format!("{}/me", site.url)).await;
    harness.sim.inject(Fault::on(EXCHANGE).errcode(-1).times(1));
    let page = browser.visit(&callback).await;
    assert_eq!(page.status, 503);
    // After the time in Retry-After, the same callback logs the user in.
    let wait: u64 = page.header("retry-after").unwrap().parse().unwrap();
    harness.advance(Duration::from_secs(wait));
    assert_eq!(browser.open(&callback).await.json()["id"], ALICE);
}

/// Redis expires the stored failure by its own clock, after the time in Retry-After.
#[tokio::test]
async fn a_login_works_after_the_time_in_retry_after() {
    let harness = Harness::with_redis().await;
    let site = harness.site().await;
    let browser = Browser::new();
    let callback = browser.callback_of(&format!("{}/me", site.url)).await;
    harness.sim.inject(Fault::on(EXCHANGE).errcode(-1).times(1));
    let failed = browser.fetch(&callback).await;
    failed.is_error(503, "wechat_unavailable");
    let wait: u64 = failed.header("retry-after").unwrap().parse().unwrap();
    tokio::time::sleep(Duration::from_secs(wait)).await;
    assert_eq!(browser.open(&callback).await.json()["id"], ALICE);
    assert_eq!(harness.exchanges(), 2);
}

#[tokio::test]
async fn no_code_is_used_up_without_a_store() {
    let mut harness = Harness::with_redis().await;
    let site = harness.site().await;
    let browser = Browser::new();
    let callback = browser.callback_of(&format!("{}/me", site.url)).await;
    harness.redis.as_mut().unwrap().kill();
    browser
        .visit(&callback)
        .await
        .is_page(503, "服务暂时不可用");
    browser
        .fetch(&callback)
        .await
        .is_error(503, "store_unavailable");
    assert_eq!(harness.exchanges(), 0);
    harness.redis.as_mut().unwrap().run();
    crate::support::eventually(
        "the login works again",
        Duration::from_secs(8),
        async || browser.visit(&callback).await.status == 302,
    )
    .await;
    assert_eq!(harness.exchanges(), 1);
}

#[tokio::test]
async fn a_slow_exchange_continues_after_its_timeout() {
    let harness = Harness::new().await;
    let site = harness
        .site_with(|login| login.exchange_timeout(Duration::from_millis(300)))
        .await;
    let browser = Browser::new();
    let callback = browser.callback_of(&format!("{}/me", site.url)).await;
    harness.sim.inject(
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
    assert_eq!(harness.exchanges(), 1);
}

#[tokio::test]
async fn page_loads_get_pages_while_the_store_is_away() {
    let mut harness = Harness::with_redis().await;
    let site = harness.site().await;
    let browser = Browser::new();
    assert_eq!(
        browser.open(&format!("{}/me", site.url)).await.json()["id"],
        ALICE
    );
    let other = harness.cluster(1).await.remove(0);
    harness.redis.as_mut().unwrap().kill();
    // This process has not cached the user's token.
    let page = browser.visit(&format!("{}/me", other.url)).await;
    page.is_page(503, "服务暂时不可用");
    assert!(page.header("retry-after").is_some());
    browser
        .fetch(&format!("{}/me", other.url))
        .await
        .is_error(503, "store_unavailable");
}

/// Follows redirects until a page with this title and status 429 ends the loop. Drops the cookies
/// that `loses` selects before each request. Returns the number of exchanges.
async fn logins_until_page(
    harness: &Harness,
    browser: &Browser,
    url: &str,
    loses: impl Fn(&str) -> bool,
    title: &str,
) -> u64 {
    let before = harness.exchanges();
    let mut reply = browser.visit(url).await;
    for _ in 0..200 {
        let Some(next) = reply.location() else {
            reply.is_page(429, title);
            return harness.exchanges() - before;
        };
        browser.drop_cookies(&loses);
        reply = browser.visit(next.as_str()).await;
    }
    panic!("an endless loop");
}

const NO_EFFECT: &str = "登录没有生效";
const TOO_OFTEN: &str = "登录过于频繁";

#[tokio::test]
async fn logins_without_effect_end_after_three() {
    let harness = Harness::new().await;
    // The gateway sends no user, so that a login has no effect.
    let header = tower_wechat::TrustedHeader::new("x-user").unwrap();
    let site = harness
        .mounted(
            |login| login,
            |layer, login| super::harness::pages().layer(layer.login(login).identity(header)),
        )
        .await;
    let (url, none) = (format!("{}/me", site.url), |_: &str| false);
    let browser = Browser::new();
    let logins = logins_until_page(&harness, &browser, &url, none, NO_EFFECT).await;
    assert_eq!(logins, 3);
    // After a minute the browser may log in again, and the gateway sends a user.
    harness.advance(Duration::from_secs(61));
    assert_eq!(browser.visit(&url).await.status, 302);
    let named = [("x-user", ALICE), ("accept", "text/html")];
    let page = browser.send(http::Method::GET, &url, &named).await.unwrap();
    assert_eq!(page.json()["id"], ALICE);
}

#[tokio::test]
async fn a_handler_that_repeats_a_login_causes_no_loop() {
    let harness = Harness::new().await;
    let revoke = async |user: tower_wechat::WechatUser| {
        user.users()
            .revoke(&tower_wechat::UserId::new(user.id())?)
            .await?;
        Ok::<_, tower_wechat::Error>(user.current().await?.user_id().to_string())
    };
    let site = harness
        .mounted(
            |login| login,
            |layer, login| {
                axum::Router::new()
                    .route("/again", axum::routing::get(revoke))
                    .layer(layer.login(login))
            },
        )
        .await;
    let (url, none) = (format!("{}/again", site.url), |_: &str| false);
    for browser in [modern(), modern().with_split_cookies()] {
        let logins = logins_until_page(&harness, &browser, &url, none, NO_EFFECT).await;
        assert_eq!(logins, 3);
    }
    let logins = logins_until_page(&harness, &Browser::new(), &url, none, TOO_OFTEN).await;
    assert_eq!(logins, 11);
}

/// Returns a browser that sends Sec-Fetch headers, as for a page load that comes from WeChat's
/// page.
fn modern() -> Browser {
    Browser::new()
        .with_header("sec-fetch-mode", "navigate")
        .with_header("sec-fetch-site", "cross-site")
}

#[tokio::test]
async fn a_lost_session_cookie_causes_no_loop() {
    let harness = Harness::new().await;
    let site = harness.site().await;
    let (url, session) = (format!("{}/me", site.url), |name: &str| name == SESSION);
    let logins = logins_until_page(&harness, &modern(), &url, session, NO_EFFECT).await;
    assert_eq!(logins, 3);
    // Without Sec-Fetch headers, the login cannot distinguish a loop from reloads, and allows more
    // of them.
    let older = Browser::new();
    let logins = logins_until_page(&harness, &older, &url, session, TOO_OFTEN).await;
    assert_eq!(logins, 11);
}

#[tokio::test]
async fn a_user_can_log_out_and_in_repeatedly() {
    let harness = Harness::new().await;
    let site = harness.site().await;
    for came_from in ["none", "same-origin", ""] {
        let browser = Browser::new().with_header("sec-fetch-site", came_from);
        let browser = match came_from {
            "" => Browser::new(),
            _ => browser.with_header("sec-fetch-mode", "navigate"),
        };
        for logout in ["logout", "logout/everywhere"] {
            for _ in 0..4 {
                let page = browser.open(&format!("{}/me", site.url)).await;
                assert_eq!(page.json()["id"], ALICE);
                let logout = format!("{}/{logout}", site.url);
                assert_eq!(browser.post(&logout).await.status, 204);
            }
        }
        // The application revokes the user's tokens, which ends all sessions. The browser keeps its
        // session cookie.
        harness.advance(Duration::from_secs(61));
        let user = tower_wechat::UserId::new(ALICE).unwrap();
        for _ in 0..8 {
            let page = browser.open(&format!("{}/me", site.url)).await;
            assert_eq!(page.json()["id"], ALICE);
            site.users.revoke(&user).await.unwrap();
        }
        // Each login finds a valid session in the browser.
        let browser = browser.copy();
        harness.advance(Duration::from_secs(61));
        for _ in 0..8 {
            let login = format!("{}/wechat/login?return_to=/me", site.url);
            assert_eq!(browser.open(&login).await.json()["id"], ALICE);
        }
    }
}

#[tokio::test]
async fn a_lenient_login_without_cookies_ends_on_a_page() {
    let harness = Harness::new().await;
    let site = harness
        .site_with(|login| login.dangerous_allow_missing_state_cookie(true))
        .await;
    let (url, all) = (format!("{}/me", site.url), |_: &str| true);
    let logins = logins_until_page(&harness, &Browser::new(), &url, all, TOO_OFTEN).await;
    assert_eq!(logins, 11);
}
