//! Tests of servers and proxies with RESP2 only. Each rejects `HELLO` with another message, or
//! closes the connection.

use std::time::Duration;

use tower_wechat::client::UserTokenResponse;
use tower_wechat::redis::{Layout, RedisStoreBuilder};
use tower_wechat::{ErrorKind, RedisStore, UserId, UserTokens, WechatClient};

use crate::mistakes::refused;
use crate::support::eventually;
use crate::support::free_port;
use crate::support::old_proxy::{Manner, OldProxy};
use crate::support::redis_server::RedisServer;

/// Replies to `HELLO 3`: those of known products, and others that are possible.
const MANNERS: &[Manner] = &[
    Manner::Says("ERR unknown command 'HELLO'"),
    Manner::Says("ERR unknown command `hello`, with args beginning with: `3`, "),
    Manner::Says("ERR unknown command `HELLO`, with args beginning with: `3`, "),
    Manner::Says("NOPROTO unsupported protocol version"),
    Manner::Says("NOPERM this user has no permissions to run the 'hello' command"),
    Manner::Says("ERR command is not supported"),
    Manner::Says("ERR wrong number of arguments"),
    Manner::Says("UNSUPPORTED"),
    Manner::HangsUp,
];

fn users(store: RedisStore) -> UserTokens {
    UserTokens::new(WechatClient::new("wx0", "secret").unwrap(), store)
}

async fn sign_in(users: &UserTokens, token: &str) {
    let grant = UserTokenResponse::new(token)
        .expires_in(7_200)
        .refresh_token("r");
    let user = UserId::new("oUser").unwrap();
    users.store(&user, &grant).await.unwrap();
}

/// Checks that two processes share a user's tokens and receive each other's invalidations.
async fn works(builder: &RedisStoreBuilder, what: &str) {
    let one = users(builder.clone().connect().await.expect(what));
    let other = users(builder.clone().connect().await.expect(what));
    let user = UserId::new("oUser").unwrap();
    sign_in(&one, "first").await;
    assert_eq!(
        other.get(&user).await.unwrap().access_token().expose(),
        "first"
    );
    one.health().await.expect(what);
    let mut written = 0;
    eventually(
        "the other process hears of it",
        Duration::from_secs(5),
        async || {
            written += 1;
            let token = format!("token-{written}");
            sign_in(&one, &token).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
            other.get(&user).await.unwrap().access_token().expose() == token
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn any_rejection_of_hello_leads_to_resp2() {
    let server = RedisServer::with_options(&["--requirepass", "word"]);
    for manner in MANNERS {
        let proxy = OldProxy::start(&server.address(), *manner).await;
        for layout in [Layout::Hashes, Layout::Keys] {
            let url = format!("redis://:word@{}/2", proxy.address());
            works(
                &RedisStore::builder(&url).layout(layout),
                &format!("{manner:?}"),
            )
            .await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn resp2_can_be_configured() {
    let server = RedisServer::start();
    for manner in [Manner::Says("ERR no such command"), Manner::HangsUp] {
        let proxy = OldProxy::start(&server.address(), manner).await;
        let url = format!("redis://{}/?protocol=resp2", proxy.address());
        works(&RedisStore::builder(&url), &url).await;
        assert_eq!((proxy.received("HELLO"), proxy.received("CLIENT")), (0, 0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sentinels_and_their_servers_may_be_old() {
    let server = RedisServer::start();
    let data = OldProxy::start(&server.address(), MANNERS[0]).await;
    let monitor = format!(
        "sentinel monitor main 127.0.0.1 {} 1\n",
        data.address().port()
    );
    let sentinel = RedisServer::sentinel(&monitor);
    for manner in [MANNERS[1], Manner::HangsUp] {
        let front = OldProxy::start(&sentinel.address(), manner).await;
        let url = format!("redis+sentinel://{}/main", front.address());
        works(&RedisStore::builder(&url).layout(Layout::Keys), &url).await;
        let url = format!("{url}?protocol=resp2");
        works(&RedisStore::builder(&url).layout(Layout::Keys), &url).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_nodes_of_a_cluster_may_be_old() {
    let front = OldProxy::start("127.0.0.1:1", MANNERS[0]).await;
    let (bus, port) = (free_port().to_string(), front.address().port().to_string());
    let options = ["--cluster-enabled", "yes", "--cluster-port", &bus];
    let announce = [
        "--cluster-announce-ip",
        "127.0.0.1",
        "--cluster-announce-port",
        &port,
    ];
    let node = RedisServer::with_options(&[&options[..], &announce].concat());
    front.stand_before(&node.address());
    let mut take = redis::cmd("CLUSTER");
    take.arg(&["ADDSLOTSRANGE", "0", "16383"]);
    let () = take.query(&mut node.connection()).unwrap();
    let url = format!("redis+cluster://{}", front.address());
    let builder = RedisStore::builder(&url).layout(Layout::Keys);
    let up = async || builder.clone().connect().await.is_ok();
    eventually("the Cluster is up", Duration::from_secs(30), up).await;
    works(&builder, &url).await;
}

/// A wrong password is reported as such, for any reply of the server to `HELLO`.
#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_reported_on_resp2() {
    let server = RedisServer::with_options(&["--requirepass", "right"]);
    for manner in MANNERS.iter().chain(&[
        Manner::Says("WRONGPASS invalid username-password pair or user is disabled."),
        Manner::Says("NOAUTH Authentication required."),
    ]) {
        let proxy = OldProxy::start(&server.address(), *manner).await;
        for user in [":wrong@", ""] {
            let url = format!("redis://{user}{}/", proxy.address());
            let says = ["rejected the user or password"];
            refused(RedisStore::builder(&url), ErrorKind::Configuration, &says).await;
        }
    }
    let words = "WRONGPASS invalid username-password pair or user is disabled.";
    let proxy = OldProxy::start(&server.address(), Manner::Says(words)).await;
    let url = format!("redis://:wrong@{}/", proxy.address());
    assert!(RedisStore::connect(&url).await.is_err());
    assert_eq!(proxy.received("AUTH"), 0, "it is not tried twice");
}

/// A proxy rejects `HELLO` without a password. The store then authenticates with `AUTH` and uses
/// RESP2.
#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_requires_auth_first() {
    let server = RedisServer::with_options(&["--requirepass", "word"]);
    let manner = Manner::Says("NOAUTH Authentication required.");
    let proxy = OldProxy::start(&server.address(), manner).await;
    let url = format!("redis://:word@{}/", proxy.address());
    works(&RedisStore::builder(&url), &url).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_always_hangs_up_may_speak_tls() {
    let server = RedisServer::start();
    let proxy = OldProxy::start(&server.address(), Manner::HangsUpAtEverything).await;
    let url = format!("redis://{}/", proxy.address());
    let says = ["closed the connection at once", "rediss://"];
    refused(
        RedisStore::builder(&url),
        ErrorKind::StoreUnavailable,
        &says,
    )
    .await;
}

/// The address begins to lead to a server with RESP2 only. The store reconnects in RESP2.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_downgraded_to_resp2_works_again() {
    use crate::support::proxy::Proxy;

    let server = RedisServer::start();
    let proxy = Proxy::start(&server.address(), 1).await;
    let url = format!("redis://{}/", proxy.address());
    for manner in [MANNERS[0], Manner::HangsUp] {
        proxy.lead_to(&server.address());
        let users = users(RedisStore::connect(&url).await.unwrap());
        sign_in(&users, "before").await;
        let old = OldProxy::start(&server.address(), manner).await;
        proxy.lead_to(&old.address().to_string());
        proxy.cut_all();
        // A connection is cut in its own task. Until then, Redis still receives commands through it.
        eventually("it works in RESP2", Duration::from_secs(10), async || {
            let scripts = || old.received("EVALSHA") + old.received("EVAL");
            users.health().await.is_ok() && scripts() > 0
        })
        .await;
        sign_in(&users, "after").await;
    }
}
