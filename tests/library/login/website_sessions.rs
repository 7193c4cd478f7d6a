//! Tests of the sessions of an account and of its website in one browser: the latest login wins.

use std::time::Duration;

use axum::Router;
use axum::routing::{get, post};
use serde_json::json;
use tower_wechat::simulator::SimulatedUser;
use tower_wechat::{Login, Logout, Policy, UserId, WechatLayer};

use super::harness::{ALICE, Harness};
use super::website::{
    CHROME, SAFARI_ON_IPHONE, TwoApps, UNIONID, WEBSITE, WEBSITE_SESSION, WECHAT_ON_WINDOWS,
    desktop, whoami,
};
use crate::support::browser::{Browser, SESSION};

/// Returns the value of the account's session cookie, as the application issues it for a user.
fn session_of(apps: &TwoApps, user: &str) -> String {
    let session = apps.harness.session(&apps.site);
    let cookie = session.issue(&UserId::new(user).unwrap());
    let cookie = cookie.to_str().unwrap();
    cookie.split(['=', ';']).nth(1).unwrap().to_owned()
}

/// Returns how many visits to WeChat a page load makes, and the user that the page then shows.
async fn visits_to_wechat(browser: &Browser, url: &str) -> (usize, String) {
    let (mut visits, mut reply) = (0, browser.visit(url).await);
    while let Some(next) = reply.location() {
        visits += usize::from(next.path().starts_with("/connect/"));
        reply = browser.visit(next.as_str()).await;
    }
    assert_eq!(reply.status, 200, "{reply:?}");
    (visits, reply.json()["id"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn a_login_replaces_the_other_apps_session() {
    let apps = TwoApps::start().await;
    let browser = desktop();
    let page = browser.open(&apps.url("/whoami")).await.json();
    assert_eq!(page["app"], WEBSITE);
    // The same browser profile in WeChat: the website's user stays until the account logs in.
    let wechat = browser.copy();
    let page = wechat.open(&apps.url("/whoami")).await.json();
    assert_eq!(page["app"], WEBSITE);
    let link = apps.url("/wechat/login?return_to=%2Fwhoami");
    let page = wechat.open(&link).await.json();
    let account = apps.harness.sim.app_id();
    assert_eq!(
        (&page["app"], &page["id"], &page["unionid"]),
        (&json!(account), &json!(ALICE), &json!(UNIONID))
    );
    assert!(wechat.cookie(SESSION).is_some());
    assert_eq!(wechat.cookie(WEBSITE_SESSION), None);
    apps.has_exchanged(1, 1);
    // And back, on the computer.
    let computer = wechat.copy().with_header("user-agent", CHROME);
    let callback = computer.callback_of(&link).await;
    let reply = computer.visit(&callback).await;
    assert_eq!(
        (reply.status, reply.header("location")),
        (302, Some("/whoami"))
    );
    assert_eq!(computer.cookie(SESSION), None);
    assert_eq!(
        computer.visit(&apps.url("/whoami")).await.json()["app"],
        WEBSITE
    );
    // A callback that is loaded again sets no session, and removes none.
    let again = computer.visit(&callback).await;
    assert_eq!((again.status, again.cookies().len()), (302, 0));
    // Without a session of the other app, a login removes no cookie.
    let reply = computer.visit(&computer.callback_of(&link).await).await;
    let cookies = reply.cookies();
    assert!(
        cookies.iter().all(|cookie| !cookie.contains("Max-Age=0")),
        "{cookies:?}"
    );
}

/// Two people share a computer: the first one has a session of the account there.
#[tokio::test]
async fn a_scan_by_another_person_replaces_the_user() {
    let apps = TwoApps::start().await;
    let bobs_phone = Browser::new();
    apps.harness.sim.add_user(SimulatedUser::new("oBob"));
    bobs_phone.open(&apps.url("/me")).await;
    let browser = desktop();
    browser.set_cookie(SESSION, "/", &bobs_phone.cookie(SESSION).unwrap());
    assert_eq!(browser.visit(&apps.url("/me")).await.json()["id"], "oBob");
    apps.harness.sim.add_user(SimulatedUser::new(ALICE));
    let link = apps.url("/wechat/login?return_to=%2Fme");
    let page = browser.open(&link).await.json();
    assert_eq!(page["id"], *apps.alice);
    // The login also removes a cookie that this application did not sign.
    browser.set_cookie(SESSION, "/", "0123");
    browser.open(&link).await;
    assert_eq!(browser.cookie(SESSION), None);
}

/// The account's user has logged out everywhere on another device, or has no tokens.
#[tokio::test]
async fn an_ended_session_gives_way_to_the_next_login() {
    let apps = TwoApps::start().await;
    let phone = Browser::new();
    phone.open(&apps.url("/me")).await;
    let revoked = phone.cookie(SESSION).unwrap();
    apps.harness.advance(Duration::from_secs(60));
    phone.post(&apps.url("/logout/everywhere")).await;
    for ended in [revoked, session_of(&apps, "oWithoutTokens")] {
        let browser = desktop();
        browser.set_cookie(SESSION, "/", &ended);
        let user = visits_to_wechat(&browser, &apps.url("/whoami")).await;
        assert_eq!(user, (1, apps.alice.clone()));
        assert_eq!(browser.cookie(SESSION), None);
        // The ended session comes back beside the website's: one more login ends it for good.
        browser.set_cookie(SESSION, "/", &ended);
        let script = browser.fetch(&apps.url("/whoami")).await;
        script.is_error(401, "login_required");
        let user = visits_to_wechat(&browser, &apps.url("/whoami")).await;
        assert_eq!(user, (1, apps.alice.clone()));
        let user = visits_to_wechat(&browser, &apps.url("/whoami")).await;
        assert_eq!(user, (0, apps.alice.clone()));
    }
}

/// Two tabs can log in at once, so that a request may have both.
#[tokio::test]
async fn the_accounts_session_precedes_the_websites() {
    let apps = TwoApps::start().await;
    let (browser, phone) = (desktop(), Browser::new());
    browser.open(&apps.url("/me")).await;
    phone.open(&apps.url("/me")).await;
    browser.set_cookie(SESSION, "/", &phone.cookie(SESSION).unwrap());
    assert_eq!(browser.visit(&apps.url("/me")).await.json()["id"], ALICE);
    // With sessions of two users of the account, the request has no user.
    let conflict = browser.copy();
    conflict.set_cookie(SESSION, "/me", &session_of(&apps, "oBob"));
    let script = conflict.fetch(&apps.url("/me")).await;
    script.is_error(401, "login_required");

    // A logout removes both.
    let reply = browser.post(&apps.url("/logout")).await;
    assert_eq!((reply.status, reply.cookies().len()), (204, 2));
    let sessions = (browser.cookie(SESSION), browser.cookie(WEBSITE_SESSION));
    assert_eq!(sessions, (None, None));
    let script = browser.fetch(&apps.url("/me")).await;
    script.is_error(401, "login_required");
    assert_eq!(phone.visit(&apps.url("/me")).await.json()["id"], ALICE);
}

#[tokio::test]
async fn a_logout_removes_ended_sessions_on_open_routes() {
    let app = |layer: WechatLayer, login: Login| {
        let layer = layer.login(login);
        let open = layer.clone().policy(Policy::Optional);
        let logout = Router::new()
            .route("/logout", post(async || Logout))
            .layer(open);
        let pages = Router::new().route("/whoami", get(whoami)).layer(layer);
        pages.merge(logout)
    };
    let apps = TwoApps::mounted(Harness::new().await, |login| login, app).await;
    let browser = desktop();
    browser.open(&apps.url("/whoami")).await;
    browser.set_cookie(SESSION, "/", &session_of(&apps, "oWithoutTokens"));
    let reply = browser.post(&apps.url("/logout")).await;
    assert_eq!((reply.status, reply.cookies().len()), (204, 2));
    let sessions = (browser.cookie(SESSION), browser.cookie(WEBSITE_SESSION));
    assert_eq!(sessions, (None, None));
}

/// The link of a callback that began on a computer is opened in other browsers. Its code is invalid,
/// so that the login begins again.
#[tokio::test]
async fn a_login_begins_again_where_the_browser_can_log_in() {
    let apps = TwoApps::start().await;
    let browser = desktop();
    let callback = browser.callback_of(&apps.url("/whoami")).await;
    let (before, _) = callback.split_once("code=").unwrap();
    let state = callback.split_once("&state=").unwrap().1;
    let invalid = format!("{before}code=0123456789abcdef&state={state}");
    let restart = async |changed: &Browser| {
        let reply = changed.visit(&invalid).await;
        assert_eq!(reply.status, 302, "{reply:?}");
        changed.visit(reply.location().unwrap().as_str()).await
    };
    let phone = browser.copy().with_header("user-agent", SAFARI_ON_IPHONE);
    let page = restart(&phone).await;
    page.is_page(403, "请在微信中打开");
    assert!(page.text.contains("/whoami"), "{}", page.text);
    let wechat = Browser::new().with_header("user-agent", WECHAT_ON_WINDOWS);
    for name in browser.cookie_names() {
        wechat.set_cookie(&name, "/", &browser.cookie(&name).unwrap());
    }
    let authorize = restart(&wechat).await.location().unwrap();
    assert_eq!(authorize.path(), "/connect/oauth2/authorize");
    assert_eq!(wechat.open(authorize.as_str()).await.json()["id"], ALICE);
    // On the computer, WeChat shows another code.
    let reply = browser.visit(&invalid).await;
    assert_eq!(reply.location().unwrap().path(), "/connect/qrconnect");
}
