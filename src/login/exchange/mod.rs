//! Exchange of codes: each code is exchanged once among all processes, and all copies of its callback
//! get the same outcome.
//!
//! An exchange passes these states:
//!
//! 1. **Waiting for a permit.** [`ExchangeLimiter`] limits the exchanges of this process. Without a
//!    permit in time, the outcome is a failure, and the code stays unspent.
//! 2. **Admitted.** The store binds the code to this login, and counts the codes of the login. A code
//!    that is bound to another login is rejected.
//! 3. **Claimed.** One process holds the lease of the code and calls WeChat. Other processes poll the
//!    store until they find the outcome, or until their timeout.
//! 4. **Stored.** The user's tokens are stored before the outcome, so that a session never exists
//!    without its tokens.
//! 5. **Finished.** The outcome is in the store, and all copies read it.

mod outcome;
mod shared;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{Instrument, Span, field};

pub(crate) use self::outcome::ExchangeOutcome;
use self::outcome::RESULT_LIFETIME;
pub(super) use self::outcome::{SignedInUser, TRANSIENT_FAILURE_LIFETIME};
use self::shared::OutcomeSender;
pub(super) use self::shared::{CallbackKey, RunningExchanges};
use super::failure::LoginFailure;
use super::limits::exchanges::ExchangeLimiter;
use super::scope::Scope;
use super::settings::SnapshotPolicy;
use crate::backoff::Backoff;
use crate::clock::Timestamp;
use crate::credential::UserId;
use crate::error::{Error, ErrorKind};
use crate::log_limiter::LogLimiter;
use crate::metrics;
use crate::store::{CodeBindResult, CodeLeaseResult, LeaseOwner, LoginCodeKey, Quota};
use crate::users::{GrantedScope, UserTokens};
use crate::wechat::UserTokenResponse;

/// Duration of the lease of a code: longer than the call to WeChat may take.
const CODE_LEASE: Duration = Duration::from_secs(10);

/// Time for which the store keeps the outcome of a code that WeChat does not know. Made-up codes leave
/// nothing for longer.
const INVALID_CODE_LIFETIME: Duration = Duration::from_secs(60);

/// Time for which an unspent code is bound to its login. Codes expire at WeChat after five minutes.
const UNSPENT_CODE_LIFETIME: Duration = Duration::from_secs(6 * 60);

/// Maximum number of codes of one login that all processes together exchange. WeChat sends one code,
/// and sometimes a second one. Only WeChat can recognise a made-up code.
pub(super) const MAX_CODES_PER_LOGIN: usize = 2;

/// Window in which the store counts the codes of a login. Each process counts them for longer.
const CODE_COUNT_WINDOW: Duration = Duration::from_secs(60);

/// WeChat's errcode for an invalid code.
const INVALID_CODE_ERRCODE: i64 = 40_029;

/// Time for which tokens are offered to a store that does not respond (promise: nothing lost).
const STORE_RETRY_TIMEOUT: Duration = Duration::from_secs(60);

/// First and maximum delay between two reads of the outcome.
const INITIAL_DELAY: Duration = Duration::from_millis(20);

const MAX_DELAY: Duration = Duration::from_millis(250);

/// The exchange of one code.
pub(super) struct Exchange {
    pub(super) users: UserTokens,
    pub(super) snapshot_policy: SnapshotPolicy,
    pub(super) code: String,
    pub(super) code_name: LoginCodeKey,
    /// The id of the login.
    pub(super) login_id: u64,
    /// The user under whose id the tokens are stored, if that is not the openid.
    pub(super) bound_user: Option<UserId>,
    pub(super) limiter: Arc<ExchangeLimiter>,
    pub(super) log_limiter: Arc<LogLimiter>,
}

impl Exchange {
    /// Starts the exchange in a task, which sends the outcome to `sender`. The task continues if the
    /// client disconnects, so that the tokens reach the store (promise: nothing lost).
    pub(super) fn spawn(self, sender: OutcomeSender, timeout: Duration) {
        let users = self.users.clone();
        let span = tracing::info_span!(
            target: "tower_wechat::login",
            "wechat.login",
            app = %self.code_name.app,
            result = field::Empty,
        );
        let work = async move { sender.send(self.run(timeout).await) };
        // The users' provider waits for the task at shutdown.
        drop(users.spawn(work.instrument(span)));
    }

    /// Runs the exchange. Every outcome but a spent code refunds the permit's share of the rejection
    /// budget: only codes that WeChat rejects use that budget up.
    async fn run(self, timeout: Duration) -> ExchangeOutcome {
        let started_at = Instant::now();
        let Some(permit) = self.limiter.acquire(timeout).await else {
            if let Some(more) = self.log_limiter.allow_line("turns") {
                tracing::warn!(target: "tower_wechat::login", app = %self.code_name.app, more, "too many logins at once");
            }
            metrics::count_login(LoginFailure::WechatUnavailable.as_str());
            return ExchangeOutcome::Failed(LoginFailure::WechatUnavailable);
        };
        let outcome = match self.admit_code().await {
            Ok(()) => self.claim_and_exchange(started_at, timeout).await,
            Err(verdict) => {
                metrics::count_login(verdict.as_str());
                verdict
            }
        };
        if outcome != ExchangeOutcome::CodeSpent {
            permit.refund_rejection();
        }
        outcome
    }

    /// Binds the code to this login. Returns an outcome if another login has sent the code, or if this
    /// login has sent too many codes.
    async fn admit_code(&self) -> Result<(), ExchangeOutcome> {
        let store = self.users.token_store();
        let binding = store.bind_code(&self.code_name, self.login_id, RESULT_LIFETIME);
        match binding.await.map_err(|error| self.fail_unspent(&error))? {
            CodeBindResult::AlreadyBound => return Ok(()),
            CodeBindResult::Bound => {}
            CodeBindResult::BoundElsewhere => return Err(self.reject_foreign_code()),
        }
        let codes = Quota {
            app: self.code_name.app.clone(),
            purpose: format!("login:{:016x}", self.login_id).into(),
            limit: MAX_CODES_PER_LOGIN as u32,
            window: CODE_COUNT_WINDOW,
        };
        match store.try_consume(&codes).await {
            Ok(true) => Ok(()),
            Ok(false) => {
                self.shorten_binding().await;
                Err(ExchangeOutcome::Failed(LoginFailure::RateLimited))
            }
            Err(error) => Err(self.fail_unspent(&error)),
        }
    }

    /// Returns the outcome for an error before the code was spent. The user can try again.
    fn fail_unspent(&self, error: &Error) -> ExchangeOutcome {
        if let Some(more) = self.log_limiter.allow_line("not_begun") {
            tracing::warn!(target: "tower_wechat::login", app = %self.code_name.app, %error, more, "a login could not begin");
        }
        ExchangeOutcome::from_error(error)
    }

    fn reject_foreign_code(&self) -> ExchangeOutcome {
        if let Some(more) = self.log_limiter.allow_line("foreign") {
            tracing::warn!(target: "tower_wechat::login", app = %self.code_name.app, more, "a used code came under another login's state, or for another user");
        }
        ExchangeOutcome::Failed(LoginFailure::UnknownLogin)
    }

    /// Shortens the binding of a made-up code, which needs no protection.
    async fn shorten_binding(&self) {
        let store = self.users.token_store();
        let bound = store.bind_code(&self.code_name, self.login_id, INVALID_CODE_LIFETIME);
        if let Err(error) = bound.await {
            tracing::debug!(target: "tower_wechat::login", %error, "a made-up code is remembered for longer");
        }
    }

    /// Exchanges the code, or waits for the outcome of another process's exchange.
    async fn claim_and_exchange(&self, started_at: Instant, timeout: Duration) -> ExchangeOutcome {
        let owner = LeaseOwner::unique();
        let mut backoff = Backoff::new(INITIAL_DELAY, MAX_DELAY);
        loop {
            match self
                .users
                .token_store()
                .acquire_code(&self.code_name, &owner, CODE_LEASE)
                .await
            {
                Ok(CodeLeaseResult::Acquired) => return self.exchange_code(&owner).await,
                Ok(CodeLeaseResult::Finished(outcome)) => {
                    return match ExchangeOutcome::from_json(&outcome) {
                        ExchangeOutcome::SignedIn(other) if !self.belongs_to_this_login(&other) => {
                            self.reject_foreign_code()
                        }
                        verdict => verdict,
                    };
                }
                Ok(CodeLeaseResult::Busy) => {}
                // The code is unspent, so that the user can try again. The store may have granted the
                // lease without its reply, or may still grant it: release it in both cases.
                Err(error) => {
                    self.users
                        .release_code(self.code_name.clone(), owner, CODE_LEASE);
                    let outcome = self.fail_unspent(&error);
                    metrics::count_login(outcome.as_str());
                    return outcome;
                }
            }
            if started_at.elapsed() >= timeout {
                return ExchangeOutcome::Failed(LoginFailure::WechatUnavailable);
            }
            backoff.wait_with_jitter().await;
        }
    }

    /// Returns `true` if an outcome belongs to this login and to its bound user.
    fn belongs_to_this_login(&self, signed_in: &SignedInUser) -> bool {
        let named = self.bound_user.as_ref();
        signed_in.login == self.login_id
            && named.is_none_or(|named| named.as_str() == signed_in.user)
    }

    /// Calls WeChat, stores the tokens, and writes the outcome.
    async fn exchange_code(&self, owner: &LeaseOwner) -> ExchangeOutcome {
        let app = &self.code_name.app;
        let mut is_invalid_code = false;
        let outcome = match self.users.wechat().exchange_code(&self.code).await {
            Ok(grant) => self.store_tokens(&grant).await,
            Err(error) => {
                is_invalid_code = error.errcode() == Some(INVALID_CODE_ERRCODE);
                self.log_rejected_code(&error);
                ExchangeOutcome::from_error(&error)
            }
        };
        metrics::count_login(outcome.as_str());
        Span::current().record("result", outcome.as_str());
        // A success is written even if the lease has expired: a code can succeed only once, so that no
        // other process can have a better outcome. A failure is written by the owner only.
        let owner = match outcome {
            ExchangeOutcome::SignedIn(_) => None,
            _ => Some(owner),
        };
        let lifetime = match is_invalid_code {
            true => INVALID_CODE_LIFETIME,
            false => outcome.lifetime(),
        };
        let text = outcome.to_json();
        let write_outcome =
            self.users
                .token_store()
                .finish_code(&self.code_name, owner, &text, lifetime);
        if let Err(error) = write_outcome.await {
            tracing::warn!(target: "tower_wechat::login", %app, %error, "the result of a login could not be told to its copies");
        }
        if is_invalid_code {
            self.shorten_binding().await;
        }
        outcome
    }

    /// Logs a rejected code with a rate limit, because anybody can make up codes.
    fn log_rejected_code(&self, error: &Error) {
        let app = &self.code_name.app;
        if error.kind() == ErrorKind::WechatConfig {
            if let Some(more) = self.log_limiter.allow_line("config") {
                tracing::error!(target: "tower_wechat::login", %app, %error, more, "WeChat refuses this account; the operator must act");
            }
        } else if let Some(more) = self.log_limiter.allow_line("refused_code") {
            tracing::warn!(target: "tower_wechat::login", %app, %error, more, "WeChat did not exchange a code");
        }
    }

    /// Stores the tokens before the outcome is sent (promises: newest wins, nothing lost). If the store
    /// does not respond, retries until the deadline.
    async fn store_tokens(&self, grant: &UserTokenResponse) -> ExchangeOutcome {
        let app = &self.code_name.app;
        let Some(Ok(user)) = grant.openid.as_deref().map(UserId::new) else {
            tracing::warn!(target: "tower_wechat::login", %app, "WeChat exchanged a code for nobody's tokens");
            return ExchangeOutcome::Failed(LoginFailure::WechatUnavailable);
        };
        // The tokens of a virtual user must not be stored under a real user's id.
        let named = self.bound_user.as_ref();
        if grant.snapshot && (self.snapshot_policy == SnapshotPolicy::Deny || named.is_some()) {
            tracing::info!(target: "tower_wechat::login", %app, "a snapshot page's virtual user was refused");
            return ExchangeOutcome::Failed(LoginFailure::SnapshotDenied);
        }
        let user = named.cloned().unwrap_or(user);
        let users = self.users.for_user(grant.snapshot);
        let had_more = !grant.snapshot && self.had_broader_scope(&user, grant).await;
        let deadline = Instant::now() + STORE_RETRY_TIMEOUT;
        let mut backoff = Backoff::new(INITIAL_DELAY, MAX_DELAY);
        let stored = loop {
            let error = match users.store(&user, grant).await {
                Ok(stored) => break stored,
                Err(error) => error,
            };
            if error.kind() != ErrorKind::StoreUnavailable || Instant::now() >= deadline {
                tracing::error!(target: "tower_wechat::login", %app, %error, "a login could not be stored; the user has to log in again");
                return ExchangeOutcome::from_error(&error);
            }
            tracing::warn!(target: "tower_wechat::login", %app, %error, "a login is not stored yet");
            backoff.wait().await;
        };
        tracing::info!(target: "tower_wechat::login", %app, user = ?user.as_str(), scope = grant.scope.as_deref(), snapshot = grant.snapshot, "logged in");
        ExchangeOutcome::SignedIn(SignedInUser {
            user: user.as_str().to_owned(),
            snapshot: grant.snapshot,
            scope: grant.scope.clone(),
            login: self.login_id,
            epoch: stored.sessions_valid_from().map(Timestamp::as_millis),
            had_more,
        })
    }

    /// Returns `true` if the user's stored tokens cover a broader scope than this code. The user is
    /// known only now, when the code is spent and the former tokens are revoked.
    async fn had_broader_scope(&self, user: &UserId, grant: &UserTokenResponse) -> bool {
        let covers = |granted: &str| Scope::UserInfo.is_granted_by(granted);
        if grant.scope.as_deref().is_some_and(covers) {
            return false;
        }
        let before = self.users.granted_scope(user.as_str()).await;
        matches!(before, Ok(GrantedScope::Known(before)) if covers(&before))
    }
}

/// Binds an unspent code to its login, so that no other login can use it.
pub(super) async fn bind_code_to_login(users: &UserTokens, name: &LoginCodeKey, login_id: u64) {
    let bound = users
        .token_store()
        .bind_code(name, login_id, UNSPENT_CODE_LIFETIME)
        .await;
    if let Err(error) = bound {
        tracing::warn!(target: "tower_wechat::login", app = %name.app, %error, "a code that was refused may still be used under another login");
    }
}
