//! Tests of a website app beside the accounts of the demo.

use redis::Commands;

use super::{CLUB, DESKTOP, SHOP, SITE, World, begin, finish, is_user};
use crate::support::browser::Browser;
use crate::support::demo_process::DemoProcess;

const WEBSITE: [(&str, &str); 2] = [
    ("WEBSITE_APPID", SITE),
    ("WEBSITE_SECRET", "secret-of-the-site"),
];

/// Returns a browser on a computer.
fn desktop() -> Browser {
    Browser::new().with_header("user-agent", DESKTOP)
}

/// Logs a browser on a computer in below `path`, and checks its user.
async fn scan(world: &World, demo: &DemoProcess, path: &str) -> Browser {
    let browser = desktop();
    let base = format!("{}{path}", demo.url);
    let page = browser.visit(&format!("{base}/")).await;
    let authorize = page.location().unwrap();
    assert_eq!(authorize.path(), "/connect/qrconnect", "{authorize}");
    assert!(
        page.header("vary")
            .unwrap_or_default()
            .to_lowercase()
            .contains("user-agent")
    );
    let callback = begin(&browser, &base).await;
    assert_eq!(callback.path(), format!("{path}/wechat/callback"));
    assert_eq!(finish(&browser, demo, &callback).await.status, 302);
    is_user(&browser, &base, SITE, &world.openid(SITE)).await;
    let info = browser.fetch(&format!("{base}/api/userinfo")).await;
    assert_eq!(info.status, 200, "{info:?}");
    let page = browser.visit(&format!("{base}/")).await;
    assert!(page.text.contains(SITE), "{}", page.text);
    assert!(page.text.contains("uUser"), "{}", page.text);
    browser
}

#[tokio::test(flavor = "multi_thread")]
async fn a_website_app_stands_beside_one_account() {
    let world = World::start().await;
    let mut environment = world.environment(&WEBSITE);
    environment.retain(|(name, _)| name != "WECHAT_ACCOUNTS");
    environment.push(("WECHAT_APPID".to_owned(), SHOP.to_owned()));
    environment.push((
        "WECHAT_SECRET".to_owned(),
        world.wechat.app_secret().to_owned(),
    ));
    let demo = DemoProcess::start(&environment).await;
    scan(&world, &demo, "").await;

    let phone = Browser::new();
    let callback = begin(&phone, &demo.url).await;
    assert_eq!(finish(&phone, &demo, &callback).await.status, 302);
    is_user(&phone, &demo.url, SHOP, &world.openid(SHOP)).await;
    let mut redis = world.redis.connection();
    for app in [SHOP, SITE] {
        let users: Vec<String> = redis
            .hkeys(format!("user.wxUserAccessToken.{app}"))
            .unwrap();
        assert_eq!(users, [world.openid(app)]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_website_app_stands_beside_each_account() {
    let world = World::start().await;
    let [demo] = world.demos(&WEBSITE).await;
    for (account, other) in [(SHOP, CLUB), (CLUB, SHOP)] {
        let browser = scan(&world, &demo, &format!("/{account}")).await;
        // The other account does not accept the session.
        super::is_anonymous(&browser, &format!("{}/{other}", demo.url)).await;
        let out = browser
            .post(&format!("{}/{account}/logout", demo.url))
            .await;
        assert_eq!(out.status, 204, "{out:?}");
        super::is_anonymous(&browser, &format!("{}/{account}", demo.url)).await;
    }
    // A callback belongs to the account beside which its login began.
    let browser = desktop();
    let callback = begin(&browser, &format!("{}/{SHOP}", demo.url)).await;
    let mut crossed = callback.clone();
    crossed.set_path(&format!("/{CLUB}/wechat/callback"));
    finish(&browser, &demo, &crossed).await.is_page(400, "登录");
    assert_eq!(finish(&browser, &demo, &callback).await.status, 302);
}
