//! Where the next ticket comes from: WeChat, for the account's token.

use std::time::Duration;

use crate::accounts::{AccountTokens, Origin, account_record, sorted};
use crate::credential::{AccessToken, Lifetime, Record};
use crate::error::{Error, TokenRefusal};
use crate::keeper::{Failure, Source};
use crate::store::BoxFuture;
use crate::wechat::{TicketGrant, WechatClient};

/// WeChat says 7,200 seconds of a ticket that it has handed out long ago, so the true life may be
/// much shorter: a ticket is kept for half of that at most.
const LONGEST_LIFE: i64 = 3_600;

pub(super) struct TicketSource {
    pub(super) accounts: AccountTokens,
    pub(super) margin: Duration,
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
        _record: &'a Record,
        _refused: Option<&'a AccessToken>,
    ) -> BoxFuture<'a, Result<Record, Failure>> {
        Box::pin(async move {
            let grant = match self.accounts.origin() {
                Origin::Wechat(wechat) => self.ask(wechat).await?,
                #[cfg(feature = "redis")]
                Origin::Followed(wechat, ..) => self.ask(wechat).await?,
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
    async fn ask(&self, wechat: &WechatClient) -> Result<TicketGrant, Failure> {
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
