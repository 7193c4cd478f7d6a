//! Rows of faults of WeChat: it is down or slow, or it returns errors.

use std::time::Duration;

use tower_wechat::simulator::Fault;

use crate::harness::{FaultHarness, Row, lasting, seconds};
use crate::support::demo_process::USER_HEADER;
use crate::support::harness::{Age, Layout, REFRESH, USERINFO};
use crate::support::http_client::Asked;
use crate::support::proxy::Weather;

const STABLE: &str = "/cgi-bin/stable_token";

const SERVED_OR_REJECTED: &[(u16, &str)] = &[(200, ""), (503, "wechat_unavailable")];
const SERVED_OR_CONFIG: &[(u16, &str)] = &[(200, ""), (503, "wechat_config")];

const SEES: [&str; 2] = [
    "fresh and stale tokens are served at once; users whose token has expired get 503 within 5 s; calls to WeChat back off",
    "未过期（含临近过期）的令牌立即可用；令牌已过期的用户在 5 秒内得到 503；对微信的重试带退避",
];

#[tokio::test(flavor = "multi_thread")]
async fn wechat_is_down() {
    let row = Row {
        test: "wechat_is_down",
        fault: [
            "WeChat is down (connections reset)",
            "微信不可用（连接被重置）",
        ],
        sees: SEES,
        answers: SERVED_OR_REJECTED,
    };
    let fault = Fault::on(REFRESH).reset();
    lasting(
        &row,
        Layout::Hashes,
        6.0,
        |harness| harness.services.wechat.inject(fault),
        |harness| harness.services.wechat.clear_faults(),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wechat_is_slow() {
    let row = Row {
        test: "wechat_is_slow",
        fault: ["WeChat takes 2 s for an answer", "微信 2 秒才应答"],
        sees: [
            "usable tokens are served at once; users whose token has expired wait for one call",
            "未过期的令牌立即可用；令牌已过期的用户只等一次调用",
        ],
        answers: SERVED_OR_REJECTED,
    };
    let fault = Fault::on(REFRESH).delay(Duration::from_secs(2));
    lasting(
        &row,
        Layout::Keys,
        3.0,
        |harness| harness.services.wechat.inject(fault),
        |harness| harness.services.wechat.clear_faults(),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wechat_talks_nonsense() {
    let row = Row {
        test: "wechat_talks_nonsense",
        fault: [
            "WeChat answers with HTML, an empty body, truncated JSON or −1",
            "微信返回 HTML、空内容、半截 JSON 或 −1",
        ],
        sees: SEES,
        answers: SERVED_OR_REJECTED,
    };
    let begin = |harness: &mut FaultHarness| {
        for fault in [
            Fault::on(REFRESH)
                .status(502)
                .body("<html>bad gateway</html>")
                .times(8),
            Fault::on(REFRESH).body("").times(8),
            Fault::on(REFRESH).body("{\"access_token\":\"83_").times(8),
            Fault::on(REFRESH).errcode(-1),
        ] {
            harness.services.wechat.inject(fault);
        }
    };
    lasting(&row, Layout::Hashes, 6.0, begin, |harness| {
        harness.services.wechat.clear_faults();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replies_of_wechat_are_truncated() {
    let row = Row {
        test: "replies_of_wechat_are_truncated",
        fault: [
            "half of WeChat's replies are truncated",
            "微信的回复有一半在中途断开",
        ],
        sees: [
            "as if WeChat were down; on the next call, WeChat repeats the pair whose reply was lost",
            "同上；再次请求时，微信会重发丢失回复中的那一对令牌",
        ],
        answers: SERVED_OR_REJECTED,
    };
    let torn = Weather {
        truncate: 500,
        ..Weather::CALM
    };
    lasting(
        &row,
        Layout::Keys,
        3.0,
        |harness| harness.wechat.weather(torn),
        |harness| harness.wechat.weather(Weather::CALM),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_wrong() {
    let row = Row {
        test: "a_secret_is_wrong",
        fault: [
            "WeChat rejects the secret (40125)",
            "AppSecret 错误（40125）",
        ],
        sees: [
            "usable tokens are served; others get 503; after the renewals in progress, one call in 30 s and one ERROR line",
            "未过期的令牌照常可用；其他用户得到 503；正在进行的刷新结束后，30 秒只请求一次，日志醒目报错一次",
        ],
        answers: SERVED_OR_CONFIG,
    };
    let fault = Fault::on(REFRESH).errcode(40125);
    lasting(
        &row,
        Layout::Hashes,
        2.5,
        |harness| harness.services.wechat.inject(fault),
        |harness| harness.services.wechat.clear_faults(),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_refresh_tokens_are_invalid() {
    let row = Row {
        test: "all_refresh_tokens_are_invalid",
        fault: [
            "refresh tokens are invalid (42007)",
            "refresh_token 失效（42007）",
        ],
        sees: [
            "users whose token is due have to log in; one call for each",
            "令牌到期的用户被引导重新登录；每个用户只请求微信一次",
        ],
        answers: &[(200, ""), (401, "login_required")],
    };
    let harness = FaultHarness::start(&row, Layout::Keys, 1).await;
    for user in &harness.users {
        harness.services.wechat.change_password(user);
    }
    harness.during(seconds(2.0)).await;
    for user in &harness.users {
        harness.services.sign_in(user, Age::Fresh).await;
    }
    harness.recovers().await;
    assert!(
        harness.services.refreshes() <= 8,
        "{}",
        harness.services.refreshes()
    );
    harness.print(&row, false);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_40001() {
    let row = Row {
        test: "a_storm_of_40001",
        fault: [
            "tokens expire at WeChat, and 200 calls are rejected at once (42001)",
            "令牌在微信侧失效，200 个并发调用同时被拒（42001）",
        ],
        sees: [
            "every call gets a new token and is repeated once; one renewal for each user",
            "每个调用自动修复并重试一次；每个用户只刷新一次",
        ],
        answers: &[(200, "")],
    };
    let harness = FaultHarness::start(&row, Layout::Hashes, 1).await;
    harness.recovers().await;
    harness.services.wechat.reset_calls();
    harness.services.wechat.advance(Duration::from_secs(7_200));
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..200 {
        let (site, user) = (
            harness.demos[0].http().clone(),
            harness.users[number % 12].clone(),
        );
        calls.spawn(async move {
            let asked = Asked::get("/api/userinfo").header(USER_HEADER, &user);
            (site.ask(asked).await, user)
        });
    }
    for (answer, user) in calls.join_all().await {
        harness.record(&user, &answer);
    }
    assert_eq!(harness.services.refreshes(), 12, "one for each user");
    assert!(
        harness.services.wechat.calls_to(USERINFO) <= 400,
        "no call is made a third time"
    );
    harness.print(&row, false);
}

/// WeChat rejects the calls for the account's token until `repair`. Users are served meanwhile.
async fn account(
    row: &Row,
    reject: impl FnOnce(&FaultHarness),
    repair: impl FnOnce(&FaultHarness),
) {
    let mut harness = FaultHarness::start(row, Layout::Hashes, 0).await;
    harness.counted = STABLE;
    reject(&harness);
    harness.demos.push(harness.services.demo().await);
    harness
        .during(async {
            for _ in 0..100 {
                let answer = harness.demos[0].ask(Asked::get("/api/account")).await;
                assert_eq!(answer.field("error"), "wechat_config", "{answer:?}");
                harness.record("the account", &answer);
            }
        })
        .await;
    assert!(harness.services.wechat.calls_to(STABLE) <= 3);
    repair(&harness);
    harness.recovers().await;
    harness.print(row, false);
}

const ACCOUNT_SEES: [&str; 2] = [
    "users are served; requests for the account's token get 503; one call in 30 s, one ERROR line with the remedy",
    "用户照常访问；需要公众号令牌的接口得到 503；30 秒只请求一次，日志给出一次醒目的处理办法",
];

#[tokio::test(flavor = "multi_thread")]
async fn the_address_is_not_whitelisted() {
    let row = Row {
        test: "the_address_is_not_whitelisted",
        fault: [
            "the server's IP is not on WeChat's whitelist (40164)",
            "IP 不在白名单（40164）",
        ],
        sees: ACCOUNT_SEES,
        answers: SERVED_OR_CONFIG,
    };
    let list = |harness: &FaultHarness, list| {
        harness
            .services
            .wechat
            .settings(|settings| settings.ip_whitelist = list);
    };
    account(
        &row,
        |harness| list(harness, Some(vec![])),
        |harness| list(harness, None),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_quota_is_spent() {
    let row = Row {
        test: "the_quota_is_spent",
        fault: ["the day's quota is spent (45009)", "当日额度用尽（45009）"],
        sees: ACCOUNT_SEES,
        answers: SERVED_OR_CONFIG,
    };
    let quota = |harness: &FaultHarness, quota| {
        harness
            .services
            .wechat
            .settings(|settings| settings.stable_token_daily_quota = quota);
    };
    account(
        &row,
        |harness| quota(harness, 0),
        |harness| quota(harness, 1_000),
    )
    .await;
}
