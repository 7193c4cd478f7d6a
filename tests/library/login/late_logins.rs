//! Tests of logins whose tokens could not be stored at once, because Redis was unreachable.

use std::time::Duration;

use tokio::task::JoinHandle;
use tower_wechat::redis::Layout;
use tower_wechat::simulator::Fault;
use tower_wechat::{ErrorKind, UserId};

use super::harness::{ALICE, EXCHANGE, Harness, Site};
use crate::support::browser::{Browser, Reply};
use crate::support::eventually;
use crate::support::proxy::Proxy;

/// Time between a call to WeChat and its response, in which the connections to Redis break.
const RESPONSE_DELAY: Duration = Duration::from_millis(300);

/// Time in which an unreachable Redis lets a command time out, which takes a second.
const OUTAGE: Duration = Duration::from_millis(1_500);

/// A login whose code WeChat has exchanged, at a server that does not reach Redis.
struct WaitingLogin {
    harness: Harness,
    proxy: Proxy,
    site: Site,
    callback: JoinHandle<Reply>,
}

impl WaitingLogin {
    async fn start(layout: Layout) -> Self {
        let harness = Harness::with_redis_in(layout).await;
        let redis = harness.redis.as_ref().unwrap();
        let proxy = Proxy::start(&format!("127.0.0.1:{}", redis.port()), 1).await;
        let site = harness.site_with_redis_at(proxy.address()).await;
        let browser = Browser::new();
        let url = browser.callback_of(&format!("{}/me", site.url)).await;
        let slow = Fault::on(EXCHANGE).delay(RESPONSE_DELAY).times(1);
        harness.sim.inject(slow);
        let callback = tokio::spawn(async move { browser.visit(&url).await });
        eventually("WeChat is called", Duration::from_secs(2), async || {
            harness.exchanges() == 1
        })
        .await;
        proxy.silent(true);
        tokio::time::sleep(RESPONSE_DELAY * 2).await;
        Self {
            harness,
            proxy,
            site,
            callback,
        }
    }

    /// Ends the outage, and waits until the login has ended. Returns the answer to the browser.
    async fn end(self) -> (Harness, Reply) {
        tokio::time::sleep(OUTAGE).await;
        self.proxy.silent(false);
        let reply = self.callback.await.unwrap();
        self.site.users.shutdown(Duration::from_secs(20)).await;
        (self.harness, reply)
    }
}

#[tokio::test]
async fn a_later_login_is_not_replaced() {
    for layout in [Layout::Hashes, Layout::Keys] {
        let waiting = WaitingLogin::start(layout).await;
        let later = waiting.harness.site().await;
        let browser = Browser::new();
        let me = format!("{}/me", later.url);
        let token = browser.open(&me).await.json()["token"].clone();
        let (harness, reply) = waiting.end().await;

        let users = harness.users().await;
        let stored = users.get(&UserId::new(ALICE).unwrap()).await.unwrap();
        assert_eq!(token, stored.access_token().expose(), "{layout:?}");
        let pair = harness.sim.current_pair(ALICE).unwrap();
        assert_eq!(token, pair.access_token, "{layout:?}");
        assert_eq!(browser.visit(&me).await.json()["token"], token);
        assert!(
            reply.location().is_some() || reply.status == 503,
            "{}",
            reply.status
        );
    }
}

#[tokio::test]
async fn a_later_logout_everywhere_is_not_undone() {
    let waiting = WaitingLogin::start(Layout::Hashes).await;
    let alice = UserId::new(ALICE).unwrap();
    waiting.harness.users().await.revoke(&alice).await.unwrap();
    let (harness, _) = waiting.end().await;
    let found = harness.users().await.get(&alice).await;
    assert_eq!(found.unwrap_err().kind(), ErrorKind::LoginRequired);
}

#[tokio::test]
async fn the_tokens_keep_their_expiry() {
    let waiting = WaitingLogin::start(Layout::Keys).await;
    let received = waiting.harness.clock.now();
    let (harness, _) = waiting.end().await;
    let users = harness.users().await;
    let stored = users.get(&UserId::new(ALICE).unwrap()).await.unwrap();
    let pair = harness.sim.current_pair(ALICE).unwrap();
    assert_eq!(stored.access_token().expose(), pair.access_token);
    let lifetime = received.duration_until(stored.lifetime().expires_at());
    assert!(lifetime <= Duration::from_secs(7_200), "{lifetime:?}");
}
