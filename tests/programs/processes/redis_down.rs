//! Tests of the demo's responses while Redis is down or frozen, and after its return.

use std::time::Duration;

use crate::support::demo_process::DemoProcess;
use crate::support::eventually;
use crate::support::harness::{Age, Harness, Layout};
use crate::support::http_client::Asked;
use crate::support::redis_server::RedisServer;

/// Maximum time for a rejection, 3 s. A command fails after one second; the rest is for slow
/// machines.
const SOON: Duration = Duration::from_secs(3);

/// Maximum time for the recovery, 8 s. The demo needs 5 s after Redis is back; the rest is for slow
/// machines.
const RECOVERY: Duration = Duration::from_secs(8);

async fn health(demo: &DemoProcess) -> u16 {
    let answer = demo.ask(Asked::get("/healthz")).await;
    assert!(answer.json().is_object(), "{answer:?}");
    answer.status
}

/// A demo that has cached the token of one user, `oHeld`. Tokens of other users are only in Redis.
struct Outage {
    harness: Harness,
    demo: DemoProcess,
    held: String,
    other: String,
}

impl Outage {
    async fn prepare(layout: Layout) -> Self {
        // With these options, Redis has its data again after a restart.
        let redis = RedisServer::with_options(&["--appendonly", "yes", "--appendfsync", "always"]);
        let mut harness = Harness::on(redis, layout).await;
        harness
            .variables
            .push(("CACHE_TTL_SECS".to_owned(), "1".to_owned()));
        let demo = harness.demo().await;
        let expired = harness.sign_in("oExpired", Age::Expired).await;
        let held = harness.sign_in("oHeld", Age::Fresh).await.access_token;
        let other = harness.sign_in("oOther", Age::Fresh).await.access_token;
        demo.me("oHeld").await.has_token(&held);
        assert_eq!(health(&demo).await, 200);
        assert_ne!(expired.access_token, held);
        Self {
            harness,
            demo,
            held,
            other,
        }
    }

    async fn away(&self) {
        let mut fastest = SOON;
        for round in 0..8 {
            // The demo serves the cached token, even when it is older than the second for which
            // tokens are cached.
            self.demo.me("oHeld").await.has_token(&self.held);
            let user = if round % 2 == 0 { "oOther" } else { "oExpired" };
            let rejected = self.demo.me(user).await;
            rejected.is_rejected(503, "store_unavailable");
            assert!(rejected.took < SOON, "{:?}", rejected.took);
            fastest = fastest.min(rejected.took);
            self.demo
                .me("oUnknown")
                .await
                .is_rejected(503, "store_unavailable");
            assert_eq!(health(&self.demo).await, 503);
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        assert!(
            fastest < Duration::from_millis(500),
            "none was quick: {fastest:?}"
        );
        self.demo.says(1, &["Redis became unavailable"]).await;
    }

    async fn back(&self) {
        self.is_over().await;
        self.demo.says(1, &["Redis became available again"]).await;
    }

    async fn is_over(&self) {
        eventually(
            "all requests succeed after Redis is back",
            RECOVERY,
            async || {
                self.demo.me("oOther").await.status == 200
                    && self.demo.me("oExpired").await.status == 200
                    && self.demo.me("oUnknown").await.status == 401
                    && health(&self.demo).await == 200
            },
        )
        .await;
        self.demo.me("oHeld").await.has_token(&self.held);
        self.demo.me("oOther").await.has_token(&self.other);
        self.harness.assert_newest_pair_is_stored("oExpired");
        assert_eq!(self.harness.refreshes(), 1);
    }
}

async fn killed(layout: Layout) {
    let mut outage = Outage::prepare(layout).await;
    outage.harness.redis.kill();
    outage.away().await;
    outage.harness.redis.run();
    outage.back().await;
}

async fn frozen(layout: Layout) {
    let outage = Outage::prepare(layout).await;
    outage.harness.redis.freeze(true);
    outage.away().await;
    outage.harness.redis.freeze(false);
    outage.back().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_redis_hashes() {
    killed(Layout::Hashes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_redis_keys() {
    killed(Layout::Keys).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_redis_hashes() {
    frozen(Layout::Hashes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_redis_keys() {
    frozen(Layout::Keys).await;
}

/// Redis rejects connections, because an operator sets a password. The operator removes the
/// password later.
#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_rejects_connections() {
    for layout in Layout::BOTH {
        let outage = Outage::prepare(layout).await;
        // Redis does not close this connection when the password changes.
        let mut operator = outage.harness.redis.connection();
        let password = |operator: &mut redis::Connection, password: &str| {
            let mut set = redis::cmd("CONFIG");
            set.arg(&["SET", "requirepass", password]);
            set.exec(operator).unwrap();
        };
        password(&mut operator, "secret");
        redis::cmd("CLIENT")
            .arg(&["KILL", "TYPE", "normal", "SKIPME", "yes"])
            .exec(&mut operator)
            .unwrap();
        eventually("Redis has rejected a connection", RECOVERY, async || {
            outage.demo.log().contains("NOAUTH")
        })
        .await;
        for user in ["oOther", "oExpired", "oUnknown"] {
            let rejected = outage.demo.me(user).await;
            rejected.is_rejected(503, "store_unavailable");
        }
        outage.demo.me("oHeld").await.has_token(&outage.held);
        password(&mut operator, "");
        outage.is_over().await;
    }
}

/// WeChat rejects a user's token while Redis is down. The token cannot be renewed, and the request
/// gets a 503.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_cannot_be_replaced_without_redis() {
    let mut harness = Harness::new(Layout::Hashes).await;
    let demo = harness.demo().await;
    let pair = harness.sign_in("oUser", Age::Fresh).await;
    demo.me("oUser").await.has_token(&pair.access_token);
    harness.wechat.advance(pair.expires_in);
    harness.redis.kill();
    let answer = demo.get("/api/userinfo", "oUser").await;
    answer.is_rejected(503, "store_unavailable");
}

/// Tests "nothing lost": WeChat issues a pair while Redis is frozen. The process writes the pair
/// when Redis is back.
#[tokio::test(flavor = "multi_thread")]
async fn a_pair_issued_meanwhile_is_not_lost() {
    use crate::support::harness::REFRESH;
    use tower_wechat::simulator::Fault;

    for layout in Layout::BOTH {
        let harness = Harness::new(layout).await;
        let demo = harness.demo().await;
        harness.sign_in("oUser", Age::Expired).await;
        harness
            .wechat
            .inject(Fault::on(REFRESH).delay(Duration::from_secs(1)).times(1));
        let http = demo.http().clone();
        let waiting = tokio::spawn(async move { http.me("oUser").await });
        harness.refreshes_reach(1).await;
        harness.redis.freeze(true);
        let answer = waiting.await.unwrap();
        let current = harness.wechat.current_pair("oUser").unwrap();
        answer.has_token(&current.access_token);
        harness.redis.freeze(false);
        let stored = (current.access_token, current.refresh_token);
        eventually("the pair is in Redis", RECOVERY, async || {
            harness.stored("oUser").as_ref() == Some(&stored)
        })
        .await;
        assert_eq!(harness.refreshes(), 1);
    }
}
