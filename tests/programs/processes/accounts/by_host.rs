//! Tests of accounts that are selected by host.

use super::{CLUB, SHOP, World, begin, finish, is_anonymous, is_user};
use crate::support::browser::Browser;
use crate::support::http_client::Asked;

/// Returns a browser with the cookies of `browser` that opens this host. Real browsers keep the cookies
/// of hosts apart; here they would hide a mistake.
fn at(browser: &Browser, host: &str) -> Browser {
    browser.copy().with_header("host", host)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_host_has_its_account() {
    let world = World::start().await;
    let hosts = format!("host:shop.example.com={SHOP}, Club.example.com:8443={CLUB}");
    let [one, two] = world.demos(&[("ACCOUNT_BY", &hosts)]).await;
    let mut browser = Browser::new();
    for (host, account) in [("shop.example.com", SHOP), ("club.example.com:8443", CLUB)] {
        browser = at(&browser, host);
        let callback = begin(&browser, &one.url).await;
        let origin = format!("http://{host}/wechat/callback?");
        assert!(callback.as_str().starts_with(&origin), "{callback}");
        // The callback at the other host is that of another account.
        let other = if account == SHOP {
            "club.example.com:8443"
        } else {
            "shop.example.com"
        };
        finish(&at(&browser, other), &two, &callback)
            .await
            .is_page(400, "登录");
        assert_eq!(finish(&browser, &two, &callback).await.status, 302);
        is_user(&browser, &one.url, account, &world.openid(account)).await;
    }
    for (host, account) in [
        ("SHOP.example.com:80", SHOP),
        ("club.example.com:8443", CLUB),
    ] {
        is_user(
            &at(&browser, host),
            &two.url,
            account,
            &world.openid(account),
        )
        .await;
    }
    let page = at(&browser, "shop.example.com").visit(&one.url).await;
    assert!(
        page.text.contains("href=\"http://club.example.com:8443/\""),
        "{}",
        page.text
    );

    // A session of the shop does not sign in to the club.
    let session = browser.cookie(&format!("wechat_session_{SHOP}")).unwrap();
    browser.set_cookie(&format!("wechat_session_{CLUB}"), "/", &session);
    is_anonymous(&at(&browser, "club.example.com:8443"), &two.url).await;

    for host in [
        "h5.example.com",
        "example.com",
        "club.example.com",
        "127.0.0.1",
    ] {
        for path in [
            "/",
            "/api/me",
            "/api/account",
            "/wechat/callback",
            "/nowhere",
        ] {
            let reply = one.ask(Asked::get(path).header("host", host)).await;
            reply.is_rejected(404, "unknown_account");
        }
    }
    let page = "http%3A%2F%2Fshop.example.com%2F";
    let signed = Asked::get(&format!("/api/jssdk?url={page}")).header("host", "shop.example.com");
    assert_eq!(one.ask(signed).await.field("appId"), SHOP);
    assert_eq!(one.ask(Asked::get("/healthz")).await.status, 200);
}
