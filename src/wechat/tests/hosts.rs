//! Tests of a client with several API hosts, and of failures of these hosts.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::fixtures::{
    CODE, SECRET, assert_unavailable, client, refresh_token, token, unreachable_url,
};
use super::server::{ScriptedReply, ScriptedServer};
use crate::WechatClient;
use crate::client::{Language, RecommendedAction};

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
    let unreachable = unreachable_url().await;
    let client_of = |url: &str| client(&[url, &good.url]);
    client_of(&unreachable)
        .refresh_user_token(&refresh_token())
        .await
        .unwrap();
    client_of(&unreachable).exchange_code(CODE).await.unwrap();
    let sent = client_of(&unreachable)
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
async fn a_hanging_tls_handshake_does_not_spend_the_code() {
    let silent = ScriptedServer::start(ScriptedReply::NoReply).await;
    let good = ScriptedServer::with_json(json!({ "access_token": "a", "openid": "o" })).await;
    let client = WechatClient::builder("wx1", SECRET)
        .api_url(silent.url.replace("http:", "https:"))
        .fallback_api_urls([&good.url])
        .connect_timeout(Duration::from_millis(200))
        .build();
    // On a machine without CA certificates the client cannot be built.
    let client = match client {
        Ok(client) => client,
        Err(error) => return assert!(error.to_string().contains("ca-certificates"), "{error}"),
    };
    client.exchange_code(CODE).await.unwrap();
    assert_eq!(good.requests().len(), 1);
}
