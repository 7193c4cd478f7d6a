//! Where the account's next token comes from: WeChat, by AppID and AppSecret.

use std::time::Duration;

use super::mode::TokenMode;
use super::quota::{
    DailyQuota, MIN_REPORT_INTERVAL, QuotaExceeded, QuotaReservation, RenewalReason,
};
use super::rate_limiter::{RateLimiter, RatePermit};
use crate::clock::{Clock, Timestamp};
use crate::credential::{AccessToken, Lifetime, Record, Token};
use crate::error::{Error, ErrorKind};
use crate::provider::{CredentialSource, RenewalFailure, classify};
use crate::store::BoxFuture;
use crate::wechat::{AccountTokenResponse, WechatClient};

pub(super) struct WechatSource {
    pub(super) wechat: WechatClient,
    pub(super) clock: Clock,
    pub(super) mode: TokenMode,
    pub(super) margin: Duration,
    pub(super) quota: DailyQuota,
    /// Forced refreshes of stable tokens.
    pub(super) forced_refreshes: RateLimiter,
    /// Tokens of `cgi-bin/token` that are replaced because they were refused. Every process sees
    /// the refusals of all: if each replaced the token, they would spend the account's day.
    pub(super) reported_replacements: RateLimiter,
}

impl CredentialSource for WechatSource {
    fn can_renew(&self, _record: &Record) -> bool {
        true
    }

    fn renew<'a>(
        &'a self,
        record: &'a Record,
        invalid: Option<&'a AccessToken>,
    ) -> BoxFuture<'a, Result<Record, RenewalFailure>> {
        Box::pin(async move {
            // A token whose time has come is renewed whoever complains of it: reports take
            // nothing from the budget then, and cannot hold the renewal up.
            let invalid = invalid.filter(|_| !is_due(record, self.clock.now()));
            let reason = match invalid {
                Some(_) => RenewalReason::ReportedInvalid,
                None => RenewalReason::Due,
            };
            let reservation = self.reserve_quota(reason)?;
            let response = match self.mode {
                TokenMode::Stable => self.fetch_stable(invalid).await?,
                TokenMode::Plain => self.fetch_plain(invalid).await?,
            };
            reservation.confirm();
            let now = self.clock.now();
            let lifetime = Lifetime::from_response(now, response.expires_in, self.margin);
            Ok(account_record(response.access_token, lifetime))
        })
    }
}

impl WechatSource {
    /// Normal mode first: if somebody else has renewed the token, WeChat hands the new one out.
    /// Only where it repeats the very token that was refused is a new one forced.
    async fn fetch_stable(
        &self,
        invalid: Option<&AccessToken>,
    ) -> Result<AccountTokenResponse, RenewalFailure> {
        let grant = self
            .wechat
            .stable_account_token(false)
            .await
            .map_err(classify)?;
        if invalid != Some(&grant.access_token) || !self.try_acquire_forced_refresh().await {
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
            Err(error) => Err(classify(error)),
        }
    }

    async fn try_acquire_forced_refresh(&self) -> bool {
        let permit = self.forced_refreshes.acquire(self.clock.now()).await;
        permit.map(RatePermit::confirm).is_ok()
    }

    /// Every call makes a new token, and the one before lives for five minutes more.
    async fn fetch_plain(
        &self,
        invalid: Option<&AccessToken>,
    ) -> Result<AccountTokenResponse, RenewalFailure> {
        let fetch = async { self.wechat.account_token().await.map_err(classify) };
        if invalid.is_none() {
            return fetch.await;
        }
        let message = "the token was replaced a moment ago because it was refused, and its \
                       successor is refused too: another one will not help";
        self.reported_replacements
            .run(self.clock.now(), message, fetch)
            .await
    }

    fn reserve_quota(&self, reason: RenewalReason) -> Result<QuotaReservation<'_>, RenewalFailure> {
        let app = self.wechat.app_id();
        self.quota
            .reserve(reason, &self.clock)
            .map_err(|denied| match denied {
                QuotaExceeded::Daily(wait) => RenewalFailure::Operator(
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
                QuotaExceeded::Reports => RenewalFailure::Transient(
                    Error::new(
                        ErrorKind::WechatUnavailable,
                        format!(
                            "tokens of {app} were reported as refused so often today that further \
                             reports renew nothing; the token is renewed when it is due"
                        ),
                    )
                    .with_retry_after(MIN_REPORT_INTERVAL),
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

/// Returns `true` if the record has no token, or its token is due for renewal.
pub(crate) fn is_due(record: &Record, now: Timestamp) -> bool {
    let is_fresh = |token: &Token| now < token.lifetime.renew_at();
    !record.token.as_ref().is_some_and(is_fresh)
}
