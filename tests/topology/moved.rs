//! Tests of an address that begins to lead to another server, as a virtual IP or the endpoint of a
//! managed Redis does. The former primary becomes a replica and keeps its connections.

use std::time::{Duration, Instant};

use redis::Commands;
use tower_wechat::redis::ExternalToken;
use tower_wechat::{AccountTokens, RedisStore, WechatClient};

use crate::support::demo_process::DemoProcess;
use crate::support::eventually;
use crate::support::free_port;
use crate::support::harness::{Age, Harness, Layout};
use crate::support::http_client::{Answer, Asked};
use crate::support::proxy::Proxy;
use crate::support::redis_server::RedisServer;

/// Maximum time until users are served after the address has moved, 5 s.
const SERVED_WITHIN: Duration = Duration::from_secs(5);

/// A primary, its replica, and an address that leads to one of them.
struct Pair {
    first: RedisServer,
    second: RedisServer,
    endpoint: Proxy,
}

impl Pair {
    async fn start() -> Self {
        let first = RedisServer::start();
        let port = first.port().to_string();
        let second = RedisServer::with_options(&["--replicaof", "127.0.0.1", &port]);
        let endpoint = Proxy::start(&first.address(), 1).await;
        eventually(
            "the replica is filled",
            Duration::from_secs(20),
            async || {
                let info: String = redis::cmd("INFO")
                    .arg("replication")
                    .query(&mut second.connection())
                    .unwrap();
                info.contains("master_link_status:up")
            },
        )
        .await;
        Self {
            first,
            second,
            endpoint,
        }
    }

    fn url(&self) -> String {
        format!("redis://{}/", self.endpoint.address())
    }

    /// Makes the replica the primary, and the primary a replica of it. The address still leads to
    /// the former primary.
    fn swap(&self) {
        let copied: u64 = redis::cmd("WAIT")
            .arg(&[1, 5_000])
            .query(&mut self.first.connection())
            .unwrap();
        assert_eq!(copied, 1, "the replica has all");
        follow(&self.second, &["NO", "ONE"]);
        follow(&self.first, &["127.0.0.1", &self.second.port().to_string()]);
    }

    fn lead_to_the_second(&self) -> Instant {
        self.endpoint.lead_to(&self.second.address());
        Instant::now()
    }
}

fn follow(server: &RedisServer, whom: &[&str]) {
    let mut command = redis::cmd("REPLICAOF");
    let () = command.arg(whom).query(&mut server.connection()).unwrap();
}

fn listeners(server: &RedisServer, app: &str) -> u64 {
    let mut ask = redis::cmd("PUBSUB");
    ask.arg("NUMSUB").arg(format!("wechat:{app}:news"));
    let (_, count): (String, u64) = ask.query(&mut server.connection()).unwrap();
    count
}

async fn healthz(demo: &DemoProcess) -> Answer {
    demo.ask(Asked::get("/healthz")).await
}

async fn moves(layout: Layout) {
    let pair = Pair::start().await;
    let mut harness = Harness::on(RedisServer::start(), layout).await;
    harness.variables = vec![
        ("REDIS_URL".to_owned(), pair.url()),
        ("CACHE_TTL_SECS".to_owned(), "1".to_owned()),
    ];
    let Pair { first, .. } = &pair;
    for expired in ["oExpired", "oWaiting", "oIdle"] {
        store(&harness, first, expired, Age::Expired).await;
    }
    for fresh in ["oReader", "oHeld"] {
        store(&harness, first, fresh, Age::Fresh).await;
    }
    let [busy, idle] = harness.demos().await;
    for demo in [&busy, &idle] {
        assert_eq!(demo.me("oHeld").await.status, 200);
    }
    assert_eq!(healthz(&busy).await.status, 200);
    let app = harness.wechat.app_id().to_owned();
    eventually("both listen", Duration::from_secs(10), async || {
        listeners(&pair.first, &app) == 2
    })
    .await;

    pair.swap();
    // This demo gets only requests that read. The health check itself finds out that writes are
    // rejected.
    eventually("not ready", Duration::from_secs(5), async || {
        assert_eq!(busy.me("oReader").await.status, 200);
        healthz(&busy).await.status == 503
    })
    .await;
    let away = healthz(&busy).await;
    assert_eq!(away.field("status"), "unavailable", "{away:?}");
    assert_eq!(away.field("serves"), "stored_tokens", "{away:?}");
    assert!(away.field("reason").contains("replica"), "{away:?}");
    let refused = busy.me("oExpired").await;
    refused.is_rejected(503, "store_unavailable");
    assert_eq!(busy.me("oReader").await.status, 200);

    let began = pair.lead_to_the_second();
    eventually("renewals work", SERVED_WITHIN, async || {
        busy.me("oExpired").await.status == 200
    })
    .await;
    eventually("ready", SERVED_WITHIN, async || {
        healthz(&busy).await.status == 200
    })
    .await;
    println!(
        "{layout:?}: served {:?} after the address has moved",
        began.elapsed()
    );
    assert_eq!(busy.me("oWaiting").await.status, 200);
    // The other demo got no requests meanwhile, has subscribed at the new primary, and serves its
    // users at once.
    eventually("both listen there", SERVED_WITHIN, async || {
        listeners(&pair.second, &app) == 2 && listeners(&pair.first, &app) == 0
    })
    .await;
    assert_eq!(idle.me("oIdle").await.status, 200);
    assert_eq!(idle.me("oExpired").await.status, 200);
    assert_eq!(
        pair.endpoint.damage().cut,
        0,
        "no connection was cut for us"
    );
}

/// Writes a user's pair to a server.
async fn store(harness: &Harness, server: &RedisServer, user: &str, age: Age) {
    harness.sign_in(user, age).await;
    let mut from = harness.connection();
    let mut to = server.connection();
    for key in from.keys::<_, Vec<String>>("*").unwrap() {
        let dump: Vec<u8> = redis::cmd("DUMP").arg(&key).query(&mut from).unwrap();
        let mut restore = redis::cmd("RESTORE");
        restore.arg(&key).arg(0).arg(dump).arg("REPLACE");
        let () = restore.query(&mut to).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_server_takes_over_behind_the_address_hashes() {
    moves(Layout::Hashes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_server_takes_over_behind_the_address_keys() {
    moves(Layout::Keys).await;
}

/// A process that follows another system's token only reads, so no rejected write shows that the
/// server has changed. The process still leaves the former primary.
#[tokio::test(flavor = "multi_thread")]
async fn a_follower_leaves_a_former_primary() {
    let pair = Pair::start().await;
    let set = |server: &RedisServer, token: &str| {
        let () = server
            .connection()
            .set_ex("followed", token, 7_200)
            .unwrap();
    };
    set(&pair.first, "of-the-first");
    let client = WechatClient::new("wx0", "secret").unwrap();
    let store = RedisStore::connect(&pair.url()).await.unwrap();
    let token = ExternalToken::raw("followed");
    let accounts = AccountTokens::builder(token.source(client, store.clone()), store)
        .cache_ttl(Duration::from_secs(1))
        .build();
    assert_eq!(
        accounts.get().await.unwrap().access_token().expose(),
        "of-the-first"
    );
    // Time in which the process sees that the first server is a primary.
    tokio::time::sleep(Duration::from_secs(1)).await;
    pair.swap();
    // The former primary does not replicate the new one, and keeps the old token.
    follow(&pair.first, &["127.0.0.1", &free_port().to_string()]);
    set(&pair.second, "of-the-second");
    pair.lead_to_the_second();
    tokio::time::sleep(SERVED_WITHIN).await;
    accounts.health().await.unwrap();
    eventually("the new token", Duration::from_secs(60), async || {
        accounts.get().await.unwrap().access_token().expose() == "of-the-second"
    })
    .await;
}
