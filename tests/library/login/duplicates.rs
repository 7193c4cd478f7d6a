//! Tests of copies of one callback, by WeChat, by reloads and by prefetching servers.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tower_wechat::simulator::Fault;

use super::harness::{ALICE, EXCHANGE, Harness, Site};
use crate::support::browser::{Browser, Reply, SESSION};

/// Returns the URL of the callback at another server of the cluster.
fn at(site: &Site, callback: &str) -> String {
    let url = url::Url::parse(callback).unwrap();
    format!("{}{}?{}", site.url, url.path(), url.query().unwrap())
}

async fn copies(sites: &[Site], browser: &Browser, callback: &str, count: usize) -> Vec<Reply> {
    let mut running = JoinSet::new();
    for number in 0..count {
        let (url, browser) = (at(&sites[number % sites.len()], callback), browser.copy());
        running.spawn(async move { browser.visit(&url).await });
    }
    running.join_all().await
}

fn signed_in(reply: &Reply) -> bool {
    let session = |cookie: &&str| cookie.starts_with(&format!("{SESSION}=oAlice"));
    (reply.status, reply.header("location")) == (302, Some("/me?a=b"))
        && reply.cookies().iter().any(session)
}

async fn twenty_copies(harness: Harness) {
    let sites = harness.cluster(2).await;
    let browser = Browser::new();
    let callback = browser
        .callback_of(&format!("{}/me?a=b", sites[0].url))
        .await;
    // The exchange takes 300 ms, so that all copies arrive meanwhile.
    harness
        .sim
        .inject(Fault::on(EXCHANGE).delay(Duration::from_millis(300)));
    for reply in copies(&sites, &browser, &callback, 20).await {
        assert!(signed_in(&reply), "{reply:?}");
    }
    assert_eq!(harness.exchanges(), 1);
    harness.advance(Duration::from_secs(60));
    for reply in copies(&sites, &browser, &callback, 20).await {
        assert!(signed_in(&reply), "{reply:?}");
    }
    assert_eq!(harness.exchanges(), 1);
}

#[tokio::test]
async fn twenty_copies_on_two_servers_are_one_exchange_in_redis() {
    twenty_copies(Harness::with_redis().await).await;
}

#[tokio::test]
async fn twenty_copies_on_two_servers_are_one_exchange_in_memory() {
    twenty_copies(Harness::new().await).await;
}

#[tokio::test]
async fn the_store_keeps_hashes_of_codes_and_no_tokens() {
    let harness = Harness::with_redis().await;
    let site = harness.site().await;
    let browser = Browser::new();
    let callback = browser.callback_of(&format!("{}/me", site.url)).await;
    let code = url::Url::parse(&callback).unwrap();
    let code = code
        .query_pairs()
        .find(|(name, _)| name == "code")
        .unwrap()
        .1
        .into_owned();
    let token = browser.open(&callback).await.json()["token"]
        .as_str()
        .unwrap()
        .to_owned();

    let mut redis = harness.redis.as_ref().unwrap().connection();
    let pattern = format!("wechat:{}:code:*", harness.sim.app_id());
    let keys: Vec<String> = redis::cmd("KEYS").arg(pattern).query(&mut redis).unwrap();
    let [key] = &keys[..] else { panic!("{keys:?}") };
    let value: String = redis::cmd("GET").arg(key).query(&mut redis).unwrap();
    let ttl: i64 = redis::cmd("TTL").arg(key).query(&mut redis).unwrap();
    assert!(
        !key.contains(&code) && value.contains(ALICE) && !value.contains(&token),
        "{value}"
    );
    assert!((590..=600).contains(&ttl), "{ttl}");
}

#[tokio::test]
async fn a_prefetched_callback_uses_up_nothing() {
    let harness = Harness::new().await;
    let site = harness.site().await;
    let browser = Browser::new();
    let callback = browser.callback_of(&format!("{}/me", site.url)).await;
    let other = Browser::new();
    other.visit(&callback).await.is_page(400, "登录状态无效");
    other.fetch(&callback).await.is_error(400, "invalid_state");
    assert_eq!(harness.exchanges(), 0);
    assert_eq!(browser.open(&callback).await.json()["id"], ALICE);
    assert_eq!(harness.exchanges(), 1);

    // The simulator requests the callback before the browser does, and without cookies, as WeChat
    // does.
    harness
        .sim
        .settings(|settings| settings.callback_twice = true);
    assert_eq!(
        Browser::new()
            .open(&format!("{}/me", site.url))
            .await
            .json()["id"],
        ALICE
    );
    assert_eq!(harness.exchanges(), 2);
}

#[tokio::test]
async fn reloads_and_the_back_button_lead_to_the_page() {
    let harness = Harness::new().await;
    let site = harness.site().await;
    let browser = Browser::new();
    let callback = browser.callback_of(&format!("{}/me?a=b", site.url)).await;
    for _ in 0..15 {
        assert_eq!(browser.open(&callback).await.json()["uri"], "/me?a=b");
    }
    // Some web views send a second code for the same state. The user is already logged in and gets
    // to the page.
    let other_code = harness.sim.authorize(ALICE, "snsapi_base");
    let code = url::Url::parse(&callback).unwrap();
    let code = code
        .query_pairs()
        .find(|(name, _)| name == "code")
        .unwrap()
        .1
        .into_owned();
    let second = callback.replace(&code, &other_code);
    assert_eq!(browser.open(&second).await.json()["uri"], "/me?a=b");
    // After the session is lost, the second code is rejected.
    browser.drop_cookies(|name| name == SESSION);
    browser.fetch(&second).await.is_error(400, "invalid_state");
    // The browser has no session. The first code starts a new login, although its result is stored.
    let sent = browser.visit(&callback).await;
    let location = sent.header("location").unwrap();
    assert!(location.contains("/connect/oauth2/authorize"));
    assert_eq!(harness.exchanges(), 1);
    harness.advance(Duration::from_secs(601));
    browser.drop_cookies(|name| name == SESSION);
    browser
        .fetch(&callback)
        .await
        .is_error(400, "invalid_state");
    assert_eq!(harness.exchanges(), 1);
}

#[tokio::test]
async fn a_code_is_kept_for_ten_minutes_after_the_exchange() {
    let harness = Harness::new().await;
    let site = harness.site().await;
    let browser = Browser::new();
    let callback = browser.callback_of(&format!("{}/me", site.url)).await;
    // One minute is left of the five minutes for which the code is valid.
    harness.advance(Duration::from_secs(240));
    assert_eq!(browser.open(&callback).await.json()["id"], ALICE);
    harness.advance(Duration::from_secs(540));
    assert_eq!(browser.open(&callback).await.json()["id"], ALICE);
    harness.advance(Duration::from_secs(61));
    browser
        .fetch(&callback)
        .await
        .is_error(400, "invalid_state");
    assert_eq!(harness.exchanges(), 1);
}

#[tokio::test]
async fn a_client_that_hangs_up_loses_nothing() {
    let harness = Harness::with_redis().await;
    let site = harness.site().await;
    let browser = Arc::new(Browser::new());
    let callback = browser.callback_of(&format!("{}/me", site.url)).await;
    harness
        .sim
        .inject(Fault::on(EXCHANGE).delay(Duration::from_millis(500)));
    let hung_up = tokio::spawn({
        let (browser, callback) = (Arc::clone(&browser), callback.clone());
        async move { browser.visit(&callback).await }
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    hung_up.abort();
    assert!(hung_up.await.unwrap_err().is_cancelled());
    // The second request waits for the exchange of the first one, or finds its result.
    assert_eq!(browser.open(&callback).await.json()["id"], ALICE);
    assert_eq!(harness.exchanges(), 1);
}
