//! Where the account's next token comes from: WeChat, by AppID and AppSecret.

use std::time::Duration;

use super::TokenMode;
use super::budget::{Budget, Cause, Denied, REFUSALS_APART, Taken};
use super::limit::{Limit, Right};
use crate::clock::Clock;
use crate::credential::{AccessToken, Lifetime, Record, Token};
use crate::error::{Error, ErrorKind};
use crate::keeper::{Failure, Source};
use crate::store::BoxFuture;
use crate::wechat::{AccountGrant, WechatClient, pausing_renewals};

/// After an errcode that nobody expects here, WeChat is not asked again for this long.
const UNKNOWN_ERRCODE_PAUSE: Duration = Duration::from_secs(30);

pub(super) struct WechatSource {
    pub(super) wechat: WechatClient,
    pub(super) clock: Clock,
    pub(super) mode: TokenMode,
    pub(super) margin: Duration,
    pub(super) budget: Budget,
    /// Forced refreshes of stable tokens.
    pub(super) forced: Limit,
    /// Tokens of `cgi-bin/token` that are replaced because they were refused. Every process sees
    /// the refusals of all: if each replaced the token, they would spend the account's day.
    pub(super) replaced: Limit,
}

impl Source for WechatSource {
    fn can_renew(&self, _record: &Record) -> bool {
        true
    }

    fn renew<'a>(
        &'a self,
        record: &'a Record,
        refused: Option<&'a AccessToken>,
    ) -> BoxFuture<'a, Result<Record, Failure>> {
        Box::pin(async move {
            // A token whose time has come is renewed whoever complains of it: reports take
            // nothing from the budget then, and cannot hold the renewal up.
            let now = self.clock.now();
            let fresh = |token: &Token| now < token.lifetime.renew_at();
            let refused = refused.filter(|_| record.token.as_ref().is_some_and(fresh));
            let cause = match refused {
                Some(_) => Cause::Refused,
                None => Cause::Due,
            };
            let call = self.spend(cause)?;
            let grant = match self.mode {
                TokenMode::Stable => self.ask_stable(refused).await?,
                TokenMode::Plain => self.ask_plain(refused).await?,
            };
            call.keep();
            let now = self.clock.now();
            let lifetime = Lifetime::granted(now, grant.expires_in, self.margin);
            Ok(account_record(grant.access_token, lifetime))
        })
    }
}

impl WechatSource {
    /// Normal mode first: if somebody else has renewed the token, WeChat hands the new one out.
    /// Only where it repeats the very token that was refused is a new one forced.
    async fn ask_stable(&self, refused: Option<&AccessToken>) -> Result<AccountGrant, Failure> {
        let grant = self
            .wechat
            .stable_account_token(false)
            .await
            .map_err(sorted)?;
        if refused != Some(&grant.access_token) || !self.may_force().await {
            return Ok(grant);
        }
        tracing::warn!(
            target: "tower_wechat::account",
            app = %self.wechat.app_id(), token = %grant.access_token.fingerprint(),
            "WeChat repeats a token that it refuses; a new one is forced"
        );
        match self.wechat.stable_account_token(true).await {
            Ok(grant) => Ok(grant),
            // The normal mode works: no reason to let the account rest.
            Err(error) if error.kind() == ErrorKind::WechatConfig => {
                tracing::warn!(target: "tower_wechat::account", app = %self.wechat.app_id(), %error, "WeChat forces no new token");
                Ok(grant)
            }
            // It may have been done although the answer was lost; the normal mode will tell.
            Err(error) => Err(sorted(error)),
        }
    }

    async fn may_force(&self) -> bool {
        let right = self.forced.take(self.clock.now()).await;
        right.map(Right::used).is_ok()
    }

    /// Every call makes a new token, and the one before lives for five minutes more.
    async fn ask_plain(&self, refused: Option<&AccessToken>) -> Result<AccountGrant, Failure> {
        if refused.is_none() {
            return self.wechat.account_token().await.map_err(sorted);
        }
        let right = self.replaced.take(self.clock.now()).await.map_err(|wait| {
            let message = "the token was replaced a moment ago because it was refused, and its \
                           successor is refused too: another one will not help";
            let error = Error::new(ErrorKind::WechatUnavailable, message);
            Failure::Transient(error.with_retry_after(wait))
        })?;
        let grant = self.wechat.account_token().await.map_err(sorted)?;
        right.used();
        Ok(grant)
    }

    fn spend(&self, cause: Cause) -> Result<Taken<'_>, Failure> {
        let app = self.wechat.app_id();
        self.budget
            .call(cause, &self.clock)
            .map_err(|denied| match denied {
                Denied::Spent(wait) => Failure::Operator(
                    Error::new(
                        ErrorKind::WechatConfig,
                        format!(
                            "this process has asked for the token of {app} as often as its own \
                             daily budget allows: something replaces or refuses its tokens all \
                             the time (another service with the same AppID?)"
                        ),
                    )
                    .with_retry_after(wait),
                ),
                Denied::SpentByRefusals => Failure::Transient(
                    Error::new(
                        ErrorKind::WechatUnavailable,
                        format!(
                            "tokens of {app} were reported as refused so often today that further \
                             reports renew nothing; the token is renewed when it is due"
                        ),
                    )
                    .with_retry_after(REFUSALS_APART),
                ),
            })
    }
}

/// A record of one of the account's own credentials.
pub(crate) fn account_record(secret: AccessToken, lifetime: Lifetime) -> Record {
    Record {
        token: Some(Token { secret, lifetime }),
        ..Record::default()
    }
}

/// R5: what an error means where the account's own credentials come from. Nothing there is ever
/// dead: there is nothing that only a user could give.
pub(crate) fn sorted(error: Error) -> Failure {
    let wait = error.retry_after().unwrap_or_default();
    match error.kind() {
        ErrorKind::WechatConfig => Failure::Operator(pausing_renewals(error)),
        ErrorKind::WechatUnavailable | ErrorKind::StoreUnavailable => Failure::Transient(error),
        _ => Failure::Transient(error.retrying_after(wait.max(UNKNOWN_ERRCODE_PAUSE))),
    }
}
