//! Tests of the program on a Cluster, behind Sentinels, and over TLS.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Duration;

use tower_wechat::client::UserTokenResponse;
use tower_wechat::redis::{Layout, RedisStoreBuilder};
use tower_wechat::{RedisStore, UserId, UserTokens, WechatClient};

use super::program::{Ran, command, run};
use crate::support::certificates::Certificates;
use crate::support::proxy::{Proxy, Weather};
use crate::support::redis_cluster::RedisCluster;
use crate::support::redis_server::RedisServer;
use crate::support::sentinel_group::SentinelGroup;
use crate::support::{eventually, free_port};

const APP: &str = "wx0123456789abcdef";

/// Stores tokens of `count` users in the key layout, and returns the ids of the users.
async fn users(builder: RedisStoreBuilder, count: usize) -> BTreeSet<String> {
    let store = builder.layout(Layout::Keys).connect().await.unwrap();
    let client = WechatClient::new(APP, "secret").unwrap();
    let users = UserTokens::new(client, store);
    let ids: BTreeSet<String> = (0..count).map(|number| format!("oUser{number}")).collect();
    for id in &ids {
        let grant = UserTokenResponse::new(format!("access-of-{id}"))
            .expires_in(7_200)
            .refresh_token(format!("refresh-of-{id}"));
        users
            .store(&UserId::new(id).unwrap(), &grant)
            .await
            .unwrap();
    }
    ids
}

fn on_keys(url: &str) -> [(&str, &str); 3] {
    [
        ("REDIS_URL", url),
        ("REDIS_LAYOUT", "keys"),
        ("WECHAT_APPID", APP),
    ]
}

/// Runs the program on the Redis at `url`, with the key layout.
async fn at(url: &str, arguments: &[&str], more: &[(&str, &str)]) -> Ran {
    let mut variables = on_keys(url).to_vec();
    variables.extend(more);
    run(arguments, &variables).await
}

fn listed(ran: &Ran) -> BTreeSet<String> {
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let user = |line: &serde_json::Value| line["user"].as_str().unwrap().to_owned();
    ran.lines().iter().map(user).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn users_of_a_cluster_are_listed_and_sealed() {
    let cluster = RedisCluster::start().await;
    let url = cluster.url("");
    let ids = users(RedisStore::builder(&url), 700).await;
    let list = ["list", "--json", "--pause-ms", "0"];
    let before = at(&url, &list, &[]).await;
    assert_eq!(listed(&before), ids);
    assert_eq!(before.lines().len(), ids.len(), "each is listed once");

    use base64::Engine as _;
    let key = base64::engine::general_purpose::STANDARD.encode([7; 32]);
    let key = [("SEALING_KEY", key.as_str())];
    let reseal = ["reseal", "--json", "--pause-ms", "0"];
    let sealed = at(&url, &reseal, &key).await.result();
    assert_eq!(sealed["written"], ids.len(), "{sealed}");
    let after = at(&url, &list, &key).await;
    assert_eq!(listed(&after), ids);
    let fresh = |line: &serde_json::Value| line["state"] == "fresh";
    assert!(after.lines().iter().all(fresh), "{}", after.stdout);
    let shown = at(&url, &["show", "oUser1", "--json"], &key).await;
    let open = before
        .lines()
        .into_iter()
        .find(|line| line["user"] == "oUser1")
        .unwrap();
    assert_eq!(
        shown.lines()[0]["token_fingerprint"],
        open["token_fingerprint"]
    );

    for (to, says) in [("keys", "hash tag"), ("hashes", "different slots")] {
        let rejected = at(&url, &["migrate", "--to", to], &key).await;
        assert_eq!(rejected.code, 1);
        assert_eq!(rejected.stderr.lines().count(), 1, "{}", rejected.stderr);
        assert!(rejected.stderr.contains(says), "{}", rejected.stderr);
    }
}

/// The timeout of a command applies to each read, and not to all reads of a step together.
#[tokio::test(flavor = "multi_thread")]
async fn users_of_a_distant_cluster_are_listed_and_sealed() {
    let front = Proxy::start("127.0.0.1:1", 7).await;
    let (bus, port) = (free_port().to_string(), front.address().port().to_string());
    let options = ["--cluster-enabled", "yes", "--cluster-port", &bus];
    let announce = [
        "--cluster-announce-ip",
        "127.0.0.1",
        "--cluster-announce-port",
        &port,
    ];
    let node = RedisServer::with_options(&[&options[..], &announce].concat());
    front.lead_to(&node.address());
    let mut take = redis::cmd("CLUSTER");
    take.arg(&["ADDSLOTSRANGE", "0", "16383"]);
    let () = take.query(&mut node.connection()).unwrap();
    let url = format!("redis+cluster://{}", front.address());
    let builder = RedisStore::builder(&url);
    eventually("the Cluster is up", Duration::from_secs(30), async || {
        builder.clone().layout(Layout::Keys).connect().await.is_ok()
    })
    .await;
    let ids = users(builder, 300).await;

    // Each reply is delayed by 100 ms on average. A step has more than a hundred reads, which
    // together take longer than the program waits for one reply.
    let weather = Weather {
        delay: 1_000,
        longest_delay: Duration::from_millis(200),
        ..Weather::CALM
    };
    front.weather(weather);
    let list = ["list", "--json", "--pause-ms", "0"];
    assert_eq!(listed(&at(&url, &list, &[]).await), ids);
    // A delay of 6 ms on average, because `reseal` needs several commands for each user.
    front.weather(Weather {
        longest_delay: Duration::from_millis(12),
        ..weather
    });
    use base64::Engine as _;
    let key = base64::engine::general_purpose::STANDARD.encode([7; 32]);
    let reseal = ["reseal", "--json", "--pause-ms", "0"];
    let sealed = at(&url, &reseal, &[("SEALING_KEY", &key)]).await.result();
    assert_eq!(sealed["written"], ids.len(), "{sealed}");
}

/// A slot moves during the list, from a server whose users are not listed yet to one whose users
/// are. The list lacks the users of that slot, so the program reports the move and fails.
#[tokio::test(flavor = "multi_thread")]
async fn slots_that_move_during_a_list_are_reported() {
    let cluster = RedisCluster::start().await;
    let url = cluster.url("");
    let ids = users(RedisStore::builder(&url), 300).await;
    // The program pauses for 3 s after each step, which is longer than the move of a slot takes.
    let arguments = ["list", "--json", "--pause-ms", "3000"];
    let mut listing = command(&arguments, &on_keys(&url))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let ended = tokio::task::spawn_blocking(move || {
        let mut lines = BufReader::new(listing.stdout.take().unwrap()).lines();
        lines.next().expect("a user").unwrap();
        cluster.reshard_away("wechat:wx0:user:oUser1", 1);
        lines.for_each(drop);
        let ended = listing.wait_with_output().unwrap();
        (ended, cluster)
    });
    let (ended, _cluster) = ended.await.unwrap();
    let says = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(1), "{says}");
    assert!(says.contains("have moved meanwhile"), "{says}");
    assert_eq!(listed(&at(&url, &["list", "--json"], &[]).await), ids);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_primary_is_found_by_its_sentinels() {
    let group = SentinelGroup::start().await;
    let url = group.url("");
    let ids = users(RedisStore::builder(&url), 20).await;
    assert_eq!(listed(&at(&url, &["list", "--json"], &[]).await), ids);
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_works_with_a_private_authority() {
    let certificates = Certificates::new();
    let port = crate::support::free_port().to_string();
    let mut options = vec!["--tls-port".to_owned(), port.clone()];
    options.extend(certificates.options("server", true));
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let _redis = RedisServer::with_options(&options);
    let url = format!("rediss://127.0.0.1:{port}/");
    let builder = RedisStore::builder(&url)
        .certificate_authority(certificates.read("authority.pem"))
        .client_certificate(
            certificates.read("client.pem"),
            certificates.read("client.key"),
        );
    let ids = users(builder, 5).await;

    let (authority, certificate, key) = (
        certificates.text("authority.pem"),
        certificates.text("client.pem"),
        certificates.text("client.key"),
    );
    let trusted = ("REDIS_CA", authority.as_str());
    let known = [
        trusted,
        ("REDIS_CLIENT_CERT", certificate.as_str()),
        ("REDIS_CLIENT_KEY", key.as_str()),
    ];
    assert_eq!(listed(&at(&url, &["list", "--json"], &known).await), ids);
    for (variables, says) in [
        (&[][..], "certificate"),
        (&known[..1], "certificate"),
        (&known[..2], "set both of REDIS_CLIENT_CERT"),
        (
            &[("REDIS_CA", "/nowhere.pem")][..],
            "REDIS_CA=/nowhere.pem: ",
        ),
    ] {
        let ran = at(&url, &["list"], variables).await;
        let code = if says.starts_with("set both") { 2 } else { 1 };
        assert_eq!(ran.code, code, "{variables:?}");
        assert_eq!(ran.stderr.lines().count(), 1, "{}", ran.stderr);
        assert!(ran.stderr.contains(says), "{says}: {}", ran.stderr);
    }
}
