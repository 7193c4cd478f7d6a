//! Tests of TLS with a private authority and a client certificate, and of wrong certificates.

use tower_wechat::redis::{Layout, RedisStoreBuilder};
use tower_wechat::{ErrorKind, RedisStore};

use crate::mistakes::refused;
use crate::support::certificates::Certificates;
use crate::support::free_port;
use crate::support::redis_server::RedisServer;

/// Starts a server with a TLS port and a plain port. `shows` names the server's certificate, and
/// `wants_one` says whether clients need one. Returns the server and its `rediss://` URL.
fn server(certificates: &Certificates, shows: &str, wants_one: bool) -> (RedisServer, String) {
    let port = free_port().to_string();
    let mut options = vec!["--tls-port".to_owned(), port.clone()];
    options.extend(certificates.options(shows, wants_one));
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let server = RedisServer::with_options(&options);
    (server, format!("rediss://127.0.0.1:{port}/"))
}

fn trusting(url: &str, certificates: &Certificates) -> RedisStoreBuilder {
    RedisStore::builder(url).certificate_authority(certificates.read("authority.pem"))
}

fn known(url: &str, certificates: &Certificates) -> RedisStoreBuilder {
    trusting(url, certificates).client_certificate(
        certificates.read("client.pem"),
        certificates.read("client.key"),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_authority_and_a_client_certificate() {
    let (ours, others) = (Certificates::new(), Certificates::new());
    let (_server, url) = server(&ours, "server", true);
    known(&url, &ours).connect().await.unwrap();

    let wrong = ErrorKind::Configuration;
    refused(trusting(&url, &ours), wrong, &["client_certificate"]).await;
    let stranger = trusting(&url, &ours)
        .client_certificate(others.read("client.pem"), others.read("client.key"));
    refused(stranger, wrong, &["client_certificate"]).await;
    refused(known(&url, &others), wrong, &["certificate_authority"]).await;
    refused(RedisStore::builder(&url), wrong, &["certificate_authority"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_certificate() {
    let ours = Certificates::new();
    let (_server, url) = server(&ours, "expired", false);
    let says = ["Redis at 127.0.0.1:", "a certificate that has expired"];
    refused(trusting(&url, &ours), ErrorKind::Configuration, &says).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_to_a_plain_port_and_the_reverse() {
    let ours = Certificates::new();
    let (server, url) = server(&ours, "server", false);
    let plain = url.replace("rediss://", "redis://");
    refused(
        RedisStore::builder(&plain),
        ErrorKind::StoreUnavailable,
        &["closed the connection at once", "rediss://"],
    )
    .await;
    let tls = format!("rediss://{}/", server.address());
    refused(
        trusting(&tls, &ours),
        ErrorKind::StoreUnavailable,
        &["did not answer", "that it speaks TLS"],
    )
    .await;
}

#[tokio::test]
async fn invalid_certificates() {
    let ours = Certificates::new();
    let tls = "rediss://127.0.0.1:1/";
    let wrong = ErrorKind::Configuration;
    let empty = RedisStore::builder(tls).certificate_authority("no certificate");
    refused(empty, wrong, &["certificate authority", "PEM"]).await;
    let no_key =
        trusting(tls, &ours).client_certificate(ours.read("client.pem"), "s3cret-of-redis");
    refused(no_key, wrong, &["no private key"]).await;
    let plain = trusting("redis://127.0.0.1:1/", &ours);
    refused(plain, wrong, &["rediss://"]).await;
}

/// A Sentinel and a server whose TLS ports require a client certificate.
#[tokio::test(flavor = "multi_thread")]
async fn sentinels_over_tls() {
    let ours = Certificates::new();
    let (server, url) = server(&ours, "server", true);
    let tls_port = url.trim_end_matches('/').rsplit(':').next().unwrap();
    let port = free_port();
    let file = |name: &str| ours.text(name);
    let sentinel = RedisServer::sentinel(&format!(
        "tls-port {port}\ntls-cert-file {}\ntls-key-file {}\ntls-ca-cert-file {}\n\
         tls-replication yes\nsentinel monitor main 127.0.0.1 {tls_port} 1\n",
        file("server.pem"),
        file("server.key"),
        file("authority.pem"),
    ));
    let url = format!("rediss+sentinel://127.0.0.1:{port}/main");
    known(&url, &ours).connect().await.unwrap();
    refused(
        trusting(&url, &ours),
        ErrorKind::Configuration,
        &["client_certificate"],
    )
    .await;
    drop((server, sentinel));
}

/// Connects with a client certificate to a Cluster of one node that serves all slots.
#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_over_tls() {
    let ours = Certificates::new();
    let (port, bus) = (free_port().to_string(), free_port().to_string());
    let mut options = vec!["--tls-port".to_owned(), port.clone()];
    options.extend(ours.options("server", true));
    let cluster = [
        "--tls-cluster",
        "yes",
        "--cluster-enabled",
        "yes",
        "--cluster-port",
        &bus,
    ];
    options.extend(cluster.map(str::to_owned));
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let node = RedisServer::with_options(&options);
    let mut take = redis::cmd("CLUSTER");
    let () = take
        .arg("ADDSLOTSRANGE")
        .arg(0)
        .arg(16_383)
        .query(&mut node.connection())
        .unwrap();
    let url = format!("rediss+cluster://127.0.0.1:{port}");
    let connected = async || known(&url, &ours).layout(Layout::Keys).connect().await;
    // The node needs a moment until it reports the Cluster as ready.
    crate::support::eventually(
        "the Cluster is up",
        std::time::Duration::from_secs(30),
        async || connected().await.is_ok(),
    )
    .await;
}
