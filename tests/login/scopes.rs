//! What users granted, and asking for more.

use std::time::Duration;

use serde_json::json;
use tower_wechat::Scope;
use tower_wechat::simulator::Fault;

use crate::client::Browser;
use crate::rig::{ALICE, EXCHANGE, Rig, USERINFO};

#[tokio::test]
async fn a_base_login_is_upgraded_once_where_a_route_needs_it() {
    let rig = Rig::new().await;
    let site = rig.site_with(|login| login.scope(Scope::Base)).await;
    let browser = Browser::new();
    assert_eq!(
        browser.open(&format!("{}/me", site.url)).await.json()["scope"],
        "snsapi_base"
    );
    let asked = browser
        .fetch(&format!("{}/profile", site.url))
        .await
        .is_error(401, "login_required");
    assert_eq!(
        asked["login_url"],
        "/wechat/login?return_to=%2F&scope=snsapi_userinfo"
    );
    let page = browser.open(&format!("{}/profile?a=b", site.url)).await;
    assert_eq!(
        page.json(),
        json!({ "id": ALICE, "scope": "snsapi_userinfo" })
    );
    assert_eq!(rig.exchanges(), 2);
    browser.open(&format!("{}/profile", site.url)).await;
    browser.open(&format!("{}/me", site.url)).await;
    assert_eq!(rig.exchanges(), 2);
}

#[tokio::test]
async fn an_upgrade_that_is_not_granted_does_not_loop() {
    let rig = Rig::new().await;
    let site = rig.site_with(|login| login.scope(Scope::Base)).await;
    let browser = Browser::new();
    browser.open(&format!("{}/me", site.url)).await;
    let body = json!({
        "access_token": "83_base", "expires_in": 7200, "refresh_token": "83_refresh",
        "openid": ALICE, "scope": "snsapi_base",
    });
    rig.sim.inject(Fault::on(EXCHANGE).body(body.to_string()));
    let page = browser.open(&format!("{}/profile", site.url)).await;
    page.is_page(403, "需要您的授权");
    assert_eq!(rig.exchanges(), 2);
    browser
        .fetch(&format!("{}/profile", site.url))
        .await
        .is_error(403, "login_denied");
    assert_eq!(
        browser.open(&format!("{}/me", site.url)).await.json()["id"],
        ALICE
    );
    // The page's button asks once more, at the user's own wish.
    rig.sim.clear_faults();
    assert!(
        page.text
            .contains("/wechat/login?return_to=%2Fprofile&amp;scope=snsapi_userinfo")
    );
    let again = format!(
        "{}/wechat/login?return_to=%2Fprofile&scope=snsapi_userinfo",
        site.url
    );
    assert_eq!(
        browser.open(&again).await.json()["scope"],
        "snsapi_userinfo"
    );
}

#[tokio::test]
async fn a_profile_is_fetched_once_and_heals() {
    let rig = Rig::new().await;
    let site = rig.site().await;
    let url = format!("{}/nickname", site.url);
    let browser = Browser::new();
    assert_eq!(browser.open(&url).await.text, "爱丽丝");
    for _ in 0..5 {
        assert_eq!(browser.fetch(&url).await.text, "爱丽丝");
    }
    assert_eq!(rig.sim.calls_to(USERINFO), 1);
    // It is believed for ten minutes; a token that WeChat refuses by then is replaced.
    rig.clock.advance(Duration::from_secs(601));
    rig.sim.advance(Duration::from_secs(7_200));
    assert_eq!(browser.fetch(&url).await.text, "爱丽丝");
    assert_eq!(rig.sim.calls_to(USERINFO), 3);
}

#[tokio::test]
async fn a_profile_without_the_scope_asks_for_a_login() {
    let rig = Rig::new().await;
    let site = rig.site_with(|login| login.scope(Scope::Base)).await;
    let browser = Browser::new();
    browser.open(&format!("{}/me", site.url)).await;
    let asked = browser
        .fetch(&format!("{}/nickname", site.url))
        .await
        .is_error(401, "login_required");
    assert_eq!(
        asked["login_url"],
        "/wechat/login?return_to=%2F&scope=snsapi_userinfo"
    );
    assert_eq!(rig.sim.calls_to(USERINFO), 1, "48001 is not tried again");
}

/// No layer asks for the scope there; the handler's error does.
#[tokio::test]
async fn a_page_that_needs_the_profile_sends_its_user_to_grant_it() {
    let rig = Rig::new().await;
    let site = rig.site_with(|login| login.scope(Scope::Base)).await;
    let browser = Browser::new();
    browser.open(&format!("{}/me", site.url)).await;
    let page = browser.open(&format!("{}/nickname?a=b", site.url)).await;
    assert_eq!((page.status, &*page.text), (200, "爱丽丝"));
    assert_eq!(page.url.path(), "/nickname");
    assert_eq!(page.url.query(), Some("a=b"));
    assert_eq!(rig.exchanges(), 2);
}

#[tokio::test]
async fn a_page_whose_user_does_not_grant_the_profile_does_not_loop() {
    let rig = Rig::new().await;
    let site = rig.site_with(|login| login.scope(Scope::Base)).await;
    let browser = Browser::new();
    browser.open(&format!("{}/me", site.url)).await;
    let body = json!({
        "access_token": "83_base", "expires_in": 7200, "refresh_token": "83_refresh",
        "openid": ALICE, "scope": "snsapi_base",
    });
    rig.sim.inject(Fault::on(EXCHANGE).body(body.to_string()));
    rig.sim.inject(Fault::on(USERINFO).errcode(48001));
    let page = browser.open(&format!("{}/nickname", site.url)).await;
    page.is_page(403, "需要您的授权");
    assert_eq!(rig.exchanges(), 2);
    browser
        .fetch(&format!("{}/nickname", site.url))
        .await
        .is_error(403, "login_denied");
}
