//! The client of one account: the calls for tokens, tickets and profiles.

use std::fmt;
use std::sync::Arc;

use serde_json::json;

use super::credentials::Credentials;
use super::errcode::Endpoint;
use super::redaction::Redactor;
use super::reply::{InvalidReply, ReplyFields};
use super::token_response::{AccountTokenResponse, JsapiTicketResponse, UserTokenResponse};
use super::transport::{ApiRequest, Transport};
use super::user_info::{Language, UserInfo};
use crate::credential::{AccessToken, AppId, AppSecret, RefreshToken};
use crate::error::{Error, ErrorKind, RecommendedAction};

/// Maximum length of a login code: 2,048 bytes. WeCom documents 512 bytes, and the documentation of
/// Official Accounts states no maximum.
pub(super) const MAX_CODE_BYTES: usize = 2_048;

/// The HTTP client of WeChat's API, for one account (公众号).
///
/// Clones share their connections. Each call sends at most one request to each host, in order, and
/// ends within the total timeout. The caller backs off and retries.
///
/// # Errors
/// All calls return the same kinds of errors. [`Error::kind`] and [`Error::recommended_action`]
/// describe the remedy. [`Error::errcode`] and [`Error::rid`] come from WeChat's reply.
///
/// - [`ErrorKind::WechatUnavailable`]: no reply, an invalid reply, or "system busy".
/// - [`ErrorKind::TokenRefused`]: WeChat rejected the access token of this call.
/// - [`ErrorKind::LoginRequired`]: the code or refresh token is invalid, or the scope is too small.
/// - [`ErrorKind::WechatConfig`]: WeChat rejected the account; only the operator can fix it.
/// - [`ErrorKind::WechatRefused`]: any other errcode.
///
/// The text, the `Debug` output and the sources of an error contain no secret, code or token.
///
/// ```no_run
/// use tower_wechat::client::Language;
/// use tower_wechat::WechatClient;
///
/// # async fn run(code: &str) -> Result<(), tower_wechat::Error> {
/// let wechat = WechatClient::new("wx0123456789abcdef", "the-AppSecret")?;
/// let response = wechat.exchange_code(code).await?;
/// if let Some(openid) = &response.openid {
///     let user = wechat.user_info(&response.access_token, openid, Language::ZhCn).await?;
///     println!("hello {}", user.nickname);
/// }
/// # Ok(())
/// # }
/// ```
///
/// ```no_run
/// use tower_wechat::credential::RefreshToken;
/// use tower_wechat::{Error, WechatClient};
///
/// # async fn run(secret: &str, refresh_token: &RefreshToken) -> Result<(), Error> {
/// let wechat = WechatClient::builder("wx0123456789abcdef", secret).build()?;
/// println!("{} logs in at {}", wechat.app_id(), wechat.open_url());
///
/// // Refreshes a user's token directly. `UserTokens` does this once for all processes.
/// let response = wechat.refresh_user_token(refresh_token).await?;
/// wechat.check_user_token(&response.access_token, "oUser").await?;
///
/// // Each call issues a new token, and the former one expires within five minutes.
/// let account = wechat.account_token().await?;
/// println!("{:?} s", account.expires_in);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct WechatClient {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) transport: Transport,
    pub(super) credentials: Credentials,
    pub(super) open_url: Arc<str>,
}

impl WechatClient {
    /// Returns the account's AppID.
    pub fn app_id(&self) -> &AppId {
        &self.inner.transport.app_id
    }

    /// Returns the AppID of the third-party platform (`component_appid`) in whose name this client
    /// works on behalf of the account, if it does.
    pub(crate) fn component_app_id(&self) -> Option<&AppId> {
        self.inner.transport.component.as_ref()
    }

    /// Returns `true` if `other` is a client of the same account with the same AppSecret or
    /// platform, URLs, proxy and timeouts. Compares the AppSecret in constant time. The clock does not count.
    pub(crate) fn has_same_settings(&self, other: &Self) -> bool {
        let (own, others) = (&self.inner, &other.inner);
        own.credentials == others.credentials
            && own.open_url == others.open_url
            && own.transport.has_same_settings(&others.transport)
    }

    /// Returns the base URL of the authorize pages, without a slash at its end.
    pub fn open_url(&self) -> &str {
        &self.inner.open_url
    }

    /// Exchanges the code of a login for the user's tokens (`sns/oauth2/access_token`).
    ///
    /// WeChat accepts a code once, within five minutes. This call therefore tries the next host
    /// only if the request was certainly not sent. If the reply was lost, the error has the kind
    /// [`ErrorKind::WechatUnavailable`] and the action [`RecommendedAction::LogIn`].
    ///
    /// # Errors
    /// The errors listed at [`WechatClient`]. An empty code is [`ErrorKind::LoginRequired`], and a
    /// code above 2,048 bytes is [`ErrorKind::BadRequest`]; such codes are not sent.
    pub async fn exchange_code(&self, code: &str) -> Result<UserTokenResponse, Error> {
        const PATH: &str = "sns/oauth2/access_token";
        if code.is_empty() {
            return Err(login_required(format!(
                "{PATH}: there is no code to exchange"
            )));
        }
        if code.len() > MAX_CODE_BYTES {
            let text = format!("{PATH}: the code is longer than {MAX_CODE_BYTES} bytes");
            return Err(Error::new(ErrorKind::BadRequest, text));
        }
        #[cfg(feature = "platform")]
        if let Some(authority) = self.platform_authority() {
            return self.exchange_code_on_behalf(authority, code).await;
        }
        let secret = self.secret(PATH)?.expose();
        let call = ApiRequest {
            endpoint: Endpoint::CodeExchange,
            path: PATH,
            query: vec![
                ("appid", self.app_id().as_str()),
                ("secret", secret),
                ("code", code),
                ("grant_type", "authorization_code"),
            ],
            body: None,
            account: None,
            retryable: false,
            redactor: Redactor::new([secret, code]),
        };
        self.send(&call, UserTokenResponse::from_code_exchange)
            .await
    }

    /// Refreshes a user's access token (`sns/oauth2/refresh_token`).
    ///
    /// Before the access token expires, WeChat returns the same token with a new expiry, and
    /// afterwards a new token. The reply may lack all fields but the access token.
    ///
    /// # Errors
    /// The errors listed at [`WechatClient`]. An expired, revoked or empty refresh token (40030,
    /// 42002, 42007, 41003) is [`ErrorKind::LoginRequired`].
    pub async fn refresh_user_token(
        &self,
        token: &RefreshToken,
    ) -> Result<UserTokenResponse, Error> {
        const PATH: &str = "sns/oauth2/refresh_token";
        let token = token.expose();
        if token.is_empty() {
            return Err(login_required(format!("{PATH}: there is no refresh token")));
        }
        #[cfg(feature = "platform")]
        if let Some(authority) = self.platform_authority() {
            return self.refresh_user_token_on_behalf(authority, token).await;
        }
        let call = ApiRequest {
            endpoint: Endpoint::UserRefresh,
            path: PATH,
            query: vec![
                ("appid", self.app_id().as_str()),
                ("grant_type", "refresh_token"),
                ("refresh_token", token),
            ],
            body: None,
            account: None,
            retryable: true,
            redactor: Redactor::new([token]),
        };
        self.send(&call, UserTokenResponse::from_refresh).await
    }

    /// Returns the user's profile (`sns/userinfo`), for a token of the scope `snsapi_userinfo`.
    ///
    /// # Errors
    /// The errors listed at [`WechatClient`]. A token of the scope `snsapi_base` (48001) and an
    /// openid other than the token's (40003) are [`ErrorKind::LoginRequired`]. A reply with another
    /// openid is [`ErrorKind::WechatUnavailable`].
    pub async fn user_info(
        &self,
        token: &AccessToken,
        openid: &str,
        language: Language,
    ) -> Result<UserInfo, Error> {
        let mut call = token_request(Endpoint::UserCall, "sns/userinfo", token);
        call.query.push(("openid", openid));
        call.query.push(("lang", language.as_str()));
        let read = |fields: &ReplyFields| UserInfo::from_reply(openid, fields);
        self.send(&call, read).await
    }

    /// Checks with WeChat that a user's access token is valid (`sns/auth`).
    ///
    /// # Errors
    /// The errors listed at [`WechatClient`], among them those of an invalid token and of an openid
    /// that is not the token's.
    pub async fn check_user_token(&self, token: &AccessToken, openid: &str) -> Result<(), Error> {
        let mut call = token_request(Endpoint::UserCall, "sns/auth", token);
        call.query.push(("openid", openid));
        self.send(&call, |_| Ok(())).await
    }

    /// Issues a new access token of the account (`cgi-bin/token`).
    ///
    /// Each call issues a new token, after which the former token works for five more minutes. The
    /// daily quota of a new account is 2,000 calls.
    /// [`stable_account_token`](Self::stable_account_token) has a larger quota, and returns the
    /// current token again while that token is valid.
    ///
    /// # Errors
    /// The errors listed at [`WechatClient`].
    pub async fn account_token(&self) -> Result<AccountTokenResponse, Error> {
        const PATH: &str = "cgi-bin/token";
        let secret = self.secret(PATH)?.expose();
        let mut call = account_token_request(PATH, secret);
        call.query = vec![
            ("grant_type", "client_credential"),
            ("appid", self.app_id().as_str()),
            ("secret", secret),
        ];
        self.send(&call, AccountTokenResponse::from_reply).await
    }

    /// Returns the access token of the account (`cgi-bin/stable_token`).
    ///
    /// Without `force`, WeChat returns its current token until that token has five minutes left.
    /// With `force`, WeChat revokes the current token at once, at most 20 times a day and at least
    /// 30 s apart. If the reply to a forced call is lost, the client does not try another host.
    ///
    /// # Errors
    /// The errors listed at [`WechatClient`].
    pub async fn stable_account_token(&self, force: bool) -> Result<AccountTokenResponse, Error> {
        const PATH: &str = "cgi-bin/stable_token";
        let secret = self.secret(PATH)?.expose();
        let body = json!({
            "grant_type": "client_credential",
            "appid": self.app_id().as_str(),
            "secret": secret,
            "force_refresh": force,
        });
        let mut call = account_token_request(PATH, secret);
        call.body = Some(body.to_string().into_bytes());
        // Each forced call revokes a token, and WeChat allows 20 such calls a day.
        call.retryable = !force;
        self.send(&call, AccountTokenResponse::from_reply).await
    }

    /// Returns the `jsapi_ticket` (`cgi-bin/ticket/getticket`), for an access token of the account.
    ///
    /// # Errors
    /// The errors listed at [`WechatClient`].
    pub async fn jsapi_ticket(&self, token: &AccessToken) -> Result<JsapiTicketResponse, Error> {
        let mut call = token_request(Endpoint::AccountCall, "cgi-bin/ticket/getticket", token);
        call.query.push(("type", "jsapi"));
        self.send(&call, JsapiTicketResponse::from_reply).await
    }
}

impl WechatClient {
    /// Returns the AppSecret, which the call of `path` sends.
    ///
    /// # Errors
    /// The client works on behalf of the account, and has no AppSecret.
    #[cfg_attr(
        not(feature = "platform"),
        allow(unused_variables, clippy::unnecessary_wraps)
    )]
    pub(super) fn secret(&self, path: &str) -> Result<&AppSecret, Error> {
        match &self.inner.credentials {
            Credentials::Secret(secret) => Ok(secret),
            #[cfg(feature = "platform")]
            Credentials::Platform(_) => Err(Error::configuration(format!(
                "{path}: the client works on behalf of {} and has no AppSecret; take the account's \
                 token from Platform::account_tokens",
                self.app_id()
            ))),
        }
    }

    /// Sends a request. If WeChat answers that the account has not authorized the platform in whose
    /// name this client works, the platform is notified.
    pub(super) async fn send<T>(
        &self,
        call: &ApiRequest<'_>,
        read: impl Fn(&ReplyFields) -> Result<T, InvalidReply>,
    ) -> Result<T, Error> {
        let result = self.inner.transport.send(call, read).await;
        #[cfg(feature = "platform")]
        if let Err(error) = &result {
            self.note_if_not_authorized(error);
        }
        result
    }
}

impl fmt::Debug for WechatClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("WechatClient");
        out.field("app_id", self.app_id());
        if let Some(component) = self.component_app_id() {
            out.field("component_app_id", component);
        }
        out.field("open_url", &self.open_url())
            .finish_non_exhaustive()
    }
}

fn login_required(message: String) -> Error {
    Error::new(ErrorKind::LoginRequired, message).with_recommended_action(RecommendedAction::LogIn)
}

/// Returns a request for the account's token, to which the caller adds the AppSecret. The redactor
/// of the request removes the AppSecret from texts.
fn account_token_request<'a>(path: &'a str, secret: &'a str) -> ApiRequest<'a> {
    ApiRequest {
        endpoint: Endpoint::AccountToken,
        path,
        query: Vec::new(),
        body: None,
        account: None,
        retryable: true,
        redactor: Redactor::new([secret]),
    }
}

/// Returns a GET request with an access token in its query. The calls of a platform have another
/// name for it.
pub(super) fn token_request<'a>(
    endpoint: Endpoint,
    path: &'a str,
    token: &'a AccessToken,
) -> ApiRequest<'a> {
    let name = match endpoint {
        Endpoint::ComponentCall => "component_access_token",
        Endpoint::CodeExchange
        | Endpoint::UserRefresh
        | Endpoint::UserCall
        | Endpoint::AccountToken
        | Endpoint::AccountCall
        | Endpoint::ComponentToken
        | Endpoint::ComponentCodeExchange
        | Endpoint::ComponentUserRefresh => "access_token",
    };
    ApiRequest {
        endpoint,
        path,
        query: vec![(name, token.expose())],
        body: None,
        account: None,
        retryable: true,
        redactor: Redactor::new([token.expose()]),
    }
}
