//! Tests of accounts that are selected by a header of a gateway.

use super::{CLUB, SHOP, World, begin, finish, is_anonymous, is_user};
use crate::support::browser::Browser;
use crate::support::demo_process::USER_HEADER;
use crate::support::http_client::Asked;

const ACCOUNT: &str = "x-account";

#[tokio::test(flavor = "multi_thread")]
async fn each_value_of_the_header_has_its_account() {
    let world = World::start().await;
    let [one, two] = world.demos(&[("ACCOUNT_BY", "header:X-Account")]).await;
    let mut browser = Browser::new();
    for account in [SHOP, CLUB] {
        browser = browser.copy().with_header(ACCOUNT, account);
        let callback = begin(&browser, &one.url).await;
        assert!(
            callback
                .as_str()
                .starts_with("http://h5.example.com/wechat/callback?")
        );
        let other = if account == SHOP { CLUB } else { SHOP };
        let crossed = browser.copy().with_header(ACCOUNT, other);
        finish(&crossed, &two, &callback).await.is_page(400, "登录");
        assert_eq!(finish(&browser, &two, &callback).await.status, 302);
    }
    for account in [SHOP, CLUB] {
        let browser = browser.copy().with_header(ACCOUNT, account);
        is_user(&browser, &two.url, account, &world.openid(account)).await;
    }
    // Two accounts have one URL, so caches must not keep its responses.
    for path in ["/api/me", "/api/account"] {
        let reply = browser.fetch(&format!("{}{path}", two.url)).await;
        assert_eq!(reply.header("cache-control"), Some("no-store"), "{path}");
    }
    let session = browser.cookie(&format!("wechat_session_{SHOP}")).unwrap();
    browser.set_cookie(&format!("wechat_session_{CLUB}"), "/", &session);
    let club = browser.copy().with_header(ACCOUNT, CLUB);
    is_anonymous(&club, &two.url).await;
    // Browsers do not send the header, so the page has no links to other accounts.
    let shop = browser.copy().with_header(ACCOUNT, SHOP);
    let page = shop.visit(&one.url).await;
    assert!(
        page.text.contains(SHOP) && !page.text.contains(CLUB),
        "{}",
        page.text
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn other_values_are_unknown_accounts() {
    let world = World::start().await;
    let [demo] = world.demos(&[("ACCOUNT_BY", "header:x-account")]).await;
    let upper = SHOP.to_uppercase();
    for value in [
        "",
        "wx1",
        &upper,
        "wx0123456789abcde",
        "\u{fc}",
        "a b",
        "../etc",
    ] {
        let reply = demo.ask(Asked::get("/api/me").header(ACCOUNT, value)).await;
        reply.is_rejected(404, "unknown_account");
    }
    let twice = Asked::get("/api/me")
        .header(ACCOUNT, SHOP)
        .header(ACCOUNT, SHOP);
    demo.ask(twice).await.is_rejected(404, "unknown_account");
    demo.ask(Asked::get("/api/me"))
        .await
        .is_rejected(404, "unknown_account");
    let known = Asked::get("/api/me").header(ACCOUNT, SHOP);
    demo.ask(known).await.is_rejected(401, "login_required");
}

/// A gateway names the account and the user. The tokens of a user differ between accounts.
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_names_the_user_too() {
    let world = World::start().await;
    let more = [
        ("ACCOUNT_BY", "header:x-account"),
        ("TRUSTED_USER_HEADER", USER_HEADER),
    ];
    let [one, two] = world.demos(&more).await;
    let browser = Browser::new()
        .with_header(ACCOUNT, SHOP)
        .with_header(USER_HEADER, "42");
    let callback = begin(&browser, &one.url).await;
    assert_eq!(finish(&browser, &two, &callback).await.status, 302);
    let me = browser.fetch(&format!("{}/api/me", two.url)).await.json();
    assert_eq!(
        (&me["user_id"], &me["app_id"]),
        (&"42".into(), &SHOP.into())
    );
    let club = Browser::new()
        .with_header(ACCOUNT, CLUB)
        .with_header(USER_HEADER, "42");
    is_anonymous(&club, &two.url).await;
}
