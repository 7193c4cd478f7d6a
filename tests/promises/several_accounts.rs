//! Tests of several accounts on one store: one connection receives the invalidations of all
//! accounts, and an account that is dropped leaves nothing behind.

use std::time::{Duration, SystemTime};

use redis::{Commands, Connection};
use tower_wechat::client::UserTokenResponse;
use tower_wechat::redis::{Layout, RedisStoreBuilder};
use tower_wechat::{AccountTokens, ErrorKind, RedisStore, Tickets, UserTokens, WechatClient};

use crate::harness::{Backend, Harness, REFRESH, id, text};
use crate::support::eventually;
use crate::support::redis_server::RedisServer;

/// Lifetime of cache entries, so long that only an invalidation can end it.
const HOUR: Duration = Duration::from_secs(3_600);

/// Maximum time for a change to arrive, 10 s. An idle machine needs milliseconds.
const SOON: Duration = Duration::from_secs(10);

fn app(number: usize) -> String {
    format!("wxapp{number}")
}

/// Returns clients of this many accounts. No server listens at their address.
fn clients(count: usize) -> Vec<WechatClient> {
    let first = WechatClient::builder(app(0), "secret").api_url("http://127.0.0.1:1");
    let first = first.build().unwrap();
    let other = |number| first.for_account(app(number), "secret").unwrap();
    (0..count).map(other).collect()
}

async fn store_at(
    url: &str,
    change: impl FnOnce(RedisStoreBuilder) -> RedisStoreBuilder,
) -> RedisStore {
    let builder = RedisStore::builder(url).layout(Layout::Keys);
    change(builder).connect().await.unwrap()
}

async fn store(server: &RedisServer) -> RedisStore {
    store_at(&server.url(), |builder| builder).await
}

fn users(client: &WechatClient, store: &RedisStore) -> UserTokens {
    let builder = UserTokens::builder(client.clone(), store.clone());
    builder.cache_ttl(HOUR).build()
}

fn all_users(clients: &[WechatClient], store: &RedisStore) -> Vec<UserTokens> {
    clients.iter().map(|client| users(client, store)).collect()
}

async fn log_in(users: &UserTokens, token: &str) {
    let grant = UserTokenResponse::new(token).expires_in(7_200);
    users.store(&id("oA"), &grant).await.unwrap();
}

async fn serves(users: &UserTokens, token: &str) {
    eventually("the newest token is served", SOON, async || {
        let served = users.get(&id("oA")).await;
        served.is_ok_and(|served| text(&served) == token)
    })
    .await;
}

/// Returns the channels that have a subscriber.
fn channels(connection: &mut Connection) -> Vec<String> {
    let mut ask = redis::cmd("PUBSUB");
    ask.arg("CHANNELS").query(connection).unwrap()
}

/// Returns the number of connections of this type.
fn connections(connection: &mut Connection, kind: &str) -> usize {
    let mut ask = redis::cmd("CLIENT");
    let list: String = ask.arg(&["LIST", "TYPE", kind]).query(connection).unwrap();
    list.lines().count()
}

async fn channels_become(server: &RedisServer, count: usize) {
    let mut connection = server.connection();
    eventually("the channels of all accounts", SOON, async || {
        channels(&mut connection).len() == count
    })
    .await;
}

fn alive_tasks() -> usize {
    tokio::runtime::Handle::current()
        .metrics()
        .num_alive_tasks()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_accounts_share_one_subscription_connection() {
    let server = RedisServer::start();
    let clients = clients(300);
    let (ours, theirs) = (store(&server).await, store(&server).await);
    let ours = all_users(&clients, &ours);
    channels_become(&server, clients.len()).await;
    let mut connection = server.connection();
    assert_eq!(connections(&mut connection, "pubsub"), 1);

    let theirs = all_users(&clients[..40], &theirs);
    for (ours, theirs) in ours.iter().zip(&theirs) {
        log_in(theirs, "first").await;
        serves(ours, "first").await;
    }
    for (number, (ours, theirs)) in ours.iter().zip(&theirs).enumerate() {
        let token = format!("second-{number}");
        log_in(theirs, &token).await;
        serves(ours, &token).await;
    }
    assert_eq!(connections(&mut connection, "pubsub"), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_accounts_catch_up_after_a_reconnect() {
    let server = RedisServer::start();
    let clients = clients(20);
    let (ours, theirs) = (store(&server).await, store(&server).await);
    let ours = all_users(&clients, &ours);
    let theirs = all_users(&clients, &theirs);
    let mut connection = server.connection();
    for round in 0..3 {
        channels_become(&server, clients.len()).await;
        for (ours, theirs) in ours.iter().zip(&theirs) {
            log_in(theirs, &format!("before-{round}")).await;
            serves(ours, &format!("before-{round}")).await;
        }
        let killed: u64 = redis::cmd("CLIENT")
            .arg(&["KILL", "TYPE", "pubsub"])
            .query(&mut connection)
            .unwrap();
        assert_eq!(killed, 2);
        // No process has a subscription when these logins are published.
        for (ours, theirs) in ours.iter().zip(&theirs) {
            log_in(theirs, &format!("after-{round}")).await;
            serves(ours, &format!("after-{round}")).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_channel_ends_with_the_last_engine_of_its_account() {
    let server = RedisServer::start();
    let clients = clients(10);
    let (ours, theirs) = (store(&server).await, store(&server).await);
    let mut accounts = all_users(&clients, &ours);
    let another = users(&clients[9], &ours);
    channels_become(&server, 10).await;
    accounts.truncate(4);
    channels_become(&server, 5).await;
    drop(another);
    channels_become(&server, 4).await;

    // The accounts that are left still receive changes, and an account may come back.
    let returned = users(&clients[9], &ours);
    channels_become(&server, 5).await;
    for (account, client) in [(&accounts[3], &clients[3]), (&returned, &clients[9])] {
        let elsewhere = users(client, &theirs);
        for token in ["first", "second"] {
            log_in(&elsewhere, token).await;
            serves(account, token).await;
        }
    }

    let mut connection = server.connection();
    drop((accounts, returned));
    eventually("no connection is left", SOON, async || {
        connections(&mut connection, "pubsub") == 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_channel_does_not_affect_the_others() {
    let server = RedisServer::start();
    let clients = clients(4);
    let () = redis::cmd("ACL")
        .arg(&["SETUSER", "some", "on", ">word", "~*", "+@all"])
        .arg("-unsubscribe")
        .arg(&[
            "resetchannels",
            "&wechat:wxapp1:news",
            "&wechat:wxapp3:news",
        ])
        .query(&mut server.connection())
        .unwrap();
    let url = server.url().replace("redis://", "redis://some:word@");
    let ours = store_at(&url, |builder| builder.exclusive_writer(true)).await;
    let ours = all_users(&clients, &ours);
    let theirs = all_users(&clients, &store(&server).await);
    channels_become(&server, 4).await;
    eventually("two processes listen", SOON, async || {
        let mut ask = redis::cmd("PUBSUB");
        ask.arg("NUMSUB")
            .arg(&["wechat:wxapp1:news", "wechat:wxapp3:news"]);
        let counts: (String, u64, String, u64) = ask.query(&mut server.connection()).unwrap();
        counts.1 == 2 && counts.3 == 2
    })
    .await;
    for number in [1, 3] {
        for token in ["first", "second"] {
            log_in(&theirs[number], token).await;
            serves(&ours[number], token).await;
        }
    }
    // The subscription of the other channels stays.
    let mut connection = server.connection();
    assert_eq!(connections(&mut connection, "pubsub"), 2);
    // A user of a refused account is served for `cache_ttl`, as without any channel.
    log_in(&theirs[0], "first").await;
    serves(&ours[0], "first").await;
    log_in(&theirs[0], "second").await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(text(&ours[0].get(&id("oA")).await.unwrap()), "first");

    // Redis does not permit UNSUBSCRIBE either. The dropped account does not affect the others.
    let [_, first, _, third] = <[UserTokens; 4]>::try_from(ours).unwrap();
    drop(first);
    tokio::time::sleep(Duration::from_millis(200)).await;
    log_in(&theirs[3], "third").await;
    serves(&third, "third").await;
}

/// Behind Sentinels and on a Cluster, too, one connection serves all accounts of a process.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_of_each_account_arrive_on_every_topology() {
    for backend in [
        Backend::SentinelHashes,
        Backend::ClusterKeys,
        Backend::ClusterHashes,
    ] {
        let harness = Harness::new(backend).await;
        let [ours, theirs] = [harness.redis_store().await, harness.redis_store().await];
        let account = |number| {
            let app = format!("{}x{number}", harness.simulator.app_id());
            harness.client().for_account(app, "secret").unwrap()
        };
        let clients: Vec<_> = (0..10).map(account).collect();
        let mut ours = all_users(&clients, &ours);
        let theirs = all_users(&clients, &theirs);
        for token in ["first", "second", "third"] {
            for (ours, theirs) in ours.iter().zip(&theirs) {
                log_in(theirs, token).await;
                serves(ours, token).await;
            }
            // The other accounts do not depend on the one that leaves.
            ours.pop();
        }
    }
}

/// One heartbeat proves the subscription of all accounts, so the number of heartbeats does not grow
/// with the number of accounts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_heartbeat_serves_all_accounts() {
    let server = RedisServer::start();
    let harness = Harness::new(Backend::Memory).await;
    let clients = clients(30);
    let ours = store_at(&server.url(), |builder| builder.exclusive_writer(true)).await;
    let user_tokens = |client: &WechatClient| {
        let builder = UserTokens::builder(client.clone(), ours.clone());
        builder.clock(harness.clock.clone()).build()
    };
    let ours: Vec<_> = clients.iter().map(user_tokens).collect();
    channels_become(&server, clients.len()).await;
    // Each new channel carries a heartbeat once. From then on, the channels take turns.
    eventually("a heartbeat for each account", SOON, async || {
        server.calls("publish") >= 30
    })
    .await;
    let proved = async || {
        let before = server.calls("publish");
        eventually("two heartbeats", SOON, async || {
            server.calls("publish") >= before + 2
        })
        .await;
    };
    proved().await;
    for users in &ours {
        log_in(users, "token").await;
    }
    let commands = || server.calls("get") + server.calls("hget") + server.calls("evalsha");
    proved().await;
    let (reads, heartbeats) = (commands(), server.calls("publish"));
    for _ in 0..2 {
        harness.clock.advance(Duration::from_secs(50));
        proved().await;
        for users in &ours {
            users.get(&id("oA")).await.unwrap();
        }
    }
    assert_eq!(commands() - reads, 0, "reads after 100 s by the clock");
    let heartbeats = server.calls("publish") - heartbeats;
    assert!(heartbeats <= 10, "{heartbeats} heartbeats of 30 accounts");
}

/// Stores the credentials of an account in the key layout, as another process would.
fn store_own_credentials(connection: &mut Connection, app: &str) {
    let tomorrow = SystemTime::now() + 24 * HOUR;
    let renew_at = tomorrow
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_millis();
    for kind in ["access_token", "jsapi_ticket"] {
        let key = format!("wechat:{app}:account:{kind}");
        let () = connection.set(key, format!("token#{renew_at}")).unwrap();
    }
}

/// Makes accounts, uses all their credentials, and drops them.
async fn use_accounts(clients: &[WechatClient], store: &RedisStore) {
    let mut accounts = Vec::new();
    for client in clients {
        let users = users(client, store);
        log_in(&users, "token").await;
        assert_eq!(text(&users.get(&id("oA")).await.unwrap()), "token");
        let error = users.get(&id("oB")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::LoginRequired);
        let tokens = AccountTokens::new(client.clone(), store.clone());
        assert_eq!(tokens.get().await.unwrap().access_token().expose(), "token");
        let tickets = Tickets::new(&tokens, ["h5.example.com"]).unwrap();
        assert_eq!(tickets.get().await.unwrap().ticket().expose(), "token");
        accounts.push((users, tokens, tickets));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropped_accounts_leave_no_task_and_no_connection() {
    let server = RedisServer::start();
    let mut connection = server.connection();
    let clients = clients(200);
    for client in &clients {
        store_own_credentials(&mut connection, client.app_id().as_str());
    }
    let store = store(&server).await;
    let start = alive_tasks();
    let normal = connections(&mut connection, "normal");
    for _ in 0..2 {
        use_accounts(&clients, &store).await;
        eventually("the tasks have ended", SOON, async || {
            alive_tasks() <= start
        })
        .await;
        eventually("the connections are closed", SOON, async || {
            connections(&mut connection, "pubsub") == 0
                && connections(&mut connection, "normal") == normal
        })
        .await;
    }
}

/// A renewal that runs when the last clone is dropped stores its token, and then ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewal_outlives_its_account() {
    let harness = Harness::new(Backend::Keys).await;
    let store = harness.redis_store().await;
    let start = alive_tasks();
    let builder = UserTokens::builder(harness.client(), store.clone());
    let users = builder.clock(harness.clock.clone()).build();
    harness.expired(&users, &["oA"]).await;
    let slow = tower_wechat::simulator::Fault::on(REFRESH).delay(Duration::from_secs(1));
    harness.simulator.inject(slow);
    let waiting = users.clone();
    let request = tokio::spawn(async move { waiting.get(&id("oA")).await.map(drop) });
    eventually("WeChat is asked", SOON, async || harness.refreshes() == 1).await;
    request.abort();
    let _ = request.await;
    drop(users);
    eventually("the task has ended", SOON, async || alive_tasks() <= start).await;
    let stored = harness.stored_token("oA").await.unwrap();
    assert_eq!(stored, harness.live_token("oA"));
    assert_eq!(harness.refreshes(), 1);
}
