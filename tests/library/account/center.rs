//! Tests of the token center and its client, over HTTP and as a Tower service.

use std::time::{Duration, Instant};

use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use serde_json::Value;
use tower::ServiceExt;
use tower_wechat::account::{TokenCenter, TokenCenterClient};
use tower_wechat::clock::Timestamp;
use tower_wechat::simulator::Fault;
use tower_wechat::{AccountTokens, ErrorKind, MemoryStore, jssdk};

use super::harness::{Harness, STABLE, TICKET, secs};
use crate::support::eventually;

const SECRET: &str = "the-first-secret";

struct Reply {
    status: StatusCode,
    headers: http::HeaderMap,
    body: Value,
}

async fn ask(center: &TokenCenter, method: Method, uri: &str, bearer: &str, body: &str) -> Reply {
    let mut request = Request::builder().method(method).uri(uri);
    if !bearer.is_empty() {
        request = request.header(header::AUTHORIZATION, bearer);
    }
    let request = request
        .body(Full::<bytes::Bytes>::from(body.to_owned()))
        .unwrap();
    let (parts, body) = center.clone().oneshot(request).await.unwrap().into_parts();
    assert_eq!(parts.headers[header::CACHE_CONTROL], "no-store");
    let body = body.collect().await.unwrap().to_bytes();
    let body = serde_json::from_slice(&body).unwrap();
    Reply {
        status: parts.status,
        headers: parts.headers,
        body,
    }
}

async fn get(center: &TokenCenter, uri: &str) -> Reply {
    ask(center, Method::GET, uri, &format!("Bearer {SECRET}"), "").await
}

fn center(harness: &Harness) -> (AccountTokens, TokenCenter) {
    let accounts = harness.accounts();
    let tickets = harness.tickets(&accounts);
    let center = TokenCenter::new(accounts.clone(), [SECRET, "the-second"]).unwrap();
    (accounts, center.tickets(tickets))
}

/// Serves the center on a free port, below `/center` of an axum router. Returns its URL.
async fn serve(center: TokenCenter) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/center", listener.local_addr().unwrap());
    let app = axum::Router::new().nest_service("/center", center);
    tokio::spawn(async move { axum::serve(listener, app).await });
    url
}

#[tokio::test]
async fn the_routes_use_wechats_field_names() {
    let harness = Harness::start().await;
    let (accounts, center) = center(&harness);
    let reply = get(&center, "/access_token").await;
    assert_eq!(reply.status, StatusCode::OK);
    assert_eq!(
        reply.body["access_token"],
        harness.sim.account_token().unwrap()
    );
    assert!((7_190..=7_200).contains(&reply.body["expires_in"].as_u64().unwrap()));

    let reply = get(&center, "/jsapi_ticket").await;
    let ticket = reply.body["ticket"].as_str().unwrap().to_owned();
    assert!(reply.body["expires_in"].as_u64().unwrap() <= 3_600);

    let page = "https://h5.example.com/?a=1&b=%2B#x";
    let encoded = "https%3A%2F%2Fh5.example.com%2F%3Fa%3D1%26b%3D%252B%23x";
    let reply = get(&center, &format!("/jssdk/config?url={encoded}")).await;
    let (nonce, at) = (
        reply.body["nonceStr"].as_str().unwrap(),
        reply.body["timestamp"].as_u64(),
    );
    assert_eq!(
        reply.body["signature"],
        jssdk::sign(&ticket, nonce, at.unwrap(), page)
    );
    assert_eq!(reply.body["appId"], harness.sim.app_id());

    // A report of an unknown token changes nothing. A report of the current token replaces it.
    harness.sim.reset_calls();
    let current = accounts
        .get()
        .await
        .unwrap()
        .access_token()
        .expose()
        .to_owned();
    let invalid = async |token: &str| {
        let body = serde_json::json!({ "access_token": token }).to_string();
        let bearer = format!("Bearer {SECRET}");
        let reply = ask(
            &center,
            Method::POST,
            "/access_token/invalid",
            &bearer,
            &body,
        )
        .await;
        assert_eq!(reply.status, StatusCode::OK);
        reply.body["access_token"].as_str().unwrap().to_owned()
    };
    assert_eq!(invalid("83_foreign").await, current);
    assert_eq!(harness.sim.calls_to(STABLE), 0);
    let next = invalid(&current).await;
    assert_ne!(next, current);
    assert_eq!(invalid(&current).await, next);
    assert!(harness.sim.is_account_token_valid(&next));
}

#[tokio::test]
async fn an_unauthorized_client_gets_401_without_effect() {
    let harness = Harness::start().await;
    let (_accounts, center) = center(&harness);
    center
        .accept_until("a-third", Timestamp::from_millis(1_000))
        .unwrap();
    let bearers = [
        "",
        "Bearer wrong",
        "Bearer",
        "Basic dGhlOnNlY3JldA==",
        "the-first-secret",
        "Bearer a-third",
    ];
    let started = Instant::now();
    for round in 0..10_000 {
        let bearer = bearers[round % bearers.len()];
        let (method, uri) = [
            (Method::GET, "/access_token"),
            (Method::POST, "/access_token/invalid"),
            (Method::GET, "/jsapi_ticket"),
            (Method::GET, "/jssdk/config?url=https://h5.example.com/"),
            (Method::DELETE, "/nowhere"),
        ][round % 5]
            .clone();
        let reply = ask(&center, method, uri, bearer, r#"{"access_token":"x"}"#).await;
        assert_eq!(reply.status, StatusCode::UNAUTHORIZED);
        assert_eq!(reply.headers[header::WWW_AUTHENTICATE], "Bearer");
        assert_eq!(reply.body["error"], "unauthorized");
        assert!(reply.body.get("access_token").is_none());
    }
    assert!(started.elapsed() < secs(20));
    assert!(harness.sim.calls().is_empty(), "{:?}", harness.sim.calls());
}

#[tokio::test]
async fn secrets_rotate_on_all_clones() {
    let harness = Harness::start().await;
    let (_accounts, center) = center(&harness);
    let clone = center.clone();
    let status = async |bearer: &str| {
        ask(
            &clone,
            Method::GET,
            "/access_token",
            &format!("Bearer {bearer}"),
            "",
        )
        .await
        .status
    };
    assert_eq!(status("the-second").await, StatusCode::OK);
    center.replace_secrets(["the-third"]).unwrap();
    assert_eq!(status("the-second").await, StatusCode::UNAUTHORIZED);
    assert_eq!(status("the-third").await, StatusCode::OK);
    let until = harness.clock.now().saturating_add(secs(60));
    center.accept_until("the-second", until).unwrap();
    assert_eq!(status("the-second").await, StatusCode::OK);
    harness.advance(secs(61));
    assert_eq!(status("the-second").await, StatusCode::UNAUTHORIZED);
    for wrong in [vec![], vec![""], vec!["a b"]] {
        let error = TokenCenter::new(harness.accounts(), wrong).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration);
    }
}

#[tokio::test]
async fn bad_requests_get_an_error() {
    let harness = Harness::start().await;
    let (_accounts, center) = center(&harness);
    for (uri, status) in [
        ("/jssdk/config?url=https%3A%2F%2Fevil.example%2F", 400),
        ("/jssdk/config", 400),
        ("/jssdk/config?url=%FF", 400),
        ("/nowhere", 404),
        ("/access_token/", 404),
        ("/access_token/invalid", 405),
    ] {
        assert_eq!(get(&center, uri).await.status, status, "{uri}");
    }
    let long = format!(r#"{{"access_token":"{}"}}"#, "x".repeat(10_000));
    for body in [
        "",
        "{}",
        "nonsense",
        r#"{"access_token":7}"#,
        r#"{"access_token":""}"#,
        &long,
    ] {
        let bearer = format!("Bearer {SECRET}");
        let reply = ask(
            &center,
            Method::POST,
            "/access_token/invalid",
            &bearer,
            body,
        )
        .await;
        assert_eq!(
            (reply.status.as_u16(), &reply.body["error"]),
            (400, &"bad_request".into())
        );
    }
    assert!(harness.sim.calls().is_empty());

    harness.settings(|settings| settings.secret_frozen = true);
    let reply = get(&center, "/access_token").await;
    assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(reply.body["error"], "wechat_config");
    let wait: u64 = reply.headers[header::RETRY_AFTER]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!((1..=30).contains(&wait));
}

/// The page sent its URL unencoded, wrongly encoded or encoded twice. The response names the
/// remedy.
#[tokio::test]
async fn a_page_that_was_not_encoded_is_not_signed() {
    let harness = Harness::start().await;
    let (_accounts, center) = center(&harness);
    for url in [
        "https://h5.example.com/?a=1&b=2",
        "https://h5.example.com/?from=singlemessage&isappinstalled=0",
        "https://h5.example.com/?a=%E5%80%BC",
        "https%3A%2F%2Fh5.example.com%2F&url=https%3A%2F%2Fh5.example.com%2F",
        "https%3A%2F%2Fh5.example.com%2F%EF%BF%BD",
        "https%3A%2F%2Fh5.example.com%2F%E5%80",
        "https%253A%252F%252Fh5.example.com%252F",
        "https%3A%2F%2Fh5.example.com%2F%3Fa%3Db%20c",
    ] {
        let reply = get(&center, &format!("/jssdk/config?url={url}")).await;
        assert_eq!(reply.status, StatusCode::BAD_REQUEST, "{url}");
        assert_eq!(reply.body["error"], "bad_request", "{url}");
        let message = reply.body["message"].as_str().unwrap();
        assert!(message.contains("encodeURIComponent"), "{url}: {message}");
    }
    assert!(harness.sim.calls().is_empty(), "{:?}", harness.sim.calls());
    for url in [
        "https://h5.example.com/?a=1",
        "https%3A%2F%2Fh5.example.com%2F%3Fa%3D1%26b%3D2&_=1700000000",
    ] {
        let reply = get(&center, &format!("/jssdk/config?url={url}")).await;
        assert_eq!(reply.status, StatusCode::OK, "{url}");
    }
}

#[tokio::test]
async fn the_center_runs_on_hyper_without_a_router() {
    let harness = Harness::start().await;
    let (_accounts, center) = center(&harness);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = hyper_util::service::TowerToHyperService::new(center.clone());
            let stream = hyper_util::rt::TokioIo::new(stream);
            let server = hyper::server::conn::http1::Builder::new();
            tokio::spawn(async move { server.serve_connection(stream, service).await });
        }
    });
    let source = TokenCenterClient::new(harness.sim.app_id(), url, SECRET).unwrap();
    let accounts = AccountTokens::new(source, MemoryStore::new());
    assert!(harness.alive(&accounts.get().await.unwrap()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_of_one_center_are_served_through_a_rollover() {
    let harness = Harness::start().await;
    let (center_accounts, center) = center(&harness);
    let url = serve(center).await;
    let fleet: Vec<_> = (0..3)
        .map(|_| {
            let source = TokenCenterClient::new(harness.sim.app_id(), &url, SECRET).unwrap();
            AccountTokens::builder(source, harness.memory())
                .clock(harness.clock.clone())
                .build()
        })
        .collect();
    for accounts in &fleet {
        harness.call(accounts).await.unwrap();
        harness
            .tickets(accounts)
            .js_config("https://h5.example.com/")
            .await
            .unwrap();
    }
    assert_eq!(
        (harness.sim.calls_to(STABLE), harness.sim.calls_to(TICKET)),
        (1, 1)
    );

    // The clocks advance through the rollover by one minute at a time. No process serves a token
    // that WeChat rejects.
    let first = harness.sim.account_token().unwrap();
    harness.advance(secs(7_200 - 320));
    for _ in 0..8 {
        harness.advance(secs(60));
        for accounts in &fleet {
            let token = accounts.get().await.unwrap();
            assert!(harness.alive(&token));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    eventually("the fleet has the new token", secs(5), async || {
        let mut all = true;
        for accounts in &fleet {
            all &= accounts.get().await.unwrap().access_token().expose() != first;
        }
        all
    })
    .await;
    assert_eq!(harness.sim.calls_to(STABLE), 2);

    // Another service revokes the token. The first process whose call fails reports it, and all
    // processes get the next token.
    harness.wechat().stable_account_token(true).await.unwrap();
    harness.sim.reset_calls();
    for accounts in &fleet {
        harness.call(accounts).await.unwrap();
    }
    assert_eq!(harness.sim.calls_to(STABLE), 1);
    drop(center_accounts);
}

#[tokio::test]
async fn tokens_are_served_while_the_center_is_unreachable() {
    let harness = Harness::start().await;
    let (_accounts, center) = center(&harness);
    let url = serve(center.clone()).await;
    let source = |url: &str, bearer: &str| {
        TokenCenterClient::new(harness.sim.app_id(), url, bearer.to_owned()).unwrap()
    };
    let accounts = AccountTokens::builder(source(&url, SECRET), harness.memory())
        .clock(harness.clock.clone())
        .build();
    let token = accounts.get().await.unwrap();
    center.replace_secrets(["another"]).unwrap();
    harness.advance(secs(6_000));
    let again = accounts.get().await.unwrap();
    assert_eq!(again.access_token(), token.access_token());
    harness.advance(secs(1_300));
    let error = accounts.get().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WechatConfig);
    assert!(error.to_string().contains("bearer"), "{error}");
    assert!(!error.to_string().contains(SECRET));

    let unreachable = source("http://127.0.0.1:1/center", SECRET);
    let accounts = AccountTokens::builder(unreachable, harness.memory())
        .load_timeout(secs(1))
        .build();
    assert_eq!(
        accounts.prefetch().await.unwrap_err().kind(),
        ErrorKind::WechatUnavailable
    );
    for (url, bearer) in [
        ("nonsense", SECRET),
        ("ftp://h/", SECRET),
        (url.as_str(), ""),
    ] {
        let error = TokenCenterClient::new("wx1", url, bearer).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration, "{url}");
    }
}

#[tokio::test]
async fn errors_of_wechat_are_passed_on_by_the_center() {
    let harness = Harness::start().await;
    let (_accounts, center) = center(&harness);
    let url = serve(center).await;
    harness.sim.inject(Fault::on(STABLE).errcode(40164));
    let source = TokenCenterClient::new(harness.sim.app_id(), url, SECRET).unwrap();
    let accounts = AccountTokens::new(source, MemoryStore::new());
    let error = accounts.get().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WechatConfig);
    assert!(error.to_string().contains("whitelist"), "{error}");
}

#[tokio::test]
async fn an_invalid_token_of_a_center_is_rejected() {
    let harness = Harness::start().await;
    for invalid in ["", "two words", "a#b", "\u{e9}", "a\nb", &"x".repeat(2_049)] {
        let body =
            serde_json::json!({ "access_token": invalid, "ticket": invalid, "expires_in": 7_200 });
        let service = axum::Router::new().fallback(async move || axum::Json(body));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/center", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, service).await });

        let source = TokenCenterClient::new(harness.sim.app_id(), url, SECRET).unwrap();
        let accounts = AccountTokens::builder(source, harness.memory());
        let accounts = accounts.load_timeout(Duration::from_millis(200)).build();
        let errors = [
            accounts.get().await.err(),
            harness.tickets(&accounts).get().await.err(),
        ];
        for error in errors {
            let error = error.unwrap_or_else(|| panic!("{invalid:?} was accepted"));
            assert_eq!(error.kind(), ErrorKind::WechatUnavailable);
        }
    }
}

/// Returns tokens from a token center that sends `answer` to every request.
async fn foreign(answer: &'static str) -> AccountTokens {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let app = axum::Router::new().fallback(move || async move { answer });
    tokio::spawn(async move { axum::serve(listener, app).await });
    let center = TokenCenterClient::new("wx0123456789abcdef", url, SECRET).unwrap();
    AccountTokens::builder(center, MemoryStore::new())
        .load_timeout(secs(1))
        .build()
}

#[tokio::test]
async fn an_expired_token_of_a_center_is_rejected() {
    for answer in [
        r#"{"access_token":"83_t","expires_in":0}"#,
        r#"{"access_token":"83_t","expires_in":-5}"#,
        r#"{"access_token":"83_t"}"#,
        r#"{"access_token":"83_t","expires_in":null}"#,
    ] {
        let accounts = foreign(answer).await;
        let error = accounts.get().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WechatUnavailable, "{answer}");
        assert!(accounts.cached().is_none(), "{answer}");
    }
    let most = r#"{"access_token":"83_t","expires_in":9223372036854775807}"#;
    assert!(foreign(most).await.get().await.is_ok());
}
