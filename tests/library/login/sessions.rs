//! Tests of sessions: in several processes, their renewal and their end.

use std::time::Duration;

use redis::Commands;
use tower_wechat::client::UserTokenResponse;
use tower_wechat::clock::Clock;
use tower_wechat::redis::Layout;
use tower_wechat::simulator::SimulatedUser;
use tower_wechat::{Policy, UserId, WechatUser};

use super::harness::{ALICE, Harness, pages};
use crate::support::browser::{Browser, SESSION};

#[tokio::test]
async fn an_empty_cache_accepts_a_new_session() {
    let harness = Harness::with_redis().await;
    let sites = harness.cluster(2).await;
    let browser = Browser::new();
    assert_eq!(
        browser.open(&format!("{}/me", sites[0].url)).await.json()["id"],
        ALICE
    );
    browser
        .post(&format!("{}/logout/everywhere", sites[0].url))
        .await;
    let old = browser.copy();
    // The second process reads the store and caches that the user has no tokens.
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
async fn a_logout_ends_one_session_or_all() {
    let harness = Harness::with_redis().await;
    let sites = harness.cluster(2).await;
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
    assert_eq!(phone.cookie(SESSION), None);
    phone.fetch(&me).await.is_error(401, "login_required");
    assert_eq!(
        stolen.fetch(&me).await.json()["id"],
        ALICE,
        "a plain logout is this browser's"
    );

    harness.advance(Duration::from_secs(3_600));
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
    // The new login makes no older session valid again, in any process.
    for site in &sites {
        let me = format!("{}/me", site.url);
        for _ in 0..2 {
            stolen.fetch(&me).await.is_error(401, "login_required");
            assert_eq!(desktop.fetch(&me).await.json()["id"], ALICE);
        }
    }
    // A renewal of the tokens does not make an older session valid either.
    harness.advance(Duration::from_secs(3 * 3_600));
    assert_eq!(desktop.fetch(&me).await.json()["id"], ALICE);
    stolen.fetch(&me).await.is_error(401, "login_required");
    // A browser with an ended session can log in.
    assert_eq!(stolen.open(&me).await.json()["id"], ALICE);
}

#[tokio::test]
async fn a_public_page_renews_no_ended_session() {
    let harness = Harness::new().await;
    let optional = |user: Option<WechatUser>| async move {
        user.map_or_else(|| "anonymous".to_owned(), |user| user.id().to_owned())
    };
    let site = harness
        .mounted(
            |login| login,
            |layer, login| {
                pages()
                    .route("/open", axum::routing::get(optional))
                    .layer(layer.policy(Policy::Optional).login(login))
            },
        )
        .await;
    let (me, open) = (format!("{}/me", site.url), format!("{}/open", site.url));
    let browser = Browser::new();
    browser.open(&me).await;
    let stolen = browser.copy();
    // The session is past half of its lifetime, so that the server would renew it.
    harness.advance(Duration::from_secs(16 * 24 * 3_600));
    let alice = UserId::new(ALICE).unwrap();
    site.users.revoke(&alice).await.unwrap();
    for logged_in_again in [false, true] {
        if logged_in_again {
            browser.open(&me).await;
        }
        let reply = stolen.visit(&open).await;
        assert_eq!((&*reply.text, reply.cookies()), ("anonymous", vec![]));
    }
    assert_eq!(browser.visit(&open).await.text, ALICE);
}

#[tokio::test]
async fn a_session_is_renewed_by_requests() {
    let harness = Harness::new().await;
    let site = harness.site().await;
    let me = format!("{}/me", site.url);
    let browser = Browser::new();
    browser.open(&me).await;
    let first = browser.cookie(SESSION).unwrap();
    harness.advance(Duration::from_secs(16 * 86_400));
    assert_eq!(browser.visit(&me).await.json()["id"], ALICE);
    assert_ne!(browser.cookie(SESSION).unwrap(), first);
}

#[tokio::test]
async fn a_new_login_replaces_the_session() {
    let harness = Harness::new().await;
    let site = harness.site().await;
    let browser = Browser::new();
    let before = browser.open(&format!("{}/me", site.url)).await.json()["token"].clone();
    let after = browser
        .open(&format!("{}/wechat/login?return_to=/me", site.url))
        .await;
    let live = harness.sim.current_pair(ALICE).unwrap().access_token;
    assert_ne!(after.json()["token"], before);
    assert_eq!(after.json()["token"], live);
}

#[tokio::test]
async fn cookies_of_old_logins_do_not_pile_up() {
    let harness = Harness::new().await;
    let site = harness.site().await;
    let browser = Browser::new();
    for number in 0..25 {
        // 25 logins, some of which return to the same page.
        let page = format!("{}/me?page={}", site.url, number % 20);
        assert_eq!(browser.visit(&page).await.status, 302);
    }
    assert_eq!(
        browser.open(&format!("{}/me", site.url)).await.json()["id"],
        ALICE
    );
    let names = browser.cookie_names();
    let logins = names
        .iter()
        .filter(|name| name.starts_with("wechat_login_"));
    assert!(logins.count() <= 7, "{names:?}");
}

const DAY: Duration = Duration::from_secs(86_400);

/// A thief has copied the session cookie, and a server has renewed the copy. A logout everywhere
/// ends the copy and the renewed session.
#[tokio::test]
async fn a_stolen_session_ends_with_a_logout_everywhere() {
    for layout in [Layout::Hashes, Layout::Keys] {
        let harness = Harness::with_redis_in(layout).await;
        let sites = harness.cluster(2).await;
        let me = |at: usize| format!("{}/me", sites[at].url);
        let victim = Browser::new();
        victim.open(&me(0)).await;
        harness.advance(DAY * 16);
        let (thief, renewed) = (victim.copy(), victim.copy());
        let stolen = thief.cookie(SESSION);
        assert_eq!(thief.fetch(&me(1)).await.status, 200);
        assert_ne!(thief.cookie(SESSION), stolen, "it slides");

        let everywhere = format!("{}/logout/everywhere", sites[0].url);
        assert_eq!(victim.post(&everywhere).await.status, 204);
        let out = async |at: usize| {
            for copy in [&thief, &renewed] {
                let url = me(at);
                copy.fetch(&url).await.is_error(401, "login_required");
            }
        };
        out(1).await;
        assert_eq!(victim.open(&me(1)).await.json()["id"], ALICE);
        for at in [0, 1, 0] {
            out(at).await;
            assert_eq!(victim.fetch(&me(at)).await.json()["id"], ALICE);
        }
        // Another service writes the pair, without the details that this crate stores behind the
        // refresh token.
        for renewed in [false, true] {
            harness.rewrite(ALICE);
            // The first wait is longer than processes cache the logout. The second wait is longer
            // than the token is valid.
            harness.advance(if renewed { DAY / 8 } else { DAY / 1_000 });
            for at in [1, 0] {
                out(at).await;
                assert_eq!(
                    victim.fetch(&me(at)).await.json()["id"],
                    ALICE,
                    "{layout:?}"
                );
            }
        }
        // The victim's new session also passes half of its lifetime.
        harness.advance(DAY * 16);
        out(0).await;
        assert_eq!(victim.fetch(&me(0)).await.json()["id"], ALICE);
        out(0).await;
    }
}

/// One server's clock is a minute behind or ahead of the other's. A logout at one server ends the
/// sessions of both.
#[tokio::test]
async fn clocks_a_minute_apart_do_not_undo_a_logout() {
    for early_logout in [true, false] {
        let mut harness = Harness::with_redis().await;
        let first = harness.site().await;
        harness.clock = Clock::shifted();
        match early_logout {
            true => harness.clock.rewind(Duration::from_secs(60)),
            false => harness.clock.advance(Duration::from_secs(60)),
        }
        let second = harness.site().await;
        let everywhere = format!("{}/logout/everywhere", first.url);
        for round in 0..3 {
            let victim = Browser::new();
            victim.open(&format!("{}/me", second.url)).await;
            let thief = victim.copy();
            assert_eq!(victim.post(&everywhere).await.status, 204, "round {round}");
            for site in [&second, &first] {
                let me = format!("{}/me", site.url);
                assert_eq!(victim.open(&me).await.json()["id"], ALICE);
                for site in [&first, &second] {
                    let me = format!("{}/me", site.url);
                    thief.fetch(&me).await.is_error(401, "login_required");
                    assert_eq!(victim.fetch(&me).await.status, 200, "round {round}");
                }
            }
        }
    }
}

#[tokio::test]
async fn a_concurrent_login_restores_no_ended_session() {
    let harnesses = [
        Harness::new().await,
        Harness::with_redis_in(Layout::Hashes).await,
        Harness::with_redis_in(Layout::Keys).await,
    ];
    for harness in harnesses {
        let sites = harness.cluster(2).await;
        let session = harness.session(&sites[0]);
        let mut lived = 0;
        for round in 0..60 {
            let user = UserId::new(format!("oCrossing{round}")).unwrap();
            let grant = |token: &str| {
                UserTokenResponse::new(token)
                    .expires_in(7_200)
                    .refresh_token("r")
                    .scope("snsapi_base")
            };
            let token = sites[0].users.store(&user, &grant("a")).await.unwrap();
            let cookie = |header: http::HeaderValue| {
                let pair = header.to_str().unwrap().split(';').next().unwrap();
                pair.split_once('=').unwrap().1.to_owned()
            };
            let old = Browser::new();
            old.set_cookie(SESSION, "/", &cookie(session.issue_for(&token)));
            let new = grant("b");
            let (login, logout) = tokio::join!(
                async {
                    tokio::time::sleep(Duration::from_micros(fastrand::u64(0..900))).await;
                    sites[0].users.store(&user, &new).await
                },
                async {
                    tokio::time::sleep(Duration::from_micros(fastrand::u64(0..900))).await;
                    sites[1].users.revoke(&user).await
                },
            );
            logout.unwrap();
            let fresh = Browser::new();
            let value = cookie(session.issue_for(&login.unwrap()));
            fresh.set_cookie(SESSION, "/", &value);
            for site in &sites {
                let me = format!("{}/me", site.url);
                old.fetch(&me).await.is_error(401, "login_required");
                lived += usize::from(fresh.fetch(&me).await.status == 200);
            }
        }
        assert!(lived > 0, "some logins came after the logout");
    }
}

#[tokio::test]
async fn a_logout_is_stored_for_a_sessions_lifetime() {
    let harness = Harness::with_redis().await;
    let snapshot = "oVirtual00000000000000000000";
    let site = harness.site().await;
    let everywhere = format!("{}/logout/everywhere", site.url);
    let mut redis = harness.redis.as_ref().unwrap().connection();
    for (kind, user, longest) in [
        ("snapshot_user", snapshot, 2 * 3_600),
        ("user", ALICE, 90 * 86_400),
    ] {
        let next = SimulatedUser::new(user).snapshot(user == snapshot);
        harness.sim.add_user(next);
        let browser = Browser::new();
        browser.open(&format!("{}/me", site.url)).await;
        assert_eq!(browser.post(&everywhere).await.status, 204);
        let key = format!("wechat:{}:revoked:{kind}:{user}", harness.sim.app_id());
        let left: i64 = redis.ttl(key).unwrap();
        assert!((longest - 60..=longest).contains(&left), "{kind}: {left} s");
    }
}

/// Over HTTP, another host of the domain can set cookies here. Sixty invalid session cookies do not
/// end a valid session.
#[tokio::test]
async fn invalid_cookies_do_not_end_a_session() {
    let harness = Harness::new().await;
    let site = harness.site().await;
    let me = format!("{}/me", site.url);
    let browser = Browser::new();
    browser.open(&me).await;
    let ours = browser.cookie(SESSION).unwrap();
    let forged = format!("{}A", &ours[..ours.len() - 1]);
    for junk in ["x", "", "a.b.c", forged.as_str()] {
        let mut cookies = vec![format!("{SESSION}={junk}"); 60];
        cookies.push(format!("{SESSION}={ours}"));
        let cookies = cookies.join("; ");
        let headers = [("accept", "application/json"), ("cookie", &*cookies)];
        let reply = Browser::new().send(http::Method::GET, &me, &headers).await;
        assert_eq!(reply.unwrap().status, 200, "{junk:?}");
    }
}

#[tokio::test]
async fn sessions_of_two_users_identify_no_user() {
    let harness = Harness::new().await;
    let bob = "oBob000000000000000000000000";
    let site = harness.site().await;
    let me = format!("{}/me", site.url);
    let mut sessions = Vec::new();
    for user in [ALICE, ALICE, bob] {
        harness.sim.add_user(SimulatedUser::new(user));
        let browser = Browser::new();
        assert_eq!(browser.open(&me).await.json()["id"], user);
        sessions.push(browser.cookie(SESSION).unwrap());
    }
    let ask = async |sessions: &[&String]| {
        let cookies: Vec<_> = sessions
            .iter()
            .map(|one| format!("{SESSION}={one}"))
            .collect();
        let cookies = cookies.join("; ");
        let headers = [("accept", "application/json"), ("cookie", &*cookies)];
        let reply = Browser::new().send(http::Method::GET, &me, &headers).await;
        reply.unwrap()
    };
    let [first, second, bobs] = &sessions[..] else {
        panic!("three sessions")
    };
    assert_eq!(ask(&[first, second]).await.json()["id"], ALICE);
    for pair in [[first, bobs], [bobs, second]] {
        ask(&pair).await.is_error(401, "login_required");
    }
}
