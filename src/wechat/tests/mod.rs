//! The client against a server that answers whatever a test wants, over real connections.

use std::error::Error as _;
use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::net::TcpListener;

use self::server::{ScriptedReply, ScriptedServer};
use super::*;
use crate::{AccessToken, Error, ErrorKind, RecommendedAction, RefreshToken};

mod server;

const SECRET: &str = "s3cret-of-the-account";
const CODE: &str = "c0de";
const TOKEN: &str = "t0ken";
const REFRESH: &str = "r3fresh";

fn client(urls: &[&str]) -> WechatClient {
    WechatClient::builder("wx1", SECRET)
        .api_url(urls[0])
        .fallback_api_urls(urls[1..].iter().copied())
        .connect_timeout(Duration::from_millis(500))
        .timeout(Duration::from_millis(400))
        .build()
        .unwrap()
}

/// A URL at which nobody listens.
async fn unreachable_url() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

fn refresh_token() -> RefreshToken {
    RefreshToken::from(REFRESH)
}

fn token() -> AccessToken {
    AccessToken::from(TOKEN)
}

fn all_error_text(error: &Error) -> String {
    let mut text = format!("{error} {error:?} {error:#?}");
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(" {cause} {cause:?}"));
        source = cause.source();
    }
    text
}

#[track_caller]
fn assert_unavailable(error: &Error) {
    assert_eq!(error.kind(), ErrorKind::WechatUnavailable, "{error}");
    for secret in [SECRET, CODE, TOKEN, REFRESH] {
        assert!(
            !all_error_text(error).contains(secret),
            "{}",
            all_error_text(error)
        );
    }
}

#[tokio::test]
async fn each_call_sends_the_documented_request() {
    let server = ScriptedServer::with_json(json!({
        "errcode": 0, "access_token": "a", "ticket": "t", "openid": "o/1", "expires_in": 7200,
    }))
    .await;
    let client = server.client();
    client.exchange_code("c/1").await.unwrap();
    client.refresh_user_token(&refresh_token()).await.unwrap();
    client
        .user_info(&token(), "o/1", Language::En)
        .await
        .unwrap();
    client.check_user_token(&token(), "o/1").await.unwrap();
    client.account_token().await.unwrap();
    client.stable_account_token(true).await.unwrap();
    client.jsapi_ticket(&token()).await.unwrap();
    let _: Value = client
        .get_json("/cgi-bin/x", &token(), &[("a", "张")])
        .await
        .unwrap();
    let _: Value = client
        .post_json("cgi-bin/y", &token(), &json!({"b": "张"}))
        .await
        .unwrap();
    let requests = server.requests();
    let lines: Vec<&str> = requests
        .iter()
        .filter_map(|request| request.lines().next())
        .collect();
    assert_eq!(
        lines,
        [
            "GET /sns/oauth2/access_token?appid=wx1&secret=s3cret-of-the-account&code=c%2F1\
             &grant_type=authorization_code HTTP/1.1",
            "GET /sns/oauth2/refresh_token?appid=wx1&grant_type=refresh_token\
             &refresh_token=r3fresh HTTP/1.1",
            "GET /sns/userinfo?access_token=t0ken&openid=o%2F1&lang=en HTTP/1.1",
            "GET /sns/auth?access_token=t0ken&openid=o%2F1 HTTP/1.1",
            "GET /cgi-bin/token?grant_type=client_credential&appid=wx1\
             &secret=s3cret-of-the-account HTTP/1.1",
            "POST /cgi-bin/stable_token HTTP/1.1",
            "GET /cgi-bin/ticket/getticket?access_token=t0ken&type=jsapi HTTP/1.1",
            "GET /cgi-bin/x?access_token=t0ken&a=%E5%BC%A0 HTTP/1.1",
            "POST /cgi-bin/y?access_token=t0ken HTTP/1.1",
        ]
    );
    let body: Value = serde_json::from_str(requests[5].split("\r\n\r\n").nth(1).unwrap()).unwrap();
    assert_eq!(
        body,
        json!({
            "grant_type": "client_credential", "appid": "wx1", "secret": SECRET,
            "force_refresh": true,
        })
    );
    assert!(
        requests[8].ends_with(r#"{"b":"张"}"#),
        "WeChat shows \\u escapes as they are"
    );
}

#[tokio::test]
async fn unusual_token_responses_are_handled() {
    for (expires_in, kept) in [
        (json!(null), None),
        (json!("7200"), Some(7_200)),
        (json!(0), Some(0)),
        (json!(-1), Some(-1)),
        (json!(600), Some(600)),
        (json!(u64::MAX), Some(i64::MAX)),
    ] {
        let server =
            ScriptedServer::with_json(json!({ "access_token": "a", "expires_in": expires_in }))
                .await;
        let grant = server
            .client()
            .refresh_user_token(&refresh_token())
            .await
            .unwrap();
        assert_eq!(grant.expires_in, kept);
        assert_eq!(grant.refresh_token, None);
    }
    let server =
        ScriptedServer::with_json(json!({ "access_token": "a", "refresh_token": "" })).await;
    let grant = server
        .client()
        .refresh_user_token(&refresh_token())
        .await
        .unwrap();
    assert_eq!(grant, UserTokenResponse::new("a"));
    let error = server.client().exchange_code(CODE).await.unwrap_err();
    assert_unavailable(&error);
    assert!(error.to_string().contains("no openid"), "{error}");
}

#[tokio::test]
async fn malformed_replies_are_repaired() {
    let body = b"\xef\xbb\xbf{\"openid\":\"o\",\"nickname\":\"a\x07\x14\n\xff\"}".to_vec();
    let server = ScriptedServer::with_body(200, body).await;
    let user = server
        .client()
        .user_info(&token(), "o", Language::ZhCn)
        .await
        .unwrap();
    assert_eq!(user.nickname, "a\u{7}\u{14}\n\u{fffd}");
}

#[tokio::test]
async fn invalid_replies_are_retryable_and_redacted() {
    let echo = format!(
        "<html>\x1b[31m/x?secret={SECRET}&code={CODE}&t={TOKEN} {REFRESH} \
         83_AAAAAAAAAAAAAAAAAAAAAAAAAAAAA</html>"
    );
    let partial = format!(r#"{{"access_token":"{TOKEN}","refresh_token":"{REFRESH}"#);
    let odd_token = json!({ "access_token": "sharp#tok", "openid": "o" }).to_string();
    for (status, body) in [
        (200, Vec::new()),
        (502, Vec::new()),
        (200, echo.clone().into_bytes()),
        (502, echo.into_bytes()),
        (200, partial.into_bytes()),
        (200, b"[]".to_vec()),
        (200, b"{}".to_vec()),
        (502, br#"{"error":"bad gateway"}"#.to_vec()),
        (200, odd_token.into_bytes()),
        (200, vec![b'x'; 10 * 1024 * 1024]),
    ] {
        let server = ScriptedServer::with_body(status, body).await;
        let client = server.client();
        for error in [
            client.exchange_code(CODE).await.unwrap_err(),
            client
                .refresh_user_token(&refresh_token())
                .await
                .unwrap_err(),
            client.account_token().await.unwrap_err(),
            client.stable_account_token(false).await.unwrap_err(),
            client.jsapi_ticket(&token()).await.unwrap_err(),
        ] {
            // What a reply echoes of other calls' secrets is nothing that this call can know.
            let text = all_error_text(&error);
            assert_eq!(error.kind(), ErrorKind::WechatUnavailable, "{text}");
            assert!(text.contains(&format!("HTTP {status}")), "{text}");
            assert!(
                !text.contains("AAAA") && !text.contains("sharp#tok"),
                "{text}"
            );
            assert!(
                !text.contains(SECRET) && !error.to_string().contains('\x1b'),
                "{text}"
            );
        }
        let error = client.exchange_code(CODE).await.unwrap_err();
        assert!(!all_error_text(&error).contains(CODE), "{error}");
        let error = client
            .refresh_user_token(&refresh_token())
            .await
            .unwrap_err();
        assert!(!all_error_text(&error).contains(REFRESH), "{error}");
        let error = client.jsapi_ticket(&token()).await.unwrap_err();
        assert!(!all_error_text(&error).contains(TOKEN), "{error}");
    }
}

#[tokio::test]
async fn an_unexpected_content_encoding_is_named() {
    let gzip = b"\x1f\x8b\x08\x00\x00AAAAbbbb\xff".to_vec();
    let brotli = b"\x0b\x02\x80AAAA".to_vec();
    for (answer, named) in [
        (ScriptedReply::Encoded("gzip", gzip.clone()), "gzip"),
        (ScriptedReply::Encoded("br", brotli), "br"),
        (ScriptedReply::Encoded("zstd", b"AAAA".to_vec()), "zstd"),
        (
            ScriptedReply::Encoded("deflate, gzip", b"AAAA".to_vec()),
            "deflate, gzip",
        ),
        (ScriptedReply::Encoded("GZIP", Vec::new()), "GZIP"),
        (ScriptedReply::Encoded("identity", gzip.clone()), "gzip"),
        (ScriptedReply::Body(502, gzip), "gzip"),
        (
            ScriptedReply::Body(200, b"\x28\xb5\x2f\xfdAAAA".to_vec()),
            "zstd",
        ),
        (
            ScriptedReply::Body(200, b"\x78\x9cAAAA".to_vec()),
            "deflate",
        ),
    ] {
        let error = ScriptedServer::start(answer)
            .await
            .client()
            .account_token()
            .await;
        let error = error.unwrap_err();
        assert_unavailable(&error);
        let text = error.to_string();
        assert!(
            text.contains(&format!("Content-Encoding {named}, which")),
            "{text}"
        );
        assert!(!text.contains("AAAA") && text.is_ascii(), "{text}");
    }
    // Plain JSON that is only called something else is an answer.
    let json = json!({ "access_token": "t", "expires_in": 7200 }).to_string();
    let server = ScriptedServer::start(ScriptedReply::Encoded("gzip", json.into_bytes())).await;
    assert!(server.client().account_token().await.is_ok());
}

#[tokio::test]
async fn an_errcode_wins_over_the_http_status() {
    let server = ScriptedServer::with_body(
        500,
        format!(r#"{{"errcode":"40001","errmsg":"bad {TOKEN}, rid: 6114eeb9-0032c16a-61fbf7ce"}}"#),
    )
    .await;
    let error = server.client().jsapi_ticket(&token()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TokenRefused);
    assert_eq!(
        error.recommended_action(),
        Some(RecommendedAction::RenewToken)
    );
    assert_eq!(error.rid(), Some("6114eeb9-0032c16a-61fbf7ce"));
    assert!(!all_error_text(&error).contains(TOKEN), "{error}");
    let error = server.client().account_token().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WechatConfig);
}

#[tokio::test]
async fn an_errcode_is_not_retried_at_another_host() {
    let busy = ScriptedServer::with_json(json!({ "errcode": -1, "errmsg": "system error" })).await;
    let other = ScriptedServer::with_json(json!({ "access_token": "a" })).await;
    let client = client(&[&busy.url, &other.url]);
    let error = client
        .refresh_user_token(&refresh_token())
        .await
        .unwrap_err();
    assert_eq!(error.recommended_action(), Some(RecommendedAction::Retry));
    assert_unavailable(&error);
    assert_eq!(other.requests().len(), 0);
}

#[tokio::test]
async fn a_failing_host_falls_back_to_the_next() {
    let good = ScriptedServer::with_json(json!({ "access_token": "a", "openid": "o" })).await;
    let nobody = unreachable_url().await;
    let client_of = |url: &str| client(&[url, &good.url]);
    client_of(&nobody)
        .refresh_user_token(&refresh_token())
        .await
        .unwrap();
    client_of(&nobody).exchange_code(CODE).await.unwrap();
    let sent = client_of(&nobody)
        .post_json::<Value>("a", &token(), &json!({}))
        .await;
    sent.unwrap();
    assert_eq!(good.requests().len(), 3);
    for answer in [
        ScriptedReply::Body(503, b"<html>".to_vec()),
        ScriptedReply::Body(200, Vec::new()),
        ScriptedReply::Close,
        ScriptedReply::NoReply,
        ScriptedReply::Truncated,
        ScriptedReply::Redirect,
    ] {
        let bad = ScriptedServer::start(answer).await;
        let before = good.requests().len();
        client_of(&bad.url)
            .refresh_user_token(&refresh_token())
            .await
            .unwrap();
        assert_eq!(bad.requests().len(), 1);
        assert_eq!(good.requests().len(), before + 1);
    }
}

#[tokio::test]
async fn a_non_retryable_call_is_sent_once() {
    let good = ScriptedServer::with_json(json!({ "access_token": "a", "openid": "o" })).await;
    for answer in [
        ScriptedReply::Body(502, b"<html>".to_vec()),
        ScriptedReply::Close,
        ScriptedReply::NoReply,
        ScriptedReply::Truncated,
    ] {
        let bad = ScriptedServer::start(answer).await;
        let client = client(&[&bad.url, &good.url]);
        let error = client.exchange_code(CODE).await.unwrap_err();
        assert_unavailable(&error);
        assert_eq!(error.recommended_action(), Some(RecommendedAction::LogIn));
        let error = client
            .post_json::<Value>("a", &token(), &json!({}))
            .await
            .unwrap_err();
        assert_unavailable(&error);
        assert_eq!(
            error.recommended_action(),
            Some(RecommendedAction::PassThrough)
        );
        let error = client.stable_account_token(true).await.unwrap_err();
        assert_unavailable(&error);
        assert_eq!(bad.requests().len(), 3);
    }
    assert_eq!(good.requests().len(), 0);
}

#[tokio::test]
async fn timeouts_bound_every_call() {
    let silent = ScriptedServer::start(ScriptedReply::NoReply).await;
    let endless = ScriptedServer::start(ScriptedReply::Endless).await;
    let started = Instant::now();
    let error = silent.client().account_token().await.unwrap_err();
    assert_unavailable(&error);
    assert!(
        error.to_string().contains("did not answer within 400"),
        "{error}"
    );
    assert!(started.elapsed() < Duration::from_secs(8));
    let error = endless.client().account_token().await.unwrap_err();
    assert!(error.to_string().contains("more than 1 MiB"), "{error}");

    let started = Instant::now();
    let client = WechatClient::builder("wx1", SECRET)
        .api_url(&silent.url)
        .fallback_api_urls([&silent.url, &silent.url, &silent.url])
        .timeout(Duration::from_millis(300))
        .total_timeout(Duration::from_millis(500))
        .build()
        .unwrap();
    let error = client.account_token().await.unwrap_err();
    assert_eq!(
        error.to_string().matches("did not answer").count(),
        2,
        "{error}"
    );
    assert!(started.elapsed() < Duration::from_secs(8));
}

#[tokio::test]
async fn an_unreachable_host_is_named_without_secrets() {
    let client = client(&[&unreachable_url().await, "http://nowhere.invalid"]);
    for error in [
        client.exchange_code(CODE).await.unwrap_err(),
        client
            .refresh_user_token(&refresh_token())
            .await
            .unwrap_err(),
        client
            .user_info(&token(), "o", Language::ZhCn)
            .await
            .unwrap_err(),
        client.stable_account_token(true).await.unwrap_err(),
    ] {
        assert_unavailable(&error);
        assert_eq!(
            error.recommended_action(),
            Some(RecommendedAction::Retry),
            "{error}"
        );
        assert!(error.to_string().contains("127.0.0.1:"), "{error}");
        assert!(
            error
                .to_string()
                .contains("nowhere.invalid cannot be reached"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn invalid_arguments_are_rejected_before_sending() {
    let server = ScriptedServer::with_json(json!({})).await;
    let client = server.client();
    let no_code = client.exchange_code("").await.unwrap_err();
    assert_eq!(no_code.kind(), ErrorKind::LoginRequired);
    let long_code = client
        .exchange_code(&"c".repeat(100_000))
        .await
        .unwrap_err();
    assert_eq!(long_code.kind(), ErrorKind::BadRequest);
    let no_token = client
        .refresh_user_token(&RefreshToken::from(""))
        .await
        .unwrap_err();
    assert_eq!(no_token.kind(), ErrorKind::LoginRequired);
    let bad_path = client
        .get_json::<Value>("a?b=c", &token(), &[])
        .await
        .unwrap_err();
    assert_eq!(bad_path.kind(), ErrorKind::BadRequest);
    assert_eq!(server.requests().len(), 0);
}

#[tokio::test]
async fn a_type_mismatch_does_not_show_the_reply() {
    let server = ScriptedServer::with_json(json!({ "count": "sh0rt" })).await;
    #[derive(Debug, serde::Deserialize)]
    struct Counted {
        #[allow(dead_code)]
        count: u32,
    }
    let result = server
        .client()
        .get_json::<Counted>("cgi-bin/x", &token(), &[])
        .await;
    let error = result.unwrap_err();
    assert_unavailable(&error);
    assert!(!all_error_text(&error).contains("sh0rt"), "{error}");
    assert!(error.to_string().contains("expected u32"), "{error}");
}

#[tokio::test]
async fn a_profile_of_another_openid_is_rejected() {
    let server = ScriptedServer::with_json(json!({ "openid": "other", "nickname": "x" })).await;
    let result = server
        .client()
        .user_info(&token(), "o", Language::ZhCn)
        .await;
    assert_unavailable(&result.unwrap_err());
}

#[tokio::test]
async fn a_hanging_tls_handshake_does_not_spend_the_code() {
    let silent = ScriptedServer::start(ScriptedReply::NoReply).await;
    let good = ScriptedServer::with_json(json!({ "access_token": "a", "openid": "o" })).await;
    let client = WechatClient::builder("wx1", SECRET)
        .api_url(silent.url.replace("http:", "https:"))
        .fallback_api_urls([&good.url])
        .connect_timeout(Duration::from_millis(200))
        .build();
    // A machine without CA certificates cannot speak TLS at all, and says so.
    let client = match client {
        Ok(client) => client,
        Err(error) => return assert!(error.to_string().contains("ca-certificates"), "{error}"),
    };
    client.exchange_code(CODE).await.unwrap();
    assert_eq!(good.requests().len(), 1);
}

/// Keeps what is logged.
#[derive(Clone, Default)]
struct LogBuffer(Arc<Mutex<Vec<u8>>>);

impl Write for LogBuffer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn logs_never_contain_the_query() {
    let log = LogBuffer::default();
    let sink = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(move || sink.clone())
        .finish();
    // Of this thread, on which the test's runtime runs all its tasks.
    let _guard = tracing::subscriber::set_default(subscriber);
    let server =
        ScriptedServer::with_json(json!({ "errcode": 40029, "errmsg": "invalid code" })).await;
    client(&[&unreachable_url().await, &server.url])
        .exchange_code(CODE)
        .await
        .unwrap_err();
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(
        log.contains("endpoint=\"sns/oauth2/access_token\""),
        "{log}"
    );
    assert!(
        log.contains("errcode=40029") && log.contains("duration_ms="),
        "{log}"
    );
    assert!(!log.contains(SECRET) && !log.contains(CODE), "{log}");
}
