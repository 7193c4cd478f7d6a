//! The calls of a third-party platform (第三方平台) with its own AppID: `cgi-bin/component/*`.
//!
//! The client is that of the platform, so its AppID is the `component_appid`, and its AppSecret
//! the `component_appsecret`. All calls are POST requests with a JSON body. The query name of the
//! token is `component_access_token`: WeChat's newer pages print `access_token`, but only the older
//! name is proven in the field.
//!
//! # Retries at another host
//! A lost reply may hide a success. `api_component_token` and `api_authorizer_token` then create
//! one more token, which replaces one that no process has received. These calls are therefore sent
//! to the next host, as the call of `cgi-bin/token` is. `api_query_auth` is not sent again, because
//! WeChat accepts an authorization code once.

use serde_json::{Value, json};

use super::client::{MAX_CODE_BYTES, WechatClient, token_request};
use super::component_reply::{self, AuthorizerGrant, AuthorizerPage, AuthorizerToken, PreAuthCode};
use super::errcode::Endpoint;
use super::redaction::Redactor;
use super::token_response::AccountTokenResponse;
use super::transport::ApiRequest;
use crate::credential::{AccessToken, AppId, RefreshToken};
use crate::error::{Error, ErrorKind};

/// Maximum number of accounts in one page of `api_get_authorizer_list`: 500. WeChat rejects a
/// larger number with 40170.
pub(crate) const MAX_LIST_COUNT: u32 = 500;

impl WechatClient {
    /// Asks WeChat to push the `component_verify_ticket` again (`api_start_push_ticket`). The
    /// ticket arrives as a push, within ten minutes.
    ///
    /// # Errors
    /// The errors listed at [`WechatClient`].
    pub(crate) async fn start_push_ticket(&self) -> Result<(), Error> {
        const PATH: &str = "cgi-bin/component/api_start_push_ticket";
        let secret = self.secret(PATH)?.expose();
        let body = json!({
            "component_appid": self.app_id().as_str(),
            // Only this call has this name for the AppSecret.
            "component_secret": secret,
        });
        let call = component_request(Endpoint::ComponentToken, PATH, &body, [secret]);
        self.send(&call, |_| Ok(())).await
    }

    /// Issues a new component token (`api_component_token`). Each call issues another token.
    ///
    /// # Errors
    /// The errors listed at [`WechatClient`]. Without a ticket, nothing is sent, and the error is
    /// [`ErrorKind::PlatformStarting`].
    pub(crate) async fn component_token(
        &self,
        ticket: &RefreshToken,
    ) -> Result<AccountTokenResponse, Error> {
        const PATH: &str = "cgi-bin/component/api_component_token";
        let secret = self.secret(PATH)?.expose();
        let ticket = ticket.expose();
        if ticket.is_empty() {
            return Err(not_sent(
                ErrorKind::PlatformStarting,
                PATH,
                "there is no component_verify_ticket yet",
            ));
        }
        let body = json!({
            "component_appid": self.app_id().as_str(),
            "component_appsecret": secret,
            "component_verify_ticket": ticket,
        });
        let call = component_request(Endpoint::ComponentToken, PATH, &body, [secret, ticket]);
        self.send(&call, component_reply::component_token).await
    }

    /// Issues a code for one authorization page (`api_create_preauthcode`).
    ///
    /// # Errors
    /// The errors listed at [`WechatClient`].
    pub(crate) async fn pre_auth_code(&self, token: &AccessToken) -> Result<PreAuthCode, Error> {
        const PATH: &str = "cgi-bin/component/api_create_preauthcode";
        let body = json!({ "component_appid": self.app_id().as_str() });
        let call = component_call(PATH, &body, token, []);
        self.send(&call, component_reply::pre_auth_code).await
    }

    /// Exchanges the code of an authorization for the account's tokens (`api_query_auth`).
    ///
    /// # Errors
    /// The errors listed at [`WechatClient`]. An invalid, used or expired code (61009, 61010) is
    /// [`ErrorKind::BadRequest`]. An empty code, and one above 2,048 bytes, is not sent.
    pub(crate) async fn query_auth(
        &self,
        token: &AccessToken,
        code: &str,
    ) -> Result<AuthorizerGrant, Error> {
        const PATH: &str = "cgi-bin/component/api_query_auth";
        if code.is_empty() || code.len() > MAX_CODE_BYTES {
            return Err(not_sent(
                ErrorKind::BadRequest,
                PATH,
                "the authorization code is empty or too long",
            ));
        }
        let body = json!({
            "component_appid": self.app_id().as_str(),
            "authorization_code": code,
        });
        let mut call = component_call(PATH, &body, token, [code]);
        call.retryable = false;
        self.send(&call, component_reply::grant).await
    }

    /// Issues a new access token of the account (`api_authorizer_token`). The call counts on the
    /// account's own quota.
    ///
    /// # Errors
    /// The errors listed at [`WechatClient`]. An account that has withdrawn its authorization
    /// (61003), or whose refresh token is invalid (61023), is
    /// [`ErrorKind::AccountNotAuthorized`]; so is an empty refresh token, which is not sent.
    pub(crate) async fn authorizer_token(
        &self,
        token: &AccessToken,
        account: &AppId,
        refresh: &RefreshToken,
    ) -> Result<AuthorizerToken, Error> {
        const PATH: &str = "cgi-bin/component/api_authorizer_token";
        let refresh = refresh.expose();
        if refresh.is_empty() {
            return Err(not_sent(
                ErrorKind::AccountNotAuthorized,
                PATH,
                &format!("there is no refresh token of {account}"),
            ));
        }
        let body = json!({
            "component_appid": self.app_id().as_str(),
            "authorizer_appid": account.as_str(),
            "authorizer_refresh_token": refresh,
        });
        let mut call = component_call(PATH, &body, token, [refresh]);
        call.account = Some(account);
        self.send(&call, component_reply::authorizer_token).await
    }

    /// Returns one page of the accounts that have authorized the platform
    /// (`api_get_authorizer_list`). `count` is limited to the range from 1 to [`MAX_LIST_COUNT`].
    ///
    /// # Errors
    /// The errors listed at [`WechatClient`].
    pub(crate) async fn authorizer_list(
        &self,
        token: &AccessToken,
        offset: u32,
        count: u32,
    ) -> Result<AuthorizerPage, Error> {
        const PATH: &str = "cgi-bin/component/api_get_authorizer_list";
        let body = json!({
            "component_appid": self.app_id().as_str(),
            "offset": offset,
            "count": count.clamp(1, MAX_LIST_COUNT),
        });
        let call = component_call(PATH, &body, token, []);
        self.send(&call, component_reply::page).await
    }
}

/// Returns a request with the component token in its query.
fn component_call<'a, const N: usize>(
    path: &'a str,
    body: &Value,
    token: &'a AccessToken,
    secrets: [&'a str; N],
) -> ApiRequest<'a> {
    let mut call = token_request(Endpoint::ComponentCall, path, token);
    call.body = Some(body.to_string().into_bytes());
    call.redactor = Redactor::new(secrets.into_iter().chain([token.expose()]));
    call
}

/// Returns a POST request without a query. `secrets` are the secrets of the body.
fn component_request<'a>(
    endpoint: Endpoint,
    path: &'a str,
    body: &Value,
    secrets: impl IntoIterator<Item = &'a str>,
) -> ApiRequest<'a> {
    ApiRequest {
        endpoint,
        path,
        query: Vec::new(),
        body: Some(body.to_string().into_bytes()),
        account: None,
        retryable: true,
        redactor: Redactor::new(secrets),
    }
}

fn not_sent(kind: ErrorKind, path: &str, why: &str) -> Error {
    Error::new(kind, format!("{path}: {why}, so nothing was sent"))
}
