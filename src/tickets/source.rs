//! Source of tickets: WeChat, with the account's token, or a token center.

use std::time::Duration;

use crate::accounts::{AccountSourceKind, AccountTokens, RateLimiter, account_record, is_due};
use crate::credential::{AccessToken, Lifetime, Record};
use crate::error::{Error, InvalidToken};
use crate::provider::{CredentialSource, RenewalFailure, classify};
use crate::store::BoxFuture;
use crate::wechat::{JsapiTicketResponse, WechatClient};

/// Maximum lifetime of a ticket, in seconds: one hour. WeChat returns an `expires_in` of 7,200
/// seconds even for a ticket that it issued long ago, so the true lifetime may be much shorter.
const MAX_TICKET_LIFETIME_SECS: i64 = 3_600;

/// Minimum interval between two requests for a ticket because of reports: one minute. WeChat
/// returns the same ticket until its expiry, and the usual cause of a wrong signature is the URL of
/// the page.
const MIN_TICKET_REPORT_INTERVAL: Duration = Duration::from_secs(60);

/// Maximum number of requests for a ticket because of reports, per day: 200. This number bounds the
/// share of reports in the account's calls, which WeChat limits.
const MAX_TICKET_REPORTS_PER_DAY: u32 = 200;

/// Source that fetches the ticket from WeChat, or from the token center if the account's token
/// comes from a center.
pub(super) struct TicketSource {
    accounts: AccountTokens,
    margin: Duration,
    report_limiter: RateLimiter,
}

/// Failure to fetch a ticket.
enum TicketFailure {
    /// No account token is available. The provider of the token already backs off, and logs the
    /// error for the operator.
    AccountToken(Error),
    /// The call to WeChat for the ticket failed.
    TicketCall(Error),
}

impl From<Error> for TicketFailure {
    fn from(error: Error) -> Self {
        Self::AccountToken(error)
    }
}

impl InvalidToken for TicketFailure {
    fn is_token_invalid(&self) -> bool {
        matches!(self, Self::TicketCall(error) if error.is_token_invalid())
    }
}

impl CredentialSource for TicketSource {
    fn can_renew(&self, _record: &Record) -> bool {
        true
    }

    fn renew<'a>(
        &'a self,
        record: &'a Record,
        invalid: Option<&'a AccessToken>,
    ) -> BoxFuture<'a, Result<Record, RenewalFailure>> {
        Box::pin(async move {
            // A report of a ticket that is due anyway does not count as a report, so the rate limit
            // does not delay the renewal.
            let now = self.accounts.clock().now();
            let reported = invalid.is_some() && !is_due(record, now);
            let response = match self.accounts.source_kind() {
                AccountSourceKind::Wechat(wechat) => {
                    self.fetch_unless_reported_recently(wechat, reported)
                        .await?
                }
                #[cfg(feature = "platform")]
                AccountSourceKind::OnBehalf(wechat, _) => {
                    self.fetch_unless_reported_recently(wechat, reported)
                        .await?
                }
                #[cfg(feature = "redis")]
                AccountSourceKind::External(wechat, ..) => {
                    self.fetch_unless_reported_recently(wechat, reported)
                        .await?
                }
                // The rate limit is not applied: the center replies from its own cache, without a
                // call to WeChat.
                AccountSourceKind::TokenCenter(center) => center.jsapi_ticket().await?,
            };
            let now = self.accounts.clock().now();
            let expires_in = response
                .expires_in
                .map(|seconds| seconds.min(MAX_TICKET_LIFETIME_SECS));
            let lifetime = Lifetime::from_response(now, expires_in, self.margin);
            Ok(account_record(response.ticket, lifetime))
        })
    }
}

impl TicketSource {
    pub(super) fn new(accounts: &AccountTokens, margin: Duration) -> Self {
        let (app, store) = (accounts.app_id(), accounts.writable_store());
        Self {
            accounts: accounts.clone(),
            margin,
            report_limiter: RateLimiter::new(
                app,
                store,
                "ticket",
                MIN_TICKET_REPORT_INTERVAL,
                MAX_TICKET_REPORTS_PER_DAY,
            ),
        }
    }

    /// Fetches a ticket from WeChat. If the cause is a report, the rate limit must allow the call.
    async fn fetch_unless_reported_recently(
        &self,
        wechat: &WechatClient,
        reported: bool,
    ) -> Result<JsapiTicketResponse, RenewalFailure> {
        if !reported {
            return self.fetch(wechat).await;
        }
        let now = self.accounts.clock().now();
        let message = "the ticket was reported as invalid a moment ago, and is not requested again \
                       so soon: check that the signed URL is the page's location.href";
        self.report_limiter
            .run(now, message, self.fetch(wechat))
            .await
    }

    /// Fetches a ticket from WeChat with the account's token.
    async fn fetch(&self, wechat: &WechatClient) -> Result<JsapiTicketResponse, RenewalFailure> {
        let call = async |token: crate::AccountToken| {
            let ticket = wechat.jsapi_ticket(token.access_token()).await;
            ticket.map_err(TicketFailure::TicketCall)
        };
        self.accounts
            .with_token(call)
            .await
            .map_err(|failure| match failure {
                TicketFailure::AccountToken(error) if error.is_missing_prerequisite() => {
                    RenewalFailure::Dependency(error)
                }
                TicketFailure::AccountToken(error) => RenewalFailure::Transient(error),
                TicketFailure::TicketCall(error) => classify(error),
            })
    }
}
