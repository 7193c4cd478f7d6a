//! Source of the component token: WeChat, for the verify ticket.

use std::sync::Arc;
use std::time::Duration;

use super::ticket::VerifyTickets;
use crate::accounts::{RateLimiter, account_record, is_due};
use crate::clock::{Clock, DAY};
use crate::credential::{AccessToken, Lifetime, Record};
use crate::error::{Error, ErrorKind};
use crate::provider::{CredentialSource, RenewalFailure, classify};
use crate::store::{BoxFuture, DurableSecret, Quota, Store};
use crate::wechat::{AccountTokenResponse, WechatClient};

/// Errcodes of a verify ticket that WeChat refuses: expired and invalid (error codes of third-party
/// platforms).
const TICKET_REFUSED: [i64; 2] = [61005, 61006];

/// Maximum number of component tokens that all processes request in a day: 2,000. WeChat documents no
/// number, and reports name 2,000 and 10,000.
const DAILY_QUOTA: u32 = 2_000;

/// Time between two replacements of reported component tokens: one minute, for all processes.
const MIN_REPORT_INTERVAL: Duration = Duration::from_secs(60);

/// Source of the component token of a platform.
pub(super) struct ComponentSource {
    component: WechatClient,
    tickets: Arc<VerifyTickets>,
    store: Arc<dyn Store>,
    clock: Clock,
    margin: Duration,
    reported_replacements: RateLimiter,
}

impl ComponentSource {
    pub(super) fn new(
        component: WechatClient,
        tickets: Arc<VerifyTickets>,
        store: Arc<dyn Store>,
        clock: Clock,
        margin: Duration,
    ) -> Self {
        let reported_replacements = RateLimiter::new(
            component.app_id(),
            &store,
            "component",
            MIN_REPORT_INTERVAL,
            DAILY_QUOTA / 2,
        );
        Self {
            component,
            tickets,
            store,
            clock,
            margin,
            reported_replacements,
        }
    }

    async fn fetch(&self) -> Result<AccountTokenResponse, RenewalFailure> {
        let waiting = match self.try_fetch().await {
            Err(RenewalFailure::Dependency(error)) => error,
            outcome => return outcome,
        };
        // WeChat may push a ticket before it answers the request for one.
        match self.tickets.current().await {
            Ok(Some(_)) => self.try_fetch().await,
            Ok(None) | Err(_) => Err(RenewalFailure::Dependency(waiting)),
        }
    }

    async fn try_fetch(&self) -> Result<AccountTokenResponse, RenewalFailure> {
        if let Ok(response) = self.fetch_for_ticket().await? {
            return Ok(response);
        }
        // WeChat sometimes refuses a valid ticket once. A newer one may have arrived meanwhile.
        let refused = match self.fetch_for_ticket().await? {
            Ok(response) => return Ok(response),
            Err(refused) => refused,
        };
        self.tickets
            .refuse(&refused)
            .await
            .map_err(RenewalFailure::Transient)?;
        Err(classify(self.tickets.request_push().await))
    }

    /// Requests a token for the current ticket. Returns the ticket if WeChat refuses it.
    async fn fetch_for_ticket(
        &self,
    ) -> Result<Result<AccountTokenResponse, DurableSecret>, RenewalFailure> {
        let current = self.tickets.current().await;
        let Some(ticket) = current.map_err(RenewalFailure::Transient)? else {
            return Err(classify(self.tickets.request_push().await));
        };
        self.consume_quota().await?;
        match self.component.component_token(&ticket.secret).await {
            Ok(response) => Ok(Ok(response)),
            Err(error)
                if error
                    .errcode()
                    .is_some_and(|code| TICKET_REFUSED.contains(&code)) =>
            {
                Ok(Err(ticket))
            }
            Err(error) => Err(classify(error)),
        }
    }

    /// Counts one call of the daily quota, which all processes share.
    async fn consume_quota(&self) -> Result<(), RenewalFailure> {
        let now = self.clock.now();
        let app = self.component.app_id();
        let quota = Quota {
            app: app.clone(),
            purpose: format!("component_token:{}", now.beijing_day()).into(),
            limit: DAILY_QUOTA,
            window: DAY,
        };
        match self.store.try_consume(&quota).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(RenewalFailure::Operator(
                Error::new(
                    ErrorKind::WechatConfig,
                    format!(
                        "the processes of the platform {app} have requested {DAILY_QUOTA} component \
                         tokens today: find out what invalidates them so often (another service \
                         with the same component_appid?)"
                    ),
                )
                .with_retry_after(now.duration_until_beijing_midnight()),
            )),
            Err(error) => Err(RenewalFailure::Transient(error)),
        }
    }
}

impl CredentialSource for ComponentSource {
    fn can_renew(&self, _record: &Record) -> bool {
        true
    }

    fn renew<'a>(
        &'a self,
        record: &'a Record,
        invalid: Option<&'a AccessToken>,
    ) -> BoxFuture<'a, Result<Record, RenewalFailure>> {
        Box::pin(async move {
            // A report of a token that is due anyway spends none of the limit of reports.
            let is_reported = invalid.is_some() && !is_due(record, self.clock.now());
            let response = match is_reported {
                false => self.fetch().await?,
                true => {
                    let message = "a reported component token was replaced a moment ago: find out \
                                   whether another service with the same component_appid requests \
                                   tokens too";
                    self.reported_replacements
                        .run(self.clock.now(), message, self.fetch())
                        .await?
                }
            };
            let now = self.clock.now();
            let lifetime = Lifetime::from_response(now, response.expires_in, self.margin);
            Ok(account_record(response.access_token, lifetime))
        })
    }
}
