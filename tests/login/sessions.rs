//! The session afterwards: on other processes, renewed, ended.

use std::time::Duration;

use tower_wechat::{Policy, UserId, WechatUser};

use crate::client::Browser;
use crate::rig::{ALICE, Rig, pages};

#[tokio::test]
async fn a_process_that_remembers_no_token_takes_a_session_that_began_a_moment_ago() {
    let rig = Rig::with_redis().await;
    let sites = rig.cluster(2).await;
    let browser = Browser::new();
    assert_eq!(
        browser.open(&format!("{}/me", sites[0].url)).await.json()["id"],
        ALICE
    );
    browser
        .post(&format!("{}/logout/everywhere", sites[0].url))
        .await;
    let old = browser.copy();
    // An older cookie of the user makes the second process remember that there is no token.
    let again = browser.callback_of(&format!("{}/me", sites[0].url)).await;
    let user = tower_wechat::UserId::new(ALICE).unwrap();
    assert!(sites[1].users.get(&user).await.is_err());
    let landed = browser.visit(&again).await;
    assert_eq!(landed.header("location"), Some("/me"));
    let at_once = browser.visit(&format!("{}/me", sites[1].url)).await;
    assert_eq!(
        (at_once.status, at_once.json()["id"].as_str()),
        (200, Some(ALICE))
    );
    drop(old);
}

#[tokio::test]
async fn logging_out_ends_the_session_and_everywhere_ends_all() {
    let rig = Rig::with_redis().await;
    let sites = rig.cluster(2).await;
    let site = &sites[0];
    let me = format!("{}/me", site.url);
    let (phone, desktop) = (Browser::new(), Browser::new());
    phone.open(&me).await;
    desktop.open(&me).await;
    let stolen = phone.copy();

    assert_eq!(
        phone.post(&format!("{}/logout", site.url)).await.status,
        204
    );
    assert_eq!(phone.cookie("wechat_session"), None);
    phone.fetch(&me).await.is_error(401, "login_required");
    assert_eq!(
        stolen.fetch(&me).await.json()["id"],
        ALICE,
        "a plain logout is this browser's"
    );

    rig.advance(Duration::from_secs(3_600));
    assert_eq!(
        desktop
            .post(&format!("{}/logout/everywhere", site.url))
            .await
            .status,
        204
    );
    stolen.fetch(&me).await.is_error(401, "login_required");
    let users = site
        .users
        .get(&tower_wechat::UserId::new(ALICE).unwrap())
        .await;
    assert_eq!(
        users.unwrap_err().kind(),
        tower_wechat::ErrorKind::LoginRequired
    );
    assert_eq!(
        desktop.open(&me).await.json()["id"],
        ALICE,
        "and one may come back"
    );
    // Which brings no older session back to life, from memory or from the store, here or elsewhere.
    for site in &sites {
        let me = format!("{}/me", site.url);
        for _ in 0..2 {
            stolen.fetch(&me).await.is_error(401, "login_required");
            assert_eq!(desktop.fetch(&me).await.json()["id"], ALICE);
        }
    }
    // A renewal does not, either.
    rig.advance(Duration::from_secs(3 * 3_600));
    assert_eq!(desktop.fetch(&me).await.json()["id"], ALICE);
    stolen.fetch(&me).await.is_error(401, "login_required");
    // Whoever has the old cookie logs in as anybody does.
    assert_eq!(stolen.open(&me).await.json()["id"], ALICE);
}

#[tokio::test]
async fn a_page_that_needs_no_user_issues_no_dead_session_anew() {
    let rig = Rig::new().await;
    let optional = |user: Option<WechatUser>| async move {
        user.map_or_else(|| "nobody".to_owned(), |user| user.id().to_owned())
    };
    let site = rig
        .mounted(
            |login| login,
            |layer, login| {
                pages(login.clone())
                    .route("/open", axum::routing::get(optional))
                    .layer(layer.policy(Policy::Optional).login(login))
            },
        )
        .await;
    let (me, open) = (format!("{}/me", site.url), format!("{}/open", site.url));
    let browser = Browser::new();
    browser.open(&me).await;
    let stolen = browser.copy();
    // Past half of a session's life, when it is issued anew.
    rig.advance(Duration::from_secs(16 * 24 * 3_600));
    let alice = UserId::new(ALICE).unwrap();
    site.users.forget(&alice).await.unwrap();
    for logged_in_again in [false, true] {
        if logged_in_again {
            browser.open(&me).await;
        }
        let reply = stolen.visit(&open).await;
        assert_eq!((&*reply.text, reply.cookies()), ("nobody", vec![]));
    }
    assert_eq!(browser.visit(&open).await.text, ALICE);
}

#[tokio::test]
async fn a_session_slides() {
    let rig = Rig::new().await;
    let site = rig.site().await;
    let me = format!("{}/me", site.url);
    let browser = Browser::new();
    browser.open(&me).await;
    let first = browser.cookie("wechat_session").unwrap();
    rig.advance(Duration::from_secs(16 * 86_400));
    assert_eq!(browser.visit(&me).await.json()["id"], ALICE);
    assert_ne!(browser.cookie("wechat_session").unwrap(), first);
}

#[tokio::test]
async fn a_new_login_beats_what_was_there() {
    let rig = Rig::new().await;
    let site = rig.site().await;
    let browser = Browser::new();
    let before = browser.open(&format!("{}/me", site.url)).await.json()["token"].clone();
    let after = browser
        .open(&format!("{}/wechat/login?return_to=/me", site.url))
        .await;
    let live = rig.sim.current_pair(ALICE).unwrap().access_token;
    assert_ne!(after.json()["token"], before);
    assert_eq!(after.json()["token"], live);
}

#[tokio::test]
async fn cookies_of_old_logins_do_not_pile_up() {
    let rig = Rig::new().await;
    let site = rig.site().await;
    let browser = Browser::new();
    for _ in 0..25 {
        browser.visit(&format!("{}/me", site.url)).await;
    }
    assert_eq!(
        browser.open(&format!("{}/me", site.url)).await.json()["id"],
        ALICE
    );
    let names = browser.cookie_names();
    assert_eq!(
        names
            .iter()
            .filter(|name| name.starts_with("wechat_login_"))
            .count(),
        16
    );
}
