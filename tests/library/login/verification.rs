//! Tests of the files by which WeChat verifies a domain.

use axum::routing::get;
use http::Method;
use tower_wechat::login::LoginBuilder;
use tower_wechat::{CookieKeys, Login, Rejection, RequestHead, TrustedHeader, WechatLayer};

use super::harness::{Harness, router};
use crate::support::browser::Browser;
use crate::support::nginx::Nginx;

const NAME: &str = "MP_verify_Ab1cD2eF3gH4iJ5k.txt";
const CONTENT: &str = "Ab1cD2eF3gH4iJ5k";

#[tokio::test]
async fn a_verification_file_is_public() {
    let harness = Harness::new().await;
    let site = harness
        .site_with(|login| {
            login
                .verification_file(NAME, "an-older-one")
                .verification_file("a1b2c3.txt", "c3b2a1")
                .verification_file(NAME, CONTENT)
        })
        .await;
    let url = format!("{}/{NAME}", site.url);
    let browser = Browser::new();
    for reply in [
        browser.visit(&url).await,
        browser.fetch(&url).await,
        browser
            .send(Method::GET, &format!("{url}?t=1"), &[])
            .await
            .unwrap(),
        browser
            .send(
                Method::GET,
                &url,
                &[("cookie", "wechat_session_wx0123456789abcdef=junk")],
            )
            .await
            .unwrap(),
    ] {
        assert_eq!((reply.status, reply.text.as_str()), (200, CONTENT));
        assert_eq!(
            reply.header("content-type"),
            Some("text/plain; charset=utf-8")
        );
        assert!(reply.cookies().is_empty(), "{reply:?}");
    }
    let head = browser.send(Method::HEAD, &url, &[]).await.unwrap();
    assert_eq!((head.status, head.text.as_str()), (200, ""));
    assert_eq!(browser.post(&url).await.status, 400);
    let other = browser.fetch(&format!("{}/a1b2c3.txt", site.url)).await;
    assert_eq!(other.text, "c3b2a1");
    // Similar paths do not return the file.
    for path in [
        "/MP_verify_other.txt".to_owned(),
        format!("/{NAME}/"),
        format!("/x/{NAME}"),
        format!("//{NAME}"),
        format!("/{}", NAME.to_lowercase()),
    ] {
        let reply = browser.fetch(&format!("{}{path}", site.url)).await;
        assert_ne!(reply.text, CONTENT, "{path}");
    }
    assert!(harness.sim.calls().is_empty(), "{:?}", harness.sim.calls());
}

/// The application renders rejections itself, and the file is served unchanged.
#[tokio::test]
async fn a_verification_file_ignores_custom_rejections() {
    let harness = Harness::new().await;
    let users = harness.users().await;
    let login = Login::builder("https://h5.example.com", CookieKeys::random().unwrap());
    let login = login.verification_file(NAME, CONTENT).build().unwrap();
    let layer = WechatLayer::new(users)
        .identity(TrustedHeader::new("x-user-id").unwrap())
        .login(login)
        .reject(|rejection: &Rejection, _: &RequestHead<'_>| {
            let page = rejection
                .page()
                .unwrap_or_else(|| "{\"ok\":false}".to_owned());
            let response = http::Response::builder().status(rejection.status());
            let response = response.header("content-type", "text/html");
            response.body(axum::body::Body::from(page)).unwrap()
        });
    let app = axum::Router::new()
        .route("/", get(async || ""))
        .layer(layer);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/{NAME}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    let reply = Browser::new().visit(&url).await;
    assert_eq!((reply.status, reply.text.as_str()), (200, CONTENT));
    assert_eq!(
        reply.header("content-type"),
        Some("text/plain; charset=utf-8")
    );
}

/// nginx passes the file on, with the configurations of the guide: a single path, and a prefix that
/// nginx strips.
#[tokio::test(flavor = "multi_thread")]
async fn nginx_passes_a_verification_file_on() {
    let harness = Harness::new().await;
    let file = |login: LoginBuilder| login.verification_file(NAME, CONTENT);
    let root = harness.site_with(file).await;
    let address = format!("127.0.0.1:{}", crate::support::free_port());
    let below = harness
        .behind(&format!("http://{address}/h5"), file, router)
        .await;
    let server = format!(
        "location = /{NAME} {{\n    proxy_pass {};\n}}\n\
         location /h5/ {{\n    proxy_pass {}/;\n}}\n",
        root.url, below.url
    );
    let nginx = Nginx::start(&address, &server);
    for path in ["", "/h5"] {
        let reply = Browser::new()
            .fetch(&format!("{}{path}/{NAME}", nginx.url))
            .await;
        assert_eq!(
            (reply.status, reply.text.as_str()),
            (200, CONTENT),
            "{path}"
        );
    }
    let elsewhere = Browser::new()
        .fetch(&format!("{}/x/{NAME}", nginx.url))
        .await;
    assert_eq!(elsewhere.status, 404, "{elsewhere:?}");
}
