//! Tests of a platform's calls: requests, odd replies, retries and redaction.

use std::time::Duration;

use serde_json::{Value, json};

use super::fixtures::{SECRET, TOKEN, all_error_text, client, token};
use super::server::{ScriptedReply, ScriptedServer};
use crate::client::RecommendedAction;
use crate::clock::Timestamp;
use crate::credential::{AppId, RefreshToken};
use crate::wechat::AuthorizerToken;
use crate::{Error, ErrorKind};

const TICKET: &str = "ticket@@@T1cket";
const AUTH_CODE: &str = "queryauthcode@@@C0de";
const REFRESH_TOKEN: &str = "refreshtoken@@@R3fresh";

fn account() -> AppId {
    AppId::new("wxacc").unwrap()
}

fn body(request: &str) -> Value {
    serde_json::from_str(request.split("\r\n\r\n").nth(1).unwrap()).unwrap()
}

/// Makes all calls that carry secrets, and returns their errors.
async fn errors_of_all_calls(server: &ScriptedServer) -> Vec<Error> {
    let client = server.client();
    let (ticket, refresh) = (
        RefreshToken::from(TICKET),
        RefreshToken::from(REFRESH_TOKEN),
    );
    vec![
        client.start_push_ticket().await.unwrap_err(),
        client.component_token(&ticket).await.unwrap_err(),
        client.pre_auth_code(&token()).await.unwrap_err(),
        client.query_auth(&token(), AUTH_CODE).await.unwrap_err(),
        client
            .authorizer_token(&token(), &account(), &refresh)
            .await
            .unwrap_err(),
        client.authorizer_list(&token(), 0, 500).await.unwrap_err(),
    ]
}

#[tokio::test]
async fn each_call_sends_the_documented_request() {
    let server = ScriptedServer::with_json(json!({
        "errcode": 0, "errmsg": "ok", "component_access_token": "c", "expires_in": 7200,
        "pre_auth_code": "p", "authorizer_access_token": "a", "total_count": 0,
        "authorization_info": { "authorizer_appid": "wxacc" },
    }))
    .await;
    let client = server.client();
    client.start_push_ticket().await.unwrap();
    client
        .component_token(&RefreshToken::from(TICKET))
        .await
        .unwrap();
    client.pre_auth_code(&token()).await.unwrap();
    client.query_auth(&token(), AUTH_CODE).await.unwrap();
    client
        .authorizer_token(&token(), &account(), &RefreshToken::from(REFRESH_TOKEN))
        .await
        .unwrap();
    client.authorizer_list(&token(), 7, 100_000).await.unwrap();
    client.authorizer_list(&token(), 0, 0).await.unwrap();
    let requests = server.requests();
    let path = |name: &str, query: &str| format!("POST /cgi-bin/component/{name}{query} HTTP/1.1");
    let with_token = format!("?component_access_token={TOKEN}");
    for (request, (line, sent)) in requests.iter().zip([
        (
            path("api_start_push_ticket", ""),
            json!({ "component_appid": "wx1", "component_secret": SECRET }),
        ),
        (
            path("api_component_token", ""),
            json!({
                "component_appid": "wx1", "component_appsecret": SECRET,
                "component_verify_ticket": TICKET,
            }),
        ),
        (
            path("api_create_preauthcode", &with_token),
            json!({ "component_appid": "wx1" }),
        ),
        (
            path("api_query_auth", &with_token),
            json!({ "component_appid": "wx1", "authorization_code": AUTH_CODE }),
        ),
        (
            path("api_authorizer_token", &with_token),
            json!({
                "component_appid": "wx1", "authorizer_appid": "wxacc",
                "authorizer_refresh_token": REFRESH_TOKEN,
            }),
        ),
        (
            path("api_get_authorizer_list", &with_token),
            json!({ "component_appid": "wx1", "offset": 7, "count": 500 }),
        ),
        (
            path("api_get_authorizer_list", &with_token),
            json!({ "component_appid": "wx1", "offset": 0, "count": 1 }),
        ),
    ]) {
        assert_eq!(request.lines().next(), Some(line.as_str()));
        assert_eq!(body(request), sent, "{line}");
    }
    assert_eq!(requests.len(), 7);
}

#[tokio::test]
async fn calls_with_empty_secrets_are_not_sent() {
    let server = ScriptedServer::with_json(json!({})).await;
    let (client, none) = (server.client(), RefreshToken::from(""));
    let error = client.component_token(&none).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PlatformStarting, "{error}");
    let error = client
        .authorizer_token(&token(), &account(), &none)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AccountNotAuthorized, "{error}");
    assert!(error.to_string().contains("wxacc"), "{error}");
    for code in ["", &"c".repeat(100_000)] {
        let error = client.query_auth(&token(), code).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BadRequest, "{error}");
    }
    assert_eq!(server.requests().len(), 0);
}

#[tokio::test]
async fn grants_without_tokens_are_read() {
    let info = json!({
        "authorizer_appid": "wxacc",
        "func_info": [
            { "funcscope_category": { "id": 1 } }, { "funcscope_category": { "id": "15" } },
            { "funcscope_category": {} }, {}, 7,
        ],
    });
    let server = ScriptedServer::with_json(json!({ "authorization_info": info })).await;
    let grant = server
        .client()
        .query_auth(&token(), AUTH_CODE)
        .await
        .unwrap();
    assert_eq!(grant.app_id, account());
    assert_eq!(grant.permissions, [1, 15]);
    assert!(grant.access_token.is_none() && grant.refresh_token.is_none());
    assert_eq!(grant.expires_in, None);

    let server = ScriptedServer::with_json(json!({ "authorization_info": {
        "authorizer_appid": "wxacc", "authorizer_access_token": "a", "expires_in": "7200",
        "authorizer_refresh_token": REFRESH_TOKEN, "func_info": null,
    } }))
    .await;
    let grant = server
        .client()
        .query_auth(&token(), AUTH_CODE)
        .await
        .unwrap();
    assert_eq!(grant.access_token.unwrap().expose(), "a");
    assert_eq!(grant.refresh_token.unwrap().expose(), REFRESH_TOKEN);
    assert_eq!(grant.expires_in, Some(7_200));

    for bad in [
        json!({}),
        json!({ "authorization_info": "wxacc" }),
        json!({ "authorization_info": { "authorizer_appid": "wx acc" } }),
    ] {
        let server = ScriptedServer::with_json(bad).await;
        let error = server
            .client()
            .query_auth(&token(), AUTH_CODE)
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WechatUnavailable, "{error}");
    }
}

#[tokio::test]
async fn an_empty_refresh_token_is_none() {
    async fn renew(reply: Value) -> Result<AuthorizerToken, Error> {
        let server = ScriptedServer::with_json(reply).await;
        let refresh = RefreshToken::from(REFRESH_TOKEN);
        let client = server.client();
        client
            .authorizer_token(&token(), &account(), &refresh)
            .await
    }
    for refresh in [json!(""), json!(null)] {
        let reply = json!({ "authorizer_access_token": "a", "authorizer_refresh_token": refresh });
        assert!(renew(reply).await.unwrap().refresh_token.is_none());
    }
    let error = renew(json!({ "authorizer_refresh_token": "r" }))
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("no authorizer_access_token"),
        "{error}"
    );
}

#[tokio::test]
async fn odd_entries_of_the_list_are_skipped() {
    let server = ScriptedServer::with_json(json!({
        "total_count": "5",
        "list": [
            { "authorizer_appid": "wxa", "refresh_token": "r", "auth_time": "1700000000" },
            { "authorizer_appid": "wxb", "refresh_token": "", "auth_time": 0 },
            { "authorizer_appid": "wxc", "refresh_token": "sp ace", "auth_time": i64::MAX },
            { "authorizer_appid": "" },
            "wxd",
        ],
    }))
    .await;
    let page = server
        .client()
        .authorizer_list(&token(), 0, 500)
        .await
        .unwrap();
    assert_eq!((page.total, page.entries), (5, 5));
    let ids: Vec<&str> = page.accounts.iter().map(|it| it.app_id.as_str()).collect();
    assert_eq!(ids, ["wxa", "wxb", "wxc"]);
    let first = &page.accounts[0];
    assert_eq!(first.refresh_token.as_ref().unwrap().expose(), "r");
    assert_eq!(
        first.auth_time,
        Some(Timestamp::from_millis(1_700_000_000_000))
    );
    for other in &page.accounts[1..] {
        assert!(
            other.refresh_token.is_none() && other.auth_time.is_none(),
            "{other:?}"
        );
    }
}

#[tokio::test]
async fn lifetimes_of_pre_auth_codes_are_bounded() {
    for (sent, seconds) in [
        (json!(1_800), 1_800),
        (json!("600"), 600),
        (json!(86_400), 1_800),
        (json!(0), 600),
        (json!(null), 600),
    ] {
        let reply = json!({ "pre_auth_code": "preauthcode@@@x", "expires_in": sent });
        let server = ScriptedServer::with_json(reply).await;
        let code = server.client().pre_auth_code(&token()).await.unwrap();
        assert_eq!(code.expires_in, Duration::from_secs(seconds), "{sent}");
        assert!(!format!("{code:?}").contains("preauthcode"), "{code:?}");
    }
}

#[tokio::test]
async fn errors_contain_no_secret() {
    let echo = [SECRET, TOKEN, TICKET, AUTH_CODE, REFRESH_TOKEN].join(" ");
    let encoded = "ticket%40%40%40T1cket queryauthcode%40%40%40C0de";
    let errmsg = json!({ "errcode": 47001, "errmsg": format!("{echo} {encoded}") });
    for answer in [errmsg.to_string(), format!("<html>{echo} {encoded}</html>")] {
        let server = ScriptedServer::with_body(200, answer).await;
        for error in errors_of_all_calls(&server).await {
            let text = all_error_text(&error);
            // A call redacts its own secrets. No call receives those of another call.
            let path = text.split(':').next().unwrap().to_owned();
            let own: &[&str] = match path.rsplit('/').next().unwrap() {
                "api_start_push_ticket" => &[SECRET],
                "api_component_token" => &[SECRET, TICKET, "T1cket"],
                "api_create_preauthcode" | "api_get_authorizer_list" => &[TOKEN],
                "api_query_auth" => &[TOKEN, AUTH_CODE, "C0de"],
                "api_authorizer_token" => &[TOKEN, REFRESH_TOKEN],
                other => panic!("{other}"),
            };
            for secret in own {
                assert!(!text.contains(secret), "{secret} in {text}");
            }
        }
    }
}

#[tokio::test]
async fn only_the_authorization_code_is_not_sent_twice() {
    let silent = ScriptedServer::start(ScriptedReply::NoReply).await;
    let good = ScriptedServer::with_json(json!({
        "component_access_token": "c", "authorizer_access_token": "a",
        "authorization_info": { "authorizer_appid": "wxacc" },
    }))
    .await;
    let client = client(&[&silent.url, &good.url]);
    client
        .component_token(&RefreshToken::from(TICKET))
        .await
        .unwrap();
    client
        .authorizer_token(&token(), &account(), &RefreshToken::from(REFRESH_TOKEN))
        .await
        .unwrap();
    assert_eq!(good.requests().len(), 2);
    let error = client.query_auth(&token(), AUTH_CODE).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WechatUnavailable);
    assert_eq!(
        error.recommended_action(),
        Some(RecommendedAction::PassThrough)
    );
    assert_eq!(good.requests().len(), 2);
}

#[tokio::test]
async fn any_call_of_a_platform_carries_its_token_by_its_own_name() {
    let rejected = json!({ "errcode": 40001, "errmsg": "invalid credential" });
    let server = ScriptedServer::with_sequence([json!({ "errcode": 0 }), rejected]).await;
    let client = server.client();
    let path = "cgi-bin/component/api_get_authorizer_info";
    let _: Value = client.post_json(path, &token(), &json!({})).await.unwrap();
    let error = client
        .get_json::<Value>(path, &token(), &[])
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TokenRefused);
    let lines: Vec<String> = server
        .requests()
        .iter()
        .map(|request| request.lines().next().unwrap().to_owned())
        .collect();
    let target = format!("/{path}?component_access_token={TOKEN} HTTP/1.1");
    assert_eq!(lines, [format!("POST {target}"), format!("GET {target}")]);
}

#[tokio::test]
async fn remedies_name_the_platform_and_the_account() {
    async fn text(errcode: i64, errmsg: &str) -> Vec<String> {
        let reply = json!({ "errcode": errcode, "errmsg": errmsg });
        let server = ScriptedServer::with_json(reply).await;
        let errors = errors_of_all_calls(&server).await;
        errors.iter().map(ToString::to_string).collect()
    }
    for text in text(
        61004,
        "access clientip is not registered requestIP: 1.2.3.4",
    )
    .await
    {
        assert!(
            text.contains("add 1.2.3.4 to the IP whitelist of the platform wx1"),
            "{text}"
        );
    }
    let texts = text(45009, "reach max api daily quota limit").await;
    assert!(texts[1].contains("component tokens of wx1"), "{}", texts[1]);
    assert!(texts[4].contains("quota of wxacc"), "{}", texts[4]);
    for text in texts {
        assert!(text.contains("cgi-bin/component/clear_quota/v2"), "{text}");
    }
    let texts = text(61003, "component is not authorized by this account").await;
    assert!(
        texts[4].ends_with("the owner of wxacc has to authorize the platform wx1 again"),
        "{}",
        texts[4]
    );
}
