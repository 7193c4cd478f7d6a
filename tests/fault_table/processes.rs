//! Rows of a process that is killed or stopped during renewals, or whose clock is wrong.

use std::time::Duration;

use tower_wechat::simulator::{Fault, IssuedKind};

use crate::harness::{FaultHarness, Row, seconds};
use crate::support::demo_process::{DemoProcess, USER_HEADER};
use crate::support::harness::{Layout, REFRESH, now_ms, variables};
use crate::support::http_client::Asked;

const SERVED_OR_REJECTED: &[(u16, &str)] = &[(200, ""), (503, "wechat_unavailable")];

/// Number of renewals in progress when the fault occurs: eight, one for each expired and each stale
/// user.
const UNDER_WAY: u64 = 8;

/// Starts the renewals of eight users at one demo, which is taken out of the harness and returned.
/// WeChat responds to them after `delay`.
pub async fn renewing(harness: &mut FaultHarness, delay: Duration) -> DemoProcess {
    let slow = Fault::on(REFRESH).delay(delay).times(UNDER_WAY);
    harness.services.wechat.inject(slow);
    let holder = harness.demos.remove(0);
    for user in &harness.users[..UNDER_WAY as usize] {
        let (site, user) = (holder.http().clone(), user.clone());
        tokio::spawn(async move {
            let asked = Asked::get("/api/me").header(USER_HEADER, &user);
            site.try_ask(asked).await
        });
    }
    harness.services.refreshes_reach(UNDER_WAY).await;
    holder
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_is_killed_while_it_renews() {
    let row = Row {
        test: "a_process_is_killed_while_it_renews",
        fault: [
            "a process is killed while it holds leases",
            "进程持有租约时被杀死",
        ],
        sees: [
            "other processes serve usable tokens; users in renewal there, whose token has expired, get 503 until the lease of 10 s expires",
            "其他进程照常提供未过期的令牌；它正在刷新且令牌已过期的用户，在 10 秒租约到期前得到 503",
        ],
        answers: SERVED_OR_REJECTED,
    };
    let mut harness = FaultHarness::start(&row, Layout::Hashes, 2).await;
    let holder = renewing(&mut harness, Duration::from_millis(1_500)).await;
    drop(holder);
    harness.during(seconds(12.0)).await;
    harness.recovers().await;
    assert!(
        harness.services.refreshes() <= 16,
        "at most once more for each: {}",
        harness.services.refreshes()
    );
    harness.print(&row, false);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_stands_still_past_its_lease() {
    let row = Row {
        test: "a_process_stands_still_past_its_lease",
        fault: [
            "a process that holds leases is stopped for 12 s (SIGSTOP) and continues",
            "进程持有租约时停顿 12 秒（SIGSTOP）后继续",
        ],
        sees: [
            "as for a killed process; its late results overwrite nothing newer",
            "同上；它恢复后带回的旧结果不会覆盖更新的令牌",
        ],
        answers: SERVED_OR_REJECTED,
    };
    let mut harness = FaultHarness::start(&row, Layout::Keys, 2).await;
    let holder = renewing(&mut harness, Duration::from_millis(500)).await;
    holder.signal("STOP");
    harness.during(seconds(12.0)).await;
    holder.signal("CONT");
    harness.demos.push(holder);
    harness.recovers().await;
    harness.during(seconds(1.0)).await;
    assert!(
        harness.services.refreshes() <= 16,
        "at most once more for each: {}",
        harness.services.refreshes()
    );
    harness.print(&row, false);
}

/// Starts a demo whose clock differs from the machine's by `off`.
async fn process_with_clock(harness: &FaultHarness, off: &str) -> DemoProcess {
    let mut environment = harness.services.environment();
    environment.extend(variables(&[
        // The dynamic loader replaces `$LIB` with the name of the machine's library folder.
        ("LD_PRELOAD", "/usr/$LIB/faketime/libfaketimeMT.so.1"),
        ("FAKETIME", off),
        // Only the time of day is changed, so that timeouts keep their length.
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
    ]));
    DemoProcess::start(&environment).await
}

/// Returns the number of seconds until the user's token expires, as this process reports it.
async fn expires_in(demo: &DemoProcess, user: &str) -> i64 {
    let answer = demo.me(user).await;
    let json: serde_json::Value = serde_json::from_str(&answer.text).unwrap_or_default();
    json["expires_in_secs"].as_i64().expect("seconds")
}

#[tokio::test(flavor = "multi_thread")]
async fn clocks_are_a_minute_off() {
    let row = Row {
        test: "clocks_are_a_minute_off",
        fault: [
            "one process's clock is a minute ahead, another's a minute behind",
            "一个进程的时钟快一分钟，另一个慢一分钟",
        ],
        sees: [
            "no effect; tokens that are due or expire within that minute are renewed once, too",
            "无感；恰好在这一分钟内该续期或到期的令牌也只续期一次",
        ],
        answers: &[(200, "")],
    };
    let mut harness = FaultHarness::start(&row, Layout::Hashes, 1).await;
    for off in ["+60s", "-60s"] {
        let demo = process_with_clock(&harness, off).await;
        harness.demos.push(demo);
    }
    let user = &harness.users[8];
    let right = expires_in(&harness.demos[0], user).await;
    for (demo, off) in harness.demos[1..].iter().zip([60, -60]) {
        let wrong = right - expires_in(demo, user).await;
        assert!(
            (wrong - off).abs() < 30,
            "the clock is off by {wrong} s; `apt-get install faketime` brings what moves it"
        );
    }
    // Users whose renewal point, or whose expiry, comes in 30 s.
    for (name, renew_in) in [("Due", 30_000), ("Ends", 30_000 - 900_000)] {
        for number in 0..2 {
            let user = format!("o{name}{number}");
            let pair = harness.services.wechat.sign_in(&user, "snsapi_userinfo");
            let renew_at = now_ms() + renew_in;
            let (access, refresh) = (&pair.access_token, &pair.refresh_token);
            harness
                .services
                .store_text(&user, access, renew_at, refresh);
            harness.users.push(user);
        }
    }
    harness.during(seconds(6.0)).await;
    harness.recovers().await;
    let issued = harness.services.wechat.issued_credentials();
    for user in &harness.users {
        let renewals = issued
            .iter()
            .filter(|pair| pair.openid == *user && matches!(pair.kind, IssuedKind::Refresh));
        let renewals = renewals.count();
        assert!(renewals <= 1, "{user} was renewed {renewals} times");
    }
    harness.print(&row, false);
}
