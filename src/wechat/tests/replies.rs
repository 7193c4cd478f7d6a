//! Tests of valid replies, and of the errors for invalid ones.

use serde_json::json;

use super::fixtures::{
    CODE, REFRESH, SECRET, TOKEN, all_error_text, assert_unavailable, refresh_token, token,
};
use super::server::{ScriptedReply, ScriptedServer};
use crate::ErrorKind;
use crate::client::UserTokenResponse;
use crate::client::{Language, RecommendedAction};

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
        let response = server
            .client()
            .refresh_user_token(&refresh_token())
            .await
            .unwrap();
        assert_eq!(response.expires_in, kept);
        assert_eq!(response.refresh_token, None);
    }
    let server =
        ScriptedServer::with_json(json!({ "access_token": "a", "refresh_token": "" })).await;
    let response = server
        .client()
        .refresh_user_token(&refresh_token())
        .await
        .unwrap();
    assert_eq!(response, UserTokenResponse::new("a"));
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
            // A call can redact only its own secrets, so the secrets of other calls may remain.
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
    // A body of plain JSON is accepted although its header declares gzip.
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
