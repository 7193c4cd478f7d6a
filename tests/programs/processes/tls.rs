//! Tests of `rediss://` with a real redis-server over TLS, whose certificate a private authority
//! has signed.

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

use crate::support::demo_process::DemoProcess;
use crate::support::free_port;
use crate::support::harness::{Age, Harness, Layout};
use crate::support::redis_server::RedisServer;

/// A folder with the certificate of an authority, and a server's certificate and key.
struct Certificates(PathBuf);

impl Certificates {
    fn new() -> Self {
        let folder = std::env::temp_dir().join(format!("tower-wechat-tls-{}", free_port()));
        std::fs::create_dir_all(&folder).unwrap();
        let certificates = Self(folder);

        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(DnType::CommonName, "authority of a test");
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();

        let key = KeyPair::generate().unwrap();
        let server = CertificateParams::new(["127.0.0.1".to_owned(), "localhost".to_owned()]);
        let server = server.unwrap().signed_by(&key, &authority).unwrap();

        for (name, pem) in [
            ("authority.pem", authority.pem()),
            ("server.pem", server.pem()),
            ("server.key", key.serialize_pem()),
        ] {
            std::fs::write(certificates.file(name), pem).unwrap();
        }
        certificates
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Starts a redis-server with this certificate. Returns the server and its TLS port; the server
    /// also has a plain port.
    fn server(&self) -> (RedisServer, u16) {
        let port = free_port();
        let path = |name: &str| self.file(name).to_str().unwrap().to_owned();
        let server = RedisServer::with_options(&[
            "--tls-port",
            &port.to_string(),
            "--tls-cert-file",
            &path("server.pem"),
            "--tls-key-file",
            &path("server.key"),
            "--tls-ca-cert-file",
            &path("authority.pem"),
            "--tls-auth-clients",
            "no",
        ]);
        (server, port)
    }
}

impl Drop for Certificates {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn trusting(mut variables: Vec<(String, String)>, file: &Path, url: &str) -> Vec<(String, String)> {
    variables.retain(|(name, _)| name != "REDIS_URL");
    variables.push(("REDIS_URL".to_owned(), url.to_owned()));
    variables.push((
        "SSL_CERT_FILE".to_owned(),
        file.to_str().unwrap().to_owned(),
    ));
    variables
}

async fn fails_to_start(variables: &[(String, String)], what: &str) {
    let ended = DemoProcess::start_in_vain(variables).await;
    assert_eq!(ended.status.code(), Some(1), "{what}: {}", ended.stderr);
    assert_eq!(ended.stderr.lines().count(), 1, "{what}: {}", ended.stderr);
    assert!(
        ended.stderr.starts_with("demo: REDIS_URL: Redis at "),
        "{what}: {}",
        ended.stderr
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_read_over_tls() {
    let certificates = Certificates::new();
    for (layout, host) in [(Layout::Hashes, "127.0.0.1"), (Layout::Keys, "localhost")] {
        let (redis, tls_port) = certificates.server();
        let harness = Harness::on(redis, layout).await;
        let url = format!("rediss://{host}:{tls_port}/");
        let variables = trusting(
            harness.environment(),
            &certificates.file("authority.pem"),
            &url,
        );
        let demo = DemoProcess::start(&variables).await;
        harness.sign_in("oUser", Age::Expired).await;
        let answer = demo.me("oUser").await;
        answer.has_token(&harness.wechat.current_pair("oUser").unwrap().access_token);
        harness.assert_newest_pair_is_stored("oUser");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_authority_is_rejected() {
    let (certificates, others) = (Certificates::new(), Certificates::new());
    let (redis, tls_port) = certificates.server();
    let harness = Harness::on(redis, Layout::Hashes).await;
    let url = format!("rediss://127.0.0.1:{tls_port}/");
    let variables = trusting(harness.environment(), &others.file("authority.pem"), &url);
    fails_to_start(&variables, "another authority").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_on_a_plain_port_is_reported() {
    let certificates = Certificates::new();
    let (redis, tls_port) = certificates.server();
    let plain_port = redis.port();
    let harness = Harness::on(redis, Layout::Hashes).await;
    for (url, what) in [
        (
            format!("rediss://127.0.0.1:{plain_port}/"),
            "TLS to a plain port",
        ),
        (
            format!("redis://127.0.0.1:{tls_port}/"),
            "plain to a TLS port",
        ),
    ] {
        let authority = certificates.file("authority.pem");
        fails_to_start(&trusting(harness.environment(), &authority, &url), what).await;
    }
}
