//! Tests of accounts that are selected by path.

use std::time::Duration;

use redis::Commands;

use super::{CLUB, SHOP, World, begin, finish, is_anonymous, is_user, log_in};
use crate::support::browser::Browser;
use crate::support::eventually;
use crate::support::http_client::Asked;

#[tokio::test(flavor = "multi_thread")]
async fn one_browser_is_signed_in_to_both_accounts() {
    let world = World::start().await;
    let [one, two] = world.demos(&[("ACCOUNT_BY", "path")]).await;
    let browser = Browser::new();
    for account in [SHOP, CLUB] {
        log_in(&browser, [&one, &two], &format!("/{account}")).await;
    }
    for demo in [&one, &two] {
        for account in [SHOP, CLUB] {
            let base = format!("{}/{account}", demo.url);
            is_user(&browser, &base, account, &world.openid(account)).await;
            let info = browser.fetch(&format!("{base}/api/userinfo")).await.json();
            assert_eq!(info["openid"], world.openid(account).as_str());
        }
    }
    // The hashes of the accounts differ.
    let mut redis = world.redis.connection();
    for account in [SHOP, CLUB] {
        let hash = format!("user.wxUserAccessToken.{account}");
        let users: Vec<String> = redis.hkeys(hash).unwrap();
        assert_eq!(users, [world.openid(account)]);
    }
    let published: bool = redis.exists("user.wxUserAccessToken").unwrap();
    assert!(!published, "the published names are those of one account");

    // The page leads to the other account.
    let page = browser.visit(&format!("{}/{SHOP}/", one.url)).await;
    assert_eq!(page.status, 200, "{page:?}");
    assert!(
        page.text.contains(&format!("href=\"/{CLUB}/\"")),
        "{}",
        page.text
    );
    assert!(
        !page.text.contains(&format!("href=\"/{SHOP}/\"")),
        "{}",
        page.text
    );

    // A logout ends the session of one account in this browser.
    let copy = browser.copy();
    let reply = browser.post(&format!("{}/{SHOP}/logout", one.url)).await;
    assert_eq!(reply.status, 204, "{reply:?}");
    is_anonymous(&browser, &format!("{}/{SHOP}", two.url)).await;
    is_user(
        &browser,
        &format!("{}/{CLUB}", two.url),
        CLUB,
        &world.openid(CLUB),
    )
    .await;
    is_user(
        &copy,
        &format!("{}/{SHOP}", two.url),
        SHOP,
        &world.openid(SHOP),
    )
    .await;

    // A logout everywhere ends all sessions of one account.
    let everywhere = format!("{}/{SHOP}/logout?everywhere=true", one.url);
    assert_eq!(copy.post(&everywhere).await.status, 204);
    let again = browser.copy();
    eventually(
        "the other process rejects the session",
        Duration::from_secs(5),
        async || {
            copy.fetch(&format!("{}/{SHOP}/api/me", two.url))
                .await
                .status
                == 401
        },
    )
    .await;
    is_user(
        &again,
        &format!("{}/{CLUB}", two.url),
        CLUB,
        &world.openid(CLUB),
    )
    .await;
}

/// A callback of one account at the other account is rejected, and the login goes on.
#[tokio::test(flavor = "multi_thread")]
async fn crossed_callbacks_are_rejected() {
    let world = World::start().await;
    let [one, two] = world.demos(&[]).await;
    let browser = Browser::new();
    let callback = begin(&browser, &format!("{}/{SHOP}", one.url)).await;
    assert_eq!(callback.path(), format!("/{SHOP}/wechat/callback"));
    let mut crossed = callback.clone();
    crossed.set_path(&format!("/{CLUB}/wechat/callback"));
    for demo in [&one, &two] {
        let reply = finish(&browser, demo, &crossed).await;
        reply.is_page(400, "登录");
        assert!(reply.cookies().is_empty(), "{reply:?}");
    }
    for account in [SHOP, CLUB] {
        let app = world.wechat.app(account).unwrap();
        assert_eq!(app.calls_to("/sns/oauth2/access_token"), 0);
    }
    assert_eq!(finish(&browser, &two, &callback).await.status, 302);
    is_user(
        &browser,
        &format!("{}/{SHOP}", one.url),
        SHOP,
        &world.openid(SHOP),
    )
    .await;
}

/// The other account rejects a session, also under the name of its own cookie.
#[tokio::test(flavor = "multi_thread")]
async fn crossed_sessions_are_rejected() {
    let world = World::start().await;
    let [one, two] = world.demos(&[]).await;
    let browser = Browser::new();
    log_in(&browser, [&one, &one], &format!("/{SHOP}")).await;
    let session = browser.cookie(&format!("wechat_session_{SHOP}")).unwrap();
    browser.set_cookie(&format!("wechat_session_{CLUB}"), "/", &session);
    for demo in [&one, &two] {
        is_anonymous(&browser, &format!("{}/{CLUB}", demo.url)).await;
    }
    is_user(
        &browser,
        &format!("{}/{SHOP}", two.url),
        SHOP,
        &world.openid(SHOP),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_lies_below_the_account() {
    let world = World::start().await;
    let more = [
        ("CENTER_TOKEN", "a-long-random-secret"),
        ("VERIFICATION_FILE", "MP_verify_a.txt=a"),
    ];
    let [demo] = world.demos(&more).await;
    let page = demo
        .ask(Asked::get(&format!("/{CLUB}?from=menu&a=%20")))
        .await;
    assert!(matches!(page.status, 301 | 302 | 307 | 308), "{page:?}");
    assert_eq!(page.header("location"), format!("/{CLUB}/?from=menu&a=%20"));

    let mut tokens = Vec::new();
    for account in [SHOP, CLUB] {
        let state = demo
            .ask(Asked::get(&format!("/{account}/api/account")))
            .await;
        assert_eq!(state.status, 200, "{state:?}");
        tokens.push(state.field("token_fingerprint"));
        let page = format!("http%3A%2F%2Fh5.example.com%2F{account}%2F");
        let signed = demo
            .ask(Asked::get(&format!("/{account}/api/jssdk?url={page}")))
            .await;
        assert_eq!(signed.field("appId"), account, "{signed:?}");
        let center = format!("/{account}/center/access_token");
        assert_eq!(demo.ask(Asked::get(&center)).await.status, 401);
        let bearer = "Bearer a-long-random-secret";
        let token = demo
            .ask(Asked::get(&center).header("authorization", bearer))
            .await;
        let print = crate::support::http_client::fingerprint(&token.field("access_token"));
        assert_eq!(Some(&print), tokens.last(), "{token:?}");
        let login = demo
            .ask(Asked::get(&format!("/{account}/wechat/login")))
            .await;
        assert!(login.header("location").contains(account), "{login:?}");
        let other = demo
            .ask(Asked::get(&format!("/{account}/nothing-here")))
            .await;
        assert_eq!(other.status, 404);
        assert!(!other.text.contains("unknown_account"), "{other:?}");
    }
    assert_ne!(tokens[0], tokens[1]);

    // These routes stay above the accounts.
    assert_eq!(demo.ask(Asked::get("/healthz")).await.field("status"), "ok");
    assert_eq!(demo.ask(Asked::get("/metrics")).await.status, 200);
    assert_eq!(demo.ask(Asked::get("/MP_verify_a.txt")).await.text, "a");
}

/// A proxy may remove the path of the public URL, or keep it.
#[tokio::test(flavor = "multi_thread")]
async fn accounts_lie_below_the_path_of_the_public_url() {
    let world = World::start().await;
    let [one, two] = world
        .demos(&[("PUBLIC_URL", "http://h5.example.com/app")])
        .await;
    for (begins, ends) in [("/app", "/app"), ("/app", ""), ("", "/app"), ("", "")] {
        let browser = Browser::new();
        let callback = begin(&browser, &format!("{}{begins}/{CLUB}", one.url)).await;
        assert_eq!(callback.path(), format!("/app/{CLUB}/wechat/callback"));
        // The browser sends its cookies to the public path, before a proxy changes the path.
        let cookies = browser.copy();
        for name in browser.cookie_names() {
            cookies.set_cookie(&name, "/", &browser.cookie(&name).unwrap());
        }
        let mut arrives = callback.clone();
        arrives.set_path(&format!("{ends}/{CLUB}/wechat/callback"));
        let page = finish(&cookies, &two, &arrives).await;
        assert_eq!(
            page.header("location"),
            Some(&*format!("/app/{CLUB}/")),
            "{page:?}"
        );
        let base = format!("{}{ends}/{CLUB}", one.url);
        is_user(&cookies, &base, CLUB, &world.openid(CLUB)).await;
        let bare = cookies
            .visit(&format!("{}{ends}/{CLUB}?a=b", one.url))
            .await;
        assert_eq!(bare.header("location"), Some(&*format!("/app/{CLUB}/?a=b")));
        let page = cookies.visit(&format!("{base}/")).await;
        assert!(
            page.text.contains(&format!("href=\"/app/{SHOP}/\"")),
            "{}",
            page.text
        );
        let health = cookies.fetch(&format!("{}{ends}/healthz", one.url)).await;
        assert_eq!(health.status, 200);
    }
}

/// The session cookies of the accounts differ, also with a configured name.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_name_gets_the_appid() {
    let world = World::start().await;
    let [demo] = world.demos(&[("SESSION_NAME", "h5")]).await;
    let browser = Browser::new();
    for account in [SHOP, CLUB] {
        log_in(&browser, [&demo, &demo], &format!("/{account}")).await;
    }
    for account in [SHOP, CLUB] {
        assert!(browser.cookie(&format!("h5_{account}")).is_some());
        let base = format!("{}/{account}", demo.url);
        is_user(&browser, &base, account, &world.openid(account)).await;
    }
}

/// Without any account, a simulator has two accounts and a website app.
#[tokio::test(flavor = "multi_thread")]
async fn a_simulator_has_two_accounts() {
    let variables = [("ACCOUNT_BY".to_owned(), "path".to_owned())];
    let demo = crate::support::demo_process::DemoProcess::start(&variables).await;
    let browser = Browser::new();
    for account in [SHOP, CLUB] {
        let page = browser.open(&format!("{}/{account}/", demo.url)).await;
        assert_eq!(page.status, 200, "{page:?}");
        assert!(page.text.contains(account), "{}", page.text);
    }
}
