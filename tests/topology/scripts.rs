//! Tests of servers and proxies with rules for scripts: some do not allow `PUBLISH` in a script,
//! and some inspect its text.

use std::time::Duration;

use tower_wechat::client::UserTokenResponse;
use tower_wechat::redis::{Layout, RedisStoreBuilder};
use tower_wechat::{ErrorKind, RedisStore, UserId, UserTokens, WechatClient};

use crate::support::eventually;
use crate::support::old_proxy::{Manner, OldProxy};
use crate::support::redis_server::RedisServer;

/// Maximum time for an invalidation, 5 s. Without one, the cache would change only after
/// `cache_ttl`, a minute.
const SOON: Duration = Duration::from_secs(5);

fn user() -> UserId {
    UserId::new("oUser").unwrap()
}

async fn users(builder: &RedisStoreBuilder) -> UserTokens {
    let store = builder.clone().connect().await.unwrap();
    UserTokens::new(WechatClient::new("wx0", "secret").unwrap(), store)
}

async fn sign_in(users: &UserTokens, token: &str) {
    let grant = UserTokenResponse::new(token)
        .expires_in(7_200)
        .refresh_token("r");
    users.store(&user(), &grant).await.unwrap();
}

/// Checks that one process soon sees what another one writes and deletes.
async fn invalidations_arrive(builder: &RedisStoreBuilder, what: &str) {
    let (one, other) = (users(builder).await, users(builder).await);
    sign_in(&one, "first").await;
    let seen = async || other.get(&user()).await;
    assert_eq!(seen().await.unwrap().access_token().expose(), "first");
    let mut written = 0;
    eventually(&format!("a write is seen: {what}"), SOON, async || {
        written += 1;
        let token = format!("token-{written}");
        sign_in(&one, &token).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        seen().await.unwrap().access_token().expose() == token
    })
    .await;
    one.revoke(&user()).await.unwrap();
    eventually(&format!("a logout is seen: {what}"), SOON, async || {
        seen()
            .await
            .is_err_and(|error| error.kind() == ErrorKind::LoginRequired)
    })
    .await;
    one.health().await.unwrap();
}

/// Returns stores that read one layout, with and without writes to the other one.
fn each_layout(url: &str) -> [(RedisStoreBuilder, String); 4] {
    let builder = RedisStore::builder(url);
    [
        (Layout::Hashes, None),
        (Layout::Keys, None),
        (Layout::Hashes, Some(Layout::Keys)),
        (Layout::Keys, Some(Layout::Hashes)),
    ]
    .map(|(layout, mirror)| {
        let builder = builder.clone().layout(layout);
        let what = format!("{layout:?}, mirror {mirror:?}");
        match mirror {
            Some(mirror) => (builder.dual_write(mirror), what),
            None => (builder, what),
        }
    })
}

/// Scripts on this server cannot call `PUBLISH`, so the store publishes by a separate command.
#[tokio::test(flavor = "multi_thread")]
async fn invalidation_works_if_scripts_may_not_publish() {
    let server = RedisServer::with_options(&["--rename-command", "PUBLISH", "XPUBLSH"]);
    let proxy = OldProxy::start(&server.address(), Manner::RenamesPublish).await;
    for (builder, what) in each_layout(&format!("redis://{}/", proxy.address())) {
        invalidations_arrive(&builder, &what).await;
    }
}

/// The proxy rejects scripts that publish or that do not name their keys literally. Invalidations
/// still arrive.
#[tokio::test(flavor = "multi_thread")]
async fn invalidation_works_if_scripts_are_inspected() {
    let server = RedisServer::start();
    let proxy = OldProxy::start(&server.address(), Manner::ChecksScripts).await;
    for (builder, what) in each_layout(&format!("redis://{}/", proxy.address())) {
        invalidations_arrive(&builder, &what).await;
    }
    assert!(proxy.received("refused") > 0, "it has looked at texts");
}

/// If scripts may publish, the store does not publish by separate commands.
#[tokio::test(flavor = "multi_thread")]
async fn scripts_that_may_publish_are_one_round_trip() {
    let server = RedisServer::start();
    let proxy = OldProxy::start(&server.address(), Manner::Says("ERR unknown command")).await;
    let url = format!("redis://{}/", proxy.address());
    let users = users(&RedisStore::builder(&url)).await;
    for n in 0..50 {
        sign_in(&users, &format!("token-{n}")).await;
    }
    assert!(server.calls("publish") >= 50);
    // Heartbeats are separate commands, one every two seconds.
    let apart = proxy.received("PUBLISH");
    assert!(apart < 25, "{apart}");
}
