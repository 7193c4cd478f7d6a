//! Tests of clients that work on behalf of an account.

use serde_json::{Value, json};

use super::authority::{Call, FakeAuthority};
use super::fixtures::{CODE, REFRESH, all_error_text, refresh_token, token};
use super::server::ScriptedServer;
use crate::credential::AppId;
use crate::{Error, ErrorKind, WechatClient};

fn account() -> AppId {
    AppId::new("wxacc").unwrap()
}

fn success() -> Value {
    json!({ "access_token": "a", "expires_in": 7200, "refresh_token": "r", "openid": "o" })
}

fn rejection(errcode: i64) -> Value {
    json!({ "errcode": errcode, "errmsg": "rejected" })
}

/// Makes one of the two calls that carry the component token.
async fn call(client: &WechatClient, exchanges: bool) -> Result<(), Error> {
    match exchanges {
        true => client.exchange_code(CODE).await.map(drop),
        false => client.refresh_user_token(&refresh_token()).await.map(drop),
    }
}

#[tokio::test]
async fn the_calls_for_users_have_the_documented_form() {
    let server = ScriptedServer::with_json(success()).await;
    let (authority, shared) = FakeAuthority::default().shared();
    let client = server.client().on_behalf_of(&account(), shared);
    let response = client.exchange_code(CODE).await.unwrap();
    assert_eq!(response.openid.as_deref(), Some("o"));
    client.refresh_user_token(&refresh_token()).await.unwrap();
    let lines: Vec<String> = server
        .requests()
        .iter()
        .map(|request| request.lines().next().unwrap().to_owned())
        .collect();
    assert_eq!(
        lines,
        [
            format!(
                "GET /sns/oauth2/component/access_token?appid=wxacc&code={CODE}\
                 &grant_type=authorization_code&component_appid=wxcomp\
                 &component_access_token=comp-t0ken-1 HTTP/1.1"
            ),
            format!(
                "GET /sns/oauth2/component/refresh_token?appid=wxacc&grant_type=refresh_token\
                 &component_appid=wxcomp&component_access_token=comp-t0ken-1\
                 &refresh_token={REFRESH} HTTP/1.1"
            ),
        ]
    );
    assert_eq!(authority.calls(), [Call::Token, Call::Token]);
}

#[tokio::test]
async fn a_stale_component_token_is_reported_and_the_call_repeated_once() {
    for errcode in [40001, 40014, 42001, 42006, 61014] {
        for exchanges in [true, false] {
            let server = ScriptedServer::with_sequence([rejection(errcode), success()]).await;
            let (authority, shared) = FakeAuthority::default().shared();
            let client = server.client().on_behalf_of(&account(), shared);
            call(&client, exchanges).await.unwrap();
            let reported = Call::Reported("comp-t0ken-1".to_owned());
            assert_eq!(authority.calls(), [Call::Token, reported], "{errcode}");
            let requests = server.requests();
            assert_eq!(requests.len(), 2);
            assert!(requests[1].contains("component_access_token=comp-t0ken-2"));
        }
    }
}

#[tokio::test]
async fn there_is_never_a_third_call() {
    for exchanges in [true, false] {
        let replies = [rejection(40001), rejection(42001), success()];
        let server = ScriptedServer::with_sequence(replies).await;
        let (authority, shared) = FakeAuthority::default().shared();
        let client = server.client().on_behalf_of(&account(), shared);
        let error = call(&client, exchanges).await.unwrap_err();
        assert_eq!(
            (error.kind(), error.errcode()),
            (ErrorKind::TokenRefused, Some(42001))
        );
        assert_eq!(server.requests().len(), 2);
        assert_eq!(authority.calls().len(), 2);
    }
}

#[tokio::test]
async fn a_token_that_stays_is_not_tried_again() {
    let server = ScriptedServer::with_json(rejection(40001)).await;
    let authority = FakeAuthority::default().keeping_its_token();
    let client = server
        .client()
        .on_behalf_of(&account(), authority.shared().1);
    let error = client.exchange_code(CODE).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TokenRefused);
    assert_eq!(server.requests().len(), 1);
}

/// The caller has made a call, and must back off from its rejection.
#[tokio::test]
async fn a_failed_report_leaves_the_rejection() {
    let waits =
        Error::new(ErrorKind::PlatformStarting, "no verify ticket").as_missing_prerequisite();
    for exchanges in [true, false] {
        let server = ScriptedServer::with_json(rejection(40001)).await;
        let authority = FakeAuthority::default().failing_reports(waits.clone());
        let client = server
            .client()
            .on_behalf_of(&account(), authority.shared().1);
        let error = call(&client, exchanges).await.unwrap_err();
        assert_eq!(
            (error.kind(), error.errcode()),
            (ErrorKind::TokenRefused, Some(40001))
        );
        assert!(!error.is_missing_prerequisite(), "{error}");
        assert_eq!(server.requests().len(), 1);
    }
}

#[tokio::test]
async fn without_a_component_token_nothing_is_sent() {
    let server = ScriptedServer::with_json(success()).await;
    let (authority, shared) = FakeAuthority::default().shared();
    let down = Error::new(ErrorKind::WechatUnavailable, "no component token");
    *authority.unavailable.lock().unwrap() = Some(down.clone());
    let client = server.client().on_behalf_of(&account(), shared);
    for exchanges in [true, false] {
        let error = call(&client, exchanges).await.unwrap_err();
        assert!(error.is_missing_prerequisite(), "{error}");
        assert_eq!(error.kind(), ErrorKind::WechatUnavailable);
    }
    assert!(!down.is_missing_prerequisite(), "the original is unchanged");
    assert_eq!(server.requests().len(), 0);
}

#[tokio::test]
async fn a_lost_authorization_is_noted_by_every_call() {
    let server = ScriptedServer::with_json(rejection(61003)).await;
    let (authority, shared) = FakeAuthority::default().shared();
    let client = server.client().on_behalf_of(&account(), shared);
    let errors = [
        client.exchange_code(CODE).await.map(drop),
        client.refresh_user_token(&refresh_token()).await.map(drop),
        client.jsapi_ticket(&token()).await.map(drop),
        client
            .get_json::<Value>("cgi-bin/x", &token(), &[])
            .await
            .map(drop),
        client.check_user_token(&token(), "o").await,
    ];
    for result in &errors {
        let error = result.as_ref().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AccountNotAuthorized);
        let remedy = "the owner of wxacc has to authorize the platform wxcomp again";
        assert!(error.to_string().ends_with(remedy), "{error}");
    }
    let noted = authority.calls();
    let noted = noted
        .iter()
        .filter(|call| **call == Call::NotAuthorized("wxacc".to_owned()));
    assert_eq!(noted.count(), errors.len());
    assert_eq!(server.requests().len(), errors.len());
}

#[tokio::test]
async fn calls_that_need_an_app_secret_fail_before_they_are_sent() {
    let server = ScriptedServer::with_json(success()).await;
    let client = server
        .client()
        .on_behalf_of(&account(), FakeAuthority::default().shared().1);
    for result in [
        client.account_token().await,
        client.stable_account_token(false).await,
        client.component_token(&refresh_token()).await,
    ] {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration);
        assert!(error.to_string().contains("on behalf of wxacc"), "{error}");
    }
    assert!(client.start_push_ticket().await.is_err());
    assert_eq!(server.requests().len(), 0);
}

#[tokio::test]
async fn codes_and_refresh_tokens_are_checked_before_the_component_token() {
    let server = ScriptedServer::with_json(success()).await;
    let (authority, shared) = FakeAuthority::default().shared();
    let client = server.client().on_behalf_of(&account(), shared);
    assert_eq!(
        client.exchange_code("").await.unwrap_err().kind(),
        ErrorKind::LoginRequired
    );
    let error = client.refresh_user_token(&"".into()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LoginRequired);
    assert_eq!(authority.calls(), []);
}

#[tokio::test]
async fn errors_contain_no_component_token() {
    let echo = format!("comp-t0ken-1 {CODE} {REFRESH}");
    let errmsg = json!({ "errcode": 40029, "errmsg": echo }).to_string();
    for answer in [errmsg, format!("<html>{echo}")] {
        let server = ScriptedServer::with_body(200, answer).await;
        let client = server
            .client()
            .on_behalf_of(&account(), FakeAuthority::default().shared().1);
        for exchanges in [true, false] {
            let text = all_error_text(&call(&client, exchanges).await.unwrap_err());
            let own = if exchanges { CODE } else { REFRESH };
            for secret in ["comp-t0ken-1", own] {
                assert!(!text.contains(secret), "{text}");
            }
        }
    }
}

#[test]
fn clients_on_behalf_keep_the_platforms_settings() {
    let platform = WechatClient::builder("wxcomp", "s3cret")
        .api_url("http://127.0.0.1:1")
        .open_url("https://open.example")
        .build()
        .unwrap();
    let (_, shared) = FakeAuthority::default().shared();
    let first = platform.on_behalf_of(&account(), shared.clone());
    let again = platform.on_behalf_of(&account(), shared);
    assert_eq!(first.app_id(), &account());
    assert_eq!(first.open_url(), "https://open.example");
    assert!(first.has_same_settings(&again));
    let other_platform = platform.on_behalf_of(&account(), FakeAuthority::default().shared().1);
    assert!(!first.has_same_settings(&other_platform));
    let direct = first.for_account("wxacc", "s3cret").unwrap();
    assert!(!first.has_same_settings(&direct) && !direct.has_same_settings(&first));
    assert!(direct.platform_authority().is_none() && direct.component_app_id().is_none());
    assert_eq!(
        format!("{first:?}"),
        "WechatClient { app_id: AppId(\"wxacc\"), component_app_id: AppId(\"wxcomp\"), \
         open_url: \"https://open.example\", .. }"
    );
}
