//! The client of a token center, in WeChat's stead.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use http::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use reqwest::{RequestBuilder, Response};
use serde::Deserialize;

use super::own_credential::account_record;
use crate::clock::{Clock, Timestamp};
use crate::credential::{AccessToken, AppId, BearerSecret, Lifetime, Record, is_valid_token};
use crate::error::{Error, ErrorKind};
use crate::provider::{CredentialSource, RenewalFailure};
use crate::store::BoxFuture;
use crate::wechat::{
    AccountTokenResponse, JsapiTicketResponse, build_http_client, parse_base_url, root_cause,
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Longer than a center lets its own callers wait (5 s), shorter than a lease.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(6);

/// The largest reply that is read.
const MAX_REPLY_BYTES: usize = 64 * 1024;

/// How much of a center's words an error shows, in characters.
const MAX_MESSAGE_CHARS: usize = 300;

/// The pause after an error reply of the center other than 503, and the upper bound of `Retry-After`.
const MAX_RETRY_PAUSE: Duration = Duration::from_secs(30);

/// A token center to ask instead of WeChat, so that a fleet runs with one process that knows the
/// AppSecret: see [`AccountTokens::new`](super::AccountTokens::new) and
/// [`TokenCenter`](crate::account::TokenCenter).
///
/// ```
/// use tower_wechat::account::TokenCenterClient;
/// use tower_wechat::{AccountTokens, MemoryStore};
///
/// # fn main() -> Result<(), tower_wechat::Error> {
/// let center = TokenCenterClient::new("wx0123456789abcdef", "http://center.internal:3000/center", "secret")?;
/// assert_eq!(center.app_id().as_str(), "wx0123456789abcdef");
/// let accounts = AccountTokens::new(center, MemoryStore::new());
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct TokenCenterClient(Arc<Inner>);

struct Inner {
    app_id: AppId,
    /// Ends without a slash.
    base: String,
    bearer: BearerSecret,
    http: reqwest::Client,
}

impl TokenCenterClient {
    /// The center of the account `app_id` whose routes lie below `url`, such as
    /// `http://center.internal:3000/center`.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] for an AppID, a URL or a bearer secret that cannot be right.
    pub fn new(
        app_id: impl AsRef<str>,
        url: impl AsRef<str>,
        bearer: impl Into<BearerSecret>,
    ) -> Result<Self, Error> {
        let wrong = |why: String| Error::configuration(why);
        let app_id = AppId::new(app_id)
            .map_err(|why| wrong(format!("set the AppID of the account: {why}")))?;
        let bearer = bearer.into();
        bearer
            .check_header_value()
            .map_err(|why| wrong(why.to_owned()))?;
        let url = parse_base_url("the token center's URL", url.as_ref())?;
        Ok(Self(Arc::new(Inner {
            app_id,
            // A center belongs to the same network, so it is asked without a proxy.
            http: build_http_client(url.is_https(), CONNECT_TIMEOUT, None)?,
            base: url.as_str().to_owned(),
            bearer,
        })))
    }

    /// The account whose token the center keeps.
    pub fn app_id(&self) -> &AppId {
        &self.0.app_id
    }

    /// The center's current token.
    async fn access_token(&self) -> Result<AccountTokenResponse, RenewalFailure> {
        let url = format!("{}/access_token", self.0.base);
        let reply: TokenReply = self.send(self.0.http.get(url)).await?;
        Ok(AccountTokenResponse::new(
            reply.access_token,
            Some(reply.expires_in),
        ))
    }

    /// The center's current token, renewed if it is the refused one.
    async fn report_invalid(
        &self,
        invalid: &AccessToken,
    ) -> Result<AccountTokenResponse, RenewalFailure> {
        let url = format!("{}/access_token/invalid", self.0.base);
        let body = serde_json::json!({ "access_token": invalid.expose() }).to_string();
        let request = self
            .0
            .http
            .post(url)
            .header(CONTENT_TYPE, "application/json");
        let reply: TokenReply = self.send(request.body(body)).await?;
        Ok(AccountTokenResponse::new(
            reply.access_token,
            Some(reply.expires_in),
        ))
    }

    /// The center's current ticket.
    pub(crate) async fn jsapi_ticket(&self) -> Result<JsapiTicketResponse, RenewalFailure> {
        let url = format!("{}/jsapi_ticket", self.0.base);
        let reply: TicketReply = self.send(self.0.http.get(url)).await?;
        Ok(JsapiTicketResponse::new(
            reply.ticket,
            Some(reply.expires_in),
        ))
    }

    async fn send<T: CredentialReply>(&self, request: RequestBuilder) -> Result<T, RenewalFailure> {
        let bearer = zeroize::Zeroizing::new(format!("Bearer {}", self.0.bearer.expose()));
        let request = request
            .header(AUTHORIZATION, bearer.as_str())
            .timeout(REQUEST_TIMEOUT);
        let unreachable = |error: reqwest::Error| {
            let why = root_cause(&error.without_url());
            unavailable(format!("the token center does not answer ({why})"))
        };
        let mut response = request.send().await.map_err(unreachable)?;
        let mut body = zeroize::Zeroizing::new(Vec::new());
        while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
            if body.len() + chunk.len() > MAX_REPLY_BYTES {
                return Err(unexpected_reply(response.status()));
            }
            body.extend_from_slice(&chunk);
        }
        if response.status().is_success() {
            let reply: Option<T> = serde_json::from_slice(&body).ok();
            let reply = reply
                .filter(|reply| is_valid_token(reply.secret()))
                .ok_or_else(|| unexpected_reply(response.status()))?;
            // A center says how long is left, so this is not a life that WeChat has not told.
            if reply.expires_in() <= 0 {
                let message = "the token center hands out a token that has expired";
                return Err(unavailable(message.to_owned()));
            }
            return Ok(reply);
        }
        Err(error_reply(&response, &body))
    }
}

/// What a center's error means to us. Its operator is told where the cause is; here that is a
/// failure that may pass. Only a bearer that is refused is for our own operator.
fn error_reply(response: &Response, body: &[u8]) -> RenewalFailure {
    let status = response.status();
    if status == StatusCode::UNAUTHORIZED {
        let message = "the token center refuses our bearer secret: set one that it accepts";
        return RenewalFailure::Operator(Error::new(ErrorKind::WechatConfig, message));
    }
    let Ok(reply) = serde_json::from_slice::<ErrorReply>(body) else {
        return unexpected_reply(status);
    };
    let message: String = reply
        .message
        .chars()
        .filter(|letter| !letter.is_control())
        .take(MAX_MESSAGE_CHARS)
        .collect();
    let kind = match reply.error.as_str() {
        "wechat_config" => ErrorKind::WechatConfig,
        "store_unavailable" => ErrorKind::StoreUnavailable,
        _ => ErrorKind::WechatUnavailable,
    };
    let header = response.headers().get(RETRY_AFTER);
    let retry_after = header.and_then(|seconds| seconds.to_str().ok()?.parse().ok());
    let wait = match status {
        StatusCode::SERVICE_UNAVAILABLE => Duration::from_secs(retry_after.unwrap_or(1)),
        _ => MAX_RETRY_PAUSE,
    };
    let error = Error::new(kind, format!("the token center says: {message}"));
    RenewalFailure::Transient(error.with_retry_after(wait.min(MAX_RETRY_PAUSE)))
}

fn unexpected_reply(status: StatusCode) -> RenewalFailure {
    unavailable(format!(
        "the token center's answer makes no sense (HTTP {}): is the URL that of its routes?",
        status.as_u16()
    ))
}

fn unavailable(message: String) -> RenewalFailure {
    RenewalFailure::Transient(Error::new(ErrorKind::WechatUnavailable, message))
}

/// A reply with a secret. It is looked at as closely as WeChat's own, since it is stored and sent
/// likewise.
trait CredentialReply: for<'de> Deserialize<'de> {
    fn secret(&self) -> &str;

    /// Returns the seconds that are left.
    fn expires_in(&self) -> i64;
}

impl CredentialReply for TokenReply {
    fn secret(&self) -> &str {
        &self.access_token
    }

    fn expires_in(&self) -> i64 {
        self.expires_in
    }
}

impl CredentialReply for TicketReply {
    fn secret(&self) -> &str {
        &self.ticket
    }

    fn expires_in(&self) -> i64 {
        self.expires_in
    }
}

#[derive(Deserialize)]
struct TokenReply {
    access_token: String,
    expires_in: i64,
}

#[derive(Deserialize)]
struct TicketReply {
    ticket: String,
    expires_in: i64,
}

#[derive(Deserialize)]
struct ErrorReply {
    error: String,
    message: String,
}

/// Asks a center. The center renews ahead and may have to replace its token at any time, so it is
/// asked again after `poll`, long before the token's own time comes; WeChat recommends a minute.
pub(super) struct CenterSource {
    pub(super) center: TokenCenterClient,
    pub(super) clock: Clock,
    pub(super) margin: Duration,
    pub(super) poll_interval: Duration,
}

impl CredentialSource for CenterSource {
    fn can_renew(&self, _record: &Record) -> bool {
        true
    }

    fn renew<'a>(
        &'a self,
        _record: &'a Record,
        invalid: Option<&'a AccessToken>,
    ) -> BoxFuture<'a, Result<Record, RenewalFailure>> {
        Box::pin(async move {
            let response = match invalid {
                Some(refused) => self.center.report_invalid(refused).await?,
                None => self.center.access_token().await?,
            };
            let lifetime = self.lifetime(response.expires_in, self.clock.now());
            Ok(account_record(response.access_token, lifetime))
        })
    }
}

impl CenterSource {
    fn lifetime(&self, expires_in: Option<i64>, now: Timestamp) -> Lifetime {
        let whole = Lifetime::from_response(now, expires_in, self.margin);
        let renew_at = whole.renew_at().min(now.saturating_add(self.poll_interval));
        Lifetime::from_stored(renew_at, Some(whole.expires_at()), self.margin)
    }
}

impl fmt::Debug for TokenCenterClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenCenterClient")
            .field("app_id", &self.0.app_id)
            .field("url", &self.0.base)
            .finish_non_exhaustive()
    }
}
