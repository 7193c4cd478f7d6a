//! Where the next ticket comes from: WeChat, for the account's token.

use std::time::Duration;

use crate::accounts::{AccountSourceKind, AccountTokens, RateLimiter, account_record, is_due};
use crate::credential::{AccessToken, Lifetime, Record};
use crate::error::{Error, InvalidToken};
use crate::provider::{CredentialSource, RenewalFailure, classify};
use crate::store::BoxFuture;
use crate::wechat::{JsapiTicketResponse, WechatClient};

/// WeChat says 7,200 seconds of a ticket that it has handed out long ago, so the true life may be
/// much shorter: a ticket is kept for half of that at most.
const MAX_TICKET_LIFETIME_SECS: i64 = 3_600;

/// Reports of refused tickets reach WeChat this far apart at least, and so often a day at most. It
/// repeats the ticket while that lives, and more often than not the page's URL is what is wrong.
const MIN_TICKET_REPORT_INTERVAL: Duration = Duration::from_secs(60);
const MAX_TICKET_REPORTS_PER_DAY: u32 = 200;

pub(super) struct TicketSource {
    accounts: AccountTokens,
    margin: Duration,
    report_limiter: RateLimiter,
}

/// Why there is no ticket.
enum TicketFailure {
    /// There is no account token. Its own engine cools down and tells the operator.
    AccountToken(Error),
    /// The ticket's call failed.
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
            // A ticket whose time has come is renewed whoever complains of it.
            let now = self.accounts.clock().now();
            let reported = invalid.is_some() && !is_due(record, now);
            let response = match self.accounts.source_kind() {
                AccountSourceKind::Wechat(wechat) => {
                    self.fetch_unless_reported_recently(wechat, reported)
                        .await?
                }
                #[cfg(feature = "redis")]
                AccountSourceKind::External(wechat, ..) => {
                    self.fetch_unless_reported_recently(wechat, reported)
                        .await?
                }
                // It costs WeChat nothing, and the center hands out what it has.
                AccountSourceKind::TokenCenter(center) => center.jsapi_ticket().await?,
            };
            let now = self.accounts.clock().now();
            let life = response
                .expires_in
                .map(|life| life.min(MAX_TICKET_LIFETIME_SECS));
            let lifetime = Lifetime::from_response(now, life, self.margin);
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

    async fn fetch_unless_reported_recently(
        &self,
        wechat: &WechatClient,
        reported: bool,
    ) -> Result<JsapiTicketResponse, RenewalFailure> {
        if !reported {
            return self.fetch(wechat).await;
        }
        let now = self.accounts.clock().now();
        let message = "the ticket was reported as refused a moment ago: WeChat is not asked \
                       again so soon (is the page's URL signed as the page sees it?)";
        self.report_limiter
            .run(now, message, self.fetch(wechat))
            .await
    }

    async fn fetch(&self, wechat: &WechatClient) -> Result<JsapiTicketResponse, RenewalFailure> {
        let call = async |token: crate::AccountToken| {
            let ticket = wechat.jsapi_ticket(token.access_token()).await;
            ticket.map_err(TicketFailure::TicketCall)
        };
        self.accounts
            .with_token(call)
            .await
            .map_err(|trouble| match trouble {
                TicketFailure::AccountToken(error) => RenewalFailure::Transient(error),
                TicketFailure::TicketCall(error) => classify(error),
            })
    }
}
