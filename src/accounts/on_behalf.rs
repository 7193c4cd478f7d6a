//! Source of the token of an account that has authorized a third-party platform.

use std::sync::Arc;
use std::time::Duration;

use super::own_credential::{account_record, is_due};
use super::quota::{DailyQuota, RenewalReason};
use super::rate_limiter::RateLimiter;
use crate::clock::Clock;
use crate::credential::{AccessToken, AppId, Lifetime, Record};
use crate::provider::{CredentialSource, RenewalFailure, classify};
use crate::store::BoxFuture;
use crate::wechat::PlatformAuthority;

/// Source that asks the platform for the next token of the account (`api_authorizer_token`), within
/// the daily quota. The call counts on the account's own quota at WeChat.
///
/// The platform needs a component token for the call. Without one, it makes no call, and the failure
/// is a [`RenewalFailure::Dependency`].
pub(super) struct OnBehalfSource {
    pub(super) account: AppId,
    pub(super) authority: Arc<dyn PlatformAuthority>,
    pub(super) clock: Clock,
    pub(super) margin: Duration,
    pub(super) quota: DailyQuota,
    /// Limit of replacements of reported tokens. All processes use one token and report it at the
    /// same time. If each process replaced it, they would spend the account's calls of the day.
    pub(super) reported_replacements: RateLimiter,
}

impl CredentialSource for OnBehalfSource {
    fn can_renew(&self, _record: &Record) -> bool {
        true
    }

    fn renew<'a>(
        &'a self,
        record: &'a Record,
        invalid: Option<&'a AccessToken>,
    ) -> BoxFuture<'a, Result<Record, RenewalFailure>> {
        Box::pin(async move {
            let now = self.clock.now();
            // A report of a token that is due anyway does not count as a report.
            let reason = match invalid {
                Some(_) if !is_due(record, now) => RenewalReason::ReportedInvalid,
                Some(_) | None => RenewalReason::Due,
            };
            let app = &self.account;
            let reservation = self.quota.reserve_renewal(reason, &self.clock, app)?;
            let renew = async {
                let response = self.authority.renew_authorizer_token(&self.account).await;
                response.map_err(classify)
            };
            let response = match reason {
                RenewalReason::Due => renew.await?,
                RenewalReason::ReportedInvalid => {
                    let message = "a reported token was replaced a moment ago, and WeChat rejects \
                                   the new token too: another replacement would not help";
                    self.reported_replacements.run(now, message, renew).await?
                }
            };
            reservation.confirm();
            let now = self.clock.now();
            let lifetime = Lifetime::from_response(now, response.expires_in, self.margin);
            Ok(account_record(response.access_token, lifetime))
        })
    }
}
