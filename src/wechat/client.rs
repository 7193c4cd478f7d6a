//! The calls of WeChat's API.

use std::fmt;
use std::sync::Arc;

use serde_json::json;

use super::errcode::Endpoint;
use super::redaction::Redactor;
use super::reply::ReplyFields;
use super::token_response::{AccountTokenResponse, JsapiTicketResponse, UserTokenResponse};
use super::transport::{ApiRequest, Transport};
use super::user_info::{Language, UserInfo};
use crate::credential::{AccessToken, AppId, AppSecret, RefreshToken};
use crate::error::{Error, ErrorKind, RecommendedAction};

/// The longest code that is sent on. WeCom documents 512 bytes, the Official Account nothing.
const MAX_CODE_BYTES: usize = 2_048;

/// The HTTP client of WeChat's API, for one account (公众号).
///
/// A clone is one more handle on the same connections. Each call asks each host once, in order,
/// and ends within the total timeout; it neither waits nor tries again by itself.
///
/// # Errors
/// All calls fail alike. [`Error::kind`] and [`Error::recommended_action`] say what helps,
/// [`Error::errcode`] and [`Error::rid`] what WeChat said:
///
/// - [`ErrorKind::WechatUnavailable`]: no answer, an answer that makes no sense, or "busy".
/// - [`ErrorKind::TokenRefused`]: the access token of this call is not accepted.
/// - [`ErrorKind::LoginRequired`]: the code, the refresh token or the scope does not do.
/// - [`ErrorKind::WechatConfig`]: only the operator can help.
/// - [`ErrorKind::WechatRefused`]: any other errcode.
///
/// No error's text, `Debug` output or source holds a secret, a code or a token.
///
/// ```no_run
/// use tower_wechat::{Language, WechatClient};
///
/// # async fn run(code: &str) -> Result<(), tower_wechat::Error> {
/// let wechat = WechatClient::new("wx0123456789abcdef", "the-AppSecret")?;
/// let grant = wechat.exchange_code(code).await?;
/// if let Some(openid) = &grant.openid {
///     let user = wechat.user_info(&grant.access_token, openid, Language::ZhCn).await?;
///     println!("hello {}", user.nickname);
/// }
/// # Ok(())
/// # }
/// ```
///
/// ```no_run
/// use tower_wechat::{Error, RefreshToken, WechatClient};
///
/// # async fn run(secret: &str, refresh_token: &RefreshToken) -> Result<(), Error> {
/// let wechat = WechatClient::builder("wx0123456789abcdef", secret).build()?;
/// println!("{} logs in at {}", wechat.app_id(), wechat.open_url());
///
/// // A user's token, by hand; `UserTokens` does this once for all processes.
/// let grant = wechat.refresh_user_token(refresh_token).await?;
/// wechat.check_user_token(&grant.access_token, "oUser").await?;
///
/// // The account's own; each call ends the token before in five minutes.
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
    pub(super) secret: AppSecret,
    pub(super) open_url: Box<str>,
}

impl WechatClient {
    /// The account's AppID.
    pub fn app_id(&self) -> &AppId {
        &self.inner.transport.app_id
    }

    /// The base URL of the authorize pages, without a slash at its end.
    pub fn open_url(&self) -> &str {
        &self.inner.open_url
    }

    /// Exchanges the code of a login for the user's tokens (`sns/oauth2/access_token`).
    ///
    /// A code works once, within five minutes. So this call moves on to another host only if the
    /// first could not be reached at all; where the answer was lost the error's kind is
    /// [`ErrorKind::WechatUnavailable`] and its reaction [`RecommendedAction::LogIn`].
    ///
    /// # Errors
    /// As said on [`WechatClient`]; an empty code is [`ErrorKind::LoginRequired`] and an absurdly
    /// long one [`ErrorKind::BadRequest`], without asking WeChat.
    pub async fn exchange_code(&self, code: &str) -> Result<UserTokenResponse, Error> {
        const PATH: &str = "sns/oauth2/access_token";
        if code.is_empty() {
            let text = format!("{PATH}: there is no code to exchange");
            return Err(Error::new(ErrorKind::LoginRequired, text)
                .with_recommended_action(RecommendedAction::LogIn));
        }
        if code.len() > MAX_CODE_BYTES {
            let text = format!("{PATH}: the code is longer than {MAX_CODE_BYTES} bytes");
            return Err(Error::new(ErrorKind::BadRequest, text));
        }
        let secret = self.inner.secret.expose();
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
            retryable: false,
            redactor: Redactor::new([secret, code]),
        };
        self.inner
            .transport
            .send(&call, UserTokenResponse::from_code_exchange)
            .await
    }

    /// Makes a new access token from a refresh token (`sns/oauth2/refresh_token`).
    ///
    /// While the access token lives, WeChat answers with the same one and a new expiry; after
    /// that, with a new one. The reply may lack everything but the access token.
    ///
    /// # Errors
    /// As said on [`WechatClient`]; a refresh token that is dead (40030, 42002, 42007, 41003) or
    /// empty is [`ErrorKind::LoginRequired`].
    pub async fn refresh_user_token(
        &self,
        token: &RefreshToken,
    ) -> Result<UserTokenResponse, Error> {
        const PATH: &str = "sns/oauth2/refresh_token";
        let token = token.expose();
        if token.is_empty() {
            let text = format!("{PATH}: there is no refresh token");
            return Err(Error::new(ErrorKind::LoginRequired, text)
                .with_recommended_action(RecommendedAction::LogIn));
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
            retryable: true,
            redactor: Redactor::new([token]),
        };
        self.inner
            .transport
            .send(&call, UserTokenResponse::from_refresh)
            .await
    }

    /// The user's profile (`sns/userinfo`), for a token of the scope `snsapi_userinfo`.
    ///
    /// # Errors
    /// As said on [`WechatClient`]; a token of the scope `snsapi_base` (48001) and an openid that
    /// is not the token's (40003) are [`ErrorKind::LoginRequired`]; a profile of another openid
    /// than the one asked for is [`ErrorKind::WechatUnavailable`].
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
        self.inner.transport.send(&call, read).await
    }

    /// Asks WeChat whether a user's access token is alive (`sns/auth`).
    ///
    /// # Errors
    /// As said on [`WechatClient`]: the token is refused, or the openid is not its own.
    pub async fn check_user_token(&self, token: &AccessToken, openid: &str) -> Result<(), Error> {
        let mut call = token_request(Endpoint::UserCall, "sns/auth", token);
        call.query.push(("openid", openid));
        self.inner.transport.send(&call, |_| Ok(())).await
    }

    /// A new access token of the account (`cgi-bin/token`).
    ///
    /// Each call makes a new token and leaves the one before five more minutes; the daily quota is
    /// some 2,000 calls. [`stable_account_token`](Self::stable_account_token) has neither trait.
    ///
    /// # Errors
    /// As said on [`WechatClient`].
    pub async fn account_token(&self) -> Result<AccountTokenResponse, Error> {
        let secret = self.inner.secret.expose();
        let call = ApiRequest {
            endpoint: Endpoint::AccountToken,
            path: "cgi-bin/token",
            query: vec![
                ("grant_type", "client_credential"),
                ("appid", self.app_id().as_str()),
                ("secret", secret),
            ],
            body: None,
            retryable: true,
            redactor: Redactor::new([secret]),
        };
        self.inner
            .transport
            .send(&call, AccountTokenResponse::from_reply)
            .await
    }

    /// The access token of the account (`cgi-bin/stable_token`).
    ///
    /// Without `force` WeChat repeats its current token until that has five minutes left. With
    /// `force` it kills that token at once: at most 20 times a day, at least 30 s apart, and never
    /// a second time by itself when an answer is lost.
    ///
    /// # Errors
    /// As said on [`WechatClient`].
    pub async fn stable_account_token(&self, force: bool) -> Result<AccountTokenResponse, Error> {
        let secret = self.inner.secret.expose();
        let body = json!({
            "grant_type": "client_credential",
            "appid": self.app_id().as_str(),
            "secret": secret,
            "force_refresh": force,
        });
        let call = ApiRequest {
            endpoint: Endpoint::AccountToken,
            path: "cgi-bin/stable_token",
            query: Vec::new(),
            body: Some(body.to_string().into_bytes()),
            retryable: !force,
            redactor: Redactor::new([secret]),
        };
        self.inner
            .transport
            .send(&call, AccountTokenResponse::from_reply)
            .await
    }

    /// The `jsapi_ticket` (`cgi-bin/ticket/getticket`), for an access token of the account.
    ///
    /// ```no_run
    /// # async fn run(wechat: &tower_wechat::WechatClient) -> Result<(), tower_wechat::Error> {
    /// let account = wechat.stable_account_token(false).await?;
    /// let ticket = wechat.jsapi_ticket(&account.access_token).await?.ticket;
    /// # drop(ticket);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As said on [`WechatClient`].
    pub async fn jsapi_ticket(&self, token: &AccessToken) -> Result<JsapiTicketResponse, Error> {
        let mut call = token_request(Endpoint::AccountCall, "cgi-bin/ticket/getticket", token);
        call.query.push(("type", "jsapi"));
        self.inner
            .transport
            .send(&call, JsapiTicketResponse::from_reply)
            .await
    }
}

impl fmt::Debug for WechatClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WechatClient")
            .field("app_id", self.app_id())
            .field("open_url", &self.open_url())
            .finish_non_exhaustive()
    }
}

pub(super) fn token_request<'a>(
    endpoint: Endpoint,
    path: &'a str,
    token: &'a AccessToken,
) -> ApiRequest<'a> {
    ApiRequest {
        endpoint,
        path,
        query: vec![("access_token", token.expose())],
        body: None,
        retryable: true,
        redactor: Redactor::new([token.expose()]),
    }
}
