//! Tests of the requests that the client sends.

use serde_json::{Value, json};

use super::fixtures::{SECRET, refresh_token, token};
use super::server::ScriptedServer;
use crate::ErrorKind;
use crate::client::Language;
use crate::credential::RefreshToken;

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
