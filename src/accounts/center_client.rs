//! Client of a token center, and the source of tokens from it.

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

/// Maximum time to connect to the center: two seconds. The center is in the same network, so that a
/// connection normally takes milliseconds.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Timeout of a request: six seconds. A center replies within its load timeout (5 seconds by
/// default), and the lease of the renewal lasts longer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(6);

/// Maximum size of a reply: 64 KiB. Real replies have a few hundred bytes.
const MAX_REPLY_BYTES: usize = 64 * 1024;

/// Maximum number of characters of the center's error message in an error of this crate: 300. This
/// number bounds the size of errors and log lines, whatever the server at the center's URL returns.
const MAX_MESSAGE_CHARS: usize = 300;

/// Maximum pause after an error reply of the center: 30 seconds. The limit applies to the
/// `Retry-After` of a 503. Other errors that the center describes have exactly this pause, except
/// 401.
const MAX_RETRY_PAUSE: Duration = Duration::from_secs(30);

/// Client of a token center. It is a source for
/// [`AccountTokens::new`](super::AccountTokens::new).
///
/// With a [`TokenCenter`](crate::account::TokenCenter), only one service knows the AppSecret. The
/// other services request the account's token and ticket from that service.
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
    /// URL below which the routes are, without a slash at its end.
    base: String,
    bearer: BearerSecret,
    http: reqwest::Client,
}

impl TokenCenterClient {
    /// Creates a client for the token center of the account `app_id`. The center's routes are below
    /// `url`, such as `http://center.internal:3000/center`.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`]: the AppID, the URL or the bearer secret is invalid.
    pub fn new(
        app_id: impl AsRef<str>,
        url: impl AsRef<str>,
        bearer: impl Into<BearerSecret>,
    ) -> Result<Self, Error> {
        let app_id = AppId::new(app_id)
            .map_err(|why| Error::configuration(format!("set the AppID of the account: {why}")))?;
        let bearer = bearer.into();
        bearer.check_header_value().map_err(Error::configuration)?;
        let url = parse_base_url("the token center's URL", url.as_ref())?;
        Ok(Self(Arc::new(Inner {
            app_id,
            // The client uses no proxy, because a center is in the same network.
            http: build_http_client(url.is_https(), CONNECT_TIMEOUT, None)?,
            base: url.as_str().to_owned(),
            bearer,
        })))
    }

    /// Returns the AppID of the account whose token the center keeps.
    pub fn app_id(&self) -> &AppId {
        &self.0.app_id
    }

    /// Requests the center's current token.
    async fn access_token(&self) -> Result<AccountTokenResponse, RenewalFailure> {
        let url = format!("{}/access_token", self.0.base);
        self.request_token(self.0.http.get(url)).await
    }

    /// Reports that WeChat rejected `invalid`, and returns the center's current token. The center
    /// renews the token only if `invalid` is still the current one.
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
        self.request_token(request.body(body)).await
    }

    /// Sends a request whose reply is a token.
    async fn request_token(
        &self,
        request: RequestBuilder,
    ) -> Result<AccountTokenResponse, RenewalFailure> {
        let reply: TokenReply = self.send(request).await?;
        Ok(AccountTokenResponse::new(
            reply.access_token,
            Some(reply.expires_in),
        ))
    }

    /// Requests the center's current ticket.
    pub(crate) async fn jsapi_ticket(&self) -> Result<JsapiTicketResponse, RenewalFailure> {
        let url = format!("{}/jsapi_ticket", self.0.base);
        let reply: TicketReply = self.send(self.0.http.get(url)).await?;
        Ok(JsapiTicketResponse::new(
            reply.ticket,
            Some(reply.expires_in),
        ))
    }

    /// Sends a request with the bearer secret, and returns its reply. The reply is valid: its
    /// secret has the form of a token, and has not expired.
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
            // The center returns the remaining lifetime. A value of zero means that the token has
            // expired, not that the lifetime is unknown as in a response of WeChat.
            if reply.expires_in() <= 0 {
                let message = "the token center returned an expired token";
                return Err(unavailable(message.to_owned()));
            }
            return Ok(reply);
        }
        Err(error_reply(&response, &body))
    }
}

/// Returns the failure for an error reply of the center.
///
/// A rejected bearer secret is a failure for the operator of this process. All other errors are
/// transient here, because the center logs them for its own operator.
fn error_reply(response: &Response, body: &[u8]) -> RenewalFailure {
    let status = response.status();
    if status == StatusCode::UNAUTHORIZED {
        let message = "the token center rejected the bearer secret of this process: set one that \
                       the center accepts";
        return RenewalFailure::Operator(Error::new(ErrorKind::WechatConfig, message));
    }
    let Ok(reply) = serde_json::from_slice::<ErrorReply>(body) else {
        return unexpected_reply(status);
    };
    let message: String = reply
        .message
        .chars()
        .filter(|character| !character.is_control())
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
    let error = Error::new(
        kind,
        format!("the token center returned an error: {message}"),
    );
    RenewalFailure::Transient(error.with_retry_after(wait.min(MAX_RETRY_PAUSE)))
}

fn unexpected_reply(status: StatusCode) -> RenewalFailure {
    unavailable(format!(
        "the token center's reply is not valid (HTTP {}): check that the URL is that of its routes",
        status.as_u16()
    ))
}

fn unavailable(message: String) -> RenewalFailure {
    RenewalFailure::Transient(Error::new(ErrorKind::WechatUnavailable, message))
}

/// Reply of a center that contains a token or a ticket. The token or ticket is validated like one
/// from WeChat, because it is stored and sent in the same way.
trait CredentialReply: for<'de> Deserialize<'de> {
    fn secret(&self) -> &str;

    /// Returns the seconds until the secret expires.
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

/// Source of tokens from a token center.
pub(super) struct CenterSource {
    pub(super) center: TokenCenterClient,
    pub(super) clock: Clock,
    pub(super) margin: Duration,
    /// Time after which a token is due for renewal, so that the center is asked again. The center
    /// may replace its token at any time. WeChat recommends one minute.
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
                Some(invalid) => self.center.report_invalid(invalid).await?,
                None => self.center.access_token().await?,
            };
            let lifetime = self.lifetime(response.expires_in, self.clock.now());
            Ok(account_record(response.access_token, lifetime))
        })
    }
}

impl CenterSource {
    /// Returns the lifetime of a token from the center. The token is due for renewal after
    /// `poll_interval`, or at the renewal point of its full lifetime if that comes first.
    fn lifetime(&self, expires_in: Option<i64>, now: Timestamp) -> Lifetime {
        let full = Lifetime::from_response(now, expires_in, self.margin);
        let renew_at = full.renew_at().min(now.saturating_add(self.poll_interval));
        Lifetime::from_stored(renew_at, Some(full.expires_at()), self.margin)
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
