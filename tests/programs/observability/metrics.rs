//! Tests of metrics. A demo gets requests of every counted kind, and the test reads its metrics as
//! Prometheus does.

use std::time::Duration;

use tower_wechat::simulator::{Fault, SimulatedPush, SimulatedUser, Simulator};

use super::exposition::{Scrape, Series};
use super::{GUIDE, file, queries};
use crate::support::browser::Browser;
use crate::support::demo_process::DemoProcess;
use crate::support::eventually;
use crate::support::harness::{Age, Harness, Layout, REFRESH, now_ms, variables};
use crate::support::http_client::Asked;
use crate::support::redis_server::RedisServer;

const LIMIT: Duration = Duration::from_secs(30);

/// The secret with which clients authenticate at the demo's token center.
const CENTER_TOKEN: &str = "the-bearer-secret-of-these-tests";

/// Starts a demo that also serves a token center.
async fn demo_of(harness: &mut Harness) -> DemoProcess {
    let secret = ("CENTER_TOKEN".to_owned(), CENTER_TOKEN.to_owned());
    harness.variables.push(secret);
    harness.demo().await
}

/// Sends requests to the demo that reach every counted case.
async fn traffic(harness: &Harness, demo: &DemoProcess) {
    // Requests of users whose token is expired, fresh in Redis, cached, stale or missing, or whose
    // name is invalid.
    harness.sign_in("oExpired", Age::Expired).await;
    harness.sign_in("oFresh", Age::Fresh).await;
    harness.sign_in("oStale", Age::Stale).await;
    for user in ["oExpired", "oFresh", "oFresh", "oStale"] {
        assert_eq!(demo.me(user).await.status, 200, "{user}");
    }
    demo.me("oAbsent").await.is_rejected(401, "login_required");
    demo.me("tab\tinside").await.is_rejected(400, "bad_request");
    // Calls of other APIs of WeChat, and requests for the account's token and ticket.
    assert_eq!(demo.get("/api/userinfo", "oFresh").await.status, 200);
    let page = format!("/api/jssdk?url={}/", demo.url);
    assert_eq!(demo.ask(Asked::get(&page)).await.status, 200);
    for (bearer, status) in [
        (format!("Bearer {CENTER_TOKEN}"), 200),
        ("Bearer of-another-center".to_owned(), 401),
        ("Basic of-another-center".to_owned(), 401),
    ] {
        let asked = Asked::get("/center/access_token").header("authorization", &bearer);
        assert_eq!(demo.ask(asked).await.status, status, "{bearer}");
    }

    // Logins: one that succeeds, one that the user denies, and a callback without a login.
    harness.wechat.add_user(SimulatedUser::new("oLogin"));
    let browser = Browser::new();
    let login = format!("{}/wechat/login?return_to=%2Fhealthz", demo.url);
    assert_eq!(browser.open(&login).await.status, 200);
    let callback = browser.callback_of(&login).await;
    let (path, query) = callback.split_once('?').expect("a query");
    let state = query.split('&').find(|part| part.starts_with("state="));
    let denied = format!("{path}?{}", state.expect("a state"));
    assert_eq!(browser.open(&denied).await.status, 403);
    assert_eq!(Browser::new().open(&callback).await.status, 400);

    // Failures: a revoked refresh token, a rate limit, a broken response, and a rejected account. A
    // rejected account stops all calls for the account, so it comes last.
    let failing = [
        ("oRevoked", Fault::on(REFRESH).errcode(40030)),
        ("oLimited", Fault::on(REFRESH).errcode(45011)),
        (
            "oBroken",
            Fault::on(REFRESH).status(500).body("<html>").times(1),
        ),
        ("oRejected", Fault::on(REFRESH).errcode(40125)),
    ];
    // WeChat's limit per minute (45011) ends with the minute, and shortly before that end a retry
    // would succeed.
    let second_of_minute = || now_ms() / 1_000 % 60;
    eventually("a minute with some time left", LIMIT, async || {
        second_of_minute() < 40
    })
    .await;
    for (user, fault) in failing {
        harness.sign_in(user, Age::Expired).await;
        harness.wechat.inject(fault);
        demo.me(user).await;
        harness.wechat.clear_faults();
    }
}

async fn scrape(demo: &DemoProcess) -> Scrape {
    Scrape::read(&demo.ask(Asked::get("/metrics")).await.text)
}

/// Each metric exists that the dashboard and the rules use. The guide lists all metrics, and no
/// others.
#[tokio::test(flavor = "multi_thread")]
async fn metrics_of_the_dashboard_and_the_rules_exist() {
    let mut harness = Harness::new(Layout::Hashes).await;
    let demo = demo_of(&mut harness).await;
    traffic(&harness, &demo).await;
    harness.redis.kill();
    demo.me("oUnknown")
        .await
        .is_rejected(503, "store_unavailable");
    eventually("the store is down", LIMIT, async || {
        let down = |one: &Series| one.name == "wechat_store_up" && one.value == 0.0;
        scrape(&demo).await.series.iter().any(down)
    })
    .await;
    let mut scrape = scrape(&demo).await;
    let of_platform = platform_scrape().await;
    let is_of_platform = |one: &Series| one.name.starts_with("wechat_platform_");
    let series = of_platform.series.into_iter().filter(is_of_platform);
    scrape.series.extend(series);
    scrape.described.extend(of_platform.described);

    let mut asked_for = std::collections::BTreeSet::new();
    for (place, expression) in queries::all() {
        let selectors = queries::selectors(&expression);
        assert!(
            !selectors.is_empty(),
            "{place} asks for nothing: {expression}"
        );
        let labels = queries::grouped_by(&expression);
        for selector in selectors {
            let metric = &selector.metric;
            let series: Vec<_> = scrape
                .series
                .iter()
                .filter(|one| one.name == *metric)
                .collect();
            assert!(
                !series.is_empty(),
                "{place} asks for {metric}, which is not there"
            );
            for label in &labels {
                assert!(
                    series.iter().all(|one| one.labels.contains_key(label)),
                    "{place} groups {metric} by {label}"
                );
            }
            for (label, value) in &selector.wants {
                // Some results of logins do not occur in this demo. The guide must list them.
                let listed = label == "result" && file(GUIDE).contains(&format!("`{value}`"));
                assert!(
                    scrape.has(metric, label, value) || listed,
                    "{place} asks for {metric} with {label}={value}"
                );
            }
            asked_for.insert(metric.clone());
        }
    }

    let guide = file(GUIDE);
    let listed: std::collections::BTreeSet<_> = guide
        .lines()
        .filter_map(|line| line.strip_prefix("| `wechat_")?.split('`').next())
        .map(|rest| format!("wechat_{rest}"))
        .collect();
    let names = scrape.names();
    let ours: std::collections::BTreeSet<_> = names.into_iter().collect();
    assert_eq!(ours, listed, "what is there, and what the guide lists");
    for name in &ours {
        assert!(scrape.described.contains(name), "{name} is described");
        assert!(
            asked_for
                .iter()
                .any(|asked| asked.starts_with(name.as_str())),
            "nothing asks for {name}"
        );
    }
    for one in &scrape.series {
        for (label, value) in &one.labels {
            assert!(
                guide.contains(&format!("`{label}`")) || label == "le",
                "the guide tells of the label {label}"
            );
            let a_word = ["outcome", "kind", "event", "result", "reason"].contains(&label.as_str());
            assert!(
                !a_word || guide.contains(&format!("`{value}`")),
                "the guide tells of {label}={value}"
            );
        }
    }
}

const COMPONENT: &str = "wx00000000000000c0";

/// Starts a demo of a platform. Returns it and the platform at WeChat, which pushes to it.
async fn platform_demo(redis: &RedisServer, wechat: &Simulator) -> DemoProcess {
    let platform = wechat.add_platform(COMPONENT, "secret-of-the-platform");
    platform.stop_ticket_pushes();
    let (token, key) = platform.push_keys();
    DemoProcess::start(&variables(&[
        ("REDIS_URL", &redis.url()),
        ("PLATFORM_APPID", COMPONENT),
        ("PLATFORM_SECRET", "secret-of-the-platform"),
        ("PLATFORM_TOKEN", &token),
        ("PLATFORM_AES_KEY", &key),
        ("WECHAT_API_URL", wechat.url()),
        ("WECHAT_OPEN_URL", wechat.url()),
        ("COOKIE_KEY", &"QUJD".repeat(22)),
    ]))
    .await
}

/// Returns the metrics of a demo of a platform after one push of each kind.
async fn platform_scrape() -> Scrape {
    let (redis, wechat) = (RedisServer::start(), Simulator::start().await.unwrap());
    let demo = platform_demo(&redis, &wechat).await;
    let received = "wechat_platform_ticket_received_timestamp_seconds";
    let app = [("app", COMPONENT)];
    assert_eq!(scrape(&demo).await.value(received, &app), Some(0.0));

    let platform = wechat.platform(COMPONENT).unwrap();
    let url = format!("{}/wechat/platform/push", demo.url);
    let platform = platform.push_url(&*url).message_url(url);
    for push in [
        SimulatedPush::ticket(),
        SimulatedPush::ticket().wrong_signature(),
        SimulatedPush::text(wechat.app_id(), "oUser", "hello"),
    ] {
        platform.push(push).await.unwrap();
    }
    let seen = scrape(&demo).await;
    let pushes = |event, result| {
        let labels = [("event", event), ("result", result)];
        seen.value("wechat_platform_pushes_total", &labels)
    };
    // The platform has also asked WeChat for a ticket.
    assert!(pushes("component_verify_ticket", "handled") >= Some(1.0));
    assert_eq!(pushes("unknown", "refused_signature"), Some(1.0));
    assert_eq!(pushes("message", "application"), Some(1.0));
    let age = now_ms() as f64 / 1_000.0 - seen.value(received, &app).unwrap();
    assert!((-2.0..60.0).contains(&age), "{age}");

    // Another process of the platform learns the time of the ticket from the store.
    let other = platform_demo(&redis, &wechat).await;
    eventually("the time of the stored ticket", LIMIT, async || {
        scrape(&other).await.value(received, &app) == seen.value(received, &app)
    })
    .await;
    seen
}

/// Each outcome is counted once, under its own label.
#[tokio::test(flavor = "multi_thread")]
async fn outcomes_have_separate_labels() {
    let mut harness = Harness::new(Layout::Keys).await;
    let demo = demo_of(&mut harness).await;
    traffic(&harness, &demo).await;
    let seen = scrape(&demo).await;
    let count = |name: &str, labels: &[(&str, &str)]| seen.value(name, labels).unwrap_or_default();
    let requests = |outcome| count("wechat_requests_total", &[("outcome", outcome)]);
    // The first request of `oExpired`, and the request of `oBroken`, whose renewal was retried.
    assert_eq!(requests("renewed"), 2.0);
    assert_eq!(requests("store"), 1.0);
    // The second request of `oFresh` to /api/me, and the request to /api/userinfo.
    assert_eq!(requests("cache"), 2.0);
    assert_eq!(requests("stale"), 1.0);
    let renewals = |result| {
        count(
            "wechat_renewals_total",
            &[("kind", "user"), ("result", result)],
        )
    };
    assert_eq!(renewals("dead"), 1.0);
    assert!(renewals("transient") >= 1.0);
    assert_eq!(renewals("operator"), 1.0);
    let logins = |result| count("wechat_logins_total", &[("result", result)]);
    assert_eq!(logins("signed_in"), 1.0);
    assert_eq!(logins("denied"), 1.0);
    assert_eq!(logins("unknown"), 1.0);
    assert_eq!(count("wechat_logins_begun_total", &[]), 2.0);
    let rejected = |reason| count("wechat_center_refused_total", &[("reason", reason)]);
    assert_eq!(rejected("wrong"), 1.0);
    assert_eq!(rejected("missing"), 1.0);
    demo.says(
        1,
        &[
            "WARN",
            "the token center rejected a bearer secret",
            "refused=1",
        ],
    )
    .await;
    assert!(!demo.log().contains("of-another-center"), "{}", demo.log());

    let app = harness.wechat.app_id();
    let now = crate::support::harness::now_ms() as f64 / 1_000.0;
    let expires = |kind| {
        let labels = [("app", app), ("kind", kind)];
        count("wechat_credential_expires_timestamp_seconds", &labels) - now
    };
    assert!(
        (6_000.0..=7_300.0).contains(&expires("access_token")),
        "{}",
        expires("access_token")
    );
    assert!(
        (3_000.0..=3_700.0).contains(&expires("jsapi_ticket")),
        "{}",
        expires("jsapi_ticket")
    );
    let suspended = count(
        "wechat_resting_until_timestamp_seconds",
        &[("app", app), ("kind", "user")],
    );
    assert!(
        (5.0..=31.0).contains(&(suspended - now)),
        "{}",
        suspended - now
    );
}
