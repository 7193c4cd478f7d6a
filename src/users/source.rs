//! Where a user's next token comes from: WeChat, by refresh token.

use std::time::Duration;

use crate::clock::{Clock, Timestamp};
use crate::credential::refresh_life::REFRESH_TOKEN_LIFE;
use crate::credential::{AccessToken, Details, Lifetime, Record, Refresh, Token};
use crate::error::{Error, ErrorKind};
use crate::keeper::{Failure, Source};
use crate::store::BoxFuture;
use crate::wechat::{UserGrant, WechatClient, pausing_renewals};

/// After an errcode that nobody knows, WeChat is not asked again for this long.
const UNKNOWN_ERRCODE_PAUSE: Duration = Duration::from_secs(30);

/// errcode: the user has changed the password, so both tokens are void (WeChat's global return
/// codes).
const PASSWORD_CHANGED: i64 = 42007;

pub(super) struct UserSource {
    pub(super) wechat: WechatClient,
    pub(super) clock: Clock,
    pub(super) margin: Duration,
}

impl Source for UserSource {
    fn can_renew(&self, record: &Record) -> bool {
        record.refresh.is_some()
    }

    fn renew<'a>(
        &'a self,
        record: &'a Record,
        _refused: Option<&'a AccessToken>,
    ) -> BoxFuture<'a, Result<Record, Failure>> {
        Box::pin(async move {
            let Some(refresh) = &record.refresh else {
                let message = "there is no refresh token to renew with";
                return Err(Failure::Dead(Error::new(ErrorKind::LoginRequired, message)));
            };
            let grant = self
                .wechat
                .refresh_user_token(&refresh.secret)
                .await
                .map_err(sorted)?;
            renewed(record, refresh, &grant, self.clock.now(), self.margin)
                .map_err(Failure::Transient)
        })
    }

    fn voids_access_token(&self, error: &Error) -> bool {
        error.errcode() == Some(PASSWORD_CHANGED)
    }
}

/// R5: what an error of the refresh call means for the pair.
fn sorted(error: Error) -> Failure {
    match error.kind() {
        ErrorKind::LoginRequired => Failure::Dead(error),
        ErrorKind::WechatConfig => Failure::Operator(pausing_renewals(error)),
        ErrorKind::WechatUnavailable => Failure::Transient(error),
        _ => {
            let wait = error
                .retry_after()
                .unwrap_or_default()
                .max(UNKNOWN_ERRCODE_PAUSE);
            Failure::Transient(error.retrying_after(wait))
        }
    }
}

/// The record of a user who has just logged in.
pub(super) fn logged_in(grant: &UserGrant, now: Timestamp, margin: Duration) -> Record {
    Record {
        token: Some(token(grant, now, margin)),
        refresh: grant.refresh_token.clone().map(|secret| Refresh {
            secret,
            due: now.after(REFRESH_TOKEN_LIFE).before(margin),
        }),
        details: Details {
            openid: grant.openid.as_deref().map(Box::from),
            scope: grant.scope.as_deref().map(Box::from),
            unionid: grant.unionid.as_deref().map(Box::from),
            sessions_from: None,
        },
    }
}

/// What a refresh makes of a record. What the reply leaves out stays as it was; a refresh token
/// that comes back unchanged keeps its point, since WeChat does not extend its life.
fn renewed(
    record: &Record,
    refresh: &Refresh,
    grant: &UserGrant,
    now: Timestamp,
    margin: Duration,
) -> Result<Record, Error> {
    let known = &record.details;
    if let (Some(ours), Some(theirs)) = (known.openid.as_deref(), grant.openid.as_deref())
        && ours != theirs
    {
        let message =
            "WeChat answered a refresh with the tokens of another user; they are not kept";
        return Err(Error::new(ErrorKind::WechatUnavailable, message)
            .with_retry_after(UNKNOWN_ERRCODE_PAUSE));
    }
    let fresh = logged_in(grant, now, margin);
    let refresh = match fresh.refresh {
        Some(new) if new.secret != refresh.secret => new,
        _ => refresh.clone(),
    };
    Ok(Record {
        token: fresh.token,
        refresh: Some(refresh),
        details: Details {
            openid: fresh.details.openid.or_else(|| known.openid.clone()),
            scope: fresh.details.scope.or_else(|| known.scope.clone()),
            unionid: fresh.details.unionid.or_else(|| known.unionid.clone()),
            sessions_from: known.sessions_from,
        },
    })
}

fn token(grant: &UserGrant, now: Timestamp, margin: Duration) -> Token {
    Token {
        secret: grant.access_token.clone(),
        lifetime: Lifetime::granted(now, grant.expires_in, margin),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARGIN: Duration = Duration::from_secs(900);

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(seconds * 1_000)
    }

    fn login() -> Record {
        let grant = UserGrant::new("a0").expires_in(7_200).refresh_token("r0");
        logged_in(
            &grant.openid("oA").scope("snsapi_userinfo").unionid("uA"),
            at(0),
            MARGIN,
        )
    }

    fn refresh(grant: &UserGrant) -> Result<Record, Error> {
        let record = login();
        let refresh = record.refresh.clone().unwrap();
        renewed(&record, &refresh, grant, at(6_400), MARGIN)
    }

    #[test]
    fn a_login_writes_the_published_times() {
        let record = login();
        assert_eq!(record.token.unwrap().lifetime.renew_at(), at(6_300));
        assert_eq!(record.refresh.unwrap().due, at(30 * 86_400 - 900));
    }

    #[test]
    fn what_the_reply_leaves_out_stays() {
        let record = refresh(&UserGrant::new("a1").expires_in(7_200)).unwrap();
        let before = login();
        assert_eq!(record.refresh, before.refresh);
        assert_eq!(record.details, before.details);
        assert_eq!(record.token.unwrap().secret.expose(), "a1");
    }

    #[test]
    fn the_same_refresh_token_keeps_its_point_and_a_new_one_starts_anew() {
        let same = refresh(&UserGrant::new("a1").refresh_token("r0")).unwrap();
        assert_eq!(same.refresh, login().refresh);
        let new = refresh(&UserGrant::new("a1").refresh_token("r1"))
            .unwrap()
            .refresh
            .unwrap();
        assert_eq!(
            (new.secret.expose(), new.due),
            ("r1", at(6_400 + 30 * 86_400 - 900))
        );
    }

    #[test]
    fn tokens_of_another_user_are_not_kept() {
        let error = refresh(&UserGrant::new("a1").openid("oB")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WechatUnavailable);
    }
}
