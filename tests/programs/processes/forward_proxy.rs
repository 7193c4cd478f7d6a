//! Tests of calls to WeChat through forward proxies, and through relays that add a path.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tower_wechat::simulator::Simulator;

use crate::support::certificates::Certificates;
use crate::support::demo_process::DemoProcess;
use crate::support::eventually;
use crate::support::forward_proxy::{ForwardProxy, Speaks};
use crate::support::harness::variables;
use crate::support::http_client::Asked;

const USER: &str = "egress";
/// A password, and its percent-encoded form in a URL.
const PASSWORD: [&str; 2] = ["s3cret:p@ss/wörd", "s3cret%3Ap%40ss%2Fw%C3%B6rd"];

fn address(simulator: &Simulator) -> SocketAddr {
    simulator.url()["http://".len()..].parse().unwrap()
}

fn schemes(speaks: Speaks) -> &'static [&'static str] {
    match speaks {
        Speaks::Http => &["http"],
        Speaks::Socks5 => &["socks5", "socks5h"],
    }
}

/// Starts a demo that calls this simulator, with more variables.
async fn demo(simulator: &Simulator, more: &[(&str, &str)]) -> DemoProcess {
    let mut pairs = vec![
        ("WECHAT_APPID", simulator.app_id()),
        ("WECHAT_SECRET", simulator.app_secret()),
        ("WECHAT_API_URL", simulator.url()),
        ("RUST_LOG", "trace"),
    ];
    pairs.retain(|(name, _)| !more.iter().any(|(other, _)| name == other));
    pairs.extend(more);
    DemoProcess::start(&variables(&pairs)).await
}

async fn account(demo: &DemoProcess) -> u16 {
    demo.ask(Asked::get("/api/account")).await.status
}

fn shows_no_password(demo: &DemoProcess) {
    let log = demo.log();
    for secret in PASSWORD.iter().chain(&["s3cret", "czNjcmV0"]) {
        let line = log.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "the log shows {secret}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_go_through_a_proxy_that_wants_credentials() {
    for speaks in [Speaks::Http, Speaks::Socks5] {
        for scheme in schemes(speaks) {
            let simulator = Simulator::start().await.unwrap();
            let proxy = ForwardProxy::start(speaks, Some((USER, PASSWORD[0])), None).await;
            let url = format!("{scheme}://{USER}:{}@{}", PASSWORD[1], proxy.address);
            let demo = demo(&simulator, &[("WECHAT_PROXY", &url)]).await;
            assert_eq!(account(&demo).await, 200, "{scheme}");
            let targets = proxy.targets();
            let wanted = address(&simulator).to_string();
            assert!(
                !targets.is_empty(),
                "{scheme}: nothing went through the proxy"
            );
            assert!(
                targets.iter().all(|target| *target == wanted),
                "{targets:?}"
            );
            assert_eq!(proxy.refused(), 0, "{scheme}");
            shows_no_password(&demo);
        }
    }
}

/// Serves the simulator over TLS, with the certificate `server.pem`. Returns the address.
async fn with_tls(simulator: &Simulator, certificates: &Certificates) -> SocketAddr {
    let chain = CertificateDer::from_pem_slice(&certificates.read("server.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_slice(&certificates.read("server.key")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![chain], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (at, behind) = (listener.local_addr().unwrap(), address(simulator));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let mut client = acceptor.accept(stream).await.ok()?;
                let mut server = TcpStream::connect(behind).await.ok()?;
                tokio::io::copy_bidirectional(&mut client, &mut server)
                    .await
                    .ok()
            });
        }
    });
    at
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_end_to_end_through_a_proxy() {
    let certificates = Certificates::new();
    for speaks in [Speaks::Http, Speaks::Socks5] {
        for scheme in schemes(speaks) {
            let simulator = Simulator::start().await.unwrap();
            let tls = with_tls(&simulator, &certificates).await;
            let credentials = Some((USER, PASSWORD[0]));
            let proxy = ForwardProxy::start(speaks, credentials, Some(tls)).await;
            let url = format!("{scheme}://{USER}:{}@{}", PASSWORD[1], proxy.address);
            let more = [
                ("WECHAT_API_URL", "https://localhost:4443"),
                ("WECHAT_PROXY", &url),
                ("SSL_CERT_FILE", &certificates.text("authority.pem")),
            ];
            let demo = demo(&simulator, &more).await;
            assert_eq!(account(&demo).await, 200, "{scheme}: {}", demo.log());
            let targets = proxy.targets();
            assert!(
                targets.iter().all(|target| target.ends_with(":4443")) && !targets.is_empty(),
                "{targets:?}"
            );
            shows_no_password(&demo);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_rejects_calls_is_named() {
    for speaks in [Speaks::Http, Speaks::Socks5] {
        for api_url in ["http", "https://localhost:4443"] {
            let simulator = Simulator::start().await.unwrap();
            let proxy = ForwardProxy::start(speaks, Some((USER, "another")), None).await;
            let scheme = schemes(speaks)[0];
            let url = format!("{scheme}://{USER}:{}@{}", PASSWORD[1], proxy.address);
            let api_url = if api_url == "http" {
                simulator.url()
            } else {
                api_url
            };
            let more = [("WECHAT_PROXY", url.as_str()), ("WECHAT_API_URL", api_url)];
            let demo = demo(&simulator, &more).await;
            assert_eq!(account(&demo).await, 503, "{scheme} {api_url}");
            let named = format!("the proxy {}", proxy.address);
            eventually("the log names it", Duration::from_secs(20), async || {
                let log = demo.log();
                let names_it = |line: &str| line.contains("WARN") && line.contains(&named);
                log.lines().any(names_it)
            })
            .await;
            assert!(proxy.refused() > 0 && proxy.targets().is_empty());
            assert_eq!(simulator.calls().len(), 0, "nothing goes around the proxy");
            shows_no_password(&demo);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_of_the_environment_is_ignored_and_logged() {
    let url = format!("http://{USER}:{}@127.0.0.1:9", PASSWORD[1]);
    for name in ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"] {
        let simulator = Simulator::start().await.unwrap();
        let demo = demo(&simulator, &[(name, &url)]).await;
        assert_eq!(account(&demo).await, 200, "{name}");
        demo.says(1, &["WARN", name, "WECHAT_PROXY"]).await;
        shows_no_password(&demo);
    }
    let simulator = Simulator::start().await.unwrap();
    let proxy = ForwardProxy::start(Speaks::Http, None, None).await;
    let ours = format!("http://{}", proxy.address);
    let more = [
        ("HTTPS_PROXY", url.as_str()),
        ("NO_PROXY", "*"),
        ("WECHAT_PROXY", &ours),
    ];
    let demo = demo(&simulator, &more).await;
    assert_eq!(account(&demo).await, 200);
    assert!(!proxy.targets().is_empty());
    assert!(!demo.log().contains("HTTPS_PROXY"), "one is used");
}

#[tokio::test]
async fn an_invalid_proxy_fails_the_start() {
    for (url, says) in [
        ("proxy.internal:3128", "does not begin with"),
        ("egress:s3cret@proxy.internal:3128", "does not begin with"),
        ("ftp://egress:s3cret@proxy.internal", "does not begin with"),
        ("http://egress:s3cret@", "is not a URL"),
        ("http://egress:s3cret@proxy.internal/path", "has a path"),
    ] {
        let ended = DemoProcess::start_in_vain(&variables(&[("WECHAT_PROXY", url)])).await;
        let said = &ended.stderr;
        assert_eq!(ended.status.code(), Some(1), "{url}: {said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(
            said.starts_with("demo: WECHAT_PROXY: ") && said.contains(says),
            "{said}"
        );
        assert!(!said.contains("s3cret"), "{said}");
    }
}

/// Calls go through a relay whose URL has a path. The relay removes the path before it calls
/// WeChat.
#[tokio::test(flavor = "multi_thread")]
async fn calls_go_through_a_relay_with_a_path() {
    let simulator = Simulator::start().await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let relay = listener.local_addr().unwrap();
    // reqwest is built without a cryptography provider, and needs one even for http://.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (behind, http) = (simulator.url().to_owned(), reqwest::Client::new());
    let app = axum::Router::new().fallback(async move |request: axum::extract::Request| {
        let (parts, body) = request.into_parts();
        let path = parts.uri.path_and_query().unwrap().as_str();
        let Some(path) = path.strip_prefix("/relay/wechat/") else {
            return (axum::http::StatusCode::NOT_FOUND, Vec::new());
        };
        let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        let asked = http
            .request(parts.method, format!("{behind}/{path}"))
            .body(body);
        let answer = asked.send().await.unwrap();
        let status = answer.status();
        (status, answer.bytes().await.unwrap().to_vec())
    });
    tokio::spawn(async move { axum::serve(listener, app).await });
    for end in ["", "/"] {
        let url = format!("http://{relay}/relay/wechat{end}");
        let demo = demo(&simulator, &[("WECHAT_API_URL", &url)]).await;
        assert_eq!(account(&demo).await, 200, "{url}");
    }
}
