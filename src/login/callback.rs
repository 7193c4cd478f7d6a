//! The callback, to which WeChat sends the user with a code and the state.
//!
//! # States of a callback
//!
//! ## Checking
//!
//! [`check_callback`](LoginHandler::check_callback) verifies the query, the state and the state
//! cookie. The checks need neither the store nor WeChat, so that invalid requests cost little.
//!
//! - Everything is valid: *Exchanging*.
//! - The query or the state is invalid, or the user denied access: a failure page.
//! - The browser did not begin this login, or the login has expired: a failure page. A code is
//!   bound to its login first, and stays unspent.
//! - The login has already signed its user in: a redirect to the page if the browser has a session,
//!   otherwise *Retrying*.
//!
//! ## Exchanging
//!
//! One exchange runs for all copies of the callback. It spends the code.
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
//! The reply sets the session cookie and redirects the browser to its page. If the user had granted
//! more in another login, the reply redirects to WeChat for that scope instead. A browser that has
//! logged in too often gets a failure page and no session.
//!
//! ## Retrying
//!
//! Another login begins for the same page. A browser that has used all its retries of this minute,
//! or that has no state cookie to count them, gets a failure page.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use super::context::CallbackContext;
use super::cookies::{AttemptStatus, CodeFingerprint, LoginAttempt, MAX_HISTORY_ENTRIES};
use super::exchange::{CallbackKey, Exchange, ExchangeOutcome, SignedInUser, bind_code_to_login};
use super::failure::LoginFailure;
use super::handler::LoginHandler;
use super::query::parse_code_and_state;
use super::reply::{HandlerReply, LoginReply};
use super::return_to::ReturnTo;
use super::scope::Scope;
use super::state::{LoginState, StateError, unix_seconds};
use crate::clock::Timestamp;
use crate::credential::UserId;
use crate::identity::{Identify, Identity, RequestHead, Session};
use crate::metrics;
use crate::store::LoginCodeKey;

/// Maximum number of logins of one browser within a minute. Several tabs may log in at once; a
/// higher number is a loop of logins that have no effect.
const MAX_LOGINS_PER_WINDOW: usize = MAX_HISTORY_ENTRIES;

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

    /// Logs and counts a failure, and returns its page.
    fn reject_callback(&self, failure: LoginFailure, button_url: Option<String>) -> LoginReply {
        // Not a warning, because WeChat's servers fetch callbacks without cookies every day.
        if let Some(more) = self.0.log_limiter.allow_line(failure.as_str()) {
            tracing::info!(target: "tower_wechat::login", app = %self.0.users.app_id(), trouble = failure.as_str(), more, "a callback was rejected");
        }
        metrics::count_login(failure.as_str());
        self.reply_with_failure(failure, button_url)
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

    /// Performs all checks of a callback that are possible before its code is spent.
    ///
    /// The state is verified first: a state of this application names the login, to which a code
    /// can be bound. The cookie is verified before the code is looked at, so that a server that
    /// fetches the URL ahead of the user, without the user's cookies, does not spend the code.
    fn check_callback(
        &self,
        head: &RequestHead<'_>,
    ) -> Result<CallbackAction, (LoginFailure, Option<String>)> {
        let inner = &*self.0;
        let now = self.now();
        let (code, state) = parse_code_and_state(head.uri).map_err(|failure| (failure, None))?;
        let Some(state) = state else {
            if code.is_some() {
                return Err((LoginFailure::UnknownLogin, None));
            }
            if let Some(more) = inner.log_limiter.allow_line("callback_without_query") {
                tracing::warn!(target: "tower_wechat::login", app = %inner.users.app_id(), more, "a callback had neither code nor state; a person opened its path, or a proxy dropped its query and must pass it on");
            }
            return Err((LoginFailure::BadRequest, None));
        };
        let browser_logins = inner.login_cookies.read(head.headers, now);
        let state = match inner.state_signer.verify(&state, now) {
            Ok(state) => state,
            // A login that has succeeded in time still answers its duplicates.
            Err(StateError::Expired(state)) if browser_logins.has_succeeded(state) => state,
            Err(StateError::Expired(state)) => {
                return self.reject_without_attempt(LoginFailure::Expired, state, code);
            }
            Err(error) => return Err((error.into(), None)),
        };
        let known_attempt = browser_logins.find_attempt(state);
        let has_state_cookie = known_attempt.is_some();
        if !has_state_cookie && !inner.settings.allow_missing_state_cookie {
            return self.reject_without_attempt(LoginFailure::UnknownLogin, state, code);
        }
        let Some(code) = code else {
            let login_url =
                |attempt: LoginAttempt| inner.settings.login_url(Some(&attempt.return_to), None);
            return Err((LoginFailure::AccessDenied, known_attempt.map(login_url)));
        };
        let attempt = known_attempt.unwrap_or_else(|| LoginAttempt {
            state,
            scope: inner.settings.scope,
            return_to: ReturnTo::start_page(&inner.settings.public_url),
            status: AttemptStatus::Open,
            repeats: 0,
        });
        let context = CallbackContext {
            browser_logins,
            has_state_cookie,
            session_user_id: self.session_user_id(head),
            has_session: matches!(inner.session_cookie.identify(head), Identity::User(_)),
            foreign_session: inner.session_cookie.finds_foreign(head),
        };
        match attempt.status {
            AttemptStatus::SignedIn { fingerprint, .. } => {
                self.answer_duplicate(code, fingerprint, attempt, context)
            }
            AttemptStatus::Open | AttemptStatus::Retried { .. } => Ok(CallbackAction::Exchange {
                code,
                attempt,
                context: Box::new(context),
            }),
        }
    }

    /// Answers a callback of a login that has already signed its user in: a reload, the back
    /// button, or WeChat's second request, which may have another code. `fingerprint` is that of
    /// the spent code.
    fn answer_duplicate(
        &self,
        code: String,
        fingerprint: CodeFingerprint,
        attempt: LoginAttempt,
        context: CallbackContext,
    ) -> Result<CallbackAction, (LoginFailure, Option<String>)> {
        let code_key = LoginCodeKey::new(self.0.users.app_id(), &code);
        let is_other_code = code_fingerprint(&code_key) != fingerprint;
        match (context.has_session, is_other_code) {
            (true, false) => Ok(CallbackAction::Reply(
                self.redirect_to_page(&attempt.return_to, Vec::new()),
            )),
            (true, true) => Ok(CallbackAction::BindCodeAndReply {
                code,
                login_id: attempt.state.login_id,
                reply: self.redirect_to_page(&attempt.return_to, Vec::new()),
            }),
            (false, true) => {
                self.reject_without_attempt(LoginFailure::UnknownLogin, attempt.state, Some(code))
            }
            // The reply that wrote this cookie also set a session. A browser without that session
            // has signed out, so that only another login with WeChat signs it in.
            (false, false) => Ok(CallbackAction::Reply(self.retry_login(attempt, context))),
        }
    }

    /// Rejects a callback for which this browser has no open login. Binds its code, if it has one,
    /// to its login.
    fn reject_without_attempt(
        &self,
        failure: LoginFailure,
        state: LoginState,
        code: Option<String>,
    ) -> Result<CallbackAction, (LoginFailure, Option<String>)> {
        let Some(code) = code else {
            return Err((failure, None));
        };
        Ok(CallbackAction::BindCodeAndReply {
            code,
            login_id: state.login_id,
            reply: self.reject_callback(failure, None),
        })
    }

    /// Exchanges the code, and returns the reply for the outcome.
    fn finish_login(
        self,
        exchange: Exchange,
        attempt: LoginAttempt,
        context: CallbackContext,
    ) -> impl Future<Output = LoginReply> + Send {
        let timeout = self.0.settings.exchange_timeout;
        let fingerprint = code_fingerprint(&exchange.code_key);
        async move {
            // Checked before the exchange, because a spent code has already replaced the user's
            // tokens.
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
        let start = |sender| exchange.spawn(sender, timeout);
        let Some(mut outcome) = self.0.running_exchanges.join_or_start(key, start) else {
            if let Some(more) = self.0.log_limiter.allow_line("turns") {
                tracing::warn!(target: "tower_wechat::login", app = %self.0.users.app_id(), more, "a login was rejected because this process exchanges too many codes; add processes, or block the clients that invent codes");
            }
            metrics::count_login(LoginFailure::WechatUnavailable.as_str());
            return ExchangeOutcome::Failed(LoginFailure::WechatUnavailable);
        };
        // The timeout ends the wait only. The exchange runs in a task of its own and continues.
        match tokio::time::timeout(timeout, outcome.wait_for(Option::is_some)).await {
            Ok(Ok(outcome)) => outcome.clone().unwrap_or(ExchangeOutcome::CodeSpent),
            // The exchange has panicked.
            Ok(Err(_)) => ExchangeOutcome::Failed(LoginFailure::WechatUnavailable),
            // The user's next attempt finds the outcome.
            Err(_) => ExchangeOutcome::Failed(LoginFailure::WechatUnavailable),
        }
    }

    /// Returns the reply that signs a user in.
    ///
    /// The limit of logins applies here, after the code is spent: only completed logins count, and
    /// only now is the user known by whom browsers without cookies are counted.
    fn complete_login(
        &self,
        signed_in: &SignedInUser,
        mut attempt: LoginAttempt,
        fingerprint: CodeFingerprint,
        mut context: CallbackContext,
    ) -> LoginReply {
        let now = self.now();
        let logins = if context.has_state_cookie {
            context.browser_logins.recent_logins()
        } else {
            // Without the state cookie, the browser may keep no cookies that could count its
            // logins.
            self.0.login_limiter.count_login(&signed_in.user, now) - 1
        };
        if logins >= MAX_LOGINS_PER_WINDOW {
            return self.reject_rate_limited(&attempt.return_to);
        }
        let Ok(user) = UserId::new(signed_in.user.as_str()) else {
            return self.reply_with_failure(LoginFailure::WechatUnavailable, None);
        };
        if context.foreign_session {
            self.log_replaced_session();
        }
        let granted = signed_in.scope.as_deref();
        let session = Session {
            snapshot: signed_in.snapshot,
            scope_declined: granted.is_some_and(|granted| !attempt.scope.is_granted_by(granted)),
            recent_login: true,
            logged_in_at: Some(now),
            last_known_logout: signed_in.epoch.map(Timestamp::from_millis),
        };
        attempt.status = AttemptStatus::SignedIn {
            at: unix_seconds(now),
            fingerprint,
        };
        context.browser_logins.record_end(&attempt);
        let session = self.0.session_cookie.issue_with(&user, session);
        let lost_scope = signed_in.had_more && attempt.scope == Scope::Base;
        let mut reply = if lost_scope && context.has_state_cookie {
            // The user is signed in, and grants again what the former tokens covered.
            self.begin_attempt(Scope::UserInfo, attempt.return_to, context.browser_logins)
        } else {
            let cookies = self.changed_cookie_headers(&context.browser_logins);
            self.redirect_to_page(&attempt.return_to, cookies)
        };
        reply.set_cookies.insert(0, session);
        reply
    }

    /// Logs that a login has replaced a foreign session. Only completed logins cause this line,
    /// because any client can send such a cookie.
    fn log_replaced_session(&self) {
        if let Some(more) = self.0.log_limiter.allow_line("foreign_session") {
            tracing::warn!(
                target: "tower_wechat::login",
                app = %self.0.users.app_id(),
                more,
                "a login replaced a session that this application cannot read; if this repeats, \
                 another application on this host uses the same cookie: give both the same keys, \
                 or give one of them another cookie name"
            );
        }
    }

    /// Redirects to the page with the session that the browser already has. This counts as a retry,
    /// because a page that does not accept that session begins another login.
    fn keep_session(&self, mut attempt: LoginAttempt, mut context: CallbackContext) -> LoginReply {
        if self.has_used_all_retries(&context) {
            return self.reject_rate_limited(&attempt.return_to);
        }
        let at = unix_seconds(self.now());
        attempt.status = AttemptStatus::Retried { at };
        context.browser_logins.record_end(&attempt);
        let cookies = self.changed_cookie_headers(&context.browser_logins);
        self.redirect_to_page(&attempt.return_to, cookies)
    }

    /// Begins another login for the same page, a few times a minute at most.
    fn retry_login(&self, mut attempt: LoginAttempt, mut context: CallbackContext) -> LoginReply {
        if self.has_used_all_retries(&context) {
            return self.reject_rate_limited(&attempt.return_to);
        }
        if !context.has_state_cookie {
            // Without the state cookie, no cookie would count the retries.
            let login_url = self.0.settings.login_url(Some(&attempt.return_to), None);
            return self.reply_with_failure(LoginFailure::CodeRejected, Some(login_url));
        }
        let at = unix_seconds(self.now());
        attempt.status = AttemptStatus::Retried { at };
        context.browser_logins.record_end(&attempt);
        self.begin_attempt(attempt.scope, attempt.return_to, context.browser_logins)
    }

    /// Returns `true` if this browser has used all retries of this minute. The history has
    /// [`MAX_HISTORY_ENTRIES`] logins, so that a higher setting counts as that number.
    fn has_used_all_retries(&self, context: &CallbackContext) -> bool {
        context.browser_logins.recent_retries()
            >= self.0.settings.max_retries.min(MAX_HISTORY_ENTRIES)
    }

    /// Logs and counts a browser that has logged in too often, and returns its failure page.
    fn reject_rate_limited(&self, return_to: &ReturnTo) -> LoginReply {
        if let Some(more) = self.0.log_limiter.allow_line("too_often") {
            tracing::warn!(target: "tower_wechat::login", app = %self.0.users.app_id(), more, "a browser was rejected after too many logins, retries or codes; check that it keeps cookies, and that the pages accept its session");
        }
        metrics::count_login(LoginFailure::RateLimited.as_str());
        let login_url = self.0.settings.login_url(Some(return_to), None);
        self.reply_with_failure(LoginFailure::RateLimited, Some(login_url))
    }
}

/// The next step of a callback that has been checked.
enum CallbackAction {
    /// Reply without an exchange.
    Reply(LoginReply),
    /// Leave the code unspent, and bind it to its login.
    BindCodeAndReply {
        code: String,
        login_id: u64,
        reply: LoginReply,
    },
    /// Exchange the code.
    Exchange {
        code: String,
        attempt: LoginAttempt,
        context: Box<CallbackContext>,
    },
}

/// Returns the fingerprint of a code in a cookie.
fn code_fingerprint(code: &LoginCodeKey) -> CodeFingerprint {
    CodeFingerprint::from_hash(&code.hash)
}
