//! Tests of attacks: used and forged codes, loops, many cookies, and sessions that must not come
//! back after a logout.

use std::time::Duration;

use axum::Router;
use axum::routing::get;
use tower_wechat::simulator::{Fault, SimulatedUser};
use tower_wechat::{Policy, Scope, UserId, WechatUser};

use super::harness::{ALICE, EXCHANGE, Harness, pages};
use crate::support::browser::{Browser, Reply, SESSION};
use crate::support::free_port;
use crate::support::nginx::Nginx;

fn query(url: &str, name: &str) -> String {
    let url = url::Url::parse(url).unwrap();
    let (_, value) = url.query_pairs().find(|(known, _)| known == name).unwrap();
    value.into_owned()
}

/// Opens a page and follows redirects to the end. Returns the last response.
async fn followed(browser: &Browser, url: &str) -> Reply {
    let mut reply = browser.visit(url).await;
    for _ in 0..60 {
        let Some(next) = reply.location() else {
            return reply;
        };
        reply = browser.visit(next.as_str()).await;
    }
    panic!("60 redirects and no end");
}

/// A code in a browser's history or in an access log is of no use in another login.
#[tokio::test]
async fn a_used_code_is_rejected_in_another_login() {
    let harness = Harness::with_redis().await;
    harness
        .sim
        .add_user(SimulatedUser::new("oVictim0000000000000000000"));
    let site = harness.site().await;
    let me = format!("{}/me", site.url);
    let victim = Browser::new();
    let callback = victim.callback_of(&me).await;
    victim.open(&callback).await;
    let thief = Browser::new();
    let sent = thief.visit(&me).await;
    let state = query(sent.header("location").unwrap(), "state");
    let code = query(&callback, "code");
    harness.advance(Duration::from_secs(300));
    let forged = format!("{}/wechat/callback?code={code}&state={state}", site.url);
    let reply = thief.fetch(&forged).await;
    reply.is_error(400, "invalid_state");
    thief.fetch(&me).await.is_error(401, "login_required");
    assert_eq!(harness.exchanges(), 1);
}

/// With one state, at most two forged codes are submitted to WeChat. Further ones get a 429.
#[tokio::test]
async fn one_login_cannot_submit_unlimited_codes() {
    let harness = Harness::with_redis().await;
    let site = harness.site().await;
    let browser = Browser::new();
    let sent = browser.visit(&format!("{}/me", site.url)).await;
    let state = query(sent.header("location").unwrap(), "state");
    let mut rejected = 0;
    for code in 0..30 {
        let forged = format!(
            "{}/wechat/callback?code=made-up-{code}&state={state}",
            site.url
        );
        // Each copy has the cookies from before the first callback, so that the retries in its
        // history do not grow.
        let reply = browser.copy().visit(&forged).await;
        rejected += usize::from(reply.status == 429);
    }
    assert_eq!((harness.exchanges(), rejected), (2, 28));
    let honest = Browser::new().open(&format!("{}/me", site.url)).await;
    assert_eq!(honest.status, 200, "other users can log in");
}

/// Thirty forged codes with one state, sent to three processes, cause two calls to WeChat. Each key
/// in Redis expires within a minute.
#[tokio::test]
async fn forged_codes_cost_two_calls_for_all_processes() {
    let harness = Harness::with_redis().await;
    let sites = harness.cluster(3).await;
    let browser = Browser::new();
    let sent = browser.visit(&format!("{}/me", sites[0].url)).await;
    let state = query(sent.header("location").unwrap(), "state");
    for code in 0..30 {
        let site = &sites[code % sites.len()];
        let forged = format!(
            "{}/wechat/callback?code=none-{code}&state={state}",
            site.url
        );
        browser.copy().visit(&forged).await;
    }
    assert_eq!(harness.exchanges(), 2);
    let mut redis = harness.redis.as_ref().unwrap().connection();
    let keys: Vec<String> = redis::cmd("KEYS").arg("*").query(&mut redis).unwrap();
    assert!(!keys.is_empty());
    for key in keys {
        let left: i64 = redis::cmd("PTTL").arg(&key).query(&mut redis).unwrap();
        assert!((1..=60_000).contains(&left), "{key} for {left} ms");
    }
}

/// A callback arrives without the cookie of its login, or too late. The code of such a callback is
/// of no use in another login.
async fn rejected_codes_work_for_no_other_user(harness: Harness, expired: bool) {
    harness
        .sim
        .add_user(SimulatedUser::new("oVictim0000000000000000000"));
    let sites = harness.cluster(2).await;
    let me = format!("{}/me", sites[0].url);
    let victim = Browser::new();
    let callback = victim.callback_of(&me).await;
    let thief = Browser::new();
    if expired {
        // The state has expired, and the code may still be valid.
        harness.clock.advance(Duration::from_secs(600));
        victim.visit(&callback).await.is_page(400, "登录已过期");
    } else {
        Browser::new()
            .fetch(&callback)
            .await
            .is_error(400, "invalid_state");
    }
    let sent = thief.visit(&me).await;
    let state = query(sent.header("location").unwrap(), "state");
    let code = query(&callback, "code");
    for site in &sites {
        let forged = format!("{}/wechat/callback?code={code}&state={state}", site.url);
        thief.fetch(&forged).await.is_error(400, "invalid_state");
        thief.fetch(&me).await.is_error(401, "login_required");
    }
    assert_eq!(harness.exchanges(), 0);
    if !expired {
        // The intended user can still use the code.
        let landed = victim.open(&callback).await;
        assert_eq!(landed.json()["id"], "oVictim0000000000000000000");
        assert_eq!(harness.exchanges(), 1);
    }
}

#[tokio::test]
async fn a_code_without_its_cookie_is_used_up() {
    rejected_codes_work_for_no_other_user(Harness::new().await, false).await;
    rejected_codes_work_for_no_other_user(Harness::with_redis().await, false).await;
}

#[tokio::test]
async fn a_code_with_an_expired_state_is_used_up() {
    rejected_codes_work_for_no_other_user(Harness::with_redis().await, true).await;
}

/// A second code for a finished login is not exchanged, and is of no use in another login.
#[tokio::test]
async fn a_code_of_a_logged_in_user_is_used_up() {
    let harness = Harness::with_redis().await;
    let site = harness.site().await;
    let me = format!("{}/me", site.url);
    let victim = Browser::new();
    let first = victim.visit(&me).await.location().unwrap();
    let authorize = first.to_string();
    let [callback, second] = [
        victim.callback_of(&authorize).await,
        victim.callback_of(&authorize).await,
    ];
    victim.open(&callback).await;
    assert_eq!(victim.visit(&second).await.status, 302);
    let thief = Browser::new();
    let sent = thief.visit(&me).await;
    let state = query(sent.header("location").unwrap(), "state");
    let code = query(&second, "code");
    let forged = format!("{}/wechat/callback?code={code}&state={state}", site.url);
    thief.fetch(&forged).await.is_error(400, "invalid_state");
    assert_eq!(harness.exchanges(), 1);
}

/// A proxy sends the callback to another page, whose access log contains the code. The code is of
/// no use in another login.
#[tokio::test]
async fn a_code_at_a_wrong_path_is_used_up() {
    let harness = Harness::with_redis().await;
    let site = harness.site().await;
    let me = format!("{}/me", site.url);
    let victim = Browser::new();
    let authorize = victim.visit(&me).await.location().unwrap().to_string();
    let callback = victim.callback_of(&authorize).await;
    let elsewhere = callback.replace("/wechat/callback", "/me");
    assert_eq!(Browser::new().visit(&elsewhere).await.status, 400);

    let thief = Browser::new();
    let sent = thief.visit(&me).await;
    let state = query(sent.header("location").unwrap(), "state");
    let code = query(&callback, "code");
    let forged = format!("{}/wechat/callback?code={code}&state={state}", site.url);
    thief.fetch(&forged).await.is_error(400, "invalid_state");
    // The browser that began the login can still use the code.
    assert_eq!(victim.visit(&callback).await.status, 302);
    assert_eq!(harness.exchanges(), 1);
}

/// 600 copies of a callback with a forged code arrive during its exchange. All copies together
/// cause one call.
#[tokio::test]
async fn copies_of_one_callback_count_once() {
    let harness = Harness::with_redis().await;
    let site = harness.site().await;
    let me = format!("{}/me", site.url);
    harness.sim.inject(
        Fault::on(EXCHANGE)
            .delay(Duration::from_millis(500))
            .times(1),
    );
    let anonymous = Browser::new();
    let sent = anonymous.visit(&me).await;
    let state = query(sent.header("location").unwrap(), "state");
    let forged = format!("{}/wechat/callback?code=none&state={state}", site.url);
    let mut copies = tokio::task::JoinSet::new();
    for _ in 0..600 {
        let (forged, copy) = (forged.clone(), anonymous.copy());
        copies.spawn(async move { copy.visit(&forged).await.status });
    }
    // Another user's login does not wait for the exchange that is in progress.
    let honest = Browser::new().open(&me).await;
    assert_eq!(honest.status, 200);
    let statuses = copies.join_all().await;
    assert!(statuses.iter().all(|status| *status == 302), "{statuses:?}");
    assert_eq!(
        harness.exchanges(),
        2,
        "one for the copies, one for the honest"
    );
}

#[tokio::test]
async fn our_pages_are_not_framed() {
    let harness = Harness::new().await;
    let site = harness.site().await;
    let page = Browser::new()
        .visit(&format!("{}/wechat/callback?state=x&code=y", site.url))
        .await;
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.contains("frame-ancestors 'none'"), "{policy}");
}

#[tokio::test]
async fn a_renewed_session_does_not_undo_a_logout() {
    let harness = Harness::new().await;
    let site = harness.site().await;
    let browser = Browser::new();
    browser.open(&format!("{}/me", site.url)).await;
    harness.advance(Duration::from_secs(16 * 86_400));
    let out = browser.post(&format!("{}/logout", site.url)).await;
    assert_eq!(out.status, 204);
    assert_eq!(browser.cookie(SESSION), None);
}

#[tokio::test]
async fn a_callback_in_the_history_does_not_undo_a_logout() {
    let harness = Harness::new().await;
    let site = harness.site().await;
    let browser = Browser::new();
    let callback = browser.callback_of(&format!("{}/me", site.url)).await;
    browser.open(&callback).await;
    browser.post(&format!("{}/logout", site.url)).await;
    let reply = browser.visit(&callback).await;
    // The callback starts a new login, and does not issue a session for its former result.
    assert!(
        reply
            .header("location")
            .unwrap()
            .contains("/connect/oauth2/authorize")
    );
    assert_eq!(browser.cookie(SESSION), None);
}

/// The session is valid, the user's tokens are deleted, and WeChat rejects each code. The login
/// ends on a page.
#[tokio::test]
async fn rejected_codes_cause_no_loop_without_tokens() {
    let harness = Harness::new().await;
    let site = harness.site().await;
    let me = format!("{}/me", site.url);
    let browser = Browser::new();
    browser.open(&me).await;
    site.users
        .revoke(&UserId::new(ALICE).unwrap())
        .await
        .unwrap();
    harness.sim.inject(Fault::on(EXCHANGE).errcode(40029));
    followed(&browser, &me).await.is_page(429, "登录过于频繁");
    assert!(
        harness.exchanges() <= 6,
        "{} exchanges",
        harness.exchanges()
    );
}

#[tokio::test]
async fn rejected_codes_cause_no_loop_with_a_missing_scope() {
    let harness = Harness::new().await;
    let site = harness.site_with(|login| login.scope(Scope::Base)).await;
    let browser = Browser::new();
    browser.open(&format!("{}/me", site.url)).await;
    harness.sim.inject(Fault::on(EXCHANGE).errcode(40029));
    let profile = format!("{}/profile", site.url);
    followed(&browser, &profile)
        .await
        .is_page(429, "登录过于频繁");
    assert!(
        harness.exchanges() <= 6,
        "{} exchanges",
        harness.exchanges()
    );
}

#[tokio::test]
async fn many_unfinished_logins_all_work() {
    let harness = Harness::new().await;
    let site = harness.site().await;
    let me = format!("{}/me", site.url);
    let (mut cookies, mut callback) = (Vec::new(), String::new());
    // The cookies of 40 unfinished logins in one header, the oldest first, as a browser sends them.
    for _ in 0..40 {
        let tab = Browser::new();
        callback = tab.callback_of(&me).await;
        let named = tab.cookie_names().into_iter();
        cookies.extend(named.map(|name| format!("{name}={}", tab.cookie(&name).unwrap())));
    }
    let cookies = cookies.join("; ");
    let headers = [("accept", "text/html"), ("cookie", cookies.as_str())];
    let reply = Browser::new()
        .send(http::Method::GET, &callback, &headers)
        .await
        .unwrap();
    assert_eq!(reply.status, 302, "{}", reply.text);
}

#[tokio::test]
async fn nested_routes_return_to_the_whole_path() {
    async fn card(user: WechatUser) -> String {
        user.id().to_owned()
    }
    let harness = Harness::new().await;
    let site = harness
        .mounted(
            |login| login.scope(Scope::Base),
            |layer, login| {
                let layer = layer.login(login);
                let shop = Router::new()
                    .route("/card", get(card))
                    .route_layer(layer.clone().require_scope(Scope::UserInfo));
                Router::new().nest("/shop", shop).layer(layer)
            },
        )
        .await;
    let landed = Browser::new()
        .open(&format!("{}/shop/card?a=b", site.url))
        .await;
    assert_eq!((landed.status, landed.url.path()), (200, "/shop/card"));
}

#[tokio::test]
async fn no_cacheable_response_renews_a_session() {
    let harness = Harness::new().await;
    let logo = async || ([("cache-control", "max-age=86400")], "<svg/>");
    let site = harness
        .mounted(
            |login| login,
            |layer, login| {
                pages()
                    .route("/logo.svg", get(logo))
                    .layer(layer.login(login))
            },
        )
        .await;
    let browser = Browser::new();
    browser.open(&format!("{}/me", site.url)).await;
    harness.advance(Duration::from_secs(16 * 86_400));
    let logo = browser.fetch(&format!("{}/logo.svg", site.url)).await;
    assert!(logo.cookies().is_empty());
}

/// The gateway caches pages that have a `Set-Cookie` header. A page with a renewed session must not
/// be sent to another client.
#[tokio::test]
async fn a_gateways_cache_stores_no_session() {
    let harness = Harness::new().await;
    let page = |user: Option<WechatUser>| async move {
        let greeting = user.map_or_else(|| "anonymous".to_owned(), |user| user.id().to_owned());
        (
            [("last-modified", "Thu, 01 Jan 2015 00:00:00 GMT")],
            greeting,
        )
    };
    let site = harness
        .mounted(
            |login| login,
            |layer, login| {
                pages()
                    .route("/page", get(page))
                    .layer(layer.policy(Policy::Optional).login(login))
            },
        )
        .await;
    let address = format!("127.0.0.1:{}", free_port());
    let cache = "  proxy_cache_path FOLDER/cache keys_zone=pages:1m;\n";
    let server = format!(
        "location / {{ proxy_pass {}; proxy_cache pages; proxy_cache_valid 200 10m; \
         proxy_ignore_headers Set-Cookie; add_header x-cache $upstream_cache_status; }}",
        site.url
    );
    let _nginx = Nginx::with(&address, cache, &server);
    let browser = Browser::new();
    browser.open(&format!("{}/me", site.url)).await;
    harness.advance(Duration::from_secs(16 * 86_400));
    let before = browser.cookie(SESSION);
    let url = format!("http://{address}/page");
    assert_eq!(browser.fetch(&url).await.text, ALICE);
    assert_ne!(browser.cookie(SESSION), before, "the session is renewed");
    let anonymous = Browser::new().fetch(&url).await;
    assert_eq!(
        (&*anonymous.text, anonymous.cookies()),
        ("anonymous", vec![])
    );
    // A page without a session comes from the cache.
    let again = Browser::new().fetch(&url).await;
    assert_eq!(again.header("x-cache"), Some("HIT"));
}

#[tokio::test]
async fn an_unlimited_exchange_timeout_works() {
    let harness = Harness::new().await;
    let site = harness
        .site_with(|login| login.exchange_timeout(Duration::MAX))
        .await;
    let landed = Browser::new().open(&format!("{}/me", site.url)).await;
    assert_eq!(landed.status, 200, "{}", landed.text);
}
