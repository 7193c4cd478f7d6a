//! Tests of the pages of a third-party platform in a real browser: the owner of an account follows a link
//! to WeChat, agrees there, and returns.

use tower_wechat::simulator::SimulatedPush;

use crate::chromium::Chromium;
use crate::demo::Demo;
use crate::looks::is_well_made;
use crate::screen::Screen;

const COMPONENT: &str = "wx00000000000000c0";
const KEY: &str = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG";
/// The account that the simulator offers.
const SHOP: &str = "wx0123456789abcdef";

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_clicks_through_to_wechat_and_back() {
    let variables = [
        ("WECHAT_APPID", ""),
        ("WECHAT_SECRET", ""),
        ("PLATFORM_APPID", COMPONENT),
        ("PLATFORM_SECRET", "secret"),
        ("PLATFORM_TOKEN", "token"),
        ("PLATFORM_AES_KEY", KEY),
    ];
    let demo = Demo::with(&variables).await;
    let wechat = demo.sim.add_platform(COMPONENT, "secret");
    let wechat = wechat.token("token").aes_key(KEY);
    let wechat = wechat.push_url(format!("{}/wechat/platform/push", demo.url));
    let browser = Chromium::start();
    let page = format!("{}/wechat/platform/authorize?for=42", demo.url);

    let reply = wechat.push(SimulatedPush::ticket()).await.unwrap();
    assert!(reply[0].is_success(), "{reply:?}");

    for (screen, path) in [
        (Screen::Phone, "/wxaopen/safe/bindcomponent"),
        (Screen::Computer, "/cgi-bin/componentloginpage"),
    ] {
        let tab = browser.tab_on(screen).await;
        tab.open(&page).await;
        tab.until("document.querySelectorAll('main a').length === 2")
            .await;
        is_well_made(&tab, &format!("links, {screen:?}")).await;
        tab.picture(&format!("platform-links-{screen:?}")).await;
        // The simulator rejects a page load without the referrer of a page, as WeChat does.
        tab.press("main a").await;
        tab.until("!!document.querySelector('#allow')").await;
        let url = tab.url().await;
        assert!(url.contains(path), "{screen:?}: {url}");
        tab.press("#allow").await;
        for _ in 0..2 {
            tab.shows("授权成功").await;
            tab.shows(SHOP).await;
            tab.reload().await;
        }
        is_well_made(&tab, &format!("result, {screen:?}")).await;
        tab.picture(&format!("platform-result-{screen:?}")).await;
    }
    assert!(wechat.is_authorized(SHOP));
    assert_eq!(demo.sim.calls_to("/cgi-bin/component/api_query_auth"), 2);
}
