//! Source of users' tokens: WeChat's refresh call.

use std::time::Duration;

use crate::clock::{Clock, Timestamp};
use crate::credential::record_lifetime::REFRESH_TOKEN_LIFETIME;
use crate::credential::{AccessToken, Lifetime, Record, Refresh, Token, UserDetails};
use crate::error::{Error, ErrorKind};
use crate::provider::{self, CredentialSource, RenewalFailure, UNKNOWN_ERRCODE_PAUSE};
use crate::store::BoxFuture;
use crate::wechat::{UserTokenResponse, WechatClient};

/// Errcode of a refresh after the user has changed the password. WeChat has then revoked the access
/// token and the refresh token (global return codes, 全局返回码).
const PASSWORD_CHANGED: i64 = 42007;

/// Source that renews a user's access token with the refresh token.
pub(super) struct UserSource {
    pub(super) wechat: WechatClient,
    pub(super) clock: Clock,
    pub(super) margin: Duration,
}

impl CredentialSource for UserSource {
    fn can_renew(&self, record: &Record) -> bool {
        record.refresh.is_some()
    }

    fn renew<'a>(
        &'a self,
        record: &'a Record,
        _invalid: Option<&'a AccessToken>,
    ) -> BoxFuture<'a, Result<Record, RenewalFailure>> {
        Box::pin(async move {
            let Some(refresh) = &record.refresh else {
                let message = "there is no refresh token to renew with";
                return Err(RenewalFailure::InvalidGrant(Error::new(
                    ErrorKind::LoginRequired,
                    message,
                )));
            };
            let response = self
                .wechat
                .refresh_user_token(&refresh.secret)
                .await
                .map_err(classify)?;
            renewed_record(record, refresh, &response, self.clock.now(), self.margin)
                .map_err(RenewalFailure::Transient)
        })
    }

    fn invalidates_access_token(&self, error: &Error) -> bool {
        error.errcode() == Some(PASSWORD_CHANGED)
    }
}

/// Classifies an error of the refresh call. Only the user can replace a refresh token that WeChat
/// rejects.
fn classify(error: Error) -> RenewalFailure {
    match error.kind() {
        ErrorKind::LoginRequired => RenewalFailure::InvalidGrant(error),
        _ => provider::classify(error),
    }
}

/// Returns the record of a user who has just logged in.
pub(super) fn login_record(
    response: &UserTokenResponse,
    now: Timestamp,
    margin: Duration,
) -> Record {
    Record {
        token: Some(token_from_response(response, now, margin)),
        refresh: response.refresh_token.clone().map(|secret| Refresh {
            secret,
            expected_expiry: now
                .saturating_add(REFRESH_TOKEN_LIFETIME)
                .saturating_sub(margin),
        }),
        details: UserDetails {
            openid: response.openid.as_deref().map(Box::from),
            scope: response.scope.as_deref().map(Box::from),
            unionid: response.unionid.as_deref().map(Box::from),
            sessions_valid_from: None,
        },
    }
}

/// Returns the record after a refresh. Fields that the response lacks keep their values. A refresh
/// token that WeChat returns unchanged keeps its expiry, because WeChat does not extend it.
///
/// # Errors
/// Returns an error if the response has the openid of another user.
fn renewed_record(
    record: &Record,
    refresh: &Refresh,
    response: &UserTokenResponse,
    now: Timestamp,
    margin: Duration,
) -> Result<Record, Error> {
    let stored = &record.details;
    if let (Some(ours), Some(theirs)) = (stored.openid.as_deref(), response.openid.as_deref())
        && ours != theirs
    {
        let message = "WeChat returned the tokens of another user; they were discarded";
        return Err(Error::new(ErrorKind::WechatUnavailable, message)
            .with_retry_after(UNKNOWN_ERRCODE_PAUSE));
    }
    let fresh = login_record(response, now, margin);
    let refresh = match fresh.refresh {
        Some(new) if new.secret != refresh.secret => new,
        _ => refresh.clone(),
    };
    Ok(Record {
        token: fresh.token,
        refresh: Some(refresh),
        details: UserDetails {
            openid: fresh.details.openid.or_else(|| stored.openid.clone()),
            scope: fresh.details.scope.or_else(|| stored.scope.clone()),
            unionid: fresh.details.unionid.or_else(|| stored.unionid.clone()),
            sessions_valid_from: stored.sessions_valid_from,
        },
    })
}

fn token_from_response(response: &UserTokenResponse, now: Timestamp, margin: Duration) -> Token {
    Token {
        secret: response.access_token.clone(),
        lifetime: Lifetime::from_response(now, response.expires_in, margin),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARGIN: Duration = Duration::from_secs(900);

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(seconds * 1_000)
    }

    fn record_after_login() -> Record {
        let grant = UserTokenResponse::new("a0")
            .expires_in(7_200)
            .refresh_token("r0");
        login_record(
            &grant.openid("oA").scope("snsapi_userinfo").unionid("uA"),
            at(0),
            MARGIN,
        )
    }

    fn record_after_refresh(grant: &UserTokenResponse) -> Result<Record, Error> {
        let record = record_after_login();
        let refresh = record.refresh.clone().unwrap();
        renewed_record(&record, &refresh, grant, at(6_400), MARGIN)
    }

    #[test]
    fn login_records_have_the_published_times() {
        let record = record_after_login();
        assert_eq!(record.token.unwrap().lifetime.renew_at(), at(6_300));
        assert_eq!(
            record.refresh.unwrap().expected_expiry,
            at(30 * 86_400 - 900)
        );
    }

    #[test]
    fn fields_missing_from_a_refresh_response_are_kept() {
        let record = record_after_refresh(&UserTokenResponse::new("a1").expires_in(7_200)).unwrap();
        let before = record_after_login();
        assert_eq!(record.refresh, before.refresh);
        assert_eq!(record.details, before.details);
        assert_eq!(record.token.unwrap().secret.expose(), "a1");
    }

    #[test]
    fn only_a_new_refresh_token_gets_a_new_expiry() {
        let same = record_after_refresh(&UserTokenResponse::new("a1").refresh_token("r0")).unwrap();
        assert_eq!(same.refresh, record_after_login().refresh);
        let new = record_after_refresh(&UserTokenResponse::new("a1").refresh_token("r1"))
            .unwrap()
            .refresh
            .unwrap();
        assert_eq!(
            (new.secret.expose(), new.expected_expiry),
            ("r1", at(6_400 + 30 * 86_400 - 900))
        );
    }

    #[test]
    fn tokens_of_another_user_are_rejected() {
        let error = record_after_refresh(&UserTokenResponse::new("a1").openid("oB")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WechatUnavailable);
    }
}
