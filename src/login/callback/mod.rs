//! The callback, to which WeChat sends the user with a code and the state.
//!
//! # States of a callback
//!
//! ## In a frame
//!
//! The first state of a cross-site request in a frame, if the login has a website. The reply is a
//! page that loads the callback again, with the browser's cookies. Next: *Checking*, for that second
//! request.
//!
//! ## Checking
//!
//! [`check_callback`](LoginHandler::check_callback) verifies the query, the state and the state
//! cookie. The checks need neither the store nor WeChat, so that invalid requests cost little.
//!
//! - Everything is valid: *Exchanging*.
//! - The query or the state is invalid, or the user denied access: a failure page.
//! - The browser did not begin this login, the login has expired, or WeChat names another account
//!   than that on whose behalf a platform logs in: a failure page. The code stays unspent. Before
//!   the reply, the store binds the code to this login.
//! - The login has already signed its user in: a redirect to the page if the browser has a session.
//!   Without a session, the same code leads to *Retrying*, and another code to a failure page.
//!
//! ## Exchanging
//!
//! One exchange runs for all copies of the callback, and spends the code.
//!
//! - The code would reduce the scope that the user has granted: *Retrying*, before the code is
//!   spent.
//! - WeChat has returned the user's tokens: *Signed in*.
//! - The code was spent before: a redirect to the page if the browser has a session, otherwise
//!   *Retrying*.
//! - The exchange has failed, or takes longer than its timeout: a failure page. A running exchange
//!   continues, and the user's next attempt finds its outcome.
//!
//! ## Signed in
//!
//! The reply sets the session cookie, removes that of the login's other app, and redirects the
//! browser to its page. If the user had granted
//! more in another login, the reply redirects to WeChat for that scope instead. A browser that has
//! logged in too often gets a failure page and no session.
//!
//! ## Retrying
//!
//! Another login begins for the same page, with the app that the present `User-Agent` chooses. A
//! browser that has used all its retries of the last
//! minute, or that has no state cookie to count them, gets a failure page.

mod check;
mod frame;
mod replies;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use self::check::{CallbackAction, code_fingerprint};
use super::context::CallbackContext;
use super::cookies::LoginAttempt;
use super::exchange::{CallbackKey, Exchange, ExchangeOutcome, ExchangeStatus, bind_code_to_login};
use super::failure::LoginFailure;
use super::handler::LoginHandler;
use super::reply::{HandlerReply, LoginReply};
use super::scope::Scope;
use crate::credential::UserId;
use crate::identity::RequestHead;
use crate::metrics;
use crate::store::LoginCodeKey;

/// Maximum duration of a hook, also if callbacks wait longer: one hour, which bounds the lease of a
/// code.
const MAX_HOOK_TIMEOUT: Duration = Duration::from_secs(3_600);

impl LoginHandler {
    /// Answers a callback: `?code=…&state=…`, or the state alone if the user denied access.
    pub(super) fn handle_callback(
        &self,
        head: &RequestHead<'_>,
        bound_user: Option<UserId>,
    ) -> HandlerReply {
        match self.check_callback(head) {
            Ok(CallbackAction::Reply(reply)) => HandlerReply::Ready(reply),
            Ok(CallbackAction::BindCodeAndReply {
                code,
                login_id,
                reply,
            }) => self.bind_code_then_reply(&code, login_id, reply),
            Ok(CallbackAction::Exchange {
                code,
                attempt,
                context,
            }) => {
                let code_key = LoginCodeKey::new(self.0.users.app_id(), &code);
                let login_id = attempt.state.login_id;
                if !self.0.code_limiter.try_admit(login_id, &code_key.hash) {
                    return HandlerReply::Ready(self.reject_rate_limited(&attempt.return_to));
                }
                let this = self.clone();
                let exchange = Exchange {
                    users: self.0.users.clone(),
                    snapshot_policy: self.0.settings.snapshot_policy,
                    code,
                    code_key,
                    login_id,
                    hook: self.0.settings.hook.clone(),
                    hook_timeout: self.0.settings.exchange_timeout.min(MAX_HOOK_TIMEOUT),
                    status: watch::Sender::new(ExchangeStatus::Exchanging),
                    limiter: Arc::clone(&self.0.exchange_limiter),
                    log_limiter: Arc::clone(&self.0.log_limiter),
                    bound_user,
                };
                HandlerReply::Pending(Box::pin(this.finish_login(exchange, attempt, *context)))
            }
            Err((failure, button_url)) => {
                HandlerReply::Ready(self.reject_callback(failure, button_url))
            }
        }
    }

    /// Replies to a callback whose code stays unspent, after the code is bound to its login. A
    /// person who has seen the code then cannot sign in with it, because no other login can use it.
    fn bind_code_then_reply(&self, code: &str, login_id: u64, reply: LoginReply) -> HandlerReply {
        let code_key = LoginCodeKey::new(self.0.users.app_id(), code);
        // Each binding is a write to the store, and a client can invent any number of codes.
        if !self.0.unspent_codes.try_admit(login_id, &code_key.hash) {
            return HandlerReply::Ready(reply);
        }
        let users = self.0.users.clone();
        HandlerReply::Pending(Box::pin(async move {
            bind_code_to_login(&users, &code_key, login_id).await;
            reply
        }))
    }

    /// Exchanges the code, and returns the reply for the outcome. Retries the login instead if the
    /// code would reduce a granted scope.
    fn finish_login(
        self,
        exchange: Exchange,
        attempt: LoginAttempt,
        context: CallbackContext,
    ) -> impl Future<Output = LoginReply> + Send {
        let timeout = self.0.settings.exchange_timeout;
        let fingerprint = code_fingerprint(&exchange.code_key);
        async move {
            // The scope is checked before the exchange, because spending the code replaces the
            // user's tokens.
            if self.would_reduce_scope(&attempt, &context).await {
                bind_code_to_login(&exchange.users, &exchange.code_key, exchange.login_id).await;
                let scope = Scope::UserInfo;
                return self.retry_login(LoginAttempt { scope, ..attempt }, context);
            }
            match self.await_outcome(exchange, timeout).await {
                ExchangeOutcome::SignedIn(signed_in) => {
                    self.complete_login(&signed_in, attempt, fingerprint, context)
                }
                // The user is already signed in, by another tab or by an earlier login.
                ExchangeOutcome::CodeSpent if context.has_session => {
                    self.keep_session(attempt, context)
                }
                ExchangeOutcome::CodeSpent => self.retry_login(attempt, context),
                // The button loads the callback again, which runs the hook with the kept response
                // of WeChat. Another login would need a visit to WeChat.
                ExchangeOutcome::Failed(failure @ LoginFailure::HookFailed) => {
                    self.reply_with_failure(failure, Some(String::new()))
                }
                ExchangeOutcome::Failed(failure) => {
                    let login_url = self.0.settings.login_url(Some(&attempt.return_to), None);
                    self.reply_with_failure(failure, Some(login_url))
                }
            }
        }
    }

    /// Returns the outcome of the exchange, or a failure after `timeout`. Copies of one callback
    /// wait for one exchange.
    async fn await_outcome(&self, exchange: Exchange, timeout: Duration) -> ExchangeOutcome {
        let key = CallbackKey {
            code: exchange.code_key.clone(),
            login_id: exchange.login_id,
            bound_user: exchange.bound_user.clone(),
        };
        let status = exchange.status.clone();
        let start = |sender| exchange.spawn(sender, timeout);
        let running = &self.0.running_exchanges;
        let Some(mut status) = running.join_or_start(key, status, start) else {
            if let Some(more) = self.0.log_limiter.allow_line("turns") {
                tracing::warn!(target: "tower_wechat::login", app = %self.0.users.app_id(), more, "a login was rejected because this process exchanges too many codes; add processes, or block the clients that invent codes");
            }
            metrics::count_login(LoginFailure::WechatUnavailable.as_str());
            return ExchangeOutcome::Failed(LoginFailure::WechatUnavailable);
        };
        // The timeout ends the wait only. The exchange runs in a separate task and continues.
        let ended = status.wait_for(ExchangeStatus::is_ended);
        let _ = tokio::time::timeout(timeout, ended).await;
        match &*status.borrow() {
            ExchangeStatus::Ended(outcome) => outcome.clone(),
            // The wait has timed out, and the user's next attempt finds the outcome.
            ExchangeStatus::RunningHook => ExchangeOutcome::Failed(LoginFailure::HookFailed),
            // The wait has timed out, or the exchange has panicked.
            ExchangeStatus::Exchanging => ExchangeOutcome::Failed(LoginFailure::WechatUnavailable),
        }
    }
}
