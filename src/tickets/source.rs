//! Where the next ticket comes from: WeChat, for the account's token.

use std::time::Duration;

use crate::accounts::{AccountTokens, Limit, Origin, account_record, sorted};
use crate::credential::{AccessToken, Lifetime, Record, Token};
use crate::error::{Error, ErrorKind, TokenRefusal};
use crate::keeper::{Failure, Source};
use crate::store::BoxFuture;
use crate::wechat::{TicketGrant, WechatClient};

/// WeChat says 7,200 seconds of a ticket that it has handed out long ago, so the true life may be
/// much shorter: a ticket is kept for half of that at most.
const LONGEST_LIFE: i64 = 3_600;

/// Reports of refused tickets reach WeChat this far apart at least, and so often a day at most. It
/// repeats the ticket while that lives, and more often than not the page's URL is what is wrong.
const REPORTS_APART: Duration = Duration::from_secs(60);
const REPORTS_A_DAY: u32 = 200;

pub(super) struct TicketSource {
    accounts: AccountTokens,
    margin: Duration,
    reports: Limit,
}

/// Why there is no ticket.
enum Trouble {
    /// There is no account token. Its own engine cools down and tells the operator.
    NoToken(Error),
    /// The ticket's call failed.
    Call(Error),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::NoToken(error)
    }
}

impl TokenRefusal for Trouble {
    fn is_token_refused(&self) -> bool {
        matches!(self, Self::Call(error) if error.is_token_refused())
    }
}

impl Source for TicketSource {
    fn can_renew(&self, _record: &Record) -> bool {
        true
    }

    fn renew<'a>(
        &'a self,
        record: &'a Record,
        refused: Option<&'a AccessToken>,
    ) -> BoxFuture<'a, Result<Record, Failure>> {
        Box::pin(async move {
            // A ticket whose time has come is renewed whoever complains of it.
            let now = self.accounts.clock().now();
            let fresh = |ticket: &Token| now < ticket.lifetime.renew_at();
            let reported = refused.is_some() && record.token.as_ref().is_some_and(fresh);
            let grant = match self.accounts.origin() {
                Origin::Wechat(wechat) => self.ask(wechat, reported).await?,
                #[cfg(feature = "redis")]
                Origin::Followed(wechat, ..) => self.ask(wechat, reported).await?,
                // It costs WeChat nothing, and the center hands out what it has.
                Origin::Center(center) => center.jsapi_ticket().await?,
            };
            let now = self.accounts.clock().now();
            let life = grant.expires_in.map(|life| life.min(LONGEST_LIFE));
            let lifetime = Lifetime::granted(now, life, self.margin);
            Ok(account_record(grant.ticket, lifetime))
        })
    }
}

impl TicketSource {
    pub(super) fn new(accounts: &AccountTokens, margin: Duration) -> Self {
        let (app, store) = (accounts.app_id(), accounts.store());
        Self {
            accounts: accounts.clone(),
            margin,
            reports: Limit::new(app, store, "ticket", REPORTS_APART, REPORTS_A_DAY),
        }
    }

    async fn ask(&self, wechat: &WechatClient, reported: bool) -> Result<TicketGrant, Failure> {
        if !reported {
            return self.call(wechat).await;
        }
        let now = self.accounts.clock().now();
        let right = self.reports.take(now).await.map_err(|wait| {
            let message = "the ticket was reported as refused a moment ago: WeChat is not asked \
                           again so soon (is the page's URL signed as the page sees it?)";
            let error = Error::new(ErrorKind::WechatUnavailable, message);
            Failure::Transient(error.with_retry_after(wait))
        })?;
        let grant = self.call(wechat).await?;
        right.used();
        Ok(grant)
    }

    async fn call(&self, wechat: &WechatClient) -> Result<TicketGrant, Failure> {
        let call = async |token: crate::AccountToken| {
            let ticket = wechat.jsapi_ticket(token.access_token()).await;
            ticket.map_err(Trouble::Call)
        };
        self.accounts
            .with_token(call)
            .await
            .map_err(|trouble| match trouble {
                Trouble::NoToken(error) => Failure::Transient(error),
                Trouble::Call(error) => sorted(error),
            })
    }
}
