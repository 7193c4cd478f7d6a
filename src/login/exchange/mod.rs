//! Exchange of codes: each code is exchanged once among all processes, and all copies of its
//! callback get the same outcome.
//!
//! # States of an exchange
//!
//! ## Waiting for a permit
//!
//! [`ExchangeLimiter`] limits the exchanges of this login handler. Nothing is written, and the code
//! is unspent.
//!
//! - A permit is available in time: *Admitting*.
//! - No permit is available in time: *Finished* with a failure.
//!
//! ## Admitting
//!
//! The store binds the code to this login, and counts the codes of the login among all processes.
//!
//! - The code is bound to this login: *Claiming*.
//! - The code is bound to another login, the login has sent too many codes, or the store fails:
//!   *Finished* with a failure. The code is unspent.
//!
//! ## Claiming
//!
//! The processes that have a copy of the callback compete for the lease of the code.
//!
//! - This process acquires the lease: *Calling WeChat*.
//! - Another process holds the lease: this process polls the store until the callback's timeout. If
//!   the holder stops without an outcome, the lease expires and another process acquires it.
//! - This process acquires the lease of a *Suspended* exchange: *Choosing the user*.
//! - The store has the outcome: *Finished*.
//! - The store fails: *Finished* with a failure. The process releases the lease, which the store
//!   may have granted although its reply was lost.
//!
//! ## Calling WeChat
//!
//! The call spends the code. From this call on, the task ignores the timeout of its callback.
//!
//! - WeChat returns tokens: *Storing*, or *Choosing the user* if the application has a hook and the
//!   user is not virtual.
//! - WeChat rejects the code or fails: *Finished* with that outcome.
//!
//! ## Choosing the user
//!
//! The application's hook chooses the id under which the tokens are stored. Nothing is stored yet.
//!
//! - The hook returns a user id: *Storing*.
//! - The hook returns an invalid id: *Finished* with a failure.
//! - The hook fails, panics or times out: *Suspended*.
//!
//! ## Suspended
//!
//! The store has the failure for two seconds, and WeChat's response for ten minutes. Copies of the
//! callback that arrive within the two seconds receive the failure.
//!
//! - A later copy acquires the lease, in any process: *Choosing the user*, with that response.
//! - A callback of another login acquires the lease, because the binding of the code has expired:
//!   it releases the lease, and gets a failure. The exchange stays *Suspended*.
//! - No copy arrives within ten minutes, or the process crashed before it wrote the response: the
//!   response is lost, and WeChat rejects the code of a later copy as spent.
//!
//! ## Storing
//!
//! The user's tokens are stored before the outcome, so that a session never exists without its
//! tokens. The write is retried for a minute. After a suspension and in a retry, the exchange is
//! *Finished* as a spent code if the user has logged in or has logged out everywhere since WeChat's
//! response.
//!
//! ## Finished
//!
//! The process that called WeChat writes the outcome to the store. Copies of the callback in the
//! same process receive the outcome from the task. Copies in other processes read the outcome from
//! the store.

mod outcome;
mod pending;
mod shared;
mod storing;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{Instrument, field};

pub(crate) use self::outcome::ExchangeOutcome;
use self::outcome::RESULT_LIFETIME;
pub(super) use self::outcome::{SignedInUser, TRANSIENT_FAILURE_LIFETIME};
use self::shared::OutcomeSender;
pub(super) use self::shared::{CallbackKey, ExchangeStatus, RunningExchanges};
use super::failure::LoginFailure;
use super::hook::LoginHook;
use super::limits::exchanges::ExchangeLimiter;
use super::settings::SnapshotPolicy;
use crate::backoff::Backoff;
use crate::credential::UserId;
use crate::error::{Error, ErrorKind};
use crate::log_limiter::LogLimiter;
use crate::metrics;
use crate::store::{CodeBindResult, CodeLeaseResult, LeaseOwner, LoginCodeKey, Quota};
use crate::users::UserTokens;

/// Duration of the lease of a code: 10 s, because a call to WeChat takes 8 s at most by default.
const CODE_LEASE: Duration = Duration::from_secs(10);

/// Time for which the store keeps the outcome and the binding of a code that WeChat rejects as
/// invalid: one minute. The time is short, because clients can send any number of made-up codes.
const INVALID_CODE_LIFETIME: Duration = Duration::from_secs(60);

/// Time for which an unspent code is bound to its login: a minute more than the five minutes
/// for which WeChat accepts a code.
const UNSPENT_CODE_LIFETIME: Duration = Duration::from_secs(6 * 60);

/// Maximum number of codes of one login that all processes together exchange: two, because WeChat
/// sends one code, and sometimes a second one. Further codes are probably made up.
pub(super) const MAX_CODES_PER_LOGIN: usize = 2;

/// Window of one minute in which the store counts the codes of a login among all processes. Each
/// process also counts the login's codes in memory, without a window.
const CODE_COUNT_WINDOW: Duration = Duration::from_secs(60);

/// WeChat's errcode for an invalid code.
const INVALID_CODE_ERRCODE: i64 = 40_029;

/// First delay between two reads of the outcome, and between two writes of the tokens: 20 ms.
const INITIAL_DELAY: Duration = Duration::from_millis(20);

/// Maximum delay between two reads of the outcome, and between two writes of the tokens: 250 ms.
const MAX_DELAY: Duration = Duration::from_millis(250);

/// The exchange of one code.
pub(super) struct Exchange {
    pub(super) users: UserTokens,
    pub(super) snapshot_policy: SnapshotPolicy,
    pub(super) code: String,
    pub(super) code_key: LoginCodeKey,
    /// The id of the login whose callback sent the code.
    pub(super) login_id: u64,
    /// The user under whose id the tokens are stored. `None` stores the tokens under the openid.
    pub(super) bound_user: Option<UserId>,
    /// The application's hook, which chooses the user under whose id the tokens are stored.
    pub(super) hook: Option<LoginHook>,
    /// Maximum duration of a run of the hook.
    pub(super) hook_timeout: Duration,
    /// The status, which the callbacks of this exchange observe.
    pub(super) status: watch::Sender<ExchangeStatus>,
    pub(super) limiter: Arc<ExchangeLimiter>,
    pub(super) log_limiter: Arc<LogLimiter>,
}

impl Exchange {
    /// Starts the exchange in a task, which sends the outcome to `sender`. The task continues if
    /// the client disconnects, so that the tokens reach the store (promise: nothing lost).
    pub(super) fn spawn(self, sender: OutcomeSender, timeout: Duration) {
        let users = self.users.clone();
        let span = tracing::info_span!(
            target: "tower_wechat::login",
            "wechat.login",
            app = %self.code_key.app,
            result = field::Empty,
        );
        let exchange = async move { sender.send(self.run(timeout).await) };
        // A task continues after its handle is dropped. At shutdown, the users' provider waits for
        // the task.
        drop(users.spawn(exchange.instrument(span)));
    }

    /// Runs the exchange. A code that is spent or invalid uses up one unit of the rejection budget.
    /// Every other outcome refunds that unit.
    async fn run(self, timeout: Duration) -> ExchangeOutcome {
        let started_at = Instant::now();
        let Some(permit) = self.limiter.acquire(timeout).await else {
            if let Some(more) = self.log_limiter.allow_line("turns") {
                tracing::warn!(target: "tower_wechat::login", app = %self.code_key.app, more, "a login was rejected because this process exchanges too many codes; add processes, or block the clients that invent codes");
            }
            metrics::count_login(LoginFailure::WechatUnavailable.as_str());
            return ExchangeOutcome::Failed(LoginFailure::WechatUnavailable);
        };
        let outcome = match self.admit_code().await {
            Ok(()) => self.claim_and_exchange(started_at, timeout).await,
            Err(outcome) => {
                metrics::count_login(outcome.as_str());
                outcome
            }
        };
        if outcome != ExchangeOutcome::CodeSpent {
            permit.refund_rejection();
        }
        outcome
    }

    /// Binds the code to this login in the store. Returns a failure if another login has sent the
    /// code, if this login has sent too many codes, or if the store fails.
    async fn admit_code(&self) -> Result<(), ExchangeOutcome> {
        let store = self.users.token_store();
        let binding = store.bind_code(&self.code_key, self.login_id, RESULT_LIFETIME);
        match binding.await.map_err(|error| self.fail_unspent(&error))? {
            CodeBindResult::AlreadyBound => return Ok(()),
            CodeBindResult::Bound => {}
            CodeBindResult::BoundElsewhere => return Err(self.reject_foreign_code()),
        }
        let codes = Quota {
            app: self.code_key.app.clone(),
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

    /// Logs an error of the store that occurred before the code was spent, and returns the outcome
    /// for that error. The user can try again.
    fn fail_unspent(&self, error: &Error) -> ExchangeOutcome {
        if let Some(more) = self.log_limiter.allow_line("not_begun") {
            tracing::warn!(target: "tower_wechat::login", app = %self.code_key.app, %error, more, "a code could not be exchanged because the store failed; the user can try again");
        }
        ExchangeOutcome::from_error(error)
    }

    /// Logs that the code belongs to another login or to another user, and returns the failure.
    fn reject_foreign_code(&self) -> ExchangeOutcome {
        if let Some(more) = self.log_limiter.allow_line("foreign") {
            tracing::warn!(target: "tower_wechat::login", app = %self.code_key.app, more, "a code of another login or of another user was rejected");
        }
        ExchangeOutcome::Failed(LoginFailure::UnknownLogin)
    }

    /// Shortens the binding of a code that WeChat rejects as invalid, or that exceeds the limit of
    /// its login. Such a code is probably made up and needs no protection.
    async fn shorten_binding(&self) {
        let store = self.users.token_store();
        let binding = store.bind_code(&self.code_key, self.login_id, INVALID_CODE_LIFETIME);
        if let Err(error) = binding.await {
            tracing::debug!(target: "tower_wechat::login", %error, "the binding of an invalid code could not be shortened; it expires later");
        }
    }

    /// Exchanges the code, or waits for the outcome of another process's exchange.
    async fn claim_and_exchange(&self, started_at: Instant, timeout: Duration) -> ExchangeOutcome {
        let (owner, lease) = (LeaseOwner::unique(), self.lease_duration());
        let mut backoff = Backoff::new(INITIAL_DELAY, MAX_DELAY);
        loop {
            match self
                .users
                .token_store()
                .acquire_code(&self.code_key, &owner, lease)
                .await
            {
                Ok(CodeLeaseResult::Acquired) => return self.exchange_code(&owner).await,
                Ok(CodeLeaseResult::Resumed(pending)) => return self.resume(&owner, pending).await,
                Ok(CodeLeaseResult::Finished(json)) => {
                    return match ExchangeOutcome::from_json(&json) {
                        ExchangeOutcome::SignedIn(other) if !self.belongs_to_this_login(&other) => {
                            self.reject_foreign_code()
                        }
                        outcome => outcome,
                    };
                }
                Ok(CodeLeaseResult::Busy) => {}
                // The code is unspent, so that the user can try again. The store may have granted
                // the lease although its reply was lost, or may still grant the lease. The release
                // covers both cases.
                Err(error) => {
                    self.users.release_code(self.code_key.clone(), owner, lease);
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

    /// Returns the duration of the lease, which covers the call to WeChat and the hook.
    fn lease_duration(&self) -> Duration {
        match &self.hook {
            Some(_) => CODE_LEASE.saturating_add(self.hook_timeout),
            None => CODE_LEASE,
        }
    }

    /// Returns `true` if an outcome belongs to this login and to its bound user.
    fn belongs_to_this_login(&self, signed_in: &SignedInUser) -> bool {
        let bound_user = self.bound_user.as_ref();
        signed_in.login == self.login_id
            && bound_user.is_none_or(|user| user.as_str() == signed_in.user)
    }

    /// Exchanges the code at WeChat, and ends the login with the response.
    async fn exchange_code(&self, owner: &LeaseOwner) -> ExchangeOutcome {
        match self.users.wechat().exchange_code(&self.code).await {
            Ok(response) => {
                let received_at = self.users.clock().now();
                self.end_login(owner, &response, received_at, None).await
            }
            Err(error) => {
                self.log_rejected_code(&error);
                let outcome = ExchangeOutcome::from_error(&error);
                if error.errcode() == Some(INVALID_CODE_ERRCODE) {
                    self.finish(owner, &outcome, INVALID_CODE_LIFETIME).await;
                    self.shorten_binding().await;
                } else {
                    self.finish(owner, &outcome, outcome.lifetime()).await;
                }
                outcome
            }
        }
    }

    /// Counts the outcome, and writes it to the store.
    async fn finish(&self, owner: &LeaseOwner, outcome: &ExchangeOutcome, lifetime: Duration) {
        outcome.record();
        // A success is written even if the lease has expired. A code can succeed only once, so no
        // other process can have a better outcome. A failure is written by the owner only.
        let owner = match outcome {
            ExchangeOutcome::SignedIn(_) => None,
            ExchangeOutcome::CodeSpent | ExchangeOutcome::Failed(_) => Some(owner),
        };
        let (app, json) = (&self.code_key.app, outcome.to_json());
        let store = self.users.token_store();
        let write = store.finish_code(&self.code_key, owner, &json, lifetime);
        if let Err(error) = write.await {
            tracing::warn!(target: "tower_wechat::login", %app, %error, "the outcome of a login could not be stored; a copy of its callback may begin another login");
        }
    }

    /// Logs that WeChat did not exchange a code. The line has a rate limit, because any client can
    /// invent codes.
    fn log_rejected_code(&self, error: &Error) {
        let app = &self.code_key.app;
        if error.kind() == ErrorKind::WechatConfig {
            if let Some(more) = self.log_limiter.allow_line("config") {
                tracing::error!(target: "tower_wechat::login", %app, %error, more, "WeChat rejected this account; the operator must act");
            }
        } else if let Some(more) = self.log_limiter.allow_line("refused_code") {
            tracing::warn!(target: "tower_wechat::login", %app, %error, more, "WeChat did not exchange a code");
        }
    }
}

/// Binds an unspent code to its login, so that no other login can use it.
pub(super) async fn bind_code_to_login(users: &UserTokens, code_key: &LoginCodeKey, login_id: u64) {
    let binding = users
        .token_store()
        .bind_code(code_key, login_id, UNSPENT_CODE_LIFETIME);
    if let Err(error) = binding.await {
        tracing::warn!(target: "tower_wechat::login", app = %code_key.app, %error, "an unspent code could not be bound to its login; another login can use it until it expires");
    }
}
