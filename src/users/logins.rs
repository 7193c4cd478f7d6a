//! The tokens of a login: their write to the store, which later tokens of the user survive.

use std::sync::Arc;

use super::source::login_record;
use super::token::UserToken;
use super::user_tokens::UserTokens;
use crate::clock::Timestamp;
use crate::credential::{Record, UserId};
use crate::error::Error;
use crate::provider::CredentialProvider;
use crate::store::Store;
use crate::wechat::UserTokenResponse;

/// Maximum number of times that one login writes its tokens: eight. Each logout everywhere that
/// happens during the login makes one more write necessary.
const MAX_STORE_ATTEMPTS: usize = 8;

/// The outcome of [`UserTokens::store_login`].
pub(crate) enum LoginWrite {
    /// The tokens are stored.
    Stored(UserToken),
    /// The store has the tokens of a later login, or the user has logged out everywhere since the
    /// login.
    Superseded,
}

impl UserTokens {
    /// Does the same as [`store`](Self::store) for a response that WeChat sent at `received_at`,
    /// unless the user has logged in later and the store has the tokens of that login.
    ///
    /// `is_late` says that the write does not directly follow the response: an earlier write has
    /// failed, or the login was suspended. Such a write does not replace tokens that WeChat issued
    /// later, and stores nothing if the user has logged out everywhere since `received_at`.
    pub(crate) async fn store_login(
        &self,
        user: &UserId,
        response: &UserTokenResponse,
        received_at: Timestamp,
        is_late: bool,
    ) -> Result<LoginWrite, Error> {
        self.0.profiles.remove(user.as_str());
        let login = LoginTask {
            provider: self.0.provider.clone(),
            store: Arc::clone(&self.0.store),
            user: user.clone(),
            record: self.login_record(response, received_at),
            received_at,
            is_late,
        };
        self.0.provider.run_to_completion(login.run()).await
    }

    /// Returns the record of a login whose response arrived at `received_at`.
    fn login_record(&self, response: &UserTokenResponse, received_at: Timestamp) -> Record {
        let margin = self.0.provider.config().margin;
        let mut record = login_record(response, received_at, margin);
        if response.snapshot {
            // A virtual user exists only until the page is closed, so its token is never renewed.
            record.refresh = None;
        }
        record
    }
}

/// One login, whose tokens are written.
struct LoginTask {
    provider: CredentialProvider,
    store: Arc<dyn Store>,
    user: UserId,
    record: Record,
    received_at: Timestamp,
    is_late: bool,
}

impl LoginTask {
    /// Writes the record with the time of the user's last logout everywhere, again if the user logs
    /// out meanwhile.
    async fn run(mut self) -> Result<LoginWrite, Error> {
        let user = self.user.as_str();
        let name = self.provider.credential_key(user);
        let mut revoked_at = self.store.revoked_at(&name).await?;
        for _ in 0..MAX_STORE_ATTEMPTS {
            if self.is_late && revoked_at.is_some_and(|at| at > self.received_at) {
                // An earlier write may have stored the record with the time of an earlier logout.
                // The sessions that the user has ended would then be valid again.
                self.provider.discard_login(user, &self.record).await?;
                return Ok(LoginWrite::Superseded);
            }
            self.record.details.sessions_valid_from = revoked_at;
            let Some(entry) = self
                .provider
                .store_login(user, &self.record, self.is_late)
                .await?
            else {
                return Ok(LoginWrite::Superseded);
            };
            // The time of the last logout is read again, after the write. A logout that starts
            // after this read deletes the record. An earlier logout must be in the record; without
            // it, sessions from before that logout would be valid again.
            let latest = self.store.revoked_at(&name).await?;
            if latest == revoked_at {
                return Ok(LoginWrite::Stored(UserToken::new(entry)));
            }
            revoked_at = latest;
        }
        let message = "the login was not stored, because the user logged out everywhere during \
                       each attempt: log in again";
        Err(Error::store_unavailable(message))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::MemoryStore;
    use crate::clock::Clock;
    use crate::error::ErrorKind;
    use crate::store::RevocationStore;
    use crate::wechat::WechatClient;

    const DAY: Duration = Duration::from_secs(86_400);

    /// Users in memory, with a clock and a store that a test changes.
    fn users_in_memory() -> (UserTokens, MemoryStore, Clock) {
        let clock = Clock::manual(Timestamp::from_millis(1_700_000_000_000));
        let store = MemoryStore::with_clock(clock.clone());
        let wechat = WechatClient::new("wx1", "secret").unwrap();
        let users = UserTokens::builder(wechat, store.clone())
            .clock(clock.clone())
            .build();
        (users, store, clock)
    }

    fn response(token: &str) -> UserTokenResponse {
        UserTokenResponse::new(token).expires_in(7_200).openid("oA")
    }

    /// The first write of a login was executed, although its reply was lost. The user had logged out
    /// everywhere before that write, which did not contain the time of the logout.
    #[tokio::test]
    async fn a_late_login_ends_with_a_logout_and_leaves_no_record() {
        let (users, store, clock) = users_in_memory();
        let (user, received_at) = (UserId::new("oA").unwrap(), clock.now());
        let response = response("83_a");
        let write = async |is_late| {
            let write = users.store_login(&user, &response, received_at, is_late);
            write.await.unwrap()
        };
        assert!(matches!(write(false).await, LoginWrite::Stored(_)));
        clock.advance(Duration::from_secs(1));
        let name = users.0.provider.credential_key("oA");
        store.set_revoked_at(&name, clock.now(), DAY).await.unwrap();

        assert!(matches!(write(true).await, LoginWrite::Superseded));
        assert!(users.cached(&user).is_none());
        let found = users.get(&user).await;
        assert_eq!(found.unwrap_err().kind(), ErrorKind::LoginRequired);
    }

    /// Only the tokens of the login are discarded.
    #[tokio::test]
    async fn a_logout_and_a_later_login_end_a_late_one() {
        let (users, _, clock) = users_in_memory();
        let (user, received_at) = (UserId::new("oA").unwrap(), clock.now());
        clock.advance(Duration::from_secs(1));
        users.revoke(&user).await.unwrap();
        let later = users.store(&user, &response("83_later")).await.unwrap();
        let early = response("83_early");
        let write = users.store_login(&user, &early, received_at, true).await;
        assert!(matches!(write, Ok(LoginWrite::Superseded)));
        let stored = users.get(&user).await.unwrap();
        assert_eq!(stored.access_token(), later.access_token());
    }

    /// A suspended login ends later than WeChat's response arrived.
    #[tokio::test]
    async fn a_late_login_loses_the_time_since_its_response() {
        let (users, _, clock) = users_in_memory();
        let (user, received_at) = (UserId::new("oA").unwrap(), clock.now());
        clock.advance(Duration::from_secs(90));
        let response = response("83_a");
        let write = users.store_login(&user, &response, received_at, true).await;
        let Ok(LoginWrite::Stored(token)) = write else {
            panic!("the login is stored");
        };
        let left = clock.now().duration_until(token.lifetime().expires_at());
        assert_eq!(left, Duration::from_secs(7_110));
    }
}
