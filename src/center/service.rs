//! The routes of the token center.

use std::convert::Infallible;
use std::error::Error as StdError;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Uri};
use http_body::Body;
use http_body_util::{BodyExt, Full, Limited};
use serde::Deserialize;
use tower_service::Service;

use super::response::{self, CenterResponse};
use super::{CenterAccount, TokenCenter};
use crate::credential::AccessToken;
use crate::error::Error;
use crate::jssdk::{JsConfig, page_url};
use crate::layer::WechatAccount;
use crate::tickets::Tickets;

/// Maximum size of a request body: 8 KiB. The body contains one token, and WeChat recommends
/// storage for tokens of 512 characters.
const MAX_BODY_BYTES: usize = 8 * 1024;

/// Maximum time until a request body has arrived: five seconds. Bounds the time for which a slow
/// client holds a request open.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);

impl<B> Service<Request<B>> for TokenCenter
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    type Response = http::Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<CenterResponse, Infallible>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let inner = &self.0;
        let of_request = || {
            request
                .extensions()
                .get::<WechatAccount>()
                .map(CenterAccount::from)
        };
        let Some(account) = inner.account.clone().or_else(of_request) else {
            const MESSAGE: &str = "a token center for several accounts received a request without an \
                account: put a WechatLayer::for_accounts around it";
            let error = Error::configuration(MESSAGE);
            tracing::error!(target: "tower_wechat::account", %error, "the token center found no account in a request");
            return Box::pin(std::future::ready(Ok(response::error(&error))));
        };
        // The secret is checked before the route and the body. A client without a secret must not
        // find out which routes exist, and must not cause work.
        let now = account.accounts.clock().now();
        if let Err(why) = inner.secrets.authenticate(request.headers(), now) {
            inner.rejection_log.record(account.accounts.app_id(), why);
            return Box::pin(std::future::ready(Ok(response::unauthorized())));
        }
        Box::pin(async move { Ok(account.route(request).await) })
    }
}

impl CenterAccount {
    /// Returns the response to a request with an accepted secret.
    async fn route<B>(&self, request: Request<B>) -> CenterResponse
    where
        B: Body + Send,
        B::Data: Send,
        B::Error: Into<Box<dyn StdError + Send + Sync>>,
    {
        let (parts, body) = request.into_parts();
        let is = |method: Method| parts.method == method;
        match (parts.uri.path(), &self.tickets) {
            ("/access_token", _) if is(Method::GET) => self.access_token().await,
            ("/access_token/invalid", _) if is(Method::POST) => self.report_invalid(body).await,
            ("/jsapi_ticket", Some(tickets)) if is(Method::GET) => match tickets.get().await {
                Ok(ticket) => response::ticket(&ticket),
                Err(error) => response::error(&error),
            },
            ("/jssdk/config", Some(tickets)) if is(Method::GET) => {
                match js_config(tickets, &parts.uri).await {
                    Ok(config) => response::ok(&config),
                    Err(error) => response::error(&error),
                }
            }
            ("/access_token", _) | ("/jsapi_ticket" | "/jssdk/config", Some(_)) => {
                response::method_not_allowed("GET")
            }
            ("/access_token/invalid", _) => response::method_not_allowed("POST"),
            _ => response::not_found(),
        }
    }

    async fn access_token(&self) -> CenterResponse {
        match self.accounts.get().await {
            Ok(token) => response::token(&token),
            Err(error) => response::error(&error),
        }
    }

    /// Handles the report of a rejected token. The center renews the account's token only if the
    /// reported token is still the current one (reports compared).
    async fn report_invalid<B>(&self, body: B) -> CenterResponse
    where
        B: Body + Send,
        B::Data: Send,
        B::Error: Into<Box<dyn StdError + Send + Sync>>,
    {
        let invalid = match read_report(body).await {
            Ok(invalid) => invalid,
            Err(message) => return response::bad_request(message),
        };
        match self.accounts.report_invalid(&invalid).await {
            Ok(token) => response::token(&token),
            Err(error) => response::error(&error),
        }
    }
}

/// Body of a report that WeChat rejected a token.
#[derive(Deserialize)]
struct InvalidTokenReport {
    /// The token that WeChat rejected.
    access_token: String,
}

/// Reads the reported token from the body, or returns the message of a 400 response.
async fn read_report<B>(body: B) -> Result<AccessToken, &'static str>
where
    B: Body + Send,
    B::Data: Send,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    let body = tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, MAX_BODY_BYTES).collect());
    let body = match body.await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(_)) => return Err("the body is longer than 8 KiB, or broke off"),
        Err(_) => return Err("the body did not come within 5 seconds"),
    };
    let report: InvalidTokenReport = serde_json::from_slice(&body)
        .map_err(|_| "the body must be {\"access_token\": the one that WeChat refused}")?;
    if report.access_token.is_empty() {
        return Err("the refused access_token is empty");
    }
    Ok(report.access_token.into())
}

/// Signs the page whose URL is in the query parameter `url`.
async fn js_config(tickets: &Tickets, request: &Uri) -> Result<JsConfig, Error> {
    tickets.js_config(&page_url(request)?).await
}
