//! Tests of sessions of real processes: a stolen session ends with a logout everywhere.

use crate::support::demo_process::DemoProcess;
use crate::support::harness::{Harness, Layout, now_ms, variables};
use crate::support::http_client::{Answer, Asked};

const SESSION: &str = "__Host-wechat_session_wx0123456789abcdef=";
const DAY_MS: i64 = 86_400_000;

/// Returns a harness whose demos have an https public URL and identify users by the session cookie.
async fn harness(layout: Layout) -> Harness {
    let mut harness = Harness::new(layout).await;
    harness.variables = variables(&[
        ("TRUSTED_USER_HEADER", ""),
        ("PUBLIC_URL", "https://h5.example.com"),
        ("COOKIE_KEY", &"QUJD".repeat(22)),
        // The demo reads Redis on every request, because another service does not publish its
        // writes.
        ("CACHE_TTL_SECS", "0"),
    ]);
    harness
}

/// Starts a demo whose clock differs from the machine's by `off`.
async fn demo_at(harness: &Harness, off: &str) -> DemoProcess {
    let mut environment = harness.environment();
    environment.extend(variables(&[
        ("LD_PRELOAD", "/usr/$LIB/faketime/libfaketimeMT.so.1"),
        ("FAKETIME", off),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
    ]));
    DemoProcess::start(&environment).await
}

/// Returns the cookies of a response in the form in which a browser sends them.
fn set_cookies(answer: &Answer) -> Vec<String> {
    let set = answer.headers.get_all("set-cookie").iter();
    let pair = |set: &str| set.split(';').next().unwrap().to_owned();
    set.map(|set| pair(set.to_str().unwrap())).collect()
}

fn session_of(answer: &Answer) -> Option<String> {
    set_cookies(answer)
        .into_iter()
        .find(|cookie| cookie.starts_with(SESSION))
}

/// Logs a user in and returns the session cookie.
async fn sign_in(harness: &Harness, demo: &DemoProcess, user: &str) -> String {
    let begin = demo.ask(Asked::get("/wechat/login?return_to=%2F")).await;
    let to = begin.header("location").to_owned();
    let state = to
        .split(['&', '#'])
        .find_map(|part| part.strip_prefix("state="));
    let code = harness.wechat.authorize(user, "snsapi_userinfo");
    let callback = format!("/wechat/callback?code={code}&state={}", state.unwrap());
    let cookies = set_cookies(&begin).join("; ");
    let landed = demo
        .ask(Asked::get(&callback).header("cookie", cookies))
        .await;
    session_of(&landed).unwrap_or_else(|| panic!("no session: {landed:?}"))
}

async fn me(demo: &DemoProcess, cookie: &str) -> Answer {
    demo.ask(Asked::get("/api/me").header("cookie", cookie))
        .await
}

/// Tests that the demo accepts its own session cookie if `PUBLIC_URL` has capitals, a host name in
/// Chinese or the default port.
#[tokio::test(flavor = "multi_thread")]
async fn a_public_url_in_capitals_keeps_users_signed_in() {
    for url in [
        "HTTPS://H5.Example.com",
        "https://例子.example/h5",
        "HTTPS://h5.example.com:443/H5/",
    ] {
        let mut harness = harness(Layout::Hashes).await;
        harness.variables.extend(variables(&[("PUBLIC_URL", url)]));
        let demo = harness.demo().await;
        let session = sign_in(&harness, &demo, "oUser").await;
        assert_eq!(me(&demo, &session).await.json()["user_id"], "oUser");
    }
}

async fn a_thief_stays_out(layout: Layout) {
    let harness = harness(layout).await;
    let user = "oVictim";
    let today = harness.demo().await;
    let stolen = sign_in(&harness, &today, user).await;
    assert_eq!(me(&today, &stolen).await.status, 200);
    drop(today);

    // 16 days have passed, more than half of the session's lifetime. The servers' clocks differ by
    // one minute.
    let ahead = demo_at(&harness, "+16d").await;
    let behind = demo_at(&harness, "+1382340s").await;
    let slid = me(&ahead, &stolen).await;
    assert_eq!(slid.status, 200, "{}", slid.text);
    let renewed = session_of(&slid).expect("the thief's copy is issued anew");
    let out = async |why: &str| {
        for demo in [&ahead, &behind] {
            for copy in [&stolen, &renewed] {
                let answer = me(demo, copy).await;
                assert_eq!(answer.status, 401, "{why}, {layout:?}: {}", answer.text);
                assert_eq!(session_of(&answer), None);
            }
        }
    };
    let logout = Asked::post("/logout?everywhere=true").header("cookie", &stolen);
    assert_eq!(ahead.ask(logout).await.status, 204);
    out("logged out").await;
    let victims = sign_in(&harness, &behind, user).await;
    out("logged in again").await;
    for (what, renew_at) in [
        ("a pair that is to be renewed", now_ms()),
        ("a fresh pair", now_ms() + 17 * DAY_MS),
    ] {
        let pair = harness.wechat.current_pair(user).unwrap();
        let (access, refresh) = (&pair.access_token, &pair.refresh_token);
        harness.store_text(user, access, renew_at, refresh);
        out(what).await;
        for demo in [&ahead, &behind] {
            assert_eq!(me(demo, &victims).await.status, 200, "{what}, {layout:?}");
        }
        out(what).await;
    }
    harness.assert_newest_pair_is_stored(user);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stolen_session_stays_ended_in_hashes() {
    a_thief_stays_out(Layout::Hashes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stolen_session_stays_ended_in_keys() {
    a_thief_stays_out(Layout::Keys).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sibling_host_sets_no_session() {
    let harness = harness(Layout::Hashes).await;
    let demo = harness.demo().await;
    let [victims, attackers] = [
        sign_in(&harness, &demo, "oVictim").await,
        sign_in(&harness, &demo, "oAttacker").await,
    ];
    // A sibling host can only set a cookie without the prefix `__Host-`. The demo ignores such a
    // cookie, whether it precedes or follows the demo's own cookie.
    let planted = attackers.trim_start_matches("__Host-");
    me(&demo, planted).await.is_rejected(401, "login_required");
    for both in [
        format!("{planted}; {victims}"),
        format!("{victims}; {planted}"),
    ] {
        let answer = me(&demo, &both).await;
        assert_eq!(answer.json()["user_id"], "oVictim");
    }
    // A browser that does not support the prefix sends two cookies with it. The demo accepts
    // neither and logs one line.
    for both in [
        format!("{attackers}; {victims}"),
        format!("{victims}; {attackers}"),
    ] {
        me(&demo, &both).await.is_rejected(401, "login_required");
    }
    demo.says(1, &["WARN", "valid sessions of two users"]).await;
}
