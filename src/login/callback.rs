//! The callback, to which WeChat sends the user with a code and the state.
//!
//! A callback passes these states:
//!
//! 1. **Checked**: state, cookie and limits are verified before the code is spent. On a failure, the
//!    code stays unspent and is bound to its login, so that no other login can use it.
//! 2. **Exchanging**: one exchange runs for all copies of the callback. If it takes longer than the
//!    timeout, the user gets a failure page, and the exchange continues.
//! 3. **Signed in**: the session is set, and the browser is redirected to its page.
//! 4. **Retried**: the code was spent or would reduce the granted scope. Another login begins, a few
//!    times a minute at most.

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

/// Maximum number of logins of one browser within a minute. Several tabs may log in at once; a higher
/// number is a loop of logins that have no effect.
const MAX_LOGINS_PER_WINDOW: usize = MAX_HISTORY_ENTRIES;

impl LoginHandler {
    /// Answers a callback: `?code=…&state=…`, or the state alone if the user denied access.
    pub(super) fn handle_callback(
        &self,
        head: &RequestHead<'_>,
        bound_user: Option<UserId>,
    ) -> HandlerReply {
        match self.check_callback(head) {
            Ok(CallbackAction::Reply(answer)) => HandlerReply::Ready(answer),
            Ok(CallbackAction::BindCodeAndReply {
                code,
                login_id: login,
                reply: answer,
            }) => self.bind_code_then_reply(&code, login, answer),
            Ok(CallbackAction::Exchange {
                code,
                attempt,
                context: before,
            }) => {
                let name = LoginCodeKey::new(self.0.users.app_id(), &code);
                let login = attempt.state.login_id;
                if !self.0.code_limiter.try_admit(login, &name.hash) {
                    return HandlerReply::Ready(self.reject_rate_limited(&attempt.return_to));
                }
                let this = self.clone();
                let exchange = Exchange {
                    users: self.0.users.clone(),
                    snapshot_policy: self.0.settings.snapshot_policy,
                    code,
                    code_name: name,
                    login_id: login,
                    limiter: Arc::clone(&self.0.exchange_limiter),
                    log_limiter: Arc::clone(&self.0.log_limiter),
                    bound_user,
                };
                HandlerReply::Pending(Box::pin(this.finish_login(exchange, attempt, *before)))
            }
            Err((trouble, onward)) => HandlerReply::Ready(self.reject_callback(trouble, onward)),
        }
    }

    fn reject_callback(&self, failure: LoginFailure, button_url: Option<String>) -> LoginReply {
        // Not a warning: WeChat's servers fetch callbacks without cookies every day.
        if let Some(more) = self.0.log_limiter.allow_line(failure.as_str()) {
            tracing::info!(target: "tower_wechat::login", app = %self.0.users.app_id(), trouble = failure.as_str(), more, "refused a callback");
        }
        metrics::count_login(failure.as_str());
        self.reply_with_failure(failure, button_url)
    }

    /// Replies to a callback whose code stays unspent, after the code is bound to its login. Nobody
    /// who has seen the code can then sign in with it.
    fn bind_code_then_reply(&self, code: &str, login_id: u64, reply: LoginReply) -> HandlerReply {
        let name = LoginCodeKey::new(self.0.users.app_id(), code);
        if !self.0.unspent_codes.try_admit(login_id, &name.hash) {
            return HandlerReply::Ready(reply);
        }
        let users = self.0.users.clone();
        HandlerReply::Pending(Box::pin(async move {
            bind_code_to_login(&users, &name, login_id).await;
            reply
        }))
    }

    /// Performs all checks of a callback that are possible before its code is spent.
    fn check_callback(
        &self,
        head: &RequestHead<'_>,
    ) -> Result<CallbackAction, (LoginFailure, Option<String>)> {
        let inner = &*self.0;
        let now = self.now();
        let (code, state) = parse_code_and_state(head.uri).map_err(|trouble| (trouble, None))?;
        let Some(state) = state else {
            if code.is_some() {
                return Err((LoginFailure::UnknownLogin, None));
            }
            if let Some(more) = inner.log_limiter.allow_line("callback_without_query") {
                tracing::warn!(target: "tower_wechat::login", app = %inner.users.app_id(), more, "a callback came without code and state; a proxy in front drops the query, or a person has opened the path");
            }
            return Err((LoginFailure::BadRequest, None));
        };
        let browser = inner.login_cookies.read(head.headers, now);
        let issued = match inner.state_signer.verify(&state, now) {
            Ok(issued) => issued,
            // A login that has succeeded in time still answers its duplicates.
            Err(StateError::Expired(issued)) if browser.has_succeeded(issued) => issued,
            Err(StateError::Expired(issued)) => {
                return self.reject_without_attempt(LoginFailure::Expired, issued, code);
            }
            Err(bad) => return Err((bad.into(), None)),
        };
        let attempt = match browser.find_attempt(issued) {
            Some(attempt) => Some(attempt),
            // Checked before the code is spent: a server that fetches the URL ahead of the user,
            // without the user's cookies, must not spend it.
            None if !inner.settings.allow_missing_state_cookie => {
                return self.reject_without_attempt(LoginFailure::UnknownLogin, issued, code);
            }
            None => None,
        };
        let return_to = attempt.as_ref().map(|attempt| attempt.return_to.clone());
        let Some(code) = code else {
            return Err((
                LoginFailure::AccessDenied,
                return_to.map(|page| inner.settings.login_url(Some(&page), None)),
            ));
        };
        let knows = attempt.is_some();
        let attempt = attempt.unwrap_or_else(|| LoginAttempt {
            state: issued,
            scope: inner.settings.scope,
            return_to: ReturnTo::start_page(&inner.settings.public_url),
            status: AttemptStatus::Open,
            repeats: 0,
        });
        let context = CallbackContext {
            browser_logins: browser,
            has_state_cookie: knows,
            session_user_id: self.session_user_id(head),
            has_session: matches!(inner.session_cookie.identify(head), Identity::User(_)),
            foreign_session: inner.session_cookie.finds_foreign(head),
        };
        if let AttemptStatus::SignedIn {
            fingerprint: spent, ..
        } = &attempt.status
        {
            // A reload, the back button, or WeChat's second request, perhaps with another code.
            let is_other_code =
                code_fingerprint(&LoginCodeKey::new(inner.users.app_id(), &code)) != *spent;
            if context.has_session {
                let answer = self.redirect_to_page(&attempt.return_to, Vec::new());
                let login = issued.login_id;
                return Ok(match is_other_code {
                    true => CallbackAction::BindCodeAndReply {
                        code,
                        login_id: login,
                        reply: answer,
                    },
                    false => CallbackAction::Reply(answer),
                });
            }
            if is_other_code {
                return self.reject_without_attempt(LoginFailure::UnknownLogin, issued, Some(code));
            }
            // The reply that wrote this cookie also set a session. A browser without that session has
            // signed out, so that only another login with WeChat signs it in.
            return Ok(CallbackAction::Reply(self.retry_login(attempt, context)));
        }
        Ok(CallbackAction::Exchange {
            code,
            attempt,
            context: Box::new(context),
        })
    }

    /// Rejects a callback for which this browser has no open login. Binds its code, if it has one, to
    /// its login.
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
        let (wait, mark) = (
            self.0.settings.exchange_timeout,
            code_fingerprint(&exchange.code_name),
        );
        async move {
            if self.would_reduce_scope(&attempt, &context).await {
                bind_code_to_login(&exchange.users, &exchange.code_name, exchange.login_id).await;
                let scope = Scope::UserInfo;
                return self.retry_login(LoginAttempt { scope, ..attempt }, context);
            }
            match self.await_outcome(exchange, wait).await {
                ExchangeOutcome::SignedIn(signed_in) => {
                    self.complete_login(&signed_in, attempt, mark, context)
                }
                // The user is already signed in, by another tab or by an earlier login.
                ExchangeOutcome::CodeSpent if context.has_session => {
                    self.keep_session(attempt, context)
                }
                ExchangeOutcome::CodeSpent => self.retry_login(attempt, context),
                ExchangeOutcome::Failed(trouble) => {
                    let page = self.0.settings.login_url(Some(&attempt.return_to), None);
                    self.reply_with_failure(trouble, Some(page))
                }
            }
        }
    }

    /// Returns the outcome of the exchange, or a failure after `timeout`. Copies of one callback wait
    /// for one exchange.
    async fn await_outcome(&self, exchange: Exchange, timeout: Duration) -> ExchangeOutcome {
        let key = CallbackKey {
            code: exchange.code_name.clone(),
            login_id: exchange.login_id,
            bound_user: exchange.bound_user.clone(),
        };
        let start = |leader| exchange.spawn(leader, timeout);
        let Some(mut outcome) = self.0.running_exchanges.join_or_start(key, start) else {
            if let Some(more) = self.0.log_limiter.allow_line("turns") {
                tracing::warn!(target: "tower_wechat::login", app = %self.0.users.app_id(), more, "too many logins at once");
            }
            metrics::count_login(LoginFailure::WechatUnavailable.as_str());
            return ExchangeOutcome::Failed(LoginFailure::WechatUnavailable);
        };
        let told = tokio::time::timeout(timeout, outcome.wait_for(Option::is_some)).await;
        match told {
            Ok(Ok(verdict)) => verdict.clone().unwrap_or(ExchangeOutcome::CodeSpent),
            // The exchange continues, and the user's next attempt returns its result; or it panicked.
            Ok(Err(_)) | Err(_) => ExchangeOutcome::Failed(LoginFailure::WechatUnavailable),
        }
    }

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
            // Without the state cookie, the browser may keep no cookies that could count its logins.
            self.0.login_limiter.count_login(&signed_in.user, now) - 1
        };
        if logins >= MAX_LOGINS_PER_WINDOW {
            return self.reject_rate_limited(&attempt.return_to);
        }
        let Ok(user) = UserId::new(signed_in.user.as_str()) else {
            return self.reply_with_failure(LoginFailure::WechatUnavailable, None);
        };
        if context.foreign_session {
            self.replaces_foreign_session();
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
        let mut answer = match (signed_in.had_more, attempt.scope) {
            // They are signed in, and asked at once for what they had granted elsewhere.
            (true, Scope::Base) if context.has_state_cookie => {
                self.begin_attempt(Scope::UserInfo, attempt.return_to, context.browser_logins)
            }
            _ => {
                let cookies = self.changed_cookie_headers(&context.browser_logins);
                self.redirect_to_page(&attempt.return_to, cookies)
            }
        };
        answer.set_cookies.insert(0, session);
        answer
    }

    /// Logs that a login has replaced a foreign session. Only completed logins cause this line, because
    /// any client can send such a cookie.
    fn replaces_foreign_session(&self) {
        if let Some(more) = self.0.log_limiter.allow_line("foreign_session") {
            tracing::warn!(
                target: "tower_wechat::login",
                app = %self.0.users.app_id(),
                more,
                "a login has replaced a session that this application cannot read; if it goes on, \
                 another application of this host uses the same cookie: give both the same keys, \
                 or one of them another name for its session"
            );
        }
    }

    /// Redirects to the page with the session of before. This counts as a retry, because a page that
    /// does not accept that session begins another login.
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
            let page = self.0.settings.login_url(Some(&attempt.return_to), None);
            return self.reply_with_failure(LoginFailure::CodeRejected, Some(page));
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

    fn reject_rate_limited(&self, return_to: &ReturnTo) -> LoginReply {
        if let Some(more) = self.0.log_limiter.allow_line("too_often") {
            tracing::warn!(target: "tower_wechat::login", app = %self.0.users.app_id(), more, "a browser logs in again and again");
        }
        metrics::count_login(LoginFailure::RateLimited.as_str());
        let page = self.0.settings.login_url(Some(return_to), None);
        self.reply_with_failure(LoginFailure::RateLimited, Some(page))
    }
}

/// The next step of a callback that has been checked.
enum CallbackAction {
    Reply(LoginReply),
    /// Leave the code unspent, and bind it to its login.
    BindCodeAndReply {
        code: String,
        /// The number of its login.
        login_id: u64,
        reply: LoginReply,
    },
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
