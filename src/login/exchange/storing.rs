//! The end of a login whose code WeChat has exchanged: the choice of the user, and the write of the
//! tokens.

use std::time::Duration;

use tokio::time::Instant;

use super::pending::{pending_response, read_pending, remaining_lifetime};
use super::{Exchange, ExchangeOutcome, ExchangeStatus, INITIAL_DELAY, MAX_DELAY, SignedInUser};
use crate::backoff::Backoff;
use crate::clock::Timestamp;
use crate::credential::UserId;
use crate::error::{Error, ErrorKind};
use crate::login::failure::LoginFailure;
use crate::login::hook::{HookError, LoginHook, LoginUser};
use crate::login::scope::Scope;
use crate::login::settings::SnapshotPolicy;
use crate::metrics;
use crate::store::{LeaseOwner, PendingResponse, Suspension};
use crate::users::{GrantedScope, LoginWrite};
use crate::wechat::UserTokenResponse;

/// Time for which a failed write of tokens to the store is retried: one minute (promise: nothing
/// lost). After that, the user has to log in again.
const STORE_RETRY_TIMEOUT: Duration = Duration::from_secs(60);

impl Exchange {
    /// Resumes a suspended exchange of this login: runs the hook again, with WeChat's response from
    /// the store.
    pub(super) async fn resume(
        &self,
        owner: &LeaseOwner,
        pending: PendingResponse,
    ) -> ExchangeOutcome {
        let Some(read) = read_pending(&pending) else {
            // Another version of this crate has written the response. WeChat rejects the code as
            // spent, and the login is retried.
            return self.exchange_code(owner).await;
        };
        // The binding of the code to its login may have expired before the response.
        if read.login_id != self.login_id {
            let lease = self.lease_duration();
            self.users
                .release_code(self.code_key.clone(), owner.clone(), lease);
            let outcome = self.reject_foreign_code();
            metrics::count_login(outcome.as_str());
            return outcome;
        }
        self.end_login(owner, &read.response, read.received_at, Some(pending))
            .await
    }

    /// Chooses the user, stores the tokens, and writes the outcome to the store. `pending` is the
    /// response as text, if the store already has it.
    pub(super) async fn end_login(
        &self,
        owner: &LeaseOwner,
        response: &UserTokenResponse,
        received_at: Timestamp,
        pending: Option<PendingResponse>,
    ) -> ExchangeOutcome {
        let outcome = match self.choose_user(response, pending.is_some()).await {
            Ok(user) => {
                self.store_tokens(user, response, received_at, pending.is_some())
                    .await
            }
            Err(failure) => ExchangeOutcome::Failed(failure),
        };
        let hook_failed = outcome == ExchangeOutcome::Failed(LoginFailure::HookFailed);
        match pending {
            // A response that is already stored is kept for every failure that may end soon.
            Some(pending) if outcome.is_transient() => {
                self.suspend(owner, &outcome, &pending, received_at).await;
            }
            None if hook_failed => {
                let pending = pending_response(self.login_id, response, received_at);
                self.suspend(owner, &outcome, &pending, received_at).await;
            }
            Some(_) | None => self.finish(owner, &outcome, outcome.lifetime()).await,
        }
        outcome
    }

    /// Returns the user under whose id the tokens are stored: the bound user, the user from the
    /// hook, or the user with the openid.
    async fn choose_user(
        &self,
        response: &UserTokenResponse,
        was_suspended: bool,
    ) -> Result<UserId, LoginFailure> {
        let app = &self.code_key.app;
        let Some(Ok(openid)) = response.openid.as_deref().map(UserId::new) else {
            tracing::warn!(target: "tower_wechat::login", %app, "WeChat returned tokens without a valid openid; the user can try again");
            return Err(LoginFailure::WechatUnavailable);
        };
        // The tokens of a virtual user must not be stored under a real user's id.
        if response.snapshot
            && (self.snapshot_policy == SnapshotPolicy::Deny || self.bound_user.is_some())
        {
            tracing::info!(target: "tower_wechat::login", %app, "a virtual user of a snapshot page was rejected");
            return Err(LoginFailure::SnapshotDenied);
        }
        match (&self.hook, &self.bound_user) {
            (_, Some(bound)) => Ok(bound.clone()),
            (Some(hook), None) if !response.snapshot => self.run_hook(hook, openid, response).await,
            // The process that suspended the exchange has a hook. The openid is not the id that the
            // hook would choose, so that this process must not sign the user in.
            (None, None) if was_suspended => {
                self.log_failed_hook("this process has no hook, and another process has one");
                Err(LoginFailure::HookFailed)
            }
            (Some(_) | None, None) => Ok(openid),
        }
    }

    /// Runs the application's hook, and logs its failure.
    async fn run_hook(
        &self,
        hook: &LoginHook,
        openid: UserId,
        response: &UserTokenResponse,
    ) -> Result<UserId, LoginFailure> {
        self.status.send_replace(ExchangeStatus::RunningHook);
        let user = LoginUser::new(openid, response, self.users.wechat());
        match hook.run(user, self.hook_timeout).await {
            Ok(user) => Ok(user),
            Err(HookError::Failed(error)) => {
                self.log_failed_hook(&error);
                Err(LoginFailure::HookFailed)
            }
            Err(HookError::InvalidUserId(error)) => {
                if let Some(more) = self.log_limiter.allow_line("invalid_user_id") {
                    tracing::error!(target: "tower_wechat::login", app = %self.code_key.app, error, more, "the hook of on_login returned an invalid user id, so that the user cannot log in; correct the hook");
                }
                Err(LoginFailure::InvalidUserId)
            }
        }
    }

    fn log_failed_hook(&self, error: &str) {
        if let Some(more) = self.log_limiter.allow_line("hook_failed") {
            tracing::warn!(target: "tower_wechat::login", app = %self.code_key.app, error, more, "the hook of on_login failed; a reload of the callback runs it again");
        }
    }

    /// Suspends the exchange after a failed hook, and counts the failure. If the store does not
    /// answer, the response is lost, and the user has to log in again.
    async fn suspend(
        &self,
        owner: &LeaseOwner,
        outcome: &ExchangeOutcome,
        pending: &PendingResponse,
        received_at: Timestamp,
    ) {
        outcome.record();
        let json = outcome.to_json();
        let suspension = Suspension {
            outcome: &json,
            outcome_ttl: outcome.lifetime(),
            response: pending,
            response_ttl: remaining_lifetime(received_at, self.users.clock().now()),
        };
        let store = self.users.token_store();
        if let Err(error) = store.suspend_code(&self.code_key, owner, &suspension).await {
            tracing::warn!(target: "tower_wechat::login", app = %self.code_key.app, %error, "the login of a failed hook could not be kept; the user has to log in again");
        }
    }

    /// Stores the tokens that WeChat returned at `received_at`, and returns the outcome of the login
    /// (promises: newest wins, nothing lost). If the store is unavailable, retries for
    /// [`STORE_RETRY_TIMEOUT`].
    ///
    /// `is_late` says that the login was suspended. If the user has logged in again or has logged
    /// out everywhere before a late or repeated write, the code counts as spent.
    async fn store_tokens(
        &self,
        user: UserId,
        response: &UserTokenResponse,
        received_at: Timestamp,
        mut is_late: bool,
    ) -> ExchangeOutcome {
        let app = &self.code_key.app;
        let users = self.users.for_user(response.snapshot);
        let had_more = match response.snapshot {
            true => Ok(false),
            false => self.had_broader_scope(&user, response).await,
        };
        // A read that failed has taken time.
        is_late |= had_more.is_err();
        let deadline = Instant::now() + STORE_RETRY_TIMEOUT;
        let mut backoff = Backoff::new(INITIAL_DELAY, MAX_DELAY);
        let stored = loop {
            let write = users.store_login(&user, response, received_at, is_late);
            let error = match write.await {
                Ok(LoginWrite::Stored(stored)) => break stored,
                Ok(LoginWrite::Superseded) => {
                    tracing::debug!(target: "tower_wechat::login", %app, user = ?user.as_str(), "the tokens of a login were discarded; the store has later ones, or the user has logged out everywhere since");
                    return ExchangeOutcome::CodeSpent;
                }
                Err(error) => error,
            };
            if error.kind() != ErrorKind::StoreUnavailable || Instant::now() >= deadline {
                tracing::error!(target: "tower_wechat::login", %app, %error, "a login could not be stored; the user has to log in again");
                return ExchangeOutcome::from_error(&error);
            }
            tracing::warn!(target: "tower_wechat::login", %app, %error, "the tokens of a login could not be stored yet; the write is retried for a minute");
            is_late = true;
            backoff.wait().await;
        };
        tracing::info!(target: "tower_wechat::login", %app, user = ?user.as_str(), scope = response.scope.as_deref(), snapshot = response.snapshot, "logged in");
        ExchangeOutcome::SignedIn(SignedInUser {
            user: user.as_str().to_owned(),
            snapshot: response.snapshot,
            scope: response.scope.clone(),
            login: self.login_id,
            epoch: stored.sessions_valid_from().map(Timestamp::as_millis),
            had_more: had_more.unwrap_or(false),
        })
    }

    /// Returns `true` if the user's stored tokens cover a broader scope than this code. This check
    /// is possible only after the code is spent and WeChat has revoked the former tokens, because
    /// the code reveals the user.
    async fn had_broader_scope(
        &self,
        user: &UserId,
        response: &UserTokenResponse,
    ) -> Result<bool, Error> {
        let covers = |granted: &str| Scope::UserInfo.is_granted_by(granted);
        if response.scope.as_deref().is_some_and(covers) {
            return Ok(false);
        }
        let former = self.users.granted_scope(user.as_str()).await?;
        Ok(matches!(former, GrantedScope::Known(former) if covers(&former)))
    }
}
