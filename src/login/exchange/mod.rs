//! One code is exchanged once in the whole cluster; every copy of its callback is told the same.

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

/// How long the right to exchange a code is held: longer than the call may take.
const CODE_LEASE: Duration = Duration::from_secs(10);

/// How long it is remembered of a code that WeChat says it was none: made-up codes leave nothing
/// that lasts.
const INVALID_CODE_LIFETIME: Duration = Duration::from_secs(60);

/// How long a code that was refused unspent belongs to its login. WeChat forgets it after five
/// minutes.
const UNSPENT_CODE_LIFETIME: Duration = Duration::from_secs(6 * 60);

/// How many codes of one login are exchanged, by all processes together. WeChat sends one, and
/// sometimes a second one behind it; only WeChat can tell a made-up one.
pub(super) const MAX_CODES_PER_LOGIN: usize = 2;

/// How long the store counts the codes of a login. Each process counts them for longer.
const CODE_COUNT_WINDOW: Duration = Duration::from_secs(60);

/// WeChat's errcode for what is no code.
const INVALID_CODE_ERRCODE: i64 = 40_029;

/// R3: how long what WeChat has granted is offered to a store that does not answer.
const STORE_RETRY_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a copy rests between two looks at the result, at first and at most.
const INITIAL_DELAY: Duration = Duration::from_millis(20);

const MAX_DELAY: Duration = Duration::from_millis(250);

/// A code on its way to a verdict.
pub(super) struct Exchange {
    pub(super) users: UserTokens,
    pub(super) snapshot_policy: SnapshotPolicy,
    pub(super) code: String,
    pub(super) code_name: LoginCodeKey,
    /// The number of the login.
    pub(super) login_id: u64,
    /// Who logs in, where that is not for WeChat to tell.
    pub(super) bound_user: Option<UserId>,
    pub(super) limiter: Arc<ExchangeLimiter>,
    pub(super) log_limiter: Arc<LogLimiter>,
}

impl Exchange {
    /// Starts the exchange, which tells `leader` what came of the code. It is a task of its own
    /// (nothing is lost): whoever asked may hang up, and what WeChat grants reaches the store.
    pub(super) fn spawn(self, sender: OutcomeSender, timeout: Duration) {
        let users = self.users.clone();
        let span = tracing::info_span!(
            target: "tower_wechat::login",
            "wechat.login",
            app = %self.code_name.app,
            result = field::Empty,
        );
        let work = async move { sender.send(self.run(timeout).await) };
        // The provider waits for it at shutdown.
        drop(users.spawn(work.instrument(span)));
    }

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

    /// Whether this login may bring this code: no other login has, and it has not brought many.
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

    /// The code is not spent: the user can try again.
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

    /// What was never a code need not be remembered to be somebody's.
    async fn shorten_binding(&self) {
        let store = self.users.token_store();
        let bound = store.bind_code(&self.code_name, self.login_id, INVALID_CODE_LIFETIME);
        if let Err(error) = bound.await {
            tracing::debug!(target: "tower_wechat::login", %error, "a made-up code is remembered for longer");
        }
    }

    /// Exchanges the code, or waits for what comes of it elsewhere.
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
                // The code is not spent: the user can try again. The claim may have run, or may run
                // later, and must not stand in the way of that.
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

    /// Whether what came of the code came of this login, and of the same user's.
    fn belongs_to_this_login(&self, signed_in: &SignedInUser) -> bool {
        let named = self.bound_user.as_ref();
        signed_in.login == self.login_id
            && named.is_none_or(|named| named.as_str() == signed_in.user)
    }

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
        // A success is told whoever has the right by now: it is the only one there can be.
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

    /// One line for many: anybody can make up codes.
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

    /// Stores what WeChat granted, before anybody is told (R2, R3).
    async fn store_tokens(&self, grant: &UserTokenResponse) -> ExchangeOutcome {
        let app = &self.code_name.app;
        let Some(Ok(user)) = grant.openid.as_deref().map(UserId::new) else {
            tracing::warn!(target: "tower_wechat::login", %app, "WeChat exchanged a code for nobody's tokens");
            return ExchangeOutcome::Failed(LoginFailure::WechatUnavailable);
        };
        // Of a virtual user nothing could be found again under the name of a real one.
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

    /// Returns `true` if what is stored of the user covers more than what they have granted now.
    /// Who it was is known only now, with the code spent and the former pair dead by that.
    async fn had_broader_scope(&self, user: &UserId, grant: &UserTokenResponse) -> bool {
        let covers = |granted: &str| Scope::UserInfo.is_granted_by(granted);
        if grant.scope.as_deref().is_some_and(covers) {
            return false;
        }
        let before = self.users.granted_scope(user.as_str()).await;
        matches!(before, Ok(GrantedScope::Known(before)) if covers(&before))
    }
}

/// Makes a code that is refused unspent useless under any other login.
pub(super) async fn bind_code_to_login(users: &UserTokens, name: &LoginCodeKey, login_id: u64) {
    let bound = users
        .token_store()
        .bind_code(name, login_id, UNSPENT_CODE_LIFETIME)
        .await;
    if let Err(error) = bound {
        tracing::warn!(target: "tower_wechat::login", app = %name.app, %error, "a code that was refused may still be used under another login");
    }
}
