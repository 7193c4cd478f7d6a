//! Source that fetches an account's token from WeChat, through `cgi-bin/stable_token` or
//! `cgi-bin/token`.

use std::time::Duration;

use super::mode::TokenMode;
use super::own_credential::{account_record, is_due};
use super::quota::{DailyQuota, RenewalReason};
use super::rate_limiter::{RateLimiter, RatePermit};
use crate::clock::Clock;
use crate::credential::{AccessToken, Lifetime, Record};
use crate::error::ErrorKind;
use crate::provider::{CredentialSource, RenewalFailure, classify};
use crate::store::BoxFuture;
use crate::wechat::{AccountTokenResponse, WechatClient};

/// Source that fetches the token from WeChat, within the daily quota.
pub(super) struct WechatSource {
    pub(super) wechat: WechatClient,
    pub(super) clock: Clock,
    pub(super) mode: TokenMode,
    pub(super) margin: Duration,
    pub(super) quota: DailyQuota,
    /// Rate limit of forced refreshes, which make WeChat create a new token under
    /// [`TokenMode::Stable`].
    pub(super) forced_refreshes: RateLimiter,
    /// Limit of replacements of reported tokens under [`TokenMode::Plain`]. All processes use one
    /// token and report it at the same time. If each process replaced it, they would spend the
    /// account's calls of the day.
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
            // A report of a token that is due anyway does not count as a report: it spends none of
            // the quota for reports, and no rate limit delays the renewal.
            let invalid = invalid.filter(|_| !is_due(record, self.clock.now()));
            let reason = match invalid {
                Some(_) => RenewalReason::ReportedInvalid,
                None => RenewalReason::Due,
            };
            let app = self.wechat.app_id();
            let reservation = self.quota.reserve_renewal(reason, &self.clock, app)?;
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
    /// Fetches the token from `cgi-bin/stable_token`.
    ///
    /// The first call is a normal one. If another program has renewed the token, WeChat returns the
    /// new token. If WeChat returns the reported token again, a second call forces a refresh, as
    /// far as the rate limit allows.
    async fn fetch_stable(
        &self,
        invalid: Option<&AccessToken>,
    ) -> Result<AccountTokenResponse, RenewalFailure> {
        let current = self
            .wechat
            .stable_account_token(false)
            .await
            .map_err(classify)?;
        if invalid != Some(&current.access_token) || !self.try_acquire_forced_refresh().await {
            return Ok(current);
        }
        tracing::warn!(
            target: "tower_wechat::account",
            app = %self.wechat.app_id(), token = %current.access_token.fingerprint(),
            "WeChat returned a token again that it had rejected; a refresh was forced"
        );
        match self.wechat.stable_account_token(true).await {
            Ok(forced) => Ok(forced),
            // The normal call works, so this error must not open the circuit of the account.
            Err(error) if error.kind() == ErrorKind::WechatConfig => {
                tracing::warn!(
                    target: "tower_wechat::account",
                    app = %self.wechat.app_id(), %error,
                    "WeChat rejected a forced refresh"
                );
                Ok(current)
            }
            // WeChat may have created the new token although its response was lost. The next normal
            // call returns that token.
            Err(error) => Err(classify(error)),
        }
    }

    /// Returns `true` if the rate limit allows a forced refresh. Counts the refresh at once, even
    /// if its call then fails, because WeChat may count the failed call too.
    async fn try_acquire_forced_refresh(&self) -> bool {
        let permit = self.forced_refreshes.acquire(self.clock.now()).await;
        permit.map(RatePermit::confirm).is_ok()
    }

    /// Fetches a new token from `cgi-bin/token`. The previous token stays valid for five minutes.
    async fn fetch_plain(
        &self,
        invalid: Option<&AccessToken>,
    ) -> Result<AccountTokenResponse, RenewalFailure> {
        let fetch = async { self.wechat.account_token().await.map_err(classify) };
        if invalid.is_none() {
            return fetch.await;
        }
        let message = "a reported token was replaced a moment ago, and WeChat rejects the new \
                       token too: another replacement would not help";
        self.reported_replacements
            .run(self.clock.now(), message, fetch)
            .await
    }
}
