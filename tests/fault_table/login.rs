//! Rows of faults at a login: a callback that arrives many times, and foreign cookies.

use crate::harness::{FaultHarness, Row};
use crate::support::demo_process::DemoProcess;
use crate::support::harness::Layout;
use crate::support::http_client::Asked;

const EXCHANGE: &str = "/sns/oauth2/access_token";

/// Starts a harness with one demo that identifies users by its login's session cookie.
async fn with_login(row: &Row) -> FaultHarness {
    let mut harness = FaultHarness::start(row, Layout::Hashes, 0).await;
    let mut variables = harness.services.environment();
    variables.retain(|(name, _)| name != "TRUSTED_USER_HEADER");
    harness.demos.push(DemoProcess::start(&variables).await);
    harness.counted = EXCHANGE;
    harness
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callback_comes_many_times() {
    let row = Row {
        test: "a_callback_comes_many_times",
        fault: [
            "a login's callback arrives 20 times at once",
            "登录回调同时到达 20 次",
        ],
        sees: [
            "every callback logs in, and the code is used once",
            "每一次都登录成功，code 只兑换一次",
        ],
        answers: &[(302, "")],
    };
    let harness = with_login(&row).await;
    let demo = &harness.demos[0];
    let begin = demo.ask(Asked::get("/wechat/login?return_to=%2F")).await;
    let to = begin.header("location").to_owned();
    let state = to
        .split(['&', '#'])
        .find_map(|part| part.strip_prefix("state="))
        .unwrap();
    let cookie = begin
        .header("set-cookie")
        .split(';')
        .next()
        .unwrap()
        .to_owned();
    let code = harness.services.wechat.authorize("oLin", "snsapi_userinfo");
    let mut copies = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let callback = Asked::get(&format!("/wechat/callback?code={code}&state={state}"));
        let (site, callback) = (demo.http().clone(), callback.header("cookie", &cookie));
        copies.spawn(async move { site.ask(callback).await });
    }
    for answer in copies.join_all().await {
        let cookies = answer.headers.get_all("set-cookie");
        let session = |cookie: &reqwest::header::HeaderValue| {
            cookie
                .as_bytes()
                .starts_with(b"wechat_session_wx0123456789abcdef=")
        };
        assert!(cookies.iter().any(session), "{answer:?}");
        harness.record("oLin", &answer);
    }
    assert_eq!(harness.services.wechat.calls_to(EXCHANGE), 1);
    harness.services.assert_newest_pair_is_stored("oLin");
    harness.print(&row, false);
}

#[tokio::test(flavor = "multi_thread")]
async fn cookies_are_forged() {
    let row = Row {
        test: "cookies_are_forged",
        fault: ["2,000 forged session cookies", "2000 个伪造的会话 Cookie"],
        sees: [
            "401 for each, without a call to Redis or WeChat",
            "一律 401，且不会访问 Redis 和微信",
        ],
        answers: &[(401, "login_required")],
    };
    let harness = with_login(&row).await;
    let reads = || harness.services.redis.calls("hget") + harness.services.redis.calls("hmget");
    let before = reads();
    for number in 0..2_000 {
        let forged = format!(
            "wechat_session_wx0123456789abcdef=oFresh{}.{number}.bm90IGEgc2lnbmF0dXJl",
            number % 4
        );
        let answer = harness.demos[0]
            .ask(Asked::get("/api/me").header("cookie", forged))
            .await;
        harness.record("oFresh", &answer);
    }
    assert_eq!(reads(), before);
    harness.print(&row, false);
}
