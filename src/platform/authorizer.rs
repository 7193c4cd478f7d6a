//! The tokens of the accounts, on whose behalf the platform acts.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::authorizations::Snapshot;
use super::lists::MIN_LIST_INTERVAL;
use super::state::PlatformState;
use crate::accounts::AccountToken;
use crate::credential::{AccessToken, AppId, RefreshToken, Token};
use crate::error::{Error, ErrorKind};
use crate::store::{AuthorizationState, BoxFuture, CredentialReader, DurableSecret};
use crate::wechat::errcode::NOT_AUTHORIZED;
use crate::wechat::{AccountTokenResponse, AuthorizerToken, PlatformAuthority};

/// Errcode of a refresh token that WeChat refuses.
const REFRESH_TOKEN_REFUSED: i64 = 61023;

/// `Retry-After` of requests for an account that is not authorized any more: one minute.
const NOT_AUTHORIZED_PAUSE: Duration = Duration::from_secs(60);

/// `Retry-After` of requests that wait for the list of accounts.
const RECOVERY_RETRY_DELAY: Duration = Duration::from_secs(5);

/// Longest wait for another process that reads the list of accounts: four seconds. The renewal that
/// waits ends after eight.
const RECOVERY_TIMEOUT: Duration = Duration::from_secs(4);

/// Longest wait for the token of an authorization, whose refresh token another process has just stored.
const GRANT_TIMEOUT: Duration = Duration::from_secs(1);

/// Interval at which a process looks whether another one has recovered a refresh token.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// Maximum number of refresh tokens that one renewal tries: the stored one, one that a concurrent
/// authorization has written, and one of the list.
const MAX_TRIES: usize = 3;

impl PlatformState {
    /// Requests a new access token for an account, in place of the token `before`. Recovers its refresh
    /// token if that is lost.
    async fn renew_token(
        self: &Arc<Self>,
        account: &AppId,
        before: Option<&AccessToken>,
    ) -> Result<AccountTokenResponse, Error> {
        let mut outcome = Err(recovering(account));
        let mut tried: Option<RefreshToken> = None;
        for _ in 0..MAX_TRIES {
            let stored = self.authorizations.refresh_tokens.load(account).await?;
            let usable = stored.value.as_ref();
            let usable = usable.filter(|it| !self.is_refused(account, &it.secret));
            let Some(refresh) = usable else {
                let lost = stored.value.as_ref().map(|it| &it.secret);
                self.recover(account, lost).await?;
                // A list brings no access token, so there is none to wait for.
                tried = None;
                continue;
            };
            // The account may have been authorized again since this renewal began. Another token would end
            // the one that the authorization has stored. It has stored that token before its refresh token,
            // so whoever has read the refresh token finds it. After a refused try, the authorization may come
            // from a list, and its token may follow.
            let has_changed = tried.is_some_and(|tried| tried != refresh.secret);
            let timeout = if has_changed {
                GRANT_TIMEOUT
            } else {
                Duration::ZERO
            };
            if let Some(current) = self.wait_for_grant(account, before, timeout).await? {
                return Ok(current);
            }
            tried = Some(refresh.secret.clone());
            match self.request_token(account, &refresh.secret).await {
                Ok(granted) => {
                    if self.keep_refresh_token(account, refresh, &granted).await? {
                        let AuthorizerToken {
                            access_token,
                            expires_in,
                            ..
                        } = granted;
                        return Ok(AccountTokenResponse {
                            access_token,
                            expires_in,
                        });
                    }
                    outcome = Err(recovering(account));
                }
                Err(error) if is_refused(&error) => {
                    self.note_refused(account, &refresh.secret);
                    outcome = Err(error);
                }
                Err(error) => return Err(error),
            }
        }
        outcome
    }

    async fn request_token(
        &self,
        account: &AppId,
        refresh: &RefreshToken,
    ) -> Result<AuthorizerToken, Error> {
        // An error of the component token is not one of this account.
        self.component_token()
            .await
            .map_err(|error| error.as_missing_prerequisite())?;
        let component = &self.component;
        self.with_component_token(async |token: AccountToken| {
            let token = token.access_token();
            component.authorizer_token(token, account, refresh).await
        })
        .await
    }

    /// Waits until another process has stored the token of a new authorization, which is not the token
    /// `before`. Returns `None` if it stores none within `timeout`.
    async fn wait_for_grant(
        &self,
        account: &AppId,
        before: Option<&AccessToken>,
        timeout: Duration,
    ) -> Result<Option<AccountTokenResponse>, Error> {
        let give_up = Instant::now() + timeout;
        loop {
            let now = self.clock.now();
            let token = self.authorizations.access_token(account).await?;
            let is_new = |token: &Token| Some(&token.secret) != before;
            let token = token.filter(|token| is_new(token) && now < token.lifetime.renew_at());
            if let Some(token) = token {
                let left = now.duration_until(token.lifetime.expires_at());
                return Ok(Some(AccountTokenResponse {
                    access_token: token.secret,
                    expires_in: i64::try_from(left.as_secs()).ok(),
                }));
            }
            if Instant::now() >= give_up {
                return Ok(None);
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// Returns `true` if WeChat does not issue a token for this refresh token any more.
    pub(super) async fn is_refused_by_wechat(
        &self,
        account: &AppId,
        secret: &DurableSecret,
    ) -> Result<bool, Error> {
        match self.request_token(account, &secret.secret).await {
            Ok(granted) => {
                self.keep_refresh_token(account, secret, &granted).await?;
                // WeChat may have ended the account's current token.
                self.authorizations.drop_access_token(account).await?;
                Ok(false)
            }
            Err(error) => match is_refused(&error) {
                true => Ok(true),
                false => Err(error),
            },
        }
    }

    /// Stores the refresh token of a response, if WeChat has changed it. Returns `false` if another one
    /// was stored meanwhile: the account was authorized again, and the token of the response is not
    /// valid any more.
    async fn keep_refresh_token(
        &self,
        account: &AppId,
        used: &DurableSecret,
        granted: &AuthorizerToken,
    ) -> Result<bool, Error> {
        let used = &used.secret;
        let next = granted.refresh_token.as_ref().unwrap_or(used);
        self.authorizations
            .refresh_tokens
            .replace_used(account, used, next)
            .await
    }

    /// Has the list of accounts read, because the refresh token of an account is missing or `refused`.
    /// Returns when the store has another refresh token.
    ///
    /// # Errors
    /// [`ErrorKind::AccountNotAuthorized`]: the list has no other refresh token either. The account is
    /// then lost until its owner authorizes it again.
    async fn recover(
        self: &Arc<Self>,
        account: &AppId,
        refused: Option<&RefreshToken>,
    ) -> Result<(), Error> {
        if refused.is_none() && self.authorizations.has_ended(account).await? {
            return Err(not_authorized(account));
        }
        // Taken before the list, so that an authorization that comes meanwhile does not end with it.
        let seen = self.authorizations.snapshot(account).await?;
        let list = self.list().await;
        let Some(listed) = list.map_err(|error| error.as_missing_prerequisite())? else {
            return self.wait_for_recovery(account, refused).await;
        };
        let refresh_tokens = &self.authorizations.refresh_tokens;
        let stored = refresh_tokens.load(account).await?.value;
        if is_another(stored.as_ref(), refused) {
            return Ok(());
        }
        let from_list = listed.accounts.get(account);
        if let (Some(Some(from_list)), Some(stored)) = (from_list, &stored)
            && *from_list == stored.secret
            && !self.is_refused_by_wechat(account, stored).await?
        {
            // WeChat refused a valid token once.
            self.forget_refused(account);
            return Ok(());
        }
        self.lose(account, &seen, from_list.is_some()).await?;
        Err(not_authorized(account))
    }

    async fn wait_for_recovery(
        &self,
        account: &AppId,
        refused: Option<&RefreshToken>,
    ) -> Result<(), Error> {
        let refresh_tokens = &self.authorizations.refresh_tokens;
        let give_up = Instant::now() + RECOVERY_TIMEOUT;
        while Instant::now() < give_up {
            // The time is read first: a list that is complete by then has written its refresh tokens.
            let listed_at = self.authorizations.listed_at().await?;
            let stored = refresh_tokens.load(account).await?.value;
            if is_another(stored.as_ref(), refused) {
                return Ok(());
            }
            let now = self.clock.now();
            let is_listed = listed_at.is_some_and(|at| now < at.saturating_add(MIN_LIST_INTERVAL));
            if is_listed || self.authorizations.has_ended(account).await? {
                // Nothing more is known before the next list.
                return Err(not_authorized(account).clone_with_retry_after(MIN_LIST_INTERVAL));
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
        Err(recovering(account))
    }

    /// Notes that the platform cannot act for an account any more, unless it was authorized since `seen`,
    /// and says so once.
    async fn lose(&self, account: &AppId, seen: &Snapshot, is_listed: bool) -> Result<(), Error> {
        let state = AuthorizationState::Lost;
        if self
            .authorizations
            .end_if_unchanged(account, state, seen)
            .await?
        {
            self.changes.publish(account);
            let reason = match is_listed {
                true => "WeChat refuses its refresh token",
                false => "WeChat does not list it any more",
            };
            tracing::error!(
                target: "tower_wechat::platform",
                app = %account, reason,
                "an account is not authorized any more; its owner has to authorize the platform again"
            );
        }
        Ok(())
    }

    /// Looks whether an account is still authorized, after WeChat has answered 61003 to a call.
    async fn check_authorization(self: &Arc<Self>, account: &AppId) -> Result<(), Error> {
        if self.authorizations.has_ended(account).await? {
            return Ok(());
        }
        let seen = self.authorizations.snapshot(account).await?;
        let Some(listed) = self.list().await? else {
            return Ok(());
        };
        if listed.accounts.contains_key(account) {
            return Ok(());
        }
        match &seen.secret.value {
            Some(secret) if !self.is_refused_by_wechat(account, secret).await? => Ok(()),
            Some(_) | None => self.lose(account, &seen, false).await,
        }
    }
}

impl PlatformAuthority for PlatformState {
    fn component(&self) -> &AppId {
        self.component.app_id()
    }

    fn component_token<'a>(&'a self) -> BoxFuture<'a, Result<AccessToken, Error>> {
        Box::pin(async move {
            let token = Self::component_token(self).await?;
            Ok(token.access_token().clone())
        })
    }

    fn report_component_token<'a>(
        &'a self,
        invalid: &'a AccessToken,
    ) -> BoxFuture<'a, Result<AccessToken, Error>> {
        Box::pin(async move {
            let current = self.token.report_invalid(invalid).await?;
            Ok(current.secret().clone())
        })
    }

    fn note_not_authorized(&self, account: &AppId) {
        let (Some(state), account) = (self.this.upgrade(), account.clone()) else {
            return;
        };
        if self.followed().is_some() {
            return;
        }
        let Ok(permit) = Arc::clone(&self.checks).try_acquire_owned() else {
            return;
        };
        self.tasks.spawn(async move {
            if let Err(error) = state.check_authorization(&account).await {
                tracing::debug!(target: "tower_wechat::platform", app = %account, %error, "the authorization of an account could not be checked");
            }
            drop(permit);
        });
    }

    fn renew_authorizer_token<'a>(
        &'a self,
        account: &'a AppId,
        before: Option<&'a AccessToken>,
    ) -> BoxFuture<'a, Result<AccountTokenResponse, Error>> {
        Box::pin(async move {
            match self.this.upgrade() {
                Some(state) => state.renew_token(account, before).await,
                None => Err(recovering(account)),
            }
        })
    }

    fn external_account_token(&self, account: &AppId) -> Option<Arc<dyn CredentialReader>> {
        Some(self.followed()?.account_token(account))
    }
}

/// Returns `true` if the store has a refresh token, and not the `refused` one.
fn is_another(stored: Option<&DurableSecret>, refused: Option<&RefreshToken>) -> bool {
    stored.is_some_and(|stored| Some(&stored.secret) != refused)
}

/// Returns `true` if the refresh token of a call is of no use any more.
fn is_refused(error: &Error) -> bool {
    matches!(
        error.errcode(),
        Some(REFRESH_TOKEN_REFUSED | NOT_AUTHORIZED)
    )
}

/// Returns the error of requests for an account that is not authorized any more.
pub(crate) fn not_authorized(account: &AppId) -> Error {
    let message = format!(
        "the account {account} is not authorized to the platform: its owner has to open the page of \
         the authorization again"
    );
    // No call was made, and none is made until the store says otherwise: there is nothing to back off
    // from.
    Error::new(ErrorKind::AccountNotAuthorized, message)
        .with_retry_after(NOT_AUTHORIZED_PAUSE)
        .as_missing_prerequisite()
}

fn recovering(account: &AppId) -> Error {
    let message = format!(
        "the refresh token of {account} is missing, and the list of accounts is read to recover it"
    );
    Error::new(ErrorKind::PlatformStarting, message).with_retry_after(RECOVERY_RETRY_DELAY)
}
