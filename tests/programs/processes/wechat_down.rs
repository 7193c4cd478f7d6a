//! Tests of the demo's responses while WeChat fails: stale tokens are served, failures are sorted.

use std::time::Duration;

use tower_wechat::simulator::{Fault, Simulator};

use crate::support::demo_process::DemoProcess;
use crate::support::harness::{Age, Harness, Layout, REFRESH};
use crate::support::{eventually, free_port};

/// Maximum wait of a request, 5 s, with a tolerance of 4 s for a slow machine.
const DEADLINE: Duration = Duration::from_secs(5);
const SLACK: Duration = Duration::from_secs(4);

/// Maximum duration of a renewal with all its retries.
const RENEWAL: Duration = Duration::from_secs(8);

/// Maximum number of calls for one user. Within a renewal of 8 s, calls start at 0, ½, 1½, 3½ and
/// 7½ s less the jitter. A second renewal may begin after a pause.
const TRIES_WITH_BACK_OFF: u64 = 8;

async fn is_served_stale(demo: &DemoProcess, user: &str, access_token: &str) {
    let answer = demo.me(user).await;
    answer.has_token(access_token);
    assert_eq!(answer.field("freshness"), "stale");
    assert!(
        answer.took < DEADLINE,
        "a stale token is served at once: {:?}",
        answer.took
    );
}

/// While WeChat fails, stale tokens are served and other requests get a 503. The number of calls
/// does not grow with the requests. When WeChat works again, all users are served.
async fn fails_and_recovers(fault: Fault, layout: Layout) {
    let mut harness = Harness::new(layout).await;
    // Without a cache, each request asks for a renewal, so that only the back-off limits the calls.
    harness
        .variables
        .push(("CACHE_TTL_SECS".to_owned(), "0".to_owned()));
    let demo = harness.demo().await;
    let expired = harness.sign_in("oExpired", Age::Expired).await;
    let stale = harness.sign_in("oStale", Age::Stale).await;
    harness.wechat.inject(fault);

    let http = demo.http().clone();
    let failing = tokio::spawn(async move { http.me("oExpired").await });
    for _ in 0..100 {
        is_served_stale(&demo, "oStale", &stale.access_token).await;
    }
    let mut requests = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let http = demo.http().clone();
        requests.spawn(async move { http.me("oExpired").await });
    }
    for answer in requests
        .join_all()
        .await
        .into_iter()
        .chain([failing.await.unwrap()])
    {
        answer.is_rejected(503, "wechat_unavailable");
        assert!(answer.took < DEADLINE + SLACK, "{:?}", answer.took);
        assert!(!answer.text.contains(&expired.refresh_token));
    }
    // The first renewals have failed, and the next ones begin after a pause. Many requests arrive
    // during that pause.
    tokio::time::sleep(RENEWAL.saturating_sub(DEADLINE)).await;
    for _ in 0..100 {
        is_served_stale(&demo, "oStale", &stale.access_token).await;
    }
    let calls = harness.refreshes();
    assert!(calls >= 2, "both users' renewals were tried");
    assert!(
        calls <= 2 * TRIES_WITH_BACK_OFF,
        "{calls} calls for two users"
    );
    is_served_stale(&demo, "oStale", &stale.access_token).await;

    harness.wechat.clear_faults();
    eventually(
        "a token after WeChat's return",
        Duration::from_secs(40),
        async || demo.me("oExpired").await.status == 200,
    )
    .await;
    let current = harness.wechat.current_pair("oExpired").unwrap();
    demo.me("oExpired").await.has_token(&current.access_token);
    harness.assert_newest_pair_is_stored("oExpired");
    let log = demo.log();
    for secret in [
        &expired.refresh_token,
        &expired.access_token,
        &stale.refresh_token,
    ] {
        assert!(!log.contains(secret.as_str()), "a secret in the log");
    }
    assert!(
        !log.contains(harness.wechat.app_secret()),
        "the secret in the log"
    );
}

/// A renewal whose first two calls fail is retried, and the waiting request gets the new token.
#[tokio::test(flavor = "multi_thread")]
async fn a_short_failure_is_retried_while_the_client_waits() {
    let harness = Harness::new(Layout::Hashes).await;
    let demo = harness.demo().await;
    harness.sign_in("oUser", Age::Expired).await;
    harness
        .wechat
        .inject(Fault::on(REFRESH).errcode(-1).times(1));
    harness.wechat.inject(Fault::on(REFRESH).reset().times(1));
    let answer = demo.me("oUser").await;
    answer.has_token(&harness.wechat.current_pair("oUser").unwrap().access_token);
    assert_eq!(harness.refreshes(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn wechat_is_busy() {
    fails_and_recovers(Fault::on(REFRESH).errcode(-1), Layout::Hashes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wechat_answers_with_http_502() {
    fails_and_recovers(
        Fault::on(REFRESH).status(502).body("<html>bad gateway"),
        Layout::Keys,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wechat_does_not_answer() {
    fails_and_recovers(Fault::on(REFRESH).hang(), Layout::Keys).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wechat_breaks_connections() {
    fails_and_recovers(Fault::on(REFRESH).reset(), Layout::Hashes).await;
}

/// No server listens at WeChat's address at first. A simulator starts there later.
#[tokio::test(flavor = "multi_thread")]
async fn wechat_rejects_connections() {
    let mut harness = Harness::new(Layout::Hashes).await;
    let address = format!("127.0.0.1:{}", free_port());
    harness
        .variables
        .push(("WECHAT_API_URL".to_owned(), format!("http://{address}")));
    let demo = harness.demo().await;
    harness.sign_in("oExpired", Age::Expired).await;
    let stale = harness.sign_in("oStale", Age::Stale).await;

    is_served_stale(&demo, "oStale", &stale.access_token).await;
    let answer = demo.me("oExpired").await;
    answer.is_rejected(503, "wechat_unavailable");
    assert!(answer.took < DEADLINE + SLACK, "{:?}", answer.took);

    let account = (
        harness.wechat.app_id().to_owned(),
        harness.wechat.app_secret().to_owned(),
    );
    let restarted = Simulator::builder()
        .listen(address)
        .app(account.0, account.1);
    let restarted = restarted.start().await.unwrap();
    let pair = restarted.sign_in("oExpired", "snsapi_base");
    restarted.advance(pair.expires_in);
    harness.store("oExpired", &pair, Age::Expired);
    eventually(
        "a token after WeChat's return",
        Duration::from_secs(40),
        async || demo.me("oExpired").await.status == 200,
    )
    .await;
    let current = restarted.current_pair("oExpired").unwrap();
    demo.me("oExpired").await.has_token(&current.access_token);
}

/// The user logs in at another service while WeChat rejects renewals. The waiting request gets the
/// token of that login.
#[tokio::test(flavor = "multi_thread")]
async fn a_login_elsewhere_ends_the_failure() {
    for layout in Layout::BOTH {
        let harness = Harness::new(layout).await;
        let demo = harness.demo().await;
        harness.sign_in("oUser", Age::Expired).await;
        harness.wechat.inject(Fault::on(REFRESH).errcode(-1));
        let http = demo.http().clone();
        let waiting = tokio::spawn(async move { http.me("oUser").await });
        harness.refreshes_reach(2).await;
        let newer = harness.sign_in("oUser", Age::Fresh).await;
        waiting.await.unwrap().has_token(&newer.access_token);
        demo.me("oUser").await.has_token(&newer.access_token);
        harness.assert_newest_pair_is_stored("oUser");
    }
}

/// WeChat rejects the account because of a wrong setting. One ERROR line is logged, calls are
/// limited, and stale tokens are served.
#[tokio::test(flavor = "multi_thread")]
async fn wechat_rejects_the_account() {
    let harness = Harness::new(Layout::Hashes).await;
    let demo = harness.demo().await;
    for user in ["oA", "oB", "oC"] {
        harness.sign_in(user, Age::Expired).await;
    }
    let stale = harness.sign_in("oStale", Age::Stale).await;
    harness.wechat.inject(Fault::on(REFRESH).errcode(40125));
    for _ in 0..20 {
        for user in ["oA", "oB", "oC"] {
            demo.me(user).await.is_rejected(503, "wechat_config");
        }
        is_served_stale(&demo, "oStale", &stale.access_token).await;
    }
    assert_eq!(
        harness.refreshes(),
        1,
        "calls for the account are suspended"
    );
    demo.says(1, &["the operator must act"]).await;
}
