//! Tests of a demo with two accounts in a real browser: it switches between them.

use crate::chromium::Chromium;
use crate::demo::Demo;
use crate::looks::is_well_made;
use crate::screen::Screen;

const SHOP: &str = "wx0123456789abcdef";
const CLUB: &str = "wxfedcba9876543210";

/// Starts a demo of two accounts below their AppIDs.
async fn two_accounts() -> Demo {
    let accounts = format!("{SHOP}:0123456789abcdef0123456789abcdef,{CLUB}:secret-of-the-club");
    let variables = [
        ("WECHAT_APPID", ""),
        ("WECHAT_SECRET", ""),
        ("WECHAT_ACCOUNTS", &*accounts),
    ];
    let demo = Demo::with(&variables).await;
    demo.sim.add_account(CLUB, "secret-of-the-club");
    demo.sim.settings(|settings| settings.auto_approve = true);
    demo
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_leads_to_the_other_account_and_back() {
    let demo = two_accounts().await;
    let browser = Chromium::start();
    for screen in [Screen::Phone, Screen::Desktop] {
        let tab = browser.tab_on(screen).await;
        // The address without a slash leads to the page.
        tab.open(&format!("{}/{SHOP}?from=menu", demo.url)).await;
        for (account, other) in [(SHOP, CLUB), (CLUB, SHOP), (SHOP, CLUB)] {
            let page = format!("{}/{account}/", demo.url);
            tab.until(&format!("location.href.startsWith('{page}')"))
                .await;
            tab.until("!!document.querySelector('#renew')").await;
            tab.shows(account).await;
            is_well_made(&tab, &format!("{account}, {screen:?}")).await;
            // The buttons call the routes of the account.
            tab.press("#refuse").await;
            tab.until("document.querySelector('#log').children.length > 0")
                .await;
            tab.press(&format!("nav a[href='/{other}/']")).await;
        }
    }
}
