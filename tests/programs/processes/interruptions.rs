//! Tests of a process that is killed or stopped during a renewal, and of a client that disconnects
//! during one. Each test checks "one renewal", "newest wins" or "nothing lost".

use std::time::{Duration, Instant};

use tower_wechat::simulator::Fault;

use crate::support::demo_process::USER_HEADER;
use crate::support::eventually;
use crate::support::harness::{Age, Harness, Layout, REFRESH};
use crate::support::http_client::Asked;

/// Duration of WeChat's refresh in these tests, 1.5 s, so that a test can act meanwhile.
const CALL: Duration = Duration::from_millis(1_500);

const LEASE: Duration = Duration::from_secs(10);

/// Tolerance for a slow machine, 4 s.
const SLACK: Duration = Duration::from_secs(4);

async fn killed_holder(layout: Layout) {
    let harness = Harness::new(layout).await;
    let [holder, second, third] = harness.demos().await;
    harness.sign_in("oUser", Age::Expired).await;
    harness.wechat.inject(Fault::on(REFRESH).hang().times(1));

    let http = holder.http().clone();
    let lost = tokio::spawn(async move { http.try_ask(me("oUser")).await });
    harness.refreshes_reach(1).await;
    holder.signal("KILL");
    let killed = Instant::now();
    assert!(
        lost.await.unwrap().is_err(),
        "a killed process sends no response"
    );

    for demo in [&second, &third] {
        eventually(
            "a token from another process",
            LEASE + SLACK + SLACK,
            async || {
                let answer = demo.me("oUser").await;
                if answer.status != 200 {
                    answer.is_rejected(503, "wechat_unavailable");
                }
                answer.status == 200
            },
        )
        .await;
    }
    let took = killed.elapsed();
    assert!(took <= LEASE + Duration::from_secs(1) + SLACK, "{took:?}");
    assert!(harness.refreshes() <= 2, "{} calls", harness.refreshes());
    let current = harness.wechat.current_pair("oUser").unwrap();
    third.me("oUser").await.has_token(&current.access_token);
    harness.assert_newest_pair_is_stored("oUser");
}

/// The holder of the lease is stopped until WeChat has renewed its pair and another service has
/// written a newer pair. The newer pair wins.
async fn stopped_holder(layout: Layout) {
    let harness = Harness::new(layout).await;
    let holder = harness.demo().await;
    let old = harness.sign_in("oUser", Age::Expired).await;
    harness.wechat.inject(
        Fault::on(REFRESH)
            .delay(Duration::from_millis(300))
            .times(1),
    );

    let http = holder.http().clone();
    let waiting = tokio::spawn(async move { http.me("oUser").await });
    harness.refreshes_reach(1).await;
    holder.signal("STOP");
    eventually(
        "WeChat has sent its reply",
        Duration::from_secs(10),
        async || harness.wechat.current_pair("oUser").unwrap() != old,
    )
    .await;
    let newer = harness.sign_in("oUser", Age::Fresh).await;
    holder.signal("CONT");

    waiting.await.unwrap().has_token(&newer.access_token);
    holder.me("oUser").await.has_token(&newer.access_token);
    let stored = (newer.access_token.clone(), newer.refresh_token.clone());
    assert_eq!(harness.stored("oUser"), Some(stored));
    assert_eq!(harness.refreshes(), 1);
    harness.assert_newest_pair_is_stored("oUser");
}

/// The user logs in at another service before WeChat processes the refresh. The login revokes the
/// refresh token in that call.
async fn stopped_holder_of_a_revoked_pair(layout: Layout) {
    let harness = Harness::new(layout).await;
    let holder = harness.demo().await;
    harness.sign_in("oUser", Age::Expired).await;
    harness
        .wechat
        .inject(Fault::on(REFRESH).delay(CALL).times(1));

    let http = holder.http().clone();
    let waiting = tokio::spawn(async move { http.me("oUser").await });
    harness.refreshes_reach(1).await;
    holder.signal("STOP");
    let newer = harness.sign_in("oUser", Age::Fresh).await;
    holder.signal("CONT");

    waiting.await.unwrap().has_token(&newer.access_token);
    harness.assert_newest_pair_is_stored("oUser");
    assert_eq!(harness.refreshes(), 1);
}

/// The holder is stopped for longer than its lease, before it has read WeChat's response. Another
/// process renews the pair. The holder then continues with an older response.
async fn stopped_for_longer_than_the_lease(layout: Layout) {
    let harness = Harness::new(layout).await;
    let [holder, other] = harness.demos().await;
    let old = harness.sign_in("oUser", Age::Expired).await;
    harness.wechat.inject(
        Fault::on(REFRESH)
            .delay(Duration::from_millis(300))
            .times(1),
    );

    let http = holder.http().clone();
    let waiting = tokio::spawn(async move { http.try_ask(me("oUser")).await });
    harness.refreshes_reach(1).await;
    holder.signal("STOP");
    eventually("WeChat has renewed", Duration::from_secs(10), async || {
        harness.wechat.current_pair("oUser").unwrap() != old
    })
    .await;
    let unread = harness.wechat.current_pair("oUser").unwrap();
    harness.wechat.advance(unread.expires_in);
    let renewed = Instant::now();
    eventually("the other process renews", LEASE + SLACK, async || {
        other.me("oUser").await.status == 200
    })
    .await;
    assert!(
        renewed.elapsed() > LEASE / 2,
        "the other process waits for the lease"
    );
    let newer = harness.wechat.current_pair("oUser").unwrap();
    assert_ne!(newer.access_token, unread.access_token);
    holder.signal("CONT");

    // The waiting client may get any response. Later requests get the pair of the other process.
    let _ = waiting.await.unwrap();
    for demo in [&holder, &other] {
        demo.me("oUser").await.has_token(&newer.access_token);
    }
    harness.assert_newest_pair_is_stored("oUser");
    assert_eq!(harness.refreshes(), 2);
}

async fn client_that_hangs_up(layout: Layout) {
    let harness = Harness::new(layout).await;
    let demo = harness.demo().await;
    let old = harness.sign_in("oUser", Age::Expired).await;
    harness
        .wechat
        .inject(Fault::on(REFRESH).delay(CALL).times(1));

    let http = demo.http().clone();
    let client = tokio::spawn(async move { http.try_ask(me("oUser")).await });
    harness.refreshes_reach(1).await;
    client.abort();
    assert!(client.await.unwrap_err().is_cancelled());
    assert_eq!(
        harness.stored("oUser").unwrap().0,
        old.access_token,
        "the client disconnects during the call"
    );

    eventually("the new pair is in Redis", CALL + SLACK, async || {
        harness.stored("oUser").unwrap().0 != old.access_token
    })
    .await;
    harness.assert_newest_pair_is_stored("oUser");
    assert_eq!(harness.refreshes(), 1);
}

/// Sends SIGTERM to a process whose renewal is under way: for a waiting client, or in the
/// background for a stale token.
async fn terminated(layout: Layout, age: Age) {
    let harness = Harness::new(layout).await;
    let demo = harness.demo().await;
    let old = harness.sign_in("oUser", age).await;
    if matches!(age, Age::Stale) {
        // A refresh returns a new access token only if the old one has expired at WeChat.
        harness.wechat.advance(old.expires_in);
    }
    harness
        .wechat
        .inject(Fault::on(REFRESH).delay(CALL).times(1));

    let http = demo.http().clone();
    let waiting = tokio::spawn(async move { http.me("oUser").await });
    harness.refreshes_reach(1).await;
    demo.signal("TERM");

    let http = demo.http().clone();
    eventually(
        "no new connections are taken",
        Duration::from_secs(5),
        async || std::net::TcpStream::connect(demo.url.trim_start_matches("http://")).is_err(),
    )
    .await;
    assert!(
        http.try_ask(Asked::get("/healthz")).await.is_err(),
        "no new requests are taken"
    );
    let answer = waiting.await.unwrap();
    let (status, _) = demo.ended(Duration::from_secs(30)).await;
    assert_eq!(status.code(), Some(0));

    let current = harness.wechat.current_pair("oUser").unwrap();
    assert_ne!(current.access_token, old.access_token);
    match age {
        Age::Stale => answer.has_token(&old.access_token),
        _ => answer.has_token(&current.access_token),
    }
    harness.assert_newest_pair_is_stored("oUser");
    assert_eq!(harness.refreshes(), 1);
}

fn me(user: &str) -> Asked {
    Asked::get("/api/me").header(USER_HEADER, user)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_holder_costs_one_lease_hashes() {
    killed_holder(Layout::Hashes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_holder_costs_one_lease_keys() {
    killed_holder(Layout::Keys).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_holder_overwrites_no_newer_pair() {
    for layout in Layout::BOTH {
        stopped_holder(layout).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_holder_does_not_delete_a_newer_pair() {
    for layout in Layout::BOTH {
        stopped_holder_of_a_revoked_pair(layout).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_stopped_past_its_lease_does_no_harm() {
    let (hashes, keys) = (Layout::Hashes, Layout::Keys);
    tokio::join!(
        stopped_for_longer_than_the_lease(hashes),
        stopped_for_longer_than_the_lease(keys)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_hangs_up_does_not_stop_the_renewal() {
    for layout in Layout::BOTH {
        client_that_hangs_up(layout).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_waits_for_the_renewal_that_a_client_waits_for() {
    for layout in Layout::BOTH {
        terminated(layout, Age::Expired).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_waits_for_a_renewal_in_the_background() {
    for layout in Layout::BOTH {
        terminated(layout, Age::Stale).await;
    }
}
