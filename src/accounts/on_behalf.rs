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
            let before = record.token.as_ref().map(|token| &token.secret);
            let renew = async {
                let renewal = self.authority.renew_authorizer_token(app, before);
                renewal.await.map_err(classify)
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use crate::credential::{AccessToken, AppId};
    use crate::error::{Error, ErrorKind};
    use crate::wechat::WechatClient;
    use crate::wechat::tests::authority::{Call, FakeAuthority};
    use crate::wechat::tests::server::ScriptedServer;
    use crate::{AccountTokens, MemoryStore, Tickets};

    fn client_at(url: &str, authority: FakeAuthority) -> (Arc<FakeAuthority>, WechatClient) {
        let platform = WechatClient::builder("wxcomp", "s3cret")
            .api_url(url)
            .build();
        let (authority, shared) = authority.shared();
        let account = AppId::new("wxacc").unwrap();
        (authority, platform.unwrap().on_behalf_of(&account, shared))
    }

    fn accounts(authority: FakeAuthority) -> (Arc<FakeAuthority>, AccountTokens) {
        let (authority, client) = client_at("http://127.0.0.1:1", authority);
        (authority, AccountTokens::new(client, MemoryStore::new()))
    }

    fn renewals(authority: &FakeAuthority) -> usize {
        let renewed = |call: &&Call| **call == Call::Renewed("wxacc".to_owned());
        authority.calls().iter().filter(renewed).count()
    }

    #[tokio::test]
    async fn a_thousand_reports_cause_one_renewal() {
        let (authority, accounts) = accounts(FakeAuthority::default());
        let first = accounts.get().await.unwrap().access_token().clone();
        assert_eq!(first.expose(), "authorizer-1");
        let mut reports = tokio::task::JoinSet::new();
        for _ in 0..1_000 {
            let (accounts, first) = (accounts.clone(), first.clone());
            reports.spawn(async move {
                let token = accounts.report_invalid(&first).await.unwrap();
                assert_eq!(token.access_token().expose(), "authorizer-2");
            });
        }
        while let Some(result) = reports.join_next().await {
            result.unwrap();
        }
        assert_eq!(renewals(&authority), 2);

        // If WeChat rejects the next token too, another one would not help.
        let next = AccessToken::from("authorizer-2");
        let error = accounts.report_invalid(&next).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WechatUnavailable, "{error}");
        assert_eq!(renewals(&authority), 2);
    }

    #[tokio::test]
    async fn a_missing_component_token_is_no_failure() {
        let (authority, accounts) = accounts(FakeAuthority::default());
        let missing = Error::new(ErrorKind::WechatUnavailable, "no component token");
        *authority.unavailable.lock().unwrap() = Some(missing);
        let error = accounts.get().await.unwrap_err();
        assert_eq!(error.to_string(), "no component token");
        *authority.unavailable.lock().unwrap() = None;
        let token = accounts.get().await.unwrap();
        assert_eq!(
            token.access_token().expose(),
            "authorizer-2",
            "there is no back-off"
        );
    }

    #[tokio::test]
    async fn an_account_that_left_is_not_asked_for_again_at_once() {
        let left = |_| Err(Error::new(ErrorKind::AccountNotAuthorized, "61003"));
        let (authority, accounts) = accounts(FakeAuthority::default().with_renewal(left));
        for _ in 0..3 {
            let error = accounts.get().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::AccountNotAuthorized);
        }
        assert_eq!(renewals(&authority), 1);
    }

    #[tokio::test]
    async fn the_token_is_due_fifteen_minutes_before_its_end() {
        let (_, accounts) = accounts(FakeAuthority::default());
        let lifetime = accounts.get().await.unwrap().lifetime();
        let margin = lifetime.renew_at().duration_until(lifetime.expires_at());
        assert_eq!(margin.as_secs(), 900);
    }

    #[tokio::test]
    async fn tickets_follow_a_replaced_token() {
        let server = ScriptedServer::with_sequence([
            json!({ "errcode": 40001, "errmsg": "not latest" }),
            json!({ "errcode": 0, "ticket": "t", "expires_in": 7200 }),
        ])
        .await;
        let (authority, client) = client_at(&server.url, FakeAuthority::default());
        let accounts = AccountTokens::new(client, MemoryStore::new());
        let ticket = Tickets::new(&accounts, ["h5.example.com"])
            .unwrap()
            .get()
            .await
            .unwrap();
        assert_eq!(ticket.ticket().expose(), "t");
        let used: Vec<bool> = (server.requests().iter().zip(1..))
            .map(|(request, at)| request.contains(&format!("?access_token=authorizer-{at}&")))
            .collect();
        assert_eq!(used, [true, true]);
        assert_eq!(renewals(&authority), 2);
    }
}
