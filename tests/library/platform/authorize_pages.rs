//! The pages on which owners authorize a platform, over real HTTP.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::Method;
use tower_wechat::ErrorKind;
use tower_wechat::credential::AppId;
use tower_wechat::platform::AuthorizedAccount;
use tower_wechat::simulator::{Fault, SimulatedPush};

use super::harness::{COMPONENT, CREATE, CUSTOMER, Links, QUERY, SHOP, World};
use crate::support::browser::Browser;

const DESKTOP: &str =
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/130.0.0.0";

#[tokio::test]
async fn the_page_links_to_wechat_with_a_code_of_its_own() {
    let world = World::with(Ok).await;
    let phone = world.links(&Browser::new(), "").await;
    let desktop = Browser::new().with_header("user-agent", DESKTOP);
    let computer = world.links(&desktop, "").await;
    let paths = |links: &Links| -> Vec<String> {
        let urls = links.urls();
        let path = |url: &String| url::Url::parse(url).unwrap().path().to_owned();
        urls.iter().map(path).collect()
    };
    let (on_phone, on_computer) = ("/wxaopen/safe/bindcomponent", "/cgi-bin/componentloginpage");
    assert_eq!(paths(&phone), [on_phone, on_computer]);
    assert!(phone.urls()[0].ends_with("#wechat_redirect"));
    assert_eq!(paths(&computer), [on_computer, on_phone]);

    assert_ne!(
        phone.parameter("pre_auth_code"),
        computer.parameter("pre_auth_code")
    );
    assert_eq!(world.sim.calls_to(CREATE), 2);
    assert_eq!(phone.parameter("component_appid"), COMPONENT);
    assert_eq!(phone.parameter("auth_type"), "1");
    let return_url = format!("{}/wechat/authorized/", world.url);
    assert!(phone.parameter("redirect_uri").starts_with(&return_url));

    let page = &phone.0;
    // The code lives for 30 minutes.
    assert!(
        page.text
            .contains("http-equiv=\"refresh\" content=\"1680\""),
        "{}",
        page.text
    );
    for (header, value) in [
        ("content-type", "text/html; charset=utf-8"),
        ("cache-control", "no-store"),
        ("referrer-policy", "origin"),
        ("vary", "user-agent"),
        ("x-frame-options", "DENY"),
        ("x-content-type-options", "nosniff"),
    ] {
        assert_eq!(page.header(header), Some(value));
    }
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"));
}

#[tokio::test]
async fn settings_choose_the_offered_accounts() {
    let only = AppId::new(SHOP).unwrap();
    let world = World::with(|pages| Ok(pages.auth_type(3).only_account(only))).await;
    let links = world.links(&Browser::new(), "").await;
    assert_eq!(links.parameter("auth_type"), "3");
    assert_eq!(links.parameter("biz_appid"), SHOP);
}

#[tokio::test]
async fn heads_and_other_methods_fetch_no_code() {
    let world = World::with(Ok).await;
    let browser = Browser::new();
    let page = format!("{}/wechat/authorize", world.url);
    let back = world.agree(&world.links(&browser, "").await).await;
    world.is_authorized(SHOP).await;
    world.sim.reset_calls();
    for url in [&page, &back] {
        let head = browser.send(Method::HEAD, url, &[]).await.unwrap();
        assert_eq!((head.status, &*head.text), (200, ""));
        assert_eq!(head.header("cache-control"), Some("no-store"));
        for method in [Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS] {
            let reply = browser.send(method, url, &[]).await.unwrap();
            assert_eq!(reply.status, 405);
            assert_eq!(reply.header("allow"), Some("GET, HEAD"));
        }
    }
    assert_eq!(
        (world.sim.calls_to(CREATE), world.sim.calls_to(QUERY)),
        (0, 0)
    );
}

#[tokio::test]
async fn a_platform_without_a_ticket_is_starting() {
    let mut world = World::start().await;
    let pages = world.pages();
    // The simulator pushes a ticket as soon as it is asked for one, and nobody answers here.
    let _wechat = world.wechat.clone().push_url("http://127.0.0.1:1/push");
    world.serve(pages);
    let browser = Browser::new();
    let page = format!("{}/wechat/authorize", world.url);
    let reply = browser.visit(&page).await;
    reply.is_page(503, "正在启动");
    assert!(reply.text.contains("platform_starting"), "{}", reply.text);
    let seconds: u64 = reply.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=600).contains(&seconds), "{seconds}");
    let script = browser.fetch(&page).await;
    script.is_error(503, "platform_starting");
    assert!(script.header("retry-after").is_some());
    assert_eq!(world.sim.calls_to(CREATE), 0);

    let _wechat = world.wechat.clone().push_url(format!("{}/push", world.url));
    world.push_ticket().await;
    world.links(&browser, "").await;
}

#[tokio::test]
async fn return_and_event_are_one_exchange() {
    let world = World::with(Ok).await;
    let browser = Browser::new();
    // The event comes first, so that the return finds its outcome.
    let back = world.agree(&world.links(&browser, "").await).await;
    let first = browser.visit(&back).await;
    first.is_page(200, "授权成功");
    assert!(first.text.contains(SHOP), "{}", first.text);
    assert_eq!(first.header("referrer-policy"), Some("no-referrer"));
    // A reload, and the return at another process or in another browser.
    for _ in 0..2 {
        let again = Browser::new().visit(&back).await;
        assert_eq!((again.status, again.text), (200, first.text.clone()));
    }
    world.is_authorized(SHOP).await;
    assert_eq!(world.sim.calls_to(QUERY), 1);
}

#[tokio::test]
async fn two_codes_of_one_page_are_one_exchange() {
    let world = World::with(Ok).await;
    world.wechat.separate_codes(true);
    let browser = Browser::new();
    let back = world.agree(&world.links(&browser, "").await).await;
    browser.visit(&back).await.is_page(200, SHOP);
    assert_eq!(world.sim.calls_to(QUERY), 1);
}

#[tokio::test]
async fn a_return_without_its_event_authorizes() {
    let world = World::with(Ok).await;
    world.wechat.lose_events(true);
    let browser = Browser::new();
    let back = world.agree(&world.links(&browser, "").await).await;
    let (one, two) = tokio::join!(browser.visit(&back), browser.visit(&back));
    for reply in [one, two] {
        reply.is_page(200, SHOP);
    }
    world.is_authorized(SHOP).await;
    assert_eq!(world.sim.calls_to(QUERY), 1);
    // The event comes late, and changes nothing.
    let pushed = world
        .wechat
        .push(SimulatedPush::authorized(SHOP))
        .await
        .unwrap();
    assert!(pushed[0].is_success(), "{pushed:?}");
    world.is_authorized(SHOP).await;
}

#[tokio::test]
async fn returns_with_other_states_spend_nothing() {
    let world = World::with(Ok).await;
    world.wechat.lose_events(true);
    let browser = Browser::new();
    let back = world.agree(&world.links(&browser, "").await).await;
    let (before, query) = back.split_once('?').unwrap();
    let state = before.rsplit('/').next().unwrap();
    // A state of the same application at another return URL, and one with other keys.
    let foreign = World::with(Ok).await;
    let foreign = foreign.links(&browser, "").await.parameter("redirect_uri");
    let foreign = foreign.rsplit('/').next().unwrap();
    let mut changed = state.to_owned();
    changed.replace_range(
        10..11,
        if state.as_bytes()[10] == b'A' {
            "B"
        } else {
            "A"
        },
    );
    for other in [
        &changed,
        foreign,
        "",
        "x",
        &state[1..],
        &"A".repeat(5_000),
        "%00",
        "../x",
    ] {
        let reply = browser
            .visit(&format!("{}/wechat/authorized/{other}?{query}", world.url))
            .await;
        match other {
            // The client resolves the dots, so that this is another page.
            "../x" => assert_eq!(reply.status, 200),
            _ => {
                reply.is_page(400, "授权未完成");
                assert!(!reply.text.contains("queryauthcode"), "{}", reply.text);
            }
        }
    }
    let script = browser
        .fetch(&format!(
            "{}/wechat/authorized/{changed}?{query}",
            world.url
        ))
        .await;
    script.is_error(400, "invalid_state");
    // Returns without a usable code.
    for query in [
        "",
        "auth_code=",
        "auth_code=a&auth_code=b",
        "auth_code=%20%0a",
        "code=a",
    ] {
        let reply = browser.visit(&format!("{before}?{query}")).await;
        assert_eq!(reply.status, 400, "{query}");
    }
    assert_eq!(world.sim.calls_to(QUERY), 0);
    // The state that was not changed is still valid, until it expires.
    browser.visit(&back).await.is_page(200, SHOP);
    world.clock.advance(Duration::from_secs(2 * 3_600));
    browser.visit(&back).await.is_page(400, "已过期");
    assert_eq!(world.sim.calls_to(QUERY), 1);
}

#[tokio::test]
async fn a_code_that_wechat_refuses_is_a_page() {
    let world = World::with(Ok).await;
    let browser = Browser::new();
    let back = world.links(&browser, "").await.parameter("redirect_uri");
    let reply = browser
        .visit(&format!(
            "{back}?auth_code=queryauthcode@@@invented&expires_in=3600"
        ))
        .await;
    reply.is_page(400, "微信未接受");
    browser
        .fetch(&format!("{back}?auth_code=other"))
        .await
        .is_error(400, "bad_request");
}

/// An owner goes back to the open page, and authorizes another account from it.
#[tokio::test]
async fn a_second_account_of_one_page_is_exchanged_too() {
    const CLUB: &str = "wx0123456789abcde0";
    let world = World::with(Ok).await;
    world.sim.add_account(CLUB, "secret");
    world.wechat.lose_events(true);
    let browser = Browser::new();
    let first = world.agree(&world.links(&browser, "").await).await;
    browser.visit(&first).await.is_page(200, SHOP);
    let page = first.split_once('?').unwrap().0;
    let code = world.wechat.authorize(CLUB).unwrap();
    let second = format!("{page}?auth_code={code}&expires_in=3600");
    for _ in 0..2 {
        browser.visit(&second).await.is_page(200, CLUB);
    }
    assert_eq!(world.sim.calls_to(QUERY), 2);
    world.is_authorized(CLUB).await;
    world.is_authorized(SHOP).await;
}

#[tokio::test]
async fn a_failed_exchange_is_repeated_by_a_reload() {
    let world = World::with(Ok).await;
    world.wechat.lose_events(true);
    let browser = Browser::new();
    let back = world.agree(&world.links(&browser, "").await).await;
    world.sim.inject(Fault::on(QUERY).status(502).times(8));
    let reply = browser.visit(&back).await;
    reply.is_page(503, "微信暂时没有响应");
    assert!(reply.header("retry-after").is_some() && reply.text.contains("<a href=\"\">"));
    world.sim.clear_faults();
    browser.visit(&back).await.is_page(200, SHOP);
}

/// The calls of a hook: the account and the customer.
type Linked = Arc<Mutex<Vec<(String, Option<String>)>>>;

fn linking(
    linked: &Linked,
) -> impl Fn(AuthorizedAccount) -> std::future::Ready<Result<(), std::io::Error>> + use<> {
    let linked = Arc::clone(linked);
    move |account| {
        let customer = account.customer().map(str::to_owned);
        let entry = (account.app_id().as_str().to_owned(), customer);
        linked.lock().unwrap().push(entry);
        std::future::ready(Ok(()))
    }
}

#[tokio::test]
async fn the_customer_comes_back_to_the_hook_and_the_next_page() {
    let linked = Linked::default();
    let hook = linking(&linked);
    let world =
        World::with(|pages| pages.on_authorized(hook).redirect_to("/connected?tab=1")).await;
    let browser = Browser::new();
    for (query, customer) in [
        ("", None),
        ("?for=", None),
        ("?for=%E5%AE%A2+4%262", Some("客 4&2")),
    ] {
        let back = world.agree(&world.links(&browser, query).await).await;
        let reply = browser.visit(&back).await;
        assert_eq!(reply.status, 303, "{}", reply.text);
        let location = reply.location().unwrap();
        let pairs: Vec<_> = location.query_pairs().into_owned().collect();
        let mut expected = vec![("tab", "1"), ("appid", SHOP)];
        expected.extend(customer.map(|customer| ("for", customer)));
        let pairs: Vec<_> = pairs
            .iter()
            .map(|(name, value)| (&**name, &**value))
            .collect();
        assert_eq!((location.path(), pairs), ("/connected", expected));
        assert_eq!(reply.header("referrer-policy"), Some("no-referrer"));
        let last = linked.lock().unwrap().last().cloned();
        assert_eq!(last, Some((SHOP.to_owned(), customer.map(str::to_owned))));
    }
    let long = "x".repeat(129);
    for query in ["?for=a&for=b", "?for=%00", &format!("?for={long}")] {
        let reply = browser
            .visit(&format!("{}/wechat/authorize{query}", world.url))
            .await;
        reply.is_page(400, "请求无效");
    }
}

/// A customer sends the link of a page to the owner of another account.
#[tokio::test]
async fn a_guard_keeps_customers_apart() {
    let linked = Linked::default();
    let hook = linking(&linked);
    let world = World::with(|pages| Ok(pages.on_authorized(hook))).await;
    world.wechat.lose_events(true);
    let browser = |customer| Browser::new().with_header(CUSTOMER, customer);
    let (ada, eve) = (browser("ada"), browser("eve"));
    // The guard's customer counts, and not the query.
    let back = world.agree(&world.links(&eve, "?for=ada").await).await;
    ada.visit(&back).await.is_page(400, "授权未完成");
    ada.fetch(&back).await.is_error(400, "invalid_state");
    // A guard around the links only would let everyone else return as nobody.
    Browser::new().visit(&back).await.is_page(400, "授权未完成");
    assert_eq!(world.sim.calls_to(QUERY), 0);
    eve.visit(&back).await.is_page(200, SHOP);
    assert_eq!(
        *linked.lock().unwrap(),
        [(SHOP.to_owned(), Some("eve".to_owned()))]
    );
    // A state without a customer is not that of a signed-in one.
    let back = world.agree(&world.links(&Browser::new(), "").await).await;
    ada.visit(&back).await.is_page(400, "授权未完成");
}

#[tokio::test]
async fn a_failed_hook_runs_again() {
    let runs = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&runs);
    let world = World::with(|pages| {
        Ok(pages.on_authorized(move |_| {
            let run = counted.fetch_add(1, Ordering::Relaxed);
            async move {
                match run {
                    0 => Err(std::io::Error::other("no row")),
                    1 => panic!("out of rows"),
                    _ => Ok(()),
                }
            }
        }))
    })
    .await;
    let browser = Browser::new();
    let back = world.agree(&world.links(&browser, "").await).await;
    for _ in 0..2 {
        let reply = browser.visit(&back).await;
        reply.is_page(503, "服务暂时不可用");
        // The store is well, and its code would lead an operator to it.
        assert!(reply.text.contains("application"), "{}", reply.text);
        assert!(!reply.text.contains("store_"), "{}", reply.text);
        assert!(!reply.text.contains("row"), "{}", reply.text);
    }
    browser.visit(&back).await.is_page(200, SHOP);
    assert_eq!(
        (runs.load(Ordering::Relaxed), world.sim.calls_to(QUERY)),
        (3, 1)
    );
}

#[tokio::test]
async fn nothing_of_a_request_is_unescaped() {
    let world = World::with(Ok).await;
    let browser = Browser::new();
    let evil = "%22%3E%3Cscript%3Ealert(1)%3C/script%3E";
    let links = world
        .links(&browser, &format!("?for={evil}&x={evil}"))
        .await;
    let back = world.agree(&links).await;
    for reply in [
        links.0.clone(),
        browser.visit(&format!("{back}&x={evil}")).await,
        browser
            .visit(&format!(
                "{}/wechat/authorized/{evil}?auth_code={evil}",
                world.url
            ))
            .await,
    ] {
        assert!(!reply.text.contains("<script"), "{}", reply.text);
    }
}

#[tokio::test]
async fn unusable_urls_fail_at_once() {
    let world = World::start().await;
    for url in [
        "",
        "h5.example.com/a",
        "https://h5.example.com",
        "https://h5.example.com/a?b",
    ] {
        let error = world
            .platform
            .authorize_pages(url, &world.keys)
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration, "{url}");
    }
    let error = world.pages().redirect_to("//evil.example").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration);
    let shown = format!("{:?}", world.pages());
    assert!(shown.contains("/wechat/authorized"), "{shown}");
}

#[tokio::test]
async fn the_number_of_pages_is_limited() {
    let world = World::with(|pages| Ok(pages.max_pages(3))).await;
    let browser = Browser::new();
    for _ in 0..3 {
        world.links(&browser, "").await;
    }
    let page = format!("{}/wechat/authorize", world.url);
    for _ in 0..20 {
        let reply = browser.visit(&page).await;
        reply.is_page(429, "访问过于频繁");
        assert_eq!(reply.header("retry-after"), Some("60"));
    }
    let reply = browser.fetch(&page).await;
    reply.is_error(429, "wechat_unavailable");
    assert_eq!(world.sim.calls_to(CREATE), 3);
}

/// A quota that WeChat has spent is not asked for by each page.
#[tokio::test]
async fn refused_codes_are_requested_again_later() {
    let world = World::with(Ok).await;
    let browser = Browser::new();
    let page = format!("{}/wechat/authorize", world.url);
    for errcode in [45009, 45011, 61004] {
        world.sim.reset_calls();
        world.sim.inject(Fault::on(CREATE).errcode(errcode));
        for _ in 0..20 {
            let reply = browser.visit(&page).await;
            assert_eq!(reply.status, 503, "{errcode}: {}", reply.text);
        }
        let calls = world.sim.calls_to(CREATE);
        assert!((1..=2).contains(&calls), "{errcode}: {calls} calls");
        world.sim.clear_faults();
        world.clock.advance(Duration::from_secs(61));
        world.links(&browser, "").await;
    }
}
